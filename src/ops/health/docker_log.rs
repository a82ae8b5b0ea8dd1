//! Why Docker does not start, from the last lines of its log.
//!
//! The words are the daemon's own (daemon/graphdriver/devmapper/deviceset.go, daemon/graphdriver/driver.go,
//! cmd/dockerd/daemon.go); in a text log a message stands quoted, and its quotes and backslashes are escaped.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use crate::process;

/// How much of a log's end is read. A daemon that restarts every other second writes less in a minute.
const TAIL: usize = 256 << 10;
/// How long a line of evidence is, in a report.
const LONGEST: usize = 300;

/// Where the daemon's lines go without systemd's journal, newest scheme first.
const LOGS: [&str; 4] = ["/var/log/docker.log", "/var/log/upstart/docker.log", "/var/log/messages", "/var/log/syslog"];

/// Docker's unit, and that of Red Hat's second package.
const UNITS: [&str; 2] = ["docker", "docker-latest"];

/// Why Docker does not start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// The base device is not the one it knows, or cannot be activated.
    BaseDevice,
    /// The pool it was told to use is not there.
    MissingPool,
    /// The pool is in use, and its files know of nothing there.
    NotItsPool,
    /// One of its records of devices cannot be read.
    Record,
    /// Its transaction and the pool's do not fit.
    Transaction,
    /// The pool takes no changes.
    ReadOnly,
    /// The kernel does not make the pool of its files: one of them is shorter than the pool.
    TooSmall,
    /// Docker 25 and later have no devicemapper.
    DriverGone,
    /// An option stands on the command line and in `daemon.json`.
    OptionTwice,
    /// An option is wrong.
    BadOption,
    /// The base device is larger than `dm.basesize`.
    BaseSize,
    /// udev does not answer.
    Udev,
    /// The file system of the root is full.
    NoSpace,
    /// Another reason, in its own words.
    Other,
}

/// Why, and the line that says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cause {
    pub(crate) why: Why,
    /// The message, without what its log put before it.
    pub(crate) line: String,
}

/// What means that a start succeeded: causes before it are history.
const UP: [&str; 2] = ["Daemon has completed initialization", "API listen on"];

/// What is looked for in a line, the more telling first.
const PATTERNS: [(&str, Why); 23] = [
    ("are specified both as a flag and in the configuration file", Why::OptionTwice),
    ("storage-driver has been deprecated and removed", Why::DriverGone),
    ("prior storage driver devicemapper is deprecated", Why::DriverGone),
    ("Error running deviceCreate (CreatePool)", Why::TooSmall),
    ("Unable to take ownership of thin-pool", Why::NotItsPool),
    ("Failed to load device files", Why::Record),
    ("Base device size cannot be smaller than", Why::BaseSize),
    ("does not match with stored UUID", Why::BaseDevice),
    ("Udev sync is not supported", Why::Udev),
    ("Non existing device", Why::MissingPool),
    ("Unable to get pool status", Why::MissingPool),
    ("Rolling back open transaction", Why::Transaction),
    ("Open Transaction id", Why::Transaction),
    ("pool is read-only", Why::ReadOnly),
    ("Read-only file system", Why::ReadOnly),
    ("Operation not supported", Why::ReadOnly),
    ("too small for target", Why::TooSmall),
    ("data device too small", Why::TooSmall),
    ("Unknown option", Why::BadOption),
    ("unknown option", Why::BadOption),
    ("Base Device UUID and Filesystem verification failed", Why::BaseDevice),
    ("no space left on device", Why::NoSpace),
    ("failed to start daemon", Why::Other),
];

/// What ends a start, whatever led to it.
const FATAL: [&str; 5] = [
    "failed to start daemon",
    "Error starting daemon",
    "unable to configure the Docker daemon",
    "error initializing graphdriver",
    "level=fatal",
];

