-- What became of one dead letter: the fresh look before a 404.
-- $1 token hash, $2 execution id
select d.retried_as, j.deleted_at is not null as job_deleted
from tenant_keys k join dead_letters d on d.tenant_id = k.tenant_id join jobs j on j.id = d.job_id
where k.token_hash = $1 and d.execution_id = $2
