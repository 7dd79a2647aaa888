-- Renews the leases that are still held under the named lease ids, never past their deadline.
-- $1 token hash, $2 execution ids, $3 lease ids, $4 progresses or null, $5 lease seconds
with caller as materialized (
  select t.id, t.queue_ids, t.tenant_ids from good_worker_tokens t
  where t.token_hash = $1
),
held as materialized (
  select l.execution_id, l.lease_id, l.worker_id, c.id as token_id
  from leases l cross join caller c
  where l.execution_id = any ($2) and l.lease_id = any ($3)
    and (c.queue_ids is null or l.queue_id = any (c.queue_ids))
    and (c.tenant_ids is null or l.tenant_id = any (c.tenant_ids))
  -- In one order everywhere, so that two batches cannot wait for each other.
  order by l.execution_id
  for update of l
),
renewed as (
  update leases l
  set expires_at = least(now() + make_interval(secs => $5), l.deadline_at),
      progress = coalesce(i.progress, l.progress)
  from held h join unnest($2::uuid[], $3::uuid[], $4::text[]) as i (execution_id, lease_id, progress)
    using (execution_id, lease_id)
  where l.execution_id = h.execution_id
  returning l.execution_id, l.lease_id, l.expires_at, l.cancel_requested
),
seen as (
  insert into workers (token_id, worker_id, last_seen_at)
  select distinct h.token_id, h.worker_id, now() from held h
  where not exists (
    select from workers w
    where w.token_id = h.token_id and w.worker_id = h.worker_id and w.last_seen_at > now() - noted_every($5))
  order by 1, 2
  on conflict (token_id, worker_id) do update set last_seen_at = excluded.last_seen_at
)
select now() + make_interval(secs => $5) as lease_expires_at,
  r.execution_id, r.lease_id, r.expires_at, r.cancel_requested
from caller c left join renewed r on true
