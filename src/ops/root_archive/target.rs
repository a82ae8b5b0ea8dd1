//! What is particular to the storage driver that a root is made for: the one place that knows which there are.
//!
//! ```text
//! unpack      layers are directories, each what it comes to over those beneath: as overlay2 has them
//! overlay2    what it keeps beside them is written
//! devicemapper a pool on new files, with a volume for each; the directories go
//! ```

mod pool;

use std::path::Path;

use anyhow::{Result, ensure};

use super::complete::Complete;
use super::contents::{Contents, VOLUMES};
use super::weight::Weight;
use crate::engine::configuration::Configuration;
use crate::engine::docker_objects::{CONTAINERS, Objects};
use crate::engine::driver::Driver;
use crate::error::{Failure, Outcome};
use crate::kernel::interrupt::Held;
use crate::ops::State;
use crate::ops::contents::devicemapper::Inner;
use crate::ops::contents::overlay2::{self, Ground, dress_layers, has_no_default_acl};
use crate::ops::progress::{Progress, Watcher};
use crate::ops::rescue::copy::may_hold;
use crate::units::Bytes;
use pool::Pool;

/// Which storage driver a root shall be for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Asked {
    /// overlay2.
    #[default]
    Overlay2,
    /// devicemapper, on files in the root.
    Devicemapper(AskedPool),
}

/// What the pool shall be, as far as it is said: else as Docker is told, or as it does by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AskedPool {
    /// How long its data file is.
    pub data: Option<Bytes>,
    /// How long its metadata file is.
    pub metadata: Option<Bytes>,
    /// How long the base device is.
    pub base: Option<Bytes>,
    /// The file system of every image and container.
    pub inner: Option<Inner>,
}

/// What the next Docker is told.
#[derive(Debug)]
pub(super) struct Next {
    pub(super) configuration: Configuration,
    /// Whether that is for this root.
    pub(super) is_here: bool,
}

/// What the root is made for.
#[derive(Debug)]
pub(super) enum Target {
    Overlay2,
    Devicemapper(Box<Pool>),
}

/// Refuses.
type Refuse<'a> = &'a dyn Fn(String) -> Failure;

impl Target {
    /// Takes what is asked for, where `there` is the root or what is to be above it.
    ///
    /// # Errors
    /// Refused where Docker would not start on it.
    pub(super) fn of(asked: &Asked, next: &Next, there: &Path, state: &State, refuse: Refuse<'_>) -> Outcome<Self> {
        match asked {
            Asked::Overlay2 => is_told_overlay2(next, refuse).map(|()| Self::Overlay2),
            Asked::Devicemapper(asked) => {
                Ok(Self::Devicemapper(Box::new(Pool::of(asked, next, there, state, refuse)?)))
            }
        }
    }

    pub(super) const fn driver(&self) -> Driver {
        match self {
            Self::Overlay2 => Driver::Overlay2,
            Self::Devicemapper(_) => Driver::Devicemapper,
        }
    }

    /// Returns what is put in place, in that order; the last is only set aside.
    pub(super) const fn names(&self) -> [&'static str; 6] {
        [self.driver().name(), VOLUMES, "network", "image", CONTAINERS, "buildkit"]
    }

    /// Tries what could not be tried while there was something left of a load that was killed.
    ///
    /// # Errors
    /// Refused when it cannot be.
    pub(super) fn begin(&mut self, there: &Path, refuse: Refuse<'_>) -> Outcome<()> {
        match self {
            Self::Overlay2 => Ok(()),
            Self::Devicemapper(pool) => pool.begin(there, refuse),
        }
    }

    /// Returns what is to be known of it.
    pub(super) fn notes(&self, next: &Next) -> Vec<String> {
        match self {
            Self::Overlay2 => Vec::new(),
            Self::Devicemapper(pool) => pool.notes(next),
        }
    }

