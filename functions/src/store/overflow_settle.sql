-- Makes the default partition that of the weeks whose rows it holds, and a new default; false if somebody else is at
-- the partitions.
-- $1 and $2 bounds
select settle_default($1, $2) as settled
