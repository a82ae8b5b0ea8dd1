//! Which pool is meant, and whose it is.

use std::cell::LazyCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::engine::docker_root::{DockerRoot, Standing};
use crate::engine::roots::{self as docker_roots, Awaited, Roots};
use crate::error::{Failure, Kind, Outcome};
use crate::kernel::dm::{Dm, DmId};
use crate::kernel::loopdev::LoopInfo;
use crate::ops::containerd::{self, Claim};
use crate::ops::docker::{self, chosen};
use crate::ops::registry::{self, BadEntry};
use crate::ops::tie::{self, Ground};
use crate::ops::{State, journal, sight};
use crate::pool::{Entry, PoolName, THIN_POOL, Tie};
use crate::process;

/// A pool that a command is about: what is known of it before it is looked at.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its dm name.
    pub name: String,
    /// Its registry entry, when dmpool made it.
    pub entry: Option<Entry>,
    /// Its registry entry, when there is one that cannot be used.
    pub bad_entry: Option<BadEntry>,
    /// The Docker root that it belongs to, when it does to one.
    pub docker: Option<DockerRoot>,
    /// How it belongs to that root.
    pub tie: Option<Tie>,
    /// What commands take in the place of that root's pool, when it is this one: `docker`, or else the root's path.
    pub by_root: Option<String>,
    /// The root that Docker is told to use it for, and has not begun to.
    pub awaited_by: Option<PathBuf>,
    /// What speaks for containerd as its user.
    pub containerd: Claim,
    /// The loop devices under it, as they were when it was found live.
    pub loops: Vec<LoopInfo>,
}

impl Found {
    /// A registered pool by its entry alone: whose it is was not asked.
    pub fn registered(entry: Entry) -> Self {
        Self {
            name: entry.name.to_string(),
            entry: Some(entry),
            bad_entry: None,
            docker: None,
            tie: None,
            by_root: None,
            awaited_by: None,
            containerd: Claim::default(),
            loops: Vec::new(),
        }
    }
}

/// Every pool on the machine.
#[derive(Debug)]
pub struct All {
    /// Those that could be found, by name.
    pub found: Vec<Found>,
    /// What could not be read, and may have hidden others.
    pub broken: Vec<Failure>,
}

/// Returns the pool that an argument means: a dm name (or its path under /dev/mapper), `docker`, a Docker root's path.
///
/// # Errors
/// Refused when there is no such pool.
pub fn find(dm: &Dm, state: &State, argument: &str) -> Outcome<Found> {
    match (argument, argument.strip_prefix("/dev/mapper/")) {
        ("docker", _) => match docker::awaited(state) {
            Some(pool) => named(dm, state, &pool),
            None => of_docker(dm, state, chosen(state)?),
        },
        (_, Some(name)) => named(dm, state, name),
        (path, None) if path.starts_with('/') => of_docker(dm, state, docker::at(Path::new(path))?),
        (name, None) => named(dm, state, name),
    }
}

/// Returns the pool that is meant where none was named: that of the Docker root that was named by option, or else the only
/// one there is. `command` is the one that wants to know.
///
/// # Errors
/// Refused when there is none, or something that cannot be read may hide another one; a usage error when there are several.
pub fn unnamed(dm: &Dm, state: &State, command: &str) -> Outcome<Found> {
    if let Some(root) = &state.docker_root {
        return of_docker(dm, state, docker::at(root)?);
    }
    let mut all = find_all(dm, state)?;
    if all.broken.is_empty() { only_one(all.found, command) } else { Err(all.broken.remove(0)) }
}

