//! From devicemapper to overlay2: every layer becomes a directory, and Docker's names and ids stay.

use std::path::Path;

use serde_json::Value;

use super::over::{self, Since};
use super::preflight::Judged;
use super::room::ToReserve;
use super::size;
use super::{Own, Part as Planned, back};
use crate::engine::configure::Obstacle;
use crate::engine::configure::docker::{self as configure, Telling};
use crate::engine::docker_objects::{self, Fields, Objects};
use crate::engine::dockerd;
use crate::engine::driver::Driver;
use crate::engine::version::Version;
use crate::error::{Failure, Outcome};
use crate::kernel::identity;
use crate::ops::contents::overlay2::{self, Ground, Host, Part, Size};
use crate::ops::contents::source::Reach;
use crate::ops::steps::{CopyLayers, Kit, PlaceLayers, SetDriver, VerifyLayers};
use crate::ops::target::refusal;
use crate::ops::{cost, reserved};
use crate::process::quote;
use crate::units::Bytes;

/// What is kept free beside what is copied: directories, attributes and the file system's own.
const SPARE: u64 = 64 << 20;
/// What one entry takes at most beside its content.
const ENTRY: u64 = 4096;
/// What makes Docker start on a kernel that is older than it asks for.
const TOLD: &str = "overlay2.override_kernel_check=true";
/// How many broken things are named.
const NAMED: usize = 10;

/// What was found out.
#[derive(Debug)]
struct Facts {
    objects: Objects,
    parts: Result<Vec<Part>, Vec<String>>,
    /// How many containers devicemapper has.
    containers: usize,
    /// Those with a size of their own, which overlay2 keeps only on XFS with project quotas.
    limited: Vec<String>,
    /// Layers that nothing names.
    nameless: usize,
    ground: Ground,
    /// Layers whose record names a volume that the pool does not have.
    missing: Vec<String>,
    telling: Result<Telling, Obstacle>,
}

/// Looks at a root, free of symbolic links, and at what it stands on. It may be the root of a Docker that runs.
///
/// # Errors
/// When there is no such root.
fn look(root: &Path) -> Outcome<Facts> {
    let objects = docker_objects::read(root)
        .map_err(|e| Failure::refused(format!("cannot read the Docker root `{}`", root.display())).because(e))?;
    let parts = overlay2::parts(&objects);
    let of_driver =
        objects.containers.iter().filter(|container| container.driver() == Some(Driver::Devicemapper.name()));
    let of_driver: Vec<_> = of_driver.collect();
    let label = |container: &&docker_objects::Container| container.name().unwrap_or(&container.id).to_owned();
    let limited = of_driver.iter().filter(|container| container.host_config.text(&["StorageOpt", "size"]).is_some());
    let store = objects.stores.iter().find(|store| store.driver == Driver::Devicemapper.name());
    let telling = configure::tell_overlay2(Path::new("/"), &dockerd::running());
    Ok(Facts {
        parts,
        containers: of_driver.len(),
        limited: limited.map(label).collect(),
        nameless: store.map_or(0, |store| store.nameless(&objects.containers, &objects.volumes).len()),
        ground: Ground::look(&objects),
        missing: Vec::new(),
        telling,
        objects,
    })
}

fn refusing(migration: &super::Ground<'_>) -> (String, impl Fn(String) -> Failure + use<>) {
    let what = format!("migrate the Docker root `{}` to overlay2", migration.root.path.display());
    let cannot = what.clone();
    (what, move |why: String| Failure::refused(format!("cannot {cannot}: {why}")).fact("state", "nothing was touched"))
}

/// Refuses what was carried over before.
///
/// # Errors
/// Refused with what is left to be done.
pub(super) fn is_over(migration: &super::Ground<'_>, judged: &Judged) -> Outcome<()> {
    is_not_over(migration.kit, &look(&migration.root.path)?, judged, &refusing(migration).1)
}

/// Refuses with every reason not to do it that is seen without reading what would be copied.
///
/// # Errors
/// That reason.
pub(super) fn may_begin(migration: &super::Ground<'_>, judged: &Judged) -> Outcome<()> {
    checked(migration, judged, &refusing(migration).1).map(drop)
}

