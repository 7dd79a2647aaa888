//! For every row of the table a request that it accepts. A new route cannot be served before it has one here, and so
//! comes under every rule that is tested for all routes.

use jobplane_functions::routes::{Caller, Method, Route};
use jobplane_tests::{Cell, Reply, text};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Everything of the first tenant's that a route can name.
pub(crate) struct World {
    pub(crate) cell: Cell,
    pub(crate) job: String,
    spare_job: String,
    pub(crate) running: Vec<String>,
    pub(crate) lease: String,
    waiting: String,
    ended: String,
    dead: Vec<String>,
    key_id: String,
    token_id: String,
}

/// A request, but for its token.
pub(crate) struct Ask {
    pub(crate) method: reqwest::Method,
    pub(crate) path: String,
    pub(crate) body: Option<Value>,
}

impl World {
    pub(crate) async fn new() -> Self {
        let cell = Cell::new().await;
        let job = cell.new_job(json!({"name": "nightly", "retry": {"max_attempts": 1}})).await;
        let spare_job = cell.new_job(json!({"name": "spare"})).await;
        let running = cell.run_many(&cell.tenant, &job, 2).await;
        let (lease, _) = cell.dequeue(2).await;
        let ends = cell.run_many(&cell.tenant, &job, 4).await;
        let (their_lease, _) = cell.dequeue(4).await;
        let logs = format!("/internal/executions/{}/logs", ends[0]);
        cell.post(&logs, &cell.worker, chunk(&their_lease, 0)).await.ok();
        for (id, outcome) in std::iter::zip(&ends, ["succeeded", "failed", "failed", "failed"]) {
            cell.result(id, &their_lease, json!({"outcome": outcome})).await.ok();
        }
        let waiting = cell.run(&job).await;
        let keys = format!("/tenants/{}/keys", cell.tenant_id);
        let key_id = text(&cell.post(&keys, &cell.admin, json!({"name": "second"})).await.ok()["id"]);
        let token = cell.post("/worker-tokens", &cell.admin, json!({"name": "second"})).await.ok();
        let token_id = text(&token["token_id"]);
        let [ended, dead @ ..] = &ends[..] else { panic!("four ended") };
        let (ended, dead) = (ended.clone(), dead.to_vec());
        Self { cell, job, spare_job, running, lease, waiting, ended, dead, key_id, token_id }
    }

