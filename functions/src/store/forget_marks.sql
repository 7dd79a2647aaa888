-- Forgets the marks of tenants that no scoped claim has come for in a while: their rows are ranked behind these marks, and
-- would wait behind everyone's once they are left to the other workers. A scoped claim that comes again begins anew.
delete from tenant_queues where advanced_at < now() - interval '1 minute'
