-- The caller itself, with counts that stop at $2 + 1.
-- $1 token hash, $2 counted at most
select t.id, t.name, t.weight, t.max_priority, t.max_running, t.rate_limit_per_second, t.created_at,
  (select count(*) from (select from leases l where l.tenant_id = t.id limit $2 + 1) x) as running,
  (select count(*) from (
    select from ready r where r.tenant_id = t.id
    union all
    select from parked p where p.tenant_id = t.id
    limit $2 + 1) x) as waiting,
  (select count(*) from (select from delayed d where d.tenant_id = t.id limit $2 + 1) x) as delayed
from good_keys k join tenants t on t.id = k.tenant_id
where k.token_hash = $1
