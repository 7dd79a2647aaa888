//! The client against a server that fails in every way it can.

use crate::stub::{Reply, Stub};
use crate::{Client, Credential, Error, RetryPolicy};
use jobplane_protocol::{ErrorCode, Problem};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Retries without waits, and with a deadline that no test reaches.
const EAGER: RetryPolicy = RetryPolicy {
    attempt_timeout: Duration::from_secs(30),
    deadline: Duration::from_secs(60),
    base: Duration::ZERO,
    cap: Duration::ZERO,
};

fn client(stub: &Stub) -> Client {
    Client::with_policy(&stub.url, Credential::Value("jp_worker_secret".to_owned()), EAGER).unwrap()
}

/// A server that answers with these, one after the other; the last stays.
async fn serving(replies: Vec<Reply>) -> Stub {
    let served = AtomicUsize::new(0);
    let last = replies.len() - 1;
    Stub::serve(move |_| replies[served.fetch_add(1, Ordering::Relaxed).min(last)].clone()).await
}

fn good() -> Reply {
    Reply::json(200, &json!({ "good": true }))
}

#[tokio::test]
async fn what_passes_is_retried_until_it_is_answered() {
    let stub = serving(vec![
        Reply::lost(),
        Reply::json(503, &Problem::new(ErrorCode::Unavailable, "away")).header("retry-after", "0"),
        Reply::json(500, &Problem::new(ErrorCode::Internal, "oops")),
        Reply::text(429, r#"{"message":"Too Many Requests"}"#),
        Reply::text(503, r#"{"message":"Service Unavailable"}"#),
        Reply::text(502, "<html>"),
        good(),
    ])
    .await;
    let answer: Value = client(&stub).post("/x").json(&json!({ "a": 1 })).send().await.unwrap();
    assert_eq!(answer, json!({ "good": true }));
    let asked = stub.asked("/x");
    assert_eq!(asked.len(), 7);
    assert!(asked.iter().all(|asked| asked.body == json!({ "a": 1 })), "each attempt sends the whole");
    assert!(asked.iter().all(|asked| asked.headers["authorization"] == "Bearer jp_worker_secret"));
}

#[tokio::test]
async fn a_refusal_is_final_and_keeps_its_code() {
    let stub = serving(vec![Reply::json(409, &Problem::new(ErrorCode::LeaseLost, "moved on"))]).await;
    let error = client(&stub).put("/x").send::<Value>().await.unwrap_err();
    assert_eq!((error.code(), error.status()), (Some(ErrorCode::LeaseLost), Some(409)));
    assert_eq!(stub.asked("/x").len(), 1);
}

#[tokio::test]
async fn a_gateways_own_refusal_is_told_apart() {
    let stub = serving(vec![Reply::text(413, r#"{"message":"Request Too Long"}"#)]).await;
    let error = client(&stub).post("/x").send::<Value>().await.unwrap_err();
    assert!(matches!(&error, Error::Gateway { status: 413, excerpt, .. } if excerpt.contains("Too Long")));
    assert_eq!(stub.asked("/x").len(), 1);
}

#[tokio::test]
async fn a_wait_beyond_the_deadline_is_handed_to_the_caller() {
    let stub = serving(vec![Reply::text(503, "").header("retry-after", "3600")]).await;
    let error = client(&stub).get("/x").send::<Value>().await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { attempts: 1, .. }));
    assert_eq!(error.retry_after(), Duration::from_secs(3600));
}

#[tokio::test]
async fn a_wait_beyond_all_time_is_handed_to_the_caller_too_and_the_agent_cuts_it_short() {
    let stub = serving(vec![Reply::text(503, "").header("retry-after", u64::MAX.to_string())]).await;
    let error = client(&stub).get("/x").send::<Value>().await.unwrap_err();
    assert_eq!(error.retry_after(), Duration::from_secs(u64::MAX));
    assert_eq!(error.pause(), Duration::from_secs(60));
}

#[tokio::test]
async fn an_empty_budget_leaves_each_call_one_attempt() {
    let stub = serving(vec![Reply::text(503, "")]).await;
    let client = client(&stub);
    let first = client.get("/x").send::<Value>().await.unwrap_err();
    assert!(matches!(first, Error::Unavailable { attempts: 101, .. }), "{first}");
    let second = client.clone().get("/x").send::<Value>().await.unwrap_err();
    assert!(matches!(second, Error::Unavailable { attempts: 1, .. }), "{second}");
}

#[tokio::test]
async fn an_unrepeatable_call_is_not_sent_again_once_it_may_have_arrived() {
    for reply in [Reply::text(503, ""), Reply::lost()] {
        let stub = serving(vec![reply, good()]).await;
        let error = client(&stub).post("/x").unrepeatable().send::<Value>().await.unwrap_err();
        assert!(matches!(error, Error::Unavailable { attempts: 1, may_have_arrived: true, .. }), "{error}");
    }
    let stub = serving(vec![Reply::text(429, ""), good()]).await;
    client(&stub).post("/x").unrepeatable().send::<Value>().await.unwrap();
}

#[tokio::test]
async fn a_call_that_found_no_server_surely_did_not_arrive() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let client = Client::with_policy(&format!("http://{free}"), Credential::None, EAGER).unwrap();
    let error = client.post("/x").unrepeatable().send::<Value>().await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { attempts: 101, may_have_arrived: false, .. }), "{error}");
}

#[tokio::test]
async fn a_token_file_is_read_again_when_its_token_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "old\n").unwrap();
    let path = file.path().to_owned();
    let stub = Stub::serve(move |asked| {
        if asked.headers["authorization"] == "Bearer new" {
            return good();
        }
        std::fs::write(&path, "new\n").unwrap();
        Reply::json(401, &Problem::new(ErrorCode::Unauthorized, "who?"))
    })
    .await;
    let client = Client::with_policy(&stub.url, Credential::File(file.path().to_owned()), EAGER).unwrap();
    client.get("/x").send::<Value>().await.unwrap();
    client.get("/x").send::<Value>().await.unwrap();
    assert_eq!(stub.asked("/x").len(), 3, "the new token stays");
}

#[tokio::test]
async fn a_token_that_stays_refused_is_tried_no_more() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "old").unwrap();
    let stub = serving(vec![Reply::json(401, &Problem::new(ErrorCode::Unauthorized, "who?"))]).await;
    let client = Client::with_policy(&stub.url, Credential::File(file.path().to_owned()), EAGER).unwrap();
    assert_eq!(client.get("/x").send::<Value>().await.unwrap_err().status(), Some(401));
    assert_eq!(stub.asked("/x").len(), 1);
}

#[tokio::test]
async fn an_answer_of_another_shape_is_a_decode_error() {
    let stub = serving(vec![good()]).await;
    let error = client(&stub).get("/x").send::<Vec<u8>>().await.unwrap_err();
    assert!(matches!(error, Error::Decode { .. }));
    client(&stub).get("/x").send_raw().await.unwrap();
}

#[tokio::test]
async fn no_token_is_ever_shown() {
    let stub = serving(vec![Reply::json(401, &Problem::new(ErrorCode::Unauthorized, "who?"))]).await;
    let client = client(&stub);
    let error = client.get("/x").send::<Value>().await.unwrap_err();
    let credential = Credential::Value("jp_worker_secret".to_owned());
    assert!(!format!("{client:?} {error:?} {error} {credential:?}").contains("secret"));
}
