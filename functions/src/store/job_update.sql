-- Changes what is given of one of the caller's jobs.
-- $1 token hash, $2 job id, $3 name, $4 command given, $5 command, $6 image given, $7 image, $8 env, $9 queue,
-- $10 priority, $11 timeout, $12 max running given, $13 max running, $14 max attempts, $15 backoff, $16 factor, $17 cap
with caller as materialized (
  select t.id, t.max_priority from good_keys k join tenants t on t.id = k.tenant_id
  where k.token_hash = $1
),
found as materialized (
  select j.id from jobs j join caller c on c.id = j.tenant_id
  where j.id = $2 and j.deleted_at is null and c.max_priority >= coalesce($10, 0)
  for update of j
),
queue as (
  insert into queues (name) select $9::text from found where $9 is not null
  on conflict (name) do update set name = excluded.name
  returning id
),
changed as (
  update jobs j
  set name = coalesce($3, j.name),
    command = case when $4 then $5 else j.command end,
    image = case when $6 then $7 else j.image end,
    env = coalesce($8::text::jsonb, j.env),
    queue_id = coalesce((select id from queue), j.queue_id),
    priority = coalesce($10, j.priority),
    timeout_seconds = coalesce($11, j.timeout_seconds),
    max_running = case when $12 then $13 else j.max_running end,
    max_attempts = coalesce($14, j.max_attempts),
    backoff_seconds = coalesce($15, j.backoff_seconds),
    backoff_factor = coalesce($16, j.backoff_factor),
    backoff_cap_seconds = coalesce($17, j.backoff_cap_seconds),
    updated_at = now()
  from found f
  where j.id = f.id
  returning j.*
)
select c.max_priority, m.tenant_id, m.id, m.name, m.command, m.image, m.env::text as env,
  coalesce($9, (select q.name from queues q where q.id = m.queue_id)) as queue, m.priority,
  m.timeout_seconds, m.max_running, m.max_attempts, m.backoff_seconds, m.backoff_factor, m.backoff_cap_seconds,
  m.created_at, m.updated_at, m.deleted_at
from caller c left join changed m on true
