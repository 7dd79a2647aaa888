//! A real PgBouncer in transaction mode before the run's server: with `JOBPLANE_TEST_POOLER=1` every cell's functions
//! go through it, so that no statement relies on a session.

use crate::server;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

static PORT: OnceLock<u16> = OnceLock::new();

/// Ends the pooler when this process is gone.
const GUARD: &str = r#""$@" </dev/null & pooler=$!; cat >/dev/null; kill $pooler"#;

/// The URL by which functions are to reach this database: its own, or the pooler's when the run asks for one.
pub fn through(database_url: &str) -> String {
    if std::env::var_os("JOBPLANE_TEST_POOLER").is_none() {
        return database_url.to_owned();
    }
    let port = PORT.get_or_init(start);
    let (_, database) = database_url.rsplit_once('/').expect("a URL with a database");
    format!("postgres://postgres@127.0.0.1:{port}/{database}")
}

/// Starts PgBouncer with four connections to each database and waits until it listens.
fn start() -> u16 {
    let port =
        std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port();
    let url = server().url();
    let (credentials, address) = url.trim_start_matches("postgres://").split_once('@').expect("credentials");
    let (user, password) = credentials.split_once(':').expect("a password");
    let (host, server_port) = address.split_once(':').expect("a port");
    let config = tempfile::Builder::new().suffix(".ini").tempfile().expect("a file").into_temp_path();
    let text = format!(
        "[databases]\n* = host={host} port={server_port} user={user} password={password}\n\
         [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n\
         pool_mode = transaction\ndefault_pool_size = 4\nmax_client_conn = 2000\nserver_idle_timeout = 5\n\
         max_db_connections = 4\n"
    );
    std::fs::write(&config, text).expect("it is written");
    let mut command = Command::new("sh");
    command.args(["-c", GUARD, "pooler-guard", "pgbouncer", "--quiet"]).arg(&config);
    if nix::unistd::geteuid().is_root() {
        // It refuses root, as PostgreSQL does.
        let user = nix::unistd::User::from_name("nobody").expect("users").expect("nobody");
        std::os::unix::fs::chown(&config, Some(user.uid.as_raw()), None).expect("it is ours");
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
    let mut guard = command.env("PATH", path).stdin(Stdio::piped()).spawn().expect("sh runs");
    let began = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        let ended = guard.try_wait().expect("it can be waited for");
        assert!(
            ended.is_none() && began.elapsed() < Duration::from_secs(10),
            "install pgbouncer (Debian: apt-get install pgbouncer)"
        );
        std::thread::yield_now();
    }
    // The guard's input stays open as long as this process lives.
    std::mem::forget(guard);
    std::mem::forget(config);
    port
}
