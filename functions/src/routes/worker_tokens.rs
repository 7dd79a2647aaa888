//! `/worker-tokens`: which fleets may take work, and whose.

use crate::request::{Admin, Checked, Id, PageOf, Params, TokenHash, missing};
use crate::{App, Error};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jobplane_protocol::{
    CreateWorkerToken, CreatedWorkerToken, PageQuery, TenantId, TokenId, TokenKind, WorkerToken,
    WorkerTokenPage,
};
use tokio_postgres::Row;
use uuid::Uuid;

const CREATE: &str = include_str!("../store/worker_token_create.sql");
const TOKENS: &str = include_str!("../store/worker_tokens.sql");
const REVOKE: &str = include_str!("../store/worker_token_revoke.sql");

/// Makes a worker token.
pub(crate) async fn create(
    State(app): State<App>,
    _: Admin,
    Checked { value: request, .. }: Checked<CreateWorkerToken>,
) -> Result<(StatusCode, Json<CreatedWorkerToken>), Error> {
    let token = app.mint(TokenKind::Worker);
    let hash = TokenHash::of(&token);
    let tenants: Option<Vec<_>> = request.tenant_ids.map(|ids| ids.iter().map(|id| id.0).collect());
    let binds: [&dyn crate::store::Bind; 5] =
        [&request.name, &hash.bytes(), &request.queues, &tenants, &request.expires_at];
    let row = app
        .db
        .row(CREATE, &binds)
        .await?
        .ok_or_else(|| Error::Stored("a new token without an id".to_owned()))?;
    let token_id = TokenId(row.try_get("id")?);
    let created = CreatedWorkerToken { token_id, name: request.name, token: token.reveal().to_owned() };
    Ok((StatusCode::CREATED, Json(created)))
}

/// A page of worker tokens.
pub(crate) async fn worker_tokens(
    State(app): State<App>,
    _: Admin,
    Params(query): Params<PageQuery>,
) -> Result<Json<WorkerTokenPage>, Error> {
    let page = PageOf::<Uuid>::of(&query)?;
    let rows = app.db.rows(TOKENS, &[&page.cursor, &page.limit]).await?;
    let items = rows.iter().map(worker_token).collect::<Result<Vec<_>, _>>()?;
    Ok(Json(page.page(items, |last| last.id.to_string())))
}

fn worker_token(row: &Row) -> Result<WorkerToken, Error> {
    let tenants: Option<Vec<Uuid>> = row.try_get("tenant_ids")?;
    Ok(WorkerToken {
        id: TokenId(row.try_get("id")?),
        name: row.try_get("name")?,
        queues: row.try_get("queues")?,
        tenant_ids: tenants.map(|ids| ids.into_iter().map(TenantId).collect()),
        created_at: row.try_get("created_at")?,
        expires_at: row.try_get("expires_at")?,
    })
}

/// Revokes a worker token.
pub(crate) async fn revoke(
    State(app): State<App>,
    _: Admin,
    Id(id): Id<TokenId>,
) -> Result<StatusCode, Error> {
    let row = app.db.row(REVOKE, &[&id.0]).await?;
    row.map(|_| StatusCode::NO_CONTENT).ok_or_else(missing::<TokenId>)
}
