//! Which files the demo works on: every regular one under a directory, save those of version control and builds.

use anyhow::{Context, ensure};
use std::fs::File;
use std::path::{Path, PathBuf};

/// Directories that are not entered: history, build results, the data of a `jobplane dev`.
const SKIPPED: [&str; 3] = [".git", "target", ".jobplane"];

/// What was found under a directory.
#[derive(Debug, Default)]
pub(super) struct Input {
    /// The directory, absolute.
    pub(super) root: PathBuf,
    /// The files, as paths below the root, in order.
    pub(super) files: Vec<String>,
    /// What was left out that a person may miss, with the reason.
    pub(super) left_out: Vec<String>,
}

impl Input {
    /// Walks the directory. Links are not followed, so the walk ends.
    pub(super) fn under(directory: &Path) -> anyhow::Result<Self> {
        let root =
            directory.canonicalize().with_context(|| format!("there is no {}", directory.display()))?;
        ensure!(root.to_str().is_some(), "the path {} is not UTF-8", root.display());
        let mut input = Self { root, ..Self::default() };
        let mut waiting = vec![input.root.clone()];
        while let Some(folder) = waiting.pop() {
            match std::fs::read_dir(&folder) {
                Ok(entries) => {
                    for entry in entries.flatten() {
                        input.take(&entry, &mut waiting);
                    }
                }
                Err(error) if folder == input.root => {
                    return Err(error).with_context(|| format!("cannot read {}", folder.display()));
                }
                Err(error) => input.left_out.push(format!("{}: {error}", folder.display())),
            }
        }
        input.files.sort_unstable();
        Ok(input)
    }

    /// Notes a file, or a directory to be walked.
    fn take(&mut self, entry: &std::fs::DirEntry, waiting: &mut Vec<PathBuf>) {
        let path = entry.path();
        let Ok(kind) = entry.file_type() else { return };
        if kind.is_dir() {
            if !SKIPPED.iter().any(|skipped| entry.file_name() == *skipped) {
                waiting.push(path);
            }
        } else if kind.is_file() {
            match path.strip_prefix(&self.root).map(|below| below.to_str()) {
                Ok(Some(name)) => match File::open(&path) {
                    Ok(_) => self.files.push(name.to_owned()),
                    Err(error) => self.left_out.push(format!("{name}: {error}")),
                },
                _ => self.left_out.push(format!("{}: the name is not UTF-8", path.display())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn every_regular_file_is_found_once_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &OsStr| {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        };
        for name in ["b", "a/ two words\n", "a/b/-c", ".hidden", "target/no", "a/.git/no", "a/target.rs"] {
            write(OsStr::new(name));
        }
        write(OsStr::from_bytes(b"bad\xff"));
        std::os::unix::fs::symlink(root.path(), root.path().join("loop")).unwrap();
        let input = Input::under(root.path()).unwrap();
        assert_eq!(input.files, [".hidden", "a/ two words\n", "a/b/-c", "a/target.rs", "b"]);
        assert_eq!(input.left_out.len(), 1, "{:?}", input.left_out);
    }
}
