//! What is kept and for how long: weeks are made ahead and dropped behind, and what must live on does.

use futures_util::future::join_all;
use jobplane_functions::{Swept, sweep};
use jobplane_tests::{Cell, connect, program, text};
use serde_json::json;
use std::process::Command;
use uuid::Uuid;

/// Begins the weeks so long ago, as if the cell had been there.
const SINCE: &str = "do $$
    declare f text; kept text; first timestamptz := date_trunc('week', now() - interval '20 weeks', 'UTC');
    begin
      select name into kept from partitions where lower is null and upper is not null;
      for f in select fact from facts loop execute format('drop table %I', concat(f, '_', kept)); end loop;
      perform make_partition('kept_' || week_name(first), format('for values from (minvalue) to (%L)', uuid7_floor(first)));
      perform make_week(w) from generate_series(first, now(), interval '168 hours') w;
    end $$";
/// Weeks of [`SINCE`] whose time is over at least: 20, less 30 days and one, less the week that began before them.
const OVER: i64 = 20 - 6;

/// How many weeks there are whose time is over.
const TIME_IS_OVER: &str = "select count(*) from partitions
    where upper <= uuid7_floor(now() - interval '31 days') and lower is not null";

/// A cell that has been there for 20 weeks.
async fn old_cell() -> Cell {
    let cell = Cell::new().await;
    cell.db.batch_execute(SINCE).await.unwrap();
    cell
}

/// Makes an execution one that was asked for so many days ago: its new id.
async fn asked_ago(cell: &Cell, id: &str, days: i32) -> String {
    let old = Uuid::parse_str(id).unwrap();
    let made = cell.db.query_one("select uuid7(now() - make_interval(days => $1))", &[&days]).await.unwrap();
    let new: Uuid = made.get(0);
    for (table, key) in [
        ("executions", "id"),
        ("attempts", "execution_id"),
        ("log_chunks", "execution_id"),
        ("dead_letters", "execution_id"),
        ("ready", "execution_id"),
        ("parked", "execution_id"),
        ("delayed", "execution_id"),
        ("leases", "execution_id"),
    ] {
        cell.sql(&format!("update {table} set {key} = $1 where {key} = $2"), &[&new, &old]).await;
    }
    new.to_string()
}

/// Lets what an execution came to have happened so many days ago.
async fn ended_ago(cell: &Cell, id: &str, days: i32) {
    let id = Uuid::parse_str(id).unwrap();
    for (table, at) in [("attempts", "finished_at"), ("dead_letters", "failed_at")] {
        let sql =
            format!("update {table} set {at} = now() - make_interval(days => $1) where execution_id = $2");
        cell.sql(&sql, &[&days, &id]).await;
    }
}

/// An execution that wrote a line and ended so.
async fn ended(cell: &Cell, job: &str, outcome: &str) -> String {
    let id = cell.run(job).await;
    let (lease, _) = cell.dequeue(1).await;
    write_line(cell, &id, &lease).await;
    cell.result(&id, &lease, json!({"outcome": outcome})).await.ok();
    id
}

async fn write_line(cell: &Cell, id: &str, lease: &str) {
    let lines = json!([{"at": "2026-01-01T00:00:00Z", "stream": "stdout", "text": "hello"}]);
    let body = json!({"lease_id": lease, "first_seq": 0, "lines": lines});
    cell.post(&format!("/internal/executions/{id}/logs"), &cell.worker, body).await.ok();
}

async fn lines(cell: &Cell, id: &str) -> usize {
    let page = cell.get(&format!("/executions/{id}/logs"), &cell.tenant).await.ok();
    page["lines"].as_array().unwrap().len()
}

