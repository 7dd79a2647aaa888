-- Ends the attempts whose leases are still held under the named lease ids, decides what follows and puts each
-- execution where that is: done, back in line, or a dead letter. One statement: all of it or nothing. Names the
-- tenants whose limits have room again.
-- $1 token hash, or null for the controller itself; parallel arrays: $2 execution ids, $3 lease ids, $4 outcomes,
-- $5 exit codes, $6 errors, $7 results, $8 retryable, $9 retry after seconds
with caller as materialized (
  select t.id, t.queue_ids, t.tenant_ids from good_worker_tokens t
  where t.token_hash = $1
  union all
  select null, null, null where $1 is null
),
held as materialized (
  select l.execution_id, l.lease_id
  from leases l cross join caller c
  where l.execution_id = any ($2) and l.lease_id = any ($3)
    and (c.queue_ids is null or l.queue_id = any (c.queue_ids))
    and (c.tenant_ids is null or l.tenant_id = any (c.tenant_ids))
  -- In one order everywhere, so that two batches cannot wait for each other.
  order by l.execution_id
  for update of l
),
reported as materialized (
  select i.*
  from held join unnest($2::uuid[], $3::uuid[], $4::text[], $5::int[], $6::text[], $7::text[], $8::bool[], $9::int[])
    as i (execution_id, lease_id, outcome, exit_code, error, result, retryable, retry_after)
    using (execution_id, lease_id)
),
ended as (
  delete from leases where execution_id = any (array(select execution_id from reported)) returning *
),
decided as materialized (
  select e.*, i.outcome, i.exit_code, i.error, i.result, i.retryable, j.max_attempts,
    e.tries + (i.outcome <> 'released')::int as tries_spent,
    case
      when i.outcome = 'succeeded' then 'SUCCEEDED'
      when i.outcome = 'cancelled' or e.cancel_requested then 'CANCELLED'
      when i.outcome = 'released' then case when e.tries > 0 then 'RETRYING' else 'PENDING' end
      when not i.retryable or e.tries + 1 >= j.max_attempts then 'FAILED'
      else 'RETRYING'
    end as status,
    -- Exponential with a cap and ±20 % jitter; the exponent is bounded so that the power stays finite.
    now() + make_interval(secs => case when i.outcome = 'released' then 0 else coalesce(i.retry_after,
      least(j.backoff_cap_seconds, j.backoff_seconds * j.backoff_factor ^ least(e.tries, 100))
      * (0.8 + 0.4 * random())) end) as next_attempt_at
  from ended e join reported i using (execution_id) cross join lateral (
    select j.max_attempts, j.backoff_seconds, j.backoff_factor, j.backoff_cap_seconds
    from jobs j where j.id = e.job_id) j
),
recorded as (
  insert into attempts (execution_id, attempt, outcome, status, tries, lease_id, worker_id, started_at,
    finished_at, next_attempt_at, exit_code, error, result, progress)
  select execution_id, attempt, outcome, status, tries_spent, lease_id, worker_id, started_at, now(),
    case when status in ('RETRYING', 'PENDING') then next_attempt_at end, exit_code, error, result, progress
  from decided
),
-- Each once, not once a row: under a long transaction their dead versions are many.
queues_met as materialized (
  select m.queue_id as id, (select q.virtual_rank from queues q where q.id = m.queue_id) as virtual_rank
  from (select distinct queue_id from decided where outcome = 'released') m
),
-- Given back: first in line, in the flow of rows that fell due, so that another worker starts it at once.
given_back as (
  insert into ready (execution_id, tenant_id, job_id, queue_id, flow, attempt, tries, bytes, rank, ready_at, line)
  select d.execution_id, d.tenant_id, d.job_id, d.queue_id, d.priority + 1, d.attempt, d.tries, d.bytes,
    greatest(q.virtual_rank, v.virtual_rank), now(), case when d.job_slot is not null then d.job_id when d.tenant_slot is not null then d.tenant_id end
  from decided d
    join queues_met q on q.id = d.queue_id
    left join tenant_queues v on v.queue_id = d.queue_id and v.tenant_id = d.tenant_id
  where d.outcome = 'released' and d.status <> 'CANCELLED'
),
backing_off as (
  insert into delayed (execution_id, tenant_id, job_id, queue_id, priority, attempt, tries, bytes, due_at)
  select execution_id, tenant_id, job_id, queue_id, priority, attempt, tries_spent, bytes, next_attempt_at
  from decided where status = 'RETRYING' and outcome <> 'released'
),
buried as (
  insert into dead_letters (execution_id, tenant_id, job_id, attempts, reason, failed_at)
  select execution_id, tenant_id, job_id, attempt,
    left(concat(
      case outcome when 'failed' then 'failed' when 'timed_out' then 'timed out' when 'expired' then 'lease expired'
        else 'ran past its deadline' end,
      ' on attempt ', tries_spent, ' of ', max_attempts, case when not retryable then ', not retryable' end,
      ': ' || error), 1000),
    now()
  from decided where status = 'FAILED'
)
select d.execution_id, d.lease_id, d.attempt, d.status,
  case when d.tenant_slot is not null or d.job_slot is not null then d.tenant_id end as limited_tenant,
  case when d.status in ('RETRYING', 'PENDING') then d.next_attempt_at end as next_attempt_at
from caller c left join decided d on true
