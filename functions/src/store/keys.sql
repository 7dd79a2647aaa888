-- A page of a tenant's keys that are not revoked, newest first. One row without an id when there are none,
-- no row if there is no such tenant.
-- $1 tenant id, $2 cursor (an id) or null, $3 limit
select k.*
from tenants t left join lateral (
  select k.id, k.name, k.created_at, k.expires_at from tenant_keys k
  where k.tenant_id = t.id and k.revoked_at is null and ($2::uuid is null or k.id < $2)
  order by k.id desc
  limit $3
) k on true
where t.id = $1
order by k.id desc
