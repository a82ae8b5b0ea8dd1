//! What a guest that has fallen silent looks like from the host, looked at before it is ended: whether its processes run,
//! wait or stand still, what they wait for, how busy the host is, and what its kernel still says to user mode Linux's
//! management console, which answers while interrupts are taken, whatever the guest's processes do.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::process;
use std::thread;
use std::time::Duration;

use nix::sys::statvfs::statvfs;

/// How long processor times are watched.
const WATCHED: Duration = Duration::from_secs(1);

/// How long the management console has to answer each time.
const ANSWER: Duration = Duration::from_secs(3);

/// What it is asked. The first lets all that follows out to its console: its timers, its memory, what runs, what is blocked.
/// The last may be its end: 6.1 panics where it shows what a thread of a work queue does.
const QUESTIONS: [&str; 5] = ["sysrq 8", "sysrq q", "sysrq m", "sysrq p", "sysrq w"];

/// How many processes are shown one by one.
const SHOWN: usize = 12;

/// A thread of the guest, as `/proc` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Thread {
    folder: PathBuf,
    name: String,
    /// `R` runs, `S` waits, `D` waits for the host's disk, `t` is stopped by its tracer, `T` by a signal.
    state: char,
    session: u32,
    /// Of processor time.
    ticks: u64,
}

/// The kernel's ticks are 10 ms long on every machine: `USER_HZ`.
const TICK_MS: u64 = 10;

/// Looks at the guest whose processes are in the session of `keeper` and whose files are in `folder`; takes some seconds.
#[must_use]
pub fn look(keeper: u32, folder: &Path) -> Vec<String> {
    let before = threads(keeper);
    thread::sleep(WATCHED);
    let mut lines = vec![host(folder)];
    lines.extend(processes(&before, &threads(keeper)));
    lines.extend(consoles(folder).iter().map(|socket| kernel(socket)));
    lines
}

/// How busy the host is, and what room its memory and disk have.
fn host(folder: &Path) -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let load = read("/proc/loadavg");
    let memory = read("/proc/meminfo");
    let mut line = format!("the host: load {}", load.trim());
    for field in ["MemAvailable", "Dirty", "Writeback"] {
        let value = memory.lines().find_map(|l| l.strip_prefix(field)?.strip_prefix(':'));
        let _ = write!(line, ", {field} {}", value.unwrap_or("?").trim());
    }
    // User mode Linux keeps its guests' memory in a file there.
    for place in [Path::new("/dev/shm"), folder] {
        if let Ok(found) = statvfs(place) {
            let free = (found.blocks_available() * found.fragment_size()) >> 20;
            let _ = write!(line, ", {free} MiB free in {}", place.display());
        }
    }
    line
}

/// One line for each thread that uses the processor or is not merely stopped by its tracer, as the processes of a guest
/// of user mode Linux are while its kernel runs.
fn processes(before: &[Thread], after: &[Thread]) -> Vec<String> {
    let used = |thread: &Thread| {
        let earlier = before.iter().find(|b| b.folder == thread.folder).map_or(0, |b| b.ticks);
        thread.ticks.saturating_sub(earlier)
    };
    let (mut told, idle): (Vec<_>, Vec<_>) = after.iter().partition(|t| t.state != 't' || used(t) > 0);
    told.sort_by_key(|thread| std::cmp::Reverse(used(thread)));
    let mut lines: Vec<String> =
        told.iter().take(SHOWN).map(|t| format!("{}, {}", t.line(used(t)), t.waits())).collect();
    let rest = after.len() - lines.len();
    lines.push(format!("{rest} more threads of the guest, {} of them stopped by their tracer", idle.len()));
    lines
}

/// The threads of a session.
fn threads(session: u32) -> Vec<Thread> {
    let listed = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let tasks = listed(Path::new("/proc")).flat_map(|process| listed(&process.join("task")).collect::<Vec<_>>());
    let read = |folder: PathBuf| {
        let stat = fs::read_to_string(folder.join("stat")).ok()?;
        Thread::parse(&stat, folder)
    };
    tasks.filter_map(read).filter(|thread| thread.session == session).collect()
}

impl Thread {
    /// From a line of `/proc/PID/stat`: see proc(5).
    fn parse(stat: &str, folder: PathBuf) -> Option<Thread> {
        let (start, rest) = stat.rsplit_once(')')?;
        let (_, name) = start.split_once('(')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
        Some(Thread {
            folder,
            name: name.to_string(),
            state: fields.first()?.chars().next()?,
            session: u32::try_from(number(3)?).ok()?,
            ticks: number(11)? + number(12)?,
        })
    }

    fn line(&self, used: u64) -> String {
        let id = self.folder.file_name().unwrap_or_default().to_string_lossy();
        format!(
            "thread {id} {}: {}, {} ms of processor in {} s",
            self.name,
            self.state,
            used * TICK_MS,
            WATCHED.as_secs()
        )
    }