fn checked(migration: &super::Ground<'_>, judged: &Judged, refuse: &impl Fn(String) -> Failure) -> Outcome<Facts> {
    let facts = look(&migration.root.path)?;
    is_not_over(migration.kit, &facts, judged, refuse)?;
    let runs = judged.info.get("Driver").and_then(Value::as_str);
    let ours = [Driver::Devicemapper.name(), Driver::Overlay2.name()];
    if let Some(other) = runs.filter(|runs| !ours.contains(runs)) {
        return Err(refuse(format!("Docker runs on the {other} driver, and has other images and containers there"))
            .next("dmpool rescue images    # shows what each driver has; rescue save and rescue export carry it over one by one"));
    }
    let telling = facts.telling.as_ref().map_err(|obstacle| refusal(obstacle, refuse))?;
    if telling.root != facts.objects.path {
        return Err(refuse("Docker is configured for another root".to_owned())
            .fact("found", telling.root.display().to_string())
            .next("set data-root to this one, or name that one"));
    }
    host(migration, judged, telling).has_overlay2(refuse)?;
    facts.ground.may_have_overlay2(&facts.objects.path, refuse)?;
    Ok(facts)
}

/// Returns the steps between those that stop Docker and those that start it.
///
/// # Errors
/// Every reason not to do it.
pub(super) fn plan(migration: &super::Ground<'_>, judged: &Judged, offline: bool) -> Outcome<(Planned, Own)> {
    let (what, refuse) = refusing(migration);
    if let Some(daemon) = judged.daemon.as_ref().filter(|_| offline) {
        return Err(refuse("its Docker runs, and --offline is for one that does not".to_owned())
            .fact("found", format!("it listens at {}", daemon.socket.display()))
            .next("leave --offline out: Docker is stopped, and started on the copy"));
    }
    let state = migration.kit.state.clone();
    let mut facts = checked(migration, judged, &refuse)?;
    let telling = facts.telling.clone().map_err(|obstacle| refusal(&obstacle, &refuse))?;
    facts.missing = missing(migration, judged);
    let (layers, size, needed) = may_be_done(&facts, &Reach { state: state.clone(), ..Reach::default() }, &refuse)?;
    let to = facts.objects.path.join(format!("dmpool-migrate-{}", migration.stamp));
    let report = state.saved.join(format!("docker-{}-compared.json", migration.stamp));
    let mut notes = notes(&facts, &to);
    notes.insert(0, cost::docker_stopped(cost::carry_files(layers, size.entries, Bytes::new(size.bytes))));
    if judged.daemon.is_none() {
        let start = telling.starter.as_ref().map(|starter| starter.command("start"));
        notes.push(format!(
            "nobody starts Docker at the end: {}",
            start.unwrap_or_else(|| "start it as it was started, without options of devicemapper's".to_owned())
        ));
    }
    let pool = migration.root.own_pool();
    let old = migration.root.pool().or_else(|| Some(pool.clone()));
    let room = reserved::can_be(&facts.objects.path).then(|| ToReserve {
        folder: facts.objects.path.clone(),
        room: needed,
        also: Bytes::default(),
    });
    if room.is_none() {
        notes.push(reserved::cannot_be(&facts.objects.path));
    }
    let needed = room.as_ref().map_or_else(Bytes::default, |room| room.room);
    let edits = telling.edits.clone();
    let part = Planned { what, old, pool, edits, notes, room, first: Vec::new(), at_last: Vec::new() };
    let (_, origin) = size::origin_of(&migration.root);
    let (root, containers, aside) = (facts.objects.path.clone(), facts.containers, facts.ground.aside.clone());
    let own: Own = Box::new(move |hold| {
        let of = || (root.clone(), to.clone(), hold.clone());
        let ((root, to, hold), verify, place, driver) = (of(), of(), of(), of());
        vec![
            CopyLayers { root, to, hold, layers, size: Bytes::new(size.bytes), old: Some(origin), room: needed }.into(),
            VerifyLayers { root: verify.0, to: verify.1, hold: verify.2, size: Bytes::new(size.bytes), report }.into(),
            PlaceLayers { root: place.0, to: place.1, hold: place.2, aside }.into(),
            SetDriver { root: driver.0, to: driver.1, hold: driver.2, containers }.into(),
        ]
    });
    Ok((part, own))
}

