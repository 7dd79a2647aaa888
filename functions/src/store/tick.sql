-- Wins the fleet-wide tick if it is due and nobody else is at it. After an outage of the controller nothing
-- may expire until every worker has had a whole lease to be heard from again.
-- $1 lease seconds
update ticks t
set ticked_at = now(),
  expire_not_until = case when t.ticked_at < now() - interval '90 seconds'
    then now() + make_interval(secs => $1) else t.expire_not_until end
where t.id in (select id from ticks where ticked_at <= now() - interval '1 second' for update skip locked)
returning t.expire_not_until <= now() as may_expire
