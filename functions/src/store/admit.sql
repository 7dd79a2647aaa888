-- Lets parked rows of these tenants stand in line as far as their limits have room: in front of a limit there is
-- at most its allowance of them in each queue. Whether one may run is decided by the claim alone, so a window
-- that comes late or too wide costs time and is never wrong. Answers how many.
-- $1 tenant ids, $2 at most so many rows, $3 rank unit
with recursive asked as materialized (
  select t.id, t.weight, t.max_running - (select count(*) from leases l where l.tenant_id = t.id) as free
  from tenants t where t.id = any ($1)
),
-- The lines of these tenants that have rows, from one to the next without reading the rows between.
lines as (
  select f.*
  from asked a cross join lateral (
    select p.tenant_id, p.queue_id, p.line from parked p
    where p.tenant_id = a.id
    order by p.tenant_id, p.queue_id, p.line limit 1) f
  union all
  select n.*
  from lines l cross join lateral (
    select p.tenant_id, p.queue_id, p.line from parked p
    where p.tenant_id = l.tenant_id and (p.tenant_id, p.queue_id, p.line) > (l.tenant_id, l.queue_id, l.line)
    order by p.tenant_id, p.queue_id, p.line limit 1) n
),
-- What is free under a limit and does not stand in line already; null where there is no limit.
rooms as materialized (
  select l.tenant_id, l.queue_id, l.line, a.weight, a.free - stock.of_tenant as room,
    j.max_running - stock.of_line
      - (select count(*) from leases x where x.tenant_id = l.tenant_id and x.job_id = j.id) as line_room
  from lines l join asked a on a.id = l.tenant_id
    left join jobs j on j.id = l.line
    cross join lateral (
      select count(*) as of_tenant, count(*) filter (where r.line = l.line) as of_line
      from ready r
      where (r.tenant_id, r.queue_id, r.line) >= (l.tenant_id, l.queue_id, '00000000-0000-0000-0000-000000000000')
        and (r.tenant_id, r.queue_id) <= (l.tenant_id, l.queue_id) and r.line is not null) stock
),
first as materialized (
  select p.*, m.weight, m.room,
    row_number() over (partition by p.tenant_id, p.queue_id order by p.rank, p.execution_id) as nth
  from rooms m cross join lateral (
    select p.ctid as row, p.* from parked p
    where (p.tenant_id, p.queue_id, p.line) >= (m.tenant_id, m.queue_id, m.line)
      and (p.tenant_id, p.queue_id, p.line) <= (m.tenant_id, m.queue_id, m.line)
    order by p.tenant_id, p.queue_id, p.line, p.rank
    limit greatest(0, least(m.room, m.line_room, $2))
    for update of p skip locked) p
),
admitted as materialized (
  select f.* from first f where f.nth <= f.room or f.room is null
  order by f.nth
  limit $2
),
gone as (
  delete from parked where ctid = any (array(select row from admitted))
),
flows as materialized (
  select f.*, greatest(lowest.rank, flow_end(f.tenant_id, f.queue_id, f.flow, false)) as base
  from (
    select a.queue_id, a.tenant_id, a.flow, $3 / (a.weight << a.flow / 25) as step
    from admitted a group by a.queue_id, a.tenant_id, a.flow, a.weight
  ) f
    join queues q on q.id = f.queue_id
    -- As exact as can be, not as of the last refresh: a tenant at its limit comes by here all the time, and
    -- would be first in line each time.
    left join lateral (
      select r.rank from ready r where r.queue_id = q.id and r.rank >= q.scan_from order by r.rank limit 1
    ) lowest on true
),
ranked as (
  insert into ready (execution_id, tenant_id, job_id, queue_id, flow, attempt, tries, bytes, rank, ready_at, line)
  select a.execution_id, a.tenant_id, a.job_id, a.queue_id, a.flow, a.attempt, a.tries, a.bytes,
    f.base + f.step * row_number() over (partition by a.queue_id, a.tenant_id, a.flow order by a.nth),
    a.ready_at, a.line
  from admitted a join flows f using (queue_id, tenant_id, flow)
)
select count(*) from admitted
