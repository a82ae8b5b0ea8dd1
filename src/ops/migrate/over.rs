//! The migration that has ended last: what `undo` says, which does not lead back any more.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::blocks::Origin;
use crate::kernel::dm::DmId;
use crate::kernel::fs as durable;
use crate::ops::State;
use crate::ops::plan::Plan;
use crate::ops::steps::{Kit, Step};
use crate::units::Bytes;

/// Where it is written down, beside what is kept for a migration.
const FILE: &str = "last-migration.json";
const LONGEST: Bytes = Bytes::new(1 << 20);

/// A migration that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Over {
    /// What it did, as a sentence goes on after "cannot".
    pub what: String,
    /// The Docker root.
    pub root: PathBuf,
    /// What there was before, and still is unless somebody has deleted it.
    pub old: Former,
    /// What Docker uses since.
    pub new: Since,
}

/// What Docker had before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Former {
    /// A pool of that dm name.
    Pool(String),
    /// A pool that is down: its folder, or what its data is on.
    At(PathBuf),
}

/// What Docker has instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Since {
    /// Loop files in its own place.
    LoopFiles,
    /// A pool that it is told of.
    Pool,
    /// No pool.
    Overlay2,
}

impl Over {
    /// Returns what is to be known of a migration when it has ended.
    fn of(plan: &Plan) -> Option<Self> {
        let (root, old, new) = plan.steps.iter().find_map(|step| match step {
            Step::CopyVolumes(copy) => {
                let carried = &copy.carried;
                let old = match (&carried.old, &carried.place) {
                    (Origin::Pool(name), _) => Former::Pool(name.clone()),
                    (Origin::Parts { .. }, Some(place)) => Former::At(place.aside.clone()),
                    (Origin::Parts { data, .. }, None) => Former::At(data.clone()),
                };
                let new = if copy.make.is_empty() { Since::Pool } else { Since::LoopFiles };
                Some((&carried.hold.root, old, new))
            }
            Step::CopyLayers(copy) => Some((&copy.root, Former::At(copy.root.join("devicemapper")), Since::Overlay2)),
            _ => None,
        })?;
        Some(Self { what: plan.what.clone(), root: root.clone(), old, new })
    }

    /// Whether what there was before is there.
    fn is_there(&self, kit: &Kit) -> bool {
        match &self.old {
            Former::Pool(name) => kit.dm.info(&DmId::name(name)).is_ok_and(|info| info.is_some()),
            Former::At(path) => path.symlink_metadata().is_ok(),
        }
    }
}

/// Writes down that a migration has ended. Who cannot has migrated all the same: `undo` says less then.
pub fn note(state: &State, plan: &Plan) {
    let Some(bytes) = Over::of(plan).and_then(|over| serde_json::to_vec(&over).ok()) else { return };
    let _ = durable::make_dir_durably(&state.saved, 0o700)
        .and_then(|_| durable::write_replace(&state.saved.join(FILE), &bytes, 0o600));
}

/// Returns the migration that has ended last, as long as what there was before it is there.
pub fn last(kit: &Kit) -> Option<Over> {
    read(&kit.state.saved.join(FILE)).filter(|over| over.is_there(kit))
}

fn read(path: &Path) -> Option<Over> {
    let bytes = durable::read_limited(path, LONGEST).ok()??;
    serde_json::from_slice(&bytes).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::ops::plan::Operation;
    use crate::ops::steps::{Carried, CopyVolumes, Hold, MakeDirectory, Swap};
    use crate::units::BlockSize;

    #[test]
    fn what_leads_back_is_told_by_what_there_was_and_what_there_is() {
        let temp = tempfile::tempdir().unwrap();
        let state = State::below(temp.path());
        let hold = Hold::of_nothing();
        let place = Swap { folder: "/d/f".into(), aside: "/d/f.old".into(), made: "/d/f.new".into() };
        let parts = Origin::Parts { data: "/dev/sdb".into(), metadata: "/dev/sdc".into() };
        let make = vec![Step::from(MakeDirectory { path: "/d/f.new".into(), parents: false })];
        let told = |old: &Origin, place: Option<&Swap>, make: &[Step]| {
            let carried = Carried {
                hold: hold.clone(),
                old: old.clone(),
                place: place.cloned(),
                up: Vec::new(),
                pool: "p1".to_owned(),
                uuid: String::new(),
                block: BlockSize::DEFAULT,
                metadata: None,
                prepared: None,
            };
            let plan = Plan {
                operation: Operation::Migrate,
                pool: "p1".to_owned(),
                what: "migrate it".to_owned(),
                steps: vec![CopyVolumes { carried, make: make.to_vec() }.into()],
                notes: Vec::new(),
            };
            note(&state, &plan);
            let over = read(&state.saved.join(FILE)).unwrap();
            assert_eq!((over.what.as_str(), over.root.as_path()), ("migrate it", Path::new("/d")));
            (over.old, over.new)
        };
        let at = |path: &str| Former::At(path.into());
        assert_eq!(told(&parts, Some(&place), &make), (at("/d/f.old"), Since::LoopFiles));
        assert_eq!(told(&parts, Some(&place), &[]), (at("/d/f.old"), Since::Pool));
        assert_eq!(told(&parts, None, &[]), (at("/dev/sdb"), Since::Pool));
        let pool = Origin::Pool("p0".to_owned());
        assert_eq!(told(&pool, None, &[]), (Former::Pool("p0".to_owned()), Since::Pool));
    }
}
