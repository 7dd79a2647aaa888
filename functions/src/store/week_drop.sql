-- Takes the next step towards dropping the oldest week whose time is over: what must live on moves to `kept` first.
-- Answers the week and whether facts were `moved`, it was `dropped`, or it is `held` by a long transaction; nulls if there
-- is none, or somebody else is at the partitions.
-- $1 days ended executions are kept, $2 days dead letters are kept, $3 executions that move at once, $4 bytes of their lines
select week, step from drop_week($1, $2, $3, $4)
