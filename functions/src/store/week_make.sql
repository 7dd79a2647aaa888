-- Makes the partitions of one week; false if it has them by now, or somebody else is at the partitions.
-- $1 when it begins
select make_week($1) as made
