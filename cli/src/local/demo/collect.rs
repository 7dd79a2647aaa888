//! Following executions to their ends: what each file's job reported, in how many attempts, and its log.

use super::figures::Figures;
use super::job::Asked;
use super::screen::Screen;
use super::victim::Killed;
use jobplane_protocol::{Execution, LogPage, Status};
use jobplane_worker::Client;
use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::task::JoinSet;

/// Executions that are asked about in one round, beside those that workers hold: they end roughly in order.
const AHEAD: usize = 64;
/// Questions at a time.
const LANES: usize = 8;
/// The wait after a round in which nothing had ended.
const IDLE: Duration = Duration::from_millis(150);
/// The wait after a round in which little had ended.
const SLOW: Duration = Duration::from_millis(30);
/// Executions whose log is shown, about; all of them, if there are fewer.
const SHOWN_LOGS: usize = 300;

/// How the execution for one file ended.
pub(super) struct Outcome {
    /// The number of the file.
    pub(super) file: usize,
    pub(super) status: Status,
    /// What the job reported, or why that cannot be read.
    pub(super) figures: Result<Figures, String>,
    /// Attempts that were started.
    pub(super) attempts: usize,
    /// Tries that were spent.
    pub(super) tries: i32,
    /// How long the last attempt took.
    pub(super) took: Duration,
}

impl Outcome {
    fn of(asked: Asked, execution: &Execution) -> Self {
        let figures = match &execution.result {
            Some(result) => serde_json::from_str(result.get()).map_err(|error| error.to_string()),
            None => Err(execution.error.clone().unwrap_or_else(|| "no result".to_owned())),
        };
        let last = execution.attempts.last().and_then(|last| last.finished_at.zip(last.started_at));
        let took = last.and_then(|(end, start)| Duration::try_from(end.duration_since(start)).ok());
        Self {
            file: asked.file,
            status: execution.status,
            figures,
            attempts: execution.attempts.len(),
            tries: execution.tries,
            took: took.unwrap_or_default(),
        }
    }
}

/// Collects outcomes until there is one for every file.
pub(super) struct Collector {
    pub(super) tenant: Client,
    pub(super) screen: Arc<Screen>,
    /// How many files there are in all.
    pub(super) total: usize,
    /// Executions that the workers can hold at once.
    pub(super) slots: usize,
    /// The worker that was killed, once it was.
    pub(super) killed: Arc<OnceLock<Killed>>,
    pub(super) outcomes: Vec<Outcome>,
}

/// An execution that was asked about.
struct Seen {
    asked: Asked,
    execution: Execution,
    log: Vec<String>,
}

impl Collector {
    /// Waits until all of these have ended.
    pub(super) async fn collect(&mut self, asked: Vec<Asked>) -> anyhow::Result<()> {
        let mut waiting = VecDeque::from(asked);
        while !waiting.is_empty() {
            let round: Vec<Asked> = waiting.drain(..waiting.len().min(AHEAD + self.slots)).collect();
            let (size, before) = (round.len(), self.outcomes.len());
            let mut unfinished = self.look(round).await?;
            unfinished.sort_unstable_by_key(|asked| asked.file);
            unfinished.into_iter().rev().for_each(|asked| waiting.push_front(asked));
            let note = self.killed.get().and_then(|killed| killed.note(waiting.iter()));
            self.screen.progress(self.outcomes.len(), &note.unwrap_or_default());
            match self.outcomes.len() - before {
                0 => tokio::time::sleep(IDLE).await,
                ended if ended < size / 2 => tokio::time::sleep(SLOW).await,
                _ => {}
            }
        }
        Ok(())
    }

    /// Asks about each, takes in those that have ended, and answers the others.
    async fn look(&mut self, round: Vec<Asked>) -> anyhow::Result<Vec<Asked>> {
        let shown = (self.total / SHOWN_LOGS).max(1);
        let mut lanes = JoinSet::new();
        for lane in round.chunks(round.len().div_ceil(LANES)) {
            lanes.spawn(ask(self.tenant.clone(), lane.to_vec(), shown));
        }
        let mut unfinished = Vec::new();
        while let Some(lane) = lanes.join_next().await {
            for seen in lane?? {
                if seen.execution.status.is_final() {
                    seen.log.iter().for_each(|line| self.screen.say_log(line));
                    self.outcomes.push(Outcome::of(seen.asked, &seen.execution));
                } else {
                    unfinished.push(seen.asked);
                }
            }
        }
        Ok(unfinished)
    }
}

async fn ask(tenant: Client, lane: Vec<Asked>, shown: usize) -> anyhow::Result<Vec<Seen>> {
    let mut seen = Vec::with_capacity(lane.len());
    for asked in lane {
        let path = format!("/executions/{}", asked.execution);
        let execution: Execution = tenant.get(path.as_str()).send().await?;
        let mut log = Vec::new();
        if execution.status.is_final() && asked.file.is_multiple_of(shown) {
            let page: LogPage = tenant.get(format!("{path}/logs")).send().await?;
            log.extend(page.lines.into_iter().map(|line| match line.attempt {
                1 => line.text,
                again => format!("{}  (attempt {again})", line.text),
            }));
        }
        seen.push(Seen { asked, execution, log });
    }
    Ok(seen)
}
