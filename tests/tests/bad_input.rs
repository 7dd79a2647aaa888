//! Bad input of every kind on every route: a 4xx problem document, never a 500, never a half-done change.

use jobplane_functions::routes::{Caller, Route, table};
use jobplane_tests::{Cell, Reply, text};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::Duration;

/// Long enough for any answer; a route that hangs fails the test.
const LIMIT: Duration = Duration::from_secs(60);

fn method(route: &Route) -> Method {
    route.method.as_str().parse().expect("a method")
}

fn token(cell: &Cell, caller: Caller) -> &str {
    match caller {
        Caller::Anyone => "",
        Caller::Admin | Caller::AdminOrWorker => &cell.admin,
        Caller::Tenant => &cell.tenant,
        Caller::Worker => &cell.worker,
    }
}

/// A path of the route with every parameter filled with this.
fn path(route: &Route, parameter: &str) -> String {
    let parts = route.path.split('/').map(|part| if part.starts_with('{') { parameter } else { part });
    parts.collect::<Vec<_>>().join("/")
}

async fn send(cell: &Cell, route: &Route, path: &str, token: &str, body: Option<Vec<u8>>) -> Reply {
    cell.send(cell.request(method(route), path, token, body).timeout(LIMIT)).await
}

/// A refusal is a whole problem document of the 4xx kind.
#[track_caller]
fn assert_refused(reply: &Reply, what: &str) {
    assert!((400..500).contains(&reply.status), "{what}: {} {}", reply.status, reply.body);
    assert_eq!(reply.body["status"], reply.status, "{what}");
    assert_eq!(reply.headers["content-type"], "application/problem+json", "{what}");
    assert!(reply.body["code"].is_string() && reply.body["detail"].is_string(), "{what}: {}", reply.body);
}

/// How many rows each table has.
async fn rows(cell: &Cell) -> Vec<i64> {
    let mut counts = Vec::new();
    for name in [
        "tenants",
        "tenant_keys",
        "worker_tokens",
        "jobs",
        "queues",
        "executions",
        "attempts",
        "log_chunks",
        "ready",
        "delayed",
        "leases",
        "dead_letters",
        "idempotency_keys",
        "dequeues",
    ] {
        counts.push(cell.number(&format!("select count(*) from {name}")).await);
    }
    counts
}

