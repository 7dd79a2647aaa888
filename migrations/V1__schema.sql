-- The whole schema. Three kinds of rows: facts that never change (partitioned by time), work in
-- flight (narrow tables whose rows are inserted and deleted), definitions (small, rarely written).

-- UUIDv7 (RFC 9562) of a time by the database's clock: 48 bits of milliseconds, the version and 12 bits of the
-- microseconds within (method 3 of its section 6.2), 62 random bits. Ids sort by the microsecond.
create function uuid7(at timestamptz) returns uuid
language sql volatile parallel safe as $$
  select encode(
    substring(int8send(micros / 1000) from 3) || int2send((28672 + micros % 1000 * 4)::smallint)
      || substring(uuid_send(gen_random_uuid()) from 9), 'hex')::uuid
  from floor(extract(epoch from at) * 1000000) as t (exact), lateral (select exact::bigint as micros) m
$$;

-- The lowest id that uuid7 can mint at that time: the bound of a partition or of a list by time.
create function uuid7_floor(at timestamptz) returns uuid
language sql immutable parallel safe as $$
  select encode(substring(int8send(floor(extract(epoch from at) * 1000)::bigint) from 3)
                || '\x00000000000000000000'::bytea, 'hex')::uuid
$$;

-- When that id was minted, to the millisecond.
create function uuid7_time(id uuid) returns timestamptz
language sql immutable parallel safe as $$
  select to_timestamp(('x' || translate(left(id::text, 13), '-', ''))::bit(48)::bigint / 1000.0)
$$;

-- Definitions ----------------------------------------------------------------------------------

create table tenants (
  id                    uuid primary key,
  name                  text not null constraint tenant_name unique,
  weight                integer not null check (weight between 1 and 1000),
  max_priority          smallint not null check (max_priority in (0, 25, 50, 75, 100)),
  max_running           integer check (max_running > 0),
  rate_limit_per_second integer check (rate_limit_per_second > 0),
  created_at            timestamptz not null default now()
);

-- When the tenant's bucket is full again: the theoretical arrival time of the generic cell rate
-- algorithm (ITU-T I.371). Apart from tenants, because it is written with every limited run.
create table tenant_rates (
  tenant_id uuid primary key references tenants (id),
  full_at   timestamptz not null
) with (fillfactor = 50);

-- Takes so many executions out of a tenant's bucket and answers null; or takes none, and answers in how many seconds it
-- has them. A full bucket holds one second's worth, or one call's if that is more.
create function charge(of_tenant uuid, per_second integer, executions bigint) returns double precision
language plpgsql as $$
declare
  cost constant interval := make_interval(secs => executions / per_second::float8);
begin
  if executions = 0 or per_second is null then return null; end if;
  insert into tenant_rates as r (tenant_id, full_at) values (of_tenant, now() + cost)
  on conflict (tenant_id) do update set full_at = greatest(r.full_at, now()) + cost
    where greatest(r.full_at, now()) + cost <= now() + greatest(interval '1 second', cost);
  if found then return null; end if;
  return (select extract(epoch from r.full_at - now() - greatest(interval '0', interval '1 second' - cost))
          from tenant_rates r where r.tenant_id = of_tenant);
end
$$;

create table tenant_keys (
  id         uuid primary key,
  tenant_id  uuid not null references tenants (id),
  name       text not null,
  token_hash bytea not null unique,
  created_at timestamptz not null default now(),
  expires_at timestamptz,
  revoked_at timestamptz
);
create index tenant_keys_of on tenant_keys (tenant_id, id);

create table worker_tokens (
  id         uuid primary key,
  name       text not null,
  token_hash bytea not null unique,
  queues     text[] check (cardinality(queues) > 0),
  tenant_ids uuid[] check (cardinality(tenant_ids) > 0),
  created_at timestamptz not null default now(),
  expires_at timestamptz,
  revoked_at timestamptz
);

-- virtual_rank is the rank being served (virtual time of start-time fair queueing); scan_from is
-- its value before the last refresh, where a claim begins to walk. Likewise due_from and due_until: before the
-- former, nothing is left that is due.
create table queues (
  id           integer generated always as identity primary key,
  name         text not null constraint queue_name unique,
  paused       boolean not null default false,
  scan_from    bigint not null default 0,
  virtual_rank bigint not null default 0,
  advanced_at  timestamptz not null default '-infinity',
  due_from     timestamptz not null default '-infinity',
  due_until    timestamptz not null default '-infinity',
  check (scan_from <= virtual_rank),
  check (due_from <= due_until)
) with (fillfactor = 50);
insert into queues (name) values ('default');

