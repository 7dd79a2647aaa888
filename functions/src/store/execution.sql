-- One execution of the caller's, whole: the facts, where its row is, and its attempts: the latest $3 at most, and as
-- many as have error texts of $4 bytes (and one).
-- $1 token hash, $2 execution id, $3 attempts at most, $4 bytes
select e.id, e.tenant_id, e.job_id, j.name as job_name, q.name as queue, e.priority, e.input,
  e.scheduled_at, e.created_at, e.retried_from, j.max_attempts,
  execution_status(l.execution_id is not null, coalesce(r.tries, p.tries), d.tries, d.due_at, last.status) as status,
  coalesce(l.attempt, r.attempt, p.attempt, d.attempt, best.attempt, 0) as attempt,
  coalesce(l.tries, r.tries, p.tries, d.tries, last.tries, 0) as tries,
  d.due_at, coalesce(l.progress, last.progress) as progress,
  coalesce(l.started_at, last.started_at) as started_at, last.finished_at, last.exit_code, last.error, last.result,
  coalesce(l.cancel_requested, false) as cancel_requested, l.worker_id, history.attempts
from (
  select k.tenant_id from good_keys k
  where k.token_hash = $1
) caller
  left join executions e on e.tenant_id = caller.tenant_id and e.id = $2
  left join jobs j on j.id = e.job_id
  left join queues q on q.id = e.queue_id
  left join leases l on l.execution_id = e.id
  left join ready r on r.execution_id = e.id
  left join parked p on p.execution_id = e.id
  left join delayed d on d.execution_id = e.id
  left join lateral (
    select a.* from attempts a where a.execution_id = $2 and a.execution_id = e.id
    order by a.attempt = 0 desc, a.attempt desc limit 1) last on true
  left join lateral (
    select max(a.attempt) as attempt from attempts a where a.execution_id = $2 and a.execution_id = e.id) best on true
  left join lateral (
    select json_agg(json_build_object('attempt', a.attempt, 'outcome', a.outcome, 'worker_id', a.worker_id,
        'started_at', a.started_at, 'finished_at', a.finished_at, 'exit_code', a.exit_code, 'error', a.error)
      order by a.finished_at, a.attempt)::text as attempts
    from (
      select a.*, coalesce(sum(octet_length(to_json(a.error)::text)) over (
        order by a.finished_at desc, a.attempt desc rows between unbounded preceding and 1 preceding), 0) as bytes_after
      from attempts a where a.execution_id = $2 and a.execution_id = e.id
      order by a.finished_at desc, a.attempt desc
      limit $3
    ) a
    where a.bytes_after < $4) history on true
