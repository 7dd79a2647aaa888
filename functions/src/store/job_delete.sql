-- Takes a job away: it runs no more, what waits is still done, history stays.
-- $1 token hash, $2 job id
with caller as materialized (
  select k.tenant_id from good_keys k
  where k.token_hash = $1
),
gone as (
  update jobs j set deleted_at = now(), updated_at = now() from caller c
  where j.id = $2 and j.tenant_id = c.tenant_id and j.deleted_at is null
  returning j.id
)
select exists (select from gone) as deleted from caller
