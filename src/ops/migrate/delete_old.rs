//! `migrate --delete-old`: what migrations have set aside goes for good, once Docker has run without it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::blocks::record::{self, Record};
use super::over::{self, Devices, Former, Over, Since};
use super::{preflight, prepare, told};
use crate::engine::driver::Driver;
use crate::error::{Failure, Outcome};
use crate::kernel::dm::DmId;
use crate::kernel::fs::{Bounds, occupied};
use crate::ops::plan::{Operation, Plan};
use crate::ops::steps::{DeleteFolder, Kit, Step, has_answered, in_use};
use crate::ops::{Change, Done, docker, gate, journal, registry};
use crate::pool::{Entry, PoolName};
use crate::process::quote;

/// What a folder's name ends with that is half deleted.
const HALF: &str = ".dmpool-deleted";
/// How far it is looked how large what goes is: Docker's records are a few files for each layer.
const BOUNDS: Bounds = Bounds { entries: 10_000_000, time: Duration::from_secs(60) };

/// Deletes what migrations of a root have set aside, or says what would be deleted; without a name, of the root that was migrated last.
///
/// # Errors
/// Refused with the reason; [`crate::error::Kind::Partial`] when a part could not be deleted.
pub fn delete_old(kit: &Kit, root: Option<&str>, change: Change) -> Outcome<Done> {
    gate::may_change(kit)?;
    let first = plan(kit, root)?;
    if change == Change::Describe || first.is_empty() {
        return Ok(Done::planned(first));
    }
    let _lock = gate::lock(kit, gate::EXISTENCE, &first.what)?;
    let plan = plan(kit, root)?;
    let ended = journal::carry_out(kit, plan.clone())?;
    over::note(&kit.state, &plan);
    for over in over::recorded(&kit.state).iter().filter(|over| over.deleted) {
        forget_prepared(kit, &over.root);
    }
    Ok(Done { left: kit.said(), ..Done::ended(plan, ended) })
}

/// Removes what Docker roots have still of how a pool was prepared that is destroyed.
pub fn forget_destroyed(kit: &Kit, entry: &Entry) {
    let found = docker::roots(&kit.state).map(|roots| roots.found).unwrap_or_default();
    let roots: BTreeSet<_> = found.into_iter().map(|root| root.path).chain(entry.prepared.clone()).collect();
    let is_its =
        |record: &Record| record.uuid == entry.uuid && record.own.as_ref().is_some_and(|own| own.name == entry.name);
    for root in roots {
        if Record::read(&root.join("devicemapper")).is_ok_and(|record| record.as_ref().is_some_and(is_its)) {
            forget_prepared(kit, &root);
        }
    }
}

/// Removes the empty record of a pool of dmpool's that was prepared once, and that Docker has since or nobody.
fn forget_prepared(kit: &Kit, root: &Path) {
    let home = root.join("devicemapper");
    let Ok(_lock) = gate::lock(kit, prepare::LOCK, "forget what was prepared") else { return };
    let Ok(Some(record)) = Record::read(&home) else { return };
    let Some(own) = &record.own else { return };
    // One that is being made is not registered yet.
    let is_open = gate::no_interrupted(kit, own.name.as_str()).is_err();
    let is_over =
        |entry: Option<Entry>| entry.is_none_or(|entry| entry.uuid != record.uuid || entry.prepared.is_none());
    if !is_open && registry::read(&kit.state, &own.name).is_ok_and(is_over) {
        let _ = Record::remove(&home);
    }
}

fn plan(kit: &Kit, root: Option<&str>) -> Outcome<Plan> {
    let refuse = |why: String| {
        Failure::refused(format!("cannot delete what a migration has set aside: {why}"))
            .fact("state", "nothing was touched")
    };
    let named = match root {
        None => None,
        Some("docker") => Some(docker::chosen(&kit.state)?.path),
        Some(path) => Some(Path::new(path).canonicalize().unwrap_or_else(|_| path.into())),
    };
    let mut all = over::recorded(&kit.state);
    let Some(last) = all.pop() else {
        return Err(refuse("none is known that has ended".to_owned())
            .fact("found", format!("no {}", over::path(&kit.state).display()))
            .next("dmpool list    # shows the pools here, and operations that were interrupted"));
    };
    let over = match named {
        None => last,
        Some(named) if named == last.root => last,
        Some(named) => match all.into_iter().find(|over| over.root == named) {
            Some(over) => over,
            None => {
                let root = quote(&last.root.to_string_lossy());
                return Err(refuse(format!("none of `{}` is known that has ended", named.display()))
                    .fact("found", format!("{} (of `{}`)", last.what, last.root.display()))
                    .next(format!(
                        "dmpool migrate --delete-old {root} --dry-run    # shows what would go of that one"
                    )));
            }
        },
    };
    let own_pool = docker::at(&over.root).map_or_else(|_| "docker".to_owned(), |root| root.own_pool());
    gate::not_held(kit, &over.root)?;
    gate::no_interrupted(kit, &own_pool)?;
    let what = format!("delete what migrations of the Docker root `{}` have set aside", over.root.display());
    let mut plan = Plan { operation: Operation::DeleteOld, pool: own_pool, what, steps: Vec::new(), notes: Vec::new() };
    if over.deleted {
        return Ok(plan);
    }
    let folders = folders(&over);
    plan.notes.extend(stays(kit, &over));
    plan.notes.extend(
        maps(&over.root)
            .iter()
            .map(|map| format!("{} stays: Docker's map of the volumes of a pool that is not beside it", map.display())),
    );
    if folders.is_empty() {
        if let Some(next) = command_of(kit, &over) {
            return Err(refuse("the old pool is on devices, which are never touched".to_owned()).next(next));
        }
        return Ok(plan);
    }
    runs_without(&over, &refuse)?;
    is_wanted_by_none(kit, &over, &refuse)?;
    for path in &folders {
        plan.steps.push(deletes(path, &refuse)?);
    }
    Ok(plan)
}