-- The same marks for one tenant's rows in a queue, kept by claims that are scoped to tenants: they pass others' rows
-- over and must not move the queue's.
create table tenant_queues (
  queue_id     integer not null references queues (id),
  tenant_id    uuid not null references tenants (id),
  scan_from    bigint not null default 0,
  virtual_rank bigint not null,
  advanced_at  timestamptz not null,
  primary key (queue_id, tenant_id),
  check (scan_from <= virtual_rank)
) with (fillfactor = 50);

create table jobs (
  id                  uuid primary key,
  tenant_id           uuid not null references tenants (id),
  name                text not null,
  command             text[],
  image               text,
  env                 jsonb not null,
  queue_id            integer not null references queues (id),
  priority            smallint not null check (priority in (0, 25, 50, 75, 100)),
  timeout_seconds     integer not null check (timeout_seconds > 0),
  max_running         integer check (max_running > 0),
  max_attempts        integer not null check (max_attempts > 0),
  backoff_seconds     integer not null check (backoff_seconds >= 0),
  backoff_factor      double precision not null check (backoff_factor >= 1),
  backoff_cap_seconds integer not null check (backoff_cap_seconds >= 0),
  created_at          timestamptz not null default now(),
  updated_at          timestamptz not null default now(),
  deleted_at          timestamptz,
  constraint job_runs_something check (command is not null or image is not null)
);
create unique index job_name on jobs (tenant_id, name) where deleted_at is null;
create index jobs_of on jobs (tenant_id, id);

-- Facts: only ever inserted, dropped by the partition ---------------------------------------------

create table executions (
  id           uuid not null,
  tenant_id    uuid not null,
  job_id       uuid not null,
  queue_id     integer not null,
  priority     smallint not null,
  input        text,
  env          jsonb,
  scheduled_at timestamptz,
  traceparent  text,
  retried_from uuid,
  created_at   timestamptz not null
) partition by range (id);
create index executions_of on executions (tenant_id, id);
-- Made after the other: where a week is empty and both cost the same, the planner prefers the later one.
alter table executions add primary key (id);

-- How each attempt ended. Attempt 0 is a cancel before any worker held the execution (again).
-- A row without lease_id, or with an outcome that only the controller gives, was ended by the
-- controller: a result that names it is refused.
create table attempts (
  execution_id    uuid not null,
  attempt         integer not null check (attempt >= 0),
  outcome         text not null check (outcome in
    ('succeeded', 'failed', 'timed_out', 'cancelled', 'released', 'expired', 'deadline_exceeded')),
  status          text not null check (status in
    ('SUCCEEDED', 'FAILED', 'CANCELLED', 'RETRYING', 'PENDING')),
  tries           integer not null check (tries between 0 and attempt or attempt = 0),
  lease_id        uuid,
  worker_id       text,
  started_at      timestamptz,
  finished_at     timestamptz not null,
  next_attempt_at timestamptz,
  exit_code       integer,
  error           text,
  result          text,
  progress        text,
  primary key (execution_id, attempt)
) partition by range (execution_id);
-- Rows lie in the order in which they ended: what ended lately is found without reading the rest.
create index attempts_by_end on attempts using brin (finished_at);

-- total_bytes runs over all attempts of the execution; truncated is set on the last chunk that is kept.
create table log_chunks (
  execution_id uuid not null,
  attempt      integer not null,
  first_seq    bigint not null,
  line_count   integer not null check (line_count > 0),
  total_bytes  bigint not null,
  truncated    boolean not null default false,
  lines        text not null,
  primary key (execution_id, attempt, first_seq)
) partition by range (execution_id);

-- Ended badly. retried_as keeps a second retry from making a second execution.
create table dead_letters (
  execution_id uuid primary key,
  tenant_id    uuid not null,
  job_id       uuid not null,
  attempts     integer not null,
  reason       text not null,
  failed_at    timestamptz not null,
  retried_as   uuid
) partition by range (execution_id);
create index dead_letters_of on dead_letters (tenant_id, failed_at, execution_id) where retried_as is null;

-- The facts, and the column of each that names the execution.
create view facts as
  select * from (values ('executions', 'id'), ('attempts', 'execution_id'), ('log_chunks', 'execution_id'),
    ('dead_letters', 'execution_id')) f (fact, key);

