-- The weeks of the rows that lie in the default partition because nobody made those weeks in time, up to the next
-- week that exists; no row if there are none. With 30 days to spare, as weeks are made ahead: more rows may come while
-- these are settled, and nobody may come back to it for long.
select b.lower, b.upper, b.last < b.upper as contiguous
from (
  select x.last, uuid7_floor(date_trunc('week', uuid7_time(x.first), 'UTC')) as lower,
    least(
      (select p.lower from partitions p where p.lower > x.first order by p.lower limit 1),
      uuid7_floor(date_trunc('week', greatest(uuid7_time(x.last), now() + interval '30 days'), 'UTC') + interval '168 hours')
    ) as upper
  from (
    select (select e.id from executions_default e order by e.id limit 1) as first,
      (select e.id from executions_default e order by e.id desc limit 1) as last
  ) x
  where x.first is not null
) b
