//! The statements themselves: each prepares on a fresh database, and the hot ones keep their plans whatever the
//! statistics say, with partitions in place.

use jobplane_functions::{Database, migrate};
use jobplane_tests::{Cell, connect, database};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::PathBuf;
use tokio_postgres::SimpleQueryMessage;

fn statement(name: &str) -> String {
    let store = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../functions/src/store");
    std::fs::read_to_string(store.join(name)).expect("the statement is there")
}

#[tokio::test]
async fn every_statement_prepares_on_a_fresh_database_and_says_what_it_guarantees() {
    let cell = Cell::new().await;
    let store = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../functions/src/store");
    let mut seen = 0;
    for entry in std::fs::read_dir(store).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "sql") {
            continue;
        }
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let sql = statement(&name);
        assert!(sql.starts_with("-- "), "{name} is headed by what it guarantees");
        // Several statements, run as they are.
        if !["rotate.sql", "overflow_validate.sql"].contains(&name.as_str()) {
            cell.db.prepare(&sql).await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        }
        seen += 1;
    }
    assert!(seen > 30, "{seen} statements");
}

/// A hot statement: its file, its arguments, and the indexes by which it may reach the tables that grow.
struct Hot {
    file: &'static str,
    arguments: &'static str,
    indexes: &'static [&'static str],
}

/// Tables that are read by an index, whatever the statistics say.
const GROWING: [&str; 7] = ["ready", "parked", "delayed", "leases", "executions", "attempts", "log_chunks"];

const HOT: [Hot; 12] = [
    Hot {
        file: "dequeue.sql",
        arguments: "'\\x01', ID, 'w', 100, null, null, 2500000, 60, 60",
        indexes: &["ready_in_turn", "ready_flow", "leases_tenant_slot", "leases_job_slot"],
    },
    Hot {
        file: "dequeue.sql",
        arguments: "'\\x01', ID, 'w', 100, null, array[ID]::uuid[], 2500000, 60, 60",
        indexes: &["ready_in_turn", "ready_flow", "leases_tenant_slot", "leases_job_slot"],
    },
    Hot {
        file: "admit.sql",
        arguments: "array[ID]::uuid[], 5000, 1048576",
        indexes: &["parked_in_turn", "ready_window", "leases_tenant_slot"],
    },
    Hot { file: "parked_tenants.sql", arguments: "500", indexes: &["parked_flow"] },
    Hot { file: "stragglers.sql", arguments: "5000", indexes: &["ready_in_turn", "ready_flow"] },
    Hot {
        file: "held.sql",
        arguments: "array[ID, LEASE, ID]::uuid[], LEASE",
        indexes: &["leases_pkey", "executions_pkey"],
    },
    Hot {
        file: "heartbeat.sql",
        arguments: "'\\x01', array[ID, LEASE]::uuid[], array[LEASE, ID]::uuid[], array[null, null]::text[], 60",
        indexes: &["leases_pkey"],
    },
    Hot {
        file: "result.sql",
        arguments: "'\\x01', array[ID, LEASE]::uuid[], array[LEASE, ID]::uuid[], '{failed,released}', '{0,0}', '{a,b}', '{1,2}', '{t,f}', '{1,2}'",
        indexes: &["leases_pkey"],
    },
    Hot {
        file: "run.sql",
        arguments: "'\\x01', ID, array['{}'], array[null]::timestamptz[], array[null]::smallint[], array[null]::text[], null, null, null, false, 24, 1048576, 366",
        indexes: &[],
    },
    Hot { file: "expiring.sql", arguments: "1000, false, now()", indexes: &["leases_expiring"] },
    Hot { file: "due.sql", arguments: "5000, 1048576, false", indexes: &["delayed_due", "delayed_of"] },
    Hot {
        file: "executions.sql",
        arguments: "'\\x01', null, null, null, null, null, ID, 100, 10000",
        // executions_of, as a partition has it.
        indexes: &["executions_tenant_id_id_idx"],
    },
];

