-- Cancels what waits at once, asks for the cancel of what runs, and says what it found. A row that moved while
-- this statement waited for it is in neither place: the caller looks again.
-- $1 token hash, $2 execution id
with caller as materialized (
  select k.tenant_id from good_keys k
  where k.token_hash = $1
),
found as materialized (
  select e.id from executions e join caller c on c.tenant_id = e.tenant_id where e.id = $2
),
waited as (
  delete from ready r using found f where r.execution_id = f.id returning r.execution_id, r.tries
),
parked_ as (
  delete from parked p using found f where p.execution_id = f.id returning p.execution_id, p.tries
),
delayed_ as (
  delete from delayed d using found f where d.execution_id = f.id returning d.execution_id, d.tries
),
asked as (
  update leases l set cancel_requested = true from found f where l.execution_id = f.id returning l.execution_id
),
recorded as (
  insert into attempts (execution_id, attempt, outcome, status, tries, finished_at)
  select w.execution_id, 0, 'cancelled', 'CANCELLED', w.tries, now()
  from (select * from waited union all select * from parked_ union all select * from delayed_) w
  returning execution_id
)
select exists (select from found) as found,
  exists (select from recorded) as cancelled,
  exists (select from asked) as asked,
  exists (select from attempts a where a.execution_id = $2 and a.status in ('SUCCEEDED', 'FAILED', 'CANCELLED')) as finished
from caller