-- The partitions that every one of them has, in three kinds: weeks; before them all, without a lower bound, `kept`,
-- which holds what outlives its week; and the default, for what no week was made, which has no bounds.
create view partitions as
  select substring(c.relname from '^executions_(.*)$') as name,
    substring(bounds from 'FROM \(''([^'']+)')::uuid as lower, substring(bounds from 'TO \(''([^'']+)')::uuid as upper
  from pg_inherits i join pg_class c on c.oid = i.inhrelid
    cross join lateral pg_get_expr(c.relpartbound, c.oid) as bounds
  where i.inhparent = 'executions'::regclass;

-- Of two at once that change partitions, one does nothing.
create function may_change_partitions() returns boolean
language sql as $$ select pg_try_advisory_xact_lock(hashtext('partitions')) $$;

create function week_name(week timestamptz) returns text
language sql stable as $$ select to_char(week at time zone 'utc', 'IYYY"w"IW') $$;

-- Makes a partition of every fact apart and then attaches it. Readers that touch the default wait no longer than the
-- limit for it, and it for them.
create function make_partition(name text, bounds text) returns void
language plpgsql set lock_timeout = '500ms' as $$
declare f record;
begin
  for f in select fact, concat(fact, '_', name) as part from facts loop
    execute format('create table %I (like %I including all)', f.part, f.fact);
    execute format('alter table %I attach partition %I %s', f.fact, f.part, bounds);
  end loop;
end
$$;

-- Whether the default partition holds so little that others may wait while it is read: whatever attaches a partition
-- reads it to prove that nothing in it belongs there.
create function default_is_small() returns boolean
language plpgsql stable as $$
declare
  fact  text;
  large boolean;
begin
  for fact in select f.fact from facts f loop
    execute format('select exists (select from %I offset 10000)', concat(fact, '_default')) into large;
    if large then return false; end if;
  end loop;
  return true;
end
$$;

-- Makes the partitions of the week that begins then, unless it has them.
create function make_week(week timestamptz) returns boolean
language plpgsql as $$
begin
  if not may_change_partitions() or not default_is_small() then
    return false;
  end if;
  -- A statement of its own, as in all of these: what the one before us did is seen only now.
  if exists (select from partitions where lower <= uuid7_floor(week) and upper > uuid7_floor(week)) then
    return false;
  end if;
  perform make_partition(week_name(week),
    format('for values from (%L) to (%L)', uuid7_floor(week), uuid7_floor(week + interval '168 hours')));
  return true;
end
$$;

-- Where rows lie in the default partition, it becomes the partition of the weeks that they take, and a new default
-- takes its place: nothing is copied, however many they are. First these bounds are promised, then proved while others
-- go on (`validate constraint`), so that attaching it reads nothing while they wait.
create view promises as
  select c.conrelid, c.convalidated as proved, pg_get_constraintdef(c.oid) as bounds
  from pg_constraint c join facts f on c.conrelid = to_regclass(concat(f.fact, '_default'))
  where c.conname = 'in_bounds';
create function bound_default(lower uuid, upper uuid) returns boolean
language plpgsql set lock_timeout = '500ms' as $$
declare f record;
begin
  if not may_change_partitions() then
    return false;
  end if;
  -- With a promise, somebody else is at it.
  if not exists (select from executions_default) or exists (select from promises) then
    return false;
  end if;
  for f in select *, concat(fact, '_default') as part from facts loop
    execute format('alter table %I add constraint in_bounds check (%I >= %L and %2$I < %4$L) not valid',
      f.part, f.key, lower, upper);
  end loop;
  return true;
end
$$;
create function settle_default(lower uuid, upper uuid) returns boolean
language plpgsql set lock_timeout = '500ms' as $$
declare f record;
begin
  if not may_change_partitions() then
    return false;
  end if;
  -- Otherwise somebody else has settled it, or taken the promise back, since it was proved.
  if (select count(*) from facts) <> (select count(*) from promises p
    where p.proved and strpos(p.bounds, lower::text) > 0 and strpos(p.bounds, upper::text) > 0)
  then
    return false;
  end if;
  lock table only executions, only attempts, only log_chunks, only dead_letters in access exclusive mode;
  for f in select fact, concat(fact, '_default') as part, concat(fact, '_', week_name(uuid7_time(lower))) as week
    from facts loop
    execute format('alter table %I detach partition %I', f.fact, f.part);
    execute format('alter table %I rename to %I', f.part, f.week);
    execute format('alter table %I attach partition %I for values from (%L) to (%L)', f.fact, f.week, lower, upper);
    execute format('alter table %I drop constraint in_bounds', f.week);
  end loop;
  perform make_partition('default', 'default');
  return true;