async fn listed(cell: &Cell, path: &str, key: &str) -> Vec<String> {
    let mut ids: Vec<_> = cell.get(path, &cell.tenant).await.ok()["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| text(&item[key]))
        .collect();
    ids.sort();
    ids
}

/// Sweeps until no week is left whose time is over.
async fn sweep_all(cell: &Cell) -> i32 {
    let mut dropped = 0;
    loop {
        let swept = sweep(&cell.app).await.unwrap();
        dropped += swept.weeks_dropped;
        if swept.weeks_dropped == 0 {
            return dropped;
        }
    }
}

async fn weeks(cell: &Cell) -> i64 {
    cell.number("select count(*) from partitions where lower is not null").await
}

#[tokio::test]
async fn ended_executions_go_with_their_week_and_what_must_live_on_lives_on() {
    let cell = old_cell().await;
    let job = cell.new_job(json!({"retry": {"max_attempts": 1}})).await;
    let run = async |outcome, asked_days, ended_days| {
        let id = ended(&cell, &job, outcome).await;
        ended_ago(&cell, &id, ended_days).await;
        asked_ago(&cell, &id, asked_days).await
    };
    let done = run("succeeded", 60, 59).await;
    let dead_for_long = run("failed", 120, 95).await;
    let dead = run("failed", 85, 80).await;
    let retried = run("failed", 85, 80).await;
    let long_lived = run("succeeded", 120, 2).await;
    let recent = run("succeeded", 20, 20).await;
    // Last, for whatever is dequeued after a tick might be this.
    let new = cell.post(&format!("/executions/dlq/{retried}/retry"), &cell.tenant, json!({})).await.ok();
    let new = text(&new["execution_id"]);

    let before = weeks(&cell).await;
    let dropped = sweep_all(&cell).await;
    assert_eq!(before - weeks(&cell).await, i64::from(dropped));
    assert!(i64::from(dropped) >= OVER, "{dropped}");

    for gone in [&done, &dead_for_long, &retried] {
        cell.get(&format!("/executions/{gone}"), &cell.tenant).await.refused(404, "execution_not_found");
        cell.get(&format!("/executions/{gone}/logs"), &cell.tenant).await.refused(404, "execution_not_found");
        cell.post(&format!("/executions/dlq/{gone}/retry"), &cell.tenant, json!({}))
            .await
            .refused(404, "dead_letter_not_found");
    }
    for (kept, status) in [(&dead, "FAILED"), (&long_lived, "SUCCEEDED"), (&recent, "SUCCEEDED")] {
        let execution = cell.execution(kept).await;
        assert_eq!((&execution["status"], &execution["attempt"]), (&json!(status), &json!(1)));
        assert_eq!(execution["attempts"].as_array().unwrap().len(), 1);
        assert_eq!(lines(&cell, kept).await, 1);
    }
    let mut left = vec![dead.clone(), long_lived, recent, new];
    left.sort();
    assert_eq!(listed(&cell, "/executions", "id").await, left);
    for fact in ["attempts", "log_chunks"] {
        assert_eq!(cell.number(&format!("select count(*) from {fact}")).await, 3, "{fact}");
    }
    assert_eq!(listed(&cell, "/executions/dlq", "execution_id").await, [&*dead]);
    let again = cell.post(&format!("/executions/dlq/{dead}/retry"), &cell.tenant, json!({})).await.ok();
    assert_eq!(cell.execution(&text(&again["execution_id"])).await["retried_from"], json!(dead));
}

#[tokio::test]
async fn what_waits_or_runs_lives_on_runs_to_its_end_and_goes_later() {
    let cell = old_cell().await;
    let job = cell.new_job(json!({})).await;
    let running = cell.run(&job).await;
    let (held, _) = cell.dequeue(1).await;
    let running = asked_ago(&cell, &running, 100).await;
    let later = json!({"scheduled_at": jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24 * 300)});
    let scheduled = cell.post(&format!("/jobs/{job}/run"), &cell.tenant, later).await.ok();
    let scheduled = asked_ago(&cell, &text(&scheduled["execution_id"]), 100).await;
    let waiting = asked_ago(&cell, &cell.run(&job).await, 130).await;
    // Of the eight oldest weeks, some hold these; more are to go with the sweep after.
    assert_eq!(sweep(&cell.app).await.unwrap().weeks_dropped, 8);

    assert_eq!(cell.execution(&scheduled).await["status"], "SCHEDULED");
    write_line(&cell, &running, &held).await;
    cell.heartbeat(&running, &held).await.ok();
    cell.result(&running, &held, json!({"outcome": "failed"})).await.ok();
    let (lease, taken) = cell.dequeue(5).await;
    assert_eq!(taken.iter().map(|one| text(&one["execution_id"])).collect::<Vec<_>>(), [&*waiting]);
    write_line(&cell, &waiting, &lease).await;
    cell.result(&waiting, &lease, json!({"outcome": "succeeded"})).await.ok();
    for (id, status) in [(&running, "RETRYING"), (&waiting, "SUCCEEDED")] {
        assert_eq!(cell.execution(id).await["status"], status);
        assert_eq!(lines(&cell, id).await, 1);
    }

    // Its time passes; the others still wait for theirs.
    ended_ago(&cell, &waiting, 31).await;
    assert!(sweep_all(&cell).await > 0);
    cell.get(&format!("/executions/{waiting}"), &cell.tenant).await.refused(404, "execution_not_found");
    let mut left = vec![running, scheduled];
    left.sort();
    assert_eq!(listed(&cell, "/executions", "id").await, left);
    assert_eq!(cell.number("select count(*) from attempts").await, 1);
    assert_eq!(cell.number("select count(*) from log_chunks").await, 1);
}

