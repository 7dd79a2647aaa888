//! A cell: one database and one control plane over it, with a tenant and a worker token, served on loopback.

use jobplane::local::postgres::Server;
use jobplane_functions::{App, Config, Database, migrate, router};
use jobplane_protocol::{Token, TokenKind, limits};
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tokio_postgres::types::ToSql;

/// A running control plane and what a test needs to talk to it.
pub struct Cell {
    /// Where it listens.
    pub url: String,
    /// Its database.
    pub database_url: String,
    /// The operator's token.
    pub admin: String,
    /// The first tenant's id.
    pub tenant_id: String,
    /// The first tenant's key.
    pub tenant: String,
    /// A worker token that is not scoped.
    pub worker: String,
    /// The database, for moving time and for looking behind the API.
    pub db: tokio_postgres::Client,
    /// The functions' own state, for calling what has no route.
    pub app: App,
    http: reqwest::Client,
}

/// What a call was answered.
#[derive(Debug)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The body; null if there was none.
    pub body: Value,
    /// The headers.
    pub headers: reqwest::header::HeaderMap,
}

impl Reply {
    /// The body of a call that must have gone well.
    #[track_caller]
    pub fn ok(self) -> Value {
        assert!((200..300).contains(&self.status), "{} {}", self.status, self.body);
        self.body
    }

    /// Asserts a refusal: its status, its code, and that it is a whole problem document.
    #[track_caller]
    pub fn refused(self, status: u16, code: &str) -> Value {
        assert_eq!((self.status, self.body["code"].as_str()), (status, Some(code)), "{}", self.body);
        assert_eq!(self.body["status"], status);
        assert!(self.body["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{}", self.body);
        assert_eq!(self.headers["content-type"], "application/problem+json");
        self.body
    }
}

impl Cell {
    /// A cell over a fresh database.
    pub async fn new() -> Self {
        Self::with_leases_of(limits::LEASE_SECONDS).await
    }

    /// A cell over a fresh database, whose leases last so many seconds.
    pub async fn with_leases_of(lease_seconds: i32) -> Self {
        let database_url = crate::database().await;
        migrate(&Database::at(&database_url)).await.expect("the migrations apply");
        let functions_url = {
            let url = database_url.clone();
            tokio::task::spawn_blocking(move || crate::pooler::through(&url))
                .await
                .expect("it does not panic")
        };
        Self::over(database_url, &functions_url, lease_seconds, 8).await
    }

    /// A cell over a fresh database of this server, whose functions have so many connections between them.
    pub async fn on(server: &Server, lease_seconds: i32, pool_size: usize) -> Self {
        let database_url = crate::server::database_on(server).await;
        migrate(&Database::at(&database_url)).await.expect("the migrations apply");
        let functions_url = database_url.clone();
        Self::over(database_url, &functions_url, lease_seconds, pool_size).await
    }

    /// A cell over a migrated database, which its functions reach by another URL, such as a pooler's, over so many
    /// connections.
    pub async fn over(
        database_url: String,
        functions_url: &str,
        lease_seconds: i32,
        pool_size: usize,
    ) -> Self {
        let admin = Token::mint(TokenKind::Admin, "test", rand::random()).reveal().to_owned();
        let config = Config {
            database: Database::at(functions_url),
            admin_token: Some(admin.clone()),
            admin_token_secret: None,
            cell: "test".to_owned(),
            pool_size,
            lease_seconds,
            keep_days: limits::KEEP_DAYS,
            keep_dead_letters_days: limits::KEEP_DEAD_LETTERS_DAYS,
        };
        let app = App::new(&config).expect("the configuration is good");
        let mut cell = Self::serving(database_url, router(app.clone()), app).await;
        cell.admin = admin;
        (cell.tenant_id, cell.tenant) = cell.new_tenant(json!({"name": "first"})).await;
        cell.worker = cell.new_worker_token(json!({"name": "fleet"})).await;
        cell
    }

