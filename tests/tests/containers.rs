//! Jobs in containers of a real engine: how each ends, what it may not do, and that no container is left of any.

use super::worker::{ends_well, eventually, until};
use jobplane_tests::{Cell, Engine, IMAGE, Registry, Worker, text};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long a condition may take to come true.
const LIMIT: Duration = Duration::from_secs(60);
/// Between two looks at it.
const PAUSE: Duration = Duration::from_millis(20);

/// A control plane and an engine.
struct Stand {
    cell: Cell,
    engine: Engine,
}

impl Stand {
    async fn new() -> Self {
        let (cell, engine) = tokio::join!(Cell::new(), Engine::start());
        Self { cell, engine }
    }

    /// A worker with this engine, and what a test has to say about its command besides.
    fn worker(&self, more: impl FnOnce(&mut Command)) -> Worker {
        Worker::start(&self.cell.url, &self.cell.worker, |command| {
            command
                .env("JOBPLANE_RUNTIME", "container")
                .env("JOBPLANE_CONTAINER_HOST", self.engine.socket())
                .env("JOBPLANE_CONTAINER_PULL", "never")
                .env("JOBPLANE_KILL_GRACE_SECONDS", "1")
                .env("SECRET_OF_THE_WORKER", "hidden")
                .stderr(Stdio::null());
            more(command);
        })
    }

    /// Asks for a run of this script in the image.
    async fn shell(&self, script: &str, more: Value) -> String {
        let job = json!({"image": IMAGE, "command": ["sh", "-c", script]});
        self.ask(merged(&job, &more)).await
    }

    /// Asks for a run of this job, which is tried once.
    async fn ask(&self, job: Value) -> String {
        let job = self.cell.new_job(merged(&json!({"retry": {"max_attempts": 1}}), &job)).await;
        let body = json!({"input": {"n": 1.50}});
        text(&self.cell.post(&format!("/jobs/{job}/run"), &self.cell.tenant, body).await.ok()["execution_id"])
    }

    async fn until(&self, id: &str, status: &str) -> Value {
        until(&self.cell, id, status).await
    }

