//! The migrations that have ended, the last one of each root: what `undo` says, which does not lead back any more.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::blocks::{Origin, Source};
use crate::kernel::dm::DmId;
use crate::kernel::fs as durable;
use crate::ops::State;
use crate::ops::plan::{Operation, Plan};
use crate::ops::steps::{Kit, Step};
use crate::units::Bytes;

/// Where they are written down, beside what is kept for a migration.
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
    /// The old pool, where that is on devices and `old` is no more than Docker's map of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub devices: Option<Devices>,
    /// What Docker uses since.
    pub new: Since,
    /// The dm name of the pool that Docker has since, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// Where it is written what the root looked like when Docker was let go.
    #[serde(default)]
    pub records: PathBuf,
    /// What else of the old one stays in the root.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub besides: Vec<PathBuf>,
    /// Whether `migrate --delete-old` has deleted what was set aside.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
    /// The one before it of that root, which is the last one again when this one is taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Box<Over>>,
    /// How large the old pool is, where that can be read now.
    #[serde(skip)]
    pub sizes: Option<Sizes>,
}

/// How large a pool is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Its data.
    pub data: Bytes,
    /// The length of a block.
    pub block: Bytes,
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

/// A pool on devices whose volumes Docker has written down in the folder of its driver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Devices {
    /// Its dm name.
    pub pool: String,
    /// What its data is on, where Docker itself brings it up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,
}

/// What is in the file: one migration is what an earlier build has written.
#[derive(Deserialize)]
#[serde(untagged)]
enum Kept {
    Many(Vec<Over>),
    One(Box<Over>),
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
        let (hold, old, devices, new, besides) = plan.steps.iter().find_map(|step| match step {
            Step::CopyVolumes(copy) => {
                let carried = &copy.carried;
                let old = match (&carried.old, &carried.place) {
                    (Origin::Pool(name), _) => Former::Pool(name.clone()),
                    (Origin::Parts { .. }, Some(place)) => Former::At(place.aside.clone()),
                    (Origin::Parts { data, .. }, None) => Former::At(data.clone()),
                };
                let new = if copy.make.is_empty() { Since::Pool } else { Since::LoopFiles };
                Some((&carried.hold, old, None, new, Vec::new()))
            }
            Step::CopyLayers(copy) => {
                let [home, images] = ["devicemapper", "image/devicemapper"].map(|name| copy.root.join(name));
                let devices = match copy.old.as_ref() {
                    Some(Origin::Pool(pool)) => Some(Devices { pool: pool.clone(), data: None }),
                    Some(Origin::Parts { data, .. }) if !data.starts_with(&copy.root) => {
                        Some(Devices { pool: plan.pool.clone(), data: Some(data.clone()) })
                    }
                    _ => None,
                };
                Some((&copy.hold, Former::At(home), devices, Since::Overlay2, vec![images, copy.to.clone()]))
            }
            _ => None,
        })?;
        let (root, records) = (hold.root.clone(), hold.records.clone());
        let pool = (new != Since::Overlay2).then(|| plan.pool.clone());
        let what = plan.what.clone();
        Some(Self { what, root, old, devices, new, pool, records, besides, deleted: false, before: None, sizes: None })
    }

    /// Returns it with the sizes of the old pool.
    pub(super) fn measured(self, kit: &Kit) -> Self {
        let origin = match &self.old {
            Former::Pool(name) => Origin::Pool(name.clone()),
            Former::At(folder) => Origin::Parts { data: folder.join("data"), metadata: folder.join("metadata") },
        };
        let sizes = Source::open(&kit.dm, &origin).ok().map(|source| {
            let superblock = source.metadata.superblock;
            Sizes { data: superblock.block_size.bytes_of(superblock.data_total), block: superblock.block_size.bytes() }
        });
        Self { sizes, ..self }
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
    let mut all = recorded(state);
    if plan.operation == Operation::DeleteOld {
        let Some(over) = deleted_by(&mut all, plan) else { return };
        over.deleted = true;
    } else {
        let Some(mut over) = Over::of(plan) else { return };
        let former = all.iter().position(|other| other.root == over.root).map(|at| all.remove(at));
        over.before = match former {
            Some(former) if former.records == over.records => former.before,
            former => former.filter(|_| plan.starts_none().is_some()).map(Box::new),
        };
        all.push(over);
    }
    write(state, &all);
}

/// Strikes out a migration that had ended and was taken back: what was before it is the last one of its root again.
pub fn strike_out(state: &State, plan: &Plan) {
    let Some(hold) = plan.dropped_hold() else { return };
    let mut all = recorded(state);
    let Some(at) = all.iter().position(|over| over.records == hold.records) else { return };
    let over = all.remove(at);
    all.extend(over.before.map(|before| *before));
    write(state, &all);
}

fn write(state: &State, all: &[Over]) {
    let Ok(bytes) = serde_json::to_vec(all) else { return };
    let _ = durable::make_dir_durably(&state.saved, 0o700)
        .and_then(|_| durable::write_replace(&path(state), &bytes, 0o600));
}

/// Returns the migration whose root is the nearest one around what a plan deletes.
fn deleted_by<'a>(all: &'a mut [Over], plan: &Plan) -> Option<&'a mut Over> {
    let gone = plan.steps.iter().find_map(|step| match step {
        Step::DeleteFolder(delete) => Some(&delete.path),
        _ => None,
    })?;
    let around = all.iter_mut().filter(|over| gone.starts_with(&over.root));
    around.max_by_key(|over| over.root.components().count())
}

/// Returns the migration that has ended last, as long as what there was before it is there.
pub fn last(kit: &Kit) -> Option<Over> {
    recorded(&kit.state).pop().filter(|over| over.is_there(kit)).map(|over| over.measured(kit))
}