    /// A request that this route accepts of its own caller. Sent in the order of the table, all of them are.
    pub(crate) fn ask(&self, route: &Route) -> Ask {
        let Self { cell, job, spare_job, running, lease, waiting, ended, dead, key_id, token_id } = self;
        let Cell { tenant_id, .. } = cell;
        let (path, body) = match (route.method, route.path) {
            (Method::Post, "/internal/executions/dequeue") => (
                route.path.to_owned(),
                Some(json!({"lease_id": uuid::Uuid::new_v4(), "worker_id": "tester", "limit": 1})),
            ),
            (Method::Put, "/internal/executions/{id}/heartbeat") => {
                (format!("/internal/executions/{}/heartbeat", running[0]), Some(json!({"lease_id": lease})))
            }
            (Method::Post, "/internal/executions/heartbeats") => (
                route.path.to_owned(),
                Some(json!({"leases": [{"execution_id": running[0], "lease_id": lease}]})),
            ),
            (Method::Put, "/internal/executions/{id}/result") => (
                format!("/internal/executions/{}/result", running[0]),
                Some(json!({"lease_id": lease, "outcome": "succeeded"})),
            ),
            (Method::Post, "/internal/executions/results") => (
                route.path.to_owned(),
                Some(json!({"results": [
                    {"execution_id": running[1], "lease_id": lease, "outcome": "succeeded"}]})),
            ),
            (Method::Post, "/internal/executions/{id}/logs") => {
                (format!("/internal/executions/{}/logs", running[0]), Some(chunk(lease, 0)))
            }
            (Method::Post, "/jobs") => {
                (route.path.to_owned(), Some(json!({"name": "another", "command": ["true"]})))
            }
            (Method::Get, "/jobs") => (route.path.to_owned(), None),
            (Method::Get, "/jobs/{id}") => (format!("/jobs/{job}"), None),
            (Method::Patch, "/jobs/{id}") => (format!("/jobs/{job}"), Some(json!({"timeout_seconds": 9}))),
            (Method::Delete, "/jobs/{id}") => (format!("/jobs/{spare_job}"), None),
            (Method::Post, "/jobs/{id}/run") => (format!("/jobs/{job}/run"), Some(json!({"input": 1}))),
            (Method::Post, "/jobs/{id}/runs") => {
                (format!("/jobs/{job}/runs"), Some(json!({"runs": [{}, {"input": 1}]})))
            }
            (Method::Get, "/executions") => (format!("/executions?job_id={job}"), None),
            (Method::Get, "/executions/{id}") => (format!("/executions/{ended}"), None),
            (Method::Post, "/executions/{id}/cancel") => (format!("/executions/{waiting}/cancel"), None),
            (Method::Get, "/executions/{id}/logs") => (format!("/executions/{ended}/logs"), None),
            (Method::Get, "/executions/dlq") => (route.path.to_owned(), None),
            (Method::Post, "/executions/dlq/{id}/retry") => {
                (format!("/executions/dlq/{}/retry", dead[0]), None)
            }
            (Method::Post, "/executions/dlq/retry") => {
                (route.path.to_owned(), Some(json!({"job_id": job, "limit": 1})))
            }
            (Method::Delete, "/executions/dlq/{id}") => (format!("/executions/dlq/{}", dead[2]), None),
            (Method::Get, "/tenant") => (route.path.to_owned(), None),
            (Method::Post, "/tenants") => (route.path.to_owned(), Some(json!({"name": "third"}))),
            (Method::Get, "/tenants") => (route.path.to_owned(), None),
            (Method::Get, "/tenants/{id}") => (format!("/tenants/{tenant_id}"), None),
            (Method::Patch, "/tenants/{id}") => {
                (format!("/tenants/{tenant_id}"), Some(json!({"max_running": 100})))
            }
            (Method::Post, "/tenants/{id}/keys") => {
                (format!("/tenants/{tenant_id}/keys"), Some(json!({"name": "third"})))
            }
            (Method::Get, "/tenants/{id}/keys") => (format!("/tenants/{tenant_id}/keys"), None),
            (Method::Delete, "/tenants/{id}/keys/{key_id}") => {
                (format!("/tenants/{tenant_id}/keys/{key_id}"), None)
            }
            (Method::Post, "/worker-tokens") => (route.path.to_owned(), Some(json!({"name": "third"}))),
            (Method::Get, "/worker-tokens") => (route.path.to_owned(), None),
            (Method::Delete, "/worker-tokens/{token_id}") => (format!("/worker-tokens/{token_id}"), None),
            (Method::Get, "/queues") => (route.path.to_owned(), None),
            (Method::Patch, "/queues/{name}") => {
                ("/queues/default".to_owned(), Some(json!({"paused": false})))
            }
            (Method::Get, "/workers" | "/healthz" | "/readyz" | "/openapi.json") => {
                (route.path.to_owned(), None)
            }
            (method, path) => panic!("{} {path} has no request yet: give it one here", method.as_str()),
        };
        let method = route.method.as_str().parse().expect("a method");
        Ask { method, path, body }
    }

    /// Sends a request with this token; none if it is empty.
    pub(crate) async fn send(&self, ask: &Ask, token: &str) -> Reply {
        self.cell.call(ask.method.clone(), &ask.path, token, ask.body.clone()).await
    }

    /// The token of a route's own caller.
    pub(crate) fn token_of(&self, caller: Caller) -> &str {
        match caller {
            Caller::Anyone => "",
            Caller::Admin | Caller::AdminOrWorker => &self.cell.admin,
            Caller::Tenant => &self.cell.tenant,
            Caller::Worker => &self.cell.worker,
        }
    }

    /// All ids that only the first tenant may see.
    pub(crate) fn ids(&self) -> Vec<&String> {
        let Self { job, spare_job, running, waiting, ended, dead, key_id, .. } = self;
        [job, spare_job, waiting, ended, key_id, &self.cell.tenant_id]
            .into_iter()
            .chain(running)
            .chain(dead)
            .collect()
    }

    /// Every row of every table, to hold against what is there later.
    pub(crate) async fn rows(&self) -> BTreeMap<String, String> {
        self.cell.rows("true").await
    }
}

/// One line of log.
pub(crate) fn chunk(lease: &str, first_seq: i64) -> Value {
    let line = json!({"at": "2026-01-01T00:00:00Z", "stream": "stdout", "text": "a line"});
    json!({"lease_id": lease, "first_seq": first_seq, "lines": [line]})
}

/// A route as a test's message names it.
pub(crate) fn name(route: &Route) -> String {
    format!("{} {}", route.method.as_str(), route.path)
}
