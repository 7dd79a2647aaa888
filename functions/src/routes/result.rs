//! `PUT /internal/executions/{id}/result` and its batch: how an attempt ended, and what follows from it.

use crate::housekeeping::admit;
use crate::request::{Body, Checked, Id, TokenHash, WorkerToken, check, named, parse};
use crate::rows::status;
use crate::store::{self, Db};
use crate::{App, Error};
use axum::Json;
use axum::extract::State;
use jobplane_protocol as protocol;
use protocol::{
    ErrorCode, ExecutionId, LeaseId, Problem, ResultAnswer, ResultItem, ResultRequest, ResultResponse,
    ResultsResponse, limits,
};
use std::collections::{HashMap, HashSet};
use tokio_postgres::Row;
use uuid::Uuid;

const RESULT: &str = include_str!("../store/result.sql");
const DECIDED: &str = include_str!("../store/decided.sql");

/// Takes the result of one attempt.
pub(crate) async fn result(
    State(app): State<App>,
    WorkerToken(token): WorkerToken,
    Id(id): Id<ExecutionId>,
    Checked { value: request, .. }: Checked<ResultRequest>,
) -> Result<Json<ResultResponse>, Error> {
    let mut ends = Ends::default();
    ends.push(id, &request);
    let mut decisions = ends.run(&app, &token).await?;
    match decisions.remove(&(id, request.lease_id)) {
        Some(Ok(response)) => Ok(Json(response)),
        Some(Err(code)) => Err(refused(code)),
        None => Err(refused(ErrorCode::LeaseLost)),
    }
}

/// A batch whose items are read one by one, so that a bad one does not fail its neighbours.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Batch {
    results: Vec<protocol::Json>,
}

/// Takes the results of many attempts.
pub(crate) async fn results(
    State(app): State<App>,
    WorkerToken(token): WorkerToken,
    Body { value: batch, .. }: Body<Batch>,
) -> Result<Json<ResultsResponse>, Error> {
    batch_size("results", batch.results.len())?;
    let items: Vec<_> = batch.results.iter().map(read).collect();
    let mut ends = Ends::default();
    for (id, request) in items.iter().flatten() {
        ends.push(*id, request);
    }
    let decisions = ends.run(&app, &token).await?;
    let results = items.into_iter().map(|item| answer(item, &decisions)).collect();
    Ok(Json(ResultsResponse { results }))
}

/// A batch has at least one item and at most as many as is allowed.
pub(crate) fn batch_size(field: &str, count: usize) -> Result<(), Error> {
    if count == 0 || count > limits::MAX_BATCH {
        return Err(Error::field(field, format!("{count} items, 1 to {} are accepted", limits::MAX_BATCH)));
    }
    Ok(())
}

/// What is wrong with an item, and which execution it named if it did.
type Rejected = (Option<ExecutionId>, Box<Problem>);

/// Reads one item of a batch.
fn read(json: &protocol::Json) -> Result<(ExecutionId, ResultRequest), Rejected> {
    let (id, request) = parse::<ResultItem>(json.get()).map_err(|error| rejected(json, &error))?.split();
    check(&request).map_err(|error| rejected(json, &error))?;
    Ok((id, request))
}

/// The refusal of one item, with the execution it named as far as that can be read.
fn rejected(json: &protocol::Json, error: &Error) -> Rejected {
    (named(json).0, Box::new(error.problem().0))
}

fn answer(item: Result<(ExecutionId, ResultRequest), Rejected>, decisions: &Decisions) -> ResultAnswer {
    let none = ResultAnswer {
        execution_id: None,
        status: None,
        next_attempt_at: None,
        error_code: None,
        detail: None,
    };
    match item {
        Err((execution_id, problem)) => ResultAnswer {
            execution_id,
            error_code: Some(problem.code),
            detail: Some(problem.to_string()),
            ..none
        },
        Ok((id, request)) => match decisions.get(&(id, request.lease_id)) {
            Some(Ok(decided)) => ResultAnswer {
                execution_id: Some(id),
                status: Some(decided.status),
                next_attempt_at: decided.next_attempt_at,
                ..none
            },
            Some(Err(code)) => ResultAnswer { execution_id: Some(id), error_code: Some(*code), ..none },
            None => ResultAnswer { execution_id: Some(id), error_code: Some(ErrorCode::LeaseLost), ..none },
        },
    }
}

/// The refusal of a call whose lease is not there.
pub(crate) fn refused(code: ErrorCode) -> Error {
    let detail = match code {
        ErrorCode::ExecutionNotFound => "there is no such execution",
        _ => "the lease has moved on: stop this job and report nothing",
    };
    Error::refused(code, detail)
}

/// What was decided for each (execution, lease) of a call.
type Decisions = HashMap<(ExecutionId, LeaseId), Result<ResultResponse, ErrorCode>>;

/// How one attempt ended.
struct End<'a> {
    id: Uuid,
    lease: Uuid,
    outcome: &'a str,
    exit_code: Option<i32>,
    error: Option<&'a str>,
    result: Option<&'a str>,
    retryable: bool,
    retry_after: Option<i32>,
}

