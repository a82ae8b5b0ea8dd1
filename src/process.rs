//! The one door to other programs: an argument vector in, exit status and the last of standard error out. Never a shell.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How much of a program's standard error an error message carries.
const STDERR_KEPT: usize = 1024;
/// How much of it is read: some programs end with all their options, behind the reason.
const STDERR_READ: usize = 8192;

/// A program that could not be run, or ended with another status than 0.
#[derive(Debug)]
pub struct ProgramError {
    /// The command line, quoted so that it can be pasted.
    pub line: String,
    /// How it ended: `exit status: 5`, or why it could not be started.
    pub ended: String,
    /// The last 1024 bytes of what it said on standard error, without a list of its options behind.
    pub stderr: String,
    /// Whether it did not end in time.
    pub gave_up: bool,
    /// Whether there is no such program.
    pub missing: bool,
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

/// Returns whether a program would be found by its name, as [`run`] looks for it.
pub fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let may_run = |file: PathBuf| file.metadata().is_ok_and(|found| found.is_file() && found.mode() & 0o111 != 0);
    if program.contains('/') {
        return may_run(program.into());
    }
    std::env::split_paths(&path).any(|folder| may_run(folder.join(program)))
}

/// Returns the last words on standard error that say why.
fn why(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let is_option =
        |line: &str| line.is_empty() || line.starts_with([' ', '\t', '-', '[', '<']) || line.starts_with("/*");
    let usage = text.rsplit_once("\nUsage:");
    let usage = usage.filter(|(_, behind)| behind.lines().skip(1).all(is_option));
    last_words(usage.map_or(&*text, |(before, _)| before))
}

fn last_words(text: &str) -> String {
    let from = text.ceil_char_boundary(text.len().saturating_sub(STDERR_KEPT));
    text.get(from..).unwrap_or_default().to_owned()
}

/// Runs a program to its end with no standard input and returns what it wrote to standard output.
///
/// # Errors
/// When it cannot be started or does not end with status 0.
pub fn run<S: AsRef<OsStr>>(program: &str, args: &[S]) -> Result<Vec<u8>, ProgramError> {
    let line = quoted(program, args);
    let output = Command::new(program).args(args).env("LC_ALL", "C").stdin(Stdio::null()).output().map_err(|e| {
        let missing = e.kind() == io::ErrorKind::NotFound;
        ProgramError { line: line.clone(), ended: e.to_string(), stderr: String::new(), gave_up: false, missing }
    })?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(ProgramError {
        line,
        ended: output.status.to_string(),
        stderr: why(&output.stderr),
        gave_up: false,
        missing: false,
    })
}

/// Runs a program as [`run`] does, but no longer than `limit`, and keeps the last `most` bytes of its standard output.
/// Whatever it still does after the limit it does without us.
///
/// # Errors
/// As [`run`]; when it does not end in time.
pub fn run_within<S: AsRef<OsStr>>(
    program: &str,
    args: &[S],
    limit: Duration,
    most: usize,
) -> Result<Vec<u8>, ProgramError> {
    let failed = |ended: String, gave_up| ProgramError {
        line: quoted(program, args),
        ended,
        stderr: String::new(),
        gave_up,
        missing: false,
    };
    let fail = |ended: String| failed(ended, false);
    let mut child = Command::new(program)
        .args(args)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| ProgramError { missing: e.kind() == io::ErrorKind::NotFound, ..fail(e.to_string()) })?;
    let Some(stdout) = child.stdout.take() else { return Err(fail("no output".to_owned())) };
    let (send, receive) = mpsc::channel();
    // A read waits as long as the program does; the thread ends with us.
    std::thread::spawn(move || send.send(last_of(stdout, most)));
    let until = Instant::now() + limit;
    let read = receive.recv_timeout(limit);
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < until => std::thread::sleep(Duration::from_millis(5)),
            Ok(None) | Err(_) => {
                // It may be where no signal reaches it: nobody waits for that.
                let _ = child.kill();
                return Err(failed(format!("no answer within {} s", limit.as_secs()), true));
            }
        }
    };
    match read {
        Ok(Ok(bytes)) if status.success() => Ok(bytes),
        Ok(Ok(_)) => Err(fail(status.to_string())),
        Ok(Err(e)) => Err(fail(e.to_string())),
        Err(_) => Err(failed(format!("its output open for more than {} s", limit.as_secs()), true)),
    }
}

