//! The tests that need no guest: plain `cargo test` on this machine.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use super::place::Places;
use super::programs::{self, TARGET};
use super::show;
use super::tally::Tally;
use super::trouble::{OrTrouble, Result, Trouble};

/// How many cases a property test tries when all is to be done that can be. Otherwise it tries proptest's own 256.
const FULL_CASES: &str = "20000";

/// Runs them, shows what cargo shows, and counts.
///
/// # Errors
/// When they cannot be built.
pub fn run(places: &Places, filter: Option<&str>, full: bool) -> Result<Tally> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    show::line("cargo test --workspace …");
    let mut child = Command::new(cargo)
        .args(["test", "--workspace", "--no-fail-fast", "--target", TARGET])
        .args(filter)
        // The guests' programs are built so too: what they depend on is compiled once for both.
        .env("RUSTFLAGS", programs::static_flags())
        .envs(full.then_some(("PROPTEST_CASES", FULL_CASES)))
        .current_dir(&places.workspace)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .or_trouble(|| "cannot run `cargo test`".into())?;
    let mut tally = Tally::default();
    let lines = child.stdout.take().map(|out| BufReader::new(out).lines());
    for line in lines.into_iter().flatten().map_while(std::result::Result::ok) {
        count(&line, &mut tally);
        show::result(&line);
    }
    let status = child.wait().or_trouble(|| "cannot run `cargo test`".into())?;
    if !status.success() && tally.failed == 0 {
        return Err(Trouble::new("cannot run the tests of this machine: `cargo test --workspace` failed"));
    }
    Ok(tally)
}

/// Counts one of libtest's lines: `test NAME ... ok|FAILED|ignored[, REASON]`.
fn count(line: &str, tally: &mut Tally) {
    let Some((name, verdict)) = line.strip_prefix("test ").and_then(|l| l.rsplit_once(" ... ")) else {
        return;
    };
    let verdict = verdict.trim();
    if verdict == "ok" {
        tally.pass("this machine");
    } else if verdict == "FAILED" {
        tally.fail(name, "failed on this machine");
    } else if let Some(reason) = verdict.strip_prefix("ignored") {
        let reason = reason.trim_start_matches([',', ' ']);
        tally.skip(name, if reason.is_empty() { "ignored, no reason given" } else { reason });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libtests_lines_are_counted_and_others_are_not() {
        let mut tally = Tally::default();
        for line in [
            "running 3 tests",
            "test a::b ... ok",
            "test c ... FAILED",
            "test d ... ignored, needs a moon",
            "test src/lib.rs - x (line 3) - compile ... ok",
            "test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out",
            "",
        ] {
            count(line, &mut tally);
        }
        assert_eq!(tally.line(), "2 passed, 1 failed, 1 skipped");
    }
}
