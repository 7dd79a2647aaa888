//! What commands do differently where a person looks: colour, layout, questions, and text of others made harmless.

use super::Shell;
use nix::pty::{OpenptyResult, Winsize, openpty};
use serde_json::json;
use std::fs::File;
use std::io::{Read, Write};
use tokio::process::Command;

const SIZE: Winsize = Winsize { ws_row: 40, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };

/// Runs a command on a terminal where this is typed: its exit code and all that the terminal was sent.
async fn typed(mut command: Command, keys: &str) -> (Option<i32>, String) {
    let OpenptyResult { master, slave } = openpty(Some(&SIZE), None).unwrap();
    let mut master = File::from(master);
    let slave = File::from(slave);
    command.env("TERM", "xterm").stdin(slave.try_clone().unwrap());
    let mut child = command.stdout(slave.try_clone().unwrap()).stderr(slave).spawn().unwrap();
    // With it goes the last of our ends, so that reading ends with the command.
    drop(command);
    master.write_all(keys.as_bytes()).unwrap();
    let reading = tokio::task::spawn_blocking(move || {
        let mut shown = Vec::new();
        // A terminal that nobody writes to any more is an error to its reader, not an end.
        let end = master.read_to_end(&mut shown).unwrap_err();
        assert_eq!(end.raw_os_error(), Some(nix::errno::Errno::EIO as i32));
        String::from_utf8(shown).unwrap()
    });
    (child.wait().await.unwrap().code(), reading.await.unwrap())
}

impl Shell {
    /// What the tenant sees on a terminal when a command goes well.
    async fn seen(&self, line: &str) -> String {
        let (code, shown) = typed(self.with(&self.cell.tenant, line), "").await;
        assert_eq!(code, Some(0), "{shown}");
        shown
    }
}

#[tokio::test]
async fn states_are_coloured_unless_colour_is_not_wanted() {
    let shell = Shell::new().await;
    shell.failed("j", 1).await;
    assert!(shell.seen("list").await.contains("\u{1b}[31mFAILED\u{1b}["));
    let mut plain = shell.with(&shell.cell.tenant, "list");
    plain.env("NO_COLOR", "1");
    let (_, shown) = typed(plain, "").await;
    assert!(shown.contains("FAILED") && !shown.contains('\u{1b}'), "{shown:?}");
}

#[tokio::test]
async fn text_of_others_cannot_steer_the_terminal() {
    let shell = Shell::new().await;
    let bad = "a\u{1b}[2Jb\u{7}c\u{9b}d";
    let job = shell.cell.new_job(json!({"name": "j", "command": [bad], "retry": {"max_attempts": 1}})).await;
    let id = shell.cell.run(&job).await;
    let (lease, _) = shell.cell.dequeue(1).await;
    shell.log(&id, &lease, &[("stdout", bad)]).await;
    let result = json!({"outcome": "failed", "error": bad, "result": bad});
    shell.cell.result(&id, &lease, result).await.ok();
    let escaped = "a\\u001b[2Jb\\u0007c\\u009bd";
    for (line, harmless) in [
        ("logs ID", "abcd"),
        ("logs -f ID", "abcd"),
        ("status ID", "abcd"),
        ("dlq list", "abcd"),
        ("job list", "abcd"),
        ("-o json logs ID", escaped),
        ("-o json status ID", escaped),
    ] {
        let shown = shell.seen(&line.replace("ID", &id)).await;
        assert!(!shown.contains(['\u{7}', '\u{9b}']) && !shown.contains("\u{1b}[2J"), "{line}: {shown:?}");
        assert!(shown.contains(harmless), "{line}: {shown:?}");
    }
}

#[tokio::test]
async fn json_is_laid_out_over_lines() {
    let shell = Shell::new().await;
    assert!(shell.seen("whoami -o json").await.starts_with("{\r\n  \"tenant\": {\r\n    \"id\": "));
}

#[tokio::test]
async fn what_is_long_is_cut_to_keep_a_row_on_its_line() {
    let shell = Shell::new().await;
    shell.cell.new_job(json!({"name": "j", "command": ["x".repeat(500)]})).await;
    let shown = shell.seen("job list").await;
    assert!(shown.trim_end().ends_with("xx…"), "{shown}");
    assert!(shell.run("job list").await.ok().contains(&"x".repeat(500)));
}

#[tokio::test]
async fn purging_asks_and_takes_only_yes() {
    let shell = Shell::new().await;
    let ids = shell.failed("j", 2).await;
    let purge = |line: &str| shell.with(&shell.cell.tenant, line);
    let (code, shown) = typed(purge("dlq purge"), "\n").await;
    assert!(code == Some(1) && shown.contains("Take all dead letters off the list?"), "{shown}");
    assert_eq!(shell.letters().await.len(), 2);
    let (code, shown) = typed(purge(&format!("dlq purge {}", ids[0])), "y\n").await;
    assert!(code == Some(0) && shown.contains("Take 1 dead letter off the list?"), "{shown}");
    assert_eq!(shell.letters().await, ids[1..]);
}
