//! What dmpool does: the only folder that sees kernel, metadata and engine together.
//!
//! An operation looks ([`facts`]), plans ([`plan`], pure, every refusal there), and lets the one runner in [`journal`]
//! carry the plan out, step by step ([`steps`]).

pub mod activate;
pub mod around;
pub mod boot;
mod carrier;
pub mod containerd;
pub mod contents;
pub mod cost;
pub mod create;
pub mod daemon;
pub mod deactivate;
mod deleted;
pub mod destroy;
pub mod disks;
pub mod docker;
pub mod facts;
mod fault;
pub(crate) mod filesystem;
pub mod find;
pub mod gate;
mod ground;
pub mod grow;
pub mod handover;
pub mod health;
pub mod history;
pub mod journal;
mod keep_rm;
pub mod lvm;
pub mod members;
pub mod metrics;
pub mod migrate;
pub mod named_file;
pub mod on_devices;
mod own_disk;
pub mod placed;
pub mod plan;
pub mod preflight;
pub mod progress;
pub mod promised;
mod random;
pub mod registry;
pub mod rescue;
mod reserved;
pub mod resume;
pub mod root_archive;
pub mod show;
mod sight;
mod state;
pub mod status;
pub mod steps;
mod taking;
pub mod target;
pub mod thin;
pub mod tie;
mod told;
pub mod volumes;
pub mod volumes_of_docker;

pub use state::State;

use crate::kernel::udev;
use journal::Ended;
use plan::Plan;

/// Whether an operation is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is.
    Make,
    /// It is only described: `--dry-run`.
    Describe,
}

/// What an operation came to.
#[derive(Clone, Debug)]
pub struct Done {
    /// What was planned.
    pub plan: Plan,
    /// How it ended; nothing when it was only described, or there was nothing to do.
    pub ended: Option<Ended>,
    /// What was left as it is when it was carried out, each a sentence.
    pub left: Vec<String>,
}

impl Done {
    pub(crate) const fn planned(plan: Plan) -> Self {
        Self { plan, ended: None, left: Vec::new() }
    }

    pub(crate) fn ended(mut plan: Plan, ended: Ended) -> Self {
        plan.notes.extend(silence_of_udev());
        Self { plan, ended: Some(ended), left: Vec::new() }
    }
}

/// Returns why it took so long, when udev let this process wait in vain.
fn silence_of_udev() -> Option<String> {
    udev::was_silent().then(|| {
        "udev runs but did not do its part in time, so dmpool did it; until udev works again every change waits for it (see: udevadm settle; dmsetup udevcookies)"
            .to_owned()
    })
}
