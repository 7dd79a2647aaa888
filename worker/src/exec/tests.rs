//! Jobs of every kind, run for real; their log goes to a controller that takes everything.

mod bounds;

use super::{Exec, JobSettings, Wardens};
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
    Exec::new(&[], LONG, jobs, None).unwrap()
}

/// A runtime that can start nothing, as on a machine that has no process left: no variable may hold this.
pub(crate) fn without_means() -> Exec {
    let variables = vec![("A\0".into(), "b".into())];
    Exec { wardens: Wardens::new(variables, std::env::temp_dir(), None), ..exec(&JobSettings::default()) }
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
    super::warden::guard().unwrap();
}

/// See `this_program` in `launch.rs`.
#[test]
#[ignore = "the other tests start it"]
fn this_becomes_the_jobs_of_the_other_tests() {
    let output = std::fs::File::options().write(true).open("/proc/self/fd/3").unwrap();
    nix::unistd::dup2_stdout(output).unwrap();
    nix::unistd::close(3).unwrap();
    super::launch::launch(std::env::args_os().skip_while(|argument| argument != "--").skip(1)).unwrap();
}

async fn run_execution(leased: LeasedExecution, grace: Duration, stop_at: Option<(&str, Stop)>) -> Ran {
    let exec = Exec::new(&["CARGO_PKG_NAME".to_owned()], grace, &JobSettings::default(), None).unwrap();
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
    let (mut log, shipper) = logs::open(client, leases.clone(), Arc::default(), key);
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
    let nowhere = tempfile::tempdir().unwrap().path().join("nowhere");
    let exec = Exec { wardens: Wardens::new(Vec::new(), nowhere, None), ..exec(&JobSettings::default()) };
    let ending = run_on(&exec, execution(&["true"]), None).await.ending;
    assert_eq!(ending.outcome, Outcome::Released);
    assert!(ending.error.is_some_and(|error| error.starts_with("the worker could not make a directory")));
}

/// Whatever else is true of it, exit 0 with this is a failure for good.
async fn fails_for_good(script: &str, error: &str) {
    let ending = sh(script).await.ending;
    let seen = (ending.outcome, ending.exit_code, ending.retryable);
    assert_eq!(seen, (Outcome::Failed, Some(0), Some(false)), "{script}");
    assert!(ending.error.as_deref().is_some_and(|text| text.starts_with(error)), "{:?}", ending.error);
}

