//! `jobplane queues`: how deep the queues are; pausing and resuming them.

use crate::pages::{Limit, Pages};
use crate::session::Session;
use crate::table::{Cell, Table};
use crate::time::short;
use anyhow::Context;
use jobplane_protocol::{Queue, UpdateQueue};
use owo_colors::Style;
use reqwest::Url;
use serde_json::json;
use std::process::ExitCode;
use std::time::Duration;

/// What to do with queues: to show them, where nothing is said.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    limit: Limit,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Hand out nothing from a queue; what runs goes on
    Pause {
        /// The queue's name
        queue: String,
    },
    /// Hand out from a queue again
    Resume {
        /// The queue's name
        queue: String,
    },
}

pub(super) async fn run(args: Args, session: &Session) -> anyhow::Result<ExitCode> {
    match args.command {
        Some(Command::Pause { queue }) => update(&queue, true, session).await?,
        Some(Command::Resume { queue }) => update(&queue, false, session).await?,
        None => list(args.limit, session).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn update(queue: &str, paused: bool, session: &Session) -> anyhow::Result<()> {
    session.client.patch(path_of(queue)?).json(&UpdateQueue { paused }).send::<()>().await?;
    session.output.show(&json!({ "name": queue, "paused": paused }), || {
        format!("Queue {queue} is {}.", if paused { "paused" } else { "resumed" })
    })
}

/// `/queues/NAME`, whatever characters the name holds.
fn path_of(queue: &str) -> anyhow::Result<String> {
    let mut url = Url::parse("http://localhost")?;
    url.path_segments_mut().ok().context("a URL without a path")?.extend(["queues", queue]);
    Ok(url.path().to_owned())
}

async fn list(Limit { limit }: Limit, session: &Session) -> anyhow::Result<()> {
    let queues: Vec<Queue> = Pages::of(&session.client, "/queues").first(limit).await?;
    session.output.show(&queues, || {
        let mut table =
            Table::new(&["QUEUE", "WAITING", "RUNNING", "DELAYED", "PARKED", "OLDEST WAITS", "STATE"]);
        queues.iter().for_each(|queue| table.row(row(queue)));
        table.render(&session.output)
    })
}

fn row(queue: &Queue) -> [Cell; 7] {
    let count = |count: i64| Cell::number(if queue.exact { count.to_string() } else { format!("{count}+") });
    let oldest = queue.oldest_waiting_seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let state = if queue.paused {
        Cell::text("paused").styled(Style::new().yellow())
    } else {
        Cell::text("open").styled(Style::new().green())
    };
    [
        Cell::text(&queue.name),
        count(queue.waiting),
        count(queue.running),
        count(queue.delayed),
        count(queue.parked),
        Cell::maybe(oldest.map(short)),
        state,
    ]
}

#[cfg(test)]
mod tests {
    use super::path_of;

    #[test]
    fn any_name_stays_one_step_of_the_path() {
        assert_eq!(path_of("a/b c?d").unwrap(), "/queues/a%2Fb%20c%3Fd");
        assert_eq!(path_of("default").unwrap(), "/queues/default");
    }
}
