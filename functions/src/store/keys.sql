-- A page of a tenant's keys that are not revoked, newest first. One row without an id when there are none,
-- no row if there is no such tenant.
-- $1 tenant id, $2 cursor (an id) or null, $3 limit
select k.*
from tenants t left join lateral (
  select k.id, k.name, k.created_at, k.expires_at from tenant_keys k
  -- Compared and ordered as rows, so that only the index that begins with the tenant gives this order.
  where (k.tenant_id, k.id) < (t.id, coalesce($2::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
    and (k.tenant_id, k.id) >= (t.id, '00000000-0000-0000-0000-000000000000') and k.revoked_at is null
  order by k.tenant_id desc, k.id desc
  limit $3
) k on true
where t.id = $1
order by k.id desc