#[tokio::test]
async fn weeks_are_made_and_dropped_once_however_many_sweep() {
    let cell = old_cell().await;
    let ahead = "select name from partitions where lower > uuid7_floor(now())";
    let ahead: Vec<String> = cell.db.query(ahead, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert!(ahead.len() >= 4, "{ahead:?}");
    for week in &ahead {
        cell.sql(
            &format!("drop table executions_{week}, attempts_{week}, log_chunks_{week}, dead_letters_{week}"),
            &[],
        )
        .await;
    }
    let over = cell.number(TIME_IS_OVER).await;
    let (mut made, mut dropped) = (0, 0);
    for _ in 0..3 {
        for swept in join_all((0..4).map(|_| sweep(&cell.app))).await {
            let Swept { weeks_made, weeks_dropped, .. } = swept.unwrap();
            made += weeks_made;
            dropped += weeks_dropped;
        }
    }
    made += sweep(&cell.app).await.unwrap().weeks_made;
    dropped += sweep_all(&cell).await;
    assert_eq!((made as usize, i64::from(dropped)), (ahead.len(), over));
    assert_eq!(cell.number(TIME_IS_OVER).await, 0);
}

#[tokio::test]
async fn a_long_reader_puts_a_drop_off_and_nothing_else_and_nothing_is_copied_twice() {
    let cell = old_cell().await;
    let job = cell.new_job(json!({})).await;
    let id = asked_ago(&cell, &cell.run(&job).await, 200).await;
    let before = weeks(&cell).await;
    cell.sql("insert into idempotency_keys select (select id from tenants), n::text, '', '{}', null, now() - interval '2 days'
        from generate_series(1, 12000) n", &[]).await;
    let reader = connect(&cell.database_url).await;
    reader.batch_execute("begin; select count(*) from executions").await.unwrap();
    while cell.number("select count(*) from (select where is_held('{}')) held").await == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(sweep(&cell.app).await.unwrap().weeks_dropped, 0);
    assert_eq!(cell.number("select count(*) from idempotency_keys").await, 0);
    assert_eq!(cell.execution(&id).await["status"], "PENDING");
    let part = cell.db.query_one("select part from moving where copied", &[]).await.unwrap();
    let copies = format!("select array_agg(xmin::text) from executions_{}", part.get::<_, &str>(0));
    let copied = cell.db.query_one(&copies, &[]).await.unwrap().get::<_, Vec<String>>(0);
    assert_eq!(copied.len(), 1);
    assert_eq!(sweep(&cell.app).await.unwrap().weeks_dropped, 0);
    assert_eq!(cell.db.query_one(&copies, &[]).await.unwrap().get::<_, Vec<String>>(0), copied);
    assert_eq!(weeks(&cell).await, before);
    reader.batch_execute("rollback").await.unwrap();
    assert!(sweep_all(&cell).await > 0);
    assert_eq!(cell.execution(&id).await["status"], "PENDING");
    assert_eq!(cell.number("select count(*) from moving").await, 0);
}

#[tokio::test]
async fn a_drop_waits_for_a_vacuum_before_anyone_waits_for_the_drop() {
    let cell = old_cell().await;
    // Not of the attempts, which are read before.
    let oldest =
        "select 'log_chunks_' || name from partitions where lower is not null order by lower limit 1";
    let oldest: String = cell.db.query_one(oldest, &[]).await.unwrap().get(0);
    let vacuum = connect(&cell.database_url).await;
    let lock = format!("begin; lock table only {oldest} in share update exclusive mode");
    vacuum.batch_execute(&lock).await.unwrap();
    let app = cell.app.clone();
    let sweeping = tokio::spawn(async move { sweep(&app).await });
    let waits =
        format!("select count(*) from pg_locks where relation = '{oldest}'::regclass and not granted");
    while cell.number(&waits).await == 0 {
        assert!(!sweeping.is_finished());
        tokio::task::yield_now().await;
    }
    let locked = "select count(*) from pg_locks where mode = 'AccessExclusiveLock' and relation in (
        select fact::regclass from facts)";
    assert_eq!(cell.number(locked).await, 0);
    vacuum.batch_execute("rollback").await.unwrap();
    assert!(sweeping.await.unwrap().unwrap().weeks_dropped > 0);
}

#[tokio::test]
async fn what_happens_while_a_week_is_dropped_is_not_lost() {
    let cell = old_cell().await;
    let job = cell.new_job(json!({"retry": {"max_attempts": 1}})).await;
    let mut dead = Vec::new();
    for _ in 0..3 {
        dead.push(asked_ago(&cell, &ended(&cell, &job, "failed").await, 200).await);
    }
    let id = cell.run(&job).await;
    let (lease, _) = cell.dequeue(1).await;
    let running = asked_ago(&cell, &id, 200).await;
    // The drop has copied what lives on and waits for this reader before it changes places.
    cell.sql("alter function drop_week(integer, integer, integer, bigint) set lock_timeout = '10min'", &[])
        .await;
    let never =
        "create or replace function is_held(names text[]) returns boolean language sql as 'select false'";
    cell.sql(never, &[]).await;
    let reader = connect(&cell.database_url).await;
    reader.batch_execute("begin; select from executions limit 1").await.unwrap();
    let app = cell.app.clone();
    let sweeping = tokio::spawn(async move { sweep(&app).await });
    let waits = "select count(*) from pg_locks where relation = 'executions'::regclass and not granted
        and database = (select oid from pg_database where datname = current_database())";
    while cell.number(waits).await == 0 {
        tokio::task::yield_now().await;
    }
    let [running_id, deleted, retried] =
        [&running, &dead[0], &dead[1]].map(|id| Uuid::parse_str(id).unwrap());
    cell.sql("insert into log_chunks values ($1, 1, 0, 1, 5, false, '[]')", &[&running_id]).await;
    cell.result(&running, &lease, json!({"outcome": "failed", "error": "late"})).await.ok();
    cell.sql("delete from dead_letters where execution_id = $1", &[&deleted]).await;
    cell.sql("update dead_letters set retried_as = $1 where execution_id = $1", &[&retried]).await;
    reader.batch_execute("commit").await.unwrap();

    assert!(sweeping.await.unwrap().unwrap().weeks_dropped > 0);
    let execution = cell.execution(&running).await;
    assert_eq!((&execution["status"], &execution["error"]), (&json!("FAILED"), &json!("late")));
    assert_eq!(cell.number("select count(*) from log_chunks").await, 4);
    let mut letters = vec![dead[2].clone(), running];
    letters.sort();
    assert_eq!(listed(&cell, "/executions/dlq", "execution_id").await, letters);
    assert_eq!(cell.execution(&dead[0]).await["status"], "FAILED");
    let again = cell.post(&format!("/executions/dlq/{}/retry", dead[1]), &cell.tenant, json!({})).await.ok();
    assert_eq!(again["execution_id"], json!(dead[1]), "what it was retried as is remembered");
}

/// Takes one step towards dropping the oldest week, with so many executions or bytes of their lines at once.
async fn step(cell: &Cell, at_once: i32, bytes: i64) -> String {
    let sql = "select step from drop_week(30, 90, $1, $2)";
    let row = cell.db.query_one(sql, &[&at_once, &bytes]).await.unwrap();
    row.get(0)
}

#[tokio::test]
async fn what_happens_between_the_steps_of_a_move_is_not_lost() {
    let cell = old_cell().await;
    let job = cell.new_job(json!({"retry": {"max_attempts": 1}})).await;
    let mut dead = Vec::new();
    for _ in 0..4 {
        dead.push(asked_ago(&cell, &ended(&cell, &job, "failed").await, 200).await);
    }
    let id = cell.run(&job).await;
    let (lease, _) = cell.dequeue(1).await;
    let running = asked_ago(&cell, &id, 200).await;
    dead.sort();
    // By their number, then by their lines.
    for (moved, at_once, bytes) in [(2, 2, 1000), (3, 2, 1), (4, 9, 1), (5, 2, 1000)] {
        assert_eq!(step(&cell, at_once, bytes).await, "moved");
        let row = cell.db.query_one("select part from moving", &[]).await.unwrap();
        let part: String = row.get(0);
        assert_eq!(cell.number(&format!("select count(*) from executions_{part}")).await, moved);
        if moved == 2 {
            cell.result(&running, &lease, json!({"outcome": "failed", "error": "late"})).await.ok();
        } else if moved == 4 {
            let [deleted, retried] = [&dead[0], &dead[1]].map(|id| Uuid::parse_str(id).unwrap());
            cell.sql("delete from dead_letters where execution_id = $1", &[&deleted]).await;
            cell.sql(
                "update dead_letters set retried_as = execution_id where execution_id = $1",
                &[&retried],
            )
            .await;
        }
    }
    assert_eq!(step(&cell, 2, 1).await, "dropped");
    assert_eq!(cell.execution(&running).await["error"], "late");
    let mut letters = vec![dead[2].clone(), dead[3].clone(), running];
    letters.sort();
    assert_eq!(listed(&cell, "/executions/dlq", "execution_id").await, letters);
    assert_eq!(cell.number("select count(*) from attempts").await, 5);
    assert_eq!(cell.number("select count(*) from log_chunks").await, 4);
}

#[tokio::test]
async fn a_move_begins_again_when_a_week_before_its_own_turns_up() {
    let cell = old_cell().await;
    let job = cell.new_job(json!({})).await;
    let kept = "select name from partitions where lower is null and upper is not null";
    let kept: String = cell.db.query_one(kept, &[]).await.unwrap().get(0);
    for fact in ["executions", "attempts", "log_chunks", "dead_letters"] {
        cell.sql(&format!("drop table {fact}_{kept}"), &[]).await;
    }
    cell.sql(
        "select make_partition('kept_long_ago', format('for values from (minvalue) to (%L)',
           uuid7_floor(date_trunc('week', now() - interval '30 weeks', 'UTC'))))",
        &[],
    )
    .await;
    let after = asked_ago(&cell, &cell.run(&job).await, 130).await;
    assert_eq!(step(&cell, 1, 1).await, "moved");
    // Its week is made of the default partition, where it lies.
    let before = asked_ago(&cell, &cell.run(&job).await, 200).await;
    sweep_all(&cell).await;
    let mut both = vec![before, after];
    both.sort();
    assert_eq!(listed(&cell, "/executions", "id").await, both);
    assert_eq!(cell.number("select count(*) from moving").await, 0);
}

