//! Who reaches what: a tenant nothing of another's, a scoped worker token nothing outside its scope, a revoked or
//! expired token nothing at all. Made from the table of routes, so that a new route cannot escape.

use jobplane_functions::routes::{Caller, table};
use jobplane_tests::{Cell, text};
use reqwest::Method;
use serde_json::{Value, json};

/// A good body for each route that takes one and speaks of somebody's rows.
fn body(method: &str, path: &str) -> Option<Value> {
    match (method, path) {
        ("POST", "/jobs") => Some(json!({"name": "mine", "command": ["true"]})),
        ("PATCH", "/jobs/{id}") => Some(json!({"name": "taken over"})),
        ("POST", "/jobs/{id}/runs") => Some(json!({"runs": [{}]})),
        ("POST", "/jobs/{id}/run" | "/executions/dlq/retry") => Some(json!({})),
        _ => None,
    }
}

#[tokio::test]
async fn a_tenant_reaches_nothing_of_another_s_through_any_route() {
    let cell = Cell::new().await;
    let (_, stranger) = cell.new_tenant(json!({"name": "stranger"})).await;
    // The first tenant has one of everything: a job, something waiting, running, ended and dead.
    let job = cell.new_job(json!({"name": "secret", "retry": {"max_attempts": 1}})).await;
    let ids = cell.run_many(&cell.tenant, &job, 4).await;
    let (lease, _) = cell.dequeue(3).await;
    cell.result(&ids[0], &lease, json!({"outcome": "failed", "error": "secret"})).await.ok();
    cell.result(&ids[1], &lease, json!({"outcome": "succeeded", "result": "secret"})).await.ok();
    let state = || async {
        let mut rows = Vec::new();
        for table in ["jobs", "ready", "delayed", "leases", "attempts", "dead_letters"] {
            let sql = format!(
                "select coalesce(string_agg(t::text, '|' order by t::text), '') from {table} t
                where not to_jsonb(t) ? 'tenant_id' or to_jsonb(t) ->> 'tenant_id' = '{}'",
                cell.tenant_id
            );
            rows.push(cell.db.query_one(&sql, &[]).await.unwrap().get::<_, String>(0));
        }
        rows
    };
    let before = state().await;
    let mut asked = 0;
    for route in table().iter().filter(|route| route.caller == Caller::Tenant) {
        let method: Method = route.method.as_str().parse().unwrap();
        for id in [&job, &ids[0], &ids[1], &ids[2], &ids[3]] {
            let path = route.path.replace("{id}", id);
            let reply =
                cell.call(method.clone(), &path, &stranger, body(route.method.as_str(), route.path)).await;
            let what = format!("{method} {path}: {} {}", reply.status, reply.body);
            if route.path.contains('{') {
                assert_eq!(reply.status, 404, "{what}");
            }
            assert!(!reply.body.to_string().contains("secret"), "{what}");
            assert!(!ids.iter().any(|id| reply.body.to_string().contains(id.as_str())), "{what}");
            asked += 1;
        }
    }
    assert!(asked > 50, "{asked} calls");
    assert_eq!(state().await, before, "nothing of the first tenant's has changed");
}

#[tokio::test]
async fn a_revoked_or_expired_token_reaches_nothing() {
    let cell = Cell::new().await;
    let keys = format!("/tenants/{}/keys", cell.tenant_id);
    let made = cell.post(&keys, &cell.admin, json!({"name": "second"})).await.ok();
    let key = text(&made["api_key"]);
    let past = cell
        .post(&keys, &cell.admin, json!({"name": "past", "expires_at": "2020-01-01T00:00:00Z"}))
        .await
        .ok();
    cell.get("/tenant", &key).await.ok();
    let revoke = format!("{keys}/{}", text(&made["id"]));
    assert_eq!(cell.call(Method::DELETE, &revoke, &cell.admin, None).await.status, 204);
    cell.call(Method::DELETE, &revoke, &cell.admin, None).await.refused(404, "key_not_found");
    let worker = cell.post("/worker-tokens", &cell.admin, json!({"name": "w"})).await.ok();
    let path = format!("/worker-tokens/{}", text(&worker["token_id"]));
    assert_eq!(cell.call(Method::DELETE, &path, &cell.admin, None).await.status, 204);
    let id = uuid::Uuid::now_v7().to_string();
    for route in table() {
        let tokens = match route.caller {
            Caller::Tenant => vec![key.clone(), text(&past["api_key"])],
            Caller::Worker | Caller::AdminOrWorker => vec![text(&worker["token"])],
            Caller::Admin | Caller::Anyone => Vec::new(),
        };
        let method = route.method.as_str();
        for token in tokens {
            let body = body(method, route.path).or_else(|| worker_body(route.path));
            let path = route.path.replace("{id}", &id);
            let reply = cell.call(method.parse().unwrap(), &path, &token, body).await;
            assert_eq!(reply.status, 401, "{method} {path}: {}", reply.body);
        }
    }
    let names = cell.get(&keys, &cell.admin).await.ok();
    assert!(names["items"].as_array().unwrap().iter().all(|key| key["name"] != "second"));
    assert!(!names.to_string().contains("jp_key_"), "a list shows no secret");
}