/// Reads the end of a log, which may hold any bytes; returns why the last start failed, when it did.
pub(crate) fn parse(log: &[u8]) -> Option<Cause> {
    let mut cause: Option<Cause> = None;
    // Said before the end of a failing start, and more telling than the end.
    let mut hint: Option<Cause> = None;
    for line in log.split(|b| *b == b'\n') {
        let line = String::from_utf8_lossy(line.get(..line.len().min(16 << 10)).unwrap_or_default());
        let is_fatal = FATAL.iter().any(|word| line.contains(word));
        if UP.iter().any(|word| line.contains(word)) {
            (cause, hint) = (None, None);
        } else if is_fatal {
            let found = of_line(&line).unwrap_or_else(|| of(Why::Other, &line));
            let better = hint.take().filter(|_| found.why == Why::Other);
            // The last word of a start may come twice: by the daemon, and by who started it.
            let keeps = cause.as_ref().is_some_and(|c| c.why != Why::Other && found.why == Why::Other);
            if !keeps {
                cause = Some(better.unwrap_or(found));
            }
        } else if line.contains("docker") || line.contains("level=") || line.contains("devmapper") {
            hint = of_line(&line).filter(|h| HINTS.contains(&h.why)).or(hint);
        }
    }
    cause
}

/// Reasons that a line which ends nothing may already tell.
const HINTS: [Why; 3] = [Why::Transaction, Why::Udev, Why::ReadOnly];

fn of_line(line: &str) -> Option<Cause> {
    PATTERNS.iter().find(|(words, _)| line.contains(words)).map(|(_, why)| of(*why, line))
}

fn of(why: Why, line: &str) -> Cause {
    let message = line.split_once("msg=\"").map_or(line, |(_, rest)| rest.trim_end().trim_end_matches('"'));
    // What systemd and syslog put before it ends with the daemon's number.
    let message = message.split_once("]: ").filter(|(before, _)| before.contains("docker")).map_or(message, |(_, m)| m);
    let clean = message.replace("\\\"", "\"").chars().filter(|c| !c.is_control()).take(LONGEST).collect::<String>();
    Cause { why, line: clean.trim().to_owned() }
}

/// Returns the units whose journal is asked: those that are known, and what distributions call Docker's.
pub(super) fn units(known: impl Iterator<Item = String>) -> Vec<String> {
    let mut units: Vec<String> = known.chain(UNITS.map(str::to_owned)).collect();
    units.sort();
    units.dedup();
    units
}

/// Looks for the reason: in the journal of these units, else in the files that syslog and init scripts write.
///
/// # Errors
/// In words, when the journal does not answer within that limit, and no file has a reason.
pub(super) fn look(units: &[String], limit: Duration) -> Result<Option<Cause>, String> {
    let units = units.iter().flat_map(|unit| ["-u", unit.as_str()]);
    let journal: Vec<&str> = units.chain(["-n", "200", "--no-pager", "-o", "cat"]).collect();
    let asked = process::run_within("journalctl", &journal, limit, TAIL);
    // A journal that has the daemon's lines is where it writes; what older files say is history.
    if let Ok(lines) = &asked
        && (parse(lines).is_some() || UP.iter().any(|word| String::from_utf8_lossy(lines).contains(word)))
    {
        return Ok(parse(lines));
    }
    match (LOGS.iter().find_map(|log| parse(&tail(Path::new(log)).ok()?)), asked) {
        (None, Err(e)) if e.gave_up => Err(e.to_string()),
        (cause, _) => Ok(cause),
    }
}