#[tokio::test]
async fn exit_0_with_an_invalid_result_fails_for_good() {
    fails_for_good("echo '{' > $JOBPLANE_OUTPUT_DIR/result.json", "result.json is not JSON").await;
    fails_for_good(r#"printf '"\377"' > $JOBPLANE_OUTPUT_DIR/result.json"#, "result.json is not JSON").await;
    fails_for_good(": > $JOBPLANE_OUTPUT_DIR/result.json", "result.json is not JSON").await;
}

#[tokio::test]
async fn exit_0_with_an_oversized_result_fails_for_good() {
    let script = "head -c 1048577 /dev/zero > $JOBPLANE_OUTPUT_DIR/result.json";
    fails_for_good(script, "result.json is larger than").await;
}

#[tokio::test]
async fn exit_0_with_a_result_that_is_no_file_fails_for_good() {
    fails_for_good("mkfifo $JOBPLANE_OUTPUT_DIR/result.json", "result.json is not a regular file").await;
    fails_for_good("mkdir $JOBPLANE_OUTPUT_DIR/result.json", "result.json is not a regular file").await;
    fails_for_good("ln -s /dev/zero $JOBPLANE_OUTPUT_DIR/result.json", "result.json is not a regular file")
        .await;
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
async fn a_job_that_forks_daemons_succeeds_and_they_end_with_it() {
    // Each is an orphan in a session of its own, and the job waits until it is.
    let daemon = "setsid sh -c 'echo $$ >> daemons; exec sleep 1000' > /dev/null 2>&1 &";
    let script = format!(
        "for n in 1 2 3; do ({daemon}) done; until [ $(wc -l < daemons) = 3 ]; do :; done; cat daemons"
    );
    let ran = sh(&format!("touch daemons; {script}")).await;
    assert_eq!((ran.ending.outcome, ran.lines.len()), (Outcome::Succeeded, 3));
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
async fn a_job_that_closes_its_pipes_is_waited_for_and_fails_with_its_exit_code() {
    let ran = sh("exec >&- 2>&-; sleep 0.1; exit 4").await;
    assert_eq!((ran.ending.outcome, ran.ending.exit_code), (Outcome::Failed, Some(4)));
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
async fn a_job_that_writes_invalid_utf_8_succeeds_and_what_is_none_is_replaced() {
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

/// The warden that a job prints as its parent.
async fn guarded_by(exec: &Exec, script: &str) -> (Ran, String) {
    let ran = run_on(exec, execution(&["sh", "-c", &format!("echo $PPID; {script}")]), None).await;
    let warden = ran.lines[0].clone();
    (ran, warden)
}

#[tokio::test]
async fn a_warden_whose_job_ended_by_itself_guards_the_next_and_nothing_of_the_one_is_left_to_the_other() {
    let exec = exec(&JobSettings::default());
    let script = "setsid sleep 1000 & echo $!; touch file; echo more >> $JOBPLANE_INPUT; exit 3";
    let (first, warden) = guarded_by(&exec, script).await;
    assert_eq!(first.ending.exit_code, Some(3));
    assert!(!is_running(&first.lines[1]));
    let (second, same) = guarded_by(&exec, "cat $JOBPLANE_INPUT; echo; ls -a; ls /proc/self/fd").await;
    assert_eq!((second.ending.outcome, same), (Outcome::Succeeded, warden));
    let open = std::process::Command::new("ls").arg("/proc/self/fd").output().unwrap().stdout;
    let expected = format!("null\n.\n..\n{}", String::from_utf8(open).unwrap());
    assert_eq!(second.lines[1..].join("\n"), expected.trim_end());
}

#[tokio::test]
async fn a_warden_whose_job_changed_the_directory_around_its_own_guards_no_other_and_leaves_nothing() {
    let exec = exec(&JobSettings::default());
    let (ran, warden) = guarded_by(&exec, "cd ..; pwd; mv work other; echo mine > input.json").await;
    assert_eq!(ran.ending.outcome, Outcome::Succeeded);
    assert!(!is_running(&warden) && !std::path::Path::new(&ran.lines[1]).exists());
    let (_, other) = guarded_by(&exec, "true").await;
    assert_ne!(other, warden);
}

#[tokio::test]
async fn wardens_that_wait_end_with_their_worker_and_leave_nothing() {
    let exec = exec(&JobSettings::default());
    let (ran, warden) = guarded_by(&exec, "pwd").await;
    let directory = std::path::Path::new(&ran.lines[1]).parent().unwrap();
    assert!(is_running(&warden) && directory.exists());
    drop(exec);
    assert!(!is_running(&warden) && !directory.exists());
}

#[tokio::test]
async fn a_warden_that_was_killed_while_it_waited_is_replaced() {
    let exec = exec(&JobSettings::default());
    let (_, warden) = guarded_by(&exec, "true").await;
    let pid = nix::unistd::Pid::from_raw(warden.parse().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    eventually(|| !is_running(&warden)).await;
    let (ran, other) = guarded_by(&exec, "true").await;
    assert_eq!(ran.ending.outcome, Outcome::Succeeded);
    assert_ne!(other, warden);
}

#[tokio::test]
async fn a_warden_that_was_told_to_end_a_job_guards_no_other() {
    let exec = exec(&JobSettings::default());
    let leased = execution(&["sh", "-c", "echo $PPID; echo ready; exec sleep 1000"]);
    let ran = run_on(&exec, leased, Some(("ready", Stop::Cancel))).await;
    assert_eq!(ran.ending.outcome, Outcome::Cancelled);
    eventually(|| !is_running(&ran.lines[0])).await;
}
