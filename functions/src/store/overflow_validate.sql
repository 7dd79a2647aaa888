-- Proves the promise, while others read and write.
alter table executions_default validate constraint in_bounds;
alter table attempts_default validate constraint in_bounds;
alter table log_chunks_default validate constraint in_bounds;
alter table dead_letters_default validate constraint in_bounds
