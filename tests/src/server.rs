//! One PostgreSQL for a test run, with a fresh database for each test.

use jobplane::local::postgres::{Durability, Server};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Never dropped: the server ends with the process.
static SERVER: OnceLock<Server> = OnceLock::new();
static NEXT: AtomicU32 = AtomicU32::new(0);

/// The run's server.
pub fn server() -> &'static Server {
    SERVER.get_or_init(|| Server::start(&home("test-postgres"), Durability::None).expect("PostgreSQL starts"))
}

/// A folder of this process's own for a server's data, under this folder of the build's; those of processes that have
/// ended are removed.
pub(crate) fn home(folder: &str) -> PathBuf {
    let base = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target").join(folder);
    std::fs::create_dir_all(&base).expect("target is writable");
    remove_leftovers(&base);
    base.join(std::process::id().to_string())
}

/// Removes the data of runs that have ended.
fn remove_leftovers(base: &Path) {
    for entry in std::fs::read_dir(base).expect("it exists").flatten() {
        let alive = Path::new("/proc").join(entry.file_name()).exists();
        if !alive && std::fs::remove_dir_all(entry.path()).is_err() {
            eprintln!("{} is left over from an earlier run", entry.path().display());
        }
    }
}

/// The URL of a fresh, empty database.
pub async fn database() -> String {
    database_on(tokio::task::spawn_blocking(server).await.expect("it does not panic")).await
}

/// The URL of a fresh, empty database of this server.
pub(crate) async fn database_on(server: &Server) -> String {
    let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let client = connect(&server.url_of("postgres")).await;
    client.batch_execute(&format!("create database {name}")).await.expect("a database is made");
    server.url_of(&name)
}

/// A connection of its own, such as one that holds a transaction open.
pub async fn connect(url: &str) -> tokio_postgres::Client {
    let (client, connection) =
        tokio_postgres::connect(url, tokio_postgres::NoTls).await.expect("the server answers");
    tokio::spawn(connection);
    client
}
