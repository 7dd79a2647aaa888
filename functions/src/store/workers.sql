-- A page of the workers heard from in the last hour, the latest first, and what they hold.
-- $1 last seen before or null, $2 worker id and $3 token id to begin after, $4 limit
select w.worker_id, w.token_id, w.last_seen_at, coalesce(h.running, 0) as running, h.execution_ids
from (
  select w.* from workers w
  where w.last_seen_at > now() - interval '1 hour'
    and ($1::timestamptz is null or (w.last_seen_at, w.worker_id, w.token_id) < ($1, $2, $3))
  order by w.last_seen_at desc, w.worker_id desc, w.token_id desc
  limit $4
) w
  left join (
    select l.token_id, l.worker_id, count(*) as running,
      (array_agg(l.execution_id order by l.execution_id))[:100] as execution_ids
    from leases l group by l.token_id, l.worker_id
  ) h using (token_id, worker_id)
order by w.last_seen_at desc, w.worker_id desc, w.token_id desc
