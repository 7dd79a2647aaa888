//! An attempt's own directory: where it works, what it is given, what it leaves for its result.

use jobplane_protocol::{Json, limits};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use tokio::task::spawn_blocking;

/// The file in the output directory that becomes the result.
const RESULT_FILE: &str = "result.json";

/// `work` (the working directory and HOME), `tmp`, `output` and `input.json`, gone after the attempt.
pub(super) struct Workspace {
    directory: TempDir,
}

impl Workspace {
    /// Makes the directories and writes the input.
    pub(super) async fn create(input: &str) -> io::Result<Self> {
        let input = input.to_owned();
        blocking(move || {
            let directory = tempfile::Builder::new().prefix("jobplane-").tempdir()?;
            let workspace = Self { directory };
            for made in [workspace.work(), workspace.temporary(), workspace.output()] {
                fs::create_dir(made)?;
            }
            fs::write(workspace.input(), input)?;
            Ok(workspace)
        })
        .await
    }

    pub(super) fn work(&self) -> PathBuf {
        self.directory.path().join("work")
    }

    pub(super) fn temporary(&self) -> PathBuf {
        self.directory.path().join("tmp")
    }

    pub(super) fn output(&self) -> PathBuf {
        self.directory.path().join("output")
    }

    pub(super) fn input(&self) -> PathBuf {
        self.directory.path().join("input.json")
    }

    /// What the job left as its result, `None` if nothing; or what is wrong with it.
    pub(super) async fn result(&self) -> Result<Option<Json>, String> {
        let path = self.output().join(RESULT_FILE);
        let read = blocking(move || Ok(read_result(&path))).await;
        read.unwrap_or_else(|error| Err(format!("{RESULT_FILE} cannot be read: {error}")))
    }

    /// Removes everything.
    pub(super) async fn remove(self) {
        let path = self.directory.path().to_owned();
        if let Err(error) = blocking(move || self.directory.close()).await {
            tracing::warn!(%error, path = %path.display(), "an attempt's directory could not be removed");
        }
    }
}

/// File work does not belong on the threads that everything else runs on.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    spawn_blocking(work).await.map_err(io::Error::other)?
}

fn read_result(path: &Path) -> Result<Option<Json>, String> {
    let unreadable = |error: io::Error| format!("{RESULT_FILE} cannot be read: {error}");
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
        // A pipe or a device would never end.
        Ok(metadata) if !metadata.is_file() => return Err(format!("{RESULT_FILE} is not a regular file")),
        Ok(_) => {}
    }
    let most = limits::MAX_RESULT_BYTES;
    let mut text = Vec::new();
    let file = fs::File::open(path).map_err(unreadable)?;
    file.take(most as u64 + 1).read_to_end(&mut text).map_err(unreadable)?;
    if text.len() > most {
        return Err(format!("{RESULT_FILE} is larger than {most} bytes"));
    }
    serde_json::from_slice(&text).map(Some).map_err(|error| format!("{RESULT_FILE} is not JSON: {error}"))
}
