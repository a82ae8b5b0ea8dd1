//! A running guest: its process, its console, the line to its agent.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{BufReader, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use super::keeper;
use super::show;
use super::silence;
use super::trouble::{OrTrouble, Result, Trouble};
use crate::protocol::{self, Order, Word};

/// A guest that says nothing for so long, neither on its console nor through its agent, is ended.
pub const SILENCE: Duration = Duration::from_secs(60);

/// How much of the console is shown when a guest ends badly.
const TAIL_LINES: usize = 40;

/// How much of what the kernel of a silent guest says when it is asked is shown.
const ASKED_LINES: usize = 150;

/// Where the console's bytes are kept in memory, at most.
const TAIL_BYTES: usize = 64 << 10;

/// What the host hears.
#[derive(Debug)]
pub enum Heard {
    /// The agent said something.
    Word(Word),
    /// The guest is gone.
    Gone,
    /// The guest has said nothing for [`SILENCE`].
    Silent,
    /// The moment the caller named has come.
    Due,
}

/// The two serial lines, as numbers of file descriptors that the guest's program inherits.
#[derive(Debug, Clone, Copy)]
pub struct Lines {
    /// The console.
    pub console: RawFd,
    /// The line to the agent.
    pub control: RawFd,
}

/// A running guest. Dropping it ends it.
#[derive(Debug)]
pub struct Guest {
    keeper: Child,
    lifeline: Option<ChildStdin>,
    control: UnixStream,
    console: UnixStream,
    words: Receiver<Option<Word>>,
    record: Record,
    /// Its kernel's release, as `uname -r`; empty until the agent has said hello.
    pub kernel: String,
}

/// What the guest has said on its console so far, and when it last said anything.
#[derive(Debug, Clone)]
struct Record {
    tail: Arc<Mutex<VecDeque<u8>>>,
    last_heard: Arc<Mutex<Instant>>,
    /// Whether a person watches the console.
    shared: Arc<AtomicBool>,
}

impl Guest {
    /// Starts the program that `command_for` makes of the two lines, and waits until its agent says hello.
    ///
    /// # Errors
    /// When it cannot be started, ends, or falls silent before that; with the end of its console.
    pub fn start(log: &Path, command_for: impl FnOnce(Lines) -> Vec<String>) -> Result<Guest> {
        let mut guest = Guest::spawn(log, command_for)?;
        loop {
            match guest.next(None) {
                Heard::Word(Word::Hello { kernel }) => {
                    guest.kernel = kernel;
                    return Ok(guest);
                }
                Heard::Word(_) | Heard::Due => {}
                Heard::Gone => {
                    return Err(guest.trouble("cannot start the guest: it ended before its agent was up", log));
                }
                Heard::Silent => {
                    let seen = guest.look(log.parent().unwrap_or(log)).join("\n");
                    let trouble =
                        guest.trouble("cannot start the guest: it said nothing for a minute and was ended", log);
                    return Err(trouble.fact("seen", seen));
                }
            }
        }
    }

    fn spawn(log: &Path, command_for: impl FnOnce(Lines) -> Vec<String>) -> Result<Guest> {
        // While the guest's ends of the lines can be inherited, no other guest may be started: it would hold them open.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let (control, its_control) = line_pair()?;
        let (console, its_console) = line_pair()?;
        let words = command_for(Lines { console: its_console.as_raw_fd(), control: its_control.as_raw_fd() });
        let log_file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .or_trouble(|| format!("cannot write `{}`", log.display()))?;
        let copy = || log_file.try_clone().or_trouble(|| format!("cannot write `{}`", log.display()));
        let me = std::env::current_exe().or_trouble(|| "cannot find the lab's own program".into())?;
        let mut keeper = Command::new(me)
            .arg(keeper::ARGUMENT)
            .args(&words)
            .stdin(Stdio::piped())
            .stdout(copy()?)
            .stderr(copy()?)
            .spawn()
            .or_trouble(|| "cannot start the guest's keeper".into())?;
        drop(turn);
        let record = Record {
            tail: Arc::new(Mutex::new(VecDeque::new())),
            last_heard: Arc::new(Mutex::new(Instant::now())),
            shared: Arc::new(AtomicBool::new(false)),
        };
        let lifeline = keeper.stdin.take();
        record.follow_console(clone(&console)?, log_file);
        let heard = record.follow_agent(clone(&control)?);
        Ok(Guest { keeper, lifeline, control, console, words: heard, record, kernel: String::new() })
    }

    /// Tells the agent something. A guest that is gone is noticed by [`Guest::next`].
    pub fn tell(&mut self, order: &Order) {
        let _ = protocol::send(&mut self.control, order);
    }