end
$$;
-- Takes a promise back that nobody is at: it would refuse the rows that come when its time is over.
create function unbound_default() returns void
language plpgsql set lock_timeout = '500ms' as $$
declare part regclass;
begin
  if not may_change_partitions() then
    return;
  end if;
  -- Whoever proves it holds this lock, perhaps for long, and takes it back too if that fails.
  if exists (select from pg_locks l join promises p on p.conrelid = l.relation
    where l.database = (select oid from pg_database where datname = current_database())
      and l.mode = 'ShareUpdateExclusiveLock')
  then
    return;
  end if;
  for part in select p.conrelid from promises p loop
    execute format('alter table %s drop constraint in_bounds', part);
  end loop;
end
$$;

-- Executions of these partitions that had an attempt end since then. By name, because with a bound on the key the
-- planner would walk a whole week by its primary key.
create function ended_since(parts text[], since timestamptz) returns uuid[]
language plpgsql set enable_bitmapscan = on as $$
declare
  part  text;
  found uuid[];
  ids   uuid[] := '{}';
begin
  foreach part in array parts loop
    part := concat('attempts_', part);
    -- What vacuum has not summarised yet would be read whole.
    perform brin_summarize_new_values(i.indexrelid)
    from pg_index i join pg_class c on c.oid = i.indexrelid join pg_am a on a.oid = c.relam
    where i.indrelid = part::regclass and a.amname = 'brin';
    execute format('select array_agg(execution_id) from %I where finished_at > $1', part) into found using since;
    ids := ids || found;
  end loop;
  return ids;
end
$$;

-- Copies all facts of these executions, which lie before a bound, to another partition, where they are not there yet.
create function copy_facts(part text, before uuid, ids uuid[]) returns void
language plpgsql as $$
declare f record;
begin
  for f in select * from facts loop
    execute format('insert into %I select f.* from unnest($2) x (id) join %I f on f.%I = x.id where f.%3$I < $1 '
      'on conflict do nothing', concat(f.fact, '_', part), f.fact, f.key) using before, ids;
  end loop;
end
$$;

-- The week that is to be dropped next, and the partition that will be `kept` then. Its facts are copied in order of
-- their execution, up to `after` so far.
create table moving (
  id       boolean primary key default true check (id),
  week     text not null,
  part     text not null,
  began_at timestamptz not null default now(),
  after    uuid not null default '00000000-0000-0000-0000-000000000000',
  copied   boolean not null default false
);

-- Makes the partition that these weeks' facts move to, apart. If another week was being moved, one before it has been
-- made since, and it begins again.
create function begin_move(week partitions) returns moving
language plpgsql as $$
declare
  f     record;
  begun moving;
begin
  for f in select concat(fact, '_', m.part) as part from facts, moving m loop
    execute format('drop table %I', f.part);
  end loop;
  delete from moving;
  insert into moving (week, part) values (week.name, 'kept_' || week_name(uuid7_time(week.upper))) returning * into begun;
  for f in select *, concat(fact, '_', begun.part) as part from facts loop
    -- The check saves attaching it a scan.
    execute format('create table %I (like %I including all, check (%I < %L))', f.part, f.fact, f.key, week.upper);
  end loop;
  return begun;
end
$$;

-- The next executions that must live on, by their ids: in flight, ended since then, or dead letters since then.
create function living_on(parts text[], before uuid, ended_after timestamptz, failed_after timestamptz, after uuid,
  most integer) returns uuid[]
language plpgsql as $$
declare ended constant uuid[] := ended_since(parts, ended_after);
begin
  return array(
    select x.id from (
      (select i.execution_id as id from in_flight i
        where i.execution_id > after and i.execution_id < before order by i.execution_id limit most)
      union
      (select d.execution_id from dead_letters d
        where d.execution_id > after and d.execution_id < before and d.retried_as is null and d.failed_at > failed_after
        order by d.execution_id limit most)
      union
      select e.id from unnest(ended) e (id) where e.id > after) x
    order by x.id limit most);
end
$$;

