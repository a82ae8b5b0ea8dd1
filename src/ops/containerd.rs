//! Whether containerd uses a pool: by its configuration, else by the names of the volumes on it.

use std::cell::LazyCell;

use crate::engine::containerd::{self, Device, Snapshotter, Snapshotters};
use crate::engine::docker_root::Problem;
use crate::kernel::ask;
use crate::ops::tie::Ground;
use crate::pool::{Snapshot, Tie, User};
use crate::units::Bytes;

/// What speaks for containerd as the user of a pool.
#[derive(Clone, Debug, Default)]
pub struct Claim {
    /// The snapshotter whose configuration names the pool.
    pub snapshotter: Option<Snapshotter>,
    /// Whether the volumes on the pool have the names that a snapshotter gives: `POOL-snap-7`.
    pub by_names: bool,
    /// What could not be read, and may have named the pool.
    pub problems: Vec<Problem>,
}

/// The snapshotters of the machine, looked for when a pool asks for them.
pub type Lazily = LazyCell<Snapshotters>;

/// Returns them, not yet looked for.
pub fn lazily() -> Lazily {
    LazyCell::new(containerd::find)
}

impl Claim {
    /// Returns what containerd has to do with a pool, and whether Docker has more: of a pool that is Docker's it is not asked,
    /// by whatever name the pool goes.
    pub fn of(pool: &str, docker: Option<Tie>, ground: Option<&Ground>, all: &Lazily) -> Self {
        if docker.is_some_and(|tie| tie != Tie::Before) {
            return Self::default();
        }
        let snapshotter = all.found.iter().find(|snapshotter| snapshotter.pool == pool).cloned();
        let by_names = ground.is_some_and(|ground| ground.has_volumes_of(&format!("{pool}-snap-")));
        Self { snapshotter, by_names, problems: all.problems.clone() }
    }

    /// Returns the user that the claim makes, and how that is known; what cannot be read is named.
    pub fn user(&self, unread: &mut Vec<String>) -> Option<(User, Tie)> {
        if let Some(snapshotter) = &self.snapshotter {
            let devices = match devices(snapshotter) {
                Ok(devices) => Some(devices),
                Err(why) => {
                    unread.push(why);
                    None
                }
            };
            let (config, root_path) = (snapshotter.config.clone(), Some(snapshotter.root_path.clone()));
            return Some((User::Containerd { config: Some(config), root_path, devices }, Tie::Options));
        }
        let nobody = || User::Containerd { config: None, root_path: None, devices: None };
        self.by_names.then(|| (nobody(), Tie::Volumes))
    }
}

/// Returns the devices that the snapshotter knows: asked of a child, since its databases may lie on what hangs.
fn devices(snapshotter: &Snapshotter) -> Result<Vec<Snapshot>, String> {
    let place = snapshotter.database();
    let asked = ask::within_limit(|| {
        let devices = snapshotter.devices().map_err(|p| format!("{}: {}", p.path.display(), p.why))?;
        Ok::<Vec<_>, String>(devices.into_iter().map(snapshot).collect())
    });
    asked.unwrap_or_else(|why| Err(format!("{}: {why}", place.display())))
}

fn snapshot(device: Device) -> Snapshot {
    Snapshot {
        state: device.state_name().to_owned(),
        name: device.name,
        id: device.id,
        size: Bytes::new(device.size),
        error: Some(device.error).filter(|error| !error.is_empty()),
    }
}
