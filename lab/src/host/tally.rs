//! Counting and telling results.

use std::collections::BTreeMap;

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
    /// One line for each test that was run again.
    again: Vec<String>,
    /// One line for each skip.
    skips: Vec<String>,
    /// Where tests ran, and how many passed there.
    places: BTreeMap<String, usize>,
}

impl Tally {
    /// Counts a test and prints its line.
    pub fn test(&mut self, place: &str, name: &str, report: &Report) {
        let time = format!("{:.2} s", report.seconds);
        for seen in &report.silent {
            show::result(&format!("---- {place} {name}: its guest fell silent"));
            for line in seen {
                show::result(&format!("  {line}"));
            }
            show::result("----");
        }
        if !report.silent.is_empty() {
            show::result(&format!("test {name} ... ran again: its guest fell silent"));
            self.again(&format!("{place} {name}"));
        }
        match &report.outcome {
            Outcome::Passed => {
                self.pass(place);
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

    /// Counts a pass.
    pub fn pass(&mut self, place: &str) {
        self.passed += 1;
        *self.places.entry(place.to_string()).or_default() += 1;
    }

    /// Counts a failure.
    pub fn fail(&mut self, what: &str, why: &str) {
        self.failed += 1;
        self.failures.push(format!("{what}: {why}"));
    }

    /// Notes a test that was run again.
    pub fn again(&mut self, what: &str) {
        self.again.push(format!("{what}: its guest fell silent"));
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
        self.again.extend(other.again);
        self.skips.extend(other.skips);
        for (place, passed) in other.places {
            *self.places.entry(place).or_default() += passed;
        }
    }

    /// The run's last line.
    #[must_use]
    pub fn line(&self) -> String {
        format!("{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }

    /// Whether nothing has run.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.passed + self.failed + self.skipped == 0
    }

    /// Where how many passed, and what was skipped and why, as Markdown.
    #[must_use]
    pub fn places(&self) -> String {
        let places = self.places.iter().map(|(place, passed)| format!("| {place} | {passed} |\n")).collect::<String>();
        let skips = self.skips.iter().map(|skip| format!("- skipped: {skip}\n"));
        let notes = self.again.iter().map(|test| format!("- ran again: {test}\n")).chain(skips).collect::<String>();
        format!("| where | passed |\n|---|---|\n{places}\n{notes}")
    }

    /// Prints the skips with their reasons, what was run again, the failures, and the last line.
    pub fn finish(&self) {
        for skip in &self.skips {
            show::result(&format!("skipped  {skip}"));
        }
        for test in &self.again {
            show::result(&format!("RAN AGAIN {test}"));
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
        part.pass("(here)");
        all.add(part);
        assert_eq!(all.line(), "3 passed, 1 failed, 1 skipped");
        assert!(all.places().contains("| (here) | 1 |"));
    }

    #[test]
    fn a_test_that_ran_again_is_named() {
        let mut all = Tally::default();
        let mut part = Tally::default();
        part.pass("(here)");
        part.again("(here) a::b");
        all.add(part);
        assert_eq!(all.line(), "1 passed, 0 failed, 0 skipped");
        assert!(all.places().contains("- ran again: (here) a::b: its guest fell silent\n"));
    }
}