/// Returns the last migration of each root that has ended: the one that ended last comes last.
pub(super) fn recorded(state: &State) -> Vec<Over> {
    match read(&path(state)) {
        Some(Kept::Many(all)) => all,
        Some(Kept::One(over)) => vec![*over],
        None => Vec::new(),
    }
}

/// Returns where they are written down.
pub(super) fn path(state: &State) -> PathBuf {
    state.saved.join(FILE)
}

fn read(path: &Path) -> Option<Kept> {
    let bytes = durable::read_limited(path, LONGEST).ok()??;
    serde_json::from_slice(&bytes).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::fs;

    use super::*;
    use crate::ops::steps::{Carried, CopyLayers, CopyVolumes, DeleteFolder, DropHold, Hold, MakeDirectory, Swap};
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
                anew: None,
                room: None,
            };
            let plan = Plan {
                operation: Operation::Migrate,
                pool: "p1".to_owned(),
                what: "migrate it".to_owned(),
                steps: vec![CopyVolumes { carried, make: make.to_vec() }.into()],
                notes: Vec::new(),
            };
            note(&state, &plan);
            let [over] = <[Over; 1]>::try_from(recorded(&state)).unwrap();
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

    fn ended(root: &str) -> Over {
        Over {
            what: format!("migrate {root}"),
            root: root.into(),
            old: Former::At(Path::new(root).join("devicemapper")),
            devices: None,
            new: Since::Overlay2,
            pool: None,
            records: "/r".into(),
            besides: Vec::new(),
            deleted: false,
            before: None,
            sizes: None,
        }
    }

    fn plan(operation: Operation, steps: Vec<Step>) -> Plan {
        Plan { operation, pool: "docker-8:1-2-pool".to_owned(), what: "do it".to_owned(), steps, notes: Vec::new() }
    }

    #[test]
    fn each_root_has_its_own_and_what_an_earlier_build_has_written_is_read() {
        let temp = tempfile::tempdir().unwrap();
        let state = State::below(temp.path());
        fs::create_dir_all(&state.saved).unwrap();
        fs::write(path(&state), serde_json::to_vec(&ended("/srv/a")).unwrap()).unwrap();
        assert_eq!(recorded(&state), [ended("/srv/a")]);
        fs::write(path(&state), serde_json::to_vec(&[ended("/srv/a"), ended("/srv/a/b")]).unwrap()).unwrap();
        let delete = |path: &str| {
            let folder = DeleteFolder { path: path.into(), inode: 1, occupied: Bytes::new(0) };
            note(&state, &plan(Operation::DeleteOld, vec![folder.into()]));
            recorded(&state).iter().map(|over| over.deleted).collect::<Vec<_>>()
        };
        assert_eq!(delete("/srv/c/devicemapper"), [false, false]);
        assert_eq!(delete("/srv/a/devicemapper"), [true, false]);
        assert_eq!(delete("/srv/a/b/devicemapper"), [true, true]);
        let mut hold = Hold::of_nothing();
        hold.root = "/srv/a".into();
        let (root, to) = (hold.root.clone(), "/srv/a/dmpool-migrate-1".into());
        let copy = CopyLayers { root, to, hold, layers: 1, size: Bytes::new(0), old: None, room: Bytes::new(0) };
        note(&state, &plan(Operation::Migrate, vec![copy.into()]));
        let all: Vec<_> = recorded(&state).into_iter().map(|over| (over.root, over.deleted)).collect();
        assert_eq!(all, [("/srv/a/b".into(), true), ("/srv/a".into(), false)]);
    }

    #[test]
    fn one_that_is_taken_back_leaves_the_one_before_it() {
        let temp = tempfile::tempdir().unwrap();
        let state = State::below(temp.path());
        let of = |records: &str| {
            let mut hold = Hold::of_nothing();
            hold.records = records.into();
            let (root, to) = ("/d".into(), "/d/dmpool-migrate-1".into());
            let copy = CopyLayers {
                root,
                to,
                hold: hold.clone(),
                layers: 1,
                size: Bytes::new(0),
                old: None,
                room: Bytes::new(0),
            };
            plan(Operation::Migrate, vec![copy.into(), DropHold { hold }.into()])
        };
        let records = || recorded(&state).into_iter().map(|over| over.records).collect::<Vec<_>>();
        let [first, second] = ["/first", "/second"].map(of);
        // The second one is written down once more when it is continued after its end.
        for plan in [&first, &second, &second] {
            note(&state, plan);
        }
        assert_eq!(records(), [Path::new("/second")]);
        strike_out(&state, &second);
        assert_eq!(records(), [Path::new("/first")]);
        strike_out(&state, &second);
        strike_out(&state, &first);
        assert_eq!(records(), Vec::<PathBuf>::new());
    }

    #[test]
    fn an_old_pool_on_devices_is_known_after_overlay2_too() {
        let of = |old: Option<Origin>| {
            let (root, to, hold) = ("/d".into(), "/d/dmpool-migrate-1".into(), Hold::of_nothing());
            let copy = CopyLayers { root, to, hold, layers: 1, size: Bytes::new(0), old, room: Bytes::new(0) };
            Over::of(&plan(Operation::Migrate, vec![copy.into()])).unwrap().devices
        };
        let parts = |data: &str| Some(Origin::Parts { data: data.into(), metadata: "/x".into() });
        assert_eq!((of(None), of(parts("/d/devicemapper/devicemapper/data"))), (None, None));
        assert_eq!(of(Some(Origin::Pool("p0".to_owned()))), Some(Devices { pool: "p0".to_owned(), data: None }));
        let own = Devices { pool: "docker-8:1-2-pool".to_owned(), data: Some("/dev/vg/data".into()) };
        assert_eq!(of(parts("/dev/vg/data")), Some(own));
    }
}