-- The first of these executions, as many as have so many bytes of lines together, and one at least.
create function first_of(ids uuid[], before uuid, bytes bigint) returns uuid[]
language sql stable as $$
  select coalesce(array_agg(y.id order by y.id) filter (where y.before_it < bytes), '{}') from (
    select x.id, coalesce(sum(l.total_bytes) over (order by x.id rows between unbounded preceding and 1 preceding), 0)
      as before_it
    from unnest(ids) x (id) left join lateral (
      select k.total_bytes from log_chunks k where k.execution_id = x.id and k.execution_id < before
      order by k.attempt desc, k.first_seq desc limit 1) l on true) y
$$;

-- Copies what may have changed since it was copied: facts are added only to what a worker holds, or held since then;
-- dead letters are retried and deleted.
create function copy_changed(part text, before uuid, parts text[], since timestamptz) returns void
language plpgsql as $$
declare
  changed uuid[];
  ended   constant uuid[] := ended_since(parts, since);
begin
  execute format('with changed as (delete from %I n where not exists (
      select from dead_letters d where d.execution_id < $1 and d.execution_id = n.execution_id
        and d.retried_as is not distinct from n.retried_as)
    returning n.execution_id) select array_agg(execution_id) from changed', concat('dead_letters_', part))
    into changed using before;
  perform copy_facts(part, before, array(
    select l.execution_id from leases l where l.execution_id < before
    union select unnest(ended) union select unnest(changed)));
end
$$;

-- Locks these partitions against autovacuum, which gives way after a second, and against nobody who reads or writes.
create function hold_partitions(names text[]) returns void
language plpgsql set lock_timeout = '3s' as $$
declare part text;
begin
  for part in select concat(fact, '_', name) from facts, unnest(names) name loop
    execute format('lock table only %I in share update exclusive mode', part);
  end loop;
end
$$;

-- Whether a transaction that is no short one, such as a dump, reads or writes the facts: it would be waited for in vain,
-- and everyone else would wait behind.
create function is_held(names text[]) returns boolean
language sql as $$
  select exists (
    select from pg_locks l join pg_stat_activity a on a.pid = l.pid
    where l.granted and l.pid <> pg_backend_pid() and a.xact_start < clock_timestamp() - interval '2 seconds'
      and l.database = (select oid from pg_database where datname = current_database())
      and l.relation in (
        select to_regclass(fact) from facts union select to_regclass(concat(fact, '_', name)) from facts, unnest(names) name))
$$;

-- Takes the next step towards dropping the oldest week whose time is over, and answers which. What must live on (in
-- flight, ended less than $1 days ago, or a dead letter of less than $2 days) moves to a new `kept`, made of the old
-- one's survivors and the week's, $3 executions or $4 bytes of lines a step, however many they are: `moved`. When all
-- have, the new one takes the place of both: `dropped`, or `held` while a long transaction stands in the way. Only that
-- keeps others waiting.
create function drop_week(keep_days integer, keep_dead_letters_days integer, most integer, most_bytes bigint,
  out week text, out step text)
language plpgsql set lock_timeout = '500ms' as $$
declare
  oldest partitions;
  parts  text[];
  move   moving;
  ids    uuid[];
  found  integer;
  f      record;
begin
  if not may_change_partitions() or not default_is_small() then
    return;
  end if;
  select * into oldest from partitions p where p.lower is not null order by p.lower limit 1;
  -- A day more, so that what ended soon after its week was over need not move.
  if oldest.upper is null or oldest.upper > uuid7_floor(now() - make_interval(days => keep_days + 1)) then
    return;
  end if;
  week := oldest.name;
  select array[p.name, week] into parts from partitions p where p.lower is null and p.upper is not null;
  select * into move from moving;
  if move.week is distinct from week then
    move := begin_move(oldest);
  end if;

  -- For the copying too: what summarises an index waits for a vacuum.
  perform hold_partitions(parts || array['default', move.part]);
  if not move.copied then
    ids := living_on(parts, oldest.upper, move.began_at - make_interval(days => keep_days),
      move.began_at - make_interval(days => keep_dead_letters_days), move.after, most);
    found := cardinality(ids);
    ids := first_of(ids, oldest.upper, most_bytes);
    perform copy_facts(move.part, oldest.upper, ids);
    update moving set copied = found < most and cardinality(ids) = found,
      after = coalesce(ids[cardinality(ids)], moving.after);
    step := 'moved';
    return;
  end if;

  step := 'held';
  if is_held(parts || array['default']) then
    return;
  end if;
  -- An hour more, for statements under way then.
  perform copy_changed(move.part, oldest.upper, parts, move.began_at - interval '1 hour');
  lock table only executions, only attempts, only log_chunks, only dead_letters in access exclusive mode;
  perform copy_changed(move.part, oldest.upper, parts, now() - interval '1 hour');
  for f in select *, concat(fact, '_', move.part) as part from facts loop
    execute format('drop table %I, %I', concat(f.fact, '_', parts[1]), concat(f.fact, '_', parts[2]));
    execute format('alter table %I attach partition %I for values from (minvalue) to (%L)', f.fact, f.part, oldest.upper);
  end loop;
  delete from moving;
  step := 'dropped';
