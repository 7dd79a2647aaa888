-- Chunks of an execution's log lines from a place on, and whether the execution has ended.
-- $1 token hash, $2 execution id, $3 attempt and $4 seq to begin at, $5 chunks at most, $6 bytes at most (and a chunk)
with caller as materialized (
  select k.tenant_id from good_keys k
  where k.token_hash = $1
),
found as materialized (
  select e.id from executions e join caller c on c.tenant_id = e.tenant_id where e.id = $2
)
select exists (select from found) as found,
  exists (select from attempts a where a.execution_id = $2 and a.status in ('SUCCEEDED', 'FAILED', 'CANCELLED'))
    and not exists (select from leases l where l.execution_id = $2) as finished,
  k.attempt, k.first_seq, k.line_count, k.lines
from caller c left join lateral (
  select * from (
    select k.*, sum(octet_length(k.lines)) over (order by k.attempt, k.first_seq) - octet_length(k.lines) as bytes_before
    from (
      select k.attempt, k.first_seq, k.line_count, k.lines from log_chunks k
      where k.execution_id = $2 and exists (select from found)
        and k.attempt >= $3 and (k.attempt > $3 or k.first_seq + k.line_count > $4)
      order by k.attempt, k.first_seq
      limit $5
    ) k
  ) k
  where k.bytes_before < $6
) k on true
order by k.attempt, k.first_seq
