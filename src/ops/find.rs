//! Which pool is meant.

use std::path::Path;

use crate::engine::docker_root::DockerRoot;
use crate::engine::roots as docker_roots;
use crate::error::{Failure, Kind, Outcome};
use crate::kernel::dm::{Dm, DmId};
use crate::ops::{State, journal, registry, sight};
use crate::pool::{Entry, PoolName, THIN_POOL};

/// A pool that a command is about: what is known of it before it is looked at.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its dm name.
    pub name: String,
    /// Its registry entry, when dmpool made it.
    pub entry: Option<Entry>,
    /// The Docker root that uses it, when one does.
    pub docker: Option<DockerRoot>,
}

/// Returns the pool that an argument means: a dm name (or its path under /dev/mapper), `docker`, a Docker root's path;
/// or, without one, the only pool there is.
///
/// # Errors
/// Refused when there is no such pool; a usage error when none was named and there are several.
pub fn find(dm: &Dm, state: &State, argument: Option<&str>) -> Outcome<Found> {
    match argument {
        None => only_one(dm, state),
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
/// When the kernel, the registry or a Docker root cannot be read.
pub fn find_all(dm: &Dm, state: &State) -> Outcome<Vec<Found>> {
    let entries = registry::read_all(state)?;
    let roots = roots()?;
    let mut names = live_pools(dm)?;
    names.extend(entries.iter().map(|e| e.name.to_string()));
    names.extend(journal::pools(state));
    names.extend(roots.iter().filter(|r| r.data_file.is_some()).map(DockerRoot::own_pool));
    names.sort();
    names.dedup();
    let found = |name: String| Found {
        entry: entries.iter().find(|e| e.name.as_str() == name).cloned(),
        docker: roots.iter().find(|r| uses(r, &name)).cloned(),
        name,
    };
    Ok(names.into_iter().map(found).collect())
}

fn only_one(dm: &Dm, state: &State) -> Outcome<Found> {
    let mut all = find_all(dm, state)?;
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

fn none() -> Failure {
    Failure::refused("there is no thin pool on this machine")
        .fact("found", "no device with a thin-pool table, no registered pool, no Docker root with a devicemapper pool")
        .next("dmpool create NAME    makes one")
}

fn of_docker(root: Option<&Path>) -> Outcome<Found> {
    let root = match root {
        Some(path) => docker_roots::at(path)
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
            let mut roots = roots()?;
            match roots.len() {
                1 => roots.remove(0),
                0 => {
                    return Err(Failure::refused("there is no Docker root with a devicemapper pool here")
                        .fact(
                            "found",
                            "none of a running dockerd, none in /etc/docker/daemon.json, none in /var/lib/docker",
                        )
                        .next("dmpool status /path/of/the/docker/root"));
                }
                _ => {
                    let paths: Vec<_> = roots.iter().map(|r| r.path.display().to_string()).collect();
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
    Ok(Found { name, entry: None, docker: Some(root) })
}

fn named(dm: &Dm, state: &State, name: &str) -> Outcome<Found> {
    let entry = match PoolName::new(name) {
        Ok(name) => registry::read(state, &name)?,
        Err(_) => None,
    };
    let live = sight::live(dm, name);
    if entry.is_none() {
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
    let docker = roots().unwrap_or_default().into_iter().find(|r| uses(r, name));
    Ok(Found { name: name.to_owned(), entry, docker })
}

fn no_such(dm: &Dm, state: &State, name: &str) -> Failure {
    let failure = Failure::refused(format!("there is no pool `{name}`"));
    match find_all(dm, state) {
        Ok(all) if !all.is_empty() => {
            let names: Vec<_> = all.iter().map(|f| f.name.as_str()).collect();
            failure.fact("found", names.join(", ")).next("dmpool list")
        }
        Ok(_) => failure.fact("found", "no thin pool at all").next(format!("dmpool create {name}    makes it")),
        Err(_) => failure.next("dmpool list"),
    }
}

fn uses(root: &DockerRoot, name: &str) -> bool {
    root.pool().as_deref() == Some(name) || root.own_pool() == name
}

fn roots() -> Outcome<Vec<DockerRoot>> {
    docker_roots::find().map_err(|e| Failure::failed("cannot read the Docker root").because(e))
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