end
$$;

do $$
declare this_week timestamptz := date_trunc('week', now(), 'UTC');
begin
  perform make_partition('kept_' || week_name(this_week), format('for values from (minvalue) to (%L)', uuid7_floor(this_week)));
  perform make_partition('default', 'default');
  perform make_week(w) from generate_series(this_week, now() + interval '30 days', interval '168 hours') w;
end $$;

-- Work in flight: an execution is in at most one of these; where it is, is its state ---------------

-- May be claimed. A flow is (queue, tenant, priority), with + 1 for rows that fell due. line names where in parked
-- a row under a concurrency limit came from: such rows are the window that stands in front of what is parked.
create table ready (
  execution_id uuid primary key,
  tenant_id    uuid not null,
  job_id       uuid not null,
  queue_id     integer not null,
  flow         smallint not null check (flow between 0 and 101 and flow % 25 in (0, 1)),
  attempt      integer not null,
  tries        integer not null check (tries between 0 and attempt),
  bytes        integer not null,
  rank         bigint not null,
  ready_at     timestamptz not null,
  line         uuid
);
create index ready_in_turn on ready (queue_id, rank);
create index ready_flow on ready (tenant_id, queue_id, flow, rank);
create index ready_window on ready (tenant_id, queue_id, line) where line is not null;

-- Waits for a concurrency limit's allowance, in the fair order of its own tenant: ranks of one tenant and queue compare
-- with each other only. line is the job if the job has a limit, else the tenant, so that a job that may not run
-- is not walked past on the way to one that may. Rows go to and fro between ready and here, so both are alike.
create table parked (like ready including constraints, primary key (execution_id));
alter table parked alter column line set not null;
create index parked_in_turn on parked (tenant_id, queue_id, line, rank);
create index parked_flow on parked (tenant_id, queue_id, flow, rank);
create index parked_queue on parked (queue_id);

-- The line in which a row of this job and tenant waits for its limit's allowance; null if neither has a limit.
create function limited_line(job uuid, job_limit integer, tenant uuid, tenant_limit integer) returns uuid
language sql immutable parallel safe as $$
  select case when job_limit is not null then job when tenant_limit is not null then tenant end
$$;

-- The numbers that a flow of a tenant in a queue may have.
create view flow_numbers as
  select flow from unnest('{0,1,25,26,50,51,75,76,100,101}'::smallint[]) as numbers (flow);

-- The rank at which a tenant's parked rows of a queue are being served: its virtual time there.
create function parked_rank(of_tenant uuid, of_queue integer) returns bigint
language sql stable parallel safe as $$
  select coalesce(min(first.rank), 0)
  from flow_numbers flows cross join lateral (
    select p.rank from parked p
    where p.tenant_id = of_tenant and p.queue_id = of_queue and p.flow = flows.flow
    order by p.tenant_id, p.queue_id, p.flow, p.rank limit 1) first
$$;

-- Where a tenant's flow in a queue ends: the rank of its last row, in ready or in parked, or the rank that is being
-- served, if that is further on. A flow without rows in ready begins at the lowest rank that there is, not at the last
-- refresh: a tenant that asks again each time it is served would be first in line each time. Of equals it is the first.
create function flow_end(of_tenant uuid, of_queue integer, of_flow smallint, is_parked boolean) returns bigint
language plpgsql stable parallel safe as $$
declare
  served bigint;
  mark   bigint;
  last   bigint;
