-- Lets parked rows of these tenants stand in line as far as their limits have room: in front of a limit there is
-- at most its allowance of them in each queue. Whether one may run is decided by the claim alone, so a window
-- that comes late or too wide costs time and is never wrong. Answers how many.
-- $1 tenant ids, $2 at most so many rows, $3 rank unit
with recursive asked as materialized (
  select t.id, t.weight, t.max_running
  from tenants t
  where t.id = any ($1)
),
running as materialized (
  select l.tenant_id, l.job_id, count(*) as count
  from asked a join leases l on l.tenant_id = a.id
  group by l.tenant_id, l.job_id
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
-- What stands in line already.
windows as materialized (
  select k.tenant_id, k.queue_id, r.line, count(*) as count
  from (select distinct tenant_id, queue_id from lines) k cross join lateral (
    select r.line from ready r
    where (r.tenant_id, r.queue_id, r.line) >= (k.tenant_id, k.queue_id, '00000000-0000-0000-0000-000000000000')
      and (r.tenant_id, r.queue_id) <= (k.tenant_id, k.queue_id) and r.line is not null) r
  group by k.tenant_id, k.queue_id, r.line
),
-- What is free under a limit and does not stand in line already; null where there is no limit.
rooms as materialized (
  select l.tenant_id, l.queue_id, l.line, a.weight,
    a.max_running - coalesce(x.count, 0) - coalesce(s.count, 0) as room,
    j.max_running - coalesce(xj.count, 0) - coalesce(w.count, 0) as line_room
  from lines l join asked a on a.id = l.tenant_id
    left join (select tenant_id, sum(count) as count from running group by tenant_id) x using (tenant_id)
    left join (select tenant_id, queue_id, sum(count) as count from windows group by tenant_id, queue_id) s
      using (tenant_id, queue_id)
    left join windows w using (tenant_id, queue_id, line)
    left join jobs j on j.id = l.line
    left join running xj on xj.tenant_id = l.tenant_id and xj.job_id = j.id
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
  -- With many flows one lock for each is enough: there is room for so many locks only.
  select f.*, flow_place(f.tenant_id, f.queue_id, f.flow, false, f.step, case when f.count_of_all <= 100 then f.count end) as base
  from (
    select a.queue_id, a.tenant_id, a.flow, $3 / (a.weight << a.flow / 25) as step, count(*) as count,
      sum(count(*)) over () as count_of_all
    from admitted a group by a.queue_id, a.tenant_id, a.flow, a.weight
    -- In one order everywhere: large ones wait for each other.
    order by a.tenant_id, a.queue_id, a.flow
    offset 0
  ) f
),
ranked as (
  insert into ready (execution_id, tenant_id, job_id, queue_id, flow, attempt, tries, bytes, rank, ready_at, line)
  select a.execution_id, a.tenant_id, a.job_id, a.queue_id, a.flow, a.attempt, a.tries, a.bytes,
    f.base + f.step * row_number() over (partition by a.queue_id, a.tenant_id, a.flow order by a.nth),
    a.ready_at, a.line
  from admitted a join flows f using (queue_id, tenant_id, flow)
)
select count(*) from admitted