    /// Waits until the job's log has a line that begins so.
    async fn prints(&self, id: &str, line: &str) {
        let began = Instant::now();
        while !self.lines(id).await.iter().any(|(_, seen)| seen.starts_with(line)) {
            assert!(
                began.elapsed() < LIMIT,
                "{id} has not printed {line}: {}",
                self.cell.execution(id).await
            );
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// What was logged, each line with its stream.
    async fn lines(&self, id: &str) -> Vec<(String, String)> {
        let logs = self.cell.get(&format!("/executions/{id}/logs"), &self.cell.tenant).await.ok();
        let lines = logs["lines"].as_array().unwrap().iter();
        lines.map(|line| (text(&line["stream"]), text(&line["text"]))).collect()
    }

    /// Waits until no container is left, nor a volume of one.
    async fn nothing_is_left(&self) {
        let began = Instant::now();
        while !self.engine.is_empty().await {
            assert!(began.elapsed() < LIMIT, "left: {:?}", self.engine.containers().await);
            tokio::time::sleep(PAUSE).await;
        }
    }
}

fn merged(first: &Value, second: &Value) -> Value {
    let mut all = first.clone();
    all.as_object_mut().unwrap().extend(second.as_object().unwrap().clone());
    all
}

fn none() -> Value {
    json!({})
}

/// As of the first attempt of this execution.
fn labels(execution: &str, owner: &str, deadline: &str) -> Value {
    json!({
        "jobplane.owner": owner, "jobplane.deadline": deadline,
        "jobplane.execution": execution, "jobplane.attempt": "1",
    })
}

#[tokio::test]
#[cfg_attr(not(engine), ignore = "needs root, podman, runc, catatonit and busybox-static")]
async fn each_way_that_a_container_can_end_has_its_outcome() {
    let stand = Stand::new().await;
    let good = r#"echo out; echo err >&2; cat "$JOBPLANE_INPUT" > "$JOBPLANE_OUTPUT_DIR/result.json""#;
    let good = stand.shell(good, none()).await;
    let own = stand.ask(json!({"image": "jobplane-test", "command": null})).await;
    let env = r#"test "$OWN" = mine && test "$JOBPLANE_ATTEMPT" = 1 && test -z "$SECRET_OF_THE_WORKER$JOBPLANE_WORKER_TOKEN""#;
    let env = stand.shell(env, json!({"env": {"OWN": "mine"}})).await;
    let bad = stand.shell("seq 1 9 >&2; exit 3", none()).await;
    let killed = stand.shell("kill -KILL $$", none()).await;
    let slow = stand.shell("trap '' TERM; while :; do sleep 0.1; done", json!({"timeout_seconds": 1})).await;
    let no_image = stand.ask(none()).await;
    let absent = stand.ask(json!({"image": "no-such-image"})).await;
    let wrong = stand.ask(json!({"image": "../containers/x"})).await;
    let missing = stand.ask(json!({"image": IMAGE, "command": ["/no/such/program"]})).await;
    let _worker = stand.worker(|_| {});
    assert_eq!(stand.until(&good, "SUCCEEDED").await["result"], json!({"n": 1.50}));
    let mut lines = stand.lines(&good).await;
    lines.sort();
    assert_eq!(lines, [("stderr", "err"), ("stdout", "out")].map(|(a, b)| (a.to_owned(), b.to_owned())));
    stand.until(&own, "SUCCEEDED").await;
    assert_eq!(stand.lines(&own).await, [("stdout".to_owned(), "its own".to_owned())]);
    stand.until(&env, "SUCCEEDED").await;
    let bad = stand.until(&bad, "FAILED").await;
    assert_eq!((&bad["exit_code"], &bad["error"]), (&json!(3), &json!("exit code 3: 5\n6\n7\n8\n9")));
    let killed = stand.until(&killed, "FAILED").await;
    assert_eq!((&killed["exit_code"], &killed["error"]), (&json!(137), &json!("killed by SIGKILL")));
    let slow = stand.until(&slow, "FAILED").await;
    assert_eq!(slow["attempts"][0]["outcome"], "timed_out");
    assert_eq!(slow["error"], "timed out after 1 s");
    for (id, error) in [
        (no_image, "the job has no image"),
        (absent, "this worker's engine has no image no-such-image:latest"),
        (wrong, "../containers/x is not the name of an image"),
    ] {
        let seen = stand.until(&id, "FAILED").await;
        assert!(text(&seen["error"]).starts_with(error), "{seen}");
    }
    let missing = stand.until(&missing, "FAILED").await;
    assert!(text(&missing["error"]).contains("No such file or directory"), "{missing}");
    stand.nothing_is_left().await;
}

#[tokio::test]
#[cfg_attr(not(engine), ignore = "needs root, podman, runc, catatonit and busybox-static")]
async fn a_container_may_use_what_it_was_given_and_nothing_else() {
    let stand = Stand::new().await;
    let hungry = stand.shell("head -c 200000000 /dev/zero | tail", none()).await;
    let network = stand.shell("ip -o link | wc -l", none()).await;
    let writes =
        stand.shell("echo a > /tmp/a && echo b > $JOBPLANE_OUTPUT_DIR/b && ! echo c > /c", none()).await;
    let powers = stand.shell("grep -E 'CapEff|CapBnd|NoNewPrivs' /proc/self/status", none()).await;
    let forks = "i=0; while [ $i -lt 40 ]; do sleep 600 & i=$((i+1)); done; echo all";
    let forks = stand.shell(forks, none()).await;
    let full = stand.shell("! head -c 3000000 /dev/zero > /tmp/a", none()).await;
    let _worker = stand.worker(|command| {
        command
            .env("JOBPLANE_CONTAINER_MEMORY", "64m")
            .env("JOBPLANE_CONTAINER_PIDS", "30")
            .env("JOBPLANE_CONTAINER_TMP", "1m");
    });
    let hungry = stand.until(&hungry, "FAILED").await;
    assert!(text(&hungry["error"]).contains("for want of memory"), "{hungry}");
    stand.until(&network, "SUCCEEDED").await;
    let out = |line: &str| ("stdout".to_owned(), line.to_owned());
    assert_eq!(stand.lines(&network).await, [out("1")], "the loopback device alone");
    stand.until(&writes, "SUCCEEDED").await;
    stand.until(&full, "SUCCEEDED").await;
    stand.until(&powers, "SUCCEEDED").await;
    let none = "0000000000000000";
    let powers = stand.lines(&powers).await;
    assert_eq!(
        powers,
        [out(&format!("CapEff:\t{none}")), out(&format!("CapBnd:\t{none}")), out("NoNewPrivs:\t1")]
    );
    let forks = stand.until(&forks, "FAILED").await;
    assert!(text(&forks["error"]).contains("fork"), "{forks}");
    stand.nothing_is_left().await;
}

#[tokio::test]
#[cfg_attr(not(engine), ignore = "needs root, podman, runc, catatonit and busybox-static")]
async fn a_result_that_is_no_file_of_its_size_is_refused_and_leads_nowhere() {
    let stand = Stand::new().await;
    let mut ids = Vec::new();
    for (script, error) in [
        ("echo '{' > result.json", "result.json is not JSON"),
        ("head -c 1048577 /dev/zero > result.json", "result.json is larger than"),
        ("mkfifo result.json", "result.json is not a regular file"),
        ("mkdir result.json", "result.json is not a regular file"),
        ("echo 1 > other.json; ln -s other.json result.json", "result.json is not a regular file"),
        ("mkdir a; echo 1 > a/result.json; ln -s a/result.json .", "result.json is not a regular file"),
        ("ln -s /etc/passwd result.json", "result.json is not a regular file"),
        ("ln -s /nowhere result.json; echo 1 > other.json", "result.json is not a regular file"),
    ] {
        ids.push((stand.shell(&format!("cd $JOBPLANE_OUTPUT_DIR && {script}"), none()).await, error));
    }
    // Never a file of the machine's: of the container's own none is there.
    let machine = tempfile::tempdir().unwrap();
    std::fs::write(machine.path().join("result.json"), r#""of the machine""#).unwrap();
    let elsewhere =
        format!("rm -r $JOBPLANE_OUTPUT_DIR; ln -s {} $JOBPLANE_OUTPUT_DIR", machine.path().display());
    let elsewhere = stand.shell(&elsewhere, none()).await;
    let _worker = stand.worker(|_| {});
    for (id, error) in ids {
        let seen = stand.until(&id, "FAILED").await;
        assert!(text(&seen["error"]).starts_with(error), "{seen}");
    }
    let elsewhere = stand.until(&elsewhere, "SUCCEEDED").await;
    assert!(elsewhere["result"].is_null(), "{elsewhere}");
    stand.nothing_is_left().await;
}

#[tokio::test]
#[cfg_attr(not(engine), ignore = "needs root, podman, runc, catatonit and busybox-static")]
async fn an_image_is_pulled_and_a_pull_that_fails_says_why_and_is_tried_again_if_that_may_help() {
    let (stand, registry) = tokio::join!(Stand::new(), Registry::start());
    let ask = |image: String| {
        let retry = json!({"max_attempts": 2, "backoff_seconds": 3600});
        stand.ask(json!({"image": image, "command": null, "retry": retry}))
    };
    let good = ask(registry.image("good")).await;
    let slow = ask(registry.image("slow")).await;
    let unknown = ask(registry.image("unknown")).await;
    let private = ask(registry.image("private")).await;
    let busy = ask(registry.image("busy")).await;
    let away = ask("127.0.0.1:1/away".to_owned()).await;
    let _worker = stand.worker(|command| {
        command.env("JOBPLANE_CONTAINER_PULL", "missing").env("JOBPLANE_CONCURRENCY", "6");
    });
    stand.until(&good, "SUCCEEDED").await;
    let lines = stand.lines(&good).await;
    let lines: Vec<_> = lines.iter().map(|(stream, line)| format!("{stream} {line}")).collect();
    assert_eq!(lines[0], format!("stderr [jobplane] pulling {}", registry.image("good")));
    assert!(lines[1].starts_with("stderr [jobplane] pulled 127.0.0.1:"), "{lines:?}");
    assert_eq!(lines[2..], ["stdout pulled"]);
    for (id, status, error) in [
        (unknown, "FAILED", "manifest unknown"),
        (private, "FAILED", "unauthorized"),
        (busy, "RETRYING", "503"),
        (away, "RETRYING", "connection refused"),
    ] {
        let seen = stand.until(&id, status).await;
        let attempt = &seen["attempts"][0];
        let said = text(&attempt["error"]);
        assert!(said.contains("could not be pulled") && said.contains(error), "{seen}");
        assert_eq!(seen["tries"], 1, "{seen}");
    }
    // It has made its way for long when somebody has enough of it.
    stand.prints(&slow, "[jobplane] still pulling after ").await;
    stand.cell.post(&format!("/executions/{slow}/cancel"), &stand.cell.tenant, none()).await.ok();
    stand.until(&slow, "CANCELLED").await;
    stand.nothing_is_left().await;
}

#[tokio::test]
#[cfg_attr(not(engine), ignore = "needs root, podman, runc, catatonit and busybox-static")]
async fn a_container_that_is_stopped_gets_sigterm_and_then_sigkill() {
    let stand = Stand::new().await;
    let polite =
        stand.shell("trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.1; done", none()).await;
    let stubborn = stand.shell("trap '' TERM; echo ready; while :; do sleep 0.1; done", none()).await;
    // With an init process before it, a program that handles no signal hears SIGTERM.
    let plain = stand.shell("echo ready; exec sleep 600", none()).await;
    let given_back = stand.shell("echo ready; exec sleep 600", none()).await;
    let taken = stand.shell("echo ready; exec sleep 600", none()).await;
    let worker = stand.worker(|command| {
        command.env("JOBPLANE_CONCURRENCY", "5");
    });
    for id in [&polite, &stubborn, &plain, &given_back, &taken] {
        stand.prints(id, "ready").await;
    }
    for id in [&polite, &stubborn, &plain] {
        stand.cell.post(&format!("/executions/{id}/cancel"), &stand.cell.tenant, none()).await.ok();
    }
    for id in [&polite, &stubborn, &plain] {
        stand.until(id, "CANCELLED").await;
    }
    stand.prints(&polite, "bye").await;
    let attempt = stand.cell.execution(&taken).await["attempt"].as_i64().unwrap();
    stand.engine.remove(&format!("jobplane-{taken}-{attempt}")).await;
    let seen = stand.until(&taken, "FAILED").await;
    assert!(text(&seen["error"]).starts_with("the job's container was removed"), "{seen}");
    worker.signal(Signal::SIGTERM);
    let seen = stand.until(&given_back, "PENDING").await;
    assert_eq!((&seen["tries"], &seen["attempts"][0]["outcome"]), (&json!(0), &json!("released")));
    ends_well(worker).await;
    stand.nothing_is_left().await;
}

#[tokio::test]
#[cfg_attr(not(engine), ignore = "needs root, podman, runc, catatonit and busybox-static")]
async fn what_a_killed_worker_left_is_removed_by_the_next_and_what_a_living_one_runs_stays() {
    let stand = Stand::new().await;
    let living = stand.shell("echo ready; exec sleep 600", json!({"timeout_seconds": 1000})).await;
    let _other = stand.worker(|command| {
        command.env("JOBPLANE_CONCURRENCY", "1");
    });
    stand.prints(&living, "ready").await;
    let found = stand.engine.containers().await[0].clone();
    let deadline: i64 = text(&found["Labels"]["jobplane.deadline"]).parse().unwrap();
    // Its time, the minute after which the controller ends it, and five for clocks that differ.
    let allowed = deadline - found["Created"].as_i64().unwrap();
    assert!((1300..=1360).contains(&allowed), "{found}");
    let orphan = stand.shell("echo ready; exec sleep 600", none()).await;
    let killed = stand.worker(|command| {
        command.env("JOBPLANE_CONCURRENCY", "1");
    });
    stand.prints(&orphan, "ready").await;
    drop(killed);
    let foreign = "00000000-0000-0000-0000-000000000000 pid:[1] 1 1 1";
    stand.engine.make("jobplane-foreign-1", labels("foreign", foreign, "32503680000")).await;
    stand.engine.make("jobplane-past-1", labels("past", foreign, "1000000000")).await;
    // As of an image that was made of a job's container, or that wants to be spared or taken for one.
    stand.engine.make("another", labels("past", foreign, "1000000000")).await;
    assert_eq!(stand.engine.containers().await.len(), 5);
    let _next = stand.worker(|command| {
        command.env("JOBPLANE_CONCURRENCY", "1");
    });
    let began = Instant::now();
    while stand.engine.containers().await.len() > 3 {
        assert!(began.elapsed() < LIMIT, "{:?}", stand.engine.containers().await);
        tokio::time::sleep(PAUSE).await;
    }
    let mut left: Vec<_> =
        stand.engine.containers().await.iter().map(|found| text(&found["Names"][0])).collect();
    left.sort();
    let living_one = format!("/jobplane-{living}-1");
    let mut expected = ["/another".to_owned(), "/jobplane-foreign-1".to_owned(), living_one];
    expected.sort();
    assert_eq!(left, expected);
    // It still runs, and its end is heard.
    assert_eq!(stand.cell.execution(&living).await["status"], "RUNNING");
    stand.engine.kill(&format!("jobplane-{living}-1")).await;
    assert_eq!(stand.until(&living, "FAILED").await["error"], "killed by SIGKILL");
}

#[tokio::test]
#[cfg_attr(not(engine), ignore = "needs root, podman, runc, catatonit and busybox-static")]
async fn an_attempt_removes_what_an_earlier_one_of_its_execution_left() {
    let stand = Stand::new().await;
    let script = r#"test "$JOBPLANE_ATTEMPT" = 2 && exit; echo ready; exec sleep 600"#;
    let id = stand.shell(script, json!({"retry": {"max_attempts": 2}})).await;
    let worker = stand.worker(|_| {});
    stand.prints(&id, "ready").await;
    // As one on another machine: what is known of it is only that a later attempt has begun.
    worker.signal(Signal::SIGSTOP);
    stand.cell.expire_leases().await;
    stand.cell.fall_due().await;
    let _next = stand.worker(|_| {});
    stand.until(&id, "SUCCEEDED").await;
    stand.nothing_is_left().await;
}

#[tokio::test]
#[cfg_attr(not(engine), ignore = "needs root, podman, runc, catatonit and busybox-static")]
async fn a_job_whose_container_the_engine_lost_in_a_reboot_has_failed() {
    let mut stand = Stand::new().await;
    let id = stand.shell("echo ready; exec sleep 600", none()).await;
    let _worker = stand.worker(|_| {});
    stand.prints(&id, "ready").await;
    stand.engine.reboot().await;
    let seen = stand.until(&id, "FAILED").await;
    assert!(text(&seen["error"]).starts_with("the engine lost the job's container"), "{seen}");
    stand.nothing_is_left().await;
}

#[tokio::test]
#[cfg_attr(not(engine), ignore = "needs root, podman, runc, catatonit and busybox-static")]
async fn an_output_goes_on_when_the_engine_is_back_and_says_that_something_is_missing() {
    let mut stand = Stand::new().await;
    let id = stand.shell("i=0; while :; do i=$((i+1)); echo line $i; sleep 0.1; done", none()).await;
    let _worker = stand.worker(|_| {});
    stand.prints(&id, "line 3").await;
    stand.engine.restart().await;
    stand.prints(&id, "[jobplane] the engine ended the output").await;
    let seen = stand.lines(&id).await.len();
    let began = Instant::now();
    while !stand.lines(&id).await.iter().skip(seen).any(|(_, line)| line.starts_with("line ")) {
        assert!(began.elapsed() < LIMIT, "{:?}", stand.lines(&id).await);
        tokio::time::sleep(PAUSE).await;
    }
    stand.cell.post(&format!("/executions/{id}/cancel"), &stand.cell.tenant, none()).await.ok();
    stand.until(&id, "CANCELLED").await;
    stand.nothing_is_left().await;
}

#[tokio::test]
#[cfg_attr(not(engine), ignore = "needs root, podman, runc, catatonit and busybox-static")]
async fn each_setting_is_seen_from_inside_the_container() {
    let (stand, registry) = tokio::join!(Stand::new(), Registry::start());
    let script = |script: &str| stand.ask(json!({"command": ["sh", "-c", script]}));
    let user = script("id -u; id -g").await;
    let again = script("true").await;
    let network = script("ip -o link | wc -l").await;
    let variable = script("echo $LETTER $SECRET_OF_THE_WORKER").await;
    let cpus = script("cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu/cpu.cfs_period_us").await;
    let shared = script("df -k /dev/shm /tmp | awk 'NR > 1 { print $2 }'").await;
    let forbidden = stand.ask(json!({"image": IMAGE})).await;
    let worker = stand.worker(|command| {
        command
            .env("JOBPLANE_CONTAINER_IMAGE", registry.image("good"))
            .env("JOBPLANE_CONTAINER_IMAGES", "127.0.0.1/,elsewhere")
            .env("JOBPLANE_CONTAINER_PULL", "always")
            .env("JOBPLANE_CONTAINER_USER", "1000:2000")
            .env("JOBPLANE_CONTAINER_NETWORK", "host")
            .env("JOBPLANE_CONTAINER_CPUS", "0.5")
            .env("JOBPLANE_CONTAINER_TMP", "1m")
            .env("JOBPLANE_ENV_ALLOW", "LETTER,JOBPLANE_WORKER_TOKEN")
            .env("LETTER", "a");
    });
    let interfaces = std::fs::read_dir("/sys/class/net").unwrap().count().to_string();
    for (id, expected) in [
        (&user, vec!["1000", "2000"]),
        (&network, vec![interfaces.as_str()]),
        (&variable, vec!["a"]),
        (&cpus, vec!["50000", "100000"]),
        (&shared, vec!["1024", "1024"]),
    ] {
        stand.until(id, "SUCCEEDED").await;
        let lines = stand.lines(id).await;
        let printed = lines.iter().filter(|(stream, _)| stream == "stdout").map(|(_, line)| line.as_str());
        assert_eq!(printed.collect::<Vec<_>>(), expected, "{lines:?}");
    }
    stand.until(&again, "SUCCEEDED").await;
    for id in [&user, &again] {
        let pulled = format!("[jobplane] pulling {}", registry.image("good"));
        assert!(stand.lines(id).await.iter().any(|(_, line)| *line == pulled), "it is pulled each time");
    }
    let forbidden = stand.until(&forbidden, "FAILED").await;
    assert!(
        text(&forbidden["error"]).starts_with("this worker may not run jobplane-test:latest"),
        "{forbidden}"
    );
    drop(worker);
    let root = stand.shell("echo a > /a && cat /a; grep CapBnd /proc/self/status", none()).await;
    let _worker = stand.worker(|command| {
        command
            .env("JOBPLANE_CONTAINER_WRITABLE", "true")
            .env("JOBPLANE_CONTAINER_CAPABILITIES", "CHOWN,KILL");
    });
    stand.until(&root, "SUCCEEDED").await;
    let lines = stand.lines(&root).await;
    assert_eq!(
        lines.iter().map(|(_, line)| line.as_str()).collect::<Vec<_>>(),
        ["a", "CapBnd:\t0000000000000021"]
    );
}

#[tokio::test]
#[cfg_attr(not(engine), ignore = "needs root, podman, runc, catatonit and busybox-static")]
async fn an_engine_without_an_init_process_runs_jobs_as_the_first_process() {
    let (cell, engine) = tokio::join!(Cell::new(), Engine::without_init());
    let without = Stand { cell, engine };
    let with = Stand::new().await;
    for (stand, is_first) in [(&without, true), (&with, false)] {
        let id = stand.shell("echo $$", none()).await;
        let _worker = stand.worker(|_| {});
        stand.until(&id, "SUCCEEDED").await;
        let lines = stand.lines(&id).await;
        assert_eq!(lines == [("stdout".to_owned(), "1".to_owned())], is_first, "{lines:?}");
    }
    without.nothing_is_left().await;
}

#[tokio::test]
#[cfg_attr(not(engine), ignore = "needs root, podman, runc, catatonit and busybox-static")]
async fn a_check_tries_the_engine_and_removes_nothing_of_others() {
    let stand = Stand::new().await;
    let past = "00000000-0000-0000-0000-000000000000 pid:[1] 1 1 1";
    stand.engine.make("jobplane-past-1", labels("past", past, "1000000000")).await;
    for (name, value, why) in [
        ("JOBPLANE_CONTAINER_CAPABILITIES", "CHOWN", None),
        ("JOBPLANE_CONTAINER_CAPABILITIES", "NO_SUCH", Some("NO_SUCH")),
        ("JOBPLANE_CONTAINER_NETWORK", "no-such-network", Some("no-such-network")),
        ("JOBPLANE_CONTAINER_MEMORY", "4k", Some("memory")),
    ] {
        let mut command = tokio::process::Command::new(jobplane_tests::program("jobplane-worker"));
        command
            .args(["--check", "--runtime", "container", "--url", &stand.cell.url])
            .env("JOBPLANE_WORKER_TOKEN", &stand.cell.worker)
            .env("JOBPLANE_CONTAINER_HOST", stand.engine.socket())
            .env(name, value);
        let output = command.output().await.unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let line = said.lines().find(|line| line.contains(" runtime ")).unwrap();
        assert_eq!(output.status.success(), why.is_none(), "{said}");
        match why {
            None => assert!(line.starts_with("ok ") && line.contains("starts containers"), "{said}"),
            Some(why) => assert!(line.starts_with("FAILED ") && line.contains(why), "{said}"),
        }
    }
    let left: Vec<_> = stand.engine.containers().await.iter().map(|found| text(&found["Names"][0])).collect();
    assert_eq!(left, ["/jobplane-past-1"]);
}

#[tokio::test]
async fn a_worker_whose_engine_is_not_there_ends_at_once() {
    let cell = Cell::new().await;
    let mut worker = Worker::start(&cell.url, &cell.worker, |command| {
        command
            .env("JOBPLANE_RUNTIME", "container")
            .env("JOBPLANE_CONTAINER_HOST", "tcp://127.0.0.1:1")
            .stderr(Stdio::null());
    });
    eventually("the worker does not end", || worker.process.try_wait().unwrap().is_some()).await;
    assert!(!worker.process.wait().unwrap().success());
    assert_eq!(cell.number("select count(*) from dequeues").await, 0);
}
