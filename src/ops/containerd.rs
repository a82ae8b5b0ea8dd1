//! Whether containerd uses a pool: by its configuration, else by the names of the volumes on it.

use std::cell::LazyCell;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use crate::engine::containerd::{self, Device, Owner, Snapshotter, Snapshotters};
use crate::engine::docker_root::Problem;
use crate::kernel::ask;
use crate::ops::tie::Ground;
use crate::pool::{Snapshot, SnapshotOwner, Tie, User};
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

    /// Returns the user that the claim makes, and how that is known; what cannot be read is named. On a pool that is blank
    /// nothing is missed: containerd makes its databases when it starts, and with the first snapshot.
    pub fn user(&self, is_blank: bool, unread: &mut Vec<String>) -> Option<(User, Tie)> {
        if let Some(snapshotter) = &self.snapshotter {
            let (devices, problems) = devices(snapshotter, is_blank);
            unread.extend(problems);
            let (config, root_path) = (snapshotter.config.clone(), Some(snapshotter.root_path.clone()));
            return Some((User::Containerd { config: Some(config), root_path, devices }, Tie::Options));
        }
        let nobody = || User::Containerd { config: None, root_path: None, devices: None };
        self.by_names.then(|| (nobody(), Tie::Volumes))
    }
}

/// Returns the devices that the snapshotter knows, with whose they are, and what could not be read: asked of a child, since
/// its databases may lie on what hangs.
fn devices(snapshotter: &Snapshotter, is_blank: bool) -> (Option<Vec<Snapshot>>, Vec<String>) {
    let named = |p: Problem| format!("{}: {}", p.path.display(), p.why);
    let asked = ask::within_limit(|| {
        if is_blank && is_missing(&snapshotter.database()) {
            return (Some(Vec::new()), Vec::new());
        }
        let mut devices = match snapshotter.devices() {
            Ok(devices) => devices.into_iter().map(snapshot).collect::<Vec<_>>(),
            Err(problem) => return (None, vec![named(problem)]),
        };
        if devices.is_empty() {
            return (Some(devices), Vec::new());
        }
        let (owners, problems) = snapshotter.owners();
        let mut owners: BTreeMap<String, Owner> =
            owners.into_iter().map(|(id, owner)| (snapshotter.device(id), owner)).collect();
        for device in &mut devices {
            device.owner = owners.remove(&device.name).map(owner);
        }
        (Some(devices), problems.into_iter().map(named).collect())
    });
    asked.unwrap_or_else(|why| (None, vec![format!("{}: {why}", snapshotter.database().display())]))
}

fn is_missing(path: &Path) -> bool {
    path.symlink_metadata().is_err_and(|e| e.kind() == ErrorKind::NotFound)
}

fn owner(owner: Owner) -> SnapshotOwner {
    let Owner { namespace, key, container } = owner;
    let (container, image) = container.map(|c| (c.id, c.image)).unzip();
    SnapshotOwner { namespace, key, container, image: image.flatten() }
}

fn snapshot(device: Device) -> Snapshot {
    Snapshot {
        state: device.state_name().to_owned(),
        name: device.name,
        id: device.id,
        size: Bytes::new(device.size),
        error: Some(device.error).filter(|error| !error.is_empty()),
        owner: None,
    }
}
