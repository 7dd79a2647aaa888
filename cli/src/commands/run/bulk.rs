//! `jobplane run --bulk`: checks a whole file, then asks for an execution of each of its lines.

use super::batches::Batches;
use crate::commands::job::find;
use crate::failure::Refusal;
use crate::output::{counted, say};
use crate::progress;
use crate::session::Session;
use crate::time::relative;
use anyhow::Context;
use indicatif::ProgressBar;
use jiff::{SignedDuration, Timestamp};
use jobplane_protocol::{ExecutionId, Job, RunsResponse};
use serde::Serialize;
use std::fs::File;
use std::io::{BufReader, Seek, SeekFrom};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// How long one request may be retried: the tenant's rate limit may hold it up for minutes.
const PATIENCE: Duration = Duration::from_secs(600);

/// What was asked for.
#[derive(Serialize)]
struct Asked {
    execution_ids: Vec<ExecutionId>,
}

pub(super) async fn run(
    job: &str,
    path: &Path,
    inputs: bool,
    salt: Option<&str>,
    session: &Session,
) -> anyhow::Result<ExitCode> {
    let mut file = open(path)?;
    let total = count(&file, inputs).with_context(|| format!("{}: nothing was sent", path.display()))?;
    if total == 0 {
        return Err(Refusal::Usage(format!("{} holds no lines", path.display())).into());
    }
    file.seek(SeekFrom::Start(0)).context("cannot read the file a second time")?;
    let job = find(&session.client, job).await?;
    let began = Timestamp::now();
    let bar = progress::bar(total, "executions asked for");
    let mut asked = Asked { execution_ids: Vec::new() };
    let sent = send(&job, Batches::of(BufReader::new(file), inputs), salt, session, &bar, &mut asked).await;
    bar.finish_and_clear();
    let count = asked.execution_ids.len();
    sent.with_context(|| {
        format!("{count} of {total} executions were asked for; the same command again doubles none of them")
    })?;
    let earlier = asked.execution_ids.first().and_then(asked_at).filter(|at| is_earlier(*at, began));
    if let Some(at) = earlier {
        let at = relative(at, began);
        say(&format!(
            "The first of these was asked for {at}: what was asked for before is not doubled. To run the file \
             once more, give another --idempotency-key."
        ));
    }
    session
        .output
        .show(&asked, || format!("Asked for {} of job {}.", counted(count as u64, "execution"), job.name))?;
    Ok(ExitCode::SUCCESS)
}

/// When an execution was asked for, by the database's clock: its id begins with that.
fn asked_at(id: &ExecutionId) -> Option<Timestamp> {
    let (seconds, nanos) = id.0.get_timestamp()?.to_unix();
    Timestamp::new(i64::try_from(seconds).ok()?, i32::try_from(nanos).ok()?).ok()
}

/// Clocks differ a little, so that only what is more than a second earlier counts.
fn is_earlier(asked: Timestamp, began: Timestamp) -> bool {
    began.duration_since(asked) > SignedDuration::from_secs(1)
}

/// The file; what standard input holds is kept in one, because it is read twice.
fn open(path: &Path) -> anyhow::Result<File> {
    if path != Path::new("-") {
        return File::open(path).with_context(|| format!("cannot read {}", path.display()));
    }
    let mut file = tempfile::tempfile().context("cannot keep standard input in a temporary file")?;
    std::io::copy(&mut std::io::stdin().lock(), &mut file).context("cannot read standard input")?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file)
}

/// Checks every line, and counts them.
fn count(file: &File, inputs: bool) -> anyhow::Result<u64> {
    let (mut batches, mut total) = (Batches::of(BufReader::new(file), inputs), 0);
    while let Some(batch) = batches.next()? {
        total += u64::try_from(batch.len())?;
    }
    Ok(total)
}

async fn send(
    job: &Job,
    mut batches: Batches<BufReader<File>>,
    salt: Option<&str>,
    session: &Session,
    bar: &ProgressBar,
    asked: &mut Asked,
) -> anyhow::Result<()> {
    let mut index = 0;
    while let Some(batch) = batches.next()? {
        let key = batch.idempotency_key(job.id, index, salt);
        let call = session.client.post(format!("/jobs/{}/runs", job.id)).json(&batch);
        let answer: RunsResponse = call.header("Idempotency-Key", key).within(PATIENCE).send().await?;
        bar.inc(u64::try_from(answer.execution_ids.len())?);
        asked.execution_ids.extend(answer.execution_ids);
        index += 1;
    }
    Ok(())
}