#[tokio::test]
async fn however_much_must_live_on_every_week_goes_when_its_time_is_over() {
    let cell = old_cell().await;
    let job = cell.new_job(json!({})).await;
    let id = asked_ago(&cell, &cell.run(&job).await, 45).await;
    cell.db
        .batch_execute(
            "create temporary table many as
               select uuid7(now() - interval '45 days' + n * interval '1 ms') as id from generate_series(1, 100001) n;
             insert into delayed select m.id, tenant_id, job_id, queue_id, 0, 0, 0, 1, now() + interval '300 days'
               from ready, many m;
             insert into executions (id, tenant_id, job_id, queue_id, priority, created_at)
               select execution_id, tenant_id, job_id, queue_id, priority, now() from delayed",
        )
        .await
        .unwrap();
    for _ in 0..20 {
        sweep(&cell.app).await.unwrap();
        if cell.number(TIME_IS_OVER).await == 0 {
            break;
        }
    }
    assert_eq!(cell.number(TIME_IS_OVER).await, 0);
    assert_eq!(cell.execution(&id).await["status"], "PENDING");
    assert_eq!(cell.number("select count(*) from executions").await, 100_002);
}

#[tokio::test]
async fn rows_without_a_week_get_one_and_nothing_stops() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({})).await;
    let name = "select name from partitions where lower is not null";
    for week in cell.db.query(name, &[]).await.unwrap() {
        let week: String = week.get(0);
        cell.sql(
            &format!("drop table executions_{week}, attempts_{week}, log_chunks_{week}, dead_letters_{week}"),
            &[],
        )
        .await;
    }
    let done = ended(&cell, &job, "succeeded").await;
    let waiting = cell.run(&job).await;
    let lost = "select count(*) from executions_default";
    assert_eq!(cell.number(lost).await, 2);

    // One for all that are to be there.
    assert_eq!(sweep(&cell.app).await.unwrap().weeks_made, 1);
    let reached = "select count(*) from partitions where lower is not null and upper > uuid7_floor(now() + interval '30 days')";
    assert_eq!(cell.number(reached).await, 1);

    assert_eq!(cell.number(lost).await, 0);
    assert_eq!(sweep(&cell.app).await.unwrap().weeks_made, 0);
    assert_eq!(cell.execution(&done).await["status"], "SUCCEEDED");
    assert_eq!(lines(&cell, &done).await, 1);
    let (lease, taken) = cell.dequeue(1).await;
    assert_eq!(taken[0]["execution_id"], json!(waiting));
    cell.result(&waiting, &lease, json!({"outcome": "succeeded"})).await.ok();
    cell.run(&job).await;
    assert_eq!(cell.number(lost).await, 0);
}

