//! Which pool is meant.

use std::path::Path;

use crate::engine::docker_root::{self, DockerRoot, Problem};
use crate::error::{Failure, Kind, Outcome};
use crate::kernel::dm::{Dm, DmId};
use crate::ops::registry::{self, BadEntry};
use crate::ops::{State, journal, sight};
use crate::pool::{Entry, PoolName, THIN_POOL};

/// A pool that a command is about: what is known of it before it is looked at.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its dm name.
    pub name: String,
    /// Its registry entry, when dmpool made it.
    pub entry: Option<Entry>,
    /// Its registry entry, when there is one that cannot be used.
    pub bad_entry: Option<BadEntry>,
    /// The Docker root that uses it, when one does.
    pub docker: Option<DockerRoot>,
}

/// Every pool on the machine.
#[derive(Debug)]
pub struct All {
    /// Those that could be found, by name.
    pub found: Vec<Found>,
    /// What could not be read, and may have hidden others.
    pub broken: Vec<Failure>,
}

/// Returns the pool that an argument means: a dm name (or its path under /dev/mapper), `docker`, a Docker root's path;
/// or, without one, the only pool there is.
///
/// # Errors
/// Refused when there is no such pool, or when none was named and something that cannot be read may hide another one; a
/// usage error when none was named and there are several.
pub fn find(dm: &Dm, state: &State, argument: Option<&str>) -> Outcome<Found> {
    match argument {
        None => {
            let mut all = find_all(dm, state)?;
            if all.broken.is_empty() { only_one(all.found) } else { Err(all.broken.remove(0)) }
        }
        Some("docker") => of_docker(None),
        Some(text) => match text.strip_prefix("/dev/mapper/") {
            Some(name) => named(dm, state, name),
            None if text.starts_with('/') => of_docker(Some(Path::new(text))),
            None => named(dm, state, text),
        },
    }
}

/// Returns every pool on the machine, by name: those that the kernel has, those registered, those of Docker roots, and
/// those that an interrupted operation has left half made or half destroyed.
///
/// # Errors
/// When the kernel does not answer.
pub fn find_all(dm: &Dm, state: &State) -> Outcome<All> {
    let mut broken = Vec::new();
    let registered = registry::names(state).unwrap_or_else(|failure| {
        broken.push(failure);
        Vec::new()
    });
    let roots = docker_root::find();
    broken.extend(roots.unreadable.iter().map(unreadable));
    let mut names = live_pools(dm)?;
    names.extend(registered.iter().map(ToString::to_string));
    names.extend(journal::pools(state));
    names.extend(roots.found.iter().filter(|r| r.data_file.is_some()).map(DockerRoot::own_pool));
    names.sort();
    names.dedup();
    let found = |name: String| {
        let (entry, bad_entry) = entry_of(state, &name);
        Found { entry, bad_entry, docker: roots.found.iter().find(|r| uses(r, &name)).cloned(), name }
    };
    Ok(All { found: names.into_iter().map(found).collect(), broken })
}

/// Returns the only pool of those found.
///
/// # Errors
/// Refused when there is none; a usage error when there are several.
pub fn only_one(mut all: Vec<Found>) -> Outcome<Found> {
    match all.len() {
        1 => all.pop().ok_or_else(none),
        0 => Err(none()),
        _ => {
            let names: Vec<_> = all.iter().map(|f| f.name.as_str()).collect();
            Err(Failure::new(Kind::Usage, format!("there are {} pools here: say which one", all.len()))
                .fact("found", names.join(", "))
                .next("dmpool list"))
        }
    }
}

/// Returns what the registry has of that name. Names that dmpool would not give have no entry.
fn entry_of(state: &State, name: &str) -> (Option<Entry>, Option<BadEntry>) {
    match PoolName::new(name).map(|name| registry::look(state, &name)) {
        Ok(Ok(entry)) => (entry, None),
        Ok(Err(bad)) => (None, Some(bad)),
        Err(_) => (None, None),
    }
}

/// Returns the failure of a Docker root that cannot be opened.
fn unreadable(root: &Problem) -> Failure {
    let path = root.path.display();
    Failure::refused(format!("cannot read the Docker root `{path}`"))
        .fact("cause", &root.why)
        .next(format!("ls -ld {path} {path}/devicemapper    shows what is in the way"))
}

