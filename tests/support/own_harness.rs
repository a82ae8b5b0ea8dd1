//! A test target of one test without libtest's harness: that cannot say at run time that a test was left out, and why.
#![allow(clippy::print_stdout, reason = "a test's own lines are what it is for")]

use std::process::ExitCode;

/// How the test ended.
pub enum Verdict {
    Passed,
    /// It cannot run here: why.
    Skipped(String),
    /// What was found.
    Failed(String),
}

/// Runs the test as libtest would, if it is asked for.
pub fn run(name: &str, test: fn() -> Verdict) -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.iter().any(|word| word == "--list") {
        println!("{name}: test");
        return ExitCode::SUCCESS;
    }
    let mut filters = words.iter().filter(|word| !word.starts_with('-')).peekable();
    if filters.peek().is_some() && !filters.any(|filter| name.contains(filter.as_str())) {
        return ExitCode::SUCCESS;
    }
    match test() {
        Verdict::Passed => println!("test {name} ... ok"),
        Verdict::Skipped(why) => println!("test {name} ... ignored, {why}"),
        Verdict::Failed(found) => {
            println!("{found}\ntest {name} ... FAILED");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