/// Returns the folders that were set aside and are there: also those of migrations before the last one, and what is half deleted of them,
/// which comes before the whole.
fn folders(over: &Over) -> Vec<PathBuf> {
    let home = over.root.join("devicemapper");
    let mut found: Vec<PathBuf> = match over.new {
        Since::Overlay2 => std::iter::once(&home).chain(&over.besides).flat_map(|path| with_half(path)).collect(),
        Since::LoopFiles | Since::Pool => {
            let goes = |name: &str| is_aside(name, "devicemapper") || is_aside(name, "metadata");
            let kept = maps(&over.root);
            inside(&home, goes).into_iter().filter(|path| !kept.contains(path)).collect()
        }
    };
    found.retain(|path| path.starts_with(&over.root) && path.symlink_metadata().is_ok());
    // Records before the files that they are the map of.
    found.sort();
    found.reverse();
    found
}

/// Returns a folder, and what is half deleted of it.
fn with_half(path: &Path) -> Vec<PathBuf> {
    let own = path.file_name().unwrap_or_default();
    let is_it = |name: &str| name.trim_end_matches(HALF) == own;
    path.parent().map(|parent| inside(parent, is_it)).unwrap_or_default()
}

fn inside(folder: &Path, is_it: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let found = entries.filter(|entry| entry.file_name().to_str().is_some_and(&is_it));
    found.map(|entry| entry.path()).collect()
}

/// Whether a name is one that a migration has set aside, or what is half deleted of it.
fn is_aside(name: &str, what: &str) -> bool {
    let rest = name.strip_prefix(what).and_then(|rest| rest.strip_prefix(".dmpool-"));
    rest.is_some_and(|rest| rest.trim_end_matches(HALF).ends_with(".old"))
}

/// Returns records that were set aside without the loop files that they belong to: the pool may be on devices, and they its only map.
fn maps(root: &Path) -> Vec<PathBuf> {
    let mut found = inside(&root.join("devicemapper"), |name| name.ends_with(".old") && is_aside(name, "metadata"));
    found.retain(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().replacen("metadata", "devicemapper", 1);
        !path.with_file_name(name).join("data").is_file()
    });
    found
}

/// Says of an old pool that is on devices that it stays, and what deletes it.
fn stays(kit: &Kit, over: &Over) -> Option<String> {
    let map = match over.devices {
        Some(_) => ", and nothing tells any more which volume of it is what",
        None => "",
    };
    command_of(kit, over).map(|command| format!("the old pool stays where it is, on devices{map}:  {command}"))
}

/// Returns what deletes an old pool that is on devices; nothing for one in files that were set aside.
pub(super) fn command_of(kit: &Kit, over: &Over) -> Option<String> {
    let of_pool = |name: &str| {
        let registered = PoolName::new(name).ok().and_then(|name| registry::look(&kit.state, &name).ok().flatten());
        match registered {
            Some(_) => format!("dmpool destroy {} --with-volumes    # asks", quote(name)),
            None => format!("dmpool status {}    # says who made it: LVM's goes by lvremove", quote(name)),
        }
    };
    let of_device = |path: &Path| {
        let path = quote(&path.to_string_lossy());
        format!("wipefs {path}    # shows what is on it; Docker is told of it no more, and -a frees it")
    };
    match (&over.devices, &over.old) {
        (Some(Devices { data: Some(data), pool }), _) if !is_up(kit, pool) => Some(of_device(data)),
        (Some(Devices { pool, .. }), _) | (None, Former::Pool(pool)) => Some(of_pool(pool)),
        (None, Former::At(path)) if path.is_dir() || path.symlink_metadata().is_err() => None,
        (None, Former::At(path)) => Some(of_device(path)),
    }
}

