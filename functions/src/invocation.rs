//! What surrounds every request: the id it is found by, the end of its invocation, and an answer whatever happens.

use crate::Error;
use axum::extract::Request;
use axum::http::HeaderValue;
use axum::http::uri::{PathAndQuery, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use lambda_http::Context;
use lambda_http::request::RequestContext;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use tracing::Instrument;

/// The header that names a request, in what is asked and in what is answered.
const REQUEST_ID: &str = "x-request-id";
/// The longest name that a caller may give a request.
const REQUEST_ID_BYTES: usize = 128;
/// What the end of an invocation keeps for cancelling a statement and for the answer; at most a quarter of its time.
const RESERVE: Duration = Duration::from_secs(1);

tokio::task_local! {
    /// When what the database does for this invocation must be over.
    static GIVE_UP_AT: Instant;
}

/// When what the database does now must be over, if this is part of an invocation that ends.
pub(crate) fn give_up_at() -> Option<Instant> {
    GIVE_UP_AT.try_with(|at| *at).ok()
}

/// Whether there is no time for anything but the answer.
pub(crate) fn is_over() -> bool {
    give_up_at().is_some_and(|at| at <= Instant::now())
}

/// How an invocation's time is spent: the database until the first, the answer until the second.
fn ends(context: &Context) -> Option<(Instant, Instant)> {
    // One that was over before it began was never set: `cargo lambda` says 1970.
    let left = context.deadline().duration_since(crate::wall_clock()).ok()?;
    let end = Instant::now() + left;
    let reserve = RESERVE.min(left / 4);
    Some((end - reserve, end - reserve / 4))
}

/// Does the work of an event that is no request, and tells the database when the invocation ends.
pub(crate) async fn until_its_end<T>(context: &Context, work: impl Future<Output = T>) -> T {
    match ends(context) {
        Some((give_up_at, _)) => GIVE_UP_AT.scope(give_up_at, work).await,
        None => work.await,
    }
}

/// Gives a request its id, which every line of the log about it and its answer carry, and sees to it that it is answered:
/// before its invocation ends, and also when its handler panics.
pub(crate) async fn surround(request: Request, next: Next) -> Response {
    let context = request.extensions().get::<Context>().cloned();
    let given = request.headers().get(REQUEST_ID).filter(|id| is_acceptable(id)).cloned();
    let id = given.unwrap_or_else(|| {
        let of_lambda = context.as_ref().and_then(|context| HeaderValue::from_str(&context.request_id).ok());
        of_lambda.unwrap_or_else(fresh_id)
    });
    let span = tracing::info_span!(
        "request",
        request_id = id.to_str().unwrap_or_default(),
        lambda_request_id = context.as_ref().map(|context| context.request_id.as_str()),
        method = request.method().as_str(),
        path = request.uri().path(),
    );
    let answering = answer(context.as_ref(), caught(next.run(request)));
    let mut response = answering.instrument(span).await;
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

async fn answer(context: Option<&Context>, work: impl Future<Output = Result<Response, Error>>) -> Response {
    let answered = match context.and_then(ends) {
        None => work.await,
        Some((give_up_at, answer_at)) => {
            let work = GIVE_UP_AT.scope(give_up_at, work);
            timeout_at(answer_at, work).await.unwrap_or(Err(Error::TimedOut))
        }
    };
    answered.unwrap_or_else(Error::into_response)
}

/// Whether a caller's id can go into logs and back to it.
fn is_acceptable(id: &HeaderValue) -> bool {
    let bytes = id.as_bytes();
    (1..=REQUEST_ID_BYTES).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
}

fn fresh_id() -> HeaderValue {
    let id = uuid::Uuid::new_v4().to_string();
    HeaderValue::from_str(&id).unwrap_or(HeaderValue::from_static("none"))
}

/// Turns a panic into an error. What the handler held goes with it: a connection that was in use ends its transaction.
async fn caught<T>(work: impl Future<Output = T>) -> Result<T, Error> {
    let mut work = pin!(work);
    std::future::poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(done)) => Poll::Ready(Ok(done)),
        Err(_) => Poll::Ready(Err(Error::Panicked)),
    })
    .await
}

