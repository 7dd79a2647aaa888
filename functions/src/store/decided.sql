-- What was decided about these attempts, for results that are said again: the fresh look before a 409 or 404.
-- $1 execution ids, $2 lease ids
select named.execution_id, named.lease_id, a.attempt, a.outcome, a.status, a.next_attempt_at,
  exists (select from executions e where e.id = named.execution_id and e.id = any ($1::uuid[])) as known
from unnest($1::uuid[], $2::uuid[]) as named (execution_id, lease_id)
  left join attempts a on a.execution_id = named.execution_id and a.lease_id = named.lease_id
    and a.execution_id = any ($1::uuid[])
