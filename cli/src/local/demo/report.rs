//! The end of the demo: totals, the slowest files, what was spent, and whether it all agrees.

use super::collect::Outcome;
use super::figures::{Figures, Totals};
use super::files::Input;
use super::victim::Killed;
use indicatif::{HumanBytes, HumanCount};
use jobplane_protocol::Status;
use owo_colors::OwoColorize;
use std::fmt::{self, Display, Formatter};
use std::io;
use std::time::Duration;

/// How many of the slowest files are shown.
const SLOWEST: usize = 5;
/// How many differences are shown.
const SHOWN_DIFFERENCES: usize = 20;

/// What there is to say at the end.
pub(super) struct Report<'a> {
    input: &'a Input,
    outcomes: Vec<Outcome>,
    killed: Option<&'a Killed>,
    took: Duration,
    reported: Totals,
    computed: Totals,
    differences: Vec<String>,
}

impl<'a> Report<'a> {
    /// Compares what the jobs reported with what was computed directly, file by file and in all.
    pub(super) fn new(
        input: &'a Input,
        mut outcomes: Vec<Outcome>,
        computed: &[io::Result<Figures>],
        killed: Option<&'a Killed>,
        took: Duration,
    ) -> Self {
        outcomes.sort_by_key(|outcome| outcome.file);
        let mut report = Self {
            input,
            outcomes,
            killed,
            took,
            reported: Totals::default(),
            computed: Totals::default(),
            differences: Vec::new(),
        };
        for (name, direct) in input.files.iter().zip(computed) {
            match direct {
                Ok(figures) => report.computed += figures,
                Err(error) => report.differences.push(format!("{name:?} cannot be read any more: {error}")),
            }
        }
        for outcome in &report.outcomes {
            if let Ok(figures) = &outcome.figures {
                report.reported += figures;
            }
        }
        let found = report.outcomes.iter().filter_map(|outcome| {
            let name = &input.files[outcome.file];
            difference(outcome, computed[outcome.file].as_ref().ok()).map(|text| format!("{name:?}: {text}"))
        });
        report.differences.extend(found);
        if report.reported != report.computed || report.outcomes.len() != input.files.len() {
            let (reported, computed) = (report.reported, report.computed);
            report.differences.push(format!("in all, jobs reported {reported}; computed: {computed}"));
        }
        report
    }

    /// Whether everything agrees.
    pub(super) fn agrees(&self) -> bool {
        self.differences.is_empty()
    }

    fn slowest(&self) -> impl Iterator<Item = &Outcome> {
        let mut slowest: Vec<&Outcome> = self.outcomes.iter().collect();
        slowest.sort_by_key(|outcome| std::cmp::Reverse(outcome.took));
        slowest.into_iter().take(SLOWEST)
    }

    fn write_attempts(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let spent: u64 = self.outcomes.iter().map(|outcome| u64::from(outcome.tries.unsigned_abs())).sum();
        let again = self.outcomes.iter().filter(|outcome| outcome.attempts > 1).count();
        write!(f, "  attempts   {} spent, {again} executions run again", HumanCount(spent))?;
        match self.killed {
            Some(killed) => {
                writeln!(f, ": {} held {} when it was killed", killed.worker, killed.held.len())
            }
            None => writeln!(f, "; no worker was killed: all was done before one could be caught at work"),
        }
    }

    fn write_check(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.agrees() {
            let verdict = "every line, word, byte and SHA-256 is what a direct count gives";
            return writeln!(f, "  check      {}", verdict.green());
        }
        writeln!(f, "  check      {}", format!("{} differences", self.differences.len()).red())?;
        for difference in self.differences.iter().take(SHOWN_DIFFERENCES) {
            writeln!(f, "             {difference}")?;
        }
        match self.differences.len().saturating_sub(SHOWN_DIFFERENCES) {
            0 => Ok(()),
            more => writeln!(f, "             and {more} more"),
        }
    }
}

impl Display for Report<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n  {} in {:.1} s\n", self.reported.bold(), self.took.as_secs_f64())?;
        for (number, outcome) in self.slowest().enumerate() {
            let title = if number == 0 { "slowest" } else { "" };
            let name = self.input.files[outcome.file].escape_debug();
            writeln!(f, "  {title:<9}{:>6} ms  {name}", outcome.took.as_millis())?;
        }
        writeln!(f)?;
        self.write_attempts(f)?;
        self.write_check(f)
    }
}

impl Display for Totals {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let [files, lines, words] = [self.files, self.lines, self.words].map(HumanCount);
        write!(f, "{files} files, {lines} lines, {words} words, {}", HumanBytes(self.bytes))
    }
}

/// What is wrong with one outcome.
fn difference(outcome: &Outcome, computed: Option<&Figures>) -> Option<String> {
    match (&outcome.figures, computed) {
        _ if outcome.status != Status::Succeeded => {
            let why = outcome.figures.as_ref().err().map_or("", String::as_str);
            Some(format!("its execution ended {}: {why}", outcome.status))
        }
        (Err(error), _) => Some(format!("its result cannot be read: {error}")),
        (Ok(reported), Some(computed)) if reported != computed => {
            Some(format!("reported {reported:?}, computed {computed:?}"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(lines: u64) -> Outcome {
        let figures = Ok(Figures { lines, words: 2, bytes: 3, sha256: "ab".to_owned() });
        Outcome { file: 0, status: Status::Succeeded, figures, attempts: 1, tries: 1, took: Duration::ZERO }
    }

    #[test]
    fn one_wrong_count_is_a_difference() {
        let input = Input { files: vec!["a".to_owned()], ..Input::default() };
        let computed = || [Ok(outcome(1).figures.unwrap())];
        let report = |outcomes| Report::new(&input, outcomes, &computed(), None, Duration::ZERO).agrees();
        assert!(report(vec![outcome(1)]));
        assert!(!report(vec![outcome(2)]));
        assert!(!report(vec![]));
        assert!(!report(vec![outcome(1), outcome(1)]));
        assert!(!report(vec![Outcome { status: Status::Failed, ..outcome(1) }]));
    }
}
