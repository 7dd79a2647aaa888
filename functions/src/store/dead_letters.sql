-- A page of the caller's dead letters, newest first. One row without an id when there are none.
-- $1 token hash, $2 failed at and $3 id to begin before, $4 limit
select d.*
from (
  select k.tenant_id from good_keys k
  where k.token_hash = $1
) caller
  left join lateral (
    select d.execution_id, d.job_id, j.name as job_name, d.attempts, d.reason, d.failed_at
    from dead_letters d join jobs j on j.id = d.job_id
    where d.tenant_id = caller.tenant_id and d.retried_as is null
      and ($2::timestamptz is null or (d.failed_at, d.execution_id) < ($2, $3))
    order by d.failed_at desc, d.execution_id desc
    limit $4
  ) d on true
order by d.failed_at desc, d.execution_id desc
