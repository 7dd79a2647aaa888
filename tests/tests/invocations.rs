//! What Lambda demands of the deployed binaries: an answer before the invocation ends and whatever the settings are, an id in
//! every line and answer, many requests at once, any stage.

use jobplane_tests::{Cell, Lambda, connect, event};
use serde_json::{Value, json};
use std::time::Duration;

/// A copy over a cell's database.
async fn copy(function: &str, cell: &Cell, more: &[(&str, &str)]) -> Lambda {
    let environment = [("DATABASE_URL", cell.database_url.as_str()), ("JOBPLANE_CELL", "test")];
    Lambda::start(function, &[&environment, more].concat()).await
}

async fn create(copy: &Lambda, cell: &Cell, name: &str) -> reqwest::Response {
    let call = reqwest::Client::new().post(format!("{}/jobs", copy.url)).bearer_auth(&cell.tenant);
    call.json(&json!({"name": name, "command": ["true"]})).send().await.unwrap()
}

/// Asserts a 503 with its problem document, which says when to come back.
async fn away(answer: reqwest::Response) -> Value {
    assert_eq!((answer.status().as_u16(), &answer.headers()["retry-after"]), (503, &"1".parse().unwrap()));
    let problem: Value = answer.json().await.unwrap();
    assert_eq!(problem["code"], "unavailable");
    problem
}

/// How many statements of functions wait for a lock.
async fn waiting(cell: &Cell) -> i64 {
    let sql = "select count(*) from pg_stat_activity where datname = current_database()
        and application_name = 'jobplane' and wait_event_type = 'Lock'";
    cell.number(sql).await
}

#[tokio::test]
async fn a_statement_that_would_outlive_its_invocation_is_undone_and_its_caller_answered_before() {
    let cell = Cell::new().await;
    let copy = copy("jobs", &cell, &[]).await;
    copy.limit(Duration::from_secs(2));
    let other = connect(&cell.database_url).await;
    other.batch_execute("begin; lock table jobs in exclusive mode").await.unwrap();
    away(create(&copy, &cell, "late").await).await;
    // The lock that it waits for is still held: so it was cancelled.
    while waiting(&cell).await > 0 {
        tokio::task::yield_now().await;
    }
    other.batch_execute("rollback").await.unwrap();
    copy.limit(Duration::from_secs(29));
    assert_eq!(create(&copy, &cell, "timely").await.status(), 201);
    assert_eq!(cell.number("select count(*) from jobs where name = 'late'").await, 0);
}

#[tokio::test]
async fn a_sweep_ends_before_its_invocation_too() {
    let cell = Cell::new().await;
    let copy = copy("sweep", &cell, &[]).await;
    copy.limit(Duration::from_secs(2));
    let other = connect(&cell.database_url).await;
    other.batch_execute("begin; lock table ticks, executions in access exclusive mode").await.unwrap();
    assert!(copy.invoke(&json!({})).await.is_err());
    while waiting(&cell).await > 0 {
        tokio::task::yield_now().await;
    }
    other.batch_execute("rollback").await.unwrap();
    copy.limit(Duration::from_secs(29));
    assert_eq!(copy.invoke(&json!({})).await, Ok(Value::Null));
}

#[tokio::test]
async fn who_finds_no_connection_in_time_is_told_to_come_back() {
    let cell = Cell::new().await;
    let one = [("AWS_LAMBDA_MAX_CONCURRENCY", "2"), ("JOBPLANE_POOL_SIZE", "1")];
    let copy = copy("jobs", &cell, &one).await;
    let other = connect(&cell.database_url).await;
    other.batch_execute("begin; lock table jobs in exclusive mode").await.unwrap();
    let (first, second) = tokio::join!(create(&copy, &cell, "first"), async {
        while waiting(&cell).await == 0 {
            tokio::task::yield_now().await;
        }
        let second = create(&copy, &cell, "second").await;
        other.batch_execute("rollback").await.unwrap();
        second
    });
    away(second).await;
    assert_eq!(first.status(), 201);
}

