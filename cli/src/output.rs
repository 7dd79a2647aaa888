//! How commands print: for people or as JSON, in colour only on a terminal, never with control characters of others.

mod layout;

use anstream::{AutoStream, ColorChoice};
use jobplane_protocol::{Json, Status};
use layout::lay_out;
use owo_colors::{OwoColorize, Style};
use serde::Serialize;
use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};

/// What stdout carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Text and tables, for people.
    Human,
    /// One JSON document; a JSON document per line where something is followed.
    Json,
}

/// Where a command prints.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    format: Format,
    is_terminal: bool,
    is_coloured: bool,
}

impl Output {
    /// Looks at stdout once; `NO_COLOR` and `CLICOLOR_FORCE` are honoured.
    pub fn new(format: Format) -> Self {
        let stdout = io::stdout();
        let is_coloured = AutoStream::choice(&stdout) != ColorChoice::Never;
        Self { format, is_terminal: stdout.is_terminal(), is_coloured }
    }

    /// Whether stdout carries JSON.
    pub fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Whether a person looks at stdout.
    pub fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// Prints the value as JSON where that was asked for, else the text.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub fn show(&self, value: &impl Serialize, text: impl FnOnce() -> String) -> anyhow::Result<()> {
        if !self.is_json() {
            return self.print(&text());
        }
        let json = serde_json::to_string(value)?;
        self.print(&if self.is_terminal { escaped(&lay_out(&json)) } else { json })
    }

    /// Prints one line of a stream of documents.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub fn json_line(&self, value: &impl Serialize) -> anyhow::Result<()> {
        let json = serde_json::to_string(value)?;
        self.print(&if self.is_terminal { escaped(&json) } else { json })
    }

    /// Prints text and ends the line.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub fn print_line(&self, text: &str) -> anyhow::Result<()> {
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "{text}")?;
        Ok(stdout.flush()?)
    }

    /// As [`Output::print_line`], but no text is no line.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub fn print(&self, text: &str) -> anyhow::Result<()> {
        if text.is_empty() { Ok(()) } else { self.print_line(text) }
    }

    /// Text of others: as it is for a pipe, without control characters for a terminal.
    pub fn foreign<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if self.is_terminal { printable(text).into() } else { text.into() }
    }

    /// JSON of others: laid out over lines where a person looks.
    pub fn pretty(&self, json: &Json) -> String {
        if self.is_terminal { escaped(&lay_out(json.get())) } else { json.get().to_owned() }
    }

    /// The text in that style, where colour is wanted.
    pub fn paint(&self, text: &str, style: Style) -> String {
        if self.is_coloured && !text.is_empty() { text.style(style).to_string() } else { text.to_owned() }
    }
}

/// The style of a state.
pub(crate) fn status_style(status: Status) -> Style {
    match status {
        Status::Succeeded => Style::new().green(),
        Status::Failed => Style::new().red(),
        Status::Cancelled => Style::new().magenta(),
        Status::Running => Style::new().cyan(),
        Status::Retrying => Style::new().yellow(),
        Status::Pending | Status::Scheduled => Style::new().dimmed(),
    }
}

/// Text that cannot move a cursor, ring a bell or reverse what follows: escape sequences are dropped
/// whole, as are control characters but tab and line feed.
pub(crate) fn printable(text: &str) -> String {
    anstream::adapter::strip_str(text).to_string().chars().filter(|c| !steers(*c)).collect()
}

/// JSON that means the same and cannot do so either.
fn escaped(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if steers(c) { out.push_str(&format!("\\u{:04x}", u32::from(c))) } else { out.push(c) }
    }
    out
}

/// Whether a character does something to a terminal other than showing up.
fn steers(c: char) -> bool {
    let is_layout = matches!(c, '\t' | '\n');
    let reverses = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    (c.is_control() && !is_layout) || reverses
}

/// The same on one line.
pub(crate) fn one_line(text: &str) -> String {
    printable(text).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// An error and what to do about it, in colour; whoever prints it takes that away where it is not wanted.
pub(crate) fn error_text(message: &str, hint: Option<&str>) -> String {
    let hint = hint.map(|hint| format!("\n  {hint}")).unwrap_or_default();
    format!("{} {message}{hint}", "error:".red().bold())
}

/// So many of them, in the plural where it is not one.
pub(crate) fn counted(count: u64, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

/// Tells the person something beside the output, on stderr.
pub(crate) fn say(text: &str) {
    anstream::eprintln!("{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_others_cannot_play_with_a_terminal() {
        assert_eq!(printable("\u{1b}[31mred\u{1b}[0m\r\u{7}\u{9b}x"), "redx");
        assert_eq!(printable("a\tb\nc ü 漢"), "a\tb\nc ü 漢");
        assert_eq!(printable("\u{202e}txt.exe"), "txt.exe");
        assert_eq!(one_line(" a\n\tb "), "a b");
    }

    #[test]
    fn json_of_others_cannot_either_and_keeps_its_meaning() {
        assert_eq!(escaped("{\"a\": \"\u{9b}2J\u{7f}ü\"}\n"), "{\"a\": \"\\u009b2J\\u007fü\"}\n");
    }
}
