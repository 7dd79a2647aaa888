//! `/healthz` and `/readyz`: whether the process is there, and whether it could serve.

use crate::{App, Error, migrations};
use axum::Json;
use axum::extract::State;
use jobplane_protocol::{ErrorCode, Health, Readiness};

pub(crate) const APPLIED: &str = include_str!("../store/health.sql");

/// The process is there.
pub(crate) async fn healthz() -> Json<Health> {
    Json(Health { status: "ok".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() })
}

/// The database is there, with the schema that this build wants. A newer one is fine: migrations only expand.
pub(crate) async fn readyz(State(app): State<App>) -> Result<Json<Readiness>, Error> {
    let schema_version = migrations::applied(&app.db).await.map_err(|error| {
        tracing::warn!(cause = %error, "not ready");
        Error::refused(ErrorCode::Unavailable, "the database is away, or was never migrated")
    })?;
    if schema_version < migrations::schema_version() {
        let detail =
            format!("the schema is at {schema_version}, this build wants {}", migrations::schema_version());
        return Err(Error::refused(ErrorCode::Unavailable, detail));
    }
    Ok(Json(Readiness { status: "ok".to_owned(), schema_version }))
}
