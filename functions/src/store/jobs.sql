-- One of the caller's jobs, or a page of those not deleted, newest first. One row without an id when there is none.
-- $1 token hash, $2 job id or null, $3 cursor (an id) or null, $4 limit
select m.*
from (
  select k.tenant_id from good_keys k
  where k.token_hash = $1
) caller
  left join lateral (
    select j.id, j.name, j.command, j.image, j.env::text as env, q.name as queue, j.priority,
      j.timeout_seconds, j.max_running, j.max_attempts, j.backoff_seconds, j.backoff_factor, j.backoff_cap_seconds,
      j.created_at, j.updated_at, j.deleted_at
    from jobs j join queues q on q.id = j.queue_id
    -- Compared and ordered as rows, so that only the index that begins with the tenant gives this order.
    where (j.tenant_id, j.id) < (caller.tenant_id, coalesce($3::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
      and (j.tenant_id, j.id) >= (caller.tenant_id, '00000000-0000-0000-0000-000000000000')
      and ($2::uuid is null or j.id = $2)
      and ($2::uuid is not null or j.deleted_at is null)
    order by j.tenant_id desc, j.id desc
    limit $4
  ) m on true
order by m.id desc
