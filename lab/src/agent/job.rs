//! One job: a program, its output, its wishes, its end.

use std::collections::VecDeque;
use std::env;
use std::fs::{self, OpenOptions};
use std::io::{self, BufRead, BufReader};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::doorbell::Ring;
use super::serve::{Event, Wire, start_udev, stop_udev};
use super::sweep::Before;
use super::{Settings, disks, down};
use crate::protocol::{Ask, Ended, Exit, Job, Order, Request, Word};

/// How long a killed job has to die, and a dead one's output to end.
const AFTERMATH: Duration = Duration::from_secs(5);

/// How many of the kernel's last lines are shown for a hung job.
const KERNEL_LINES: usize = 60;

/// Runs the job to its end. Its output goes to the host line by line, as it comes.
pub(super) fn run(
    settings: &Settings,
    kernel: &str,
    job: &Job,
    wire: &Wire,
    sender: &Sender<Event>,
    events: &Receiver<Event>,
) -> Ended {
    let before = Before::look(settings.systemd);
    let start = Instant::now();
    let mut silent = false;
    let exit = match spawn(settings, kernel, job, sender) {
        Err(e) => Exit::NotStarted(format!("{}: {e}", job.program)),
        Ok(child) => {
            let unanswered = VecDeque::new();
            let limit = job.limit_s;
            let mut watch = Watch { settings, wire, events, child, start, limit, unanswered, silent };
            let exit = watch.follow();
            silent = watch.silent;
            exit
        }
    };
    let seconds = start.elapsed().as_secs_f64();
    let mut ended = Ended { exit, seconds, left: Vec::new(), spoiled: false };
    if job.sweep && ended.exit != Exit::Reboot {
        start_udev();
        let swept = before.sweep();
        ended.left = swept.left;
        ended.spoiled = swept.stuck || ended.exit == Exit::Hung;
        for line in swept.told {
            wire.say(&Word::Out { text: line });
        }
    }
    if silent || job.on_console || matches!(ended.exit, Exit::NotStarted(_) | Exit::Reboot) {
        return ended;
    }
    let give_up = Instant::now() + AFTERMATH;
    loop {
        match events.recv_timeout(give_up.saturating_duration_since(Instant::now())) {
            Ok(Event::Output(text)) => wire.say(&Word::Out { text }),
            Ok(Event::Silent) | Err(_) => return ended,
            Ok(_) => {}
        }
    }
}

/// Starts the job's process in a group of its own and returns its process id.
fn spawn(settings: &Settings, kernel: &str, job: &Job, sender: &Sender<Event>) -> io::Result<Pid> {
    let mut command = if job.on_console { on_console(job)? } else { Command::new(&job.program) };
    let disks = disks::scratch(&settings.disks);
    let path = |disk: &Option<PathBuf>| disk.iter().map(|d| d.to_string_lossy().into_owned()).collect();
    let scratch: Vec<String> = disks.iter().map(path).collect();
    // A machine of somebody else's names its own.
    let scratch = if settings.is_guest() { scratch.join(":") } else { env::var("LAB_SCRATCH").unwrap_or_default() };
    command
        .args(&job.args)
        .current_dir("/root")
        .env_clear()
        .env("PATH", super::PATH)
        .env("HOME", "/root")
        .env("LANG", "C.UTF-8")
        .env("RUST_BACKTRACE", "1")
        .env("LAB_LANE", &settings.lane)
        .env("LAB_KERNEL", kernel)
        .env("LAB_PHASE", job.phase.to_string())
        .env("LAB_NOTES", serde_json::to_string(&job.notes)?)
        .env("LAB_SCRATCH", scratch)
        .envs(&job.env);
    if !job.on_console {
        let (reader, writer) = io::pipe()?;
        command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer).process_group(0);
        pass_lines(reader, sender.clone());
    }
    let mut child = command.spawn()?;
    // The command holds our copies of the pipe's writing end; they must go, or the output never ends.
    drop(command);
    let pid = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
    let sender = sender.clone();
    thread::spawn(move || sender.send(Event::Ended(child.wait())));
    Ok(pid)
}

/// The job with the guest's console as its controlling terminal.
fn on_console(job: &Job) -> io::Result<Command> {
    let active = fs::read_to_string("/sys/class/tty/console/active")?;
    let name = active.split_ascii_whitespace().last().unwrap_or("tty0");
    let terminal = OpenOptions::new().read(true).write(true).open(format!("/dev/{name}"))?;
    let mut command = Command::new("setsid");
    command.args(["--ctty", "--wait", &job.program]);
    command.stdin(terminal.try_clone()?).stdout(terminal.try_clone()?).stderr(terminal).env("TERM", "xterm-256color");
    Ok(command)
}

