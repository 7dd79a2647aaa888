-- What was decided about these attempts, for results that are said again: the fresh look before a 409 or 404.
-- $1 execution ids, $2 lease ids
with ends as materialized (
  select a.execution_id, a.lease_id, a.attempt, a.outcome, a.status, a.next_attempt_at
  from attempts a where a.execution_id = any ($1::uuid[])
),
facts as materialized (
  select e.id from executions e where e.id = any ($1::uuid[])
)
select named.execution_id, named.lease_id, a.attempt, a.outcome, a.status, a.next_attempt_at,
  e.id is not null as known
from unnest($1::uuid[], $2::uuid[]) as named (execution_id, lease_id)
  left join ends a on a.execution_id = named.execution_id and a.lease_id = named.lease_id
  left join facts e on e.id = named.execution_id
