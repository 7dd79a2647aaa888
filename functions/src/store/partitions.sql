-- Makes the partitions of the next weeks. Answers how many were missing.
-- $1 days ahead
select make_partitions(now() + make_interval(days => $1)) as made
