//! Running programs from a test: an end that can be compared, and a limit that always holds.
//!
//! Output goes to memory files, not pipes: a daemon that outlives its parent and keeps the descriptor open cannot make
//! the test wait, and a program that prints much cannot block on a reader.

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

/// The limit of a [`Cmd`] that names no other.
pub const DEFAULT_LIMIT: Duration = Duration::from_secs(60);

/// How long a killed process may take to be gone before it is given up as stuck in the kernel.
const GIVE_UP: Duration = Duration::from_secs(3);

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// It exited with this status.
    Exit(i32),
    /// This signal ended it (and not because of the limit).
    Signal(i32),
    /// It ran into its limit and was killed.
    TimedOut(Duration),
    /// It ran into its limit and cannot be killed (D state). The text says where in the kernel it waits.
    Stuck(String),
    /// It could not be started: why.
    NotStarted(String),
}

/// A finished program. Two are equal when they ended alike and printed the same; the command line is not compared.
#[derive(Debug, Clone)]
pub struct Ran {
    /// The command line, for messages.
    pub line: String,
    /// How it ended.
    pub end: End,
    /// All of its standard output; bytes that are not UTF-8 are replaced.
    pub stdout: String,
    /// All of its standard error, likewise.
    pub stderr: String,
}

impl PartialEq for Ran {
    fn eq(&self, other: &Self) -> bool {
        (&self.end, &self.stdout, &self.stderr) == (&other.end, &other.stdout, &other.stderr)
    }
}

impl Eq for Ran {}

impl Ran {
    /// Whether it exited with status 0.
    #[must_use]
    pub fn ok(&self) -> bool {
        self.end == End::Exit(0)
    }

    /// The exit status; `None` when a signal or the limit ended it, or it never started.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        match self.end {
            End::Exit(code) => Some(code),
            _ => None,
        }
    }

    /// Itself when it exited with 0.
    ///
    /// # Errors
    /// Any other end, told with everything it printed.
    pub fn checked(self) -> Result<Self> {
        if self.ok() { Ok(self) } else { bail!("{self}") }
    }
}

impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` ", self.line)?;
        match &self.end {
            End::Exit(code) => write!(f, "exited with {code}")?,
            End::Signal(signal) => write!(f, "was ended by signal {signal}")?,
            End::TimedOut(limit) => write!(f, "ran longer than {limit:?} and was killed")?,
            End::Stuck(at) => write!(f, "hangs in the kernel and cannot be killed: {at}")?,
            End::NotStarted(why) => write!(f, "could not be started: {why}")?,
        }
        for (name, text) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if !text.is_empty() {
                write!(f, "\n  {name}: {}", text.trim_end().replace('\n', "\n  | "))?;
            }
        }
        Ok(())
    }
}

/// A program to run: `Cmd::new("dmpool").args(["status", "p0"]).env("LC_ALL", "C").run()`.
#[derive(Debug)]
pub struct Cmd {
    command: Command,
    line: String,
    stdin: Vec<u8>,
    limit: Duration,
}

impl Cmd {
    /// The program by name (found on PATH) or path, with no arguments and empty standard input.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let line = program.as_ref().to_string_lossy().into_owned();
        Self { command: Command::new(program), line, stdin: Vec::new(), limit: DEFAULT_LIMIT }
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        let text = arg.as_ref().to_string_lossy();
        self.line.push(' ');
        // Quoted for reading and pasting; never handed to a shell.
        if text.is_empty() || text.contains(|c: char| c.is_whitespace() || "'\"\\$*;&|<>()".contains(c)) {
            self.line.push_str(&format!("'{}'", text.replace('\'', r"'\''")));
        } else {
            self.line.push_str(&text);
        }
        self.command.arg(arg);
        self
    }

    /// More arguments.
    #[must_use]
    pub fn args<I, S>(self, args: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        args.into_iter().fold(self, Self::arg)
    }

    /// A variable of its environment, beside those of the test.
    #[must_use]
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.command.env(key, value);
        self
    }

    /// Takes a variable out of its environment.
    #[must_use]
    pub fn env_remove(mut self, key: impl AsRef<OsStr>) -> Self {
        self.command.env_remove(key);
        self
    }

    /// Its working directory.
    #[must_use]
    pub fn dir(mut self, dir: impl AsRef<Path>) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// The user and group it runs as, for what must be refused to others than root.
    #[must_use]
    pub fn user(mut self, uid: u32, gid: u32) -> Self {
        self.command.uid(uid).gid(gid);
        self
    }

    /// What it reads from standard input.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// How long it may run, instead of [`DEFAULT_LIMIT`].
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// The command line as it would be typed.
    #[must_use]
    pub fn line(&self) -> &str {
        &self.line
    }

    /// Runs it to its end, or to the limit: then its process group is killed, and what cannot be killed is left behind.
    #[must_use]
    pub fn run(self) -> Ran {
        let line = self.line.clone();
        match self.start() {
            Ok(running) => running.wait(),
            Err(why) => {
                Ran { line, end: End::NotStarted(format!("{why:#}")), stdout: String::new(), stderr: String::new() }
            }
        }
    }

    /// Starts it, leader of its own process group, and comes back at once.
    ///
    /// # Errors
    /// When the program is missing or may not be run, or no memory file can be made.
    pub fn start(mut self) -> Result<Running> {
        let stdout = memory_file()?;
        let stderr = memory_file()?;
        let mut stdin = memory_file()?;
        stdin.write_all(&self.stdin)?;
        stdin.seek(SeekFrom::Start(0))?;
        let child = self
            .command
            .process_group(0)
            .stdin(Stdio::from(stdin))
            .stdout(Stdio::from(stdout.try_clone()?))
            .stderr(Stdio::from(stderr.try_clone()?))
            .spawn()?;
        Ok(Running { line: self.line, started: Instant::now(), limit: self.limit, child, stdout, stderr, over: false })
    }
}

/// A program that was started and not yet waited for. Dropped, it is killed with its process group.
#[derive(Debug)]
pub struct Running {
    line: String,
    started: Instant,
    limit: Duration,
    child: Child,
    stdout: File,
    stderr: File,
    over: bool,
}

impl Running {
    /// Its process id, also the id of its process group.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs (a zombie does not).
    pub fn alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends it a signal; one that is gone already is not an error.
    pub fn signal(&self, signal: Signal) {
        // Failure means that it ended in between, which `wait` tells.
        let _ = kill(pid_of(&self.child), signal);
    }

    /// What it printed so far, standard output and standard error.
    #[must_use]
    pub fn printed(&self) -> (String, String) {
        (text_of(&self.stdout), text_of(&self.stderr))
    }

    /// Waits to its end or to the limit, counted from the start.
    #[must_use]
    pub fn wait(mut self) -> Ran {
        let end = match wait_until(&mut self.child, self.started + self.limit) {
            Some(status) => end_of(status),
            None => self.end_by_force(),
        };
        self.over = true;
        Ran { line: self.line.clone(), end, stdout: text_of(&self.stdout), stderr: text_of(&self.stderr) }
    }

    /// Kills it with its process group, now, and waits.
    #[must_use]
    pub fn kill(mut self) -> Ran {
        self.limit = Duration::ZERO;
        self.signal(Signal::SIGKILL);
        let end = match wait_until(&mut self.child, Instant::now() + GIVE_UP) {
            Some(status) => end_of(status),
            None => self.end_by_force(),
        };
        kill_group(&self.child);
        self.over = true;
        Ran { line: self.line.clone(), end, stdout: text_of(&self.stdout), stderr: text_of(&self.stderr) }
    }

    fn end_by_force(&mut self) -> End {
        kill_group(&self.child);
        match wait_until(&mut self.child, Instant::now() + GIVE_UP) {
            Some(_) => End::TimedOut(self.limit),
            None => End::Stuck(where_stuck(self.child.id())),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.over {
            kill_group(&self.child);
            let _ = wait_until(&mut self.child, Instant::now() + GIVE_UP);
        }
    }
}

/// What a process waits for: its state letter, the kernel function, and the kernel stack where root may read it.
#[must_use]
pub fn where_stuck(pid: u32) -> String {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let stat = read("stat");
    let state = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next()).unwrap_or("?");
    format!("pid {pid}, state {state}, in {}\n{}", read("wchan"), read("stack").trim_end())
}

/// A signal to the whole group; whoever is gone already needs none.
fn kill_group(child: &Child) {
    let _ = killpg(pid_of(child), Signal::SIGKILL);
}

fn pid_of(child: &Child) -> Pid {
    // Linux never gives a pid above 2^22; 0 would mean our own group and cannot come from a spawned child.
    Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX))
}

/// The exit status, or `None` when `until` came first. Polls: a blocking wait could not be given up.
fn wait_until(child: &mut Child, until: Instant) -> Option<ExitStatus> {
    let mut pause = Duration::from_micros(200);
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        if Instant::now() >= until {
            return None;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

fn end_of(status: ExitStatus) -> End {
    match (status.code(), status.signal()) {
        (Some(code), _) => End::Exit(code),
        (None, Some(signal)) => End::Signal(signal),
        (None, None) => End::NotStarted(format!("an exit status that means nothing: {status:?}")),
    }
}

fn memory_file() -> Result<File> {
    Ok(File::from(memfd_create(c"lab-output", MFdFlags::MFD_CLOEXEC)?))
}

/// The whole text, read by position: the offset is shared with the program that writes.
fn text_of(file: &File) -> String {
    use std::os::unix::fs::FileExt;
    let mut bytes = Vec::new();
    let mut chunk = vec![0; 64 * 1024];
    while let Ok(n @ 1..) = file.read_at(&mut chunk, bytes.len() as u64) {
        bytes.extend(chunk.iter().take(n));
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn output_and_status_come_back() {
        let ran = Cmd::new("sh").args(["-c", "cat; echo err >&2; exit 3"]).stdin("in").run();
        assert_eq!((ran.end.clone(), ran.stdout.as_str(), ran.stderr.as_str()), (End::Exit(3), "in", "err\n"));
        assert_eq!(ran.code(), Some(3));
        assert!(ran.checked().is_err());
    }

    #[test]
    fn equal_when_ended_and_printed_alike() {
        let one = Cmd::new("sh").args(["-c", "echo a"]).run();
        let same = Cmd::new("echo").arg("a").run();
        let other = Cmd::new("echo").arg("b").run();
        assert_eq!(one, same);
        assert_ne!(one, other);
    }

    #[test]
    fn the_limit_holds_for_the_whole_group() {
        let ran = Cmd::new("sh").args(["-c", "sleep 1000 & echo $!; wait"]).limit(Duration::from_secs(2)).run();
        assert_eq!(ran.end, End::TimedOut(Duration::from_secs(2)));
        let grandchild: u32 = ran.stdout.trim().parse().unwrap();
        let is_gone = || {
            let stat = std::fs::read_to_string(format!("/proc/{grandchild}/stat"));
            stat.map_or(true, |stat| stat.contains(") Z "))
        };
        // The kernel ends it in its own time.
        let gone = (0..100).any(|_| {
            is_gone() || {
                std::thread::sleep(Duration::from_millis(50));
                false
            }
        });
        assert!(gone, "the grandchild was killed with its group");
    }

    #[test]
    fn a_daemon_that_keeps_the_output_open_is_not_waited_for() {
        let ran = Cmd::new("sh").args(["-c", "setsid sleep 20 & echo started $!"]).limit(Duration::from_secs(15)).run();
        assert!(ran.ok(), "{ran}");
        let pid = ran.stdout.trim().rsplit(' ').next().and_then(|pid| pid.parse().ok());
        if let Some(pid) = pid {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }

    #[test]
    fn what_is_not_there_is_not_started() {
        let ran = Cmd::new("/nonexistent/program").run();
        assert!(matches!(ran.end, End::NotStarted(_)), "{ran}");
    }

    #[test]
    fn the_line_can_be_pasted() {
        assert_eq!(Cmd::new("a").args(["b c", "it's", ""]).line(), r"a 'b c' 'it'\''s' ''");
    }

    #[test]
    fn a_signal_is_told() {
        assert_eq!(Cmd::new("sh").args(["-c", "kill -9 $$"]).run().end, End::Signal(9));
    }
}
