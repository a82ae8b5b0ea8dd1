//! The Docker daemon of one root: whether it runs, and how it is stopped and started.

pub mod containers;
pub mod kept;
pub mod saved;
pub mod saving;
pub mod units;
pub mod used;
pub mod vanishing;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::engine::api::{Api, ApiError};
use crate::engine::configuration::Configuration;
use crate::engine::start::Starter;
use crate::engine::stuck::{Stuck, stuck};
use crate::engine::{roots, start};
use crate::kernel::{self, interrupt};
use crate::ops::steps::configure::systemctl;
use crate::process::{self, Begun, quote};

/// From being told to stop to being gone, with nothing left to stop.
const DOWN: Duration = Duration::from_secs(180);
/// From being told to stop by its init script, which waits for it, to answering nobody: that comes first (`DaemonCli.stop`,
/// cmd/dockerd/daemon.go). What somebody's own command stops may be told late.
const DEAF: Duration = Duration::from_secs(10);
/// From being started to answering: a pool with thousands of containers takes minutes.
const UP: Duration = Duration::from_secs(600);
/// Within how long a program that starts Docker and fails has failed to, whatever runs by then.
const BEGUN: Duration = Duration::from_secs(5);
/// How long a daemon that refuses to start is there for, at most.
const REFUSES: Duration = Duration::from_secs(10);
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);
/// How much of the journal is shown of a Docker that does not start.
const LINES_OF_LOG: &str = "5";
const LOG_KEPT: usize = 1500;
/// What a program says that starts Docker, in the folder of the records.
pub const LOG: &str = "start.log";

/// What stops and starts Docker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// systemd: those of Docker's units that were active, in the order in which they are started.
    Units(Vec<String>),
    /// An init script of that name.
    Script(String),
    /// Two programs with their arguments.
    Commands {
        /// Ends it.
        stop: Vec<String>,
        /// Starts it, and ends then or goes on as Docker itself.
        start: Vec<String>,
    },
}

impl Way {
    /// Returns the command that stops Docker, as somebody would type it.
    pub fn stops(&self) -> String {
        match self {
            Self::Units(units) => format!("systemctl stop {}", units.join(" ")),
            Self::Script(name) => format!("service {} stop", quote(name)),
            Self::Commands { stop, .. } => typed(stop),
        }
    }

    /// Returns the command that starts Docker.
    pub fn starts(&self) -> String {
        match self {
            Self::Units(units) => format!("systemctl start {}", units.join(" ")),
            Self::Script(name) => format!("service {} start", quote(name)),
            Self::Commands { start, .. } => typed(start),
        }
    }
}

fn typed(words: &[String]) -> String {
    words.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" ")
}

/// The daemon of a root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Daemon {
    /// Its root.
    pub root: PathBuf,
    /// Where it listens.
    pub socket: PathBuf,
    /// What stops and starts it.
    pub way: Way,
    /// The units that systemd stops with it and that ran: they are stopped before containers, and started behind them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub with: Vec<String>,
}

/// Returns the processes of daemons that run on a root.
pub fn pids_on(root: &Path) -> Vec<u32> {
    roots::daemons_on(root).into_iter().map(|daemon| daemon.pid).collect()
}

/// Returns the daemon of a root that a signal has stopped (`SIGSTOP`).
pub fn stopped_on(root: &Path) -> Option<u32> {
    pids_on(root).into_iter().find(|pid| stuck(*pid, Duration::ZERO) == Some(Stuck::Stopped))
}

/// Fails when a daemon runs on a root and stays: one that refuses to start is there for a moment too.
///
/// # Errors
/// With its process id.
pub fn nobody_runs_on(root: &Path) -> Result<()> {
    let until = Instant::now() + REFUSES;
    while let Some(pid) = pids_on(root).first() {
        let (path, stop) = (root.display(), stopped_by(*pid));
        ensure!(Instant::now() < until, "a Docker daemon runs on {path} (process {pid}): stop it first:  {stop}");
        std::thread::sleep(BETWEEN_LOOKS);
    }
    Ok(())
}

