-- Asks for executions of one job: all of them or none. Ranks what may start at once in its fair order.
-- $1 token hash, $2 job id; parallel arrays: $3 inputs, $4 scheduled at, $5 priorities or null, $6 envs;
-- $7 traceparent, $8 idempotency key or null, $9 fingerprint, $10 status to remember, $11 hours remembered,
-- $12 rank unit, $13 days ahead at most
with caller as materialized (
  select t.* from good_keys k join tenants t on t.id = k.tenant_id
  where k.token_hash = $1
),
job as materialized (
  select j.* from jobs j join caller c on j.tenant_id = c.id
  where j.id = $2 and j.deleted_at is null
),
-- Where its executions wait for a limit's allowance; null if they need none.
held_in as materialized (
  select limited_line(j.id, j.max_running, c.id, c.max_running) as line
  from caller c cross join job j
),
items as materialized (
  -- Ids in the order of the request.
  select i.place, uuid7(now() + i.place * interval '1 microsecond') as id, i.input, i.scheduled_at,
    coalesce(i.priority, least(j.priority, c.max_priority)) as priority, i.env,
    coalesce(octet_length(i.input), 0) + coalesce(octet_length(i.env), 0) as bytes,
    coalesce(i.scheduled_at > now(), false) as is_later
  from unnest($3::text[], $4::timestamptz[], $5::smallint[], $6::text[])
      with ordinality as i (input, scheduled_at, priority, env, place)
    cross join job j cross join caller c
),
known as materialized (
  select is_remembered(c.id, $8, $11) as is_known from caller c where $8 is not null
),
acceptable as materialized (
  select c.id as tenant_id, c.rate_limit_per_second as per_second, count(*) as count
  from caller c cross join items i
  where not exists (select from known where is_known)
  group by c.id, c.rate_limit_per_second, c.max_priority
  having max(i.priority) <= c.max_priority and coalesce(max(i.scheduled_at) <= now() + make_interval(days => $13), true)
),
charged as materialized (
  select a.tenant_id, charge(a.tenant_id, a.per_second, a.count) as wait_seconds from acceptable a
),
remembered as (
  insert into idempotency_keys (tenant_id, key, fingerprint, execution_ids, status, created_at)
  select a.tenant_id, $8, $9, (select array_agg(i.id order by i.place) from items i),
    case when $10 then (select case when i.is_later then 'SCHEDULED' else 'PENDING' end from items i) end, now()
  from charged a where a.wait_seconds is null and $8 is not null
  on conflict (tenant_id, key) do update
  set fingerprint = excluded.fingerprint, execution_ids = excluded.execution_ids,
    status = excluded.status, created_at = excluded.created_at
  where idempotency_keys.created_at <= now() - make_interval(hours => $11)
  returning tenant_id
),
accepted as materialized (
  select a.tenant_id from charged a
  where a.wait_seconds is null and ($8 is null or exists (select from remembered))
),
facts as (
  insert into executions (id, tenant_id, job_id, queue_id, priority, input, env, scheduled_at, traceparent, created_at)
  select i.id, a.tenant_id, j.id, j.queue_id, i.priority, i.input, i.env::jsonb, i.scheduled_at, $7, now()
  from accepted a cross join job j cross join items i
),
later as (
  insert into delayed (execution_id, tenant_id, job_id, queue_id, priority, attempt, tries, bytes, due_at)
  select i.id, a.tenant_id, j.id, j.queue_id, i.priority, 0, 0, i.bytes, i.scheduled_at
  from accepted a cross join job j cross join items i where i.is_later
),
-- Start-time fair queueing. A flow's rows follow its last one in steps of unit / (weight × priority weight);
-- a flow without rows begins at the rank being served. What has a limit to wait for is ranked in its tenant's
-- own order in the same way. In one order of flows, since calls that ask for many wait for each other here.
flows as materialized (
  select f.priority, f.step, flow_place(f.tenant_id, f.queue_id, f.priority, f.line is not null, f.step, f.count) as place
  from (
    select i.priority, j.queue_id, c.id as tenant_id, $12 / (c.weight << i.priority / 25) as step, count(*) as count, h.line
    from accepted a cross join caller c cross join job j cross join held_in h cross join items i
    where not i.is_later
    group by i.priority, j.queue_id, c.id, c.weight, h.line
    order by i.priority
    offset 0
  ) f
),
ranked as materialized (
  select i.id, a.tenant_id, j.id as job_id, j.queue_id, i.priority, i.bytes, h.line,
    f.place + f.step * row_number() over (partition by i.priority order by i.place) as rank
  from accepted a cross join job j cross join held_in h cross join items i join flows f on f.priority = i.priority
  where not i.is_later
),
waiting as (
  insert into ready (execution_id, tenant_id, job_id, queue_id, flow, attempt, tries, bytes, rank, ready_at)
  select id, tenant_id, job_id, queue_id, priority, 0, 0, bytes, rank, now() from ranked where line is null
),
held_back as (
  insert into parked (execution_id, tenant_id, job_id, queue_id, flow, attempt, tries, bytes, rank, ready_at, line)
  select id, tenant_id, job_id, queue_id, priority, 0, 0, bytes, rank, now(), line from ranked where line is not null
)
select c.max_priority, exists (select from job) as job_exists,
  (select max(i.priority) from items i) as highest_priority,
  (select max(i.scheduled_at) > now() + make_interval(days => $13) from items i) as too_far,
  exists (select from known where is_known) as known,
  (select wait_seconds from charged) as wait_seconds,
  exists (select from accepted) as accepted,
  (select r.tenant_id from ranked r where r.line is not null limit 1) as limited_tenant,
  (select array_agg(i.id order by i.place) from items i) as execution_ids,
  (select bool_or(i.is_later) from items i) as is_later
from caller c
