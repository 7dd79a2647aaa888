//! What a job may do and use: every job, by the limits that are set, and as another user than the worker's.

use super::{Ran, exec, execution, run_on};
use crate::JobSettings;
use crate::exec::group;
use jobplane_protocol::Outcome;

async fn bounded(jobs: &JobSettings, script: &str) -> Ran {
    run_on(&exec(jobs), execution(&["sh", "-c", script]), None).await
}

#[tokio::test]
async fn no_job_gains_privileges_or_leaves_its_memory_in_a_file() {
    let ran = bounded(&JobSettings::default(), "grep NoNewPrivs /proc/self/status; ulimit -Hc").await;
    assert_eq!(ran.lines, ["NoNewPrivs:\t1", "0"]);
}

#[tokio::test]
async fn no_job_has_the_terminal_of_its_worker() {
    let ran = bounded(&JobSettings::default(), "cut -d' ' -f6 /proc/self/stat").await;
    let own = nix::unistd::getsid(None).unwrap().to_string();
    assert_ne!(ran.lines, [own], "a session has one terminal, on which its processes may type");
    assert!(ran.lines[0].parse::<i32>().is_ok(), "{:?}", ran.lines);
}

fn all_limits() -> JobSettings {
    JobSettings {
        job_memory_mib: Some(64),
        job_cpu_seconds: Some(5),
        job_open_files: Some(40),
        job_user_processes: Some(1234),
        job_file_mib: Some(3),
        ..JobSettings::default()
    }
}

#[tokio::test]
async fn limits_hold_for_what_a_job_starts_and_cannot_be_raised() {
    let ran = bounded(&all_limits(), "sh -c 'cat /proc/self/limits'").await;
    let limit = |name: &str| {
        let line = ran.lines.iter().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().take(2).map(|value| value.parse().unwrap()).collect::<Vec<u64>>()
    };
    assert_eq!(limit("Max data size"), [64 << 20; 2]);
    assert_eq!(limit("Max cpu time"), [5, 15]);
    assert_eq!(limit("Max open files"), [40; 2]);
    assert_eq!(limit("Max processes"), [1234; 2]);
    assert_eq!(limit("Max file size"), [3 << 20; 2]);
}

