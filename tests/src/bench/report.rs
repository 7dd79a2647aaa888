//! What a scenario found: its parameters, a table of figures by round, and what must hold beside what did.

use serde_json::{Value, json};

/// One scenario's findings.
pub(super) struct Report {
    name: String,
    quick: bool,
    parameters: Vec<(String, String)>,
    figures: Vec<Figure>,
    checks: Vec<Check>,
}

/// One measured thing, once for each round.
struct Figure {
    what: String,
    unit: &'static str,
    rounds: Vec<f64>,
}

/// One line of what must hold.
struct Check {
    line: String,
    measured: String,
    holds: bool,
}

impl Report {
    pub(super) fn new(name: &str, quick: bool) -> Self {
        Self { name: name.to_owned(), quick, parameters: Vec::new(), figures: Vec::new(), checks: Vec::new() }
    }

    /// Says under what conditions it was measured.
    pub(super) fn parameter(&mut self, name: &str, value: impl Into<String>) {
        self.parameters.push((name.to_owned(), value.into()));
    }

    /// Adds what one round measured.
    pub(super) fn figure(&mut self, what: impl Into<String>, unit: &'static str, value: f64) {
        let what = what.into();
        match self.figures.iter_mut().find(|figure| figure.what == what) {
            Some(figure) => figure.rounds.push(value),
            None => self.figures.push(Figure { what, unit, rounds: vec![value] }),
        }
    }

    /// The median over the rounds of a figure that was measured.
    pub(super) fn median(&self, what: &str) -> f64 {
        let figure = self.figures.iter().find(|figure| figure.what == what);
        median(&figure.unwrap_or_else(|| panic!("{what} was not measured")).rounds)
    }

    /// Requires the median of a figure to be at most so much.
    pub(super) fn at_most(&mut self, line: &str, what: &str, bound: f64) {
        let median = self.median(what);
        self.require(line, format!("{what}: {}, at most {}", number(median), number(bound)), median <= bound);
    }

    /// Requires the median of a figure to be at least so much.
    pub(super) fn at_least(&mut self, line: &str, what: &str, bound: f64) {
        let median = self.median(what);
        let measured = format!("{what}: {}, at least {}", number(median), number(bound));
        self.require(line, measured, median >= bound);
    }

    /// Requires something else.
    pub(super) fn require(&mut self, line: &str, measured: String, holds: bool) {
        self.checks.push(Check { line: line.to_owned(), measured, holds });
    }

    /// What must hold and does not.
    pub(super) fn missed(&self) -> impl Iterator<Item = String> {
        let missed = self.checks.iter().filter(|check| !check.holds);
        missed.map(|check| format!("{}: {} ({})", self.name, check.line, check.measured))
    }

    /// Prints all of it, the table last.
    pub(super) fn print(&self, machine: &[(String, String)]) {
        println!("\n# {}{}\n", self.name, if self.quick { ", a tenth of the size" } else { "" });
        for (name, value) in machine.iter().chain(&self.parameters) {
            println!("{name:32} {value}");
        }
        println!("\n{:64} {:>12}  {:9} rounds", "measured", "median", "");
        for figure in &self.figures {
            let rounds: Vec<_> = figure.rounds.iter().map(|&value| number(value)).collect();
            let median = number(median(&figure.rounds));
            println!("{:64} {median:>12}  {:9} {}", figure.what, figure.unit, rounds.join(" "));
        }
        println!("\nholds  must hold");
        for check in &self.checks {
            println!(
                "{:6} {}\n       {}",
                if check.holds { "yes" } else { "NO" },
                check.line,
                check.measured
            );
        }
    }
}

/// All findings for a program to read.
pub(super) fn json(machine: &[(String, String)], reports: &[Report]) -> String {
    let object = |pairs: &[(String, String)]| -> Value {
        pairs
            .iter()
            .map(|(name, value)| (name.clone(), json!(value)))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    let figure = |figure: &Figure| json!({"what": figure.what, "unit": figure.unit, "rounds": figure.rounds, "median": median(&figure.rounds)});
    let check = |check: &Check| json!({"line": check.line, "measured": check.measured, "holds": check.holds});
    let scenarios: Vec<_> = reports
        .iter()
        .map(|report| {
            json!({
                "name": report.name,
                "quick": report.quick,
                "parameters": object(&report.parameters),
                "figures": report.figures.iter().map(figure).collect::<Vec<_>>(),
                "must_hold": report.checks.iter().map(check).collect::<Vec<_>>(),
            })
        })
        .collect();
    format!("{:#}\n", json!({"machine": object(machine), "scenarios": scenarios}))
}

/// The middle value, or the mean of the two in the middle.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// The value that so many in a hundred do not exceed (nearest rank).
pub(super) fn percentile(values: &[f64], percent: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get((sorted.len() * percent).div_ceil(100).saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

/// Three significant digits or so.
fn number(value: f64) -> String {
    let decimals = match value.abs() {
        large if large >= 100.0 => 0,
        medium if medium >= 10.0 => 1,
        small if small >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.decimals$}")
}
