//! What a scenario is measured on: a PostgreSQL of its own with default durability, and cells over it.

use crate::{Cell, connect, server};
use jobplane::local::postgres::{Durability, Server};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// A server and the size of what is measured on it.
pub(super) struct Stand {
    server: Server,
    home: PathBuf,
    /// A tenth of the size.
    pub(super) quick: bool,
    /// How often to measure.
    pub(super) rounds: u32,
    began: Instant,
}

impl Stand {
    /// Starts the server. It keeps the time of every commit, so that a history can say what was true at once.
    pub(super) async fn start(quick: bool) -> anyhow::Result<Self> {
        let home = server::home("bench-postgres");
        let server = Server::start(&home, Durability::Full)?;
        connect(&server.url_of("postgres"))
            .await
            .batch_execute("alter system set track_commit_timestamp = on")
            .await?;
        server.stop()?;
        let server = Server::start(&home, Durability::Full)?;
        Ok(Self { server, home, quick, rounds: 1, began: Instant::now() })
    }

    /// A cell over a fresh database.
    pub(super) async fn cell(&self, lease_seconds: i32, pool_size: usize) -> Arc<Cell> {
        Arc::new(Cell::on(&self.server, lease_seconds, pool_size).await)
    }

    /// Drops a cell's database, so that the next one has the disk and the autovacuum to itself.
    pub(super) async fn discard(&self, cell: Arc<Cell>) {
        let (_, name) = cell.database_url.rsplit_once('/').expect("a URL with a database");
        let maintenance = self.connect("postgres").await;
        maintenance
            .batch_execute(&format!("drop database {name} with (force)"))
            .await
            .expect("nobody needs it any more");
    }

    /// A connection to one of the server's databases.
    pub(super) async fn connect(&self, database: &str) -> tokio_postgres::Client {
        connect(&self.server.url_of(database)).await
    }

    /// This many, or a tenth of it when it is to be quick.
    pub(super) fn size(&self, full: usize) -> usize {
        if self.quick { full.div_ceil(10) } else { full }
    }

    /// Says what is going on, with the seconds since the start: a full run takes minutes.
    pub(super) fn say(&self, what: &str) {
        eprintln!("{:6.0} s  {what}", self.began.elapsed().as_secs_f64());
    }

    /// Stops the server and removes its data.
    pub(super) fn stop(self) -> anyhow::Result<()> {
        self.server.stop()?;
        Ok(std::fs::remove_dir_all(self.home)?)
    }
}