    /// The function of the host's kernel that it waits in, its system call with the arguments, and its signals.
    fn waits(&self) -> String {
        let read = |name: &str| fs::read_to_string(self.folder.join(name)).unwrap_or_default();
        let status = read("status");
        let signals =
            status.lines().filter(|l| ["SigPnd", "ShdPnd", "SigBlk"].iter().any(|field| l.starts_with(field)));
        let signals: Vec<String> = signals.map(|line| line.replace(":\t", " ")).collect();
        format!("in {}, system call {}, {}", read("wchan").trim(), read("syscall").trim(), signals.join(" "))
    }
}

/// The sockets of management consoles below the guest's folder.
fn consoles(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path().join("mconsole")).filter(|socket| socket.exists()).collect()
}

/// What the kernel answers there. What it has to tell goes to its console.
fn kernel(socket: &Path) -> String {
    for question in QUESTIONS {
        if let Err(e) = ask(socket, question) {
            return format!("its kernel does not answer to `{question}`: {e}");
        }
    }
    format!("its kernel answers; it was asked for {}, see its console", QUESTIONS.join(", "))
}

/// One question, as arch/um/drivers/mconsole.h has it: three numbers, the last the length of the text behind them. The answer is
/// not read: what follows its first piece is lost where nobody has read that yet.
fn ask(socket: &Path, question: &str) -> io::Result<()> {
    const MAGIC: u32 = 0xcafe_babe;
    const VERSION: u32 = 2;
    const TEXT: usize = 512;
    let name = format!("dmpool-lab-{}-{:?}", process::id(), thread::current().id());
    let line = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name)?)?;
    line.set_read_timeout(Some(ANSWER))?;
    line.set_write_timeout(Some(ANSWER))?;
    let length = u32::try_from(question.len()).map_err(io::Error::other)?;
    let mut message: Vec<u8> = [MAGIC, VERSION, length].iter().flat_map(|number| number.to_ne_bytes()).collect();
    message.extend_from_slice(question.as_bytes());
    message.resize(message.len() + TEXT - question.len(), 0);
    line.send_to(&message, socket)?;
    line.recv(&mut [0; TEXT]).map(drop)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use std::process::{Child, Command};

    use nix::sys::signal::{Signal, killpg};
    use nix::sys::wait::{WaitPidFlag, waitpid};
    use nix::unistd::Pid;

    use super::*;

    /// A shell in a session of its own, as a keeper is, and what it has started.
    struct Session(Child);

    impl Session {
        fn start(script: &str) -> Session {
            let session = Session(Command::new("setsid").args(["sh", "-c", script]).spawn().unwrap());
            while !threads(session.id()).iter().any(|thread| thread.name == "sh") {
                thread::sleep(Duration::from_millis(5));
            }
            session
        }

        fn id(&self) -> u32 {
            self.0.id()
        }

        fn group(&self) -> Pid {
            Pid::from_raw(i32::try_from(self.id()).unwrap())
        }
    }

    impl Drop for Session {
        fn drop(&mut self) {
            let _ = killpg(self.group(), Signal::SIGKILL);
            let _ = self.0.wait();
        }
    }

    #[test]
    fn a_stopped_guest_and_a_busy_one_are_told_apart_and_a_deaf_kernel_from_one_that_answers() {
        let folder = tempfile::tempdir().unwrap();
        let busy = Session::start("while :; do :; done");
        let stopped = Session::start("while :; do :; done");
        killpg(stopped.group(), Signal::SIGSTOP).unwrap();
        waitpid(stopped.group(), Some(WaitPidFlag::WUNTRACED)).unwrap();

        let lines = look(stopped.id(), folder.path());
        assert!(lines[0].starts_with("the host: load ") && lines[0].contains("/dev/shm"), "{lines:?}");
        assert!(lines[1].starts_with(&format!("thread {} sh: T, 0 ms of processor", stopped.id())), "{lines:?}");
        assert_eq!(lines[2], "0 more threads of the guest, 0 of them stopped by their tracer");
        assert_eq!(lines.len(), 3, "no management console: {lines:?}");

        // One whose kernel hears and says nothing.
        let place = folder.path().join("umid");
        fs::create_dir(&place).unwrap();
        let console = UnixDatagram::bind(place.join("mconsole")).unwrap();
        let lines = look(busy.id(), folder.path());
        assert!(lines[1].starts_with(&format!("thread {} sh: R, ", busy.id())), "{lines:?}");
        assert!(!lines[1].contains(" 0 ms of processor"), "{lines:?}");
        assert!(lines[3].starts_with("its kernel does not answer to `sysrq 8`: "), "{lines:?}");
        let mut asked = [0; 1024];
        let length = console.recv(&mut asked).unwrap();
        assert_eq!((length, &asked[12..20]), (12 + 512, b"sysrq 8\0".as_slice()));

        thread::spawn(move || {
            while let Ok((_, asker)) = console.recv_from(&mut asked) {
                console.send_to_addr(&[0; 12], &asker).unwrap();
            }
        });
        let lines = look(busy.id(), folder.path());
        assert!(lines[3].starts_with("its kernel answers; it was asked for sysrq 8, "), "{lines:?}");
    }
}
