//! Counting and telling results.

use super::session::{Outcome, Report};
use super::show;

/// How many of a failed test's lines are shown.
const SHOWN_LINES: usize = 200;

/// The results of a run so far.
#[derive(Debug, Default, Clone)]
pub struct Tally {
    /// Tests that passed.
    pub passed: usize,
    /// Tests that failed.
    pub failed: usize,
    /// Tests and suites that could not run.
    pub skipped: usize,
    /// One line for each failure.
    failures: Vec<String>,
    /// One line for each skip.
    skips: Vec<String>,
}

impl Tally {
    /// Counts a test and prints its line.
    pub fn test(&mut self, place: &str, name: &str, report: &Report) {
        let time = format!("{:.2} s", report.seconds);
        match &report.outcome {
            Outcome::Passed => {
                self.passed += 1;
                show::result(&format!("test {name} ... ok ({time})"));
            }
            Outcome::Skipped(reason) => {
                show::result(&format!("test {name} ... skipped: {reason} ({time})"));
                self.skip(&format!("{place} {name}"), reason);
            }
            Outcome::Failed(why) => {
                show::result(&format!("test {name} ... FAILED: {why} ({time})"));
                show::result(&format!("---- {place} {name}"));
                let surplus = report.output.len().saturating_sub(SHOWN_LINES);
                if surplus > 0 {
                    show::result(&format!("  ({surplus} lines before these)"));
                }
                for line in report.output.iter().skip(surplus) {
                    show::result(&format!("  {line}"));
                }
                if let Some(wreck) = &report.wreck {
                    show::result(&format!("  its guest's disks and console are kept in {}", wreck.display()));
                }
                show::result("----");
                self.fail(&format!("{place} {name}"), why);
            }
        }
    }

    /// Counts a failure.
    pub fn fail(&mut self, what: &str, why: &str) {
        self.failed += 1;
        self.failures.push(format!("{what}: {why}"));
    }

    /// Counts a skip.
    pub fn skip(&mut self, what: &str, reason: &str) {
        self.skipped += 1;
        self.skips.push(format!("{what}: {reason}"));
    }

    /// Adds the results of another part of the run.
    pub fn add(&mut self, other: Tally) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.failures.extend(other.failures);
        self.skips.extend(other.skips);
    }

    /// The run's last line.
    #[must_use]
    pub fn line(&self) -> String {
        format!("{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }

    /// Prints the skips with their reasons, the failures, and the last line.
    pub fn finish(&self) {
        for skip in &self.skips {
            show::result(&format!("skipped  {skip}"));
        }
        for failure in &self.failures {
            show::result(&format!("FAILED   {failure}"));
        }
        show::result(&self.line());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_add_up_and_the_last_line_has_the_sums() {
        let mut all = Tally { passed: 2, ..Tally::default() };
        let mut part = Tally::default();
        part.fail("a", "b");
        part.skip("c", "d");
        all.add(part);
        assert_eq!(all.line(), "2 passed, 1 failed, 1 skipped");
    }
}
