-- Makes a new execution of each dead letter that was not retried before, oldest first, in the queue that its job has
-- now. It falls due at once, so it is ranked among its tenant's retries. What the rate does not allow is not done at all.
-- $1 token hash, $2 execution id or null, $3 job or null, $4 failed before or null, $5 limit
with caller as materialized (
  select k.tenant_id, t.max_priority, t.rate_limit_per_second from good_keys k join tenants t on t.id = k.tenant_id
  where k.token_hash = $1
),
-- The one that is named, waited for if another call has it in hand: then that call says what became of it.
named as materialized (
  select d.execution_id, d.failed_at
  from caller c join dead_letters d on d.tenant_id = c.tenant_id join jobs j on j.id = d.job_id
  where d.execution_id = $2::uuid and d.retried_as is null and j.deleted_at is null
  for update of d
),
-- Or many, without those that another call has in hand.
oldest as materialized (
  select d.execution_id, d.failed_at
  from caller c join dead_letters d on d.tenant_id = c.tenant_id join jobs j on j.id = d.job_id
  where $2::uuid is null and d.retried_as is null and j.deleted_at is null
    and ($3::uuid is null or d.job_id = $3)
    and ($4::timestamptz is null or d.failed_at < $4)
  order by d.failed_at, d.execution_id
  limit $5
  for update of d skip locked
),
chosen as materialized (
  select d.execution_id, uuid7(now() + row_number() over (order by d.failed_at, d.execution_id) * interval '1 microsecond') as id
  from (select * from named union all select * from oldest) d
),
charged as materialized (
  select charge(c.tenant_id, c.rate_limit_per_second, (select count(*) from chosen)) as wait_seconds from caller c
),
retried as (
  update dead_letters d set retried_as = c.id from chosen c cross join charged p
  where d.execution_id = c.execution_id and p.wait_seconds is null
  returning d.execution_id, d.retried_as
),
facts as (
  insert into executions (id, tenant_id, job_id, queue_id, priority, input, env, traceparent, retried_from, created_at)
  select r.retried_as, e.tenant_id, e.job_id, j.queue_id, least(e.priority, c.max_priority), e.input, e.env, e.traceparent, e.id,
    now()
  from caller c cross join retried r join executions e on e.id = r.execution_id join jobs j on j.id = e.job_id
  returning id, tenant_id, job_id, queue_id, priority, input, env
),
waiting as (
  insert into delayed (execution_id, tenant_id, job_id, queue_id, priority, attempt, tries, bytes, due_at)
  select f.id, f.tenant_id, f.job_id, f.queue_id, f.priority, 0, 0,
    coalesce(octet_length(f.input), 0) + coalesce(octet_length(f.env::text), 0), now()
  from facts f
)
select (select array_agg(id order by id) from facts) as execution_ids, (select wait_seconds from charged) as wait_seconds
from caller
