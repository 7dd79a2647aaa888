//! Ten thousand executions through `jobplane dev`, the way a user runs it. Minutes long, so only on demand:
//! `cargo test -p jobplane-tests -- --ignored`.

use jobplane_protocol::{ExecutionId, JobId, RunsResponse};
use jobplane_tests::program;
use jobplane_worker::{Client, Credential};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Executions of each of the two commands.
const EACH: usize = 5_000;
/// How long all of it may take.
const LIMIT: Duration = Duration::from_secs(900);

/// `jobplane dev` in a directory of its own. It ends with the test.
pub(crate) struct Dev {
    process: Child,
    place: tempfile::TempDir,
    pub(crate) access: Value,
}

impl Dev {
    pub(crate) fn start(flags: &[&str]) -> Self {
        let place = tempfile::tempdir().unwrap();
        let log = std::fs::File::create(place.path().join("dev.log")).unwrap();
        let mut process = Command::new(program("jobplane"))
            .args(["dev", "--json", "--port", "0", "--data-dir", "data"])
            .args(flags)
            .current_dir(place.path())
            .env_remove("DATABASE_URL")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { process, place, access: serde_json::from_str(&line).unwrap() }
    }

    pub(crate) fn tenant(&self) -> Client {
        let key = self.access["tenant_key"].as_str().unwrap().to_owned();
        Client::new(self.access["url"].as_str().unwrap(), Credential::Value(key)).unwrap()
    }

    /// What the platform, its workers and its database have logged.
    fn logs(&self) -> String {
        let read = |path: &str| std::fs::read_to_string(self.place.path().join(path)).unwrap();
        read("dev.log") + &read("data/postgres/postgres.log")
    }

    /// Stops it as Ctrl-C does, and says whether that went well.
    pub(crate) fn stop(&mut self) -> bool {
        let pid = nix::unistd::Pid::from_raw(self.process.id().try_into().unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        self.process.wait().unwrap().success()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // Its database and workers end with it, also when a test has failed.
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// The regular files of the source tree and their hashes, by a direct call of the same command.
fn files() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let entries = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
    let paths: Vec<_> = entries.filter(|path| path.is_file()).collect();
    let hashed = Command::new("sha256sum").args(&paths).output().unwrap();
    assert!(hashed.status.success(), "{hashed:?}");
    let lines = String::from_utf8(hashed.stdout).unwrap();
    paths.into_iter().zip(lines.lines().map(|line| line[..64].to_owned())).collect()
}

async fn ask(tenant: &Client, name: &str, command: &[&str], runs: Vec<Value>) -> Vec<ExecutionId> {
    let job: Value =
        tenant.post("/jobs").json(&json!({"name": name, "command": command})).send().await.unwrap();
    let job: JobId = serde_json::from_value(job["id"].clone()).unwrap();
    let mut ids = Vec::new();
    for runs in runs.chunks(1_000) {
        let call = tenant.post(format!("/jobs/{job}/runs")).json(&json!({"runs": runs}));
        ids.extend(call.send::<RunsResponse>().await.unwrap().execution_ids);
    }
    ids
}

/// Each of these once it has ended: it must have succeeded, and on its first attempt.
async fn ended(tenant: &Client, ids: &[ExecutionId], began: Instant) -> Vec<Value> {
    let mut ended = Vec::new();
    for id in ids {
        loop {
            let seen: Value = tenant.get(format!("/executions/{id}")).send().await.unwrap();
            if seen["finished_at"].is_string() {
                assert_eq!((&seen["status"], &seen["attempt"]), (&json!("SUCCEEDED"), &json!(1)), "{seen}");
                ended.push(seen);
                break;
            }
            assert!(began.elapsed() < LIMIT, "{seen}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    ended
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes"]
async fn ten_thousand_executions_succeed_on_their_first_attempt_and_nothing_logs_an_error() {
    let (mut dev, files, began) = (Dev::start(&["--workers", "3"]), files(), Instant::now());
    let tenant = dev.tenant();
    let nothing = ask(&tenant, "true", &["/bin/true"], vec![json!({}); EACH]).await;
    let script = r#"printf '"%.64s"' "$(sha256sum "$FILE")" > "$JOBPLANE_OUTPUT_DIR/result.json""#;
    let of = |index: usize| &files[index % files.len()];
    let runs = (0..EACH).map(|index| json!({"env": {"FILE": of(index).0}})).collect();
    let hashes = ask(&tenant, "hash", &["sh", "-ec", script], runs).await;
    ended(&tenant, &nothing, began).await;
    for (index, seen) in ended(&tenant, &hashes, began).await.iter().enumerate() {
        assert_eq!(seen["result"], of(index).1, "{}", of(index).0.display());
    }
    eprintln!("{} executions in {:.1} s", 2 * EACH, began.elapsed().as_secs_f64());
    assert!(dev.stop(), "{}", dev.logs());
    let logs = dev.logs();
    let is_trouble = |line: &&str| ["ERROR", "WARN", "FATAL", "PANIC"].iter().any(|word| line.contains(word));
    let trouble: Vec<_> = logs.lines().filter(is_trouble).collect();
    assert!(trouble.is_empty(), "{trouble:#?}");
}
