//! The step that starts Docker for its users.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::kernel::fs::write_replace;
use crate::ops::daemon::containers::{self, Ran};
use crate::ops::daemon::kept::{Difference, Kept};
use crate::ops::daemon::{Daemon, units};
use crate::ops::steps::{Act, Attempt, Hold, KeepRecords, Kit, Reverted, WayBack};

/// What Docker says once it runs, beside what it said before.
const AFTER: &str = "docker-after.json";
/// What of that is not as it was, and what did not come back.
const DIFFERENCES: &str = "differences.json";
/// The same to be read.
const REPORT: &str = "differences.txt";
/// How long containers have run at least when it is looked whether they still do: what cannot, its port being taken, has often ended by then.
const SETTLES: Duration = Duration::from_secs(1);

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

    /// Returns the file that lists what is not as it was, to be read.
    pub fn report(&self) -> PathBuf {
        self.hold.records.join(REPORT)
    }
}

/// Writes down what Docker says, and what of it is not as it was: a terminal is lost with its connection.
fn write_down(folder: &Path, kept: Option<&(Kept, Kept)>, found: &[Difference]) -> Result<()> {
    let compared = kept.map(|(before, _)| before.counts());
    if let Some((_, after)) = kept {
        write_replace(&folder.join(AFTER), &serde_json::to_vec_pretty(after)?, 0o600)?;
    }
    let saved = KeepRecords::saved(folder);
    let report = json!({ "format": 1, "compared": compared, "differences": found, "saved": saved });
    write_replace(&folder.join(DIFFERENCES), &serde_json::to_vec_pretty(&report)?, 0o600)?;
    let counts = compared.into_iter().flatten().map(|(what, count)| format!("{count} {}", what.replace('_', " ")));
    let mut text = format!("compared with what Docker said before: {}\n", counts.collect::<Vec<_>>().join(", "));
    if found.is_empty() {
        text.push_str("nothing is other than it was\n");
    }
    saved.iter().for_each(|saved| text.push_str(&format!("{saved}\n")));
    for difference in found {
        text.push_str(&format!("{}\n", difference.what));
        for (key, change) in &difference.keys {
            text.push_str(&format!("  {key} was: {}\n  {key} is:  {}\n", change.was, change.is));
        }
    }
    write_replace(&folder.join(REPORT), text.as_bytes(), 0o600)
}

impl Act for StartDocker {
    fn sentence(&self) -> String {
        let start = match self.daemon.with.as_slice() {
            [] => self.daemon.way.starts(),
            units => format!("{} {}", self.daemon.way.starts(), units.join(" ")),
        };
        match self.running.iter().filter(|ran| !ran.vanishes).count() {
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
        let (failed, why): (Vec<_>, Vec<_>) = containers::start(&api, &self.running, &kit.watcher).into_iter().unzip();
        let mut found: Vec<Difference> = why.into_iter().map(Into::into).collect();
        let started = Instant::now();
        let kept = match KeepRecords::docker(&self.hold.records)? {
            Some(before) => {
                kit.watcher.next("  comparing what Docker says with what it said before");
                let (after, different) = before.differences_now(&api).context("comparing with what Docker had")?;
                found.extend(different);
                Some((before, after))
            }
            None => None,
        };
        if !self.running.is_empty() {
            std::thread::sleep(SETTLES.saturating_sub(started.elapsed()));
        }
        // Last: what they make and remove in Docker is no difference.
        let is_started = |ran: &&Ran| failed.iter().all(|failed| failed.id != ran.id);
        let ended = containers::ended_since(&api, self.running.iter().filter(is_started)).into_iter();
        found.extend(ended.chain(units::start(&self.daemon.with)).map(Into::into));
        if let Err(why) = write_down(&self.hold.records, kept.as_ref(), &found) {
            kit.say(format!("what Docker says otherwise than before could not be written down: {why:#}"));
        }
        found.into_iter().for_each(|difference| kit.say(difference.what));
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
