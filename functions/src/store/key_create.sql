-- Makes a key of a tenant; no row if there is no such tenant.
-- $1 tenant id, $2 name, $3 key hash, $4 expires at
insert into tenant_keys (id, tenant_id, name, token_hash, expires_at)
select uuid7(now()), t.id, $2, $3, $4 from tenants t where t.id = $1
returning id
