-- Makes a key worthless from now on.
-- $1 tenant id, $2 key id
update tenant_keys set revoked_at = now() where tenant_id = $1 and id = $2 and revoked_at is null
returning id