/// Refuses where Docker has all in overlay2 already: what is there is not in the way, it is what counts.
fn is_not_over(kit: &Kit, facts: &Facts, judged: &Judged, refuse: &dyn Fn(String) -> Failure) -> Outcome<()> {
    let Some(taken) = facts.ground.taken() else { return Ok(()) };
    let runs = judged.info.get("Driver").and_then(Value::as_str) == Some(Driver::Overlay2.name());
    let ended = over::recorded(&kit.state);
    let over = ended.iter().find(|over| over.root == facts.objects.path && over.new == Since::Overlay2);
    match over {
        Some(over) if runs => {
            let failure = refuse("it was migrated already, and Docker runs on overlay2".to_owned()).fact("found", taken);
            Err(match over.deleted {
                true => failure.next("docker info    # shows the driver"),
                false => failure
                    .next("dmpool migrate --delete-old    # deletes what devicemapper has still, when Docker has run well without it"),
            })
        }
        None if runs => Err(refuse("Docker runs on overlay2, and has something there already".to_owned())
            .fact("found", taken)
            .next("dmpool rescue images    # shows what each driver has; rescue save and rescue export carry it over one by one")),
        Some(_) if judged.daemon.is_none() => {
            let is_told = facts.telling.as_ref().is_ok_and(|telling| telling.edits.is_empty());
            let start = match is_told {
                true => "start Docker, which is told of overlay2",
                false => "have Docker told of overlay2 again (its storage driver was changed since), then start it",
            };
            let back = if back::leads_back(kit, &facts.objects.path) { "; until then dmpool undo leads back" } else { "" };
            Err(refuse("it was migrated already".to_owned()).fact("found", taken).next(format!("{start}{back}")))
        }
        _ => Ok(()),
    }
}

/// Returns how many layers there are, how much is in them, and how much room that takes at most.
fn may_be_done(facts: &Facts, reach: &Reach, refuse: &dyn Fn(String) -> Failure) -> Outcome<(usize, Size, Bytes)> {
    let parts = facts.parts.as_ref().map_err(|broken| {
        let failure = refuse("not all of it is whole".to_owned());
        let more = broken.len().saturating_sub(NAMED);
        let failure = broken.iter().take(NAMED).fold(failure, |failure, why| failure.fact("found", why));
        let failure = if more > 0 { failure.fact("found", format!("{more} more")) } else { failure };
        let root = quote(&facts.objects.path.to_string_lossy());
        failure.next(format!("dmpool --root {root} rescue images --tree    # shows what is there"))
    })?;
    if let Some(part) = parts.iter().find(|part| facts.missing.contains(&part.id)) {
        return Err(refuse("not all of it is whole".to_owned())
            .fact("found", format!("{}: the pool does not have the volume of {}", part.whose, part.id))
            .next("remove what needs it (docker rm, docker rmi), then run this again"));
    }
    // Last of all that is looked at: every container is read for it.
    let size = overlay2::measured(&facts.objects, parts, reach)
        .map_err(|why| refuse("not all of it can be copied".to_owned()).fact("found", format!("{why:#}")))?;
    let needed = size.bytes.saturating_add(size.entries.saturating_mul(ENTRY)).saturating_add(SPARE);
    facts.ground.has_room(needed, size.entries, refuse)?;
    Ok((parts.len(), size, Bytes::new(needed)))
}

/// Returns the layers whose volume the pool does not have. A pool that cannot be read so is looked at layer by layer, when it is copied.
fn missing(migration: &super::Ground<'_>, judged: &Judged) -> Vec<String> {
    let unread = |why: String| Failure::refused(why);
    let old = size::look(migration, &judged.info, None, &unread).ok();
    // While Docker writes, a layer that it is just making may have a record and no volume yet.
    old.filter(|old| old.is_steady).map(|old| old.missing).unwrap_or_default()
}

fn host(migration: &super::Ground<'_>, judged: &Judged, telling: &Telling) -> Host {
    let says = judged.info.get("ServerVersion").and_then(Value::as_str).and_then(Version::parse);
    let installed = || {
        let known = migration.root.clone().with_installed_version().version;
        known.filter(|known| known.exact).map(|known| known.version)
    };
    Host {
        docker: says.or_else(installed),
        kernel: identity::kernel_release().unwrap_or_default(),
        is_told: telling.edits.iter().any(|edit| edit.after.contains(TOLD)),
    }
}

fn notes(facts: &Facts, to: &Path) -> Vec<String> {
    let root = facts.objects.path.display();
    let mut notes = vec![format!(
        "the pool and what devicemapper has in {root} stay as they are; when Docker has run well without them:  dmpool migrate --delete-old"
    )];
    if !facts.limited.is_empty() {
        notes.push(format!(
            "limits of size are not kept by overlay2 (but on XFS with pquota, for containers made then): {}",
            facts.limited.join(", ")
        ));
    }
    if facts.nameless > 0 {
        notes.push(format!(
            "{} layers that no image and no container names stay behind: leftovers, or a cache of builds",
            facts.nameless
        ));
    }
    if !facts.ground.aside.is_empty() {
        let names: Vec<String> = facts.ground.aside.iter().map(|name| name.display().to_string()).collect();
        notes.push(format!("{} will be in {}/aside: builds make their cache anew", names.join(", "), to.display()));
    }
    notes
}