/// Returns every pool on the machine, by name: those that the kernel has, those registered, those of Docker roots, and
/// those that an interrupted operation has left half made or half destroyed.
///
/// # Errors
/// When the kernel does not answer, or the Docker root that was named cannot be read.
pub fn find_all(dm: &Dm, state: &State) -> Outcome<All> {
    let mut broken = Vec::new();
    let registered = registry::names(state).unwrap_or_else(|failure| {
        broken.push(failure);
        Vec::new()
    });
    let live = live_pools(dm)?;
    let roots = docker::roots(state)?;
    let meant = meant_of(roots.clone());
    let roots = roots_of(roots, &live);
    broken.extend(roots.unreadable.iter().map(docker::unreadable));
    let mut names: Vec<String> = live.keys().cloned().collect();
    names.extend(registered.iter().map(ToString::to_string));
    names.extend(journal::pools(state));
    // A root whose pool is live has no other, whatever its files would make it.
    let is_tied = |root: &DockerRoot| {
        live.iter().any(|(name, ground)| tie::tie(root, name, Some(ground)).is_some_and(|tie| tie != Tie::Before))
    };
    names.extend(roots.found.iter().filter(|r| r.data_file.is_some() && !is_tied(r)).map(DockerRoot::own_pool));
    let named = |r: &&DockerRoot| r.data_file.is_none() && r.standing != Standing::Left && !is_tied(r);
    names.extend(roots.found.iter().filter(named).filter_map(DockerRoot::pool));
    let before = |root: &&DockerRoot| root.data_file.is_some() && root.pool().is_some_and(|p| p != root.own_pool());
    names.extend(roots.found.iter().filter(before).map(DockerRoot::own_pool));
    names.sort();
    names.dedup();
    let snapshotters = containerd::lazily();
    let Roots { found: roots, awaited, .. } = roots;
    let found = |name: String| {
        let (docker, tie) = whose(&roots, &name, live.get(&name));
        let by_root = docker.as_ref().and_then(|root| by_root(dm, root, &name, &meant));
        let (entry, bad_entry) = entry_of(state, &name);
        let containerd = Claim::of(&name, tie, live.get(&name), &snapshotters);
        let loops = live.get(&name).map(Ground::loops).unwrap_or_default();
        let awaited_by = awaited_by(awaited.as_ref(), &name, tie);
        Found { entry, bad_entry, docker, tie, by_root, awaited_by, containerd, loops, name }
    };
    Ok(All { found: names.into_iter().map(found).collect(), broken })
}

/// Returns the root that Docker is told to use a pool for which is no root's yet.
fn awaited_by(awaited: Option<&Awaited>, name: &str, tie: Option<Tie>) -> Option<PathBuf> {
    let awaited = awaited.filter(|awaited| awaited.pool == name && tie.is_none_or(|tie| tie == Tie::Before))?;
    Some(awaited.root.clone())
}

/// Returns what the registry has of that name. Names that dmpool would not give have no entry.
fn entry_of(state: &State, name: &str) -> (Option<Entry>, Option<BadEntry>) {
    match PoolName::new(name).map(|name| registry::look(state, &name)) {
        Ok(Ok(entry)) => (entry, None),
        Ok(Err(bad)) => (None, Some(bad)),
        Err(_) => (None, None),
    }
}

/// Returns the root that a pool belongs to, the strongest tie first.
fn whose(roots: &[DockerRoot], name: &str, ground: Option<&Ground>) -> (Option<DockerRoot>, Option<Tie>) {
    let ties = roots.iter().filter_map(|root| Some((tie::tie(root, name, ground)?, root)));
    let best = ties.min_by_key(|(tie, root)| (*tie, root.standing));
    (best.map(|(_, root)| root.clone()), best.map(|(tie, _)| tie))
}

/// Adds the roots that live pools tell of and nothing else does: around the files under them, and of daemons beside the
/// usual one.
fn roots_of(mut roots: Roots, live: &BTreeMap<String, Ground>) -> Roots {
    let orphan = |roots: &[DockerRoot], name: &str, ground: &Ground| {
        ground.looks_like_dockers(name) && whose(roots, name, Some(ground)).0.is_none()
    };
    if live.iter().any(|(name, ground)| orphan(&roots.found, name, ground)) {
        roots.add(docker_roots::find_all(&docker::answers).found);
    }
    for (name, ground) in live {
        if orphan(&roots.found, name, ground) {
            roots.add(ground.files().filter_map(|file| docker_roots::around(file, &docker::answers)));
        }
    }
    roots
}