#[tokio::test]
async fn no_limit_of_a_job_is_its_wardens_too() {
    let ran = bounded(&all_limits(), "cat /proc/$PPID/limits").await;
    let own = std::fs::read_to_string("/proc/self/limits").unwrap();
    let others = |line: &&str| !line.starts_with("Max core file size");
    let of_the_warden: Vec<_> = ran.lines.iter().map(String::as_str).filter(others).collect();
    assert_eq!(of_the_warden, own.lines().filter(others).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_job_without_limits_has_those_of_its_worker() {
    let ran = bounded(&JobSettings::default(), "cat /proc/self/limits").await;
    let own = std::fs::read_to_string("/proc/self/limits").unwrap();
    let others = |line: &&str| !line.starts_with("Max core file size");
    let of_the_job: Vec<_> = ran.lines.iter().map(String::as_str).filter(others).collect();
    assert_eq!(of_the_job, own.lines().filter(others).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_job_over_its_memory_fails_at_what_it_asks_for() {
    let jobs = JobSettings { job_memory_mib: Some(64), ..JobSettings::default() };
    // `tail` keeps a line that does not end.
    let ending = bounded(&jobs, "head -c 100000000 /dev/zero | tail -n 1 > /dev/null").await.ending;
    assert_eq!((ending.outcome, ending.exit_code), (Outcome::Failed, Some(1)));
    assert!(ending.error.unwrap().contains("memory exhausted"));
}

#[tokio::test]
async fn a_job_over_its_cpu_time_is_killed_and_told_of_its_limit() {
    let jobs = JobSettings { job_cpu_seconds: Some(1), ..JobSettings::default() };
    let ending = bounded(&jobs, "while :; do :; done").await.ending;
    assert_eq!(ending.outcome, Outcome::Failed);
    assert_eq!(ending.error.as_deref(), Some("killed by SIGXCPU: CPU time, limit 1 s"));
}

#[tokio::test]
async fn a_job_over_its_file_size_is_killed_and_told_of_its_limit() {
    let jobs = JobSettings { job_file_mib: Some(1), ..JobSettings::default() };
    let ending = bounded(&jobs, "exec head -c 2000000 /dev/zero > file").await.ending;
    assert_eq!(ending.error.as_deref(), Some("killed by SIGXFSZ: file size, limit 1 MiB"));
}

/// Nobody else can make a process another user's: `cargo test -p jobplane-worker as_root -- --ignored`.
mod as_root {
    use super::*;
    use crate::stub::{eventually, is_running};
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;
    use tempfile::TempDir;

    fn as_user(uid: u32) -> JobSettings {
        JobSettings { job_user: Some(format!("{uid}:{}", uid + 1)), ..JobSettings::default() }
    }

    /// A directory that everybody may look into.
    fn public() -> TempDir {
        let place = tempfile::tempdir().unwrap();
        fs::set_permissions(&place, Permissions::from_mode(0o755)).unwrap();
        place
    }

    #[tokio::test]
    #[ignore = "needs root"]
    async fn a_job_of_another_user_owns_what_it_is_given_and_no_more() {
        let script = r#"
            id -u; id -g; id -G; pwd > "$TMPDIR/file"; cat "$TMPDIR/file" "$JOBPLANE_INPUT"; echo
            echo out > /dev/stdout; echo err > /dev/stderr; stat -c %a .. "$JOBPLANE_INPUT"
            mv "$JOBPLANE_OUTPUT_DIR" "$JOBPLANE_OUTPUT_DIR.moved" || echo kept
            echo '{"n": 1}' > "$JOBPLANE_OUTPUT_DIR/result.json"; chmod 0 ."#;
        let ran = bounded(&as_user(4_000_001), script).await;
        assert_eq!(ran.ending.outcome, Outcome::Succeeded, "{:?}", ran.ending);
        assert_eq!(ran.ending.result.unwrap().get(), r#"{"n": 1}"#);
        let (home, lines): (Vec<_>, Vec<_>) = ran.lines.iter().partition(|line| line.ends_with("/work"));
        for expected in ["4000001", "4000002", "null", "out", "err", "710", "400", "kept"] {
            assert!(lines.iter().any(|line| *line == expected), "{expected}: {lines:?}");
        }
        assert!(!lines.iter().any(|line| line.split(' ').any(|group| group == "0")), "{lines:?}");
        assert!(!Path::new(home[0]).parent().unwrap().exists(), "the directory goes with the attempt");
    }

    #[tokio::test]
    #[ignore = "needs root"]
    async fn a_job_of_another_user_reads_no_token_and_reaches_neither_worker_nor_warden() {
        let place = public();
        let token = place.path().join("token");
        fs::write(&token, "jp_worker_secret").unwrap();
        fs::set_permissions(&token, Permissions::from_mode(0o600)).unwrap();
        let script = format!(
            r#"cat {token} && echo BAD; ln -s {token} "$JOBPLANE_OUTPUT_DIR/link"
            cat "$JOBPLANE_OUTPUT_DIR/link" && echo BAD
            for process in $PPID {worker}; do
                for file in environ mem maps fd/0; do head -c 1 /proc/$process/$file && echo BAD; done
                kill -STOP $process && echo BAD
                kill -KILL $process && echo BAD
            done; echo end"#,
            token = token.display(),
            worker = std::process::id(),
        );
        let ran = bounded(&as_user(4_000_011), &script).await;
        assert_eq!(ran.ending.outcome, Outcome::Succeeded, "{:?}", ran.lines);
        assert!(ran.lines.iter().any(|line| line == "end"), "{:?}", ran.lines);
        assert!(!ran.lines.iter().any(|line| line == "BAD" || line.contains("secret")), "{:?}", ran.lines);
    }

    #[tokio::test]
    #[ignore = "needs root"]
    async fn a_result_that_only_the_warden_can_read_is_none() {
        let place = tempfile::tempdir().unwrap();
        let secret = place.path().join("secret");
        fs::write(&secret, r#""secret""#).unwrap();
        let open = public();
        fs::set_permissions(&open, Permissions::from_mode(0o777)).unwrap();
        let said = open.path().join("pwd");
        let script =
            format!("pwd > {0}.new; mv {0}.new {0}; until [ -e go ]; do sleep 0.01; done", said.display());
        let leased = execution(&["sh", "-c", &script]);
        // A second name of a file, as a job can make one where the kernel does not protect them.
        let linking = async {
            eventually(|| said.exists()).await;
            let work = fs::read_to_string(&said).unwrap();
            let directory = Path::new(work.trim()).parent().unwrap();
            fs::hard_link(&secret, directory.join("output/result.json")).unwrap();
            fs::write(directory.join("work/go"), "").unwrap();
        };
        let exec = exec(&as_user(4_000_021));
        let (ran, ()) = tokio::join!(run_on(&exec, leased, None), linking);
        assert_eq!(ran.ending.error.as_deref(), Some("result.json does not belong to the job"));
        assert!(ran.ending.result.is_none());
    }

    #[tokio::test]
    #[ignore = "needs root"]
    async fn a_library_that_a_job_names_runs_as_the_jobs_user_alone() {
        let place = public();
        fs::set_permissions(&place, Permissions::from_mode(0o777)).unwrap();
        let path = |name: &str| place.path().join(name);
        let code = format!(
            r#"#include <stdio.h>
            #include <unistd.h>
            __attribute__((constructor)) void loaded(void) {{
                FILE *file = fopen("{}", "a");
                if (file) {{ fprintf(file, "%u\n", geteuid()); fclose(file); }}
            }}"#,
            path("seen").display()
        );
        fs::write(path("library.c"), code).unwrap();
        let mut compiler = std::process::Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-o"]).args([path("library.so"), path("library.c")]);
        assert!(compiler.status().unwrap().success());
        fs::write(path("seen"), "").unwrap();
        fs::set_permissions(path("seen"), Permissions::from_mode(0o666)).unwrap();
        let mut leased = execution(&["true"]);
        leased.job.env.insert("LD_PRELOAD".to_owned(), path("library.so").display().to_string());
        let ran = run_on(&exec(&as_user(4_000_081)), leased, None).await;
        assert_eq!(ran.ending.outcome, Outcome::Succeeded, "{:?}", ran.ending);
        assert_eq!(fs::read_to_string(path("seen")).unwrap(), "4000081\n");
    }

    #[tokio::test]
    #[ignore = "needs root"]
    async fn a_set_user_id_program_gives_a_job_nothing() {
        let place = public();
        let program = place.path().join("id");
        fs::copy("/usr/bin/id", &program).unwrap();
        fs::set_permissions(&program, Permissions::from_mode(0o4755)).unwrap();
        let ran = bounded(&as_user(4_000_031), &format!("{} -u", program.display())).await;
        assert_eq!(ran.lines, ["4000031"]);
    }

    #[tokio::test]
    #[ignore = "needs root"]
    async fn a_job_of_another_user_that_forks_too_much_fails_and_leaves_nothing() {
        let jobs = JobSettings { job_user_processes: Some(4), ..as_user(4_000_041) };
        let ran = bounded(&jobs, "for n in 1 2 3 4 5 6; do setsid sleep 1000 & echo $!; done; wait").await;
        assert_eq!(ran.ending.outcome, Outcome::Failed, "{:?}", ran.lines);
        assert!(ran.ending.error.unwrap().contains("Cannot fork"));
        let pids: Vec<_> = ran.lines.iter().filter(|line| line.parse::<u32>().is_ok()).collect();
        assert_eq!(pids.len(), 3, "{:?}", ran.lines);
        assert!(!pids.into_iter().any(|pid| is_running(pid)), "{:?}", ran.lines);
    }

    #[tokio::test]
    #[ignore = "needs root"]
    async fn a_job_of_a_user_that_is_at_its_limit_of_processes_starts_all_the_same() {
        let exec = exec(&JobSettings { job_user_processes: Some(1), ..as_user(4_000_051) });
        let place = public();
        fs::set_permissions(&place, Permissions::from_mode(0o777)).unwrap();
        let (go, there) = (place.path().join("go"), place.path().join("there"));
        let script = format!(": > {}; until [ -e {} ]; do :; done", there.display(), go.display());
        let first = run_on(&exec, execution(&["sh", "-c", &script]), None);
        let second = async {
            eventually(|| there.exists()).await;
            let ending = run_on(&exec, execution(&["true"]), None).await.ending;
            fs::write(&go, "").unwrap();
            ending
        };
        let (first, second) = tokio::join!(first, second);
        assert_eq!(
            (first.ending.outcome, second.outcome),
            (Outcome::Succeeded, Outcome::Succeeded),
            "{second:?}"
        );
    }

    #[tokio::test]
    #[ignore = "needs root"]
    async fn no_group_of_a_worker_that_is_root_in_effect_only_is_its_jobs() {
        const TEST: &str =
            "exec::tests::bounds::as_root::what_a_job_of_a_worker_that_is_root_in_effect_only_is";
        let status = std::process::Command::new("setpriv")
            .args(["--ruid", "65534", "--groups", "7,8"])
            .arg(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", TEST])
            .status();
        assert!(status.unwrap().success());
    }

    #[tokio::test]
    #[ignore = "the one above starts it"]
    async fn what_a_job_of_a_worker_that_is_root_in_effect_only_is() {
        let ran = bounded(&as_user(4_000_061), "id -u; id -ru; id -g; id -rg; id -G").await;
        assert_eq!(ran.lines, ["4000061", "4000061", "4000062", "4000062", "4000062"]);
    }

    #[tokio::test]
    #[ignore = "needs root"]
    async fn a_job_says_who_it_is_unless_its_own_variables_do() {
        let mut leased = execution(&["sh", "-c", "echo $USER $LOGNAME $HOME; pwd"]);
        let jobs = JobSettings { job_user: Some("nobody".to_owned()), ..JobSettings::default() };
        leased.job.env.insert("LOGNAME".to_owned(), "own".to_owned());
        let ran = run_on(&exec(&jobs), leased, None).await;
        assert_eq!(ran.lines[0], format!("nobody own {}", ran.lines[1]));
    }
}

/// Where control groups of version 2 can be made: `.ci/groups` starts a kernel where they can.
mod in_group {
    use super::*;
    use crate::exec::Exec;
    use crate::exec::tests::LONG;
    use std::fs;
    use std::path::PathBuf;
    use std::time::Duration;

    fn memory(mib: u64) -> JobSettings {
        JobSettings { job_memory_mib: Some(mib), ..JobSettings::default() }
    }

    /// The groups of jobs that are there.
    fn groups() -> Vec<PathBuf> {
        let place = group::place(&memory(64)).unwrap().unwrap();
        let entries = fs::read_dir(place).unwrap().map(|entry| entry.unwrap().path());
        let is_of_a_job = |path: &PathBuf| path.is_dir() && !path.ends_with("jobplane-worker");
        entries.filter(is_of_a_job).collect()
    }

    #[tokio::test]
    #[ignore = "needs control groups"]
    async fn all_processes_of_a_job_share_its_memory_and_are_killed_together() {
        let each = "head -c 40000000 /dev/zero | tail -n 1 > /dev/null";
        let script = format!("trap '' TERM; setsid sh -c '{each}; sleep 60' & {each}; sleep 60");
        let ending = bounded(&memory(64), &script).await.ending;
        assert_eq!(ending.outcome, Outcome::Failed);
        assert_eq!(ending.error.as_deref(), Some("killed for want of memory: limit 64 MiB"));
        assert_eq!(groups(), Vec::<PathBuf>::new());
    }

    #[tokio::test]
    #[ignore = "needs control groups"]
    async fn what_a_job_reserves_and_does_not_use_is_not_its_memory() {
        let ran = bounded(&memory(64), "ulimit -d; ulimit -v; cat /proc/self/cgroup").await;
        assert_eq!(ran.ending.outcome, Outcome::Succeeded, "{:?}", ran.ending);
        assert_eq!(ran.lines[..2], ["unlimited", "unlimited"]);
        assert!(ran.lines[2].starts_with("0::/service/jobplane-"), "{:?}", ran.lines);
        assert_ne!(ran.lines[2], "0::/service/jobplane-worker");
    }

    #[tokio::test]
    #[ignore = "needs control groups"]
    async fn a_job_has_no_more_processes_than_it_may_have_and_leaves_none() {
        let jobs = JobSettings { job_processes: Some(5), ..JobSettings::default() };
        let ran =
            bounded(&jobs, "for n in 1 2 3 4 5 6 7 8; do setsid sleep 1000 & echo $n; done; wait").await;
        assert_eq!(ran.ending.outcome, Outcome::Failed, "{:?}", ran.lines);
        assert!(ran.ending.error.unwrap().contains("Cannot fork"), "{:?}", ran.lines);
        assert_eq!(groups(), Vec::<PathBuf>::new(), "a group with a process in it could not be removed");
    }

    #[tokio::test]
    #[ignore = "needs control groups"]
    async fn a_job_has_no_more_of_the_processors_than_it_may_have() {
        let jobs = JobSettings { job_cpus: Some(250_000_000), ..JobSettings::default() };
        let script = "cat /sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup)/cpu.max";
        assert_eq!(bounded(&jobs, script).await.lines, ["25000 100000"]);
    }

    #[tokio::test]
    #[ignore = "needs control groups"]
    async fn a_job_of_another_user_is_in_its_group_and_cannot_leave_it() {
        let jobs = JobSettings { job_user: Some("4000071".to_owned()), ..memory(64) };
        let script =
            "cat /proc/self/cgroup; echo 0 > /sys/fs/cgroup/service/cgroup.procs || cat /proc/self/cgroup";
        let ran = bounded(&jobs, script).await;
        let seen: Vec<_> =
            ran.lines.iter().filter(|line| line.starts_with("0::/service/jobplane-")).collect();
        assert_eq!(seen.len(), 2, "{:?}", ran.lines);
        assert_eq!(seen[0], seen[1]);
    }

    #[tokio::test]
    #[ignore = "needs control groups"]
    async fn groups_that_a_job_makes_in_its_own_go_with_it_and_the_next_job_runs() {
        let exec = exec(&memory(64));
        let script = "cd /sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup) && mkdir -p a/b && ls -d a/b";
        for _ in 0..2 {
            let ran = run_on(&exec, execution(&["sh", "-c", script]), None).await;
            assert_eq!((ran.ending.outcome, &ran.lines[..]), (Outcome::Succeeded, &["a/b".to_owned()][..]));
        }
        assert_eq!(groups(), Vec::<PathBuf>::new());
    }

    #[tokio::test]
    #[ignore = "needs control groups"]
    async fn the_group_of_a_job_whose_warden_was_killed_goes_with_all_that_is_in_it() {
        nix::sys::prctl::set_child_subreaper(true).unwrap();
        let ran = bounded(&memory(64), "setsid sleep 1000 & kill -9 $PPID; sleep 1000").await;
        assert_eq!(ran.ending.error.as_deref(), Some("the job's warden was killed"));
        assert_eq!(groups(), Vec::<PathBuf>::new());
    }

    #[tokio::test]
    #[ignore = "needs control groups"]
    async fn groups_that_were_left_behind_are_removed_by_the_next_worker() {
        let place = group::place(&memory(64)).unwrap().unwrap();
        let made = |name: &str| {
            let path = place.join(name);
            fs::create_dir(&path).unwrap();
            path
        };
        let (old, young) = (made("jobplane-old"), made("jobplane-young"));
        let long_ago = fs::metadata(&young).unwrap().modified().unwrap() - Duration::from_secs(61);
        fs::File::open(&old).unwrap().set_modified(long_ago).unwrap();
        Exec::new(&[], LONG, &memory(64), None).unwrap();
        assert_eq!((old.exists(), young.exists()), (false, true));
        fs::remove_dir(young).unwrap();
    }

    #[test]
    #[ignore = "needs control groups"]
    fn a_worker_that_is_not_alone_in_its_group_makes_none_in_it() {
        let around = group::place(&memory(64)).unwrap().unwrap();
        let shared = around.join("shared");
        fs::create_dir(&shared).unwrap();
        let mut other = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        fs::write(shared.join("cgroup.procs"), other.id().to_string()).unwrap();
        group::enter(&shared).unwrap();
        let refused = group::place(&JobSettings { job_processes: Some(5), ..memory(64) });
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        let falls_back = group::place(&memory(64));
        other.kill().unwrap();
        other.wait().unwrap();
        let alone = group::place(&memory(64));
        group::enter(&around.join("jobplane-worker")).unwrap();
        fs::remove_dir(shared.join("jobplane-worker")).unwrap();
        fs::remove_dir(&shared).unwrap();
        let said = refused.unwrap_err().to_string();
        assert!(
            said.ends_with("/sys/fs/cgroup/service/shared: the worker is not the only process there"),
            "{said}"
        );
        assert_eq!(own, "0::/service/shared\n", "it stays where it was");
        assert_eq!((falls_back.unwrap(), alone.unwrap()), (None, Some(shared)));
    }
}

#[test]
fn a_limit_that_only_a_group_can_keep_is_refused_where_there_is_none() {
    // On a machine with one this shows nothing; `.ci/groups` shows the rest.
    let jobs = JobSettings { job_cpus: Some(500_000_000), ..JobSettings::default() };
    let Err(refused) = group::place(&jobs) else { return };
    let said = refused.to_string();
    assert!(said.contains("need control groups, and the worker can make none: "), "{said}");
}
