//! What a request must satisfy beyond its types: collected field by field, answered all at once.

use crate::{ErrorCode, FieldError, Json, TenantId, limits};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

/// A request that can say which of its fields are not acceptable.
pub trait Check {
    /// Adds every complaint to `checks`.
    fn check(&self, checks: &mut Checks);
}

/// The complaints about one request.
#[derive(Debug, Default)]
pub struct Checks {
    errors: Vec<FieldError>,
    too_large: Option<ErrorCode>,
}

impl Checks {
    /// The complaints about `request`: none, or the code to answer and the fields.
    pub fn of(request: &impl Check) -> Result<(), (ErrorCode, Vec<FieldError>)> {
        let mut checks = Self::default();
        request.check(&mut checks);
        if checks.errors.is_empty() {
            return Ok(());
        }
        Err((checks.too_large.unwrap_or(ErrorCode::InvalidRequest), checks.errors))
    }

    /// Adds a complaint about `field`, unless there are as many already as an answer names.
    pub fn refuse(&mut self, field: impl Into<String>, detail: impl Into<String>) {
        if self.errors.len() < limits::MAX_FIELD_ERRORS {
            self.errors.push(FieldError::new(field, detail));
        }
    }

    /// Text that PostgreSQL can hold (no NUL) of at most `max` bytes.
    pub fn text(&mut self, field: &str, text: &str, max: usize) {
        if text.contains('\0') {
            self.refuse(field, "must not contain U+0000");
        } else if text.len() > max {
            self.refuse(field, format!("{} bytes, at most {max} are accepted", text.len()));
        }
    }

    /// A name: one line of text that is not blank and has no blanks at its ends.
    pub fn name(&mut self, field: &str, name: &str) {
        if name.trim() != name || name.is_empty() || name.chars().any(char::is_control) {
            self.refuse(field, "must be one line of text without blanks at its ends");
        } else {
            self.text(field, name, limits::MAX_NAME_BYTES);
        }
    }

    /// A number within bounds.
    pub fn range<N: PartialOrd + Copy + std::fmt::Display>(
        &mut self,
        field: &str,
        value: N,
        range: RangeInclusive<N>,
    ) {
        if !range.contains(&value) {
            self.refuse(field, format!("{value} is not within {} to {}", range.start(), range.end()));
        }
    }

    /// A list of at least one and at most `max` items.
    pub fn items(&mut self, field: &str, count: usize, max: usize) {
        if count == 0 || count > max {
            self.refuse(field, format!("{count} items, 1 to {max} are accepted"));
        }
    }

    /// The queues that a worker takes from, each once.
    pub fn queues(&mut self, field: &str, queues: &[String]) {
        self.items(field, queues.len(), limits::MAX_QUEUES);
        queues.iter().for_each(|queue| self.name(field, queue));
        self.each_once(field, queues);
    }

    /// The tenants that a worker takes from, each once.
    pub fn tenants(&mut self, field: &str, tenants: &[TenantId]) {
        self.items(field, tenants.len(), limits::MAX_TENANTS);
        self.each_once(field, tenants.iter().map(|tenant| tenant.0));
    }

    /// What is given twice is a mistake in a configuration.
    fn each_once<T: Ord + std::fmt::Debug>(&mut self, field: &str, values: impl IntoIterator<Item = T>) {
        let mut seen = BTreeSet::new();
        for value in values {
            let complaint = format!("{value:?} is there twice");
            if !seen.insert(value) {
                self.refuse(field, complaint);
            }
        }
    }

    /// JSON of at most `max` bytes and a depth that every reader's parser bears; over the size the
    /// answer's code is `code`.
    pub fn json(&mut self, field: &str, json: &Json, max: usize, code: ErrorCode) {
        if json.get().len() > max {
            self.too_large = Some(code);
            self.refuse(field, format!("{} bytes, at most {max} are accepted", json.get().len()));
        } else if depth(json.get()) > limits::MAX_JSON_DEPTH {
            self.refuse(field, format!("nests deeper than {} levels", limits::MAX_JSON_DEPTH));
        }
    }

    /// A command: a program and its arguments.
    pub fn command(&mut self, field: &str, command: &[String]) {
        if command.first().is_none_or(String::is_empty) {
            self.refuse(field, "must name a program");
        }
        if command.iter().any(|word| word.contains('\0')) {
            self.refuse(field, "must not contain U+0000");
        }
        if command.iter().map(String::len).sum::<usize>() > limits::MAX_COMMAND_BYTES {
            self.refuse(field, format!("at most {} bytes are accepted", limits::MAX_COMMAND_BYTES));
        }
    }

    /// An environment: POSIX names, none of them ours.
    pub fn env(&mut self, field: &str, env: &BTreeMap<String, String>) {
        for (name, value) in env {
            let posix = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
                && name.bytes().next().is_some_and(|b| !b.is_ascii_digit());
            if !posix {
                self.refuse(field, format!("{name:?} is not a variable's name: letters, digits and _ only"));
            } else if name.starts_with("JOBPLANE_") {
                self.refuse(field, format!("{name}: names that begin with JOBPLANE_ are the platform's"));
            } else if value.contains('\0') {
                self.refuse(field, format!("{name} must not contain U+0000"));
            }
        }
        if env.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() > limits::MAX_ENV_BYTES {
            self.refuse(field, format!("at most {} bytes are accepted", limits::MAX_ENV_BYTES));
        }
    }
}

/// How deep valid JSON nests: one pass over its bytes, nothing built.
fn depth(json: &str) -> usize {
    let (mut depth, mut deepest, mut in_text, mut escaped) = (0_usize, 0, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::depth;

    #[test]
    fn depth_counts_brackets_outside_of_text() {
        assert_eq!(depth("1"), 0);
        assert_eq!(depth(r#"{"a": [[], {"b": "[[[\"[["}]}"#), 3);
    }
}
