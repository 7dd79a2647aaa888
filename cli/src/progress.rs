//! Progress bars for long work: on stderr, and only if that is a terminal.

use indicatif::{ProgressBar, ProgressStyle};
use std::time::Duration;

/// How often a spinner turns.
const TICK: Duration = Duration::from_millis(100);

/// A bar over so many things.
pub(crate) fn bar(total: u64, things: &str) -> ProgressBar {
    let template = format!("{{bar:30}} {{human_pos}} of {{human_len}} {things}, {{eta}} left");
    styled(ProgressBar::new(total), &template)
}

/// A count of things whose number is not known.
pub(crate) fn counter(things: &str) -> ProgressBar {
    let bar = styled(ProgressBar::new_spinner(), &format!("{{spinner}} {{human_pos}} {things}"));
    bar.enable_steady_tick(TICK);
    bar
}

/// A message that turns while something is waited for.
pub(crate) fn spinner() -> ProgressBar {
    let bar = styled(ProgressBar::new_spinner(), "{spinner} {wide_msg}");
    bar.enable_steady_tick(TICK);
    bar
}

fn styled(bar: ProgressBar, template: &str) -> ProgressBar {
    // A template that cannot be read leaves the bar as it is by default.
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