#[tokio::test]
async fn executions_far_behind_and_far_ahead_of_the_weeks_work() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({})).await;
    let behind = asked_ago(&cell, &cell.run(&job).await, 3000).await;
    let ahead = asked_ago(&cell, &cell.run(&job).await, -3000).await;
    let swept = sweep(&cell.app).await.unwrap();
    assert_eq!((swept.weeks_made, swept.weeks_dropped), (1, 0));
    let (lease, taken) = cell.dequeue(5).await;
    assert_eq!(taken.len(), 2);
    for id in [&behind, &ahead] {
        write_line(&cell, id, &lease).await;
        cell.result(id, &lease, json!({"outcome": "succeeded"})).await.ok();
        assert_eq!(cell.execution(id).await["status"], "SUCCEEDED");
        assert_eq!(lines(&cell, id).await, 1);
    }
    assert_eq!(cell.number("select count(*) from executions_default").await, 0);
}

#[tokio::test]
async fn rows_without_a_week_on_both_sides_of_one_are_left_alone_and_others_come_in() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({})).await;
    // A week at the far end parts the two.
    for days in [-2000, -2500] {
        asked_ago(&cell, &cell.run(&job).await, days).await;
    }
    cell.sql("select make_week(date_trunc('week', now() + interval '2200 days', 'UTC'))", &[]).await;
    let error = sweep(&cell.app).await.unwrap_err().to_string();
    assert!(error.contains("both sides of a week"), "{error}");
    asked_ago(&cell, &cell.run(&job).await, -2300).await;
    assert_eq!(cell.number("select count(*) from executions_default").await, 3);
    assert_eq!(cell.dequeue(5).await.1.len(), 3);
}