/// Runs a program that changes something, as [`run`] does, and waits no longer than `limit`. It is not ended then: who ends
/// a program in the middle of a change may leave worse than it found. No signal of the terminal reaches it.
///
/// # Errors
/// As [`run`]; when it does not end in time, and goes on without us.
pub fn change_within<S: AsRef<OsStr>>(program: &str, args: &[S], limit: Duration) -> Result<(), ProgramError> {
    let line = quoted(program, args);
    let failed = |ended: String, stderr: String, gave_up, missing| {
        Err(ProgramError { line: line.clone(), ended, stderr, gave_up, missing })
    };
    let child = Command::new(program)
        .args(args)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(e) => return failed(e.to_string(), String::new(), false, e.kind() == io::ErrorKind::NotFound),
    };
    let (send, receive) = mpsc::channel();
    if let Some(stderr) = child.stderr.take() {
        std::thread::spawn(move || send.send(last_of(stderr, STDERR_READ)));
    }
    let until = Instant::now() + limit;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < until => std::thread::sleep(Duration::from_millis(5)),
            Ok(None) => {
                return failed(format!("no end within {} s, and goes on", limit.as_secs()), String::new(), true, false);
            }
            Err(e) => return failed(e.to_string(), String::new(), false, false),
        }
    };
    if status.success() {
        return Ok(());
    }
    // A daemon that it began may keep its standard error open.
    let said = receive.recv_timeout(Duration::from_secs(1)).ok().and_then(Result::ok).unwrap_or_default();
    failed(status.to_string(), why(&said), false, false)
}

/// A program that was begun, and may have ended since.
#[derive(Debug)]
pub struct Begun {
    child: Child,
    line: String,
    says: PathBuf,
}

impl Begun {
    /// Returns whether it still runs.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Returns how it has ended, with the end of what it has said, unless that was with status 0.
    pub fn failed(&mut self) -> Option<ProgramError> {
        let status = self.child.try_wait().ok()?.filter(|status| !status.success())?;
        let (line, stderr) = (self.line.clone(), end_of(&self.says));
        Some(ProgramError { line, ended: status.to_string(), stderr, gave_up: false, missing: false })
    }
}

/// Begins a program that may go on for ever, as a daemon does, and does not wait for it: what it says goes to the end of a file,
/// and `prepare` sees it before it is begun.
///
/// # Errors
/// When it cannot be started, or that file not be written.
pub fn begin<S: AsRef<OsStr>>(
    program: &str,
    args: &[S],
    says: &Path,
    prepare: impl FnOnce(&mut Command),
) -> Result<Begun, ProgramError> {
    let line = quoted(program, args);
    let failed = |ended: String, missing| {
        let line = line.clone();
        ProgramError { line, ended, stderr: String::new(), gave_up: false, missing }
    };
    let log = File::options().create(true).append(true).open(says).and_then(|log| Ok((log.try_clone()?, log)));
    let log = log.map_err(|e| failed(format!("{}: {e}", says.display()), false))?;
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(log.0).stderr(log.1).process_group(0);
    prepare(&mut command);
    let child = command.spawn().map_err(|e| failed(e.to_string(), e.kind() == io::ErrorKind::NotFound))?;
    Ok(Begun { child, line, says: says.to_owned() })
}

/// Returns the end of what a program that was begun has said; empty when that cannot be read.
pub fn end_of(says: &Path) -> String {
    let bytes = File::open(says).and_then(|file| last_of(file, STDERR_READ)).unwrap_or_default();
    last_words(&String::from_utf8_lossy(&bytes))
}

/// Returns the last `most` bytes, and holds never more than twice as many.
fn last_of(mut from: impl Read, most: usize) -> io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    let mut chunk = [0_u8; 8192];
    loop {
        let read = from.read(&mut chunk)?;
        if read == 0 {
            kept.drain(..kept.len().saturating_sub(most));
            return Ok(kept);
        }
        kept.extend(chunk.iter().take(read));
        if kept.len() > most.saturating_mul(2) {
            kept.drain(..kept.len().saturating_sub(most));
        }
    }
}

fn quoted<S: AsRef<OsStr>>(program: &str, args: &[S]) -> String {
    std::iter::once(OsString::from(program))
        .chain(args.iter().map(|a| a.as_ref().to_owned()))
        .map(|word| quote(&word.to_string_lossy()))
        .collect::<Vec<_>>()
        .join(" ")
}

/// Returns this process's own command line as somebody who is not root would type it again.
pub fn as_root() -> String {
    with_sudo(env::args_os().skip(1))
}

/// Returns this process's own command line.
pub fn again() -> String {
    typed(env::args_os().skip(1)).join(" ")
}

/// Returns this process's own command line with one more word behind its command, such as `status`; only that command where it
/// cannot be told where it stands.
pub fn again_with(command: &str, word: &str) -> String {
    with_word(env::args_os().skip(1), command, word)
}

fn with_word(arguments: impl Iterator<Item = OsString>, command: &str, word: &str) -> String {
    let mut words = typed(arguments);
    match words.iter().position(|typed| typed == command) {
        Some(at) => words.insert(at + 1, quote(word)),
        None => words = vec!["dmpool".to_owned(), command.to_owned(), quote(word)],
    }
    words.join(" ")
}

fn with_sudo(arguments: impl Iterator<Item = OsString>) -> String {
    format!("sudo {}", typed(arguments).join(" "))
}

