-- Makes a job of the caller's, and its queue if it is the first to name it.
-- $1 token hash, $2 name, $3 command, $4 image, $5 env, $6 queue, $7 priority, $8 timeout, $9 max running,
-- $10 max attempts, $11 backoff, $12 factor, $13 cap
with caller as materialized (
  select t.id, t.max_priority from good_keys k join tenants t on t.id = k.tenant_id
  where k.token_hash = $1
),
acceptable as (
  select id from caller where max_priority >= $7
),
queue as (
  insert into queues (name) select $6 from acceptable
  on conflict (name) do update set name = excluded.name
  returning id
),
made as (
  insert into jobs (id, tenant_id, name, command, image, env, queue_id, priority, timeout_seconds, max_running,
    max_attempts, backoff_seconds, backoff_factor, backoff_cap_seconds)
  select uuid7(now()), a.id, $2, $3, $4, $5::text::jsonb, q.id, $7, $8, $9, $10, $11, $12, $13
  from acceptable a cross join queue q
  returning *
)
select c.max_priority, m.id, m.name, m.command, m.image, m.env::text as env, $6 as queue, m.priority,
  m.timeout_seconds, m.max_running, m.max_attempts, m.backoff_seconds, m.backoff_factor, m.backoff_cap_seconds,
  m.created_at, m.updated_at, m.deleted_at
from caller c left join made m on true
