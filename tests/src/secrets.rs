//! A Secrets Manager on this machine: `moto_server`, installed into `target/` if it is not on the PATH.

use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

/// A running Secrets Manager that knows what it was told.
pub struct Secrets {
    /// What functions find it by.
    pub url: String,
    port: u16,
    process: Child,
}

impl Secrets {
    /// Starts one that knows nothing.
    pub async fn start() -> Self {
        let port =
            std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port();
        let process = tokio::task::spawn_blocking(move || spawn(port)).await.expect("no panic");
        let mut secrets = Self { url: format!("http://127.0.0.1:{port}"), port, process };
        secrets.answers().await;
        secrets
    }

    /// Ends it; nobody answers at its address any more.
    pub fn go_away(&mut self) {
        self.process.kill().expect("it can be killed");
        self.process.wait().expect("it is reaped");
    }

    /// Starts it again at the same address. It has forgotten everything.
    pub async fn come_back(&mut self) {
        self.process = spawn(self.port);
        self.answers().await;
    }

    async fn answers(&mut self) {
        while tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            assert!(self.process.try_wait().expect("it is a child").is_none(), "moto_server runs");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    /// Makes a secret.
    pub async fn create(&self, name: &str, text: &str) {
        self.call("CreateSecret", json!({"Name": name, "SecretString": text})).await;
    }

    /// Gives it another text.
    pub async fn change(&self, name: &str, text: &str) {
        self.call("PutSecretValue", json!({"SecretId": name, "SecretString": text})).await;
    }

    async fn call(&self, action: &str, body: Value) {
        let signed = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/secretsmanager/aws4_request, SignedHeaders=host, Signature=0";
        let answer = reqwest::Client::new()
            .post(&self.url)
            .header("x-amz-target", format!("secretsmanager.{action}"))
            .header("content-type", "application/x-amz-json-1.1")
            .header("authorization", signed)
            .body(body.to_string())
            .send()
            .await
            .expect("it answers");
        assert!(answer.status().is_success(), "{action}: {}", answer.text().await.unwrap_or_default());
    }
}

impl Drop for Secrets {
    fn drop(&mut self) {
        self.go_away();
    }
}

fn spawn(port: u16) -> Child {
    Command::new(moto_server())
        .args(["-H", "127.0.0.1", "-p", &port.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("moto_server starts")
}

/// The program, found or installed once, whoever asks at the same time.
fn moto_server() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(find_moto_server)
}

fn find_moto_server() -> PathBuf {
    if Command::new("moto_server").arg("--help").output().is_ok_and(|output| output.status.success()) {
        return PathBuf::from("moto_server");
    }
    let environment = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/moto");
    let program = environment.join("bin/moto_server");
    if !program.exists() {
        let made = Command::new("python3").args(["-m", "venv"]).arg(&environment).status();
        assert!(made.is_ok_and(|status| status.success()), "install python3 with venv, or moto_server");
        let installed =
            Command::new(environment.join("bin/pip")).args(["install", "--quiet", "moto[server]"]).status();
        assert!(installed.is_ok_and(|status| status.success()), "pip install moto[server]");
    }
    program
}