/// More names than one chooses from.
const MOST_NAMED: usize = 8;

/// Returns the only pool of those found.
///
/// # Errors
/// Refused when there is none; a usage error when there are several, with the command as it is typed for each.
pub fn only_one(mut all: Vec<Found>, command: &str) -> Outcome<Found> {
    match all.len() {
        1 => all.pop().ok_or_else(none),
        0 => Err(docker::without_a_pool().unwrap_or_else(none)),
        several => {
            let names: Vec<_> = all.into_iter().map(|found| found.by_root.unwrap_or(found.name)).collect();
            Err(which(format!("there are {several} pools here: say which one"), &names, command))
        }
    }
}

/// Returns the failure of a command that lacks a name, with what it would be for each of these.
pub fn which(what: String, names: &[String], command: &str) -> Failure {
    let again = names.iter().map(|name| process::again_with(command, name));
    let next = if names.len() > MOST_NAMED { "dmpool list".to_owned() } else { again.collect::<Vec<_>>().join("\n") };
    Failure::new(Kind::Usage, what).fact("found", names.join(", ")).next(next)
}

fn none() -> Failure {
    Failure::refused("there is no thin pool on this machine")
        .fact("found", "no device with a thin-pool table, no registered pool, no Docker root with a devicemapper pool")
        .next("dmpool create NAME    # makes one")
}

fn of_docker(dm: &Dm, state: &State, root: DockerRoot) -> Outcome<Found> {
    let name = pool_of(dm, &root)?;
    let ground = sight::live(dm, &name).ok().flatten().map(|live| Ground::of(&live));
    let tie = tie::tie(&root, &name, ground.as_ref());
    // Docker may have been given a pool that dmpool made.
    let (entry, bad_entry) = entry_of(state, &name);
    let by_root = word(&root, &meant_of(docker::roots(state).unwrap_or_default()));
    let containerd = Claim::of(&name, tie, ground.as_ref(), &containerd::lazily());
    let loops = ground.as_ref().map(Ground::loops).unwrap_or_default();
    Ok(Found { name, entry, bad_entry, docker: Some(root), tie, by_root, awaited_by: None, containerd, loops })
}

/// Returns a root's pool: the one its options name; else the live one that stands on its files or devices, which has
/// another name when the root was moved while it ran; else the one Docker would make.
fn pool_of(dm: &Dm, root: &DockerRoot) -> Outcome<String> {
    let named = root.options.known().and_then(|options| options.named_pool().map(str::to_owned));
    let usual = named.or_else(|| root.pool());
    let is_live = |name: &str| sight::live(dm, name).is_ok_and(|live| live.is_some());
    if let Some(name) = usual.clone().filter(|name| is_live(name)) {
        return Ok(name);
    }
    let live = live_pools(dm)?;
    let ties = live.iter().filter_map(|(name, ground)| Some((tie::tie(root, name, Some(ground))?, name)));
    if let Some((_, name)) = ties.filter(|(tie, _)| *tie != Tie::Before).min() {
        return Ok(name.clone());
    }
    usual.ok_or_else(|| {
        Failure::refused(format!("cannot tell which pool the Docker root `{}` uses", root.path.display()))
            .fact("cause", "no daemon runs on it, and nothing that was read says its options")
            .fact("found", format!("Docker's own name for it would be `{}`", root.own_pool()))
            .next("name the pool itself; dmpool list shows every pool here")
    })
}

/// The root that `docker` means, looked for when a pool asks for it.
type Meant<F> = LazyCell<Option<DockerRoot>, F>;

fn meant_of(roots: Roots) -> Meant<impl FnOnce() -> Option<DockerRoot>> {
    LazyCell::new(move || docker::meant(&roots))
}

