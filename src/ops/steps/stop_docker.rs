//! The steps that stop what runs in Docker, and Docker.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::kernel::{block, holders, processes};
use crate::ops::daemon::containers::{self, Ran, RunsStill};
use crate::ops::daemon::{Daemon, nobody_runs_on, units};
use crate::ops::sight;
use crate::ops::steps::{Act, Attempt, Hold, KeepRecords, Kit, Reverted, WayBack};

/// How long what a container leaves behind may take to go.
const GONE: Duration = Duration::from_secs(30);
const BETWEEN_LOOKS: Duration = Duration::from_millis(200);

/// Stops the containers that run. Taken back, Docker runs again on what it had, and they in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopContainers {
    /// Their Docker.
    pub daemon: Daemon,
    /// Those that run, in the order in which they are started.
    pub running: Vec<Ran>,
    /// What is held on it afterwards.
    pub hold: Hold,
}

/// Stops Docker itself, and sees that nothing of it is left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopDocker {
    /// What is held on it.
    pub hold: Hold,
    /// Docker, when it runs.
    pub daemon: Option<Daemon>,
    /// The containers that ran, in the order in which they are started.
    pub running: Vec<Ran>,
    /// The pool that its volumes are in, by its dm name, where it has one.
    pub pool: Option<String>,
}

/// Nobody takes back what it was sent.
fn say_killed(kit: &Kit, RunsStill { container, .. }: &RunsStill) {
    kit.say(format!("the container `{container}` was killed, and ends as soon as the kernel lets it; when it has:  docker start {container}"));
}

impl Act for StopContainers {
    fn sentence(&self) -> String {
        let units = match self.daemon.with.as_slice() {
            [] => String::new(),
            units => format!("stop {}, and ", units.join(" ")),
        };
        match self.running.as_slice() {
            [] => format!("{units}see that no container runs"),
            [one] => format!("{units}stop the container that runs ({})", one.name),
            all => {
                let names: Vec<_> = all.iter().rev().take(8).map(|ran| ran.name.as_str()).collect();
                let more = if all.len() > names.len() { ", …" } else { "" };
                format!(
                    "{units}stop the {} containers that run ({}{more}), each with the time that it has",
                    all.len(),
                    names.join(", ")
                )
            }
        }
    }

    fn lasts(&self) -> bool {
        true
    }

    fn way_back(&self) -> WayBack {
        WayBack::By("Docker runs again on what it had, and so do they")
    }

    fn apply(&self, kit: &Kit, attempt: Attempt) -> Result<()> {
        // After a reboot, say.
        if attempt == Attempt::Again && !self.daemon.runs() {
            return Ok(());
        }
        let api = self.daemon.api()?;
        let all = containers::no_others(&api, &self.running)?;
        // A unit that runs a container starts it again as soon as it stops.
        units::stop(&self.daemon.with)?;
        containers::stop(&api, &self.running, &all, &kit.watcher, &mut |still| say_killed(kit, still))
    }

    fn is_one_thing(&self) -> bool {
        false
    }

    fn verify(&self, _: &Kit) -> Result<()> {
        if self.hold.was_dropped() || !self.daemon.runs() {
            return Ok(());
        }
        let running = containers::inspected(&self.daemon.api()?)?;
        let running: Vec<_> = running.iter().filter_map(Ran::of).map(|ran| ran.name).collect();
        ensure!(running.is_empty(), "still running: {}", running.join(", "));
        Ok(())
    }

    fn revert(&self, kit: &Kit) -> Result<Reverted> {
        let api = self.daemon.start(&self.hold.records)?;
        let failed = containers::start(&api, &self.running, &kit.watcher);
        let mut left: Vec<String> = failed.into_iter().map(|(_, why)| why).collect();
        left.extend(containers::vanished(&api, &self.running, &KeepRecords::saved(&self.hold.records)));
        left.extend(units::start(&self.daemon.with));
        left.into_iter().for_each(|sentence| kit.say(sentence));
        Ok(Reverted::Gone)
    }
}

impl StopDocker {
    /// Returns what is left of Docker, in a sentence.
    fn left(&self, kit: &Kit) -> Result<Option<String>> {
        for pid in processes::all()? {
            let comm = processes::comm(pid);
            if !comm.starts_with("containerd-shim") && !comm.starts_with("docker-containe") {
                continue;
            }
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).into_owned();
            if let Some(ran) = self.running.iter().find(|ran| line.contains(&ran.id)) {
                return Ok(Some(format!("the container `{}` still has a process: {pid} ({comm})", ran.name)));
            }
        }
        let live = match &self.pool {
            Some(pool) => sight::live(&kit.dm, pool)?,
            None => None,
        };
        for thin in live.map(|live| block::holders(live.info.devno)).transpose()?.into_iter().flatten() {
            if let Some(holder) = holders::of(thin)?.into_iter().next() {
                let name = block::attribute(thin, "dm/name").unwrap_or_else(|| thin.to_string());
                return Ok(Some(format!("the volume {name} is still in use: {holder}")));
            }
        }
        Ok(None)
    }
}

impl Act for StopDocker {
    fn sentence(&self) -> String {
        match &self.daemon {
            Some(daemon) => format!("stop Docker:  {}", daemon.way.stops()),
            None => "see that Docker is down".to_owned(),
        }
    }

    fn lasts(&self) -> bool {
        true
    }

    fn way_back(&self) -> WayBack {
        match self.daemon {
            Some(_) => WayBack::By("started again, once it may start"),
            None => WayBack::By("left down, as it was"),
        }
    }

    fn apply(&self, kit: &Kit, _: Attempt) -> Result<()> {
        let Some(daemon) = &self.daemon else { return nobody_runs_on(&self.hold.root) };
        if daemon.runs() {
            let api = daemon.api()?;
            let all = containers::no_others(&api, &self.running)?;
            // One with a restart policy may have come back with a Docker that came back.
            containers::stop(&api, &self.running, &all, &kit.watcher, &mut |still| say_killed(kit, still))?;
        }
        daemon.stop()
    }

    fn is_one_thing(&self) -> bool {
        false
    }

    fn verify(&self, kit: &Kit) -> Result<()> {
        if self.hold.was_dropped() {
            return Ok(());
        }
        self.hold.still_stands()?;
        let until = Instant::now() + GONE;
        while let Some(left) = self.left(kit).context("looking what is left of Docker")? {
            if Instant::now() >= until {
                bail!(left);
            }
            std::thread::sleep(BETWEEN_LOOKS);
        }
        Ok(())
    }

    fn revert(&self, _: &Kit) -> Result<Reverted> {
        // It cannot start as long as it is held; the step before the hold starts it again.
        Ok(Reverted::Gone)
    }
}
