//! Jobs of every kind, run for real; their log goes to a controller that takes everything.

mod bounds;

use super::{Exec, JobSettings};
use crate::agent::{Leases, Progress, Stop};
use crate::logs;
use crate::runtime::{Ending, Runtime};
use crate::stub::{Asked, Reply, Stub, eventually, is_running};
use crate::{Client, Credential};
use jobplane_protocol::{LeaseId, LeasedExecution, Outcome};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// Never reached where it does not matter.
const LONG: Duration = Duration::from_secs(600);

/// Takes every chunk.
pub(crate) fn takes_logs(asked: &Asked) -> Reply {
    let first_seq = asked.body["first_seq"].as_i64().unwrap();
    let count = asked.body["lines"].as_array().unwrap().len();
    Reply::json(202, &json!({ "next_seq": first_seq + i64::try_from(count).unwrap() }))
}

/// The lines that were taken, in the order in which they came.
pub(crate) fn lines(stub: &Stub) -> Vec<String> {
    let chunks = stub.asked("/logs");
    let lines = chunks.iter().flat_map(|chunk| chunk.body["lines"].as_array().unwrap());
    lines.map(|line| line["text"].as_str().unwrap().to_owned()).collect()
}

/// An execution of this command.
pub(crate) fn execution(command: &[&str]) -> LeasedExecution {
    let id = || LeaseId::random().0;
    let job =
        json!({ "id": id(), "name": "job", "image": null, "command": command, "env": { "OWN": "mine" } });
    serde_json::from_value(json!({
        "execution_id": id(), "tenant_id": id(), "attempt": 3, "tries": 2, "max_attempts": 5,
        "timeout_seconds": 600, "queue": "default", "priority": 0, "job": job,
        "input": null, "traceparent": null,
    }))
    .unwrap()
}

/// A runtime of jobs with these bounds.
fn exec(jobs: &JobSettings) -> Exec {
    Exec::new(&[], LONG, jobs).unwrap()
}

/// A runtime that can start nothing, as on a machine that has no process left: no variable may hold this.
pub(crate) fn without_means() -> Exec {
    Exec { variables: vec![("A\0".into(), "b".into())], ..exec(&JobSettings::default()) }
}

/// What a run left behind.
pub(crate) struct Ran {
    pub(crate) ending: Ending,
    pub(crate) lines: Vec<String>,
}

/// See `program` in `process.rs`.
#[test]
#[ignore = "the other tests start it"]
fn this_is_the_warden_of_the_other_tests() {
    let output = std::fs::File::options().write(true).open("/dev/fd/3").unwrap();
    nix::unistd::dup2_stdout(output).unwrap();
    nix::unistd::close(3).unwrap();
    super::warden::guard().unwrap();
}

async fn run_execution(leased: LeasedExecution, grace: Duration, stop_at: Option<(&str, Stop)>) -> Ran {
    let exec = Exec::new(&["CARGO_PKG_NAME".to_owned()], grace, &JobSettings::default()).unwrap();
    run_on(&exec, leased, stop_at).await
}

/// Runs one attempt, and asks it to stop once it has printed a line.
pub(crate) async fn run_on(
    runtime: &dyn Runtime,
    leased: LeasedExecution,
    stop_at: Option<(&str, Stop)>,
) -> Ran {
    let stub = Stub::serve(takes_logs).await;
    let client = Client::new(&stub.url, Credential::None).unwrap();
    let leases = Arc::<Leases>::default();
    let key = (leased.execution_id, LeaseId::random());
    let stop = leases.add(key);
    let (mut log, shipper) = logs::open(client, leases.clone(), key);
    let shipping = tokio::spawn(shipper.ship());
    let stopping = async {
        if let Some((line, why)) = stop_at {
            stub.until(|stub| lines(stub).iter().any(|seen| seen == line)).await;
            leases.stop(&key, why);
        }
    };
    let (ending, ()) =
        tokio::join!(runtime.run(&leased, &mut log, Progress::new(leases.clone(), key), stop), stopping);
    log.close();
    shipping.await.unwrap();
    Ran { ending, lines: lines(&stub) }
}

async fn sh(script: &str) -> Ran {
    run_execution(execution(&["sh", "-c", script]), LONG, None).await
}