/// Whether a pool is up. One of which that cannot be told is.
fn is_up(kit: &Kit, pool: &str) -> bool {
    !matches!(kit.dm.info(&DmId::name(pool)), Ok(None))
}

/// Refuses to delete the only map of a pool on devices that is there, and what was prepared.
fn is_wanted_by_none(kit: &Kit, over: &Over, refuse: &impl Fn(String) -> Failure) -> Outcome<()> {
    if over.new != Since::Overlay2 {
        return Ok(());
    }
    let home = over.root.join("devicemapper");
    if let Some(Devices { pool, .. }) = &over.devices {
        let name = PoolName::new(pool).ok();
        let is_registered = name.is_some_and(|name| !matches!(registry::look(&kit.state, &name), Ok(None)));
        if is_registered || is_up(kit, pool) {
            let map = home.join("metadata");
            return Err(refuse(format!("the old pool `{pool}` is there, and {} is its only map", map.display()))
                .fact(
                    "found",
                    "only Docker's records tell which volume of it is what: without them rescue finds nothing",
                )
                .next(command_of(kit, over).unwrap_or_else(|| format!("dmpool status {}", quote(pool)))));
        }
    }
    if record::folder(&home).symlink_metadata().is_ok() {
        let root = quote(&over.root.to_string_lossy());
        return Err(refuse("what was prepared for another migration is in there".to_owned())
            .fact("found", record::folder(&home).display().to_string())
            .next(format!("dmpool migrate {root} --drop-prepared    # gives that up")));
    }
    Ok(())
}

/// Refuses unless Docker has run well on what was made, and does not use what would go.
fn runs_without(over: &Over, refuse: &impl Fn(String) -> Failure) -> Outcome<()> {
    let facts = preflight::look(&over.root, &preflight::Options::default());
    let is_its = |asked: &&preflight::Asked, socket: &Path| {
        preflight::says_that_it_is_the_one(asked, &over.root, socket).is_ok()
    };
    let info = match (&facts.asked, &facts.socket) {
        (Some(Ok(asked)), Some(socket)) => Some(asked).filter(|asked| is_its(asked, socket)).map(|asked| &asked.info),
        _ => None,
    };
    let has_answered = has_answered(&over.records);
    match info.map(|info| is_new(over, info)) {
        Some(Ok(())) => return Ok(()),
        Some(Err(why)) if over.new == Since::Overlay2 || !has_answered => {
            return Err(refuse(why).next("docker info    # says which storage driver and which pool it uses"));
        }
        None if !has_answered => {
            return Err(refuse("Docker does not answer on what was made for it, and is not known to have".to_owned())
                .next("start Docker and see that all is there, then run this again"));
        }
        _ => {}
    }
    let told = docker::at(&over.root).ok();
    match told.as_ref().and_then(|root| root.other_driver()) {
        None if over.new == Since::Overlay2 => Err(refuse("Docker uses devicemapper there, or will".to_owned())
            .next("docker info    # says which storage driver it uses")),
        _ => Ok(()),
    }
}

/// Tells whether a Docker uses what a migration has made for it.
fn is_new(over: &Over, info: &Value) -> Result<(), String> {
    let own = Driver::Devicemapper.name();
    let says = info.get("Driver").and_then(Value::as_str);
    let pool = told::status(info, "Pool Name");
    match (over.new, says, &over.pool) {
        (Since::Overlay2, Some(driver), _) if driver != own => Ok(()),
        (Since::LoopFiles | Since::Pool, Some(driver), None) if driver == own => Ok(()),
        (Since::LoopFiles | Since::Pool, Some(driver), Some(made)) if driver == own && pool.as_ref() == Some(made) => {
            Ok(())
        }
        (Since::LoopFiles | Since::Pool, Some(driver), Some(_)) if driver == own => {
            Err(format!("Docker uses the pool `{}` there", pool.as_deref().unwrap_or_default()))
        }
        (_, driver, _) => Err(format!("Docker uses {} there", driver.unwrap_or("no driver that it names"))),
    }
}

