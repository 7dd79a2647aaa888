//! Bytes to lines: any bytes, and no line longer than the log takes.

use std::io::BufRead;

/// The longest line, in bytes; a longer one goes on in the next.
const MAX_LINE_BYTES: usize = 16 * 1024;
/// The most bytes of a character that can stand before a cut.
const MAX_CONTINUATION_BYTES: usize = 3;

/// A stream's line in the making.
#[derive(Debug, Default)]
pub(super) struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    /// The lines that these bytes complete, without their ends; what is not UTF-8 is replaced.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        while bytes.read_until(b'\n', &mut self.partial).is_ok_and(|count| count > 0) {
            let ended = self.partial.pop_if(|byte| *byte == b'\n').is_some();
            while self.partial.len() > MAX_LINE_BYTES {
                let rest = self.partial.split_off(cut(&self.partial));
                lines.push(text(&std::mem::replace(&mut self.partial, rest)));
            }
            if ended {
                let line = std::mem::take(&mut self.partial);
                lines.push(text(line.strip_suffix(b"\r").unwrap_or(&line)));
            }
        }
        lines
    }

    /// The last line, if it was never ended.
    pub(super) fn finish(&mut self) -> Option<String> {
        let line = std::mem::take(&mut self.partial);
        (!line.is_empty()).then(|| text(&line))
    }
}

/// The lines of a text that is whole, at least one.
pub(crate) fn split(text: &str) -> Vec<String> {
    let mut lines = Lines::default();
    let mut all = lines.feed(text.as_bytes());
    if !text.ends_with('\n') {
        all.extend(lines.feed(b"\n"));
    }
    all
}

/// Where to cut a line that is too long: at the limit, or just before the character that spans it.
fn cut(line: &[u8]) -> usize {
    let starts_character = |&at: &usize| line[at] & 0b1100_0000 != 0b1000_0000;
    (MAX_LINE_BYTES - MAX_CONTINUATION_BYTES..=MAX_LINE_BYTES)
        .rev()
        .find(starts_character)
        .unwrap_or(MAX_LINE_BYTES)
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(line).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_the_same_however_the_bytes_come() {
        let bytes = b"one\r\ntwo\n\nthree";
        for size in 1..=bytes.len() {
            let mut lines = Lines::default();
            let mut all: Vec<_> = bytes.chunks(size).flat_map(|part| lines.feed(part)).collect();
            all.extend(lines.finish());
            assert_eq!(all, ["one", "two", "", "three"], "in parts of {size}");
        }
    }

    #[test]
    fn a_text_has_the_lines_that_it_would_print() {
        assert_eq!(
            [split(""), split("a"), split("a\n"), split("a\n\n")],
            [vec![""], vec!["a"], vec!["a"], vec!["a", ""]]
        );
    }

    #[test]
    fn a_long_line_is_split_between_characters() {
        let long = "é".repeat(MAX_LINE_BYTES) + "\n";
        for offset in 0..2 {
            let mut lines = Lines::default();
            let all = lines.feed(format!("{}{long}", "x".repeat(offset)).as_bytes());
            assert_eq!(all.concat(), format!("{}{}", "x".repeat(offset), long.trim_end()));
            assert!(all.iter().all(|line| line.len() <= MAX_LINE_BYTES));
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced() {
        let mut lines = Lines::default();
        assert_eq!(lines.feed(b"a\xff\xfeb\n"), ["a\u{fffd}\u{fffd}b"]);
        let garbage = vec![0x80; MAX_LINE_BYTES + 10];
        assert_eq!(lines.feed(&garbage).len(), 1, "a cut is found where no character starts");
    }
}
