//! `result.json`, which a job may leave in its output directory: how much of it is read, and what is wrong with it.

use jobplane_protocol::{Json, limits};
use std::io::{self, Read};

/// The file in the output directory that becomes the result.
pub(crate) const RESULT_FILE: &str = "result.json";

/// What the file holds, or what is wrong with it; no more is read than a result may be.
pub(crate) fn read(file: impl Read) -> Result<Json, String> {
    let most = limits::MAX_RESULT_BYTES;
    let mut text = Vec::new();
    file.take(most as u64 + 1).read_to_end(&mut text).map_err(|error| unreadable(&error))?;
    if text.len() > most {
        return Err(too_large());
    }
    serde_json::from_slice(&text).map_err(|error| format!("{RESULT_FILE} is not JSON: {error}"))
}

pub(crate) fn unreadable(error: &io::Error) -> String {
    format!("{RESULT_FILE} cannot be read: {error}")
}

/// A pipe or a device would never end, and a link leads elsewhere.
pub(crate) fn irregular() -> String {
    format!("{RESULT_FILE} is not a regular file")
}

pub(crate) fn too_large() -> String {
    format!("{RESULT_FILE} is larger than {} bytes", limits::MAX_RESULT_BYTES)
}