/// Returns the command that stops the Docker of a root, as this machine does it.
pub fn stop_command(root: &Path) -> String {
    let next = Configuration::of_next(Path::new("/"));
    let next_root = next.root();
    // That of another root would stop another Docker.
    let is_next = next_root == root || next_root.canonicalize().is_ok_and(|next| next == root);
    match (next.starter.filter(|_| is_next), pids_on(root).first()) {
        (Some(script @ Starter::Script(_)), _) => script.command("stop"),
        (_, Some(pid)) => stopped_by(*pid),
        (Some(unit), None) => unit.command("stop"),
        (None, None) => "stop Docker".to_owned(),
    }
}

/// Returns the command that stops a daemon, whoever has started it.
fn stopped_by(pid: u32) -> String {
    let unit = units::of_process(pid, start::read(Path::new("/")).unit);
    unit.map_or_else(|| format!("kill {pid}"), |unit| format!("systemctl stop {} {unit}", units::socket_of(unit)))
}

impl Daemon {
    /// Returns whether it runs, answering or not.
    pub fn runs(&self) -> bool {
        !pids_on(&self.root).is_empty()
    }

    /// Returns its API, in its own version.
    ///
    /// # Errors
    /// When it does not answer; at once where a signal has stopped it.
    pub fn api(&self) -> Result<Api, ApiError> {
        match stopped_on(&self.root) {
            Some(pid) => Err(ApiError::Stopped(pid)),
            None => Api::at(&self.socket).negotiated(),
        }
    }

    /// Stops it, and waits until it is gone. Nothing is done when it does not run.
    ///
    /// # Errors
    /// When it is still there, or what stops it fails.
    pub fn stop(&self) -> Result<()> {
        if let Way::Units(units) = &self.way {
            // The socket as well, also beside a daemon that is gone: it would start another.
            let words: Vec<_> = std::iter::once("stop").chain(units.iter().map(String::as_str)).collect();
            systemctl(&words)?;
        } else if self.runs() {
            // It would not end, and what is asked to end it would wait for that.
            if let Some(pid) = stopped_on(&self.root) {
                return Err(ApiError::Stopped(pid)).context("stopping Docker");
            }
            match &self.way {
                Way::Script(name) => process::change_within("service", &[name.as_str(), "stop"], DOWN),
                Way::Commands { stop, .. } => {
                    let (program, args) = stop.split_first().context("there is no command that stops Docker")?;
                    process::change_within(program, args, DOWN)
                }
                Way::Units(_) => Ok(()),
            }
            .context("stopping Docker")?;
        }
        let told = Instant::now();
        while let Some(pid) = pids_on(&self.root).first() {
            let since = told.elapsed();
            ensure!(since < DOWN, "Docker (process {pid}) is still there after `{}`", self.way.stops());
            ensure!(
                !matches!(self.way, Way::Script(_)) || since < DEAF || self.api().is_err(),
                "Docker (process {pid}) answers as before: `{}` stops another one, and this one was started otherwise; \
                 --stop-command and --start-command say how",
                self.way.stops()
            );
            std::thread::sleep(BETWEEN_LOOKS);
        }
        Ok(())
    }

    /// Starts it, and waits until it answers; what a program says that starts it goes to a file in that folder. One that runs
    /// already is waited for.
    ///
    /// # Errors
    /// When it ends or does not answer, with the last that it said.
    pub fn start(&self, folder: &Path) -> Result<Api> {
        kernel::fs::make_dir_durably(folder, 0o700)?;
        let log = &folder.join(LOG);
        let mut begun = None;
        if !self.runs() {
            // Of an earlier start.
            kernel::fs::remove_durably(log)?;
            begun = self.begin(log).map_err(|why| self.with_log(why, log)).context("starting Docker")?;
        }
        self.wait_until_it_answers(log, begun)
    }

