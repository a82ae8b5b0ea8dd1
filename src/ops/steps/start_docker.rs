//! The step that starts Docker for its users.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::ops::daemon::containers::{self, Ran};
use crate::ops::daemon::{Daemon, units};
use crate::ops::steps::{Act, Attempt, Hold, KeepRecords, Kit, Reverted, WayBack};

/// Starts Docker, and in it what ran before; says what is not as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartDocker {
    /// Docker.
    pub daemon: Daemon,
    /// The containers that ran, in the order in which they are started.
    pub running: Vec<Ran>,
    /// What was held on it.
    pub hold: Hold,
}

impl StartDocker {
    /// Returns whether Docker answers who asks it.
    pub fn serves(&self) -> bool {
        self.daemon.runs() && self.daemon.api().is_ok()
    }
}

impl Act for StartDocker {
    fn sentence(&self) -> String {
        let start = match self.daemon.with.as_slice() {
            [] => self.daemon.way.starts(),
            units => format!("{} {}", self.daemon.way.starts(), units.join(" ")),
        };
        match self.running.len() {
            0 => format!("start Docker:  {start}"),
            1 => format!("start Docker, and the container that ran:  {start}"),
            several => format!("start Docker, and the {several} containers that ran:  {start}"),
        }
    }

    fn lasts(&self) -> bool {
        true
    }

    fn way_back(&self) -> WayBack {
        WayBack::None
    }

    fn apply(&self, kit: &Kit, _: Attempt) -> Result<()> {
        let api = self.daemon.start(&self.hold.records)?;
        self.hold.has_served()?;
        containers::start(&api, &self.running).into_iter().for_each(|sentence| kit.say(sentence));
        if let Some(kept) = KeepRecords::docker(&self.hold.records)? {
            let different = kept.differences_now(&api).context("comparing with what Docker had")?;
            different.into_iter().for_each(|sentence| kit.say(sentence));
        }
        // Last: what they make and remove in Docker is no difference.
        for sentence in containers::ended_since(&api, &self.running).into_iter().chain(units::start(&self.daemon.with))
        {
            kit.say(sentence);
        }
        Ok(())
    }

    fn is_one_thing(&self) -> bool {
        false
    }

    fn verify(&self, _: &Kit) -> Result<()> {
        self.daemon.api().map(drop).map_err(Into::into)
    }

    fn revert(&self, _: &Kit) -> Result<Reverted> {
        let stands = || self.hold.why_it_stands();
        if let Some(why) = stands()? {
            return Ok(Reverted::Stands(why));
        }
        if !self.hold.was_dropped() {
            return Ok(Reverted::Stands(self.hold.cannot_be_told()));
        }
        if self.serves() {
            self.hold.has_served()?;
        }
        if let Some(why) = stands()? {
            return Ok(Reverted::Stands(why));
        }
        // One that never came so far as to answer may go again.
        self.daemon.stop()?;
        let Some(why) = stands()? else { return Ok(Reverted::Gone) };
        // It was used until it was down, and nobody else starts it again.
        self.daemon.start(&self.hold.records)?;
        Ok(Reverted::Stands(why))
    }

    fn stands(&self, _: &Kit) -> Result<bool> {
        Ok(!self.hold.used_since()?.is_empty())
    }
}
