//! Fetching what a job left as its result: one regular file of bounded size, and nothing that leads elsewhere.

use super::Engine;
use super::create::{output_path, result_path};
use super::engine::is_absent;
use crate::result_file::{self, RESULT_FILE};
use bollard::container::PathStatResponse;
use bollard::errors::Error as EngineError;
use bollard::query_parameters::{ContainerArchiveInfoOptionsBuilder, DownloadFromContainerOptionsBuilder};
use futures_util::StreamExt;
use jobplane_protocol::{Json, limits};
use std::io;

/// The most that is read of an archive: a result, and what is around it, with room for long names and attributes.
const MAX_ARCHIVE_BYTES: usize = limits::MAX_RESULT_BYTES + 64 * 1024;
/// Of a mode as the engine tells it (Go's): directory, link, pipe, socket, devices, irregular.
const NO_FILE: u32 = 1 << 31 | 1 << 27 | 1 << 26 | 1 << 25 | 1 << 24 | 1 << 21 | 1 << 19;

impl Engine {
    /// The result, `None` if the job left none, or what is wrong with it; or why the engine could not say.
    pub(super) async fn result(&self, name: &str) -> Result<Result<Option<Json>, String>, EngineError> {
        let path = result_path();
        let options = ContainerArchiveInfoOptionsBuilder::default().path(&path).build();
        let found = match self.docker.get_container_archive_info(name, Some(options)).await {
            Ok(found) => found,
            Err(error) if is_absent(&error) => {
                if self.is_link(name).await? {
                    return Ok(Err(result_file::irregular()));
                }
                // It is the same answer if the container is gone.
                return self.docker.inspect_container(name, None).await.map(|_| Ok(None));
            }
            Err(error) => return Err(error),
        };
        if let Err(wrong) = check(&path, &found) {
            return Ok(Err(wrong));
        }
        // Podman says so of every file, and means what a link leads to.
        if !found.link_target.is_empty() && self.is_link(name).await? {
            return Ok(Err(result_file::irregular()));
        }
        let archive = self.fetch(name, &path).await?;
        if archive.len() > MAX_ARCHIVE_BYTES {
            return Ok(Err(result_file::too_large()));
        }
        Ok(unpack(&archive).map(Some))
    }