    /// Begins to start it. Returns the program that does, where it is no unit.
    fn begin(&self, log: &Path) -> Result<Option<Begun>> {
        let begin = |program: &str, args: &[&str]| {
            process::begin(program, args, log, interrupt::without_held_signals).map(Some)
        };
        Ok(match &self.way {
            Way::Units(units) => {
                // Failures that somebody else has brought about while it was held count against it; none is no error.
                for unit in units {
                    let _ = systemctl(&["reset-failed", unit]);
                }
                // Not waited for: systemd waits for ever where Docker's unit says so.
                let words: Vec<_> =
                    ["start", "--no-block"].into_iter().chain(units.iter().map(String::as_str)).collect();
                systemctl(&words)?;
                None
            }
            Way::Script(name) => begin("service", &[name, "start"])?,
            Way::Commands { start, .. } => {
                let (program, args) = start.split_first().context("there is no command that starts Docker")?;
                begin(program, &args.iter().map(String::as_str).collect::<Vec<_>>())?
            }
        })
    }

    /// Returns whether who starts it has not come so far: a program that prepares something first, a unit that waits for another.
    fn is_beginning(&self, begun: &mut Option<Begun>) -> bool {
        match &self.way {
            Way::Units(units) => units.last().is_some_and(|unit| units::is_beginning(unit)),
            Way::Script(_) | Way::Commands { .. } => begun.as_mut().is_some_and(Begun::runs),
        }
    }

    fn wait_until_it_answers(&self, log: &Path, mut begun: Option<Begun>) -> Result<Api> {
        let (until, watched) = (Instant::now() + UP, Instant::now() + BEGUN);
        let (mut gone, mut stopped) = (None, None);
        loop {
            let failed = begun.as_mut().filter(|_| Instant::now() < watched).and_then(Begun::failed);
            if let Some(why) = failed {
                return Err(self.with_log(why.into(), log)).context("starting Docker");
            }
            let asked = self.api();
            match &asked {
                Err(ApiError::Stopped(_)) => stopped = stopped.or_else(|| Some(Instant::now() + REFUSES)),
                _ => stopped = None,
            }
            match asked {
                Ok(api) => return Ok(api),
                Err(why) if stopped.is_some_and(|limit| Instant::now() >= limit) => {
                    return Err(why).context("waiting for Docker to answer");
                }
                Err(why) if Instant::now() >= until => {
                    return Err(self.with_log(why.into(), log)).context("waiting for Docker to answer");
                }
                Err(_) => {}
            }
            // It may take a moment until it is there, and one that systemd starts again is there soon.
            match (self.runs(), gone) {
                (true, _) => gone = None,
                (false, None) => gone = Some(Instant::now() + REFUSES),
                (false, Some(limit)) if Instant::now() >= limit && self.is_beginning(&mut begun) => gone = None,
                (false, Some(limit)) if Instant::now() >= limit => {
                    let why = anyhow::anyhow!("Docker has ended");
                    return Err(self.with_log(why, log)).context("waiting for Docker to answer");
                }
                (false, Some(_)) => {}
            }
            std::thread::sleep(BETWEEN_LOOKS);
        }
    }

    /// Adds the last that Docker said to an error, where that can be found.
    fn with_log(&self, why: anyhow::Error, log: &Path) -> anyhow::Error {
        let said = match &self.way {
            Way::Units(units) => {
                let unit = units.last().map_or("docker.service", String::as_str);
                let args = ["-u", unit, "-n", LINES_OF_LOG, "--no-pager", "-o", "cat"];
                let said = process::run_within("journalctl", &args, Duration::from_secs(20), LOG_KEPT);
                String::from_utf8_lossy(&said.unwrap_or_default()).into_owned()
            }
            Way::Script(_) | Way::Commands { .. } => process::end_of(log),
        };
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        if said.is_empty() { why } else { why.context(format!("Docker said last: {said}")) }
    }
}

/// Splits a command that somebody typed into its words, quotes taken off.
///
/// # Errors
/// When there is none.
pub fn words_of(command: &str) -> Result<Vec<String>> {
    let words = crate::engine::start::words::split(command, crate::engine::start::words::Backslash::Plain);
    if words.is_empty() {
        bail!("it is empty");
    }
    Ok(words)
}