/// Bounds that are years ahead, for the default partition.
const FAR: &str = "uuid7_floor(date_trunc('month', now()) + interval '4 years'),
    uuid7_floor(date_trunc('month', now()) + interval '8 years')";

#[tokio::test]
async fn a_promise_is_taken_back_when_its_sweep_came_to_no_end() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({})).await;
    asked_ago(&cell, &cell.run(&job).await, -2000).await;
    assert_eq!(cell.sql(&format!("select from bound_default({FAR})"), &[]).await, 1);
    cell.sql("delete from executions_default", &[]).await;
    sweep(&cell.app).await.unwrap();
    asked_ago(&cell, &cell.run(&job).await, -4000).await;
    assert_eq!(cell.number("select count(*) from executions_default").await, 1);
}

#[tokio::test]
async fn a_promise_that_is_being_proved_is_left_alone_and_one_that_is_not_proved_settles_nothing() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({})).await;
    asked_ago(&cell, &cell.run(&job).await, -2000).await;
    let did = async |what: &str| -> bool {
        cell.db.query_one(&format!("select {what}({FAR})"), &[]).await.unwrap().get(0)
    };
    assert!(did("bound_default").await);
    let proving = connect(&cell.database_url).await;
    proving
        .batch_execute("begin; alter table executions_default validate constraint in_bounds")
        .await
        .unwrap();
    assert_eq!(sweep(&cell.app).await.unwrap().weeks_made, 0);
    assert_eq!(cell.number("select count(*) from promises").await, 4);
    proving.batch_execute("commit").await.unwrap();
    assert!(!did("settle_default").await, "three of the four are not proved");
    for fact in ["attempts", "log_chunks", "dead_letters"] {
        cell.sql(&format!("alter table {fact}_default validate constraint in_bounds"), &[]).await;
    }
    assert!(did("settle_default").await);
    assert_eq!(cell.number("select count(*) from executions_default").await, 0);
}