begin
  if is_parked then
    return greatest(parked_rank(of_tenant, of_queue), (
      select p.rank from parked p
      where (p.tenant_id, p.queue_id, p.flow) = (of_tenant, of_queue, of_flow)
      order by p.tenant_id desc, p.queue_id desc, p.flow desc, p.rank desc limit 1));
  end if;
  select greatest(q.virtual_rank, v.virtual_rank), greatest(q.scan_from, v.scan_from) into served, mark
  from queues q left join tenant_queues v on v.queue_id = q.id and v.tenant_id = of_tenant
  where q.id = of_queue;
  -- Compared as rows, so that only the index that begins with the flow gives this order.
  select r.rank into last from ready r
  where (r.tenant_id, r.queue_id, r.flow, r.rank) >= (of_tenant, of_queue, of_flow, mark)
    and (r.tenant_id, r.queue_id, r.flow) <= (of_tenant, of_queue, of_flow)
  order by r.tenant_id desc, r.queue_id desc, r.flow desc, r.rank desc limit 1;
  if last is null then
    select r.rank - 1 into last from ready r where r.queue_id = of_queue and r.rank >= mark order by r.rank limit 1;
  end if;
  return greatest(served, last);
end
$$;

-- The rank behind which so many more rows of a flow go, each a step further on than the one before. Calls at the same
-- time do not see each other's rows, and must be ranked as if they had come one by one all the same. A few rows take
-- the next ranks that no other call has locked; many, or an unknown number, wait until no other call is at it. Every
-- query in here sees what was committed before it, so that what has no lock any more is seen.
create function flow_place(of_tenant uuid, of_queue integer, of_flow smallint, is_parked boolean, step bigint,
  count bigint) returns bigint
language plpgsql as $$
declare
  flow   text := concat_ws('/', of_tenant, of_queue, of_flow, is_parked);
  place  bigint;
  last   bigint;
  locked bigint;
begin
  if count is null or count > 16 then
    perform pg_advisory_xact_lock(hashtextextended(flow, 2));
    return flow_end(of_tenant, of_queue, of_flow, is_parked);
  end if;
  perform pg_advisory_xact_lock_shared(hashtextextended(flow, 2));
  loop
    place := flow_end(of_tenant, of_queue, of_flow, is_parked);
    last := place;
    locked := 0;
    while locked < count loop
      last := last + step;
      if pg_try_advisory_xact_lock(hashtextextended(concat_ws('/', flow, last), 3)) then
        locked := locked + 1;
      else
        locked := 0;
        place := last;
      end if;
    end loop;
    -- Otherwise one of these may have been another's, committed since the flow's end was read.
    exit when flow_end(of_tenant, of_queue, of_flow, is_parked) <= place;
  end loop;
  return place;
end
$$;

-- Waits for its time: scheduled, or backing off after a failure.
create table delayed (
  execution_id uuid primary key,
  tenant_id    uuid not null,
  job_id       uuid not null,
  queue_id     integer not null,
  priority     smallint not null,
  attempt      integer not null,
  tries        integer not null check (tries between 0 and attempt),
  bytes        integer not null,
  due_at       timestamptz not null
);
create index delayed_due on delayed (queue_id, due_at);
create index delayed_of on delayed (tenant_id, queue_id, due_at);

-- Runs. expires_at never passes deadline_at, so one walk by expires_at finds both ends.
-- A slot is a place under a concurrency limit: unique, so two claims cannot both take the last one.
create table leases (
  execution_id     uuid primary key,
  lease_id         uuid not null,
  token_id         uuid not null,
  worker_id        text not null,
  tenant_id        uuid not null,
  job_id           uuid not null,
  queue_id         integer not null,
  priority         smallint not null,
  attempt          integer not null check (attempt > 0),
  tries            integer not null check (tries between 0 and attempt - 1),
  bytes            integer not null,
  timeout_seconds  integer not null,
  tenant_slot      integer,
  job_slot         integer,
  cancel_requested boolean not null default false,
  started_at       timestamptz not null,
  expires_at       timestamptz not null,
  deadline_at      timestamptz not null,
  progress         text,
  check (expires_at <= deadline_at)
);
create unique index leases_tenant_slot on leases (tenant_id, tenant_slot);
create unique index leases_job_slot on leases (job_id, job_slot) where job_slot is not null;
create index leases_expiring on leases (expires_at);

-- Whatever has not ended: retention moves its facts on.
create view in_flight as
  select execution_id from ready union all select execution_id from parked
  union all select execution_id from delayed union all select execution_id from leases;

