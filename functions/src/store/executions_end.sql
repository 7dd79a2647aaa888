-- The last row that a page of a filtered list examined, if there were as many as it may examine: its cursor.
-- $1 token hash, $2 created after, $3 created before, $4 cursor or null, $5 examined at most
select e.id
from tenant_keys k join executions e on e.tenant_id = k.tenant_id
where k.token_hash = $1
  and ($4::uuid is null or e.id < $4)
  and ($2::timestamptz is null or e.id >= uuid7_floor($2))
  and ($3::timestamptz is null or e.id < uuid7_floor($3))
order by e.id desc
offset $5 - 1 limit 1
