-- Leases that ran out, oldest first, locked for the statement that ends them.
-- $1 at most so many, $2 whether to look behind the watermark, $3 only what ran out before this, or null
select l.execution_id, l.lease_id,
  case when l.expires_at >= l.deadline_at then 'deadline_exceeded' else 'expired' end as outcome,
  case when l.expires_at >= l.deadline_at
    then format('worker %s was still at it when timeout (%s s) and grace had passed', l.worker_id, l.timeout_seconds)
    else format('worker %s was not heard from for a whole lease', l.worker_id) end as error
from leases l
where l.expires_at < least(now(), $3) and l.expires_at >= (select case when $2 then '-infinity' else t.expired_from end from ticks t)
order by l.expires_at
limit $1
for update skip locked
