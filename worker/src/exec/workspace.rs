//! An attempt's own directory: where it works, what it is given, what it leaves for its result.

use jobplane_protocol::{Json, limits};
use std::fs::{self, DirBuilder};
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// The file in the output directory that becomes the result.
const RESULT_FILE: &str = "result.json";

/// `work` (the working directory and HOME), `tmp`, `output` and `input.json`. Dropping it removes
/// everything; what cannot be removed is left for the worker to see.
pub(super) struct Workspace {
    directory: PathBuf,
}

impl Workspace {
    /// Makes the directories and writes the input.
    pub(super) fn create(directory: &Path, input: &str) -> io::Result<Self> {
        DirBuilder::new().mode(0o700).create(directory)?;
        let workspace = Self { directory: directory.to_owned() };
        for made in [workspace.work(), workspace.temporary(), workspace.output()] {
            fs::create_dir(made)?;
        }
        fs::write(workspace.input(), input)?;
        Ok(workspace)
    }

    pub(super) fn work(&self) -> PathBuf {
        self.directory.join("work")
    }

    pub(super) fn temporary(&self) -> PathBuf {
        self.directory.join("tmp")
    }

    pub(super) fn output(&self) -> PathBuf {
        self.directory.join("output")
    }

    pub(super) fn input(&self) -> PathBuf {
        self.directory.join("input.json")
    }

    /// What the job left as its result, `None` if nothing; or what is wrong with it.
    pub(super) fn result(&self) -> Result<Option<Json>, String> {
        let path = self.output().join(RESULT_FILE);
        let unreadable = |error: io::Error| format!("{RESULT_FILE} cannot be read: {error}");
        match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreadable(error)),
            // A pipe or a device would never end.
            Ok(metadata) if !metadata.is_file() => {
                return Err(format!("{RESULT_FILE} is not a regular file"));
            }
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
}

impl Drop for Workspace {
    fn drop(&mut self) {
        // The worker looks again, and says what is wrong.
        drop(fs::remove_dir_all(&self.directory));
    }
}
