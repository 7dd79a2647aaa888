-- Drops idempotency keys that nobody may repeat any more, and workers not heard from for a day.
-- $1 hours an idempotency key is remembered, $2 at most so many keys
with keys as (
  delete from idempotency_keys where ctid = any (array(
    select ctid from idempotency_keys where created_at < now() - make_interval(hours => $1)
    order by created_at limit $2 for update skip locked))
  returning 1
),
silent as (
  delete from workers where last_seen_at < now() - interval '1 day'
)
select count(*) from keys
