-- What a dequeue with this lease_id took, if there was one: the fresh look before an empty answer.
-- $1 lease id, $2 token hash
select d.execution_ids, d.token_id = t.id as own
from (
  select token_id, execution_ids from dequeues where lease_id = $1
  union all
  select token_id, execution_ids from dequeues_before where lease_id = $1
) d, worker_tokens t
where t.token_hash = $2
