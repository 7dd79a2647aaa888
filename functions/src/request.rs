//! What handlers take from a request: who calls, the checked body, the query, the ids in the path.

use crate::{App, Error};
use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::{HeaderMap, header, request::Parts};
use jobplane_protocol::{
    Check, Checks, ErrorCode, ExecutionId, JobId, Json, KeyId, LeaseId, Page, PageQuery, TenantId, Token,
    TokenId, TokenKind, limits,
};
use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};
use std::str::FromStr;

/// What is kept of a token: statements look callers up by it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct TokenHash([u8; 32]);

impl TokenHash {
    /// The hash of a token. It has 256 random bits, so a plain SHA-256 cannot be guessed back.
    pub(crate) fn of(token: &Token) -> Self {
        Self(Sha256::digest(token.reveal()).into())
    }

    /// The bytes, as a statement wants them.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A tenant's key. Whether it is good is for the statement to say, which starts from it.
pub(crate) struct TenantKey(pub(crate) TokenHash);

/// A worker token. Whether it is good is for the statement to say, which starts from it.
pub(crate) struct WorkerToken(pub(crate) TokenHash);

/// The operator, checked against the configured token.
pub(crate) struct Admin;

/// The operator (`None`) or a worker.
pub(crate) struct AdminOrWorker(pub(crate) Option<TokenHash>);

/// The token of a request, if it is of one of these kinds.
fn token(headers: &HeaderMap, kinds: &[TokenKind]) -> Result<Token, Error> {
    let text = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let (scheme, token) = text.and_then(|text| text.split_once(' ')).ok_or_else(Error::unauthorized)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Error::unauthorized());
    }
    let token = Token::parse(token.trim()).ok_or_else(Error::unauthorized)?;
    if kinds.contains(&token.kind()) {
        return Ok(token);
    }
    let wanted: Vec<_> = kinds.iter().map(|kind| format!("{}…", kind.prefix())).collect();
    let detail = format!("this route wants a token that begins with {}", wanted.join(" or "));
    Err(Error::refused(ErrorCode::WrongTokenKind, detail))
}

impl FromRequestParts<App> for TenantKey {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Error> {
        Ok(Self(TokenHash::of(&token(&parts.headers, &[TokenKind::Tenant])?)))
    }
}

impl FromRequestParts<App> for WorkerToken {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Error> {
        Ok(Self(TokenHash::of(&token(&parts.headers, &[TokenKind::Worker])?)))
    }
}

impl FromRequestParts<App> for Admin {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Error> {
        app.operator.check(&token(&parts.headers, &[TokenKind::Admin])?).await?;
        Ok(Self)
    }
}

impl FromRequestParts<App> for AdminOrWorker {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Error> {
        let token = token(&parts.headers, &[TokenKind::Admin, TokenKind::Worker])?;
        match token.kind() {
            TokenKind::Admin => app.operator.check(&token).await.map(|()| Self(None)),
            _ => Ok(Self(Some(TokenHash::of(&token)))),
        }
    }
}

/// A JSON body whose types are right, every unknown or missing field named.
pub(crate) struct Body<T> {
    pub(crate) value: T,
    pub(crate) bytes: Bytes,
}

/// A JSON body that is also acceptable as its type's `Check` has it.
pub(crate) struct Checked<T> {
    pub(crate) value: T,
    pub(crate) bytes: Bytes,
}

/// Reads a JSON object. A bad one is refused with the path of the field and the reason.
pub(crate) fn parse<T: DeserializeOwned>(text: &str) -> Result<T, Error> {
    // A list would be read as an object's fields in their order, and nobody means that.
    if text.trim_ascii_start().starts_with('[') {
        return Err(Error::field("", "must be an object, not a list"));
    }
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let field = error.path().to_string();
        let inner = error.into_inner();
        match inner.classify() {
            serde_json::error::Category::Data => Error::field(field, inner.to_string()),
            _ => Error::refused(ErrorCode::InvalidJson, format!("the body is not JSON: {inner}")),
        }
    })?;
    reader
        .end()
        .map_err(|error| Error::refused(ErrorCode::InvalidJson, format!("the body is not JSON: {error}")))?;
    Ok(value)
}

/// The two ids of a batch's item that is not acceptable, as far as they can be read.
pub(crate) fn named(json: &Json) -> (Option<ExecutionId>, Option<LeaseId>) {
    #[derive(Default, serde::Deserialize)]
    #[serde(default)]
    struct Named {
        execution_id: Option<Json>,
        lease_id: Option<Json>,
    }
    fn id<T: DeserializeOwned>(json: Option<Json>) -> Option<T> {
        serde_json::from_str(json?.get()).ok()
    }
    // A list would be read as the fields in their order.
    let object = Some(json.get()).filter(|text| text.starts_with('{'));
    let Named { execution_id, lease_id } =
        object.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    (id(execution_id), id(lease_id))
}

/// Says no with every field that is not acceptable.
pub(crate) fn check(request: &impl Check) -> Result<(), Error> {
    Checks::of(request).map_err(|(code, errors)| Error::fields(code, errors))
}

impl<T: DeserializeOwned> FromRequest<App> for Body<T> {
    type Rejection = Error;

    async fn from_request(request: Request, _: &App) -> Result<Self, Error> {
        let bytes = body(request).await?;
        let text = std::str::from_utf8(&bytes).map_err(|error| {
            Error::refused(ErrorCode::InvalidJson, format!("the body is not UTF-8: {error}"))
        })?;
        Ok(Self { value: parse(text)?, bytes })
    }
}

impl<T: DeserializeOwned + Check> FromRequest<App> for Checked<T> {
    type Rejection = Error;

