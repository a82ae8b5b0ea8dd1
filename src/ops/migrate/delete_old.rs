//! `migrate --delete-old`: what migrations have set aside goes for good, once Docker has run without it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::over::{self, Former, Over, Since};
use super::preflight;
use crate::engine::driver::Driver;
use crate::error::{Failure, Outcome};
use crate::kernel::fs::{Bounds, occupied};
use crate::ops::plan::{Operation, Plan};
use crate::ops::steps::{DeleteFolder, Kit, Step, in_use, used_since};
use crate::ops::{Change, Done, docker, gate, journal, registry};
use crate::pool::PoolName;
use crate::process::quote;

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
    Ok(Done { left: kit.said(), ..Done::ended(plan, ended) })
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
    let Some(over) = over::recorded(&kit.state) else {
        return Err(refuse("none is known that has ended".to_owned())
            .fact("found", format!("no {}", over::path(&kit.state).display()))
            .next("dmpool list    # shows the pools here, and operations that were interrupted"));
    };
    if let Some(named) = named.filter(|named| *named != over.root) {
        return Err(refuse(format!("the last one was not of `{}`", named.display()))
            .fact("found", format!("{} (of `{}`)", over.what, over.root.display()))
            .next(format!("dmpool migrate --delete-old {}", quote(&over.root.to_string_lossy()))));
    }
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
    if folders.is_empty() {
        if let Some(next) = command_of(kit, &over) {
            return Err(refuse("the old pool is on devices, which are never touched".to_owned()).next(next));
        }
        return Ok(plan);
    }
    runs_without(&over, &refuse)?;
    for path in &folders {
        plan.steps.push(deletes(path, &refuse)?);
    }
    Ok(plan)
}

/// Returns the folders that were set aside and are there: also those of migrations before the last one.
fn folders(over: &Over) -> Vec<PathBuf> {
    let home = over.root.join("devicemapper");
    let mut found: Vec<PathBuf> = match over.new {
        Since::Overlay2 => std::iter::once(home).chain(over.besides.iter().cloned()).collect(),
        Since::LoopFiles | Since::Pool => {
            let is_aside = |name: &str| name.starts_with("devicemapper.dmpool-") && name.ends_with(".old");
            let entries = fs::read_dir(&home).into_iter().flatten().flatten();
            entries.filter(|entry| entry.file_name().to_str().is_some_and(is_aside)).map(|entry| entry.path()).collect()
        }
    };
    found.retain(|path| path.starts_with(&over.root) && path.symlink_metadata().is_ok());
    found.sort();
    found
}

/// Says of an old pool that is on devices that it stays, and what deletes it.
fn stays(kit: &Kit, over: &Over) -> Option<String> {
    command_of(kit, over).map(|command| format!("the old pool stays where it is, on devices:  {command}"))
}

/// Returns what deletes an old pool that is on devices; nothing for one in files that were set aside.
fn command_of(kit: &Kit, over: &Over) -> Option<String> {
    let of_pool = |name: &str| {
        let registered = PoolName::new(name).ok().and_then(|name| registry::look(&kit.state, &name).ok().flatten());
        match registered {
            Some(_) => format!("dmpool destroy {} --with-volumes    # asks", quote(name)),
            None => format!("dmpool status {}    # says who made it: LVM's goes by lvremove", quote(name)),
        }
    };
    match &over.old {
        Former::Pool(name) => Some(of_pool(name)),
        Former::At(path) if path.is_dir() || path.symlink_metadata().is_err() => None,
        Former::At(path) => Some(format!(
            "wipefs {}    # shows what is on it; Docker is told of it no more, and -a frees it",
            quote(&path.to_string_lossy())
        )),
    }
}

/// Refuses unless Docker has been started since, and does not use what would go.
fn runs_without(over: &Over, refuse: &impl Fn(String) -> Failure) -> Outcome<()> {
    let facts = preflight::look(&over.root, &preflight::Options::default());
    let info = match &facts.asked {
        Some(Ok(asked)) => Some(&asked.info),
        _ => None,
    };
    let used = used_since(&over.records, &over.root).unwrap_or_default();
    if info.is_none() && used.is_empty() {
        return Err(refuse("Docker has not run since on what was made for it".to_owned())
            .next("start Docker and see that all is there, then run this again"));
    }
    if over.new != Since::Overlay2 {
        return Ok(());
    }
    let own = Driver::Devicemapper.name();
    let says = info.and_then(|info| info.get("Driver")).and_then(Value::as_str).map(str::to_owned);
    let told = || docker::at(&over.root).ok().and_then(|root| root.other_driver().map(str::to_owned));
    match says.or_else(told) {
        Some(driver) if driver != own => Ok(()),
        driver => Err(refuse(format!("Docker uses {} there", driver.as_deref().unwrap_or("devicemapper, or will,")))
            .next("docker info    # says which storage driver it uses")),
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
    use super::*;

    fn over(root: &Path, new: Since) -> Over {
        Over {
            what: "migrate it".to_owned(),
            root: root.to_owned(),
            old: Former::At(root.join("devicemapper")),
            new,
            records: root.join("records"),
            besides: vec![root.join("image/devicemapper"), root.join("dmpool-migrate-1"), "/etc".into()],
            deleted: false,
        }
    }

    #[test]
    fn what_was_set_aside_goes_and_what_docker_has_stays() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path();
        for folder in [
            "devicemapper/devicemapper",
            "devicemapper/metadata",
            "devicemapper/devicemapper.dmpool-1.old",
            "image/devicemapper",
        ] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        fs::create_dir(root.join("devicemapper/devicemapper.dmpool-2")).unwrap();
        let old = [root.join("devicemapper/devicemapper.dmpool-1.old")];
        assert_eq!(folders(&over(root, Since::LoopFiles)), old);
        assert_eq!(folders(&over(root, Since::Pool)), old);
        assert_eq!(folders(&over(root, Since::Overlay2)), [root.join("devicemapper"), root.join("image/devicemapper")]);
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
