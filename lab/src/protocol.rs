//! The words that the host and the agent in the guest exchange: one JSON object per line, in both directions, over a
//! serial line. A second, smaller set of lines runs between a test and the agent, over a Unix socket in the guest.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Write};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Where the agent listens for the tests of its guest.
pub const SOCKET: &str = "/run/lab/agent.sock";

/// Where the payload (programs, tests, scripts) is mounted in the guest.
pub const PAYLOAD: &str = "/run/lab/payload";

/// What a test prints at the start of a line to be counted as skipped; the reason follows.
pub const SKIP_MARK: &str = "lab-skip: ";

/// What the host tells the agent.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub enum Order {
    /// Run one program to its end and answer with [`Word::Done`].
    Run(Job),
    /// The host has what it was told to keep in mind; the test that asked may go on.
    Noted,
    /// The scratch disks were made blank behind the guest's back: drop what is cached of them, answer [`Word::Ready`].
    DisksBlanked,
    /// Shut down cleanly; the guest goes without an answer.
    PowerOff,
}

/// One program to run in the guest.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    /// The program, as a path in the guest.
    pub program: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Added to the environment that every job has.
    pub env: BTreeMap<String, String>,
    /// After how many seconds the job counts as hung; nothing = never.
    pub limit_s: Option<u64>,
    /// How often the guest went down in this test so far.
    pub phase: u32,
    /// What earlier phases remembered.
    pub notes: BTreeMap<String, String>,
    /// Run with the guest's console as its terminal instead of sending its output line by line.
    pub on_console: bool,
    /// Look for what the job left behind, and clear it away.
    pub sweep: bool,
}

/// What the agent tells the host.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "word", rename_all = "snake_case")]
pub enum Word {
    /// The agent is up and waits for orders.
    Hello {
        /// The guest's kernel release, as `uname -r`.
        kernel: String,
    },
    /// Said every few seconds: kernel, scheduler and agent are alive.
    Beat,
    /// One line that the job wrote.
    Out {
        /// The line without its end; bytes that are not UTF-8 are replaced.
        text: String,
    },
    /// The job has ended.
    Done(Ended),
    /// The job needs something only the host can do.
    Ask(Ask),
    /// The order before was carried out.
    Ready,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    /// Its exit.
    pub exit: Exit,
    /// How long it ran, in seconds.
    pub seconds: f64,
    /// What it left behind that a test must not leave: one line each.
    pub left: Vec<String>,
    /// The guest can no longer be trusted with another test (a process that cannot be killed, a device that stays).
    pub spoiled: bool,
}

/// What stands in one of the places that a guest has for scratch disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Plug {
    /// The scratch disk of this number.
    Disk(usize),
    /// A disk of its own with all that was on that one when the guest was booted, as a SAN's snapshot of it.
    CopyOf(usize),
}

impl Plug {
    /// Its name; `lab-NAME` is its serial number.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Plug::Disk(number) => format!("scratch{number}"),
            Plug::CopyOf(number) => format!("copy{number}"),
        }
    }
}

/// Which scratch disks a guest is booted with, in the order in which it finds them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disks(pub Vec<Plug>);

impl Disks {
    /// These disks alone, by number, in this order.
    #[must_use]
    pub fn in_order(numbers: &[usize]) -> Disks {
        Disks(numbers.iter().copied().map(Plug::Disk).collect())
    }

    /// The same, and behind them a copy of that one.
    #[must_use]
    pub fn with_copy_of(mut self, number: usize) -> Disks {
        self.0.push(Plug::CopyOf(number));
        self
    }
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// With this status.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// It could not be started; the reason.
    NotStarted(String),
    /// It was still running at its time limit and was killed, or could not be.
    Hung,
    /// It asked for a clean reboot, which follows.
    Reboot,
}

/// What a test asks the host for, through the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Ask {
    /// Kill the guest when this many milliseconds have passed (0 = at once).
    PowerCut {
        /// Milliseconds from the moment the host reads it.
        after_ms: u64,
    },
    /// Keep a note across reboots and power cuts; answered with [`Order::Noted`].
    Remember {
        /// Its name.
        key: String,
        /// Its text.
        value: String,
    },
    /// Boot the guest with these scratch disks from its next boot on; answered with [`Order::Noted`].
    Plug {
        /// Which, in which order.
        disks: Disks,
    },
}

/// What a test tells the agent, one JSON object per line; every one is answered with a line `ok` or `no: REASON`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// Reboot cleanly and run this test again.
    Reboot,
    /// Something for the host.
    Host(Ask),
    /// This test needs so many seconds in all.
    TimeLimit {
        /// Seconds from the start of the test.
        seconds: u64,
    },
    /// Start or stop udevd for the rest of this test.
    Udev {
        /// Whether it shall run.
        run: bool,
    },
}

/// Writes one message as a line and flushes it.
///
/// # Errors
/// Those of the writer.
pub fn send<T: Serialize>(to: &mut impl Write, message: &T) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    to.write_all(&line)?;
    to.flush()
}

/// Reads the next message; nothing at the end of the stream. Lines that are no message (a kernel that prints on the
/// wrong line, the echo of a terminal that is not raw yet) are passed to `stray` and skipped.
///
/// # Errors
/// Those of the reader.
pub fn receive<T: DeserializeOwned>(from: &mut impl BufRead, mut stray: impl FnMut(&str)) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    loop {
        line.clear();
        if from.read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        match serde_json::from_slice(&line) {
            Ok(message) => return Ok(Some(message)),
            Err(_) => stray(String::from_utf8_lossy(&line).trim_end()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn messages_survive_the_line_and_noise_is_set_aside() {
        let mut wire = b"[    0.1] kernel noise\n".to_vec();
        let ask = Word::Ask(Ask::Remember { key: "k".into(), value: "two\nlines \u{fffd}".into() });
        send(&mut wire, &ask).unwrap();
        send(&mut wire, &Word::Beat).unwrap();
        let mut strays = Vec::new();
        let mut reader = wire.as_slice();
        let first: Word = receive(&mut reader, |s| strays.push(s.to_string())).unwrap().unwrap();
        let second: Word = receive(&mut reader, |_| ()).unwrap().unwrap();
        let end: Option<Word> = receive(&mut reader, |_| ()).unwrap();
        assert_eq!(strays, ["[    0.1] kernel noise"]);
        assert_eq!(format!("{first:?}"), format!("{ask:?}"));
        assert!(matches!(second, Word::Beat));
        assert!(end.is_none());
    }

    #[test]
    fn every_order_can_be_read_back() {
        let job = Job {
            program: "/bin/true".into(),
            args: vec!["a b".into()],
            env: BTreeMap::from([("K".into(), "V".into())]),
            limit_s: Some(3),
            phase: 2,
            notes: BTreeMap::new(),
            on_console: false,
            sweep: true,
        };
        for order in [Order::Run(job), Order::Noted, Order::DisksBlanked, Order::PowerOff] {
            let mut wire = Vec::new();
            send(&mut wire, &order).unwrap();
            let back: Order = receive(&mut wire.as_slice(), |_| ()).unwrap().unwrap();
            assert_eq!(format!("{back:?}"), format!("{order:?}"));
        }
    }
}
