//! THE table: every route, the function it is deployed in, who may call it, and the handler that answers.

pub(crate) mod dequeue;
pub(crate) mod dlq;
pub(crate) mod executions;
pub(crate) mod health;
pub(crate) mod heartbeat;
pub(crate) mod jobs;
pub(crate) mod logs;
mod openapi;
pub(crate) mod queues;
pub(crate) mod result;
pub(crate) mod run;
mod table;
pub(crate) mod tenants;
pub(crate) mod worker_tokens;
pub(crate) mod workers;

use Caller::{Admin, AdminOrWorker, Anyone, Tenant, Worker};
use jobplane_protocol::{self as protocol, *};
pub use table::{Answer, Caller, Method, Route, serve};
use table::{delete, get, patch, post, put};

/// The whole API on one screen. The file under `routes/`, the binary and the deployed function share a word; the
/// OpenAPI document is made from these rows.
#[rustfmt::skip]
pub fn table() -> Vec<Route> {
    vec![
        post("/internal/executions/dequeue",        "dequeue",       Worker, dequeue::dequeue).takes::<DequeueRequest>().answers::<DequeueResponse>(200),
        put("/internal/executions/{id}/heartbeat",  "heartbeat",     Worker, heartbeat::heartbeat).takes::<HeartbeatRequest>().answers::<HeartbeatResponse>(200),
        post("/internal/executions/heartbeats",     "heartbeat",     Worker, heartbeat::heartbeats).takes::<HeartbeatsRequest>().answers::<HeartbeatsResponse>(200),
        put("/internal/executions/{id}/result",     "result",        Worker, result::result).takes::<ResultRequest>().answers::<ResultResponse>(200),
        post("/internal/executions/results",        "result",        Worker, result::results).takes::<ResultsRequest>().answers::<ResultsResponse>(200),
        post("/internal/executions/{id}/logs",      "logs",          Worker, logs::logs).takes::<LogsRequest>().answers::<LogsResponse>(202),

        post("/jobs",                               "jobs",          Tenant, jobs::create).takes::<CreateJob>().answers::<Job>(201),
        get("/jobs",                                "jobs",          Tenant, jobs::jobs).query::<PageQuery>().answers::<JobPage>(200),
        get("/jobs/{id}",                           "jobs",          Tenant, jobs::get).answers::<Job>(200),
        patch("/jobs/{id}",                         "jobs",          Tenant, jobs::update).takes::<UpdateJob>().answers::<Job>(200),
        delete("/jobs/{id}",                        "jobs",          Tenant, jobs::delete).answers_nothing(),
        post("/jobs/{id}/run",                      "run",           Tenant, run::run).takes::<RunRequest>().idempotent().answers::<RunResponse>(201),
        post("/jobs/{id}/runs",                     "run",           Tenant, run::runs).takes::<RunsRequest>().idempotent().answers::<RunsResponse>(201),
        get("/executions",                          "executions",    Tenant, executions::executions).query::<ExecutionQuery>().answers::<ExecutionPage>(200),
        get("/executions/{id}",                     "executions",    Tenant, executions::execution).answers::<Execution>(200),
        post("/executions/{id}/cancel",             "executions",    Tenant, executions::cancel).answers::<CancelResponse>(202),
        get("/executions/{id}/logs",                "executions",    Tenant, executions::execution_logs).query::<LogQuery>().answers::<LogPage>(200),
        get("/executions/dlq",                      "dlq",           Tenant, dlq::dead_letters).query::<PageQuery>().answers::<DeadLetterPage>(200),
        post("/executions/dlq/{id}/retry",          "dlq",           Tenant, dlq::retry).answers::<RetryResponse>(201),
        post("/executions/dlq/retry",               "dlq",           Tenant, dlq::retry_many).takes::<RetryDeadLetters>().answers::<RetriedResponse>(200),
        delete("/executions/dlq/{id}",              "dlq",           Tenant, dlq::delete).answers_nothing(),
        get("/tenant",                              "tenants",       Tenant, tenants::whoami).answers::<TenantSelf>(200),

        post("/tenants",                            "tenants",       Admin, tenants::create).takes::<CreateTenant>().answers::<CreatedTenant>(201),
        get("/tenants",                             "tenants",       Admin, tenants::tenants).query::<PageQuery>().answers::<TenantPage>(200),
        get("/tenants/{id}",                        "tenants",       Admin, tenants::get).answers::<protocol::Tenant>(200),
        patch("/tenants/{id}",                      "tenants",       Admin, tenants::update).takes::<UpdateTenant>().answers::<protocol::Tenant>(200),
        post("/tenants/{id}/keys",                  "tenants",       Admin, tenants::create_key).takes::<CreateKey>().answers::<CreatedKey>(201),
        get("/tenants/{id}/keys",                   "tenants",       Admin, tenants::keys).query::<PageQuery>().answers::<KeyPage>(200),
        delete("/tenants/{id}/keys/{key_id}",       "tenants",       Admin, tenants::revoke_key).answers_nothing(),
        post("/worker-tokens",                      "worker_tokens", Admin, worker_tokens::create).takes::<CreateWorkerToken>().answers::<CreatedWorkerToken>(201),
        get("/worker-tokens",                       "worker_tokens", Admin, worker_tokens::worker_tokens).query::<PageQuery>().answers::<WorkerTokenPage>(200),
        delete("/worker-tokens/{token_id}",         "worker_tokens", Admin, worker_tokens::revoke).answers_nothing(),
        get("/queues",                              "queues",        AdminOrWorker, queues::queues).query::<PageQuery>().answers::<QueuePage>(200),
        patch("/queues/{name}",                     "queues",        Admin, queues::update).takes::<UpdateQueue>().answers_nothing(),
        get("/workers",                             "workers",       Admin, workers::workers).query::<PageQuery>().answers::<WorkerPage>(200),

        get("/healthz",                             "health",        Anyone, health::healthz).answers::<Health>(200),
        get("/readyz",                              "health",        Anyone, health::readyz).answers::<Readiness>(200),
        get("/openapi.json",                        "openapi",       Anyone, openapi::openapi).answers_json(),
    ]
}
