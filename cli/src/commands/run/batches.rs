//! The lines of a bulk file as requests: checked one by one, and put together as large as a request may be.

use crate::failure::Refusal;
use anyhow::Context;
use jobplane_protocol::{JobId, Json, RunRequest, limits};
use serde::Serialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use std::io::BufRead;

/// What stands around the runs of a request: `{"runs":[` and `]}`.
const FRAME_BYTES: usize = 11;

/// Runs that are sent together.
#[derive(Debug, Serialize)]
pub(super) struct Batch {
    runs: Vec<Box<RawValue>>,
    #[serde(skip)]
    bytes: usize,
}

impl Batch {
    fn empty() -> Self {
        Self { runs: Vec::new(), bytes: FRAME_BYTES }
    }

    /// How many executions it asks for.
    pub(super) fn len(&self) -> usize {
        self.runs.len()
    }

    fn has_room(&self, run: &RawValue) -> bool {
        self.runs.len() < limits::MAX_BATCH && self.bytes + run.get().len() < limits::MAX_REQUEST_BYTES
    }

    fn push(&mut self, run: Box<RawValue>) {
        self.bytes += run.get().len() + 1;
        self.runs.push(run);
    }

    /// The same for the same runs at the same place of the same file for the same job, and for nothing else.
    pub(super) fn idempotency_key(&self, job: JobId, index: usize, salt: Option<&str>) -> String {
        let mut hash = Sha256::new();
        hash.update(job.0.as_bytes());
        hash.update(u64::try_from(index).unwrap_or(u64::MAX).to_be_bytes());
        for text in salt.into_iter().chain([""]).chain(self.runs.iter().map(|run| run.get())) {
            hash.update(u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(text);
        }
        let hash: [u8; 32] = hash.finalize().into();
        let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("bulk-{hash}")
    }
}

/// Reads runs line by line and gives them out in batches.
pub(super) struct Batches<R> {
    lines: R,
    number: u64,
    inputs: bool,
    next: Batch,
}

impl<R: BufRead> Batches<R> {
    /// Of these lines, each a run or, with `inputs`, its input alone. Blank lines are passed over.
    pub(super) fn of(lines: R, inputs: bool) -> Self {
        Self { lines, number: 0, inputs, next: Batch::empty() }
    }

    /// The next batch; `None` at the end.
    ///
    /// # Errors
    /// When a line cannot be read or is no acceptable run; the number of the line is told.
    pub(super) fn next(&mut self) -> anyhow::Result<Option<Batch>> {
        while let Some(run) = self.run()? {
            if self.next.has_room(&run) {
                self.next.push(run);
                continue;
            }
            let full = std::mem::replace(&mut self.next, Batch::empty());
            self.next.push(run);
            return Ok(Some(full));
        }
        let last = std::mem::replace(&mut self.next, Batch::empty());
        Ok((last.len() > 0).then_some(last))
    }

    fn run(&mut self) -> anyhow::Result<Option<Box<RawValue>>> {
        let mut line = Vec::new();
        loop {
            line.clear();
            self.number += 1;
            if self.lines.read_until(b'\n', &mut line).context("cannot read")? == 0 {
                return Ok(None);
            }
            if !line.trim_ascii().is_empty() {
                return self.read(&line).map(Some);
            }
        }
    }

    fn read(&self, line: &[u8]) -> anyhow::Result<Box<RawValue>> {
        let refuse = |why: &dyn std::fmt::Display| Refusal::Usage(format!("line {}: {why}", self.number));
        let read = if self.inputs {
            serde_json::from_slice::<Json>(line)
                .map(|input| RunRequest { input: Some(input), ..RunRequest::default() })
        } else {
            serde_json::from_slice::<RunRequest>(line)
        };
        let run = read.map_err(|error| {
            // The parser counts from this line, which it takes for the first.
            let text = error.to_string();
            let what = text.split(" at line ").next().unwrap_or(&text);
            refuse(&format!("{what} (column {})", error.column()))
        })?;
        Refusal::check(&run).map_err(|refusal| refuse(&refusal))?;
        Ok(serde_json::value::to_raw_value(&run)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(lines: &str) -> Vec<usize> {
        let mut batches = Batches::of(lines.as_bytes(), false);
        std::iter::from_fn(|| batches.next().unwrap()).map(|batch| batch.len()).collect()
    }

    fn refused(lines: &str, inputs: bool) -> String {
        let mut batches = Batches::of(lines.as_bytes(), inputs);
        loop {
            match batches.next() {
                Ok(batch) => assert!(batch.is_some(), "all lines were accepted"),
                Err(error) => return error.to_string(),
            }
        }
    }

    #[test]
    fn a_batch_is_as_large_as_a_request_may_be() {
        assert_eq!(sizes(&"{}\n".repeat(2_001)), [1_000, 1_000, 1]);
        let line = format!("{{\"input\":\"{}\"}}\n", "x".repeat(limits::MAX_INPUT_BYTES - 2));
        let lines = line.repeat(20);
        let mut batches = Batches::of(lines.as_bytes(), false);
        let mut total = 0;
        while let Some(batch) = batches.next().unwrap() {
            let body = serde_json::to_vec(&batch).unwrap();
            assert!(body.len() <= limits::MAX_REQUEST_BYTES && body.len() <= batch.bytes);
            total += batch.len();
        }
        assert_eq!(total, 20);
    }

    #[test]
    fn blank_lines_are_passed_over_and_no_lines_are_no_batch() {
        assert_eq!(sizes("\n{}\r\n  \n{}"), [2]);
        assert!(sizes("\n\n").is_empty());
    }

    #[test]
    fn a_bad_line_is_named() {
        assert!(refused("{}\n\n{\"priority\": 26}\n", false).starts_with("line 3: 26 is not a priority"));
        assert!(refused("{}\n{\"imput\": 1}", false).starts_with("line 2: unknown field `imput`"));
        assert!(refused("1\n2 3\n", true).starts_with("line 2: "));
        let large = format!("\"{}\"", "x".repeat(limits::MAX_INPUT_BYTES));
        assert!(refused(&large, true).starts_with("line 1: input: "));
    }

    #[test]
    fn bare_inputs_are_wrapped() {
        let batch = Batches::of(&b"[1, 2]\nnull\n"[..], true).next().unwrap().unwrap();
        assert_eq!(serde_json::to_string(&batch).unwrap(), r#"{"runs":[{"input":[1, 2]},{"input":null}]}"#);
    }

    #[test]
    fn a_key_tells_apart_what_is_not_the_same_request() {
        let batch = |lines: &str| Batches::of(lines.as_bytes(), true).next().unwrap().unwrap();
        let (one, two) = (JobId(uuid::Uuid::nil()), JobId(uuid::Uuid::max()));
        let key = batch("1\n2").idempotency_key(one, 0, None);
        assert!(key.len() <= limits::MAX_IDEMPOTENCY_KEY_BYTES);
        assert_eq!(batch("1\n2\n").idempotency_key(one, 0, None), key);
        assert_ne!(batch("1\n2").idempotency_key(one, 1, None), key);
        assert_ne!(batch("1\n2").idempotency_key(two, 0, None), key);
        assert_ne!(batch("1\n2").idempotency_key(one, 0, Some("again")), key);
        assert_ne!(batch("12").idempotency_key(one, 0, None), key);
    }
}
