-- Makes a worker token.
-- $1 name, $2 token hash, $3 queues or null, $4 tenants or null, $5 expires at
insert into worker_tokens (id, name, token_hash, queues, tenant_ids, expires_at)
values (uuid7(now()), $1, $2, $3, $4, $5)
returning id
