-- Drops the oldest week if its time is over, moving what must live on to `kept` first; answers its name, or null.
-- $1 days ended executions are kept, $2 days dead letters are kept, $3 rows that may live on
select drop_week($1, $2, $3) as dropped
