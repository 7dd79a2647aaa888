-- Wins the fleet-wide tick if it is due and nobody else is at it, and says which leases may be ended: those that ran out
-- before some moment, or all if there is none. While no worker at all is heard, the platform is to blame and not the workers; when one is heard
-- again, each has a whole lease to be heard from. What had run out before that silence is not spared, so that a fleet
-- that comes and goes leaves nothing. After a long silence the workers are taken to be gone.
-- $1 lease seconds. An outage is no word from any worker for as long as a lease may take to run out: two thirds of it after
-- its last heartbeat, and what passes before a worker's next word is noted. A quarter of an hour or two leases are long.
with silence as (
  select coalesce((select w.last_seen_at from workers w where w.last_seen_at <= now() order by w.last_seen_at desc limit 1),
      '-infinity') as heard_at,
    make_interval(secs => $1 * 2 / 3) + noted_every($1) as outage,
    make_interval(secs => greatest(900, 2 * $1)) as long
),
-- A clock that was set back must not stop the ticks until it has caught up: what lies in the future counts for nothing.
won as (
  select id, ticked_at from ticks
  where ticked_at not between now() - interval '1 second' and now()
  for update skip locked
)
update ticks t
set ticked_at = now(),
  heard_at = greatest(least(t.heard_at, now()), s.heard_at),
  silent_from = case when s.heard_at > t.heard_at + s.outage then t.heard_at else t.silent_from end,
  expire_not_until = case when s.heard_at > t.heard_at + s.outage
    then s.heard_at + make_interval(secs => $1) else t.expire_not_until end
from won w cross join silence s
where t.id = w.id
returning t.stragglers_at not between now() and now() + interval '1 hour' or w.ticked_at > now() as look_behind,
  case
    when s.heard_at < now() - s.long then null
    when s.heard_at < now() - s.outage then s.heard_at
    when t.expire_not_until between now() and now() + make_interval(secs => $1) then t.silent_from
  end as expire_before