/// Returns what commands take in the place of a root's pool: `docker` when that means this root, else the root's path;
/// nothing when neither can be typed.
fn word<F: FnOnce() -> Option<DockerRoot>>(root: &DockerRoot, meant: &Meant<F>) -> Option<String> {
    if meant.as_ref().is_some_and(|meant| meant.path == root.path) {
        return Some("docker".to_owned());
    }
    root.path.to_str().map(str::to_owned)
}

/// Returns what commands take for a pool in the place of its root's pool, when that is this one.
fn by_root<F: FnOnce() -> Option<DockerRoot>>(
    dm: &Dm,
    root: &DockerRoot,
    pool: &str,
    meant: &Meant<F>,
) -> Option<String> {
    if pool_of(dm, root).is_ok_and(|name| name == pool) { word(root, meant) } else { None }
}

fn named(dm: &Dm, state: &State, name: &str) -> Outcome<Found> {
    let (entry, bad_entry) = entry_of(state, name);
    let live = match sight::live(dm, name) {
        Ok(live) => live,
        Err(_) if entry.is_some() || bad_entry.is_some() => None,
        Err(e) => {
            return Err(Failure::refused(format!("`{name}` cannot be read as a thin pool"))
                .next("dmpool list    # shows every pool here")
                .because(e));
        }
    };
    // A root that cannot be read must not keep anyone from looking at another pool.
    let roots = docker::roots(state).unwrap_or_default();
    let has_files = |root: &DockerRoot| root.data_file.is_some() && root.own_pool() == name;
    let is_known = entry.is_some() || bad_entry.is_some() || live.is_some() || roots.found.iter().any(has_files);
    if !is_known && !journal::pools(state).iter().any(|pool| pool == name) {
        return Err(no_such(dm, state, name));
    }
    let live: BTreeMap<_, _> = live.iter().map(|live| (name.to_owned(), Ground::of(live))).collect();
    let meant = meant_of(roots.clone());
    let roots = roots_of(roots, &live);
    let (docker, tie) = whose(&roots.found, name, live.get(name));
    let awaited_by = awaited_by(roots.awaited.as_ref(), name, tie);
    let by_root = docker.as_ref().and_then(|root| by_root(dm, root, name, &meant));
    let containerd = Claim::of(name, tie, live.get(name), &containerd::lazily());
    let loops = live.get(name).map(Ground::loops).unwrap_or_default();
    Ok(Found { name: name.to_owned(), entry, bad_entry, docker, tie, by_root, awaited_by, containerd, loops })
}

fn no_such(dm: &Dm, state: &State, name: &str) -> Failure {
    let failure = Failure::refused(format!("there is no pool `{name}`"));
    match find_all(dm, state) {
        Ok(All { found, .. }) if !found.is_empty() => {
            let names: Vec<_> = found.iter().map(|f| f.name.as_str()).collect();
            failure.fact("found", names.join(", ")).next("dmpool list")
        }
        Ok(_) => failure.fact("found", "no thin pool at all").next("dmpool list"),
        Err(_) => failure.next("dmpool list"),
    }
}

/// Returns all devices whose table is one thin-pool target, by dm name, each with what is under it and on it.
fn live_pools(dm: &Dm) -> Outcome<BTreeMap<String, Ground>> {
    let devices = dm.list().map_err(|e| Failure::failed("cannot list the device-mapper devices").because(e))?;
    let is_pool = |name: &str| {
        // A device that went away meanwhile is no pool.
        dm.table(&DmId::name(name)).is_ok_and(|lines| matches!(lines.as_slice(), [line] if line.kind == THIN_POOL))
    };
    let pools = devices.into_iter().map(|d| d.name).filter(|name| is_pool(name));
    // A table that cannot be understood is a pool's all the same: looking at it says what is wrong.
    let ground = |name: String| match sight::live(dm, &name) {
        Ok(live) => Some((name, live.map(|live| Ground::of(&live))?)),
        Err(_) => Some((name, Ground::unknown())),
    };
    Ok(pools.filter_map(ground).collect())
}
