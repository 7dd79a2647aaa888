//! Who we are to AWS: the environment's keys (Lambda), or what the container's own address tells (ECS, EKS Pod Identity).

use super::{Error, http, setting};
use aws_credential_types::Credentials;
use hyper::body::Bytes;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

/// Where ECS tells a task its role's credentials.
const ECS: &str = "http://169.254.170.2";
/// What is good for less than this is asked for anew: a token signed with it must outlive a connection's start.
const EARLY: Duration = Duration::from_secs(300);

/// Those of a container, until shortly before they expire.
static KEPT: Mutex<Option<Credentials>> = Mutex::new(None);

/// The credentials that are good now.
pub(super) async fn current() -> Result<Credentials, Error> {
    if let (Some(id), Some(secret)) = (setting("AWS_ACCESS_KEY_ID"), setting("AWS_SECRET_ACCESS_KEY")) {
        return Ok(Credentials::new(id, secret, setting("AWS_SESSION_TOKEN"), None, "environment"));
    }
    let fresh_until = crate::wall_clock() + EARLY;
    let kept = KEPT.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
    if let Some(kept) = kept.filter(|kept| kept.expiry().is_some_and(|expiry| expiry > fresh_until)) {
        return Ok(kept);
    }
    let told = of_container().await?;
    *KEPT.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(told.clone());
    Ok(told)
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Told {
    access_key_id: String,
    secret_access_key: String,
    token: Option<String>,
    expiration: Option<jiff::Timestamp>,
}

async fn of_container() -> Result<Credentials, Error> {
    let url = match setting("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") {
        Some(path) => format!("{ECS}{path}"),
        None => setting("AWS_CONTAINER_CREDENTIALS_FULL_URI").ok_or_else(|| {
            let where_from =
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_CONTAINER_CREDENTIALS_FULL_URI";
            Error::Setup(format!("no credentials: {where_from} must be set"))
        })?,
    };
    let mut request = hyper::Request::get(&url);
    let token = match setting("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") {
        Some(path) => Some(std::fs::read_to_string(&path).map_err(|error| Error::away(&path, error))?),
        None => setting("AWS_CONTAINER_AUTHORIZATION_TOKEN"),
    };
    if let Some(token) = token {
        request = request.header("authorization", token.trim());
    }
    let request = request.body(Bytes::new()).map_err(|error| Error::Setup(error.to_string()))?;
    let body = http::send("the container's credentials", request).await?;
    let told: Told =
        serde_json::from_slice(&body).map_err(|error| Error::away("the container's credentials", error))?;
    let expiry = told.expiration.map(SystemTime::from);
    Ok(Credentials::new(told.access_key_id, told.secret_access_key, told.token, expiry, "container"))
}
