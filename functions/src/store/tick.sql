-- Wins the fleet-wide tick if it is due and nobody else is at it. After an outage of the controller nothing
-- may expire until every worker has had a whole lease to be heard from again.
-- $1 lease seconds. Half as long again without a tick is an outage, 90 seconds at least: with no worker, only the
-- minutely sweep ticks.
update ticks t
set ticked_at = now(),
  expire_not_until = case when t.ticked_at < now() - make_interval(secs => greatest(90, 1.5 * $1))
    then now() + make_interval(secs => $1) else t.expire_not_until end
where t.id in (select id from ticks where ticked_at <= now() - interval '1 second' for update skip locked)
returning t.expire_not_until <= now() as may_expire
