-- Moves rows that fell due into line, each ranked in a flow of its own kind: neither behind its tenant's backlog
-- nor in front of everyone's. When more are due than may be moved at once, each tenant has its turn, and what the
-- others leave goes to the rest, queue by queue. Answers how many, whether there were more, and the tenants of those
-- that have a limit to wait for.
-- $1 at most so many, $2 rank unit, $3 whether to look behind the watermark
with recursive walks as (
  select q.id, case when $3 then '-infinity' else q.due_from end as due_from from queues q
),
by_time as materialized (
  select d.*
  from walks w cross join lateral (
    select d.ctid as row, d.* from delayed d
    where d.queue_id = w.id and d.due_at >= w.due_from and d.due_at <= now()
    order by d.due_at
    limit $1
    for update skip locked
  ) d
  limit $1
),
crowded as materialized (
  select count(*) >= $1 as yes from by_time
),
-- Every tenant and queue that has delayed rows, from one to the next without reading the rows between.
lines as (
  select f.*
  from (
    select d.tenant_id, d.queue_id from delayed d
    where (select yes from crowded)
    order by d.tenant_id, d.queue_id, d.due_at limit 1) f
  union all
  select n.*
  from lines o cross join lateral (
    select d.tenant_id, d.queue_id from delayed d
    where (d.tenant_id, d.queue_id) > (o.tenant_id, o.queue_id)
    order by d.tenant_id, d.queue_id, d.due_at limit 1) n
),
turns as materialized (
  select o.*, w.due_from, greatest(1, $1 / count(*) over ()) as share
  from lines o join walks w on w.id = o.queue_id
  where exists (
    select from delayed d
    where (d.tenant_id, d.queue_id, d.due_at) >= (o.tenant_id, o.queue_id, w.due_from)
      and (d.tenant_id, d.queue_id, d.due_at) <= (o.tenant_id, o.queue_id, now()))
  -- Of more lines than rows may be moved, others each time.
  order by random()
  limit $1
),
in_turn as materialized (
  select d.*
  from turns u cross join lateral (
    select d.ctid as row, d.* from delayed d
    where (d.tenant_id, d.queue_id, d.due_at) >= (u.tenant_id, u.queue_id, u.due_from)
      and (d.tenant_id, d.queue_id, d.due_at) <= (u.tenant_id, u.queue_id, now())
    order by d.tenant_id, d.queue_id, d.due_at
    limit u.share
    for update skip locked
  ) d
  limit $1
),
due as materialized (
  select d.*, t.weight,
    limited_line(j.id, j.max_running, t.id, t.max_running) as line
  from (
    select * from in_turn
    union all
    select * from by_time where row not in (select row from in_turn)
    limit $1
  ) d join tenants t on t.id = d.tenant_id join jobs j on j.id = d.job_id
),
moved as (
  delete from delayed where ctid = any (array(select row from due))
),
flows as materialized (
  select f.*, flow_end(f.tenant_id, f.queue_id, (f.priority + 1)::smallint, f.is_limited) as base
  from (
    select d.queue_id, d.tenant_id, d.priority, d.line is not null as is_limited, $2 / (d.weight << d.priority / 25) as step
    from due d
    group by d.queue_id, d.tenant_id, d.priority, d.line is not null, d.weight
  ) f
),
ranked as materialized (
  select d.*, f.base + f.step * row_number() over (
    partition by d.queue_id, d.tenant_id, d.priority, f.is_limited order by d.due_at, d.execution_id) as rank
  from due d join flows f using (queue_id, tenant_id, priority)
  where f.is_limited = (d.line is not null)
),
in_line as (
  insert into ready (execution_id, tenant_id, job_id, queue_id, flow, attempt, tries, bytes, rank, ready_at)
  select execution_id, tenant_id, job_id, queue_id, priority + 1, attempt, tries, bytes, rank, now()
  from ranked where line is null
),
held_back as (
  insert into parked (execution_id, tenant_id, job_id, queue_id, flow, attempt, tries, bytes, rank, ready_at, line)
  select execution_id, tenant_id, job_id, queue_id, priority + 1, attempt, tries, bytes, rank, now(), line
  from ranked where line is not null
),
-- Where all that is due was moved, the next walk but one begins here.
advanced as (
  update queues q set due_from = least(q.due_until, now()), due_until = now()
  where q.id in (select queue_id from due) and not (select yes from crowded)
)
select (select count(*) from due) as moved, (select yes from crowded) as crowded,
  (select array_agg(distinct d.tenant_id) from due d where d.line is not null) as limited_tenants