/// The ends of attempts, column by column as the statement takes them.
#[derive(Default)]
pub(crate) struct Ends<'a> {
    /// What is in the columns already: an item that a batch has twice is one end.
    seen: HashSet<(Uuid, Uuid)>,
    ids: Vec<Uuid>,
    leases: Vec<Uuid>,
    outcomes: Vec<&'a str>,
    exit_codes: Vec<Option<i32>>,
    errors: Vec<Option<&'a str>>,
    results: Vec<Option<&'a str>>,
    retryable: Vec<bool>,
    retry_after: Vec<Option<i32>>,
}

impl<'a> Ends<'a> {
    /// Adds the end that a worker reports.
    fn push(&mut self, id: ExecutionId, request: &'a ResultRequest) {
        if !self.seen.insert((id.0, request.lease_id.0)) {
            return;
        }
        self.add(&End {
            id: id.0,
            lease: request.lease_id.0,
            outcome: request.outcome.as_str(),
            exit_code: request.exit_code,
            error: request.error.as_deref(),
            result: request.result.as_ref().map(|json| json.get()),
            retryable: request.retryable.unwrap_or(true),
            retry_after: request.retry_after_seconds,
        });
    }

    /// Adds an end that the controller decides.
    pub(crate) fn push_ended(&mut self, id: Uuid, lease: Uuid, outcome: &'a str, error: &'a str) {
        let error = Some(error);
        let (exit_code, result, retryable, retry_after) = (None, None, true, None);
        self.add(&End { id, lease, outcome, exit_code, error, result, retryable, retry_after });
    }

    fn add(&mut self, end: &End<'a>) {
        self.ids.push(end.id);
        self.leases.push(end.lease);
        self.outcomes.push(end.outcome);
        self.exit_codes.push(end.exit_code);
        self.errors.push(end.error);
        self.results.push(end.result);
        self.retryable.push(end.retryable);
        self.retry_after.push(end.retry_after);
    }

    fn binds<'b>(&'b self, token: &'b Option<&'b [u8]>) -> [&'b dyn store::Bind; 9] {
        [
            token,
            &self.ids,
            &self.leases,
            &self.outcomes,
            &self.exit_codes,
            &self.errors,
            &self.results,
            &self.retryable,
            &self.retry_after,
        ]
    }

    /// Ends them in the controller's own name, in the caller's transaction: the tenants whose limits have room again.
    pub(crate) async fn run_as_controller(
        &self,
        client: &tokio_postgres::Client,
    ) -> Result<Vec<Uuid>, Error> {
        limited(&store::rows(client, RESULT, &self.binds(&None)).await?)
    }

    /// Ends them in a worker's name, and says what was decided: now, or when it was said before.
    async fn run(&self, app: &App, token: &TokenHash) -> Result<Decisions, Error> {
        let token = Some(token.bytes());
        let rows = app.db.rows(RESULT, &self.binds(&token)).await?;
        if rows.is_empty() {
            return Err(Error::unauthorized());
        }
        let mut decisions = Decisions::new();
        for row in &rows {
            if let Some(id) = row.try_get::<_, Option<Uuid>>("execution_id")? {
                decisions.insert((ExecutionId(id), LeaseId(row.try_get("lease_id")?)), Ok(decision(row)?));
            }
        }
        admit(app, limited(&rows)?).await;
        let unheld: Vec<_> = std::iter::zip(&self.ids, &self.leases)
            .filter(|(id, lease)| !decisions.contains_key(&(ExecutionId(**id), LeaseId(**lease))))
            .map(|(id, lease)| (*id, *lease))
            .collect();
        decisions.extend(decided_before(&app.db, unheld).await?);
        Ok(decisions)
    }
}

/// A fresh look at leases that are not held: what their own result led to, or why there is none.
pub(crate) async fn decided_before(db: &Db, unheld: Vec<(Uuid, Uuid)>) -> Result<Decisions, Error> {
    let mut decisions = Decisions::new();
    if unheld.is_empty() {
        return Ok(decisions);
    }
    let (ids, leases): (Vec<_>, Vec<_>) = unheld.into_iter().unzip();
    for row in &db.rows(DECIDED, &[&ids, &leases]).await? {
        let found = match row.try_get::<_, Option<&str>>("outcome")? {
            None if row.try_get("known")? => Err(ErrorCode::LeaseLost),
            None => Err(ErrorCode::ExecutionNotFound),
            // The controller ended it: this worker's word came too late.
            Some("expired" | "deadline_exceeded") => Err(ErrorCode::LeaseLost),
            Some(_) => Ok(decision(row)?),
        };
        decisions
            .insert((ExecutionId(row.try_get("execution_id")?), LeaseId(row.try_get("lease_id")?)), found);
    }
    Ok(decisions)
}

/// The tenants whose limits have room again.
fn limited(rows: &[Row]) -> Result<Vec<Uuid>, Error> {
    let tenants: Result<Vec<Option<Uuid>>, _> =
        rows.iter().map(|row| row.try_get("limited_tenant")).collect();
    Ok(tenants?.into_iter().flatten().collect())
}

fn decision(row: &Row) -> Result<ResultResponse, Error> {
    Ok(ResultResponse {
        status: status(row.try_get("status")?)?,
        attempt: row.try_get("attempt")?,
        next_attempt_at: row.try_get("next_attempt_at")?,
    })
}
