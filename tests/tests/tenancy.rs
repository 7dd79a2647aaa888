//! Who may do what: every route of the table with every token that must not get through.

use crate::requests::{World, name};
use jobplane_functions::routes::{Answer, Caller, Route, table};
use jobplane_functions::{App, Config, Database};
use jobplane_protocol::{Token, TokenKind};
use jobplane_tests::{Cell, text};
use reqwest::Method;
use serde_json::{Value, json};

#[tokio::test]
async fn every_route_answers_its_own_caller_with_the_status_of_the_table() {
    let world = World::new().await;
    for route in table() {
        let reply = world.send(&world.ask(&route), world.token_of(route.caller)).await;
        let status = match route.answer {
            Answer::Nothing => 204,
            Answer::Json => 200,
            Answer::Typed(status, _) => status,
        };
        assert_eq!(reply.status, status, "{}: {}", name(&route), reply.body);
    }
}

#[tokio::test]
async fn a_tenant_reaches_nothing_of_another_s_through_any_route() {
    let world = World::new().await;
    let cell = &world.cell;
    let (stranger, key) = cell.new_tenant(json!({"name": "stranger"})).await;
    let of_the_first = format!("owner <> '{stranger}'");
    let before = cell.rows(&of_the_first).await;
    let mut asked = 0;
    for route in table().iter().filter(|route| route.caller == Caller::Tenant) {
        let reply = world.send(&world.ask(route), &key).await;
        let answer = reply.body.to_string();
        for id in world.ids() {
            assert!(!answer.contains(id.as_str()), "{} shows {id}: {answer}", name(route));
        }
        if route.path.contains('{') {
            assert_eq!(reply.status, 404, "{}: {answer}", name(route));
            let code = text(&reply.body["code"]);
            reply.refused(404, &code);
        } else {
            assert!(reply.status < 300, "{}: {answer}", name(route));
            // What the stranger made itself is its own to see: a job, by the call before.
            let items = reply.body["items"].as_array().map_or(0, Vec::len);
            assert!(items == 0 || route.path == "/jobs", "{}: {answer}", name(route));
        }
        let after = cell.rows(&of_the_first).await;
        assert_eq!(after, before, "{}", name(route));
        asked += 1;
    }
    assert!(asked > 10, "{asked} routes");
    assert_eq!(cell.get("/tenant", &key).await.ok()["tenant"]["id"], json!(stranger));
    assert_eq!(cell.get("/tenant", &key).await.ok()["running"], 0);
}

/// The kinds of token that a route accepts.
fn kinds(route: &Route) -> &'static [TokenKind] {
    match route.caller {
        Caller::Anyone => &[],
        Caller::Admin => &[TokenKind::Admin],
        Caller::AdminOrWorker => &[TokenKind::Admin, TokenKind::Worker],
        Caller::Tenant => &[TokenKind::Tenant],
        Caller::Worker => &[TokenKind::Worker],
    }
}

const KINDS: [TokenKind; 3] = [TokenKind::Admin, TokenKind::Tenant, TokenKind::Worker];

fn unknown(kind: TokenKind) -> String {
    Token::mint(kind, "test", rand::random()).reveal().to_owned()
}

#[tokio::test]
async fn no_token_a_garbled_one_and_an_unknown_one_are_refused_on_every_route() {
    let world = World::new().await;
    let before = world.rows().await;
    for route in table().iter().filter(|route| route.caller != Caller::Anyone) {
        let ask = world.ask(route);
        let right = world.token_of(route.caller);
        let garbled =
            [String::new(), "nonsense".to_owned(), right[..right.len() - 1].to_owned(), format!("{right}0")];
        let unknown = kinds(route).iter().map(|kind| unknown(*kind));
        for token in garbled.into_iter().chain(unknown) {
            world.send(&ask, &token).await.refused(401, "unauthorized");
        }
        let body = ask.body.as_ref().map(|body| body.to_string().into_bytes());
        let request = world.cell.request(ask.method.clone(), &ask.path, "", body);
        let basic = request.header("authorization", format!("Basic {right}"));
        let reply = world.cell.send(basic).await;
        assert_eq!(reply.headers["www-authenticate"], "Bearer", "{}", name(route));
        reply.refused(401, "unauthorized");
    }
    assert_eq!(world.rows().await, before);
}

