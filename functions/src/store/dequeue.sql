-- Claims up to $4 executions for a lease that has claimed nothing before; names what it took, and the tenants of
-- what a limit forbade it to take. No rank is passed over for good, no execution is given to two leases, no
-- concurrency limit is exceeded.
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
      select everyones.* from (
        select r.ctid as row, r.*
        from ready r
        where l.tenant_ids is null and r.queue_id = l.id and r.rank >= l.scan_from
        order by r.rank
        limit $4
        for update of r skip locked
      ) everyones
      union all
      -- A claim scoped to tenants walks their flows one by one, not everyone's backlog.
      select theirs.* from (
        select r.*
        from (select distinct unnest(l.tenant_ids) as tenant_id) mine
          left join tenant_queues v on v.queue_id = l.id and v.tenant_id = mine.tenant_id
          cross join flow_numbers flows
          cross join lateral (
            select r.ctid as row, r.*
            from ready r
            -- Compared as rows, so that only the index that begins with the flow gives this order.
            where (r.tenant_id, r.queue_id, r.flow, r.rank)
                >= (mine.tenant_id, l.id, flows.flow, greatest(l.scan_from, v.scan_from))
              and (r.tenant_id, r.queue_id, r.flow) <= (mine.tenant_id, l.id, flows.flow)
            order by r.tenant_id, r.queue_id, r.flow, r.rank
            limit $4
            for update of r skip locked
          ) r
        order by r.rank
        limit $4
      ) theirs
    ) r
    limit $4
  ) x
),
jobs_met as materialized (
  select j.id, j.tenant_id, j.max_running, j.timeout_seconds,
    octet_length(j.env::text) + coalesce(octet_length(to_json(j.command)::text), 0) as bytes
  from jobs j where j.id in (select job_id from picked)
),
-- The limits met, and how many more each lets run as far as this statement sees.
tenants_limited as materialized (
  select t.id, t.max_running, p.wanted,
    greatest(0, t.max_running - (select count(*) from leases l where l.tenant_id = t.id)) as room
  from (select tenant_id, count(*) as wanted from picked group by tenant_id) p join tenants t on t.id = p.tenant_id
  where t.max_running is not null
),
jobs_limited as materialized (
  select j.id, j.max_running, p.wanted,
    greatest(0, j.max_running - (select count(*) from leases l where l.tenant_id = j.tenant_id and l.job_id = j.id)) as room
  from (select job_id, count(*) as wanted from picked group by job_id) p join jobs_met j on j.id = p.job_id
  where j.max_running is not null
),
-- The free places under a limit, lowest first, that no other claim has in hand: a limit's places are in 16 hands at most,
-- so that claims neither wait for each other nor need a lock for every place. What is counted here may be stale but
-- never wrong: two claims that choose the same place meet on its unique index.
tenant_slots as materialized (
  select t.id, s.slot, row_number() over (partition by t.id order by s.slot) as nth
  from tenants_limited t cross join lateral (
    select slot
    from (
      select slot
      from generate_series(1, t.max_running) slot
      where not exists (select from leases l where l.tenant_id = t.id and l.tenant_slot = slot)
      order by slot
      limit t.room
    ) free
    where pg_try_advisory_xact_lock(hashtext(t.id::text), (slot - 1) * 16 / greatest(16, t.max_running))
    limit t.wanted
  ) s
),
job_slots as materialized (
  select j.id, s.slot, row_number() over (partition by j.id order by s.slot) as nth
  from jobs_limited j cross join lateral (
    select slot
    from (
      select slot
      from generate_series(1, j.max_running) slot
      where not exists (select from leases l where l.job_id = j.id and l.job_slot = slot)
      order by slot
      limit j.room
    ) free
    where pg_try_advisory_xact_lock(hashtext(j.id::text), (slot - 1) * 16 / greatest(16, j.max_running))
    limit j.wanted
  ) s
),
met as materialized (
  select n.*, n.bytes + j.bytes as bytes_with_job, j.timeout_seconds, ts.slot as tenant_slot, js.slot as job_slot,
    limited_line(n.job_id, lj.max_running, n.tenant_id, lt.max_running) as limited_line,
    case
      when n.of_tenant > lt.room or n.of_job > lj.room then 'blocked'
      when lt.id is not null and ts.slot is null or lj.id is not null and js.slot is null then 'busy'
      else 'free'
    end as state
  from (
    select p.*,
      row_number() over (partition by p.tenant_id order by p.place) as of_tenant,
      row_number() over (partition by p.job_id order by p.place) as of_job
    from picked p
  ) n
    join jobs_met j on j.id = n.job_id
    left join tenants_limited lt on lt.id = n.tenant_id
    left join tenant_slots ts on ts.id = n.tenant_id and ts.nth = n.of_tenant
    left join jobs_limited lj on lj.id = n.job_id
    left join job_slots js on js.id = n.job_id and js.nth = n.of_job
),
chosen as materialized (
  select f.*
  from (
    select m.*, sum(m.bytes_with_job) over (order by m.place) - m.bytes_with_job as bytes_before
    from met m where m.state = 'free'
  ) f
  where f.bytes_before < $7
  order by f.place
),
-- What a limit forbids goes back to the head of its line and is not met again until there is room.
blocked as (
  insert into parked (execution_id, tenant_id, job_id, queue_id, flow, attempt, tries, bytes, rank, ready_at, line)
  select m.execution_id, m.tenant_id, m.job_id, m.queue_id, m.flow, m.attempt, m.tries, m.bytes,
    parked_rank(m.tenant_id, m.queue_id) - $4 + m.place, m.ready_at, m.limited_line
  from met m where m.state = 'blocked'
  returning execution_id, tenant_id
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
  on conflict do nothing
  returning execution_id
),
taken as (
  delete from ready
  where ctid = any (array(
    select m.row from met m join (select execution_id from leased union all select execution_id from blocked) gone
      using (execution_id)))
),
-- The watermark, at most twice a second and only by claims that pass nobody's rows over. It goes to the
-- lowest rank that this statement saw, and the walk begins at its value before, or at that rank if it is lower.
advanced as (
  update queues q
  set scan_from = least(q.virtual_rank, lowest.rank), virtual_rank = greatest(q.virtual_rank, lowest.rank),
    advanced_at = now()
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
advanced_theirs as (
  update tenant_queues v
  set scan_from = least(v.virtual_rank, lowest.rank), virtual_rank = greatest(v.virtual_rank, lowest.rank),
    advanced_at = now()
  from (
    select due.queue_id, due.tenant_id, min(first.rank) as rank
    from (
      select v.queue_id, v.tenant_id, v.scan_from
      from tenant_queues v
      where (v.queue_id, v.tenant_id) in (select queue_id, tenant_id from picked)
        and v.advanced_at < now() - interval '500 milliseconds'
        and v.queue_id in (select id from lines where tenant_ids is not null)
      for update of v skip locked
    ) due
      cross join flow_numbers flows
      cross join lateral (
        select r.rank from ready r
        where (r.tenant_id, r.queue_id, r.flow, r.rank) >= (due.tenant_id, due.queue_id, flows.flow, due.scan_from)
          and (r.tenant_id, r.queue_id, r.flow) <= (due.tenant_id, due.queue_id, flows.flow)
        order by r.tenant_id, r.queue_id, r.flow, r.rank
        limit 1
      ) first
    group by due.queue_id, due.tenant_id
  ) lowest
  where v.queue_id = lowest.queue_id and v.tenant_id = lowest.tenant_id
),
began_theirs as (
  insert into tenant_queues (queue_id, tenant_id, virtual_rank, advanced_at)
  select p.queue_id, p.tenant_id, min(p.rank), now()
  from picked p
  where p.queue_id in (select id from lines where tenant_ids is not null)
    and not exists (
      select from tenant_queues v where v.queue_id = p.queue_id and v.tenant_id = p.tenant_id)
  group by p.queue_id, p.tenant_id
  order by p.queue_id, p.tenant_id
  on conflict do nothing
),
seen as (
  insert into workers (token_id, worker_id, last_seen_at)
  select a.token_id, $3, now() from asked a
  where a.in_scope and not exists (
    select from workers w
    where w.token_id = a.token_id and w.worker_id = $3 and w.last_seen_at > now() - noted_every($8))
  on conflict (token_id, worker_id) do update set last_seen_at = excluded.last_seen_at
)
select a.in_scope, now() + make_interval(secs => $8) as lease_expires_at,
  (select array_agg(c.execution_id order by c.place) from chosen c join leased using (execution_id)) as execution_ids,
  (select array_agg(distinct b.tenant_id) from blocked b) as parked_tenants,
  exists (select from met m where m.state = 'busy') as met_busy,
  (select t.ticked_at not between now() - interval '1 second' and now() from ticks t) as tick_due
from asked a