/// A good body for each of the worker's routes.
fn worker_body(path: &str) -> Option<Value> {
    let (id, lease) = (uuid::Uuid::now_v7(), uuid::Uuid::new_v4());
    let line = json!({"at": "2026-01-01T00:00:00Z", "stream": "stdout", "text": "x"});
    match path {
        "/internal/executions/dequeue" => Some(json!({"lease_id": lease, "worker_id": "w", "limit": 1})),
        "/internal/executions/{id}/heartbeat" => Some(json!({"lease_id": lease})),
        "/internal/executions/heartbeats" => {
            Some(json!({"leases": [{"execution_id": id, "lease_id": lease}]}))
        }
        "/internal/executions/{id}/result" => Some(json!({"lease_id": lease, "outcome": "succeeded"})),
        "/internal/executions/results" => {
            Some(json!({"results": [{"execution_id": id, "lease_id": lease, "outcome": "succeeded"}]}))
        }
        "/internal/executions/{id}/logs" => Some(json!({"lease_id": lease, "first_seq": 0, "lines": [line]})),
        _ => None,
    }
}

#[tokio::test]
async fn a_scoped_worker_token_takes_and_touches_nothing_outside_its_scope() {
    let cell = Cell::new().await;
    let (other_id, other) = cell.new_tenant(json!({"name": "other"})).await;
    let job = cell.new_job(json!({"queue": "gpu"})).await;
    let others = cell.new_job_of(&other, json!({})).await;
    let id = cell.run(&job).await;
    cell.run_many(&other, &others, 1).await;
    let gpu = cell.new_worker_token(json!({"name": "gpu", "queues": ["gpu"]})).await;
    let mine = cell.new_worker_token(json!({"name": "mine", "tenant_ids": [other_id]})).await;
    let dequeue = |token: &str, more: Value| {
        let mut body = json!({"lease_id": uuid::Uuid::new_v4(), "worker_id": "w", "limit": 10});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let (cell, token) = (&cell, token.to_owned());
        async move { cell.post("/internal/executions/dequeue", &token, body).await }
    };
    dequeue(&gpu, json!({"queues": ["default"]})).await.refused(403, "out_of_scope");
    dequeue(&mine, json!({"tenant_ids": [cell.tenant_id]})).await.refused(403, "out_of_scope");
    let taken = dequeue(&mine, json!({"queues": ["default", "gpu"]})).await.ok();
    assert_eq!(taken["executions"].as_array().map(Vec::len), Some(1));
    assert_eq!(taken["executions"][0]["tenant_id"], json!(other_id));
    let taken = dequeue(&gpu, json!({})).await.ok();
    assert_eq!(taken["executions"][0]["execution_id"], json!(id), "its own queues when it names none");
    // Knowing the lease is not enough for a token whose scope does not reach it.
    let lease = text(&taken["lease_id"]);
    let body = json!({"lease_id": lease, "outcome": "succeeded"});
    let path = format!("/internal/executions/{id}/result");
    cell.call(Method::PUT, &path, &mine, Some(body.clone())).await.refused(409, "lease_lost");
    let beat = format!("/internal/executions/{id}/heartbeat");
    cell.call(Method::PUT, &beat, &mine, Some(json!({"lease_id": lease}))).await.refused(409, "lease_lost");
    let line = json!({"at": "2026-01-01T00:00:00Z", "stream": "stdout", "text": "x"});
    let chunk = json!({"lease_id": lease, "first_seq": 0, "lines": [line]});
    cell.post(&format!("/internal/executions/{id}/logs"), &mine, chunk).await.refused(409, "lease_lost");
    cell.call(Method::PUT, &path, &gpu, Some(body)).await.ok();
}