fn deletes(path: &Path, refuse: &impl Fn(String) -> Failure) -> Outcome<Step> {
    let shown = path.display();
    let unseen = |e: anyhow::Error| refuse(format!("{shown} cannot be looked at")).because(e);
    let found = path.symlink_metadata().map_err(|e| unseen(e.into()))?;
    let is_own = path.parent().and_then(|parent| parent.canonicalize().ok()).as_deref() == path.parent();
    if !found.is_dir() || !is_own {
        return Err(refuse(format!("{shown} is no folder of its own: a link leads there"))
            .next(format!("ls -ld {}    # shows where", quote(&path.to_string_lossy()))));
    }
    if let Some(used) = in_use(path).map_err(unseen)? {
        return Err(refuse(format!("{shown} is still in use")).fact("by", used.by).next(used.next));
    }
    let occupied = occupied(path, BOUNDS).map_err(unseen)?;
    Ok(DeleteFolder { path: path.to_owned(), inode: found.ino(), occupied: occupied.bytes }.into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    fn over(root: &Path, new: Since) -> Over {
        Over {
            what: "migrate it".to_owned(),
            root: root.to_owned(),
            old: Former::At(root.join("devicemapper")),
            devices: None,
            new,
            pool: None,
            records: root.join("records"),
            besides: vec![root.join("image/devicemapper"), root.join("dmpool-migrate-1"), "/etc".into()],
            deleted: false,
            before: None,
            sizes: None,
        }
    }

    #[test]
    fn what_was_set_aside_goes_and_what_docker_has_stays() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path();
        let home = root.join("devicemapper");
        for folder in [
            "devicemapper",
            "metadata",
            "devicemapper.dmpool-1.old",
            "metadata.dmpool-1.old",
            "metadata.dmpool-2.old",
            "devicemapper.dmpool-3.old",
            "metadata.dmpool-3.old",
            "devicemapper.dmpool-4",
            "metadata.dmpool-4",
            "devicemapper.dmpool-5.old.dmpool-deleted",
            "metadata.dmpool-5.old.dmpool-deleted.dmpool-deleted",
            "devicemapper.dmpool-prepared",
            "../image/devicemapper",
            "../image/devicemapper.dmpool-deleted",
            "../devicemapper.dmpool-deleted",
        ] {
            fs::create_dir_all(home.join(folder)).unwrap();
        }
        fs::write(home.join("devicemapper.dmpool-1.old/data"), "x").unwrap();
        fs::write(home.join("dmpool-prepared.json"), "x").unwrap();
        let old = [
            "metadata.dmpool-5.old.dmpool-deleted.dmpool-deleted",
            "metadata.dmpool-1.old",
            "devicemapper.dmpool-5.old.dmpool-deleted",
            "devicemapper.dmpool-3.old",
            "devicemapper.dmpool-1.old",
        ];
        let old = old.map(|name| home.join(name));
        assert_eq!(folders(&over(root, Since::LoopFiles)), old);
        assert_eq!(folders(&over(root, Since::Pool)), old);
        let all =
            ["image/devicemapper.dmpool-deleted", "image/devicemapper", "devicemapper.dmpool-deleted", "devicemapper"];
        assert_eq!(folders(&over(root, Since::Overlay2)), all.map(|name| root.join(name)));
        let mut kept = maps(root);
        kept.sort();
        assert_eq!(kept, ["metadata.dmpool-2.old", "metadata.dmpool-3.old"].map(|name| home.join(name)));
    }

    #[test]
    fn docker_must_have_answered_or_answer_with_what_was_made() {
        let info = |driver: &str, pool: &str| json!({"Driver": driver, "DriverStatus": [["Pool Name", pool]]});
        let over = |new, pool: Option<&str>| Over { pool: pool.map(str::to_owned), ..over(Path::new("/d"), new) };
        let overlay = over(Since::Overlay2, None);
        assert!(is_new(&overlay, &info("overlay2", "")).is_ok());
        assert!(is_new(&overlay, &info("devicemapper", "p0")).is_err() && is_new(&overlay, &json!({})).is_err());
        for new in [Since::LoopFiles, Since::Pool] {
            let of = over(new, Some("p1"));
            assert!(is_new(&of, &info("devicemapper", "p1")).is_ok());
            assert!(is_new(&over(new, None), &info("devicemapper", "p0")).is_ok(), "an earlier build wrote no name");
            for other in
                [info("devicemapper", "p0"), info("overlay2", ""), json!({"Driver": "devicemapper"}), json!({})]
            {
                assert!(is_new(&of, &other).is_err(), "{other}");
            }
        }
        let temp = tempfile::tempdir().unwrap();
        let records = temp.path();
        fs::write(records.join("before-the-start.json"), "{}").unwrap();
        assert!(!has_answered(records) && !has_answered(Path::new("")), "traces are no answer");
        fs::write(records.join("docker-has-answered"), "").unwrap();
        assert!(has_answered(records));
    }

    #[test]
    fn a_link_in_its_place_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("real/inner")).unwrap();
        std::os::unix::fs::symlink("real", root.join("link")).unwrap();
        let refuse = |why: String| Failure::refused(why);
        for path in ["link", "link/inner"] {
            let why = deletes(&root.join(path), &refuse).unwrap_err().what;
            assert!(why.contains("a link leads there"), "{path}: {why}");
        }
    }
}
