//! A file's figures: what a job reports about it, and the same computed directly.

use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::fs::File;
use std::io::{self, Read};
use std::ops::AddAssign;
use std::path::Path;

/// How much of a file is read at once, in bytes.
const CHUNK: usize = 64 * 1024;

/// What is known about one file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Figures {
    /// Ends of lines.
    pub(super) lines: u64,
    /// Runs of bytes without white space between.
    pub(super) words: u64,
    /// Its size.
    pub(super) bytes: u64,
    /// The SHA-256 of its content, in hex.
    pub(super) sha256: String,
}

impl Figures {
    /// Computes them from the file.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let mut hash = Sha256::new();
        let (mut lines, mut words, mut bytes, mut inside) = (0, 0, 0, false);
        let mut chunk = vec![0; CHUNK];
        loop {
            let read = match file.read(&mut chunk) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            hash.update(&chunk[..read]);
            bytes += read as u64;
            for byte in &chunk[..read] {
                // White space as the C locale has it.
                let space = matches!(byte, b' ' | b'\t'..=b'\r');
                lines += u64::from(*byte == b'\n');
                words += u64::from(!space && !inside);
                inside = !space;
            }
        }
        let mut sha256 = String::with_capacity(64);
        for byte in hash.finalize() {
            write!(sha256, "{byte:02x}").expect("a string takes everything");
        }
        Ok(Self { lines, words, bytes, sha256 })
    }
}

/// The figures of many files together.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) files: u64,
    pub(super) lines: u64,
    pub(super) words: u64,
    pub(super) bytes: u64,
}

impl AddAssign<&Figures> for Totals {
    fn add_assign(&mut self, one: &Figures) {
        self.files += 1;
        self.lines += one.lines;
        self.words += one.words;
        self.bytes += one.bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_those_of_the_command_for_every_byte() {
        let directory = tempfile::tempdir().unwrap();
        let mixed: Vec<u8> = (0..=255).chain((0..200_000u32).map(|i| ((i * 7919) >> 3) as u8)).collect();
        let cases: [&[u8]; 6] = [b"", b"one", b"a b\nc\x0bd\x0ce\r\n", b"\n\n \t", b"\x00\xff \x01", &mixed];
        for (number, content) in cases.iter().enumerate() {
            let path = directory.path().join(format!("- {number}'\n\""));
            std::fs::write(&path, content).unwrap();
            let output = directory.path().join(format!("out{number}"));
            std::fs::create_dir(&output).unwrap();
            let ran = std::process::Command::new("/bin/sh")
                .args(["-c", crate::local::demo::job::SCRIPT])
                .envs([("ROOT", directory.path()), ("FILE", &path), ("JOBPLANE_OUTPUT_DIR", &output)])
                .env("LC_ALL", "C")
                .status();
            assert!(ran.unwrap().success());
            let reported = std::fs::read(output.join("result.json")).unwrap();
            let reported: Figures = serde_json::from_slice(&reported).unwrap();
            assert_eq!(reported, Figures::of(&path).unwrap(), "case {number}");
        }
    }
}
