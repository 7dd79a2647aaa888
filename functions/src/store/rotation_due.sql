-- Whether an hour has passed since the remembered dequeues were rotated, or a clock ran ahead then, and nobody else is at
-- it.
select id from ticks where rotated_at not between now() - interval '1 hour' and now() + interval '1 hour'
for update skip locked