#[tokio::test]
async fn a_token_of_another_kind_is_refused_on_every_route() {
    let world = World::new().await;
    let before = world.rows().await;
    for route in table().iter().filter(|route| route.caller != Caller::Anyone) {
        let Cell { admin, tenant, worker, .. } = &world.cell;
        let wrong = std::iter::zip(KINDS, [admin, tenant, worker]);
        for (_, token) in wrong.filter(|(kind, _)| !kinds(route).contains(kind)) {
            world.send(&world.ask(route), token).await.refused(403, "wrong_token_kind");
        }
    }
    assert_eq!(world.rows().await, before);
}

#[tokio::test]
async fn a_revoked_and_an_expired_token_are_refused_on_every_route() {
    let world = World::new().await;
    let cell = &world.cell;
    let keys = format!("/tenants/{}/keys", cell.tenant_id);
    let (mut tenant, mut worker) = (Vec::new(), Vec::new());
    for body in [json!({"name": "revoked"}), json!({"name": "expired", "expires_at": "2020-01-01T00:00:00Z"})]
    {
        let key = cell.post(&keys, &cell.admin, body.clone()).await.ok();
        let token = cell.post("/worker-tokens", &cell.admin, body.clone()).await.ok();
        if body["name"] == "revoked" {
            for path in [
                format!("{keys}/{}", text(&key["id"])),
                format!("/worker-tokens/{}", text(&token["token_id"])),
            ] {
                assert_eq!(cell.call(Method::DELETE, &path, &cell.admin, None).await.status, 204);
                // Once.
                assert_eq!(cell.call(Method::DELETE, &path, &cell.admin, None).await.status, 404);
            }
        }
        tenant.push(text(&key["api_key"]));
        worker.push(text(&token["token"]));
    }
    for list in [keys.as_str(), "/worker-tokens"] {
        let list = cell.get(list, &cell.admin).await.ok();
        let names: Vec<_> =
            list["items"].as_array().unwrap().iter().map(|item| text(&item["name"])).collect();
        assert!(names.contains(&"expired".to_owned()) && !names.contains(&"revoked".to_owned()), "{names:?}");
        assert!(!list.to_string().contains("jp_"), "a list shows no secret");
    }
    let before = world.rows().await;
    for route in &table() {
        let tokens = match route.caller {
            Caller::Tenant => &tenant,
            Caller::Worker | Caller::AdminOrWorker => &worker,
            Caller::Admin | Caller::Anyone => continue,
        };
        for token in tokens {
            world.send(&world.ask(route), token).await.refused(401, "unauthorized");
        }
    }
    assert_eq!(world.rows().await, before);
}

async fn dequeue(cell: &Cell, token: &str, mut body: Value) -> jobplane_tests::Reply {
    body["lease_id"] = json!(uuid::Uuid::new_v4());
    body["worker_id"] = json!("scoped");
    body["limit"] = json!(10);
    cell.post("/internal/executions/dequeue", token, body).await
}

