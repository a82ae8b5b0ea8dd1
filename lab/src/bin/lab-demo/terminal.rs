//! What the demo prints: each command as it would be typed, its real output, and what was promised.
#![allow(clippy::print_stdout, reason = "the output of a program")]

use std::io::Write;
use std::time::Duration;

use anyhow::{Result, ensure};
use lab::guest::run::{Cmd, Ran};

/// The terminal and the promises so far.
#[derive(Debug, Default)]
pub(crate) struct Terminal {
    kept: Vec<String>,
    broken: Vec<String>,
}

impl Terminal {
    /// A heading between two parts.
    pub(crate) fn chapter(&self, title: &str) {
        self.say(&format!("\n== {title}"));
    }

    /// A remark of the demo itself, marked so that it cannot be taken for a program's output.
    pub(crate) fn remark(&self, text: &str) {
        self.say(&format!("-- {text}"));
    }

    /// Prints `# LINE`, for what is done here without a program of its own.
    pub(crate) fn typed(&self, line: &str) {
        self.say(&format!("# {line}"));
    }

    /// Runs a command and shows it with its output, whatever its end.
    pub(crate) fn try_run(&self, cmd: Cmd) -> Ran {
        self.typed(cmd.line());
        let ran = cmd.limit(Duration::from_secs(180)).run();
        for text in [&ran.stdout, &ran.stderr] {
            if !text.is_empty() {
                self.say(text.trim_end_matches('\n'));
            }
        }
        ran
    }

    /// Likewise a command without which the demo cannot go on.
    ///
    /// # Errors
    /// When it does not exit with 0; its output is on the screen already.
    pub(crate) fn run(&self, cmd: Cmd) -> Result<Ran> {
        let ran = self.try_run(cmd);
        ensure!(ran.ok(), "`{}`: {:?}", ran.line, ran.end);
        Ok(ran)
    }

    /// Something that was promised, and whether it is so.
    pub(crate) fn promise(&mut self, promise: &str, kept: bool) {
        self.remark(&format!("{}: {promise}", if kept { "as promised" } else { "NOT AS PROMISED" }));
        if kept { &mut self.kept } else { &mut self.broken }.push(promise.to_owned());
    }

    /// The summary. Returns whether every promise was kept.
    pub(crate) fn summary(&self, took: Duration) -> bool {
        self.chapter("Summary");
        for promise in &self.kept {
            self.say(&format!("  yes  {promise}"));
        }
        for promise in &self.broken {
            self.say(&format!("  NO   {promise}"));
        }
        let (kept, broken) = (self.kept.len(), self.broken.len());
        self.say(&format!("{kept} promises kept, {broken} broken, in {} s.", took.as_secs()));
        self.broken.is_empty() && !self.kept.is_empty()
    }

    /// Flushed line by line: who watches should see each step when it happens.
    fn say(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        // A terminal that went away does not stop the demo in the middle of a change.
        let _ = writeln!(out, "{text}").and_then(|()| out.flush());
    }
}
