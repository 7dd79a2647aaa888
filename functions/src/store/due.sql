-- Moves rows that fell due into line, each ranked in a flow of its own kind: neither behind its tenant's backlog
-- nor in front of everyone's. Answers how many.
-- $1 at most so many, $2 rank unit
with due as materialized (
  select d.*
  from queues q cross join lateral (
    select d.ctid as row, d.* from delayed d
    where d.queue_id = q.id and d.due_at <= now()
    order by d.due_at
    limit $1
    for update skip locked
  ) d
  limit $1
),
moved as (
  delete from delayed where ctid = any (array(select row from due))
),
flows as materialized (
  select f.*, greatest(q.virtual_rank, (
      -- Compared as rows, so that only the index that begins with the flow gives this order.
      select r.rank from ready r
      where (r.queue_id, r.tenant_id, r.flow, r.rank) >= (f.queue_id, f.tenant_id, f.priority + 1, q.virtual_rank)
        and (r.queue_id, r.tenant_id, r.flow) <= (f.queue_id, f.tenant_id, f.priority + 1)
      order by r.queue_id desc, r.tenant_id desc, r.flow desc, r.rank desc limit 1)) as base
  from (
    select d.queue_id, d.tenant_id, d.priority, $2 / (t.weight << d.priority / 25) as step
    from due d join tenants t on t.id = d.tenant_id
    group by d.queue_id, d.tenant_id, d.priority, t.weight
  ) f join queues q on q.id = f.queue_id
),
ranked as (
  insert into ready (execution_id, tenant_id, job_id, queue_id, flow, attempt, tries, bytes, rank, ready_at)
  select d.execution_id, d.tenant_id, d.job_id, d.queue_id, d.priority + 1, d.attempt, d.tries, d.bytes,
    f.base + f.step * row_number() over (
      partition by d.queue_id, d.tenant_id, d.priority order by d.due_at, d.execution_id),
    now()
  from due d join flows f using (queue_id, tenant_id, priority)
)
select count(*) from due
