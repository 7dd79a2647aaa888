-- Notes what a tick leaves for the next ones.
-- $1 in how many seconds the next tick is due, one at most; $2 whether every lease that ran out was ended;
-- $3 seconds until a tick looks behind the watermarks again, or null; $4 the tenant whose parked rows it looked after last
update ticks
set ticked_at = now() - make_interval(secs => 1 - least($1, 1)),
  expired_from = case when $2 then least(expired_until, now()) else expired_from end,
  expired_until = case when $2 then now() else expired_until end,
  stragglers_at = coalesce(now() + make_interval(secs => $3), stragglers_at),
  parked_after = coalesce($4, parked_after)