fn typed(arguments: impl Iterator<Item = OsString>) -> Vec<String> {
    let arguments = arguments.map(|word| quote(&word.to_string_lossy()));
    std::iter::once("dmpool".to_owned()).chain(arguments).collect()
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
    fn a_command_line_is_repeated_with_the_word_that_it_lacked() {
        let typed = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>().into_iter();
        let again = |words: &[&str]| with_word(typed(words), "grow", "/srv/my docker");
        assert_eq!(
            again(&["--state-dir", "/s", "grow", "+5G", "--dry-run"]),
            "dmpool --state-dir /s grow '/srv/my docker' +5G --dry-run"
        );
        assert_eq!(again(&[]), "dmpool grow '/srv/my docker'");
    }

    #[test]
    fn a_command_line_is_repeated_with_sudo_and_can_be_pasted() {
        let typed = ["status", "--root", "/srv/my docker"].map(OsString::from);
        assert_eq!(with_sudo(typed.into_iter()), "sudo dmpool status --root '/srv/my docker'");
    }

    #[test]
    fn a_failing_program_says_its_line_its_status_and_its_last_words() {
        let error = run("sh", &["-c", "echo no luck >&2; exit 5"]).unwrap_err().to_string();
        assert_eq!(error, "`sh -c 'echo no luck >&2; exit 5'` ended with exit status: 5: no luck");
    }

    #[test]
    fn options_listed_behind_the_reason_are_left_out() {
        assert_eq!(why(b"size is too small\nUsage: mkfs.xfs\n\t[-b size]\n"), "size is too small");
        let log = "level=info\nUsage: of the disk\nno luck";
        assert_eq!(
            (why(log.as_bytes()), why(b"a\nUsage: b\nUsage: c\n -d")),
            (log.to_owned(), "a\nUsage: b".to_owned())
        );
        let long = format!("{}no luck", "\u{e4}".repeat(2000));
        assert!(why(long.as_bytes()).len() <= STDERR_KEPT && why(long.as_bytes()).ends_with("no luck"));
    }

    #[test]
    fn a_program_that_does_not_end_is_given_up_and_an_endless_one_keeps_its_end() {
        let second = Duration::from_secs(1);
        let error = run_within("sleep", &["3600"], second, 10).unwrap_err().to_string();
        assert_eq!(error, "`sleep 3600` ended with no answer within 1 s");
        let hour = Duration::from_secs(3600);
        let last = run_within("sh", &["-c", "seq 100000"], hour, 12).unwrap();
        assert_eq!(String::from_utf8(last).unwrap(), "9999\n100000\n".get(0..12).unwrap());
        assert!(run_within("sh", &["-c", "exit 3"], hour, 12).unwrap_err().ended.contains('3'));
        assert!(run_within::<&str>("dmpool-no-such-program", &[], hour, 12).unwrap_err().missing);
    }

    #[test]
    fn a_program_that_changes_something_is_never_ended() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("done");
        let script = format!("sleep 0.3; echo done >{}", file.display());
        let error = change_within("sh", &["-c", &script], Duration::ZERO).unwrap_err();
        assert!(error.gave_up && error.to_string().ends_with("and goes on"), "{error}");
        while !std::fs::read_to_string(&file).is_ok_and(|text| text == "done\n") {
            std::thread::sleep(Duration::from_millis(5));
        }
        let error = change_within("sh", &["-c", "echo no luck >&2; exit 5"], Duration::from_secs(3600)).unwrap_err();
        assert!(error.to_string().ends_with("exit status: 5: no luck"), "{error}");
    }

    #[test]
    fn a_program_that_is_begun_speaks_into_a_file_and_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let (log, done) = (dir.path().join("log"), dir.path().join("done"));
        let script = format!("echo begun; sleep 0.3; echo >{}", done.display());
        let mut begun = begin("sh", &["-c", &script], &log, |_| ()).unwrap();
        while begun.runs() || !done.exists() {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(begun.failed().is_none());
        let mut begun = begin("sh", &["-c", "echo no luck >&2; exit 5"], &log, |_| ()).unwrap();
        while begun.runs() {
            std::thread::sleep(Duration::from_millis(5));
        }
        let error = begun.failed().unwrap().to_string();
        assert!(error.ends_with("exit status: 5: begun\nno luck"), "{error}");
        assert!(begin("/no such program", &[""; 0], &log, |_| ()).unwrap_err().missing);
    }

    #[test]
    fn a_program_is_found_by_its_name_alone() {
        assert!(is_there("sh"));
        assert!(!is_there("no such program") && !is_there(""));
    }

    #[test]
    fn words_are_quoted_as_a_shell_needs_them() {
        assert_eq!(quote("a b"), "'a b'");
        assert_eq!(quote("it's"), r"'it'\''s'");
        assert_eq!(quote("/dev/loop0"), "/dev/loop0");
        assert_eq!(quote(""), "''");
    }
}
