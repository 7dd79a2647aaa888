-- Wins the fleet-wide tick if it is due and nobody else is at it, and says whether leases may be ended. While no
-- worker at all is heard, the platform is to blame and not the workers; when one is heard again, each has a whole lease
-- to be heard from. After a quarter of an hour of silence they are taken to be gone.
-- $1 lease seconds; half as long again without a word from any worker, 90 seconds at least, is an outage
with silence as (
  select coalesce((select w.last_seen_at from workers w order by w.last_seen_at desc limit 1), '-infinity') as heard_at,
    make_interval(secs => greatest(90, 1.5 * $1)) as outage
)
update ticks t
set ticked_at = now(),
  heard_at = greatest(t.heard_at, s.heard_at),
  expire_not_until = case when s.heard_at > t.heard_at + s.outage
    then s.heard_at + make_interval(secs => $1) else t.expire_not_until end
from silence s
-- A clock that was set back must not stop the ticks until it has caught up.
where t.id in (
  select id from ticks where ticked_at not between now() - interval '1 second' and now() for update skip locked)
returning t.stragglers_at <= now() as look_behind,
  t.expire_not_until <= now() and s.heard_at not between now() - interval '15 minutes' and now() - s.outage as may_expire