#[tokio::test]
async fn a_bad_body_is_refused_on_every_route_that_takes_one() {
    let cell = Cell::new().await;
    let before = rows(&cell).await;
    let deep = format!("{}1{}", "[".repeat(200_000), "]".repeat(200_000));
    let bodies: Vec<(&str, Vec<u8>)> = vec![
        ("empty", Vec::new()),
        ("not JSON", b"{nonsense".to_vec()),
        ("cut off", br#"{"name": "a"#.to_vec()),
        ("two documents", b"{} {}".to_vec()),
        ("a number", b"17".to_vec()),
        ("a list", b"[]".to_vec()),
        ("null", b"null".to_vec()),
        ("an unknown field", br#"{"no_such_field": 1}"#.to_vec()),
        ("bad UTF-8", b"{\"name\": \"\xff\xfe\"}".to_vec()),
        (
            "a huge number",
            br#"{"limit": 1e400, "max_running": 99999999999999999999, "first_seq": -1e99}"#.to_vec(),
        ),
        ("a name with NUL", br#"{"name": "a\u0000b", "worker_id": "a\u0000b"}"#.to_vec()),
        ("a lone surrogate", br#"{"name": "\ud800", "worker_id": "\ud800"}"#.to_vec()),
        ("nested deep", deep.clone().into_bytes()),
        (
            "a deep input",
            format!(r#"{{"input": {deep}, "progress": {deep}, "result": {deep}, "lines": {deep}}}"#)
                .into_bytes(),
        ),
        ("seven megabytes", vec![b' '; 7_000_000]),
    ];
    let id = uuid::Uuid::now_v7().to_string();
    for route in table().iter().filter(|route| route.takes.is_some()) {
        for (what, body) in &bodies {
            let what = format!("{} {} with {what}", route.method.as_str(), route.path);
            let reply =
                send(&cell, route, &path(route, &id), token(&cell, route.caller), Some(body.clone())).await;
            assert_refused(&reply, &what);
        }
    }
    assert_eq!(rows(&cell).await, before);
}

#[tokio::test]
async fn a_malformed_id_or_path_is_refused_on_every_route() {
    let cell = Cell::new().await;
    let before = rows(&cell).await;
    let long = "a".repeat(5000);
    let parameters = [
        "nonsense",
        "%00",
        "%ff",
        "..%2f..%2ftenants",
        "%2e%2e",
        "'; drop table jobs; --".replace(' ', "%20").leak(),
        &long,
        "00000000-0000-0000-0000-00000000000g",
        "-1",
    ];
    for route in table().iter().filter(|route| route.path.contains('{')) {
        let body = route.takes.map(|_| b"{}".to_vec());
        for parameter in parameters {
            let what = format!("{} {} with {parameter:.40}", route.method.as_str(), route.path);
            let reply =
                send(&cell, route, &path(route, parameter), token(&cell, route.caller), body.clone()).await;
            assert_refused(&reply, &what);
        }
    }
    for path in [
        "/",
        "//",
        "/jobs/",
        "//jobs",
        "/executions/../tenants",
        "/JOBS",
        "/jobs%2f",
        "/internal",
        "/executions//logs",
    ] {
        assert_refused(&cell.get(path, &cell.tenant).await, path);
    }
    assert_eq!(rows(&cell).await, before);
}

#[tokio::test]
async fn a_bad_token_is_refused_on_every_route_before_anything_else() {
    let cell = Cell::new().await;
    let before = rows(&cell).await;
    let id = uuid::Uuid::now_v7().to_string();
    let unknown = |kind: &str| format!("{kind}test_{}", "0".repeat(64));
    let [admin, tenant, worker] = ["jp_admin_", "jp_key_", "jp_worker_"].map(unknown);
    for route in table().iter().filter(|route| route.caller != Caller::Anyone) {
        let what = format!("{} {}", route.method.as_str(), route.path);
        let call = |token: String| {
            let (cell, id) = (&cell, &id);
            async move {
                send(cell, route, &path(route, id), &token, route.takes.map(|_| b"nonsense".to_vec())).await
            }
        };
        for bad in ["", "nonsense", "jp_key_", "jp_admin_test_zz"] {
            assert_eq!(call(bad.to_owned()).await.status, 401, "{what} with {bad:?}");
        }
        let right: &[&String] = match route.caller {
            Caller::Anyone => &[],
            Caller::Admin => &[&admin],
            Caller::AdminOrWorker => &[&admin, &worker],
            Caller::Tenant => &[&tenant],
            Caller::Worker => &[&worker],
        };
        for other in [&admin, &tenant, &worker] {
            let reply = call(other.clone()).await;
            if !right.contains(&other) {
                assert_eq!(reply.status, 403, "{what} with a token of another kind");
            } else if other == &admin {
                assert_eq!(reply.status, 401, "{what} with an unknown admin token");
            }
        }
    }
    assert_eq!(rows(&cell).await, before);
}

#[tokio::test]
async fn bad_queries_headers_and_methods_are_refused() {
    let cell = Cell::new().await;
    for route in table().iter().filter(|route| route.query.is_some()) {
        let id = cell.tenant_id.clone();
        for query in
            ["limit=0", "limit=-1", "limit=1001", "limit=99999999999999999999", "limit=x", "nonsense=1"]
        {
            let path = format!("{}?{query}", path(route, &id));
            assert_refused(&send(&cell, route, &path, token(&cell, route.caller), None).await, &path);
        }
    }
    for query in
        ["cursor=nonsense", "status=DONE", "job_id=x", "created_after=yesterday", "queue=%00", "cursor=%ff"]
    {
        assert_refused(&cell.get(&format!("/executions?{query}"), &cell.tenant).await, query);
    }
    for time in ["-009999-01-01T00:00:00Z", "9999-12-30T00:00:00Z"] {
        let reply =
            cell.get(&format!("/executions?created_after={time}&created_before={time}"), &cell.tenant).await;
        assert!(reply.status < 500, "{time}: {} {}", reply.status, reply.body);
    }
    let job = cell.new_job(json!({})).await;
    for key in ["", "ü", &"k".repeat(256)] {
        let request =
            cell.request(Method::POST, &format!("/jobs/{job}/run"), &cell.tenant, Some(b"{}".to_vec()));
        let reply = cell.send(request.header("idempotency-key", key.as_bytes())).await;
        assert_refused(&reply, key);
    }
    assert_eq!(
        cell.call(Method::DELETE, "/jobs", &cell.tenant, None).await.refused(405, "method_not_allowed")["status"],
        405
    );
    assert_eq!(cell.number("select count(*) from executions").await, 0);
}

#[tokio::test]
async fn sizes_are_refused_just_beyond_their_limits() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({})).await;
    let run = format!("/jobs/{job}/run");
    let text_of = |bytes: usize| "x".repeat(bytes - 2);
    cell.post(&run, &cell.tenant, json!({"input": text_of(262_144)})).await.ok();
    cell.post(&run, &cell.tenant, json!({"input": text_of(262_145)})).await.refused(413, "input_too_large");
    let (lease, taken) = cell.dequeue(1).await;
    let id = text(&taken[0]["execution_id"]);
    let over = json!({"outcome": "succeeded", "result": text_of(1_048_577)});
    cell.result(&id, &lease, over).await.refused(413, "result_too_large");
    cell.result(&id, &lease, json!({"outcome": "succeeded", "result": text_of(1_048_576)})).await.ok();
    let body = json!({"name": "n", "env": {"A": "x".repeat(2_500_000)}});
    cell.post("/jobs", &cell.tenant, body).await.refused(413, "request_too_large");
}

#[tokio::test]
async fn nul_is_kept_in_json_and_refused_in_text() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({})).await;
    let input = json!({"a\u{0}": "b\u{0}"});
    let asked = cell.post(&format!("/jobs/{job}/run"), &cell.tenant, json!({"input": input})).await.ok();
    let (lease, taken) = cell.dequeue(1).await;
    assert_eq!(taken[0]["input"], input);
    let id = text(&asked["execution_id"]);
    let refused = cell.result(&id, &lease, json!({"outcome": "failed", "error": "a\u{0}"})).await;
    assert_eq!(refused.refused(422, "invalid_request")["errors"][0]["field"], "error");
    cell.result(&id, &lease, json!({"outcome": "succeeded", "result": input})).await.ok();
    let seen = cell.execution(&id).await;
    assert_eq!((&seen["input"], &seen["result"]), (&input, &input));
    let names: [(&str, Value); 2] = [
        ("name", json!({"name": "a\u{0}", "command": ["x"]})),
        ("command", json!({"name": "a", "command": ["x\u{0}"]})),
    ];
    for (field, body) in names {
        assert_eq!(
            cell.post("/jobs", &cell.tenant, body).await.refused(422, "invalid_request")["errors"][0]["field"],
            field
        );
    }
}
