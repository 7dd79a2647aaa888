//! `PUT /internal/executions/{id}/heartbeat` and its batch: a worker is still at it, and hears of cancels.

use crate::request::{Body, Checked, Id, TokenHash, WorkerToken, check, named, parse};
use crate::routes::result::{batch_size, decided_before, refused};
use crate::{App, Error};
use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use jobplane_protocol as protocol;
use protocol::{
    ErrorCode, ExecutionId, HeartbeatItem, HeartbeatRequest, HeartbeatResponse, HeartbeatResult,
    HeartbeatsResponse, LeaseId, LeaseState,
};
use std::collections::HashMap;
use uuid::Uuid;

const HEARTBEAT: &str = include_str!("../store/heartbeat.sql");

/// Renews one lease.
pub(crate) async fn heartbeat(
    State(app): State<App>,
    WorkerToken(token): WorkerToken,
    Id(id): Id<ExecutionId>,
    Checked { value: request, .. }: Checked<HeartbeatRequest>,
) -> Result<Json<HeartbeatResponse>, Error> {
    let progress = request.progress.as_ref().map(|json| json.get());
    let renewed = renew(&app, &token, &[(id, request.lease_id, progress)]).await?;
    match renewed.leases.get(&(id, request.lease_id)) {
        Some(lease) => Ok(Json(HeartbeatResponse {
            lease_expires_at: lease.expires_at,
            cancel_requested: lease.cancel_requested,
        })),
        None => {
            let decisions = decided_before(&app.db, vec![(id.0, request.lease_id.0)]).await?;
            let unknown = matches!(decisions.values().next(), Some(Err(ErrorCode::ExecutionNotFound)));
            Err(refused(if unknown { ErrorCode::ExecutionNotFound } else { ErrorCode::LeaseLost }))
        }
    }
}

/// A batch whose items are read one by one, so that a bad one does not fail its neighbours.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Batch {
    leases: Vec<protocol::Json>,
}

/// Renews many leases.
pub(crate) async fn heartbeats(
    State(app): State<App>,
    WorkerToken(token): WorkerToken,
    Body { value: batch, .. }: Body<Batch>,
) -> Result<Json<HeartbeatsResponse>, Error> {
    batch_size("leases", batch.leases.len())?;
    let items: Vec<_> = batch.leases.iter().map(read).collect();
    let beats: Vec<_> = items.iter().filter_map(|item| item.beat()).collect();
    let renewed = renew(&app, &token, &beats).await?;
    let results = items.iter().map(|item| item.result(&renewed)).collect();
    Ok(Json(HeartbeatsResponse { lease_expires_at: renewed.expires_at, results }))
}

/// An item as far as it could be read. A lease that it names is renewed whatever else is wrong with it: a job does
/// not die of a field.
struct Item {
    id: Option<ExecutionId>,
    lease: Option<LeaseId>,
    progress: Option<protocol::Json>,
    error_code: Option<ErrorCode>,
}

fn read(json: &protocol::Json) -> Item {
    match parse::<HeartbeatItem>(json.get()) {
        Err(error) => {
            let (id, lease) = named(json);
            Item { id, lease, progress: None, error_code: Some(error.problem().0.code) }
        }
        Ok(HeartbeatItem { execution_id, lease_id, progress }) => {
            let request = HeartbeatRequest { lease_id, progress };
            let error_code = check(&request).err().map(|error| error.problem().0.code);
            let progress = request.progress.filter(|_| error_code.is_none());
            Item { id: Some(execution_id), lease: Some(lease_id), progress, error_code }
        }
    }
}

impl Item {
    fn beat(&self) -> Option<(ExecutionId, LeaseId, Option<&str>)> {
        Some((self.id?, self.lease?, self.progress.as_ref().map(|json| json.get())))
    }

    fn result(&self, renewed: &Renewed) -> HeartbeatResult {
        let lease = self.id.zip(self.lease).and_then(|key| renewed.leases.get(&key));
        let state = match lease {
            None => LeaseState::Lost,
            Some(lease) if lease.cancel_requested => LeaseState::CancelRequested,
            Some(_) => LeaseState::Held,
        };
        HeartbeatResult { execution_id: self.id, state, error_code: self.error_code }
    }
}

/// The leases that were renewed.
struct Renewed {
    /// When a lease that is renewed now ends.
    expires_at: Timestamp,
    leases: HashMap<(ExecutionId, LeaseId), Lease>,
}

struct Lease {
    expires_at: Timestamp,
    cancel_requested: bool,
}

async fn renew(
    app: &App,
    token: &TokenHash,
    beats: &[(ExecutionId, LeaseId, Option<&str>)],
) -> Result<Renewed, Error> {
    let ids: Vec<_> = beats.iter().map(|(id, _, _)| id.0).collect();
    let leases: Vec<_> = beats.iter().map(|(_, lease, _)| lease.0).collect();
    let progresses: Vec<_> = beats.iter().map(|(_, _, progress)| *progress).collect();
    let seconds = f64::from(app.lease_seconds);
    let rows = app.db.rows(HEARTBEAT, &[&token.bytes(), &ids, &leases, &progresses, &seconds]).await?;
    let first = rows.first().ok_or_else(Error::unauthorized)?;
    let mut renewed = Renewed { expires_at: first.try_get("lease_expires_at")?, leases: HashMap::new() };
    for row in &rows {
        if let Some(id) = row.try_get::<_, Option<Uuid>>("execution_id")? {
            let lease = Lease {
                expires_at: row.try_get("expires_at")?,
                cancel_requested: row.try_get("cancel_requested")?,
            };
            renewed.leases.insert((ExecutionId(id), LeaseId(row.try_get("lease_id")?)), lease);
        }
    }
    Ok(renewed)
}