#[tokio::test]
async fn a_large_default_partition_is_not_read_while_others_wait() {
    let cell = old_cell().await;
    let job = cell.new_job(json!({})).await;
    for days in [-2000, -2500] {
        asked_ago(&cell, &cell.run(&job).await, days).await;
    }
    cell.sql("select make_week(date_trunc('week', now() + interval '2200 days', 'UTC'))", &[]).await;
    cell.sql(
        "insert into log_chunks select id, n, 0, 1, 5, false, '[]' from executions_default, generate_series(1, 5001) n",
        &[],
    )
    .await;
    let before = weeks(&cell).await;
    sweep(&cell.app).await.unwrap_err();
    assert_eq!(weeks(&cell).await, before);
    cell.sql("delete from log_chunks_default where attempt = 1", &[]).await;
    sweep(&cell.app).await.unwrap_err();
    assert!(weeks(&cell).await < before);
}

#[tokio::test]
async fn the_dequeues_rotate_after_an_hour_and_after_a_clock_that_ran_ahead() {
    let cell = Cell::new().await;
    for (last, rotated) in [("-61 minutes", true), ("59 minutes", false), ("2 hours", true), ("0", false)] {
        if last != "0" {
            cell.sql(&format!("update ticks set rotated_at = now() + interval '{last}'"), &[]).await;
        }
        assert_eq!(sweep(&cell.app).await.unwrap().rotated, rotated, "{last}");
    }
}

#[tokio::test]
async fn nobody_stays_in_a_transaction_for_long() {
    let cell = Cell::new().await;
    let row = cell.db.query_one("show idle_in_transaction_session_timeout", &[]).await.unwrap();
    assert_eq!(row.get::<_, &str>(0), "15s");
}

#[tokio::test]
async fn how_long_jobplane_dev_keeps_is_refused_out_of_range() {
    for flags in [
        ["--keep-days", "0"],
        ["--keep-days", "367"],
        ["--keep-dead-letters-days", "0"],
        ["--keep-dead-letters-days", "367"],
    ] {
        let run = Command::new(program("jobplane")).arg("dev").args(flags).output().unwrap();
        let said = String::from_utf8(run.stderr).unwrap();
        assert_eq!(run.status.code(), Some(2), "{said}");
        assert!(said.contains(flags[0]) && said.contains("1..=366"), "{said}");
    }
}
