-- Changes what is given of a tenant.
-- $1 tenant id, $2 name, $3 weight, $4 max priority, $5 max running given, $6 max running, $7 rate given, $8 rate
update tenants
set name = coalesce($2, name),
  weight = coalesce($3, weight),
  max_priority = coalesce($4, max_priority),
  max_running = case when $5 then $6 else max_running end,
  rate_limit_per_second = case when $7 then $8 else rate_limit_per_second end
where id = $1
returning id, name, weight, max_priority, max_running, rate_limit_per_second, created_at
