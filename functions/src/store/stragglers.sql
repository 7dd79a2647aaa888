-- Brings rows that were committed behind the watermark to the front of their queue. Never an update: a claim
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
  limit $1
),
gone as (
  delete from ready where ctid = any (array(select row from behind)) returning *
),
back as (
  insert into ready (execution_id, tenant_id, job_id, queue_id, flow, attempt, tries, bytes, rank, ready_at)
  select g.execution_id, g.tenant_id, g.job_id, g.queue_id, g.flow, g.attempt, g.tries, g.bytes,
    q.virtual_rank, g.ready_at
  from gone g join queues q on q.id = g.queue_id
)
select count(*) from behind
