-- Makes a tenant and its first key.
-- $1 name, $2 weight, $3 max priority, $4 max running, $5 rate limit, $6 key hash
with made as (
  insert into tenants (id, name, weight, max_priority, max_running, rate_limit_per_second)
  values (uuid7(now()), $1, $2, $3, $4, $5)
  returning id
),
first_key as (
  insert into tenant_keys (id, tenant_id, name, token_hash) select uuid7(now()), id, 'first', $6 from made
)
select id from made
