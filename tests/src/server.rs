//! One PostgreSQL for a test run, with a fresh database for each test.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Where the server is: its URL ends before the database's name.
static SERVER: OnceLock<String> = OnceLock::new();
static NEXT: AtomicU32 = AtomicU32::new(0);

/// The URL of a fresh, empty database.
pub async fn database() -> String {
    let server = SERVER.get_or_init(|| std::env::var("TEST_SERVER").expect("TEST_SERVER")).clone();
    let name = format!("t_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let (client, connection) = tokio_postgres::connect(&format!("{server}/postgres"), tokio_postgres::NoTls)
        .await
        .expect("the server answers");
    tokio::spawn(connection);
    client.batch_execute(&format!("create database {name}")).await.expect("a database is made");
    format!("{server}/{name}")
}
