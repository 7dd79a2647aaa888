-- A table of somebody else's: any, in a database that no migration has reached yet. What an extension brings is nobody's.
select format('%I.%I', n.nspname, c.relname) as name
from pg_class c
  join pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p', 'v', 'm', 'f')
  and n.nspname not in ('pg_catalog', 'information_schema') and n.nspname not like 'pg\_%'
  and to_regclass('refinery_schema_history') is null
  and not exists (
    select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
limit 1;