    /// Waits for the next thing to happen, at most until `until`.
    pub fn next(&mut self, until: Option<Instant>) -> Heard {
        loop {
            let silent_at = *self.record.last_heard.lock().unwrap_or_else(PoisonError::into_inner) + SILENCE;
            let wake = until.map_or(silent_at, |u| u.min(silent_at));
            match self.words.recv_timeout(wake.saturating_duration_since(Instant::now())) {
                Ok(Some(word)) => return Heard::Word(word),
                Ok(None) | Err(RecvTimeoutError::Disconnected) => return Heard::Gone,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if until.is_some_and(|u| Instant::now() >= u) {
                return Heard::Due;
            }
            if Instant::now() >= *self.record.last_heard.lock().unwrap_or_else(PoisonError::into_inner) + SILENCE {
                return Heard::Silent;
            }
        }
    }

    /// Waits until the guest has gone by itself; false if it fell silent instead.
    pub fn wait_until_gone(&mut self) -> bool {
        loop {
            match self.next(None) {
                Heard::Gone => return true,
                Heard::Silent => return false,
                Heard::Word(_) | Heard::Due => {}
            }
        }
    }

    /// The guest's console, to write its input to. From now on its output goes to standard output, too.
    ///
    /// # Errors
    /// When the process has no file descriptors left.
    pub fn share_console(&self) -> Result<UnixStream> {
        self.record.shared.store(true, Ordering::Relaxed);
        clone(&self.console)
    }

    /// The last lines of the console.
    #[must_use]
    pub fn console_tail(&self) -> String {
        last_lines(&self.record.tail.lock().unwrap_or_else(PoisonError::into_inner), TAIL_LINES).join("\n")
    }

    /// What a silent guest, whose files are in `folder`, looks like from the host; takes some seconds.
    #[must_use]
    pub fn look(&self, folder: &Path) -> Vec<String> {
        let marked = |mark: &str, lines: Vec<String>| [vec![format!("-- {mark}:")], lines].concat();
        let before = std::mem::take(&mut *self.record.tail.lock().unwrap_or_else(PoisonError::into_inner));
        let seen = silence::look(self.keeper.id(), folder);
        let said = self.record.tail.lock().unwrap_or_else(PoisonError::into_inner);
        let parts = [
            marked("the silent guest, from the host", seen),
            marked("the end of its console", last_lines(&before, TAIL_LINES)),
            marked("what its console said when its kernel was asked", last_lines(&said, ASKED_LINES)),
        ];
        parts.concat()
    }

    fn trouble(&self, what: &str, log: &Path) -> Trouble {
        // The program's own complaints are in the log, not on the console.
        let mut text = String::new();
        let _ = File::open(log).and_then(|mut f| f.read_to_string(&mut text));
        let said = if self.console_tail().is_empty() { text } else { self.console_tail() };
        Trouble::new(what).fact("console", said)
    }
}

impl Drop for Guest {
    /// Ends the guest at once, as a power cut does.
    fn drop(&mut self) {
        drop(self.lifeline.take());
        let _ = self.keeper.wait();
        let _ = self.control.shutdown(Shutdown::Both);
        let _ = self.console.shutdown(Shutdown::Both);
    }
}

impl Record {
    fn heard(&self) {
        *self.last_heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn follow_console(&self, mut console: UnixStream, mut log: File) {
        let record = self.clone();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n) = console.read(&mut buffer) {
                let Some(bytes) = buffer.get(..n).filter(|b| !b.is_empty()) else {
                    return;
                };
                record.heard();
                let _ = log.write_all(bytes);
                if record.shared.load(Ordering::Relaxed) {
                    show::bytes(bytes);
                }
                let mut tail = record.tail.lock().unwrap_or_else(PoisonError::into_inner);
                tail.extend(bytes);
                let surplus = tail.len().saturating_sub(TAIL_BYTES);
                tail.drain(..surplus);
            }
        });
    }

    fn follow_agent(&self, control: UnixStream) -> Receiver<Option<Word>> {
        let (sender, receiver): (Sender<Option<Word>>, _) = channel();
        let record = self.clone();
        thread::spawn(move || {
            let mut reader = BufReader::new(control);
            while let Ok(Some(word)) = protocol::receive(&mut reader, |_| record.heard()) {
                record.heard();
                if sender.send(Some(word)).is_err() {
                    return;
                }
            }
            let _ = sender.send(None);
        });
        receiver
    }
}

fn last_lines(console: &VecDeque<u8>, most: usize) -> Vec<String> {
    let bytes: Vec<u8> = console.iter().copied().collect();
    let text = String::from_utf8_lossy(&bytes).replace('\r', "");
    let lines: Vec<&str> = text.lines().collect();
    lines.iter().skip(lines.len().saturating_sub(most)).map(ToString::to_string).collect()
}

/// Our end, and the guest's, which its program inherits.
fn line_pair() -> Result<(UnixStream, UnixStream)> {
    let (ours, its) = UnixStream::pair().or_trouble(|| "cannot make a line to the guest".into())?;
    fcntl(its.as_fd(), FcntlArg::F_SETFD(FdFlag::empty())).or_trouble(|| "cannot make a line to the guest".into())?;
    Ok((ours, its))
}

fn clone(stream: &UnixStream) -> Result<UnixStream> {
    stream.try_clone().or_trouble(|| "cannot share a line to the guest".into())
}
