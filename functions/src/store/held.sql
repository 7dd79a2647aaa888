-- What a lease still holds of these executions, with all that a worker needs to run them. Apart from the
-- claim, because ids that are known when it is planned touch only their own partitions.
-- $1 execution ids in order, $2 lease id
with mine as materialized (
  select l.* from leases l where l.execution_id = any ($1::uuid[]) and l.lease_id = $2
),
facts as materialized (
  select e.id, e.env, e.input, e.traceparent from executions e where e.id = any ($1::uuid[])
),
-- Each once, not once a row: under a long transaction their dead versions are many.
queues_met as materialized (
  select m.queue_id as id, (select q.name from queues q where q.id = m.queue_id) as name
  from (select distinct queue_id from mine) m
)
select l.execution_id, l.tenant_id, l.attempt, l.tries, j.max_attempts, l.timeout_seconds, q.name as queue,
  l.priority, l.job_id, j.name as job_name, j.image, j.command, (j.env || coalesce(e.env, '{}'))::text as env,
  e.input, e.traceparent, l.expires_at
from mine l
  join facts e on e.id = l.execution_id
  join jobs j on j.id = l.job_id
  join queues_met q on q.id = l.queue_id
order by array_position($1, l.execution_id)
