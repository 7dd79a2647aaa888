//! A container engine for tests: Podman with everything of its own in a directory, and one image that needs no registry.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::Method;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The image that every engine has: busybox, and a command of its own.
pub const IMAGE: &str = "jobplane-test:latest";
/// How long it may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(120);
/// What makes Podman run as root of a machine like a virtual one: its own limits, no systemd, and in `unshare -m`
/// without the second hierarchy of control groups, beside which runc takes none.
const CONFIGURATION: &str = r#"
[containers]
default_ulimits = ["nofile=1000:1000", "nproc=1000:1000"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
"#;
/// Registries on loopback need no certificate.
const REGISTRIES: &str = r#"
[[registry]]
location = "127.0.0.1"
insecure = true
"#;
const SERVICE: &str = r#"if mountpoint -q /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified; fi
exec podman --storage-driver vfs --root "$0/root" --runroot "$0/run" --tmpdir "$0/tmp" system service --time 0 "unix://$0/s""#;

/// The engine; it and all its containers end with this.
pub struct Engine {
    process: Child,
    directory: tempfile::TempDir,
    http: reqwest::Client,
}

impl Engine {
    /// Starts one with [`IMAGE`].
    pub async fn start() -> Self {
        Self::configured("").await
    }

    /// Starts one that has no init process for containers.
    pub async fn without_init() -> Self {
        Self::configured("init_path = \"/nowhere/init\"").await
    }

    /// With more said of the engine.
    async fn configured(more: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path();
        let configuration = CONFIGURATION.replace("[engine]", &format!("[engine]\n{more}"));
        fs::write(path.join("containers.conf"), configuration).expect("it can be written");
        fs::write(path.join("registries.conf"), REGISTRIES).expect("it can be written");
        let http = reqwest::Client::builder().unix_socket(path.join("s")).build().expect("a client");
        let engine = Self { process: serve(path), directory, http };
        engine.answers().await;
        engine.import().await;
        engine
    }

    /// Ends it, as by a crash, and starts it again: its containers run on meanwhile.
    pub async fn restart(&mut self) {
        self.crash();
        self.start_again().await;
    }

    /// Ends it and all that it runs, and starts it again as after a reboot of its machine.
    pub async fn reboot(&mut self) {
        self.crash();
        self.end_containers();
        for forgotten in ["tmp", "run"] {
            fs::remove_dir_all(self.directory.path().join(forgotten)).expect("it can be removed");
        }
        self.start_again().await;
    }

    fn crash(&mut self) {
        self.process.kill().expect("it can be killed");
        self.process.wait().expect("it is reaped");
        fs::remove_file(self.socket()).expect("it has listened there");
    }

    async fn start_again(&mut self) {
        self.process = serve(self.directory.path());
        self.answers().await;
    }

    /// What watches over a container is no child of the service, and would outlive it.
    fn end_containers(&self) {
        for pid in self.processes() {
            tell(pid, Signal::SIGKILL);
        }
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("s")
    }

    /// The containers that it has, each with its labels.
    pub async fn containers(&self) -> Vec<Value> {
        let listed = self.call(Method::GET, "/containers/json?all=true", None).await;
        listed.as_array().expect("a list").clone()
    }

    /// The volumes that it has.
    pub async fn volumes(&self) -> Vec<Value> {
        let listed = self.call(Method::GET, "/volumes", None).await;
        listed["Volumes"].as_array().cloned().unwrap_or_default()
    }

    /// Whether it has no container, and no volume of one.
    pub async fn is_empty(&self) -> bool {
        self.volumes().await.is_empty() && self.containers().await.is_empty()
    }

    /// The processes of its containers, and what watches over each.
    pub fn processes(&self) -> Vec<i32> {
        monitors(self.directory.path())
    }

    /// Makes a container of [`IMAGE`] with these labels, and starts it.
    pub async fn make(&self, name: &str, labels: Value) {
        let host = json!({"NetworkMode": "none"});
        let body = json!({"Image": IMAGE, "Cmd": ["sleep", "600"], "Labels": labels, "HostConfig": host});
        self.call(Method::POST, &format!("/containers/create?name={name}"), Some(body)).await;
        self.call(Method::POST, &format!("/containers/{name}/start"), None).await;
    }

    /// Kills a container.
    pub async fn kill(&self, name: &str) {
        self.call(Method::POST, &format!("/containers/{name}/kill?signal=KILL"), None).await;
    }

    /// Removes a container.
    pub async fn remove(&self, name: &str) {
        self.call(Method::DELETE, &format!("/containers/{name}?force=true&v=true"), None).await;
    }

    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Value {
        let mut request = self.http.request(method, format!("http://engine/v1.40{path}"));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.expect("the engine answers");
        let status = answer.status();
        let text = answer.text().await.expect("the engine answers to the end");
        assert!(status.is_success(), "{path}: {status}: {text}");
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    async fn answers(&self) {
        let began = Instant::now();
        while self.http.get("http://engine/_ping").send().await.is_err() {
            let log = self.directory.path().join("log");
            assert!(began.elapsed() < START_TIMEOUT, "{}", fs::read_to_string(log).unwrap_or_default());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn import(&self) {
        let archive = files(self.directory.path());
        let path = "/v1.40/images/create?fromSrc=-&repo=jobplane-test&changes=CMD%20%5B%22echo%22,%22its%20own%22%5D";
        let request = self.http.post(format!("http://engine{path}")).body(archive);
        let answer = request.send().await.expect("the engine answers");
        let status = answer.status();
        let text = answer.text().await.expect("the engine answers to the end");
        assert!(status.is_success() && !text.contains("\"error\""), "{status}: {text}");
    }
}

/// Starts the service of an engine that has everything in this directory.
fn serve(path: &Path) -> Child {
    let log =
        fs::File::options().create(true).append(true).open(path.join("log")).expect("it can be written");
    Command::new("unshare")
        .args(["-m", "sh", "-c", SERVICE])
        .arg(path)
        .env("CONTAINERS_CONF", path.join("containers.conf"))
        .env("CONTAINERS_REGISTRIES_CONF", path.join("registries.conf"))
        // What watches over a container leaves a note where it was started when memory was short.
        .current_dir(path)
        // A Ctrl-C is for the test, which ends the engine in order.
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a second handle"))
        .stderr(log)
        .spawn()
        .expect("unshare is there")
}

/// An image's files as an archive: busybox under all its names.
pub(crate) fn files(directory: &Path) -> Vec<u8> {
    let root = directory.join("image");
    for made in ["bin", "tmp", "etc", "proc", "sys", "dev"] {
        fs::create_dir_all(root.join(made)).expect("it can be made");
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).expect("it can be copied");
    fs::write(root.join("etc/passwd"), "root:x:0:0::/:/bin/sh\nsomebody:x:1000:1000::/:/bin/sh\n")
        .expect("it can be written");
    let names = Command::new("/bin/busybox").arg("--list").output().expect("busybox runs").stdout;
    for name in String::from_utf8_lossy(&names).lines().filter(|&name| name != "busybox") {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).expect("it can be made");
    }
    let tar = Command::new("tar").arg("-C").arg(&root).args(["-c", "."]).output().expect("tar runs");
    assert!(tar.status.success());
    tar.stdout
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.end_containers();
        tell(self.process.id().try_into().expect("a process id"), Signal::SIGTERM);
        self.process.wait().expect("it is reaped");
    }
}

/// The processes of the containers, and what watches over each: those that name the directory or run below its
/// monitors.
fn monitors(directory: &Path) -> Vec<i32> {
    let ours = directory.to_string_lossy().into_owned();
    let processes = fs::read_dir("/proc").expect("/proc is there").flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let all: Vec<_> = ids
        .filter_map(|pid| {
            let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let parent = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse::<i32>().ok()?;
            let watches = command.windows(6).any(|part| part == b"conmon")
                && command.windows(ours.len()).any(|part| part == ours.as_bytes());
            Some((pid, parent, watches))
        })
        .collect();
    let watching: Vec<_> = all.iter().filter(|(_, _, watches)| *watches).map(|(pid, ..)| *pid).collect();
    let jobs = all.iter().filter(|(_, parent, _)| watching.contains(parent)).map(|(pid, ..)| *pid);
    watching.iter().copied().chain(jobs).collect()
}

fn tell(pid: i32, signal: Signal) {
    match kill(Pid::from_raw(pid), signal) {
        Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
        Err(error) => panic!("{pid} cannot be ended: {error}"),
    }
}
