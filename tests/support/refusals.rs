//! The table of what must be refused: each row a command line, and the machine identical before and after it.

use std::time::{Duration, Instant};

use lab::guest::machine::{Scope, Snapshot};
use lab::guest::run::Cmd;

use super::Bench;

/// Nothing that is refused may wait: longer than this is a hang.
const LIMIT: Duration = Duration::from_secs(60);

/// The exit code of a command line that is wrong.
pub const USAGE: i32 = 2;
/// The exit code of a refusal.
pub const REFUSED: i32 = 3;

/// A command that must be refused.
pub struct Row {
    name: String,
    cmd: Cmd,
    exit: i32,
    says: Vec<String>,
}

/// A row: its name, its command line, its exit code, and what its message must say (object, cause, next step).
pub fn row<S: Into<String>>(name: &str, cmd: Cmd, exit: i32, says: impl IntoIterator<Item = S>) -> Row {
    Row { name: name.to_owned(), cmd, exit, says: says.into_iter().map(Into::into).collect() }
}

/// How `grow` begins a refusal of its own.
const GROW: [&str; 2] = ["dmpool: cannot grow the data of pool", "dmpool: cannot grow the metadata of pool"];

/// Runs rows, and tells at its end of all that were not refused as they should be.
pub struct Table {
    scope: Scope,
    wrong: Vec<String>,
    rows: usize,
}

impl Table {
    /// A table whose rows must leave alone: the kernel's tables, the mounts, and everything in the bench's directory.
    pub fn new(bench: &Bench) -> Self {
        Self::with(Scope::new().tree(bench.sweep.dir()))
    }

    /// Likewise with another scope.
    pub fn with(scope: Scope) -> Self {
        Self { scope, wrong: Vec::new(), rows: 0 }
    }

    /// Runs rows on the machine as it is now, one after the other. The machine is compared before the first and after
    /// the last: a look at it takes a second, a refusal a tenth of one.
    pub fn refuse(&mut self, rows: impl IntoIterator<Item = Row>) {
        let before = Snapshot::take(&self.scope).unwrap();
        let mut names = Vec::new();
        for row in rows {
            let began = Instant::now();
            let ran = row.cmd.limit(LIMIT).run();
            let took = began.elapsed();
            let mut wrong: Vec<String> = Vec::new();
            if ran.code() != Some(row.exit) {
                wrong.push(format!("it must exit with {}", row.exit));
            }
            if !ran.stdout.is_empty() {
                wrong.push("a refusal prints nothing on standard output".to_owned());
            }
            if row.exit != USAGE && !(ran.stderr.starts_with("dmpool: ") && ran.stderr.contains("\n  next:")) {
                wrong.push("it must say what could not be done, and what to do next".to_owned());
            }
            let next = ran.stderr.lines().find_map(|line| line.trim().strip_prefix("next:")).unwrap_or_default().trim();
            if GROW.iter().any(|said| ran.stderr.starts_with(said))
                && next.split_once("  ").is_some_and(|(_, rest)| !rest.starts_with("  # "))
            {
                wrong.push("its next step cannot be pasted to the end of the line".to_owned());
            }
            let lacks = row.says.iter().filter(|word| !ran.stderr.contains(word.as_str()));
            wrong.extend(lacks.map(|word| format!("it must say `{word}`")));
            self.rows += 1;
            let verdict = if wrong.is_empty() { "refused" } else { "WRONG" };
            println!("  {verdict:7} {} ({:.2} s)", row.name, took.as_secs_f64());
            if !wrong.is_empty() {
                self.wrong.push(format!("{}: {}\n{ran}", row.name, wrong.join("; ")));
            }
            names.push(row.name);
        }
        let changed = before.diff(&Snapshot::take(&self.scope).unwrap());
        if !changed.is_empty() {
            self.wrong.push(format!("one of these changed the machine: {}\n{changed}", names.join("; ")));
        }
    }

    /// Ends the table.
    ///
    /// # Panics
    /// When a row was not refused as it should be, or there was none.
    pub fn end(self) {
        assert!(self.rows > 0, "the table has no rows");
        assert!(
            self.wrong.is_empty(),
            "{} of {} rows are wrong\n\n{}",
            self.wrong.len(),
            self.rows,
            self.wrong.join("\n\n")
        );
    }
}
