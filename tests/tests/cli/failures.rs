//! How commands fail: the exit codes that scripts see, and what a person is told.

use super::{Shell, ran};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn where_nothing_listens_it_says_so_at_once() {
    let shell = Shell::new().await;
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = shell.with(&shell.cell.tenant, "list");
    command.env("JOBPLANE_URL", format!("http://127.0.0.1:{port}"));
    let error = ran(command).await.refused(3);
    assert!(error.contains("Is `jobplane dev` running?") && error.contains("(JOBPLANE_URL)"), "{error}");
}

#[tokio::test]
async fn a_url_of_something_else_is_told_from_a_controller() {
    let shell = Shell::new().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut command = shell.with(&shell.cell.tenant, "list");
    command.env("JOBPLANE_URL", format!("http://{}", listener.local_addr().unwrap()));
    let answering = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let answer = b"HTTP/1.1 404 Not Found\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello";
            // The first connection only tries whether anybody listens.
            if stream.read(&mut [0; 1_000]).await.unwrap() > 0 {
                stream.write_all(answer).await.unwrap();
            }
        }
    });
    let error = ran(command).await.refused(1);
    answering.abort();
    assert!(error.contains("404") && error.contains("is it a jobplane controller's?"), "{error}");
}

#[tokio::test]
async fn a_token_that_the_controller_does_not_know_is_traced_to_its_origin() {
    let shell = Shell::new().await;
    let error = shell.run("list --token jp_key_test_0").await.refused(5);
    assert!(error.starts_with("error: the token is not accepted"), "{error}");
    assert!(error.contains("The token came from --token"), "{error}");
}

#[tokio::test]
async fn a_token_of_another_kind_is_refused_before_anything_is_sent() {
    let shell = Shell::new().await;
    let error = ran(shell.with(&shell.cell.tenant, "tenant list --url http://192.0.2.1")).await.refused(5);
    assert!(error.contains("needs an admin token") && error.contains("holds a tenant key"), "{error}");
    ran(shell.with(&shell.cell.worker, "list --url http://192.0.2.1")).await.refused(5);
}

#[tokio::test]
async fn a_command_line_that_makes_no_sense_exits_with_2() {
    let shell = Shell::new().await;
    for line in
        ["nosuch", "run", "list --limit 0", "run j --wait --bulk f", "whoami --url nowhere", "list -o xml"]
    {
        shell.run(line).await.refused(2);
    }
}

#[tokio::test]
async fn what_the_tenant_may_not_have_now_is_an_error_with_advice() {
    let shell = Shell::new().await;
    shell.cell.new_job(json!({"name": "j"})).await;
    shell.admin("tenant update first --max-priority 25").await.ok();
    assert!(shell.run("run j --priority 75").await.refused(1).contains("25"));
}

#[tokio::test]
async fn a_rate_that_is_used_up_for_longer_than_a_command_waits_says_until_when() {
    let shell = Shell::new().await;
    shell.cell.new_job(json!({"name": "j"})).await;
    shell.admin("tenant update first --rate-limit 1").await.ok();
    std::fs::write(shell.home.path().join("many.jsonl"), "{}\n".repeat(100)).unwrap();
    shell.run("run j --bulk many.jsonl").await.ok();
    let error = shell.run("run j").await.refused(3);
    assert!(
        error.starts_with("error: gave up after 1 attempt: ") && error.contains("answered 429"),
        "{error}"
    );
    assert!(error.contains("Nothing was done. Try again in "), "{error}");
}

#[tokio::test]
async fn a_reader_that_went_away_exits_with_141_without_a_word() {
    let shell = Shell::new().await;
    shell.cell.new_job(json!({"name": "j"})).await;
    for line in ["job list", "whoami -o json", "completions bash"] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = shell.with(&shell.cell.tenant, line);
        command.stdout(writer);
        let ran = ran(command).await;
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(141), ""), "{line}");
    }
}
