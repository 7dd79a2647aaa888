//! The demo's job, and how its executions are asked for.

use super::files::Input;
use jobplane_protocol::{
    CreateJob, ExecutionId, Job, JobId, RetryPolicy, RunRequest, RunsRequest, RunsResponse, limits,
};
use jobplane_worker::Client;
use std::collections::BTreeMap;

/// What the job runs. Bytes that are no text become letters before words are counted, since implementations of `wc`
/// differ in whether those belong to a word.
pub(super) const SCRIPT: &str = r#"set -e
counts=$(wc -lc <"$FILE")
words=$(tr -c '[:print:][:space:]' x <"$FILE" | wc -w)
hash=$(sha256sum <"$FILE" 2>/dev/null || shasum -a 256 <"$FILE")
set -- $counts
printf '{"lines":%d,"words":%d,"bytes":%d,"sha256":"%s"}' "$1" "$words" "$2" "${hash%% *}" \
    >"$JOBPLANE_OUTPUT_DIR/result.json"
printf '%7d lines  %.8s  %s\n' "$1" "$hash" "${FILE#"$ROOT"/}"
"#;

/// Tries that a file gets. None is expected to fail; a killed worker spends one.
const MAX_ATTEMPTS: i32 = 3;
/// What the environments of one call may take, in bytes: well below what a request may.
const CALL_BYTES: usize = limits::MAX_REQUEST_BYTES / 4;
/// What a run takes beside its file's name, in bytes.
const RUN_BYTES: usize = 64;

/// An execution and the number of the file that it is for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) execution: ExecutionId,
    pub(super) file: usize,
}

/// Defines the job.
pub(super) async fn create(tenant: &Client, input: &Input) -> anyhow::Result<JobId> {
    let env = [("LC_ALL", "C"), ("ROOT", &input.root.to_string_lossy())];
    let job = CreateJob {
        // With DATABASE_URL there may be one of an earlier demo.
        name: format!("count-and-hash-{}", uuid::Uuid::new_v4().simple()),
        command: Some(["/bin/sh", "-c", SCRIPT].map(str::to_owned).to_vec()),
        env: env.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        retry: RetryPolicy { max_attempts: MAX_ATTEMPTS, backoff_seconds: 0, ..RetryPolicy::default() },
        ..CreateJob::default()
    };
    let created: Job = tenant.post("/jobs").json(&job).unrepeatable().send().await?;
    Ok(created.id)
}

/// Asks for one execution for each of the files with these numbers, in as few calls as the limits allow. A call whose
/// answer is lost is repeated under its key and asks for nothing twice.
pub(super) async fn submit(
    tenant: &Client,
    job: JobId,
    input: &Input,
    files: std::ops::Range<usize>,
) -> anyhow::Result<Vec<Asked>> {
    let mut asked = Vec::with_capacity(files.len());
    let mut next = files.start;
    while next < files.end {
        let first = next;
        let (mut runs, mut bytes) = (Vec::new(), 0);
        while next < files.end && runs.len() < limits::MAX_BATCH && bytes < CALL_BYTES {
            let path = input.root.join(&input.files[next]).to_string_lossy().into_owned();
            bytes += path.len() + RUN_BYTES;
            let env = Some(BTreeMap::from([("FILE".to_owned(), path)]));
            runs.push(RunRequest { env, ..RunRequest::default() });
            next += 1;
        }
        let answer: RunsResponse = tenant
            .post(format!("/jobs/{job}/runs"))
            .header("Idempotency-Key", format!("demo-{job}-{first}"))
            .json(&RunsRequest { runs })
            .send()
            .await?;
        asked.extend(
            answer.execution_ids.into_iter().zip(first..).map(|(execution, file)| Asked { execution, file }),
        );
    }
    Ok(asked)
}