fn pass_lines(reader: io::PipeReader, sender: Sender<Event>) {
    thread::spawn(move || {
        let mut reader = BufReader::new(reader);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            let text = String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']).to_string();
            line.clear();
            if sender.send(Event::Output(text)).is_err() {
                return;
            }
        }
        let _ = sender.send(Event::Silent);
    });
}

/// A running job.
struct Watch<'a> {
    settings: &'a Settings,
    wire: &'a Wire,
    events: &'a Receiver<Event>,
    child: Pid,
    start: Instant,
    limit: Option<u64>,
    /// Tests that wait until the host has their note, or knows of their disks.
    unanswered: VecDeque<Ring>,
    /// Whether the job's output is closed already.
    silent: bool,
}

impl Watch<'_> {
    fn follow(&mut self) -> Exit {
        loop {
            match self.events.recv_timeout(self.left()) {
                Ok(Event::Output(text)) => self.wire.say(&Word::Out { text }),
                Ok(Event::Ended(status)) => return exit_of(status),
                Ok(Event::Ring(ring)) => {
                    if let Some(exit) = self.wish(ring) {
                        return exit;
                    }
                }
                Ok(Event::Order(Order::Noted)) => {
                    if let Some(ring) = self.unanswered.pop_front() {
                        ring.grant();
                    }
                }
                Ok(Event::Order(Order::PowerOff) | Event::Alone) | Err(RecvTimeoutError::Disconnected) => {
                    down::go(self.settings)
                }
                Ok(Event::Silent) => self.silent = true,
                Ok(Event::Order(_)) => {}
                Err(RecvTimeoutError::Timeout) => return self.hung(),
            }
        }
    }

    /// The time until the limit; a day where there is none.
    fn left(&self) -> Duration {
        let limit = Duration::from_secs(self.limit.unwrap_or(24 * 60 * 60));
        limit.saturating_sub(self.start.elapsed())
    }

    /// Grants or refuses what the test asks; an exit ends the job.
    fn wish(&mut self, ring: Ring) -> Option<Exit> {
        let native = self.settings.lane == "native";
        match ring.request.clone() {
            Request::Reboot | Request::Host(Ask::PowerCut { .. } | Ask::Plug { .. }) if native => {
                ring.refuse("this machine is not the lab's to reboot");
            }
            Request::Reboot => {
                ring.grant();
                return Some(Exit::Reboot);
            }
            Request::Host(ask) => {
                self.wire.say(&Word::Ask(ask.clone()));
                match ask {
                    Ask::Remember { .. } | Ask::Plug { .. } => self.unanswered.push_back(ring),
                    Ask::PowerCut { .. } => ring.grant(),
                }
            }
            Request::TimeLimit { seconds } => {
                self.limit = Some(seconds);
                ring.grant();
            }
            Request::Udev { run } => {
                if native {
                    ring.refuse("this machine's udevd is not the lab's to stop");
                } else {
                    if run {
                        start_udev();
                    } else {
                        stop_udev();
                    }
                    ring.grant();
                }
            }
        }
        None
    }

    /// Tells what hangs, then ends it as far as it can be ended.
    fn hung(&mut self) -> Exit {
        for text in what_hangs() {
            self.wire.say(&Word::Out { text });
        }
        let _ = killpg(self.child, Signal::SIGKILL);
        let give_up = Instant::now() + AFTERMATH;
        while let Ok(event) = self.events.recv_timeout(give_up.saturating_duration_since(Instant::now())) {
            match event {
                Event::Output(text) => self.wire.say(&Word::Out { text }),
                Event::Ended(_) => break,
                Event::Silent => self.silent = true,
                _ => {}
            }
        }
        Exit::Hung
    }
}

fn exit_of(status: io::Result<ExitStatus>) -> Exit {
    match status {
        Err(e) => Exit::NotStarted(e.to_string()),
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => Exit::Code(code),
            (None, signal) => Exit::Signal(signal.unwrap_or(0)),
        },
    }
}

/// The kernel stacks of every process in D state, and the kernel's last words.
fn what_hangs() -> Vec<String> {
    let mut lines = vec!["-- hung; processes in D state and where the kernel holds them:".to_string()];
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        if !status.lines().any(|l| l.starts_with("State:") && l.contains('D')) {
            continue;
        }
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        lines.push(format!("{} {}", entry.file_name().to_string_lossy(), name.trim()));
        let stack = fs::read_to_string(entry.path().join("stack")).unwrap_or_default();
        lines.extend(stack.lines().map(|l| format!("    {l}")));
    }
    lines.push("-- the kernel's last lines:".to_string());
    let log = Command::new("dmesg").output().map(|o| o.stdout).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let all: Vec<&str> = log.lines().collect();
    lines.extend(all.iter().skip(all.len().saturating_sub(KERNEL_LINES)).map(ToString::to_string));
    lines
}
