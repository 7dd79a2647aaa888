//! The deployed functions themselves, each its own binary, under `cargo lambda watch`.

use jobplane_tests::{Cell, text};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::json;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A directory with `cargo-lambda`, installed into `target/` if it is not on the PATH.
fn cargo_lambda() -> PathBuf {
    let on_path = Command::new("cargo-lambda").args(["lambda", "--version"]).output();
    if on_path.is_ok_and(|output| output.status.success()) {
        return PathBuf::new();
    }
    let environment = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/cargo-lambda");
    let programs = environment.join("bin");
    if !programs.join("cargo-lambda").exists() {
        let made = Command::new("python3").args(["-m", "venv"]).arg(&environment).status();
        assert!(made.is_ok_and(|status| status.success()), "install python3 with venv, or cargo-lambda");
        let installed =
            Command::new(programs.join("pip")).args(["install", "--quiet", "cargo-lambda"]).status();
        assert!(installed.is_ok_and(|status| status.success()), "pip install cargo-lambda");
    }
    programs
}

/// `cargo lambda watch`, ended with its whole group.
struct Watch(Child);

impl Watch {
    fn start(cell: &Cell, port: u16) -> Self {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let path = format!("{}:{}", cargo_lambda().display(), std::env::var("PATH").unwrap_or_default());
        let child = Command::new("cargo")
            .args(["lambda", "watch", "--invoke-address", "127.0.0.1", "--ignore-changes", "--disable-cors"])
            .arg("--invoke-port")
            .arg(port.to_string())
            .current_dir(workspace)
            .env("PATH", path)
            .env("DATABASE_URL", &cell.database_url)
            .env("JOBPLANE_ADMIN_TOKEN", &cell.admin)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("cargo runs");
        Self(child)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let group = Pid::from_raw(i32::try_from(self.0.id()).expect("a process id"));
        // It ends its functions on an interrupt, as at a terminal.
        killpg(group, Signal::SIGINT).expect("it runs");
        self.0.wait().expect("it ends");
    }
}

#[tokio::test]
async fn cargo_lambda_watch_serves_a_full_cycle_with_the_real_binaries() {
    let mut cell = Cell::new().await;
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let _watch = Watch::start(&cell, port);
    while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
        tokio::task::yield_now().await;
    }
    cell.url = format!("http://127.0.0.1:{port}");

    assert_eq!(cell.get("/readyz", "").await.ok()["status"], "ok");
    assert_eq!(cell.get("/openapi.json", "").await.ok()["openapi"], "3.1.0");
    (cell.tenant_id, cell.tenant) = cell.new_tenant(json!({"name": "second"})).await;
    cell.worker = cell.new_worker_token(json!({"name": "fleet"})).await;
    let job = cell.new_job(json!({"name": "hello"})).await;
    let id = cell.run(&job).await;
    let (lease, taken) = cell.dequeue(1).await;
    assert_eq!(taken[0]["execution_id"], json!(id));
    cell.heartbeat(&id, &lease).await.ok();
    let line = json!({"at": "2026-01-01T00:00:00Z", "stream": "stdout", "text": "hello"});
    let chunk = json!({"lease_id": lease, "first_seq": 0, "lines": [line]});
    cell.post(&format!("/internal/executions/{id}/logs"), &cell.worker, chunk).await.ok();
    let done = cell.result(&id, &lease, json!({"outcome": "succeeded", "result": {"n": 1}})).await.ok();
    assert_eq!(done["status"], "SUCCEEDED");
    assert_eq!(cell.execution(&id).await["result"], json!({"n": 1}));
    let logs = cell.get(&format!("/executions/{id}/logs"), &cell.tenant).await.ok();
    assert_eq!((text(&logs["lines"][0]["text"]), &logs["finished"]), ("hello".to_owned(), &json!(true)));
    assert_eq!(cell.get("/executions/dlq", &cell.tenant).await.ok()["items"], json!([]));
    assert_eq!(cell.get("/queues", &cell.worker).await.ok()["items"][0]["name"], "default");
    assert_eq!(cell.get("/workers", &cell.admin).await.ok()["items"][0]["worker_id"], "tester");
    cell.get("/executions", &cell.worker).await.refused(403, "wrong_token_kind");
}
