-- Claims up to $4 executions for a lease that has claimed nothing before; names what it took. No rank is
-- passed over for good, no execution is given to two leases, no concurrency limit is exceeded.
-- $1 token hash, $2 lease id, $3 worker id, $4 limit, $5 queues or null, $6 tenants or null,
-- $7 byte budget, $8 lease seconds, $9 grace seconds after the timeout
with caller as materialized (
  -- Two calls with one lease_id meet here: the second goes on when the first has ended.
  select t.id, t.queues, t.tenant_ids, pg_advisory_xact_lock(hashtextextended($2::uuid::text, 0))
  from good_worker_tokens t
  where t.token_hash = $1
),
asked as materialized (
  select c.id as token_id,
    coalesce($5, c.queues, '{default}') as queues,
    coalesce($6, c.tenant_ids) as tenant_ids,
    ($5 is null or c.queues is null or $5 <@ c.queues)
      and ($6 is null or c.tenant_ids is null or $6 <@ c.tenant_ids) as in_scope
  from caller c
),
-- In the order listed. offset 0 keeps the order of this walk, so that the next one can stop at the limit.
lines as (
  select q.id, q.scan_from, a.tenant_ids
  from asked a
    cross join lateral unnest(a.queues) with ordinality as named (name, place)
    join queues q on q.name = named.name
  where a.in_scope and not q.paused
  order by named.place
  offset 0
),
picked as materialized (
  select x.*, row_number() over () as place
  from (
    select r.*
    from lines l cross join lateral (
      select r.ctid as row, r.execution_id, r.tenant_id, r.job_id, r.queue_id, r.flow, r.attempt, r.tries, r.bytes
      from ready r
      where r.queue_id = l.id and r.rank >= l.scan_from
        and (l.tenant_ids is null or r.tenant_id = any (l.tenant_ids))
        and r.tenant_id <> all (array(select id from full_tenants))
        and r.job_id <> all (array(select id from full_jobs))
      order by r.rank
      limit $4
      for update of r skip locked
    ) r
    limit $4
  ) x
),
numbered as (
  select p.*,
    row_number() over (partition by p.tenant_id order by p.place) as of_tenant,
    row_number() over (partition by p.job_id order by p.place) as of_job,
    sum(p.bytes) over (order by p.place) - p.bytes as bytes_before
  from picked p
),
-- Free places under the limits of the tenants and jobs met, lowest first. Two claims that choose the same
-- place meet on its unique index, so what is counted here may be stale but never wrong.
tenant_slots as materialized (
  select t.id, s.slot, s.nth
  from tenants t cross join lateral (
    select slot, row_number() over (order by slot) as nth
    from generate_series(1, t.max_running) slot
    where not exists (select from leases l where l.tenant_id = t.id and l.tenant_slot = slot)
    order by slot
    limit greatest(0, t.max_running - (select count(*) from leases l where l.tenant_id = t.id))
  ) s
  where t.max_running is not null and t.id in (select tenant_id from picked)
),
job_slots as materialized (
  select j.id, s.slot, s.nth
  from jobs j cross join lateral (
    select slot, row_number() over (order by slot) as nth
    from generate_series(1, j.max_running) slot
    where not exists (select from leases l where l.job_id = j.id and l.job_slot = slot)
    order by slot
    limit greatest(0, j.max_running
      - (select count(*) from leases l where l.tenant_id = j.tenant_id and l.job_id = j.id))
  ) s
  where j.max_running is not null and j.id in (select job_id from picked)
),
chosen as materialized (
  select n.*, ts.slot as tenant_slot, js.slot as job_slot, j.timeout_seconds
  from numbered n
    cross join lateral (select t.max_running from tenants t where t.id = n.tenant_id) t
    cross join lateral (select j.max_running, j.timeout_seconds from jobs j where j.id = n.job_id) j
    left join tenant_slots ts on ts.id = n.tenant_id and ts.nth = n.of_tenant
    left join job_slots js on js.id = n.job_id and js.nth = n.of_job
  where n.bytes_before < $7
    and (t.max_running is null or ts.slot is not null)
    and (j.max_running is null or js.slot is not null)
  order by n.place
),
-- The call's own row: a lease_id that is here already claims nothing more.
gate as (
  insert into dequeues (lease_id, token_id, execution_ids)
  select $2, a.token_id, w.ids
  from asked a, (select array_agg(execution_id order by place) as ids from chosen) w
  where w.ids is not null and not exists (select from dequeues_before b where b.lease_id = $2)
  on conflict do nothing
  returning token_id
),
leased as (
  insert into leases (execution_id, lease_id, token_id, worker_id, tenant_id, job_id, queue_id, priority,
    attempt, tries, bytes, timeout_seconds, tenant_slot, job_slot, started_at, expires_at, deadline_at)
  select c.execution_id, $2, g.token_id, $3, c.tenant_id, c.job_id, c.queue_id, c.flow / 25 * 25,
    c.attempt + 1, c.tries, c.bytes, c.timeout_seconds, c.tenant_slot, c.job_slot, now(),
    now() + make_interval(secs => least($8, c.timeout_seconds + $9)),
    now() + make_interval(secs => c.timeout_seconds + $9)
  from gate g cross join chosen c
  -- In one order everywhere, so that two claims cannot wait for each other's slots.
  order by c.tenant_id, c.tenant_slot, c.job_slot
  on conflict do nothing
  returning execution_id
),
taken as (
  delete from ready
  where ctid = any (array(select c.row from chosen c join leased using (execution_id)))
),
-- The watermark, at most twice a second and only by claims that pass nobody's rows over. It goes to the
-- lowest rank that this statement saw, and the walk begins at its value before.
advanced as (
  update queues q
  set scan_from = q.virtual_rank, virtual_rank = greatest(q.virtual_rank, lowest.rank), advanced_at = now()
  from (
    select due.id, (select r.rank from ready r where r.queue_id = due.id and r.rank >= due.scan_from
                    order by r.rank limit 1) as rank
    from (
      select q.id, q.scan_from from queues q
      where q.advanced_at < now() - interval '500 milliseconds'
        and q.id in (select id from lines where tenant_ids is null)
        and exists (select from leased)
      for update skip locked
    ) due
  ) lowest
  where q.id = lowest.id
),
seen as (
  insert into workers (token_id, worker_id, last_seen_at)
  select a.token_id, $3, now() from asked a
  where a.in_scope and not exists (
    select from workers w
    where w.token_id = a.token_id and w.worker_id = $3 and w.last_seen_at > now() - interval '20 seconds')
  on conflict (token_id, worker_id) do update set last_seen_at = excluded.last_seen_at
)
select a.in_scope, now() + make_interval(secs => $8) as lease_expires_at,
  (select array_agg(c.execution_id order by c.place) from chosen c join leased using (execution_id)) as execution_ids,
  (select t.ticked_at < now() - interval '1 second' from ticks t) as tick_due
from asked a
