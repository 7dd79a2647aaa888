-- Takes one dead letter off the list; the execution's history stays.
-- $1 token hash, $2 execution id
with caller as materialized (
  select k.tenant_id from good_keys k
  where k.token_hash = $1
),
gone as (
  delete from dead_letters d using caller c
  where d.execution_id = $2 and d.tenant_id = c.tenant_id and d.retried_as is null
  returning d.execution_id
)
select exists (select from gone) as deleted from caller
