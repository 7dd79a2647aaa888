-- Stores one chunk of an attempt's lines, if it starts where the last one ended and its lease is held, or was
-- ended by its own result within the grace. The chunk that passes the execution's limit becomes the last.
-- $1 token hash, $2 execution id, $3 lease id, $4 first seq, $5 line count, $6 bytes, $7 lines,
-- $8 limit in bytes, $9 truncation lines, $10 grace seconds
with caller as materialized (
  select t.id, t.queue_ids, t.tenant_ids from good_worker_tokens t
  where t.token_hash = $1
),
held as materialized (
  select l.attempt, l.queue_id, l.tenant_id from leases l where l.execution_id = $2 and l.lease_id = $3
  union all
  select a.attempt, e.queue_id, e.tenant_id
  from attempts a join executions e on e.id = a.execution_id
  where a.execution_id = $2 and e.id = $2 and a.lease_id = $3
    and a.outcome not in ('expired', 'deadline_exceeded')
    and a.finished_at > now() - make_interval(secs => $10)
),
fenced as materialized (
  select h.attempt from held h cross join caller c
  where (c.queue_ids is null or h.queue_id = any (c.queue_ids)) and (c.tenant_ids is null or h.tenant_id = any (c.tenant_ids))
),
place as materialized (
  select f.attempt, coalesce(own.next_seq, 0) as next_seq,
    coalesce(latest.total_bytes, 0) as total_bytes, coalesce(latest.truncated, false) as truncated
  from fenced f
    left join lateral (
      select k.first_seq + k.line_count as next_seq from log_chunks k
      where k.execution_id = $2 and k.attempt = f.attempt
      order by k.first_seq desc limit 1) own on true
    left join lateral (
      select k.total_bytes, k.truncated from log_chunks k where k.execution_id = $2
      order by k.attempt desc, k.first_seq desc limit 1) latest on true
),
stored as (
  insert into log_chunks (execution_id, attempt, first_seq, line_count, total_bytes, truncated, lines)
  select $2, p.attempt, $4, case when p.total_bytes + $6 > $8 then 1 else $5 end, p.total_bytes + $6,
    p.total_bytes + $6 > $8, case when p.total_bytes + $6 > $8 then $9 else $7 end
  from place p where p.next_seq = $4 and not p.truncated
  on conflict do nothing
  returning first_seq
)
select p.attempt, p.next_seq, p.truncated, (select s.first_seq from stored s) is not null as stored,
  (select k.lines = $7 or k.truncated from log_chunks k
   where k.execution_id = $2 and k.attempt = p.attempt and k.first_seq = $4) as repeated
from caller c left join place p on true
