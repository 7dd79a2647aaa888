-- A page of the caller's executions, newest first, looking at no more than $9 rows, and the row after which the next
-- page begins, if there may be one. One row without an id when the page is empty.
-- $1 token hash, $2 status or null, $3 job or null, $4 queue or null, $5 created after, $6 created before,
-- $7 cursor (an id) or null, $8 limit, $9 examined at most
with caller as materialized (
  select k.tenant_id from good_keys k
  where k.token_hash = $1
),
-- Compared and ordered as rows, so that only the index that begins with the tenant gives this order: by the primary
-- key a small tenant's list would walk everyone's executions. Read anew by each use, so that a full page stops early.
walked as not materialized (
  select e.id, e.tenant_id, e.job_id, e.queue_id, e.priority, e.scheduled_at, e.created_at
  from executions e
  where (e.tenant_id, e.id) < ((select tenant_id from caller),
      coalesce(least($7, uuid7_floor($6)), 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
    and (e.tenant_id, e.id) >= ((select tenant_id from caller), coalesce(uuid7_floor($5), '00000000-0000-0000-0000-000000000000'))
    -- Once more for the partitions: only those of these times are touched.
    and ($7::uuid is null or e.id < $7)
    and ($5::timestamptz is null or e.id >= uuid7_floor($5))
    and ($6::timestamptz is null or e.id < uuid7_floor($6))
  order by e.tenant_id desc, e.id desc
  limit $9
),
page as materialized (
  select e.id, e.job_id, j.name as job_name, q.name as queue, e.priority, at.status, at.attempt,
    e.scheduled_at, e.created_at, at.started_at, at.finished_at
  from walked e
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
  order by e.tenant_id desc, e.id desc
  limit $8
)
select p.*,
  case when (select count(*) from page) = $8 then (select id from page order by id limit 1)
    else (select w.id from walked w order by w.tenant_id desc, w.id desc offset $9 - 1 limit 1) end as next_cursor
from caller c left join page p on true
order by p.id desc
