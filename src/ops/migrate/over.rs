//! The migration that has ended last: what `undo` says, which does not lead back any more.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::blocks::Origin;
use crate::kernel::dm::DmId;
use crate::kernel::fs as durable;
use crate::ops::State;
use crate::ops::plan::{Operation, Plan};
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
    /// Where it is written what the root looked like when Docker was let go.
    #[serde(default)]
    pub records: PathBuf,
    /// What else of the old one stays in the root.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub besides: Vec<PathBuf>,
    /// Whether `migrate --delete-old` has deleted what was set aside.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
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
        let (hold, old, new, besides) = plan.steps.iter().find_map(|step| match step {
            Step::CopyVolumes(copy) => {
                let carried = &copy.carried;
                let old = match (&carried.old, &carried.place) {
                    (Origin::Pool(name), _) => Former::Pool(name.clone()),
                    (Origin::Parts { .. }, Some(place)) => Former::At(place.aside.clone()),
                    (Origin::Parts { data, .. }, None) => Former::At(data.clone()),
                };
                let new = if copy.make.is_empty() { Since::Pool } else { Since::LoopFiles };
                Some((&carried.hold, old, new, Vec::new()))
            }
            Step::CopyLayers(copy) => {
                let [home, images] = ["devicemapper", "image/devicemapper"].map(|name| copy.root.join(name));
                Some((&copy.hold, Former::At(home), Since::Overlay2, vec![images, copy.to.clone()]))
            }
            _ => None,
        })?;
        let (root, records) = (hold.root.clone(), hold.records.clone());
        Some(Self { what: plan.what.clone(), root, old, new, records, besides, deleted: false })
    }

    /// Whether what there was before is there.
    fn is_there(&self, kit: &Kit) -> bool {
        match &self.old {
            Former::At(_) if self.deleted => false,
            Former::Pool(name) => kit.dm.info(&DmId::name(name)).is_ok_and(|info| info.is_some()),
            Former::At(path) => path.symlink_metadata().is_ok(),
        }
    }
}

/// Writes down that a migration has ended, or that what it has set aside is deleted. Who cannot has done it all the same: `undo` says less then.
pub fn note(state: &State, plan: &Plan) {
    let over = match plan.operation {
        Operation::DeleteOld => recorded(state).map(|over| Over { deleted: true, ..over }),
        _ => Over::of(plan),
    };
    let Some(bytes) = over.and_then(|over| serde_json::to_vec(&over).ok()) else { return };
    let _ = durable::make_dir_durably(&state.saved, 0o700)
        .and_then(|_| durable::write_replace(&path(state), &bytes, 0o600));
}

/// Returns the migration that has ended last, as long as what there was before it is there.
pub fn last(kit: &Kit) -> Option<Over> {
    recorded(&kit.state).filter(|over| over.is_there(kit))
}

/// Returns the migration that has ended last.
pub(super) fn recorded(state: &State) -> Option<Over> {
    read(&path(state))
}

/// Returns where it is written down.
pub(super) fn path(state: &State) -> PathBuf {
    state.saved.join(FILE)
}

fn read(path: &Path) -> Option<Over> {
    let bytes = durable::read_limited(path, LONGEST).ok()??;
    serde_json::from_slice(&bytes).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
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
        let deleted = Plan {
            operation: Operation::DeleteOld,
            pool: "p1".to_owned(),
            what: "delete".to_owned(),
            steps: Vec::new(),
            notes: Vec::new(),
        };
        note(&state, &deleted);
        assert!(recorded(&state).is_some_and(|over| over.deleted && over.what == "migrate it"));
    }
}