    /// A cell of which these routes are served, without a tenant or a token.
    pub async fn serving(database_url: String, service: axum::Router, app: App) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        tokio::spawn(async move { axum::serve(listener, service).await });
        let db = crate::connect(&database_url).await;
        Self {
            url,
            database_url,
            admin: String::new(),
            tenant_id: String::new(),
            tenant: String::new(),
            worker: String::new(),
            db,
            app,
            http: reqwest::Client::new(),
        }
    }

    /// Makes a tenant: its id and its key.
    pub async fn new_tenant(&self, body: Value) -> (String, String) {
        let made = self.post("/tenants", &self.admin, body).await.ok();
        (text(&made["tenant_id"]), text(&made["api_key"]))
    }

    /// Makes a worker token.
    pub async fn new_worker_token(&self, body: Value) -> String {
        text(&self.post("/worker-tokens", &self.admin, body).await.ok()["token"])
    }

    /// Makes a job of the first tenant's: its id.
    pub async fn new_job(&self, body: Value) -> String {
        self.new_job_of(&self.tenant, body).await
    }

    /// Makes a job with this key: its id.
    pub async fn new_job_of(&self, key: &str, mut body: Value) -> String {
        let defaults = json!({"name": format!("job-{}", rand::random::<u32>()), "command": ["true"]});
        for (name, value) in defaults.as_object().into_iter().flatten() {
            body.as_object_mut().expect("an object").entry(name).or_insert(value.clone());
        }
        text(&self.post("/jobs", key, body).await.ok()["id"])
    }

    /// Asks for one execution of the first tenant's: its id.
    pub async fn run(&self, job: &str) -> String {
        text(&self.post(&format!("/jobs/{job}/run"), &self.tenant, json!({})).await.ok()["execution_id"])
    }

    /// Asks for many executions with this key: their ids.
    pub async fn run_many(&self, key: &str, job: &str, count: usize) -> Vec<String> {
        let made =
            self.post(&format!("/jobs/{job}/runs"), key, json!({"runs": vec![json!({}); count]})).await.ok();
        made["execution_ids"].as_array().expect("ids").iter().map(text).collect()
    }

    /// Dequeues with a fresh lease.
    pub async fn dequeue(&self, limit: u32) -> (String, Vec<Value>) {
        let lease = uuid::Uuid::new_v4().to_string();
        let executions = self.dequeue_as(&lease, limit).await;
        (lease, executions)
    }

    /// Dequeues with this lease.
    pub async fn dequeue_as(&self, lease: &str, limit: u32) -> Vec<Value> {
        let body = json!({"lease_id": lease, "worker_id": "tester", "limit": limit});
        let taken = self.post("/internal/executions/dequeue", &self.worker, body).await.ok();
        taken["executions"].as_array().expect("a list").clone()
    }

    /// Reports the result of one attempt.
    pub async fn result(&self, id: &str, lease: &str, mut body: Value) -> Reply {
        body["lease_id"] = json!(lease);
        self.call(Method::PUT, &format!("/internal/executions/{id}/result"), &self.worker, Some(body)).await
    }

    /// Sends one heartbeat.
    pub async fn heartbeat(&self, id: &str, lease: &str) -> Reply {
        let body = json!({"lease_id": lease});
        self.call(Method::PUT, &format!("/internal/executions/{id}/heartbeat"), &self.worker, Some(body))
            .await
    }

    /// One of the first tenant's executions, whole.
    pub async fn execution(&self, id: &str) -> Value {
        self.get(&format!("/executions/{id}"), &self.tenant).await.ok()
    }

    /// POSTs JSON.
    pub async fn post(&self, path: &str, token: &str, body: Value) -> Reply {
        self.call(Method::POST, path, token, Some(body)).await
    }

    /// GETs.
    pub async fn get(&self, path: &str, token: &str) -> Reply {
        self.call(Method::GET, path, token, None).await
    }