    async fn from_request(request: Request, app: &App) -> Result<Self, Error> {
        let Body { value, bytes } = Body::<T>::from_request(request, app).await?;
        check(&value)?;
        Ok(Self { value, bytes })
    }
}

/// The whole body, within the limit of a request. A somewhat longer one is read before it is refused: many clients
/// write all of it before they look for the answer.
pub(crate) async fn body(request: Request) -> Result<Bytes, Error> {
    match axum::body::to_bytes(request.into_body(), limits::MAX_READ_BYTES).await {
        Ok(bytes) if bytes.len() <= limits::MAX_REQUEST_BYTES => Ok(bytes),
        _ => {
            let detail = format!("a request's body may have {} bytes", limits::MAX_REQUEST_BYTES);
            Err(Error::refused(ErrorCode::RequestTooLarge, detail))
        }
    }
}

/// The query of a request, every unknown parameter named.
pub(crate) struct Params<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequestParts<App> for Params<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Error> {
        let Query(query) = Query::try_from_uri(&parts.uri).map_err(|error| {
            Error::field(
                "query",
                std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string),
            )
        })?;
        Ok(Self(query))
    }
}

/// Where a page begins and how long it is.
pub(crate) struct PageOf<C> {
    pub(crate) cursor: Option<C>,
    pub(crate) limit: i64,
}

impl<C: FromStr> PageOf<C> {
    /// Reads the two parameters that every list has.
    pub(crate) fn read(limit: Option<u32>, cursor: Option<&str>) -> Result<Self, Error> {
        let limit = limit.unwrap_or(limits::DEFAULT_PAGE);
        if limit == 0 || limit > limits::MAX_PAGE {
            return Err(Error::field("limit", format!("{limit} is not within 1 to {}", limits::MAX_PAGE)));
        }
        let cursor = cursor
            .map(|text| text.parse().map_err(|_| Error::field("cursor", "is not a next_cursor of this list")))
            .transpose()?;
        Ok(Self { cursor, limit: i64::from(limit) })
    }

    /// Reads the query of a plain list.
    pub(crate) fn of(query: &PageQuery) -> Result<Self, Error> {
        Self::read(query.limit, query.cursor.as_deref())
    }
}

impl<C> PageOf<C> {
    /// The page that these items are, as far as an answer can bear them. A full one, and one that was cut, may have
    /// another after it, which begins behind its last item.
    pub(crate) fn page<T: Serialize>(&self, mut items: Vec<T>, place: impl Fn(&T) -> String) -> Page<T> {
        let full = i64::try_from(items.len()) == Ok(self.limit);
        let mut bytes = 0_usize;
        let fits = items.iter().take_while(|item| {
            bytes = bytes.saturating_add(serde_json::to_vec(item).map_or(usize::MAX, |text| text.len()));
            bytes <= limits::MAX_PAGE_BYTES
        });
        let fits = fits.count().max(1);
        let cut = fits < items.len();
        items.truncate(fits);
        let next_cursor = items.last().filter(|_| full || cut).map(place);
        Page { items, next_cursor }
    }
}

/// An id, and what to answer when nothing has it.
pub(crate) trait Named: FromStr + Send {
    const MISSING: ErrorCode;
    const WHAT: &'static str;
}

impl Named for ExecutionId {
    const MISSING: ErrorCode = ErrorCode::ExecutionNotFound;
    const WHAT: &'static str = "execution";
}

impl Named for JobId {
    const MISSING: ErrorCode = ErrorCode::JobNotFound;
    const WHAT: &'static str = "job";
}

impl Named for TenantId {
    const MISSING: ErrorCode = ErrorCode::TenantNotFound;
    const WHAT: &'static str = "tenant";
}

impl Named for KeyId {
    const MISSING: ErrorCode = ErrorCode::KeyNotFound;
    const WHAT: &'static str = "key";
}

impl Named for TokenId {
    const MISSING: ErrorCode = ErrorCode::TokenNotFound;
    const WHAT: &'static str = "worker token";
}

/// A queue's name, as it stands in a path.
pub(crate) struct QueueName(pub(crate) String);

impl FromStr for QueueName {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl Named for QueueName {
    const MISSING: ErrorCode = ErrorCode::QueueNotFound;
    const WHAT: &'static str = "queue";
}

/// There is nothing of that id that the caller may see.
pub(crate) fn missing<T: Named>() -> Error {
    Error::refused(T::MISSING, format!("there is no such {}", T::WHAT))
}

/// The id in the path; one that is not even an id names nothing.
pub(crate) struct Id<T>(pub(crate) T);

impl<T: Named> FromRequestParts<App> for Id<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Error> {
        let Path(text) = Path::<String>::from_request_parts(parts, app).await.map_err(|_| missing::<T>())?;
        text.parse().map(Self).map_err(|_| missing::<T>())
    }
}

/// The two ids in the path.
pub(crate) struct Ids<T, U>(pub(crate) T, pub(crate) U);

impl<T: Named, U: Named> FromRequestParts<App> for Ids<T, U> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Error> {
        let Path((first, second)) =
            Path::<(String, String)>::from_request_parts(parts, app).await.map_err(|_| missing::<T>())?;
        Ok(Self(first.parse().map_err(|_| missing::<T>())?, second.parse().map_err(|_| missing::<U>())?))
    }
}

/// The named header, if it is there and is acceptable text.
pub(crate) fn header_text(
    headers: &HeaderMap,
    name: &'static str,
    max_bytes: usize,
) -> Result<Option<String>, Error> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    match value.to_str() {
        Ok(text) if !text.is_empty() && text.len() <= max_bytes => Ok(Some(text.to_owned())),
        _ => Err(Error::field(name, format!("must be 1 to {max_bytes} visible ASCII characters"))),
    }
}
