-- Promises that the default partition holds nothing but these weeks; false if nothing lies in it any more, or somebody
-- else is at the partitions.
-- $1 and $2 bounds
select bound_default($1, $2) as bound
