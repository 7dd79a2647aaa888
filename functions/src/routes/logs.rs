//! `POST /internal/executions/{id}/logs`: a job's lines, in order, each stored once.

use crate::request::{Checked, Id, TokenHash, WorkerToken, missing};
use crate::routes::result::{decided_before, refused};
use crate::{App, Error};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jobplane_protocol::{
    ErrorCode, ExecutionId, LogLine, LogsRequest, LogsResponse, Problem, Stream, limits,
};

const APPEND: &str = include_str!("../store/logs_append.sql");

/// How often a chunk is looked at again that a concurrent call with the same one got in first with.
const LOOKS: usize = 3;

/// Stores one chunk.
pub(crate) async fn logs(
    State(app): State<App>,
    WorkerToken(token): WorkerToken,
    Id(id): Id<ExecutionId>,
    Checked { value: request, .. }: Checked<LogsRequest>,
) -> Result<(StatusCode, Json<LogsResponse>), Error> {
    let chunk = Chunk::of(&request)?;
    for _ in 0..LOOKS {
        match append(&app, &token, id, &request, &chunk).await? {
            Appended::Taken => {
                return Ok((
                    StatusCode::ACCEPTED,
                    Json(LogsResponse { next_seq: request.first_seq + chunk.count() }),
                ));
            }
            Appended::Gap { next_seq } => return Err(gap(next_seq)),
            Appended::Fenced => return Err(fenced(&app, id, &request).await?),
            Appended::Overtaken => {}
        }
    }
    // Another call is writing this attempt's log. The lease may well be held: nothing is said against it.
    Err(Error::TimedOut)
}

/// A chunk as it is stored: JSON text, so that any character survives.
struct Chunk {
    line_count: i32,
    /// What it takes of the execution's limit: as stored, so that empty lines are not free.
    bytes: i64,
    lines: String,
    /// What is stored instead when the execution's limit is passed.
    truncation: String,
}

impl Chunk {
    fn of(request: &LogsRequest) -> Result<Self, Error> {
        let bytes: usize = request.lines.iter().map(|line| line.text.len()).sum();
        if bytes > limits::MAX_LOG_CHUNK_BYTES {
            let detail =
                format!("the lines have {bytes} bytes, at most {} are accepted", limits::MAX_LOG_CHUNK_BYTES);
            return Err(Error::refused(ErrorCode::LogChunkTooLarge, detail));
        }
        let text = |lines: &[LogLine]| {
            serde_json::to_string(lines).map_err(|error| Error::Stored(error.to_string()))
        };
        let at = request.lines.first().map(|line| line.at).unwrap_or_default();
        let truncation = LogLine {
            at,
            stream: Stream::Stderr,
            text: format!("[jobplane: the log ends here, {} bytes are kept]", limits::MAX_LOG_BYTES),
        };
        let lines = text(&request.lines)?;
        Ok(Self {
            line_count: i32::try_from(request.lines.len()).unwrap_or(i32::MAX),
            bytes: i64::try_from(lines.len()).unwrap_or(i64::MAX),
            lines,
            truncation: text(&[truncation])?,
        })
    }

    fn count(&self) -> i64 {
        i64::from(self.line_count)
    }
}

/// What became of a chunk.
enum Appended {
    /// Stored, now or before, or dropped behind the truncation line.
    Taken,
    /// It does not start where the last one ended.
    Gap { next_seq: i64 },
    /// Its lease is gone.
    Fenced,
    /// A concurrent call changed what this one saw.
    Overtaken,
}

async fn append(
    app: &App,
    token: &TokenHash,
    id: ExecutionId,
    request: &LogsRequest,
    chunk: &Chunk,
) -> Result<Appended, Error> {
    let limit = i64::try_from(limits::MAX_LOG_BYTES).unwrap_or(i64::MAX);
    let grace = f64::from(limits::LOG_GRACE_SECONDS);
    let row = app
        .db
        .row(
            APPEND,
            &[
                &token.bytes(),
                &id.0,
                &request.lease_id.0,
                &request.first_seq,
                &chunk.line_count,
                &chunk.bytes,
                &chunk.lines,
                &limit,
                &chunk.truncation,
                &grace,
            ],
        )
        .await?
        .ok_or_else(Error::unauthorized)?;
    if row.try_get::<_, Option<i32>>("attempt")?.is_none() {
        return Ok(Appended::Fenced);
    }
    let next_seq: i64 = row.try_get("next_seq")?;
    let repeated: Option<bool> = row.try_get("repeated")?;
    Ok(match repeated {
        _ if row.try_get("stored")? => Appended::Taken,
        _ if row.try_get("truncated")? => Appended::Taken,
        Some(true) => Appended::Taken,
        None if next_seq == request.first_seq => Appended::Overtaken,
        _ => Appended::Gap { next_seq },
    })
}

fn gap(next_seq: i64) -> Error {
    let mut problem = Problem::new(ErrorCode::LogGap, format!("the next chunk must start at {next_seq}"));
    problem.next_seq = Some(next_seq);
    Error::Refused(Box::new(problem))
}

/// Why nothing is taken under this lease: a fresh look, so that an id that never was is told apart.
async fn fenced(app: &App, id: ExecutionId, request: &LogsRequest) -> Result<Error, Error> {
    let decisions = decided_before(&app.db, vec![(id.0, request.lease_id.0)]).await?;
    Ok(match decisions.values().next() {
        Some(Err(ErrorCode::ExecutionNotFound)) => missing::<ExecutionId>(),
        _ => refused(ErrorCode::LeaseLost),
    })
}
