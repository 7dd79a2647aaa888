-- What a lease still holds of these executions, with all that a worker needs to run them. Apart from the
-- claim, because ids that are known when it is planned touch only their own partitions.
-- $1 execution ids in order, $2 lease id
select l.execution_id, l.tenant_id, l.attempt, l.tries, j.max_attempts, l.timeout_seconds, q.name as queue,
  l.priority, l.job_id, j.name as job_name, j.image, j.command, (j.env || coalesce(e.env, '{}'))::text as env,
  e.input, e.traceparent, l.expires_at
from unnest($1::uuid[]) with ordinality as named (id, place)
  join leases l on l.execution_id = named.id
  join executions e on e.id = named.id
  join jobs j on j.id = l.job_id
  join queues q on q.id = l.queue_id
where l.lease_id = $2 and e.id = any ($1::uuid[])
order by named.place