/// Returns the end of a regular file; one that grows meanwhile is read no farther.
fn tail(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut file: File = File::options().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Ok(Vec::new());
    }
    let most = u64::try_from(TAIL).unwrap_or(u64::MAX);
    file.seek(SeekFrom::Start(found.len().saturating_sub(most)))?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `tests/fixtures/docker-log/README.md` says how each came about.
    const REAL: [(&str, Why, &str); 11] = [
        (include_str!("../../../tests/fixtures/docker-log/twice.log"), Why::OptionTwice, "storage-opts: (from flag:"),
        (include_str!("../../../tests/fixtures/docker-log/missing.log"), Why::MissingPool, "Non existing device nope"),
        (include_str!("../../../tests/fixtures/docker-log/base-size.log"), Why::BaseSize, "smaller than"),
        (include_str!("../../../tests/fixtures/docker-log/option.log"), Why::BadOption, "Unknown option dm.basesze"),
        (include_str!("../../../tests/fixtures/docker-log/empty-pool.log"), Why::BaseDevice, "verification failed"),
        (include_str!("../../../tests/fixtures/docker-log/used-pool.log"), Why::NotItsPool, "take ownership"),
        (include_str!("../../../tests/fixtures/docker-log/other-uuid.log"), Why::BaseDevice, "does not match"),
        (include_str!("../../../tests/fixtures/docker-log/short-file.log"), Why::TooSmall, "(CreatePool)"),
        (include_str!("../../../tests/fixtures/docker-log/no-udev.log"), Why::Udev, "Udev sync is not supported"),
        (include_str!("../../../tests/fixtures/docker-log/record.log"), Why::Record, "Unknown device dd"),
        (include_str!("../../../tests/fixtures/docker-log/docker-25.log"), Why::DriverGone, "deprecated and removed"),
    ];

    #[test]
    fn real_logs_say_why() {
        for (log, why, words) in REAL {
            let cause = parse(log.as_bytes()).unwrap();
            assert_eq!(cause.why, why, "{cause:?}");
            assert!(cause.line.contains(words), "{cause:?}");
            assert!(!cause.line.contains("level=") && !cause.line.contains("dockerd["), "{cause:?}");
        }
    }

    #[test]
    fn the_units_that_are_asked_are_those_that_are_known_and_those_of_the_distributions() {
        assert_eq!(
            units(["docker".to_owned(), "my-docker".to_owned()].into_iter()),
            ["docker", "docker-latest", "my-docker"]
        );
    }

    #[test]
    fn a_start_that_succeeded_later_ends_the_matter() {
        for (log, _, _) in REAL {
            let later = format!("{log}\ntime=\"x\" level=info msg=\"API listen on /var/run/docker.sock\"\n");
            assert_eq!(parse(later.as_bytes()), None);
            assert!(parse(format!("{later}{log}").as_bytes()).is_some());
        }
        let stopped =
            "level=info msg=\"Processing signal 'terminated'\"\nlevel=info msg=\"Daemon shutdown complete\"\n";
        assert_eq!(parse(stopped.as_bytes()), None, "who was stopped is not down");
    }

    #[test]
    fn what_syslog_puts_before_it_goes() {
        let line = "Nov 21 04:00:01 host dockerd[612]: failed to start daemon: error initializing graphdriver: \
                    devicemapper: Non existing device docker-thinpool";
        let cause = parse(line.as_bytes()).unwrap();
        assert!(cause.line.starts_with("failed to start daemon"), "{cause:?}");
        // CentOS 7's docker 1.13 says the same with a level.
        let old = "time=\"2026-11-21T04:00:01Z\" level=fatal msg=\"Error starting daemon: error initializing graphdriver: \
                   devicemapper: Non existing device docker-thinpool\"";
        let cause = parse(old.as_bytes()).unwrap();
        assert_eq!(cause.why, Why::MissingPool);
        assert!(cause.line.ends_with("docker-thinpool"), "{cause:?}");
        // A line of another program that speaks of the same is no reason.
        assert_eq!(parse(b"kernel: Operation not supported\nsshd[3]: no space left on device\n"), None);
    }

    #[test]
    fn a_log_is_read_from_its_end_and_only_a_file() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("log");
        std::fs::write(&path, [vec![0xff; 3 << 20], b"\nend".to_vec()].concat()).unwrap();
        let bytes = tail(&path).unwrap();
        assert!(bytes.len() == TAIL && bytes.ends_with(b"end"));
        assert_eq!(tail(Path::new("/dev/zero")).unwrap(), b"");
        assert!(tail(&temp.path().join("none")).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(log in prop::collection::vec(any::<u8>(), 0..4096), at in 0_usize..4096) {
            let mut log = log;
            let at = at.min(log.len());
            log.splice(at..at, b"level=fatal msg=\"failed to start daemon \x1b[2J]: ".iter().copied());
            if let Some(cause) = parse(&log) {
                prop_assert!(cause.line.chars().all(|c| !c.is_control()));
            }
        }
    }
}
