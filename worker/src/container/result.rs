//! Fetching what a job left as its result: one regular file of bounded size, and nothing that leads elsewhere.

use super::Engine;
use super::create::result_path;
use super::engine::is_absent;
use crate::result_file;
use bollard::container::PathStatResponse;
use bollard::errors::Error as EngineError;
use bollard::query_parameters::{ContainerArchiveInfoOptionsBuilder, DownloadFromContainerOptionsBuilder};
use futures_util::StreamExt;
use jobplane_protocol::{Json, limits};
use std::io;

/// What an archive of one file has around it, with room for long names and attributes.
const ARCHIVE_OVERHEAD_BYTES: usize = 64 * 1024;
/// Of a mode as the engine tells it (Go's): directory, link, pipe, socket, devices, irregular.
const NO_FILE: u32 = 1 << 31 | 1 << 27 | 1 << 26 | 1 << 25 | 1 << 24 | 1 << 21 | 1 << 19;

impl Engine {
    /// The result, `None` if the job left none, or what is wrong with it; or why the engine could not say.
    pub(super) async fn result(&self, name: &str) -> Result<Result<Option<Json>, String>, EngineError> {
        let path = result_path();
        let options = ContainerArchiveInfoOptionsBuilder::default().path(&path).build();
        let found = match self.docker.get_container_archive_info(name, Some(options)).await {
            Ok(found) => found,
            Err(error) if is_absent(&error) => return Ok(Ok(None)),
            Err(error) => return Err(error),
        };
        if let Err(wrong) = check(&path, &found) {
            return Ok(Err(wrong));
        }
        let options = DownloadFromContainerOptionsBuilder::default().path(&path).build();
        let mut parts = self.docker.download_from_container(name, Some(options));
        let mut archive = Vec::new();
        while let Some(part) = parts.next().await {
            archive.extend_from_slice(&part?);
            if archive.len() > limits::MAX_RESULT_BYTES + ARCHIVE_OVERHEAD_BYTES {
                return Ok(Err(result_file::too_large()));
            }
        }
        Ok(unpack(&archive).map(Some))
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

fn unpack(archive: &[u8]) -> Result<Json, String> {
    let unreadable = |error: io::Error| result_file::unreadable(&error);
    let mut archive = tar::Archive::new(archive);
    let entry = archive.entries().map_err(unreadable)?.next();
    let entry = entry.ok_or_else(|| unreadable(io::ErrorKind::UnexpectedEof.into()))?.map_err(unreadable)?;
    if !entry.header().entry_type().is_file() {
        return Err(result_file::irregular());
    }
    result_file::read(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_of_anything_but_a_file_is_no_result() {
        let archive = |kind, text: &str| {
            let mut builder = tar::Builder::new(Vec::new());
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_size(text.len() as u64);
            if kind == tar::EntryType::Symlink {
                header.set_link_name("/etc/passwd").unwrap();
            }
            builder
                .append_data(&mut header, "../../result.json".trim_start_matches("../"), text.as_bytes())
                .unwrap();
            builder.into_inner().unwrap()
        };
        assert_eq!(unpack(&archive(tar::EntryType::Regular, "[1]")).unwrap().get(), "[1]");
        for kind in
            [tar::EntryType::Symlink, tar::EntryType::Link, tar::EntryType::Fifo, tar::EntryType::Directory]
        {
            assert_eq!(unpack(&archive(kind, "")).unwrap_err(), "result.json is not a regular file");
        }
        let large = "1".repeat(limits::MAX_RESULT_BYTES + 1);
        assert!(unpack(&archive(tar::EntryType::Regular, &large)).unwrap_err().contains("larger"));
        assert!(unpack(b"").is_err() && unpack(&[1; 2000]).is_err());
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