/// Loads the tables that grow as a busy cell has them.
const LOAD: &str = "
    insert into ready select uuid7(now() + n * interval '1 us'), (select id from tenants limit 1),
      (select id from jobs limit 1), 1, 0, 0, 0, 100, n * 1000, now() from generate_series(1, 20000) n;
    insert into parked select uuid7(now() + n * interval '1 us'), (select id from tenants limit 1),
      (select id from jobs limit 1), 1, 0, 0, 0, 100, n * 1000, now(), (select id from tenants limit 1)
      from generate_series(1, 20000) n;
    insert into delayed select uuid7(now() + n * interval '1 us'), (select id from tenants limit 1),
      (select id from jobs limit 1), 1, 0, 1, 1, 100, now() + (n - 5000) * interval '1 s' from generate_series(1, 20000) n;
    insert into leases (execution_id, lease_id, token_id, worker_id, tenant_id, job_id, queue_id, priority, attempt,
      tries, bytes, timeout_seconds, started_at, expires_at, deadline_at)
      select uuid7(now() + n * interval '1 us'), gen_random_uuid(), gen_random_uuid(), 'w',
      (select id from tenants limit 1), (select id from jobs limit 1), 1, 0, 1, 0, 100, 300, now(), now() + interval '1 m',
      now() + interval '5 m' from generate_series(1, 20000) n;
    insert into executions (id, tenant_id, job_id, queue_id, priority, created_at)
      select uuid7(now() + n * interval '1 us' + n % 4 * interval '1 week'), (select id from tenants limit 1),
      (select id from jobs limit 1), 1, 0, now() from generate_series(1, 20000) n;";

/// How each growing table is reached in the plan of a hot statement: `table: node index`.
async fn reached(cell: &Cell, hot: &Hot) -> BTreeSet<(String, String, String)> {
    // An id of this week, so that the plan is that of a partition in use.
    let id = || format!("'{}'", uuid::Uuid::now_v7());
    let arguments = hot.arguments.replace("ID", &id()).replace("LEASE", &id());
    let mut found = BTreeSet::new();
    collect(&plan(cell, "costs off", hot.file, &arguments).await, &mut found);
    found
}

/// The plan of a statement with these arguments.
async fn plan(cell: &Cell, options: &str, file: &str, arguments: &str) -> Value {
    let explain = format!(
        "deallocate all; prepare hot as {}; explain (format json, {options}) execute hot({arguments})",
        statement(file)
    );
    let answer = cell.db.simple_query(&explain).await.unwrap_or_else(|error| panic!("{file}: {error:?}"));
    let plan = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    serde_json::from_str(plan.expect("a plan")).expect("JSON")
}

fn collect(node: &Value, found: &mut BTreeSet<(String, String, String)>) {
    match node {
        Value::Array(nodes) => nodes.iter().for_each(|node| collect(node, found)),
        Value::Object(fields) => {
            let text = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
            let table = text("Relation Name");
            let base = GROWING.iter().find(|base| table == **base || table.starts_with(&format!("{base}_")));
            if let Some(base) = base.filter(|_| text("Node Type") != "ModifyTable") {
                // A partition's index is named after the partition.
                let index = text("Index Name").replace(&table, base);
                found.insert(((*base).to_owned(), text("Node Type"), index));
            }
            fields.values().for_each(|value| collect(value, found));
        }
        _ => {}
    }
}

/// What a function's own statements read in the tables that grow: by an index, and no more than a few rows of them.
async fn check_functions(cell: &Cell, statistics: &str) {
    cell.db.batch_execute("deallocate all; begin; discard plans").await.unwrap();
    let before = reads(cell).await;
    let ends = "select flow_place(t.id, 1, 0::smallint, parked, 1, 1), flow_end(t.id, 1, 1::smallint, parked)
                from tenants t, unnest('{f,t}'::boolean[]) as u (parked)";
    assert_eq!(cell.db.query(ends, &[]).await.unwrap().len(), 2);
    for ((whole, walks, rows), after) in before.into_iter().zip(reads(cell).await) {
        let read = (after.0 - whole, after.1 - walks, after.2 - rows);
        assert!(read.0 == 0 && read.1 > 0 && read.2 <= 30, "{statistics}: {read:?}");
    }
    cell.db.batch_execute("rollback").await.unwrap();
}

