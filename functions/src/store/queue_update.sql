-- Pauses or resumes a queue.
-- $1 name, $2 paused
update queues set paused = $2 where name = $1 returning id
