-- Brings rows that were committed behind a watermark to the front of their queue. Never an update: a claim
-- deletes by the place of the row. Answers how many.
-- $1 at most so many
with behind as materialized (
  select r.row
  from queues q cross join lateral (
    select r.ctid as row from ready r
    where r.queue_id = q.id and r.rank < q.scan_from
    order by r.rank
    limit $1
    for update skip locked
  ) r
  union
  select r.row
  from tenant_queues v
    cross join flow_numbers flows
    cross join lateral (
    select r.ctid as row from ready r
    where (r.tenant_id, r.queue_id, r.flow) >= (v.tenant_id, v.queue_id, flows.flow)
      and (r.tenant_id, r.queue_id, r.flow, r.rank) < (v.tenant_id, v.queue_id, flows.flow, v.scan_from)
    order by r.tenant_id, r.queue_id, r.flow, r.rank
    limit $1
    for update skip locked
  ) r
),
gone as (
  delete from ready where ctid = any (array(select row from behind limit $1)) returning *
),
back as (
  insert into ready (execution_id, tenant_id, job_id, queue_id, flow, attempt, tries, bytes, rank, ready_at, line)
  select g.execution_id, g.tenant_id, g.job_id, g.queue_id, g.flow, g.attempt, g.tries, g.bytes,
    greatest(q.virtual_rank, v.virtual_rank), g.ready_at, g.line
  from gone g
    join queues q on q.id = g.queue_id
    left join tenant_queues v on v.queue_id = g.queue_id and v.tenant_id = g.tenant_id
)
select count(*) from gone
