-- The next tenants that have parked rows, after those of the last tick and from the beginning again at the end.
-- $1 at most so many
with recursive tenants_of as (
  select p.tenant_id, 1 as place
  from ticks t cross join lateral (
    select p.tenant_id from parked p where p.tenant_id > t.parked_after order by p.tenant_id, p.queue_id, p.flow limit 1) p
  union all
  select n.tenant_id, o.place + 1
  from tenants_of o cross join lateral (
    select p.tenant_id from parked p where p.tenant_id > o.tenant_id order by p.tenant_id, p.queue_id, p.flow limit 1) n
  where o.place < $1
)
select array_agg(tenant_id) as tenants,
  case when count(*) < $1 then '00000000-0000-0000-0000-000000000000' else (array_agg(tenant_id order by place desc))[1] end
    as last
from tenants_of
