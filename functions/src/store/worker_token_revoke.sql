-- Makes a worker token worthless from now on; what its workers hold runs out with its leases.
-- $1 token id
update worker_tokens set revoked_at = now() where id = $1 and revoked_at is null
returning id
