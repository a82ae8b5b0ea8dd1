//! What an operation would do, before it does it: found out from facts alone, and with every refusal already made.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::ops::daemon::Daemon;
use crate::ops::daemon::containers::Ran;
use crate::ops::steps::{Hold, NamedDevice, Part, Step};
use crate::pool::Entry;
use crate::units::Bytes;

/// Which command made a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// `create`
    Create,
    /// `grow`
    Grow,
    /// `activate --at-boot`
    AtBoot,
    /// `activate`
    Activate,
    /// `activate`, of an ephemeral pool that came back blank
    ActivateAnew,
    /// `deactivate`
    Deactivate,
    /// `destroy`
    Destroy,
    /// `thin create`
    ThinCreate,
    /// `thin snapshot`
    ThinSnapshot,
    /// `thin grow`
    ThinGrow,
    /// `thin remove`
    ThinRemove,
    /// `thin adopt`
    ThinAdopt,
    /// `migrate`
    Migrate,
    /// `migrate --delete-old`
    DeleteOld,
    /// `save`, of a Docker that runs
    Save,
}

impl Operation {
    /// Returns the command's name.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Grow => "grow",
            Self::AtBoot => "activate --at-boot",
            Self::Activate | Self::ActivateAnew => "activate",
            Self::Deactivate => "deactivate",
            Self::Destroy => "destroy",
            Self::ThinCreate => "thin create",
            Self::ThinSnapshot => "thin snapshot",
            Self::ThinGrow => "thin grow",
            Self::ThinRemove => "thin remove",
            Self::ThinAdopt => "thin adopt",
            Self::Migrate => "migrate",
            Self::DeleteOld => "migrate --delete-old",
            Self::Save => "save",
        }
    }

    /// Returns whether Docker is stopped and held meanwhile: going back leads to a Docker that runs as it did.
    pub const fn holds_docker(self) -> bool {
        matches!(self, Self::Migrate | Self::Save)
    }
}

/// The steps of one operation on one pool, in the order in which they are done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Which command made it.
    pub operation: Operation,
    /// The pool's dm name: what a journal is found by.
    pub pool: String,
    /// What it does, as a sentence goes on after "cannot": "grow the data of pool `p0` to 200 GiB".
    pub what: String,
    /// What is done, one after the other.
    pub steps: Vec<Step>,
    /// What the user should know before it is done, each a sentence.
    pub notes: Vec<String>,
}

impl Plan {
    /// Returns whether there is nothing to do.
    pub const fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Returns the entry that its steps write into the registry, or take out.
    pub fn entry(&self) -> Option<&Entry> {
        self.steps.iter().find_map(|step| match step {
            Step::Register(s) => Some(&s.entry),
            Step::Unregister(s) => Some(&s.entry),
            Step::UpdateEntry(s) => Some(&s.to),
            _ => None,
        })
    }

    /// Returns whether it is about a pool, or carries that one into another.
    pub fn is_about(&self, pool: &str) -> bool {
        let from = |step: &Step| matches!(step, Step::StopDocker(s) if s.pool.as_deref() == Some(pool));
        self.pool == pool || self.steps.iter().any(from)
    }

    /// Returns the Docker root that is held while its steps are carried out.
    pub fn held_root(&self) -> Option<&Path> {
        self.steps.iter().find_map(|step| match step {
            Step::HoldDocker(s) => Some(s.hold.root.as_path()),
            _ => None,
        })
    }

    /// Returns the hold that its steps drop.
    pub fn dropped_hold(&self) -> Option<&Hold> {
        self.steps.iter().find_map(|step| match step {
            Step::DropHold(s) => Some(&s.hold),
            _ => None,
        })
    }

    /// Returns the hold of a migration that starts no Docker. Until somebody starts it, what it has done can be taken back although
    /// it has ended.
    pub fn starts_none(&self) -> Option<&Hold> {
        let starts = self.steps.iter().any(|step| matches!(step, Step::StartDocker(_)));
        self.dropped_hold().filter(|_| self.operation == Operation::Migrate && !starts)
    }

    /// Returns the containers that its steps stop, in the order in which they are started.
    pub fn stops(&self) -> Vec<&Ran> {
        let all = self.steps.iter().find_map(|step| match step {
            Step::StopContainers(s) => Some(s.running.as_slice()),
            _ => None,
        });
        all.unwrap_or_default().iter().collect()
    }

    /// Returns the Docker that its steps stop.
    pub fn stopped_docker(&self) -> Option<&Daemon> {
        self.steps.iter().find_map(|step| match step {
            Step::StopDocker(s) => s.daemon.as_ref(),
            _ => None,
        })
    }

    /// Returns the file that lists what Docker says otherwise once it has been started again.
    pub fn report(&self) -> Option<PathBuf> {
        self.steps.iter().find_map(|step| match step {
            Step::StartDocker(s) => Some(s.report()),
            _ => None,
        })
    }

    /// Returns the devices that its steps write on.
    pub fn named_devices(&self) -> impl Iterator<Item = &NamedDevice> {
        self.steps.iter().filter_map(|step| match step {
            Step::ClearDevice(s) => Some(&s.on),
            Step::WriteLabel(s) => Some(&s.on),
            Step::EraseLabel(s) => Some(&s.on),
            Step::EraseSuperblock(s) => Some(&s.on),
            _ => None,
        })
    }

    /// Returns the file or device with the metadata of the live pool that its steps reload.
    pub fn metadata_file(&self) -> Option<&Path> {
        self.steps.iter().find_map(|step| match step {
            Step::ReloadPool(s) => Some(s.metadata.as_path()),
            Step::ExtendThinPool(s) => Some(s.metadata.as_path()),
            _ => None,
        })
    }

    /// Returns how large its steps make the metadata of a live pool; nothing when they leave it alone.
    pub fn size_of_metadata(&self) -> Option<Bytes> {
        self.steps.iter().find_map(|step| match step {
            Step::ReloadPool(s) if s.part == Part::Metadata => Some(s.to),
            Step::ExtendThinPool(s) if s.part == Part::Metadata => Some(s.to),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::steps::{Hold, HoldDocker, StopDocker};

    #[test]
    fn a_migration_is_about_both_pools_and_holds_its_root() {
        let hold = Hold::of_nothing();
        let stop = StopDocker { hold: hold.clone(), daemon: None, running: Vec::new(), pool: Some("old".to_owned()) };
        let plan = Plan {
            operation: Operation::Migrate,
            pool: "new".to_owned(),
            what: "migrate".to_owned(),
            steps: vec![HoldDocker { hold }.into(), stop.into()],
            notes: Vec::new(),
        };
        assert!(plan.is_about("new") && plan.is_about("old") && !plan.is_about("other"));
        assert_eq!(plan.held_root(), Some(Path::new("/d")));
        let other = Plan { steps: Vec::new(), ..plan };
        assert!(!other.is_about("old") && other.held_root().is_none());
    }
}
