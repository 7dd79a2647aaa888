-- The statements that make the functions' user or bring it up to date, and give it this database, as text and in order.
-- $1 its name, $2 its password or null, $3 its connections at most or null, $4 whether RDS lets it in by tokens
select statement from (values
  (1, case when not exists (select from pg_roles where rolname = $1) then format('create role %I', $1) end),
  (2, format('alter role %I with login connection limit %s', $1, coalesce($3, -1))),
  (3, case when $2::text is not null then format('alter role %I with password %L', $1, $2) end),
  (4, case when $4 then format('grant rds_iam to %I', $1) end),
  -- Only a member of a role may make it an owner.
  (5, case when current_user <> $1 then format('grant %I to %I', $1, current_user) end),
  (6, format('alter database %I owner to %I', current_database(), $1))
) made (turn, statement)
where statement is not null
order by turn