    /// Whether the result is a link, of which an engine that follows links says what it leads to, or that there is
    /// nothing: in an archive of the directory it stands for itself. It is not seen behind much else, which is harmless:
    /// it leads nowhere out of the container.
    async fn is_link(&self, name: &str) -> Result<bool, EngineError> {
        match self.fetch(name, &output_path()).await {
            Ok(archive) => Ok(has_link(&archive)),
            Err(error) if is_absent(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// An archive of what is there, or its beginning: not much more than a result may have.
    async fn fetch(&self, name: &str, path: &str) -> Result<Vec<u8>, EngineError> {
        let options = DownloadFromContainerOptionsBuilder::default().path(path).build();
        let mut parts = self.docker.download_from_container(name, Some(options));
        let mut archive = Vec::new();
        while archive.len() <= MAX_ARCHIVE_BYTES
            && let Some(part) = parts.next().await
        {
            archive.extend_from_slice(&part?);
        }
        Ok(archive)
    }
}

/// The container has ended, and its volume is nobody else's: what is found is what will be fetched.
fn check(path: &str, found: &PathStatResponse) -> Result<(), String> {
    let is_link = !found.link_target.is_empty() && found.link_target != path;
    if is_link || found.file_mode & NO_FILE != 0 {
        return Err(result_file::irregular());
    }
    if usize::try_from(found.size).is_ok_and(|size| size > limits::MAX_RESULT_BYTES) {
        return Err(result_file::too_large());
    }
    Ok(())
}

/// Nothing is written anywhere, so that no name leads out of anything; but it is the one file, or nothing is taken.
fn unpack(archive: &[u8]) -> Result<Json, String> {
    let unreadable = |error: io::Error| result_file::unreadable(&error);
    let mut archive = tar::Archive::new(archive);
    let mut entries = archive.entries().map_err(unreadable)?;
    let entry = entries.next().ok_or_else(|| unreadable(io::ErrorKind::UnexpectedEof.into()))?;
    let entry = entry.map_err(unreadable)?;
    if !entry.header().entry_type().is_file() {
        return Err(result_file::irregular());
    }
    if *entry.path_bytes() != *RESULT_FILE.as_bytes() {
        return Err(format!("the engine handed out another file than {RESULT_FILE}"));
    }
    let result = result_file::read(entry)?;
    match entries.next() {
        None => Ok(result),
        Some(_) => Err(format!("the engine handed out more than {RESULT_FILE}")),
    }
}

/// Whether it is a link in an archive of the output directory, as far as that was read.
fn has_link(archive: &[u8]) -> bool {
    let is_link = |entry: tar::Entry<'_, _>| {
        let path = entry.path_bytes();
        let before = path.strip_suffix(RESULT_FILE.as_bytes());
        before.is_some_and(|before| [&b"output/"[..], b"./", b""].contains(&before))
            && entry.header().entry_type().is_symlink()
    };
    let mut archive = tar::Archive::new(archive);
    archive.entries().is_ok_and(|entries| entries.map_while(Result::ok).any(is_link))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tar::EntryType;

    /// An archive of these: what each is, what it is called, and what it holds.
    fn archive(entries: &[(EntryType, &str, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (kind, name, text) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_size(text.len() as u64);
            // As bytes: no path of such a name would be taken.
            header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
            if kind.is_symlink() || kind.is_hard_link() {
                header.set_link_name("/etc/passwd").unwrap();
            }
            header.set_cksum();
            builder.append(&header, text.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn an_archive_of_anything_but_a_file_is_no_result() {
        let one = |kind, text| unpack(&archive(&[(kind, RESULT_FILE, text)]));
        assert_eq!(one(EntryType::Regular, "[1]").unwrap().get(), "[1]");
        for kind in [
            EntryType::Symlink,
            EntryType::Link,
            EntryType::Fifo,
            EntryType::Char,
            EntryType::Block,
            EntryType::Directory,
        ] {
            assert_eq!(one(kind, "").unwrap_err(), "result.json is not a regular file", "{kind:?}");
        }
        assert!(one(EntryType::GNUSparse, "").is_err());
    }

    #[test]
    fn an_archive_of_another_file_or_of_several_is_no_result() {
        let file = EntryType::Regular;
        for name in ["../result.json", "/result.json", "../../etc/passwd", "a/result.json", "other.json"] {
            let wrong = unpack(&archive(&[(file, name, "1")])).unwrap_err();
            assert_eq!(wrong, "the engine handed out another file than result.json", "{name}");
        }
        let many = archive(&[(file, RESULT_FILE, "1"), (file, "../../etc/passwd", "2")]);
        assert_eq!(unpack(&many).unwrap_err(), "the engine handed out more than result.json");
        assert!(unpack(&[]).unwrap_err().starts_with("result.json cannot be read"));
    }

    #[test]
    fn an_archive_that_says_it_is_huge_is_no_result_and_nothing_is_kept_free_for_it() {
        let large = "1".repeat(limits::MAX_RESULT_BYTES + 1);
        let file = |text| archive(&[(EntryType::Regular, RESULT_FILE, text)]);
        assert!(unpack(&file(&large)).unwrap_err().contains("larger"));
        let mut claims = file("[1]");
        let mut header = tar::Header::from_byte_slice(&claims[..512]).clone();
        header.set_size(1 << 50);
        header.set_cksum();
        claims[..512].copy_from_slice(header.as_bytes());
        assert!(unpack(&claims).is_err());
    }

    #[test]
    fn a_link_is_seen_in_the_archive_of_its_directory() {
        let directory = (EntryType::Directory, "output/", "");
        let link = EntryType::Symlink;
        let with = |kind, name| has_link(&archive(&[directory, (kind, name, "")]));
        assert!(with(link, "output/result.json"));
        assert!(!with(EntryType::Regular, "output/result.json") && !has_link(&[]));
        assert!(!with(link, "output/a/result.json") && !with(link, "output/other.json"));
    }

    #[test]
    fn what_the_engine_says_of_a_link_a_pipe_or_a_large_file_is_enough_to_refuse_it() {
        let found = |file_mode, link_target: &str, size| PathStatResponse {
            name: "result.json".to_owned(),
            size,
            file_mode,
            modification_time: None,
            link_target: link_target.to_owned(),
        };
        let path = result_path();
        assert!(
            check(&path, &found(0o644, "", 10)).is_ok() && check(&path, &found(0o644, &path, 10)).is_ok()
        );
        for wrong in [
            found(0o644, "/etc/passwd", 10),
            found(0o777 | 1 << 27, "", 10),
            found(0o644 | 1 << 25, &path, 0),
            found(0o644, "", 1 << 30),
        ] {
            assert!(check(&path, &wrong).is_err(), "{wrong:?}");
        }
    }
}
