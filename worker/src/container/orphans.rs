//! Containers that nobody waits for any more: what they are known by, and their end.

use super::Engine;
use super::engine::is_absent;
use crate::error::with_causes;
use bollard::errors::Error as EngineError;
use bollard::models::ContainerSummary;
use bollard::query_parameters::{ListContainersOptionsBuilder, RemoveContainerOptionsBuilder};
use jiff::Timestamp;
use jobplane_protocol::{LeasedExecution, limits};
use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::time::sleep;

/// Between two looks for what is left: what a killed worker has left is gone within a minute, also what the engine had
/// been asked for and made only after another worker's start.
const INTERVAL: Duration = Duration::from_secs(30);
/// What a container is allowed after the controller has ended its attempt: how far clocks may be apart.
const DEADLINE_SLACK_SECONDS: i64 = 300;

const OWNER: &str = "jobplane.owner";
const WORKER: &str = "jobplane.worker";
const EXECUTION: &str = "jobplane.execution";
const ATTEMPT: &str = "jobplane.attempt";
/// In seconds since 1970. Later than this the controller has ended the attempt, so anybody may remove it.
const DEADLINE: &str = "jobplane.deadline";

/// The names of the containers that this worker runs, from before they are made until they are removed.
#[derive(Debug, Clone, Default)]
pub(super) struct Running(Arc<Mutex<HashSet<String>>>);

/// A name among them, for as long as this lives.
pub(super) struct Entry {
    running: Running,
    name: String,
}

impl Running {
    pub(super) fn enter(&self, name: &str) -> Entry {
        self.names().insert(name.to_owned());
        Entry { running: self.clone(), name: name.to_owned() }
    }

    fn names(&self) -> MutexGuard<'_, HashSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.running.names().remove(&self.name);
    }
}

impl Engine {
    pub(super) fn labels(&self, leased: &LeasedExecution) -> HashMap<String, String> {
        let seconds = i64::from(leased.timeout_seconds.max(0)) + i64::from(limits::DEADLINE_GRACE_SECONDS);
        let deadline = Timestamp::now().as_second() + seconds + DEADLINE_SLACK_SECONDS;
        let labels = [
            (OWNER, self.owner.label()),
            (WORKER, self.worker.clone()),
            (EXECUTION, leased.execution_id.to_string()),
            (ATTEMPT, leased.attempt.to_string()),
            (DEADLINE, deadline.to_string()),
        ];
        labels.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// Removes a container with all that is its own, whatever it does. Nothing of it is left unless that is an error.
    pub(super) async fn remove(&self, name: &str) -> Result<(), EngineError> {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        match self.docker.remove_container(name, Some(options)).await {
            Err(error) if !is_absent(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// The containers of earlier attempts of the same execution.
    pub(super) async fn earlier(&self, leased: &LeasedExecution) -> Result<Vec<String>, EngineError> {
        let found = self.list(&format!("{EXECUTION}={}", leased.execution_id)).await?;
        let earlier = |found: &ContainerSummary| {
            let attempt: i32 = label(found, ATTEMPT)?.parse().ok()?;
            (attempt < leased.attempt).then(|| ours(found).map(str::to_owned))?
        };
        Ok(found.iter().filter_map(earlier).collect())
    }

    /// Removes every container that nobody waits for: this worker's own that it does not know, those of workers that
    /// are dead, and those whose time is over, whosever they are.
    pub(super) async fn sweep(&self) -> Result<(), EngineError> {
        for found in self.list(OWNER).await? {
            let Some(name) = ours(&found) else { continue };
            let Some(why) = self.orphaned(name, &found) else { continue };
            tracing::info!(name, worker = label(&found, WORKER), why, "an orphan is removed");
            if let Err(error) = self.remove(name).await {
                tracing::warn!(error = with_causes(&error), name, "an orphan could not be removed yet");
            }
        }
        Ok(())
    }

    fn orphaned(&self, name: &str, found: &ContainerSummary) -> Option<&'static str> {
        let owner = label(found, OWNER)?;
        if owner == self.owner.label() {
            return (!self.running.names().contains(name)).then_some("its attempt is over");
        }
        if self.owner.knows_dead(owner) {
            return Some("its worker is dead");
        }
        let deadline: i64 = label(found, DEADLINE)?.parse().ok()?;
        (deadline < Timestamp::now().as_second()).then_some("its time is over")
    }

    async fn list(&self, label: &str) -> Result<Vec<ContainerSummary>, EngineError> {
        let filters = HashMap::from([("label".to_owned(), vec![label.to_owned()])]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        self.docker.list_containers(Some(options)).await
    }
}

/// Looks for orphans now and then, for as long as there is somebody to do it for.
pub(super) async fn keep_sweeping(engine: Weak<Engine>) {
    loop {
        sleep(INTERVAL).await;
        let Some(engine) = engine.upgrade() else { return };
        if let Err(error) = engine.sweep().await {
            tracing::warn!(error = with_causes(&error), "orphans could not be looked for");
        }
    }
}

fn label<'a>(found: &'a ContainerSummary, name: &str) -> Option<&'a str> {
    found.labels.as_ref()?.get(name).map(String::as_str)
}

/// The name of an attempt's container.
pub(super) fn name(execution: impl Display, attempt: impl Display) -> String {
    format!("jobplane-{execution}-{attempt}")
}

/// Its name, if that is what its labels say. Others may have the labels, too: an image gives its own to every container.
fn ours(found: &ContainerSummary) -> Option<&str> {
    let expected = name(label(found, EXECUTION)?, label(found, ATTEMPT)?);
    let names = found.names.as_ref()?.iter().map(|name| name.trim_start_matches('/'));
    names.into_iter().find(|name| *name == expected)
}