fn none() -> Failure {
    Failure::refused("there is no thin pool on this machine")
        .fact("found", "no device with a thin-pool table, no registered pool, no Docker root with a devicemapper pool")
        .next("dmpool create NAME    makes one")
}

fn of_docker(root: Option<&Path>) -> Outcome<Found> {
    let root = match root {
        Some(path) => docker_root::at(path)
            .map_err(|e| {
                Failure::refused(format!("cannot read the Docker root `{}`", path.display()))
                    .next("dmpool list    shows every pool here")
                    .because(e)
            })?
            .ok_or_else(|| {
                Failure::refused(format!("`{}` is no Docker root with a devicemapper pool", path.display()))
                    .fact("needed", format!("{}/devicemapper", path.display()))
                    .next("dmpool list    shows every pool here")
            })?,
        None => {
            let mut roots = docker_root::find();
            match (roots.found.len(), roots.unreadable.first()) {
                (1, None) => roots.found.remove(0),
                (0, Some(root)) => return Err(unreadable(root)),
                (0, None) => {
                    return Err(Failure::refused("there is no Docker root with a devicemapper pool here")
                        .fact(
                            "found",
                            "none of a running dockerd, none in /etc/docker/daemon.json, none in /var/lib/docker",
                        )
                        .next("dmpool status /path/of/the/docker/root"));
                }
                _ => {
                    let paths = roots.found.iter().map(|r| &r.path).chain(roots.unreadable.iter().map(|r| &r.path));
                    let paths: Vec<_> = paths.map(|path| path.display().to_string()).collect();
                    return Err(Failure::new(Kind::Usage, "there are several Docker roots: name one by its path")
                        .fact("found", paths.join(", "))
                        .next(format!("dmpool status {}", paths.first().map_or("", String::as_str))));
                }
            }
        }
    };
    let name = root.pool().ok_or_else(|| {
        Failure::refused(format!("cannot tell which pool the Docker root `{}` uses", root.path.display()))
            .fact("cause", "no daemon runs on it, and nothing that was read says its options")
            .fact("found", format!("Docker's own name for it would be `{}`", root.own_pool()))
            .next("name the pool itself; dmpool list shows every pool here")
    })?;
    Ok(Found { name, entry: None, bad_entry: None, docker: Some(root) })
}

fn named(dm: &Dm, state: &State, name: &str) -> Outcome<Found> {
    let (entry, bad_entry) = entry_of(state, name);
    let live = sight::live(dm, name);
    if entry.is_none() && bad_entry.is_none() {
        match live {
            Ok(Some(_)) => {}
            Ok(None) if journal::pools(state).iter().any(|pool| pool == name) => {}
            Ok(None) => return Err(no_such(dm, state, name)),
            Err(e) => {
                return Err(Failure::refused(format!("`{name}` cannot be read as a thin pool"))
                    .next("dmpool list    shows every pool here")
                    .because(e));
            }
        }
    }
    // A root that cannot be read must not keep anyone from looking at another pool.
    let docker = docker_root::find().found.into_iter().find(|r| uses(r, name));
    Ok(Found { name: name.to_owned(), entry, bad_entry, docker })
}

fn no_such(dm: &Dm, state: &State, name: &str) -> Failure {
    let failure = Failure::refused(format!("there is no pool `{name}`"));
    match find_all(dm, state) {
        Ok(all) if !all.found.is_empty() => {
            let names: Vec<_> = all.found.iter().map(|f| f.name.as_str()).collect();
            failure.fact("found", names.join(", ")).next("dmpool list")
        }
        Ok(_) => failure.fact("found", "no thin pool at all").next(format!("dmpool create {name}    makes it")),
        Err(_) => failure.next("dmpool list"),
    }
}

fn uses(root: &DockerRoot, name: &str) -> bool {
    root.pool().as_deref() == Some(name) || root.own_pool() == name
}

/// Returns the dm names of all devices whose table is one thin-pool target.
fn live_pools(dm: &Dm) -> Outcome<Vec<String>> {
    let devices = dm.list().map_err(|e| Failure::failed("cannot list the device-mapper devices").because(e))?;
    let is_pool = |name: &str| {
        // A device that went away meanwhile is no pool.
        dm.table(&DmId::name(name)).is_ok_and(|lines| matches!(lines.as_slice(), [line] if line.kind == THIN_POOL))
    };
    Ok(devices.into_iter().map(|d| d.name).filter(|name| is_pool(name)).collect())
}
