-- One tenant, or a page of them, newest first.
-- $1 tenant id or null, $2 cursor (an id) or null, $3 limit
select id, name, weight, max_priority, max_running, rate_limit_per_second, created_at
from tenants
where ($1::uuid is null or id = $1) and ($2::uuid is null or id < $2)
order by id desc
limit $3
