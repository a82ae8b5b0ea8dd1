//! The agent as a service: orders in, words out, one job at a time.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Write};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};

use super::doorbell::{self, Ring};
use super::{Settings, down, job, say, sweep};
use crate::guest::boot;
use crate::protocol::{self, Order, Word};

/// How often the agent says that it is alive. The host gives a silent guest a minute.
const BEAT: Duration = Duration::from_secs(5);

/// How long udevd has to end: it waits for the rules that its workers run.
const UDEVD_ENDS: Duration = Duration::from_secs(30);

/// Everything that can happen to the service.
pub(super) enum Event {
    /// The host wants something.
    Order(Order),
    /// A test wants something.
    Ring(Ring),
    /// The job wrote a line.
    Output(String),
    /// The job's output is closed.
    Silent,
    /// The job's process has ended.
    Ended(io::Result<std::process::ExitStatus>),
    /// The line to the host is gone.
    Alone,
}

/// The way to the host, shared by everything that speaks.
#[derive(Clone)]
pub(super) struct Wire(Arc<Mutex<Box<dyn Write + Send>>>);

impl Wire {
    /// Says one word. A host that is gone cannot be told so; the reading side notices.
    pub(super) fn say(&self, word: &Word) {
        let mut to = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = protocol::send(&mut *to, word);
    }
}

/// Serves until the host is gone.
///
/// # Errors
/// When the line to the host cannot be opened.
pub(super) fn run(settings: &Settings) -> Result<()> {
    let (reader, writer) = open_line(settings.control.as_deref())?;
    let wire = Wire(Arc::new(Mutex::new(writer)));
    let (sender, events) = channel();
    read_orders(reader, sender.clone());
    let rings = doorbell::listen()?;
    let ring_sender = sender.clone();
    thread::spawn(move || {
        for ring in rings {
            if ring_sender.send(Event::Ring(ring)).is_err() {
                return;
            }
        }
    });
    let kernel = nix::sys::utsname::uname()?.release().to_string_lossy().into_owned();
    wire.say(&Word::Hello { kernel: kernel.clone() });
    let beating = wire.clone();
    thread::spawn(move || {
        loop {
            thread::sleep(BEAT);
            beating.say(&Word::Beat);
        }
    });
    serve(settings, &kernel, &wire, &sender, &events);
    Ok(())
}

fn serve(settings: &Settings, kernel: &str, wire: &Wire, sender: &Sender<Event>, events: &Receiver<Event>) {
    for event in events {
        match event {
            Event::Order(Order::Run(ordered)) => {
                let ended = job::run(settings, kernel, &ordered, wire, sender, events);
                let reboot = ended.exit == protocol::Exit::Reboot;
                wire.say(&Word::Done(ended));
                if reboot {
                    down::go(settings);
                }
            }
            Event::Order(Order::DisksBlanked) => {
                // udev looks for partitions once more after whoever wrote has closed the disk.
                let _ = Command::new("udevadm").args(["settle", "--timeout=10"]).status();
                for disk in super::disks::scratch(&settings.disks).into_iter().flatten() {
                    for forget in ["--flushbufs", "--rereadpt"] {
                        let _ = Command::new("blockdev").arg(forget).arg(&disk).status();
                    }
                }
                wire.say(&Word::Ready);
            }
            Event::Order(Order::PowerOff) => down::go(settings),
            Event::Alone => return,
            Event::Ring(ring) => ring.refuse("no test is running"),
            Event::Order(Order::Noted) | Event::Output(_) | Event::Silent | Event::Ended(_) => {}
        }
    }
}

type Line = (Box<dyn Read + Send>, Box<dyn Write + Send>);

/// Opens the serial line once and for all: user mode Linux closes its end for ever when the last opener closes it.
fn open_line(path: Option<&str>) -> Result<Line> {
    let Some(path) = path else {
        return Ok((Box::new(io::stdin()), Box::new(io::stdout())));
    };
    let line = OpenOptions::new().read(true).write(true).open(path).with_context(|| format!("opening {path}"))?;
    make_raw(&line).with_context(|| format!("making {path} raw"))?;
    let writer = line.try_clone()?;
    Ok((Box::new(line), Box::new(writer)))
}

fn make_raw(line: &File) -> nix::Result<()> {
    let mut modes = tcgetattr(line)?;
    cfmakeraw(&mut modes);
    tcsetattr(line, SetArg::TCSANOW, &modes)
}

fn read_orders(reader: Box<dyn Read + Send>, sender: Sender<Event>) {
    thread::spawn(move || {
        let mut reader = BufReader::new(reader);
        while let Ok(Some(order)) = protocol::receive(&mut reader, |stray| say(format!("not an order: {stray}"))) {
            if sender.send(Event::Order(order)).is_err() {
                return;
            }
        }
        let _ = sender.send(Event::Alone);
    });
}

/// Starts udevd unless it answers already, and waits until it knows the block devices.
pub(super) fn start_udev() {
    if boot::have_udev() {
        return;
    }
    if Path::new("/run/systemd/system").exists() && Path::new("/run/systemd/private").exists() {
        quiet("systemctl", &["start", "systemd-udevd.service"]);
    } else {
        quiet("/lib/systemd/systemd-udevd", &["--daemon"]);
    }
    quiet("udevadm", &["trigger", "--action=add", "--subsystem-match=block"]);
    quiet("udevadm", &["settle", "--timeout=10"]);
}

/// Stops udevd, so that nobody answers on its control socket and no socket is left.
pub(super) fn stop_udev() {
    if Path::new("/run/systemd/private").exists() {
        let units = ["stop", "systemd-udevd-control.socket", "systemd-udevd-kernel.socket", "systemd-udevd.service"];
        quiet("systemctl", &units);
    } else {
        quiet("udevadm", &["settle", "--timeout=10"]);
        end_udevd();
    }
    let _ = std::fs::remove_file("/run/udev/control");
}

/// Tells udevd to end until it has. Its control socket takes one connection at a time and turns others away, so one word
/// may be lost; and it answers before it ends, which two at once would not notice: both would handle every event.
fn end_udevd() {
    let give_up = Instant::now() + UDEVD_ENDS;
    while sweep::any_udevd() {
        if Instant::now() > give_up {
            return say(format!("udevd did not end within {UDEVD_ENDS:?}"));
        }
        let _ = Command::new("udevadm").args(["control", "--exit"]).env("PATH", super::PATH).output();
        thread::sleep(Duration::from_millis(20));
    }
}

fn quiet(program: &str, args: &[&str]) {
    match Command::new(program).args(args).env("PATH", super::PATH).output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => say(format!("{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(e) => say(format!("{program}: {e}")),
    }
}
