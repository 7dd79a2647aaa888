-- Changes what is given of a tenant. A new rate begins with a full bucket: what was owed at the old one is forgotten.
-- $1 tenant id, $2 name, $3 weight, $4 max priority, $5 max running given, $6 max running, $7 rate given, $8 rate
with refilled as (
  delete from tenant_rates where $7 and tenant_id = $1
)
update tenants
set name = coalesce($2, name),
  weight = coalesce($3, weight),
  max_priority = coalesce($4, max_priority),
  max_running = case when $5 then $6 else max_running end,
  rate_limit_per_second = case when $7 then $8 else rate_limit_per_second end
where id = $1
returning id, name, weight, max_priority, max_running, rate_limit_per_second, created_at