    /// Refuses a place where the driver cannot be.
    pub(super) fn may_be_there(&self, objects: &Objects, there: &Path, refuse: Refuse<'_>) -> Outcome<()> {
        match self {
            Self::Overlay2 => Ground::look(objects).may_have_overlay2(there, refuse),
            Self::Devicemapper(_) => has_no_default_acl(there, refuse),
        }
    }

    /// Refuses an archive that does not fit, with what was counted of it so far.
    pub(super) fn has_room(&self, contents: &Contents, weight: &Weight, there: &Path, root: &Path) -> Outcome<()> {
        match self {
            Self::Overlay2 => may_hold(Bytes::new(contents.bytes), there, root),
            Self::Devicemapper(pool) => pool.has_room(contents, weight, there, root),
        }
    }

    /// Makes the driver's own of what is unpacked; returns the layers whose tar does not come out as Docker's digest of it says, and why.
    /// `bad` says what is wrong with the archive.
    ///
    /// # Errors
    /// When it cannot be made, or a signal comes.
    pub(super) fn finish(
        &self,
        new: &Path,
        whole: &Complete,
        contents: &Contents,
        steps: &Steps<'_>,
    ) -> Outcome<Vec<String>> {
        match self {
            Self::Overlay2 => of_overlay2(new, whole, contents, steps).map_err(steps.bad),
            Self::Devicemapper(pool) => pool.make(new, whole, contents, steps),
        }
    }
}

/// What a long step works with.
pub(super) struct Steps<'a> {
    /// What holds signals back.
    pub(super) held: &'a Held,
    /// Who is told how far it is.
    pub(super) watcher: &'a Watcher,
    /// Says why an archive cannot be loaded.
    pub(super) bad: &'a dyn Fn(anyhow::Error) -> Failure,
}

impl Steps<'_> {
    /// Ends what takes long once a signal has come.
    fn goes_on(&self) -> Result<()> {
        ensure!(!self.held.came(), "a signal came");
        Ok(())
    }

    fn tell(&self, what: &'static str, number: usize, all: usize, contents: &Contents) {
        let total = Bytes::new(contents.bytes.max(1));
        let (number, of) = (number as u64, all as u64);
        let done = if number == of { total } else { Bytes::new(total.get() / of.max(1) * number) };
        self.watcher.tell(&Progress { what, done, total });
    }
}

fn of_overlay2(new: &Path, whole: &Complete, contents: &Contents, steps: &Steps<'_>) -> Result<Vec<String>> {
    let Complete { objects, parts, .. } = whole;
    dress_layers(new, parts)?;
    let mut differing = Vec::new();
    for (number, part) in parts.iter().enumerate() {
        steps.goes_on()?;
        if let Some(chain) = &part.chain
            && let Err(why) = overlay2::digest(objects, Driver::Overlay2, chain, new, &part.id)
        {
            differing.push(format!("{}: {why}", part.whose));
        }
        steps.tell("comparing layers", number + 1, parts.len(), contents);
    }
    Ok(differing)
}

/// Refuses where Docker would start with another storage driver.
fn is_told_overlay2(next: &Next, refuse: Refuse<'_>) -> Outcome<()> {
    if !next.is_here {
        return Ok(());
    }
    let change =
        "have \"storage-driver\": \"overlay2\" in /etc/docker/daemon.json, without storage-opts of another driver";
    let name = Driver::Overlay2.name();
    if let Some(driver) = next.configuration.driver().filter(|driver| *driver != name) {
        let way = if driver == Driver::Devicemapper.name() {
            format!("--driver {driver} makes a root for that; or {change}")
        } else {
            change.to_owned()
        };
        let why = format!("Docker is told the storage driver {driver}, and would not show what is loaded");
        return Err(refuse(why).next(way));
    }
    if let Some(option) = next.configuration.given_options().into_iter().find(|option| option.starts_with("dm.")) {
        return Err(refuse(
            "Docker is told an option of devicemapper's, with which overlay2 does not start".to_owned(),
        )
        .fact("found", option)
        .next(change));
    }
    Ok(())
}
