-- The weeks from this one on that have no partition yet, nearest first; none up to where rows lie in the default one.
-- $1 days ahead
select w.week
from generate_series(date_trunc('week', now(), 'UTC'), now() + make_interval(days => $1), interval '168 hours') w (week)
where not exists (
    select from partitions p
    where p.upper > uuid7_floor(w.week) and (p.lower is null or p.lower <= uuid7_floor(w.week)))
  and not exists (select from executions_default e where e.id >= uuid7_floor(w.week))
order by w.week
