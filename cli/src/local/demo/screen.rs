//! What the demo shows while it runs: a bar with lines above it on a terminal, plain lines elsewhere.

use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};
use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often progress is told where there is no terminal.
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);
const BAR: &str = "{bar:32.cyan/dim} {human_pos} of {human_len} files  {elapsed}  {wide_msg:.yellow}";

/// The live part of the output, on standard error.
pub(super) struct Screen {
    /// Only on a terminal.
    bar: Option<ProgressBar>,
    total: u64,
    /// When progress was last told in a plain line.
    told: Mutex<Instant>,
}

impl Screen {
    /// A screen for so many files.
    pub(super) fn new(total: usize) -> anyhow::Result<Self> {
        let total = total as u64;
        let bar = if std::io::stderr().is_terminal() {
            let bar = ProgressBar::new(total)
                .with_style(ProgressStyle::with_template(BAR)?)
                .with_finish(ProgressFinish::AndClear);
            bar.enable_steady_tick(Duration::from_millis(200));
            Some(bar)
        } else {
            None
        };
        Ok(Self { bar, total, told: Mutex::new(Instant::now()) })
    }

    /// One line that stays.
    pub(super) fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| anstream::eprintln!("{line}")),
            None => anstream::eprintln!("{line}"),
        }
    }

    /// A line that a job wrote. Control characters in it, such as in a file's name, are not for the terminal.
    pub(super) fn say_log(&self, text: &str) {
        let safe: String = text
            .chars()
            .map(|letter| if letter.is_control() { char::REPLACEMENT_CHARACTER } else { letter })
            .collect();
        self.say(&format!("  log | {safe}"));
    }

    /// How many files are done, and what is being waited for.
    pub(super) fn progress(&self, done: usize, note: &str) {
        if let Some(bar) = &self.bar {
            bar.set_position(done as u64);
            bar.set_message(note.to_owned());
            return;
        }
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.elapsed() >= PLAIN_INTERVAL {
            *told = Instant::now();
            let separator = if note.is_empty() { "" } else { "; " };
            self.say(&format!("{done} of {} files done{separator}{note}", self.total));
        }
    }

    /// Takes the bar away.
    pub(super) fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
