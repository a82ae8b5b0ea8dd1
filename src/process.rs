//! The one door to other programs: an argument vector in, exit status and the last of standard error out. Never a shell.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::process::{Command, Stdio};

/// How much of a program's standard error an error message carries.
const STDERR_KEPT: usize = 1024;

/// A program that could not be run, or ended with another status than 0.
#[derive(Debug)]
pub struct ProgramError {
    /// The command line, quoted so that it can be pasted.
    pub line: String,
    /// How it ended: `exit status: 5`, or why it could not be started.
    pub ended: String,
    /// The last 1024 bytes of what it said on standard error.
    pub stderr: String,
}

impl fmt::Display for ProgramError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` ended with {}", self.line, self.ended)?;
        if !self.stderr.is_empty() {
            write!(f, ": {}", self.stderr.trim_end())?;
        }
        Ok(())
    }
}

impl std::error::Error for ProgramError {}

/// Runs a program to its end with no standard input and returns what it wrote to standard output.
///
/// # Errors
/// When it cannot be started or does not end with status 0.
pub fn run<S: AsRef<OsStr>>(program: &str, args: &[S]) -> Result<Vec<u8>, ProgramError> {
    let line = quoted(program, args);
    let output = Command::new(program)
        .args(args)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .map_err(|e| ProgramError { line: line.clone(), ended: e.to_string(), stderr: String::new() })?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let from = output.stderr.len().saturating_sub(STDERR_KEPT);
    let last = output.stderr.get(from..).unwrap_or_default();
    Err(ProgramError { line, ended: output.status.to_string(), stderr: String::from_utf8_lossy(last).into_owned() })
}

fn quoted<S: AsRef<OsStr>>(program: &str, args: &[S]) -> String {
    std::iter::once(OsString::from(program))
        .chain(args.iter().map(|a| a.as_ref().to_owned()))
        .map(|word| quote(&word.to_string_lossy()))
        .collect::<Vec<_>>()
        .join(" ")
}

/// Returns a word as a POSIX shell would need it typed.
pub fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_failing_program_says_its_line_its_status_and_its_last_words() {
        let error = run("sh", &["-c", "echo no luck >&2; exit 5"]).unwrap_err().to_string();
        assert_eq!(error, "`sh -c 'echo no luck >&2; exit 5'` ended with exit status: 5: no luck");
    }

    #[test]
    fn words_are_quoted_as_a_shell_needs_them() {
        assert_eq!(quote("a b"), "'a b'");
        assert_eq!(quote("it's"), r"'it'\''s'");
        assert_eq!(quote("/dev/loop0"), "/dev/loop0");
        assert_eq!(quote(""), "''");
    }
}