    /// Calls a route.
    pub async fn call(&self, method: Method, path: &str, token: &str, body: Option<Value>) -> Reply {
        let body = body.map(|body| body.to_string().into_bytes());
        self.send(self.request(method, path, token, body)).await
    }

    /// A request that a test may still change.
    pub fn request(
        &self,
        method: Method,
        path: &str,
        token: &str,
        body: Option<Vec<u8>>,
    ) -> reqwest::RequestBuilder {
        let mut request = self.http.request(method, format!("{}{path}", self.url));
        if !token.is_empty() {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        request
    }

    /// Sends a request.
    pub async fn send(&self, request: reqwest::RequestBuilder) -> Reply {
        let response = request.send().await.expect("the control plane answers");
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let bytes = response.bytes().await.expect("the answer arrives whole");
        let body = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).expect("JSON") };
        Reply { status, body, headers }
    }

    /// Runs SQL behind the API's back: how many rows it touched.
    pub async fn sql(&self, sql: &str, binds: &[&(dyn ToSql + Sync)]) -> u64 {
        self.db.execute(sql, binds).await.expect("the statement runs")
    }

    /// One number out of the database.
    pub async fn number(&self, sql: &str) -> i64 {
        self.db.query_one(sql, &[]).await.expect("the statement runs").get(0)
    }

    /// How many executions have not ended.
    pub async fn in_flight(&self) -> i64 {
        self.number("select count(*) from in_flight").await
    }

    /// Every row of every table whose `owner` satisfies the condition: the tenant that it belongs to, or all zeros
    /// where it belongs to none.
    pub async fn rows(&self, condition: &str) -> BTreeMap<String, String> {
        let tables = "select c.relname::text,
            array(select a.attname::text from pg_attribute a where a.attrelid = c.oid and a.attnum > 0)
            from pg_class c where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p')
              and not c.relispartition";
        let mut rows = BTreeMap::new();
        for table in self.db.query(tables, &[]).await.expect("the statement runs") {
            let (name, columns): (String, Vec<String>) = (table.get(0), table.get(1));
            let has = |column: &str| columns.iter().any(|name| name == column);
            let owner = if name == "tenants" {
                "t.id"
            } else if has("tenant_id") {
                "t.tenant_id"
            } else if has("execution_id") {
                "(select e.tenant_id from executions e where e.id = t.execution_id)"
            } else {
                "'00000000-0000-0000-0000-000000000000'::uuid"
            };
            let sql = format!(
                "select coalesce(string_agg(x.row, E'\\n' order by x.row), '')
                 from (select t::text as row, {owner} as owner from {name} t) x where {condition}"
            );
            rows.insert(name, self.db.query_one(&sql, &[]).await.expect("the statement runs").get(0));
        }
        rows
    }

    /// Lets every lease run out, and the next tick find out.
    pub async fn expire_leases(&self) {
        self.sql("update leases set expires_at = least(deadline_at, now() - interval '1 second')", &[]).await;
        self.tick().await;
    }

    /// Does the once-a-second work now, looking behind the watermarks too: a test's time goes backwards.
    pub async fn tick(&self) {
        let due = "update ticks set ticked_at = now() - interval '2 seconds', stragglers_at = now()";
        self.sql(due, &[]).await;
        jobplane_functions::sweep(&self.app).await.expect("it sweeps");
    }

    /// Lets everything that waits for its time fall due, and moves it into line.
    pub async fn fall_due(&self) {
        self.sql("update delayed set due_at = now() - interval '1 second'", &[]).await;
        self.tick().await;
    }
}

/// The text of a JSON string.
#[track_caller]
pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is not text")).to_owned()
}

/// How many seconds the second RFC 3339 time is after the first.
pub fn seconds(from: &Value, to: &Value) -> f64 {
    let read = |value: &Value| text(value).parse::<jiff::Timestamp>().expect("a time");
    read(to).duration_since(read(from)).as_secs_f64()
}