-- Small tables that turn over all the time: vacuum them early and at full speed.
alter table ready set (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
alter table parked set (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
alter table delayed set (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
alter table leases set (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
alter table queues set (autovacuum_vacuum_threshold = 50, autovacuum_vacuum_scale_factor = 0);

-- The tokens that work at this moment: the one place that says when one does.
create view good_keys as
  select tenant_id, token_hash from tenant_keys
  where revoked_at is null and (expires_at is null or expires_at > now());
-- queue_ids are its queues that exist, null if it may take from any. Whoever looks whether a lease is within its queues looks here: the rows of queues
-- are written twice a second, and under a long transaction each look at one passes all its dead versions.
create view good_worker_tokens as
  select id, token_hash, queues, tenant_ids,
    case when queues is not null then array(select q.id from queues q where q.name = any (queues)) end as queue_ids
  from worker_tokens
  where revoked_at is null and (expires_at is null or expires_at > now());

-- An execution's state is where its row is: the one place that says how. A row that waits and has spent a try
-- is being retried; a row in none of the three has ended as its last attempt says.
create function execution_status(running boolean, ready_tries integer, delayed_tries integer, due_at timestamptz,
  ended text) returns text
language sql stable parallel safe as $$
  select case
    when running then 'RUNNING'
    when ready_tries > 0 or delayed_tries > 0 then 'RETRYING'
    when delayed_tries = 0 and due_at > now() then 'SCHEDULED'
    when ready_tries = 0 or delayed_tries = 0 then 'PENDING'
    else ended
  end
$$;

-- What makes calls safe to repeat -----------------------------------------------------------------

-- One row for every dequeue that found work. Two generations, so that an hour's worth goes by
-- truncation: the names swap under a lock that no dequeue can straddle.
create table dequeues (
  lease_id      uuid primary key,
  token_id      uuid not null,
  execution_ids uuid[] not null
);
create table dequeues_before (like dequeues including indexes);

create table idempotency_keys (
  tenant_id     uuid not null,
  key           text not null,
  fingerprint   bytea not null,
  execution_ids uuid[] not null,
  status        text,
  created_at    timestamptz not null,
  primary key (tenant_id, key)
);
create index idempotency_keys_by_age on idempotency_keys (created_at);

-- Whether a call with this key was answered in these hours. Calls with one key wait for each other here: the second
-- goes on when the first has ended, and looks afresh.
create function is_remembered(of_tenant uuid, of_key text, within_hours integer) returns boolean
language plpgsql as $$
begin
  perform pg_advisory_xact_lock(hashtextextended(concat(of_tenant, of_key), 1));
  return exists (
    select from idempotency_keys k
    where k.tenant_id = of_tenant and k.key = of_key and k.created_at > now() - make_interval(hours => within_hours));
end
$$;

create table workers (
  token_id     uuid not null,
  worker_id    text not null,
  last_seen_at timestamptz not null,
  primary key (token_id, worker_id)
);
create index workers_seen on workers (last_seen_at);

-- How long ago a worker may have been heard before that is noted again, under leases of so many seconds.
create function noted_every(lease_seconds double precision) returns interval
language sql immutable parallel safe as $$
  select make_interval(secs => least(20, lease_seconds / 3))
$$;

-- The fleet-wide housekeeping: when it last ran, when it last found a worker to have been heard, since when none had been
-- in the last outage, and until when leases that ran out since then are spared. Before expired_from no lease is left
-- that ran out; expired_until is its next value. From stragglers_at on, a tick looks behind all watermarks.
-- parked_after is the tenant whose parked rows a tick looked after last.
create table ticks (
  id               boolean primary key default true check (id),
  ticked_at        timestamptz not null default now(),
  heard_at         timestamptz not null default now(),
  silent_from      timestamptz not null default 'epoch',
  expire_not_until timestamptz not null default now(),
  expired_from     timestamptz not null default '-infinity',
  expired_until    timestamptz not null default '-infinity',
  stragglers_at    timestamptz not null default now(),
  parked_after     uuid not null default '00000000-0000-0000-0000-000000000000',
  rotated_at       timestamptz not null default now()
) with (fillfactor = 50);
insert into ticks default values;

-- How the planner is to see this database: every statement walks an index and stops early. Reading a whole table, or
-- through a bitmap all that matches before the first row, is what it falls for when statistics are empty or stale.
do $$ begin
  execute format('alter database %I set enable_seqscan = off', current_database());
  execute format('alter database %I set enable_bitmapscan = off', current_database());
  execute format('alter database %I set enable_incremental_sort = off', current_database());
  execute format('alter database %I set jit = off', current_database());
  execute format('alter database %I set random_page_cost = 1.1', current_database());
  -- Whoever went away inside a transaction must not hold the tick for ever.
  execute format('alter database %I set idle_in_transaction_session_timeout = %L', current_database(), '15s');
end $$;
