//! `/tenants`, their keys, and `/tenant`: who may ask for executions, and how many.

use crate::error::taken;
use crate::housekeeping::admit;
use crate::request::{Admin, Checked, Id, Ids, PageOf, Params, TenantKey, TokenHash, missing};
use crate::rows::{items, priority};
use crate::{App, Error};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jobplane_protocol::{
    CreateKey, CreateTenant, CreatedKey, CreatedTenant, Key, KeyId, KeyPage, PageQuery, Tenant, TenantId,
    TenantPage, TenantSelf, TokenKind, UpdateTenant, limits,
};
use tokio_postgres::Row;
use uuid::Uuid;

const CREATE: &str = include_str!("../store/tenant_create.sql");
const TENANTS: &str = include_str!("../store/tenants.sql");
const UPDATE: &str = include_str!("../store/tenant_update.sql");
const TENANT: &str = include_str!("../store/tenant.sql");
const KEY_CREATE: &str = include_str!("../store/key_create.sql");
const KEYS: &str = include_str!("../store/keys.sql");
const KEY_REVOKE: &str = include_str!("../store/key_revoke.sql");

/// Makes a tenant and its first key.
pub(crate) async fn create(
    State(app): State<App>,
    _: Admin,
    Checked { value: request, .. }: Checked<CreateTenant>,
) -> Result<(StatusCode, Json<CreatedTenant>), Error> {
    let key = app.mint(TokenKind::Tenant);
    let row = app
        .db
        .row(
            CREATE,
            &[
                &request.name,
                &request.weight.unwrap_or(1),
                &request.max_priority.map_or(100, i16::from),
                &request.max_running,
                &request.rate_limit_per_second,
                &TokenHash::of(&key).bytes(),
            ],
        )
        .await
        .map_err(taken("tenant_name", "a tenant"))?
        .ok_or_else(|| Error::Stored("a new tenant without an id".to_owned()))?;
    let tenant_id = TenantId(row.try_get("id")?);
    Ok((
        StatusCode::CREATED,
        Json(CreatedTenant { tenant_id, name: request.name, api_key: key.reveal().to_owned() }),
    ))
}

fn tenant(row: &Row) -> Result<Tenant, Error> {
    Ok(Tenant {
        id: TenantId(row.try_get("id")?),
        name: row.try_get("name")?,
        weight: row.try_get("weight")?,
        max_priority: priority(row.try_get("max_priority")?)?,
        max_running: row.try_get("max_running")?,
        rate_limit_per_second: row.try_get("rate_limit_per_second")?,
        created_at: row.try_get("created_at")?,
    })
}

/// A page of tenants.
pub(crate) async fn tenants(
    State(app): State<App>,
    _: Admin,
    Params(query): Params<PageQuery>,
) -> Result<Json<TenantPage>, Error> {
    let page = PageOf::<Uuid>::of(&query)?;
    let rows = app.db.rows(TENANTS, &[&None::<Uuid>, &page.cursor, &page.limit]).await?;
    let items = rows.iter().map(tenant).collect::<Result<Vec<_>, _>>()?;
    Ok(Json(page.page(items, |last| last.id.to_string())))
}

/// One tenant.
pub(crate) async fn get(
    State(app): State<App>,
    _: Admin,
    Id(id): Id<TenantId>,
) -> Result<Json<Tenant>, Error> {
    let row = app.db.row(TENANTS, &[&Some(id.0), &None::<Uuid>, &1_i64]).await?;
    tenant(&row.ok_or_else(missing::<TenantId>)?).map(Json)
}

/// Changes a tenant.
pub(crate) async fn update(
    State(app): State<App>,
    _: Admin,
    Id(id): Id<TenantId>,
    Checked { value: request, .. }: Checked<UpdateTenant>,
) -> Result<Json<Tenant>, Error> {
    let row = app
        .db
        .row(
            UPDATE,
            &[
                &id.0,
                &request.name,
                &request.weight,
                &request.max_priority.map(i16::from),
                &request.max_running.is_some(),
                &request.max_running.flatten(),
                &request.rate_limit_per_second.is_some(),
                &request.rate_limit_per_second.flatten(),
            ],
        )
        .await
        .map_err(taken("tenant_name", "a tenant"))?
        .ok_or_else(missing::<TenantId>)?;
    if request.max_running.is_some() {
        admit(&app, vec![id.0]).await;
    }
    tenant(&row).map(Json)
}

/// The caller itself, its limits and how busy it is.
pub(crate) async fn whoami(
    State(app): State<App>,
    TenantKey(token): TenantKey,
) -> Result<Json<TenantSelf>, Error> {
    let counted = i32::try_from(limits::MAX_COUNTED).unwrap_or(i32::MAX);
    let row = app.db.row(TENANT, &[&token.bytes(), &counted]).await?.ok_or_else(Error::unauthorized)?;
    let counts = [row.try_get("running")?, row.try_get("waiting")?, row.try_get("delayed")?];
    let [running, waiting, delayed] = counts.map(|count: i64| count.min(limits::MAX_COUNTED));
    let exact = counts.iter().all(|count| *count <= limits::MAX_COUNTED);
    Ok(Json(TenantSelf { tenant: tenant(&row)?, running, waiting, delayed, exact }))
}

/// Makes a key.
pub(crate) async fn create_key(
    State(app): State<App>,
    _: Admin,
    Id(id): Id<TenantId>,
    Checked { value: request, .. }: Checked<CreateKey>,
) -> Result<(StatusCode, Json<CreatedKey>), Error> {
    let key = app.mint(TokenKind::Tenant);
    let hash = TokenHash::of(&key);
    let binds: [&dyn crate::store::Bind; 4] = [&id.0, &request.name, &hash.bytes(), &request.expires_at];
    let row = app.db.row(KEY_CREATE, &binds).await?.ok_or_else(missing::<TenantId>)?;
    let id = KeyId(row.try_get("id")?);
    Ok((StatusCode::CREATED, Json(CreatedKey { id, name: request.name, api_key: key.reveal().to_owned() })))
}

/// A page of a tenant's keys.
pub(crate) async fn keys(
    State(app): State<App>,
    _: Admin,
    Id(id): Id<TenantId>,
    Params(query): Params<PageQuery>,
) -> Result<Json<KeyPage>, Error> {
    let page = PageOf::<Uuid>::of(&query)?;
    let rows = app.db.rows(KEYS, &[&id.0, &page.cursor, &page.limit]).await?;
    if rows.is_empty() {
        return Err(missing::<TenantId>());
    }
    let items = items(&rows, |row| {
        Ok(Key {
            id: KeyId(row.try_get("id")?),
            name: row.try_get("name")?,
            created_at: row.try_get("created_at")?,
            expires_at: row.try_get("expires_at")?,
        })
    })?;
    Ok(Json(page.page(items, |last| last.id.to_string())))
}

/// Revokes a key.
pub(crate) async fn revoke_key(
    State(app): State<App>,
    _: Admin,
    Ids(tenant, key): Ids<TenantId, KeyId>,
) -> Result<StatusCode, Error> {
    let row = app.db.row(KEY_REVOKE, &[&tenant.0, &key.0]).await?;
    row.map(|_| StatusCode::NO_CONTENT).ok_or_else(missing::<KeyId>)
}
