-- The newest migration that was applied.
select max(version) as version from refinery_schema_history