/// A panic is a line of the log as any other error is, and part of its request.
pub(crate) fn log_panics() {
    std::panic::set_hook(Box::new(|panic| tracing::error!(%panic, "a panic")));
}

/// The request without the name of the stage that API Gateway, or the runtime for it, puts before the path.
pub(crate) fn without_stage<B>(mut request: axum::http::Request<B>) -> axum::http::Request<B> {
    let Some(RequestContext::ApiGatewayV2(context)) = request.extensions().get() else { return request };
    let stage = context.stage.as_deref().filter(|stage| *stage != "$default");
    let Some(bare) = stage.and_then(|stage| bare(request.uri(), stage)) else { return request };
    *request.uri_mut() = bare;
    request
}

/// The address behind this stage, if it is there.
fn bare(uri: &Uri, stage: &str) -> Option<Uri> {
    let rest = uri.path_and_query()?.as_str().strip_prefix('/')?.strip_prefix(stage)?;
    let rest = match rest.chars().next() {
        Some('/') => rest.to_owned(),
        None | Some('?') => format!("/{rest}"),
        Some(_) => return None,
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(rest.parse::<PathAndQuery>().ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use super::{bare, surround};
    use axum::body::{Body, to_bytes};
    use axum::extract::{Path, Request};
    use axum::middleware::from_fn;
    use axum::response::Response;
    use axum::routing::get;
    use lambda_http::tower::ServiceExt;

    /// Divides 1 by the number of the path, and names the request so.
    async fn ask(number: &str, id: &[u8]) -> Response {
        let divide = async |Path(number): Path<u32>| 1_u32.checked_div(number).expect("a number").to_string();
        let service = axum::Router::new().route("/{number}", get(divide)).layer(from_fn(surround));
        let request = Request::get(format!("/{number}")).header("x-request-id", id).body(Body::empty());
        service.oneshot(request.unwrap()).await.unwrap()
    }

    #[tokio::test]
    async fn a_panic_is_a_problem_document_and_the_next_request_is_served() {
        let answer = ask("0", b"mine").await;
        assert_eq!(answer.status(), 500);
        assert_eq!(answer.headers()["x-request-id"], "mine");
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
        let body = to_bytes(answer.into_body(), 1_000).await.unwrap();
        let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((problem["code"].as_str(), problem["status"].as_u64()), (Some("internal"), Some(500)));
        assert_eq!(ask("1", b"mine").await.status(), 200);
    }

    #[tokio::test]
    async fn a_callers_id_is_kept_if_it_is_short_and_visible_and_replaced_otherwise() {
        assert_eq!(ask("1", &[b'x'; 128]).await.headers()["x-request-id"].as_bytes(), [b'x'; 128]);
        for bad in [b"".as_slice(), b"two words", b"\xff", &[b'x'; 129]] {
            let answer = ask("1", bad).await;
            let id = answer.headers()["x-request-id"].to_str().unwrap();
            assert!(uuid::Uuid::try_parse(id).is_ok(), "{id}");
        }
    }

    #[test]
    fn a_stage_is_taken_off_only_where_it_is_the_first_part_of_the_path() {
        let bare = |uri: &str| bare(&uri.parse().unwrap(), "prod").map(|uri| uri.to_string());
        assert_eq!(bare("https://host/prod/jobs?limit=1").as_deref(), Some("https://host/jobs?limit=1"));
        assert_eq!(bare("https://host/prod").as_deref(), Some("https://host/"));
        assert_eq!(bare("https://host/production/jobs"), None);
        assert_eq!(bare("https://host/jobs/prod"), None);
    }
}