#[tokio::test]
async fn exit_0_succeeds_and_the_result_is_what_the_job_wrote() {
    let ran = sh("true").await;
    assert_eq!((ran.ending.outcome, ran.ending.exit_code), (Outcome::Succeeded, Some(0)));
    assert!(ran.ending.result.is_none() && ran.ending.error.is_none());
    let ran = sh(r#"printf '{"n": 1.50}' > "$JOBPLANE_OUTPUT_DIR/result.json""#).await;
    assert_eq!(ran.ending.result.unwrap().get(), r#"{"n": 1.50}"#);
}

#[tokio::test]
async fn another_exit_code_fails_with_the_last_errors() {
    let ran = sh("seq 1 9 >&2; exit 3").await;
    assert_eq!((ran.ending.outcome, ran.ending.exit_code), (Outcome::Failed, Some(3)));
    assert_eq!(ran.ending.error.as_deref(), Some("exit code 3: 5\n6\n7\n8\n9"));
    assert_eq!(ran.ending.retryable, None);
}

#[tokio::test]
async fn a_signal_is_named() {
    let ran = sh("kill -KILL $$").await;
    assert_eq!((ran.ending.outcome, ran.ending.exit_code), (Outcome::Failed, None));
    assert_eq!(ran.ending.error.as_deref(), Some("killed by SIGKILL"));
}

#[tokio::test]
async fn what_can_never_run_is_not_retried() {
    let mut nothing = execution(&[]);
    nothing.job.command = None;
    let mut contained = execution(&["true"]);
    contained.job.image = Some("alpine".to_owned());
    for (leased, error) in [
        (contained, "the job wants the image alpine"),
        (nothing, "the job has no command"),
        (execution(&["no-such-program"]), "program not found: no-such-program"),
        (execution(&["/etc/passwd"]), "not allowed to run /etc/passwd"),
        (execution(&["sh", "\0"]), "cannot run sh"),
    ] {
        let ending = run_execution(leased, LONG, None).await.ending;
        assert_eq!((ending.outcome, ending.retryable), (Outcome::Failed, Some(false)));
        assert!(ending.error.as_deref().is_some_and(|text| text.starts_with(error)), "{:?}", ending.error);
    }
}

#[tokio::test]
async fn an_attempt_that_can_have_no_directory_costs_no_try() {
    let leased = execution(&["true"]);
    let name = format!("jobplane-{}-{}", leased.execution_id, leased.attempt);
    let in_the_way = std::env::temp_dir().join(name);
    std::fs::write(&in_the_way, "").unwrap();
    let ending = run_execution(leased, LONG, None).await.ending;
    std::fs::remove_file(in_the_way).unwrap();
    assert_eq!(ending.outcome, Outcome::Released);
    assert!(ending.error.is_some_and(|error| error.starts_with("the worker could not make a directory")));
}

#[tokio::test]
async fn a_result_that_cannot_be_one_fails_for_good() {
    for (script, error) in [
        ("echo '{' > $JOBPLANE_OUTPUT_DIR/result.json", "result.json is not JSON"),
        (r#"printf '"\377"' > $JOBPLANE_OUTPUT_DIR/result.json"#, "result.json is not JSON"),
        ("head -c 1048577 /dev/zero > $JOBPLANE_OUTPUT_DIR/result.json", "result.json is larger than"),
        ("mkfifo $JOBPLANE_OUTPUT_DIR/result.json", "result.json is not a regular file"),
        ("ln -s /dev/zero $JOBPLANE_OUTPUT_DIR/result.json", "result.json is not a regular file"),
    ] {
        let ending = sh(script).await.ending;
        assert_eq!((ending.outcome, ending.retryable), (Outcome::Failed, Some(false)), "{script}");
        assert!(ending.error.as_deref().is_some_and(|text| text.starts_with(error)), "{:?}", ending.error);
    }
}

#[tokio::test]
async fn a_job_past_its_time_limit_is_stopped() {
    let mut leased = execution(&["sleep", "1000"]);
    leased.timeout_seconds = 0;
    let ending = run_execution(leased, LONG, None).await.ending;
    assert_eq!(ending.outcome, Outcome::TimedOut);
    assert_eq!(ending.error.as_deref(), Some("timed out after 0 s"));
}

#[tokio::test]
async fn a_job_that_ignores_sigterm_is_killed_after_the_grace() {
    let script = "trap '' TERM; echo $$; echo ready; while :; do sleep 0.01; done";
    let leased = execution(&["sh", "-c", script]);
    let ran = run_execution(leased, Duration::from_millis(50), Some(("ready", Stop::Cancel))).await;
    assert_eq!(ran.ending.outcome, Outcome::Cancelled);
    assert!(!is_running(&ran.lines[0]));
}

#[tokio::test]
async fn a_job_may_use_its_grace_to_end_well() {
    let script = "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.01; done";
    let leased = execution(&["sh", "-c", script]);
    let ran = run_execution(leased, LONG, Some(("ready", Stop::Release))).await;
    assert_eq!(ran.ending.outcome, Outcome::Released);
    assert!(ran.lines.iter().any(|line| line == "bye"), "{:?}", ran.lines);
}

#[tokio::test]
async fn a_process_that_the_job_left_in_its_group_ends_with_it() {
    let ran = sh("sleep 1000 & echo $!").await;
    assert_eq!(ran.ending.outcome, Outcome::Succeeded);
    eventually(|| !is_running(&ran.lines[0])).await;
}

#[tokio::test]
async fn a_process_that_left_its_group_session_and_parent_ends_with_the_job() {
    let script =
        "env -i setsid sh -c 'echo $$; sleep 1000 & echo $!; echo end; exec sleep 1000' | cat & wait";
    let ran = run_execution(execution(&["sh", "-c", script]), LONG, Some(("end", Stop::Release))).await;
    assert_eq!((ran.ending.outcome, ran.lines.len()), (Outcome::Released, 3));
    assert!(!ran.lines.iter().any(|pid| is_running(pid)), "{:?}", ran.lines);
}

#[tokio::test]
async fn however_an_attempt_is_ended_nothing_of_it_goes_on() {
    let script = "setsid sleep 1000 & echo $!; echo ready; wait";
    for why in [None, Some(Stop::Cancel), Some(Stop::Release), Some(Stop::Lost)] {
        let mut leased = execution(&["sh", "-c", script]);
        if why.is_none() {
            leased.timeout_seconds = 2;
        }
        let ran = run_execution(leased, LONG, why.map(|why| ("ready", why))).await;
        if why != Some(Stop::Lost) {
            assert_eq!(ran.lines[1], "ready");
        }
        assert!(!is_running(&ran.lines[0]), "{why:?}");
    }
}

#[tokio::test]
async fn a_process_that_forks_and_ends_all_the_time_does_not_outrun_its_end() {
    let lock = tempfile::NamedTempFile::new().unwrap();
    // Each hop is an orphan in a session of its own at once, and holds the lock.
    let hop = r#"echo > on; setsid sh -c "$0" "$0" &"#;
    let script = r#"exec 9< "$1" 2> /dev/null; flock 9; sh -c "$0" "$0"; until [ -e on ]; do :; done; rm on; until [ -e on ]; do :; done; exec 9<&-"#;
    let path = lock.path().to_str().unwrap();
    let ran = run_execution(execution(&["sh", "-c", script, hop, path]), LONG, None).await;
    assert_eq!(ran.ending.outcome, Outcome::Succeeded, "{:?}", ran.lines);
    lock.as_file().try_lock().unwrap();
}

#[tokio::test]
async fn a_job_that_closes_its_output_is_still_waited_for() {
    let ran = sh("exec >&- 2>&-; sleep 0.1; exit 4").await;
    assert_eq!(ran.ending.exit_code, Some(4));
}

#[tokio::test]
async fn every_line_is_logged_in_order_the_unended_last_one_too() {
    let ran = sh("seq 1 20000; printf last").await;
    let mut expected: Vec<_> = (1..=20_000).map(|number| number.to_string()).collect();
    expected.push("last".to_owned());
    assert_eq!(ran.lines, expected);
}

#[tokio::test]
async fn a_job_that_never_ends_a_line_succeeds_and_is_logged_in_pieces() {
    let ran = sh("head -c 100000 /dev/zero | tr '\\0' x").await;
    assert_eq!(ran.ending.outcome, Outcome::Succeeded);
    assert_eq!((ran.lines.len(), ran.lines.concat()), (7, "x".repeat(100_000)));
}

#[tokio::test]
async fn a_job_that_prints_no_text_succeeds_and_what_is_none_is_replaced() {
    let ran = sh("printf 'a\\377b\\n\\303'").await;
    assert_eq!(ran.ending.outcome, Outcome::Succeeded);
    assert_eq!(ran.lines, ["a\u{fffd}b", "\u{fffd}"]);
}

#[tokio::test]
async fn both_streams_are_logged_as_they_come() {
    let script = "for n in 1 2 3; do echo o$n; sleep 0.05; echo e$n >&2; sleep 0.05; done";
    assert_eq!(sh(script).await.lines, ["o1", "e1", "o2", "e2", "o3", "e3"]);
}

#[tokio::test]
async fn a_job_sees_what_is_meant_for_it_and_nothing_else() {
    let mut leased = execution(&["sh", "-c", "cat \"$JOBPLANE_INPUT\"; echo; pwd; env | sort"]);
    leased.input = serde_json::value::RawValue::from_string(r#"{"a": 1.0}"#.to_owned()).ok();
    leased.traceparent = Some("00-trace".to_owned());
    leased.job.env.insert("JOBPLANE_ATTEMPT".to_owned(), "99".to_owned());
    let execution_id = leased.execution_id.to_string();
    let ran = run_execution(leased, LONG, None).await;
    assert_eq!(ran.lines[0], r#"{"a": 1.0}"#);
    let names: Vec<_> = ran.lines[2..].iter().filter_map(|line| line.split_once('=')).collect();
    let value = |wanted: &str| names.iter().find(|(name, _)| *name == wanted).map(|(_, value)| *value);
    assert_eq!(value("JOBPLANE_EXECUTION_ID"), Some(execution_id.as_str()));
    assert_eq!(value("JOBPLANE_ATTEMPT"), Some("3"), "no job can claim another attempt");
    assert_eq!((value("OWN"), value("TRACEPARENT")), (Some("mine"), Some("00-trace")));
    assert_eq!(value("CARGO_PKG_NAME"), Some("jobplane-worker"), "it is on the allow-list");
    assert_eq!(value("CARGO_MANIFEST_DIR"), None, "it is not");
    assert_eq!(value("HOME"), Some(ran.lines[1].as_str()));
    assert!(!std::path::Path::new(&ran.lines[1]).exists(), "the directory goes with the attempt");
}
