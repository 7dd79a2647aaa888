-- A page of worker tokens that are not revoked, newest first.
-- $1 cursor (an id) or null, $2 limit
select id, name, queues, tenant_ids, created_at, expires_at
from worker_tokens
where revoked_at is null and ($1::uuid is null or id < $1)
order by id desc
limit $2