/// For `parked` and `ready`: how often they were read whole and walked by an index, and how many rows of that were live,
/// as this connection has not handed on yet.
async fn reads(cell: &Cell) -> Vec<(i64, i64, i64)> {
    let counts = "select seq_scan, idx_scan, idx_tup_fetch from pg_stat_xact_user_tables
                  where relname in ('ready', 'parked') order by relname";
    let rows = cell.db.query(counts, &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
}

async fn check(cell: &Cell, statistics: &str) {
    check_functions(cell, statistics).await;
    for hot in &HOT {
        let found = reached(cell, hot).await;
        for index in hot.indexes {
            let walked = found.iter().any(|(_, _, used)| used == index);
            assert!(walked, "{statistics}: {} does not walk {index}: {found:?}", hot.file);
        }
        for (table, node, index) in &found {
            let by_place = node == "Tid Scan";
            // Where another index is meant, the primary key is a wrong turn.
            let meant = hot.indexes.iter().any(|meant| meant.starts_with(&format!("{table}_")));
            let own_key = *index == format!("{table}_pkey") && !meant;
            assert!(
                by_place || own_key || hot.indexes.contains(&index.as_str()),
                "{statistics}: {} reaches {table} by {node} {index}",
                hot.file
            );
        }
    }
}

/// A cell whose statistics change only when a test says so.
async fn quiet_cell() -> Cell {
    let cell = Cell::new().await;
    cell.new_job(serde_json::json!({})).await;
    for table in ["ready", "parked", "delayed", "leases"] {
        cell.sql(&format!("alter table {table} set (autovacuum_enabled = false)"), &[]).await;
    }
    cell
}

#[tokio::test]
async fn hot_plans_are_the_intended_ones_with_fresh_empty_and_stale_statistics() {
    let unseen = quiet_cell().await;
    unseen.db.batch_execute(LOAD).await.unwrap();
    check(&unseen, "no statistics, filled").await;

    let cell = quiet_cell().await;
    check(&cell, "no statistics, nothing there").await;
    cell.db.batch_execute("analyze").await.unwrap();
    check(&cell, "analysed while empty").await;
    cell.db.batch_execute(LOAD).await.unwrap();
    check(&cell, "analysed while empty, then filled").await;
    cell.db.batch_execute("analyze").await.unwrap();
    check(&cell, "fresh").await;
    cell.db
        .batch_execute("delete from ready; delete from parked; delete from delayed; delete from leases")
        .await
        .unwrap();
    check(&cell, "analysed while full, then emptied").await;
}

#[tokio::test]
async fn a_list_has_its_order_from_the_index_that_begins_with_the_tenant_and_from_no_other() {
    let cell = quiet_cell().await;
    // Sorts only what comes in order from nowhere.
    cell.db.batch_execute("set enable_sort = off; set enable_incremental_sort = off").await.unwrap();
    let lists = [
        ("executions.sql", "'\\x01', null, null, null, null, null, null, 100, 100", "executions_of"),
        ("executions.sql", "'\\x01', 'FAILED', null, null, null, null, ID, 100, 10000", "executions_of"),
        ("jobs.sql", "'\\x01', null, ID, 100", "jobs_of"),
        ("keys.sql", "ID, null, 100", "tenant_keys_of"),
    ];
    for (file, arguments, index) in lists {
        let arguments = arguments.replace("ID", &format!("'{}'", uuid::Uuid::now_v7()));
        let sorts = async || {
            let plan = plan(&cell, "costs off", file, &arguments).await.to_string();
            plan.matches(r#""Node Type":"Sort""#).count()
        };
        let given = sorts().await;
        // Without it there is nothing to walk, so that the whole must be sorted: a primary key would do for an order
        // by id alone, and walk everyone's rows.
        cell.db.batch_execute(&format!("begin; drop index {index}")).await.unwrap();
        let without = sorts().await;
        cell.db.batch_execute("rollback").await.unwrap();
        assert!(without > given, "{file}: {given} and {without} sorts");
    }
}

#[tokio::test]
async fn what_waits_in_a_queue_is_counted_by_indexes_that_begin_with_the_queue() {
    let cell = quiet_cell().await;
    let indexes = &["ready_in_turn", "parked_queue", "delayed_due"];
    let queues = Hot { file: "queues.sql", arguments: "null, null, 100, 10000", indexes };
    for change in ["", "analyze", LOAD, "analyze"] {
        cell.db.batch_execute(change).await.unwrap();
        // The leases are read whole, by any.
        let found = reached(&cell, &queues).await.into_iter().filter(|(table, ..)| table != "leases");
        let walked: BTreeSet<_> = found.map(|(_, _, index)| index).collect();
        assert_eq!(walked, indexes.map(str::to_owned).into(), "after {change:.20}");
    }
}

#[tokio::test]
async fn a_database_in_which_something_else_lives_is_refused_and_left_as_it_is() {
    let url = database().await;
    let db = connect(&url).await;
    db.batch_execute("create schema shop; create table shop.orders (id int)").await.unwrap();
    let refused = migrate(&Database::at(&url)).await.unwrap_err().to_string();
    assert!(refused.contains("shop.orders") && refused.contains("create database"), "{refused}");
    let sql = "select to_regclass('executions') is null and not exists (select from pg_db_role_setting s
        join pg_database d on d.oid = s.setdatabase where d.datname = current_database())";
    assert!(db.query_one(sql, &[]).await.unwrap().get::<_, bool>(0), "nothing was made or set");
    db.batch_execute("drop schema shop cascade").await.unwrap();
    let version = migrate(&Database::at(&url)).await.unwrap();
    assert_eq!(migrate(&Database::at(&url)).await.unwrap(), version, "a second time finds its own");
}