#[tokio::test]
async fn a_copy_serves_as_many_requests_at_once_as_lambda_hands_to_it() {
    let cell = Cell::new().await;
    let copy = copy("jobs", &cell, &[("AWS_LAMBDA_MAX_CONCURRENCY", "4")]).await;
    let other = connect(&cell.database_url).await;
    other.batch_execute("begin; lock table jobs in exclusive mode").await.unwrap();
    let all = async {
        tokio::join!(
            create(&copy, &cell, "a"),
            create(&copy, &cell, "b"),
            create(&copy, &cell, "c"),
            create(&copy, &cell, "d")
        )
    };
    let ((a, b, c, d), ()) = tokio::join!(all, async {
        while waiting(&cell).await < 4 {
            tokio::task::yield_now().await;
        }
        other.batch_execute("rollback").await.unwrap();
    });
    assert_eq!([a, b, c, d].map(|answer| answer.status().as_u16()), [201; 4]);
}

#[tokio::test]
async fn settings_that_are_wrong_are_503_to_every_caller_and_named_in_the_log() {
    let copy = Lambda::start("jobs", &[("DATABASE_URL", "")]).await;
    for _ in 0..2 {
        let problem = away(reqwest::get(format!("{}/jobs", copy.url)).await.unwrap()).await;
        assert!(!problem.to_string().contains("DATABASE_URL"), "callers are not told how it is set up");
    }
    copy.line(|line| line["fields"]["cause"] == "DATABASE_URL: is not set").await;
    copy.line(|line| line["fields"]["cause"] == "nothing can be served: DATABASE_URL: is not set").await;
    let sweep = Lambda::start("sweep", &[("DATABASE_URL", "")]).await;
    let error = sweep.invoke(&json!({})).await.unwrap_err();
    assert_eq!(error["errorMessage"], "nothing can be served: DATABASE_URL: is not set");
}

#[tokio::test]
async fn every_answer_and_every_line_about_it_carry_the_callers_id_or_lambda_s() {
    // Nobody answers there.
    let copy = Lambda::start("health", &[("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none")]).await;
    let ask = reqwest::Client::new().get(format!("{}/readyz", copy.url));
    let answer = ask.try_clone().unwrap().header("x-request-id", "order-7/retry:2").send().await.unwrap();
    assert_eq!(answer.headers()["x-request-id"], "order-7/retry:2");
    away(answer).await;
    let failed = |line: &Value| line["level"] == "ERROR" && line["fields"]["message"] == "request failed";
    let line = copy.line(|line| failed(line) && line["span"]["request_id"] == "order-7/retry:2").await;
    assert_eq!((&line["span"]["method"], &line["span"]["path"]), (&json!("GET"), &json!("/readyz")));
    assert!(line["span"]["lambda_request_id"].is_string(), "{line}");

    let answer = ask.send().await.unwrap();
    let id = answer.headers()["x-request-id"].to_str().unwrap();
    let line = copy.line(|line| line["span"]["request_id"] == id).await;
    assert_eq!(line["span"]["lambda_request_id"], id);
}

#[tokio::test]
async fn a_route_is_found_in_any_stage_and_behind_a_domain_of_ones_own() {
    for settings in [&[][..], &[("AWS_LAMBDA_HTTP_IGNORE_STAGE_IN_PATH", "true")]] {
        let url = [("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none")];
        let copy = Lambda::start("health", &[&url, settings].concat()).await;
        // Of the API's own address, of a domain that stands for the stage, and of the one stage without a name.
        for (path, stage) in [("/prod/healthz", "prod"), ("/healthz", "prod"), ("/healthz", "$default")] {
            let answer = copy.invoke(&event("GET", path, stage)).await.unwrap();
            assert_eq!(answer["statusCode"], 200, "{path} {stage} {settings:?} {answer}");
        }
        let answer = copy.invoke(&event("GET", "/prod/healthz", "$default")).await.unwrap();
        assert_eq!(answer["statusCode"], 404, "it is no stage there");
    }
}
