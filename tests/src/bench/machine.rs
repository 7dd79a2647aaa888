//! Where the figures were taken: the machine, and the settings of PostgreSQL that matter to them.

use super::stand::Stand;

/// Settings that a figure may depend on.
const SETTINGS: &[&str] = &[
    "server_version",
    "fsync",
    "synchronous_commit",
    "full_page_writes",
    "shared_buffers",
    "max_wal_size",
    "checkpoint_timeout",
    "autovacuum",
    "autovacuum_naptime",
    "track_commit_timestamp",
];

/// One line for each thing to know: its name and what it is.
pub(super) async fn describe(stand: &Stand) -> Vec<(String, String)> {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let mut lines = vec![
        ("cores".to_owned(), cores.to_string()),
        ("processor".to_owned(), field("/proc/cpuinfo", "model name")),
        ("memory".to_owned(), field("/proc/meminfo", "MemTotal")),
        // Others on the machine show here, and in the figures.
        ("load before".to_owned(), read("/proc/loadavg").trim().to_owned()),
        ("build".to_owned(), if cfg!(debug_assertions) { "debug" } else { "release" }.to_owned()),
    ];
    let database = stand.connect("postgres").await;
    let sql = "select name, current_setting(name) from unnest($1::text[]) name";
    for row in database.query(sql, &[&SETTINGS]).await.expect("the settings are known") {
        lines.push((format!("postgresql {}", row.get::<_, &str>(0)), row.get(1)));
    }
    lines
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn field(path: &str, name: &str) -> String {
    let text = read(path);
    let found = text.lines().filter_map(|line| line.split_once(':')).find(|(key, _)| key.trim() == name);
    found.map_or_else(|| "unknown".to_owned(), |(_, value)| value.trim().to_owned())
}
