//! What a deployment does: the database's user and schema by the function `migrate`, and the control plane as one process.

use jobplane_tests::{Lambda, Secrets, connect, database, program};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::process::{Command, Stdio};
use tokio::sync::mpsc;

/// Where CloudFormation wants to be answered; what it was told comes out of the channel.
async fn stack() -> (String, mpsc::UnboundedReceiver<Value>) {
    let (told, answers) = mpsc::unbounded_channel();
    let service = axum::Router::new().fallback(axum::routing::put(async move |body: String| {
        told.send(serde_json::from_str(&body).unwrap()).unwrap();
    }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/answer?signature=of%20the%2Fstack", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, service).await });
    (url, answers)
}

/// The event of a custom resource, as CloudFormation's documentation has it.
fn event(request: &str, url: &str) -> Value {
    json!({
        "RequestType": request, "ResponseURL": url, "RequestId": "unique id for this request", "LogicalResourceId": "Migrated",
        "StackId": "arn:aws:cloudformation:us-east-1:123456789012:stack/jobplane/guid", "PhysicalResourceId": "jobplane-schema",
        "ResourceType": "Custom::JobplaneSchema", "ResourceProperties": {"ServiceToken": "arn", "Build": "1"},
    })
}

#[tokio::test]
async fn a_deployment_makes_the_user_and_the_schema_and_may_be_repeated() {
    let whole = database().await;
    let (credentials, place) = whole.trim_start_matches("postgres://").split_once('@').unwrap();
    let (master, password) = credentials.split_once(':').unwrap();
    let user = format!("owner of {}", place.rsplit_once('/').unwrap().1);
    let mut secrets = Secrets::start().await;
    secrets.create("master", &json!({"username": master, "password": password}).to_string()).await;
    secrets.create("user", &json!({"username": user, "password": "it's a secret"}).to_string()).await;
    let url = format!("postgres://{place}");
    let copy = Lambda::start(
        "migrate",
        &[
            ("DATABASE_URL", &url),
            ("JOBPLANE_DATABASE_SECRET", "user"),
            ("JOBPLANE_DATABASE_MASTER_SECRET", "master"),
            ("JOBPLANE_DATABASE_CONNECTIONS", "7"),
            ("AWS_ENDPOINT_URL", &secrets.url),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
        ],
    )
    .await;
    let (stack, mut answers) = stack().await;
    for request in ["Create", "Update"] {
        assert_eq!(copy.invoke(&event(request, &stack)).await, Ok(Value::Null));
        let answer = answers.recv().await.unwrap();
        assert_eq!(answer["Status"], "SUCCESS", "{answer}");
        assert_eq!(answer["Data"]["SchemaVersion"], json!(jobplane_functions::schema_version()));
        assert_eq!(answer["PhysicalResourceId"], "jobplane-schema");
        assert_eq!(answer["RequestId"], "unique id for this request");
        assert_eq!(answer["LogicalResourceId"], "Migrated");
    }
    let db = connect(&whole).await;
    let sql = "select d.datdba = r.oid, r.rolconnlimit, r.rolsuper, (select relowner = r.oid from pg_class where relname = 'ready')
        from pg_roles r, pg_database d where r.rolname = $1 and d.datname = current_database()";
    let row = db.query_one(sql, &[&user]).await.unwrap();
    assert_eq!((row.get(0), row.get(1), row.get(2), row.get(3)), (true, 7, false, true));

    // By hand, whoever invokes it is answered.
    let answer = copy.invoke(&json!({})).await.unwrap();
    assert_eq!(answer, json!({"schema_version": jobplane_functions::schema_version()}));
    // A stack that goes away is not held up by a database that went before it.
    secrets.go_away();
    assert_eq!(copy.invoke(&event("Delete", &stack)).await, Ok(Value::Null));
    assert_eq!(answers.recv().await.unwrap()["Status"], "SUCCESS");
    secrets.come_back().await;
}

#[tokio::test]
async fn a_migration_that_fails_fails_the_deployment_and_says_why() {
    let url = database().await;
    connect(&url).await.batch_execute("create table somebody_elses (n integer)").await.unwrap();
    let copy = Lambda::start("migrate", &[("DATABASE_URL", &url)]).await;
    let (stack, mut answers) = stack().await;
    assert_eq!(copy.invoke(&event("Update", &stack)).await, Ok(Value::Null));
    let answer = answers.recv().await.unwrap();
    assert_eq!(answer["Status"], "FAILED");
    assert!(answer["Reason"].as_str().unwrap().contains("somebody_elses"), "{answer}");
    let by_hand = copy.invoke(&json!({})).await.unwrap_err();
    assert!(by_hand["errorMessage"].as_str().unwrap().contains("somebody_elses"), "{by_hand}");
    // Settings that are wrong are an answer too, or the stack would wait for an hour.
    let lost = Lambda::start("migrate", &[("DATABASE_URL", "")]).await;
    assert_eq!(lost.invoke(&event("Create", &stack)).await, Ok(Value::Null));
    let answer = answers.recv().await.unwrap();
    assert_eq!(
        (&answer["Status"], &answer["Reason"]),
        (&json!("FAILED"), &json!("DATABASE_URL: is not set"))
    );
}

#[tokio::test]
async fn the_older_build_of_a_deployment_that_is_undone_leaves_a_newer_schema_as_it_is() {
    let url = database().await;
    let copy = Lambda::start("migrate", &[("DATABASE_URL", &url)]).await;
    copy.invoke(&json!({})).await.unwrap();
    let newer = "insert into refinery_schema_history (version, name, applied_on, checksum)
        values (9999, 'newer', '2026-01-01T00:00:00Z', '1')";
    connect(&url).await.batch_execute(newer).await.unwrap();
    let (stack, mut answers) = stack().await;
    assert_eq!(copy.invoke(&event("Update", &stack)).await, Ok(Value::Null));
    let answer = answers.recv().await.unwrap();
    assert_eq!(answer["Status"], "SUCCESS", "{answer}");
}

#[tokio::test]
async fn one_process_serves_the_whole_table_and_ends_in_order_when_asked() {
    let url = database().await;
    let program = tokio::task::spawn_blocking(|| program("jobplane")).await.unwrap();
    let migrated = Command::new(&program)
        .args(["migrate", "--output", "json"])
        .env("DATABASE_URL", &url)
        .stderr(Stdio::null())
        .output()
        .unwrap();
    let said: Value = serde_json::from_slice(&migrated.stdout).unwrap();
    assert_eq!(said, json!({"schema_version": jobplane_functions::schema_version()}));
    let db = connect(&url).await;
    // As if the last tick were long ago.
    db.execute("update ticks set ticked_at = ticked_at - interval '1 hour'", &[]).await.unwrap();

    let admin = jobplane_protocol::Token::mint(jobplane_protocol::TokenKind::Admin, "local", rand::random());
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut process = Command::new(&program)
        .args(["serve", "--migrate"])
        .env("JOBPLANE_LISTEN", format!("127.0.0.1:{port}"))
        .env("DATABASE_URL", &url)
        .env("JOBPLANE_ADMIN_TOKEN", admin.reveal())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let base = format!("http://127.0.0.1:{port}");
    let http = reqwest::Client::new();
    while http.get(format!("{base}/readyz")).send().await.is_err() {
        assert!(process.try_wait().unwrap().is_none(), "it serves");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(http.get(format!("{base}/readyz")).send().await.unwrap().status(), 200);
    let made =
        http.post(format!("{base}/tenants")).bearer_auth(admin.reveal()).json(&json!({"name": "first"}));
    assert_eq!(made.send().await.unwrap().status(), 201);
    // It sweeps without being asked.
    let ticked = "select ticked_at > now() - interval '30 minutes' from ticks";
    while !db.query_one(ticked, &[]).await.unwrap().get::<_, bool>(0) {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    kill(Pid::from_raw(process.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    let ended = tokio::task::spawn_blocking(move || process.wait()).await.unwrap().unwrap();
    assert!(ended.success(), "{ended}");
    assert!(http.get(format!("{base}/healthz")).send().await.is_err());
}
