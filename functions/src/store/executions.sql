-- A page of the caller's executions, newest first, looking at no more than $9 rows. One row without an id when
-- there are none.
-- $1 token hash, $2 status or null, $3 job or null, $4 queue or null, $5 created after, $6 created before,
-- $7 cursor (an id) or null, $8 limit, $9 examined at most
select x.*
from (
  select k.tenant_id from good_keys k
  where k.token_hash = $1
) caller
  left join lateral (
    select e.id, e.job_id, j.name as job_name, q.name as queue, e.priority, at.status, at.attempt,
      e.scheduled_at, e.created_at, at.started_at, at.finished_at
    from (
      select e.* from executions e
      where e.tenant_id = caller.tenant_id
        and ($7::uuid is null or e.id < $7)
        and ($5::timestamptz is null or e.id >= uuid7_floor($5))
        and ($6::timestamptz is null or e.id < uuid7_floor($6))
      order by e.id desc
      limit $9
    ) e
      join jobs j on j.id = e.job_id
      join queues q on q.id = e.queue_id
      cross join lateral (
        select
          execution_status(l.execution_id is not null, coalesce(r.tries, p.tries), d.tries, d.due_at, last.status) as status,
          coalesce(l.attempt, r.attempt, p.attempt, d.attempt, last.best, 0) as attempt,
          coalesce(l.started_at, last.started_at) as started_at,
          case when l.execution_id is null and r.execution_id is null and p.execution_id is null and d.execution_id is null
            then last.finished_at end as finished_at
        from (select e.id) one
          left join leases l on l.execution_id = one.id
          left join ready r on r.execution_id = one.id
          left join parked p on p.execution_id = one.id
          left join delayed d on d.execution_id = one.id
          left join lateral (
            select a.status, a.started_at, a.finished_at, max(a.attempt) over () as best
            from attempts a where a.execution_id = one.id
            order by a.attempt = 0 desc, a.attempt desc limit 1) last on true
      ) at
    where ($2::text is null or at.status = $2)
      and ($3::uuid is null or e.job_id = $3)
      and ($4::text is null or q.name = $4)
    order by e.id desc
    limit $8
  ) x on true
order by x.id desc
