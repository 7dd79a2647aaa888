-- A page of queues by name, with counts that stop at $4 + 1 (but what runs).
-- One row without a name when there are none; no row if the token is a worker's and not good.
-- $1 worker token hash or null for the operator, $2 cursor (a name) or null, $3 limit, $4 counted at most
with caller as materialized (
  select 1 where $1::bytea is null
  union all
  select 1 from good_worker_tokens t
  where t.token_hash = $1
),
-- All leases once, not once for each queue: there are no more of them than the fleet can run, and an index by queue
-- would be written with every claim and every heartbeat.
running as materialized (
  select l.queue_id, count(*) as count from leases l group by l.queue_id
)
select q.*, now() as as_of
from caller left join lateral (
  select q.name, q.paused,
    (select count(*) from (
      select from ready r where r.queue_id = q.id and r.rank >= q.scan_from order by r.rank limit $4 + 1) x) as waiting,
    -- Ordered, so that only an index that begins with the queue will do.
    (select count(*) from (
      select from parked p where p.queue_id >= q.id and p.queue_id <= q.id order by p.queue_id limit $4 + 1) x) as parked,
    (select count(*) from (
      select from delayed d where d.queue_id = q.id order by d.due_at limit $4 + 1) x) as delayed,
    coalesce((select r.count from running r where r.queue_id = q.id), 0) as running,
    (select extract(epoch from now() - min(r.ready_at))::float8
     from (select r.ready_at from ready r where r.queue_id = q.id and r.rank >= q.scan_from
           order by r.rank limit 1000) r) as oldest_waiting_seconds
  from queues q
  where $2::text is null or q.name > $2
  order by q.name
  limit $3
) q on true
order by q.name
