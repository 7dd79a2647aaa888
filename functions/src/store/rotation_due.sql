-- Whether an hour has passed since the remembered dequeues were rotated, and nobody else is at it.
select id from ticks where rotated_at < now() - interval '1 hour' for update skip locked