#[tokio::test]
async fn a_scoped_worker_token_takes_from_its_own_queues_and_tenants_only() {
    let cell = Cell::new().await;
    let (other, other_key) = cell.new_tenant(json!({"name": "other"})).await;
    let fast = cell.new_job(json!({"queue": "fast"})).await;
    let slow = cell.new_job(json!({"queue": "slow"})).await;
    let theirs = cell.new_job_of(&other_key, json!({"queue": "fast"})).await;
    let mine = cell.run_many(&cell.tenant, &fast, 2).await;
    cell.run_many(&cell.tenant, &slow, 1).await;
    let of_other = cell.run_many(&other_key, &theirs, 2).await;
    let scope = json!({"name": "scoped", "queues": ["fast"], "tenant_ids": [cell.tenant_id]});
    let token = cell.new_worker_token(scope).await;

    for beyond in [
        json!({"queues": ["slow"]}),
        json!({"queues": ["fast", "slow"]}),
        json!({"queues": ["default"]}),
        json!({"tenant_ids": [other]}),
        json!({"tenant_ids": [cell.tenant_id, other]}),
    ] {
        dequeue(&cell, &token, beyond).await.refused(403, "out_of_scope");
    }
    assert_eq!(cell.number("select count(*) from leases").await, 0);
    let taken = dequeue(&cell, &token, json!({})).await.ok();
    let taken: Vec<_> =
        taken["executions"].as_array().unwrap().iter().map(|taken| text(&taken["execution_id"])).collect();
    assert_eq!(taken, mine, "without a word: its scope, all of it and nothing else");
    let rest = dequeue(&cell, &cell.worker, json!({"queues": ["fast"]})).await.ok();
    assert_eq!(rest["executions"].as_array().map(Vec::len), Some(of_other.len()));
}

#[tokio::test]
async fn a_lease_beyond_a_token_s_scope_is_lost_to_it() {
    let cell = Cell::new().await;
    let job = cell.new_job(json!({})).await;
    let id = cell.run(&job).await;
    let (lease, _) = cell.dequeue(1).await;
    for scope in [json!({"queues": ["elsewhere"]}), json!({"tenant_ids": [uuid::Uuid::now_v7()]})] {
        let mut scope = scope;
        scope["name"] = json!("scoped");
        let token = cell.new_worker_token(scope).await;
        let calls = [
            (Method::PUT, "heartbeat", json!({"lease_id": lease, "progress": 1})),
            (Method::PUT, "result", json!({"lease_id": lease, "outcome": "succeeded"})),
            (Method::POST, "logs", crate::requests::chunk(&lease, 0)),
        ];
        for (method, word, body) in calls {
            let path = format!("/internal/executions/{id}/{word}");
            cell.call(method, &path, &token, Some(body)).await.refused(409, "lease_lost");
        }
        let item = json!({"execution_id": id, "lease_id": lease});
        let beats =
            cell.post("/internal/executions/heartbeats", &token, json!({"leases": [item]})).await.ok();
        assert_eq!(beats["results"][0]["state"], "lost");
        let item = json!({"execution_id": id, "lease_id": lease, "outcome": "succeeded"});
        let ends = cell.post("/internal/executions/results", &token, json!({"results": [item]})).await.ok();
        assert_eq!(ends["results"][0]["error_code"], "lease_lost");
    }
    assert_eq!(cell.number("select count(*) from log_chunks").await, 0);
    assert_eq!(cell.execution(&id).await["progress"], Value::Null);
    // Its own worker is not disturbed.
    assert_eq!(cell.result(&id, &lease, json!({"outcome": "succeeded"})).await.ok()["status"], "SUCCEEDED");
}

#[tokio::test]
async fn a_cell_whose_name_no_token_could_carry_is_refused_at_start() {
    let config = |cell: &str| Config {
        database: Database::at("postgresql://localhost/none"),
        admin_token: None,
        admin_token_secret: None,
        cell: cell.to_owned(),
        pool_size: 1,
        lease_seconds: 60,
        keep_days: 30,
        keep_dead_letters_days: 90,
    };
    for bad in ["", "eu_1", "eu 1", "eü", "eu\n"] {
        assert!(
            App::new(&config(bad)).is_err_and(|error| error.to_string().contains("JOBPLANE_CELL")),
            "{bad:?}"
        );
        let token = Token::mint(TokenKind::Tenant, bad, rand::random());
        assert!(Token::parse(token.reveal()).is_none(), "{bad:?}");
    }
    assert!(App::new(&config("eu-1")).is_ok());
}
