-- What an earlier call with this idempotency key was answered.
-- $1 token hash, $2 key
select i.fingerprint, i.execution_ids, i.status
from tenant_keys k join idempotency_keys i on i.tenant_id = k.tenant_id
where k.token_hash = $1 and i.key = $2
