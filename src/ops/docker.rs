//! Which Docker root is meant, and what to say of one that has no pool.

use std::path::Path;

use crate::engine::docker_root::DockerRoot;
use crate::engine::driver::{self, Driver};
use crate::engine::roots;
use crate::error::{Failure, Kind, Outcome};
use crate::ops::State;

/// Returns the Docker roots of the machine, and the one that was named, each once.
///
/// # Errors
/// When one of them cannot be read.
pub fn roots(state: &State) -> Outcome<Vec<DockerRoot>> {
    let mut all: Vec<DockerRoot> = match &state.docker_root {
        Some(path) => vec![at(path)?],
        None => Vec::new(),
    };
    let found = roots::find().map_err(|e| Failure::failed("cannot read the Docker root").because(e))?;
    add(&mut all, found);
    Ok(all)
}

/// Adds roots to others, each once.
pub fn add(roots: &mut Vec<DockerRoot>, more: Vec<DockerRoot>) {
    for root in more {
        if roots.iter().all(|other| other.path != root.path) {
            roots.push(root);
        }
    }
}

/// Returns the root that `docker` means: the one that was named; else the one a daemon runs on; else the one the next
/// daemon will; else one that was left behind.
///
/// # Errors
/// Refused when there is none; a usage error when several daemons run.
pub fn chosen(state: &State) -> Outcome<DockerRoot> {
    if let Some(path) = &state.docker_root {
        return at(path);
    }
    let mut all = roots(state)?;
    let best = all.iter().map(|root| root.standing).min();
    all.retain(|root| Some(root.standing) == best);
    match all.as_slice() {
        [only] => Ok(only.clone()),
        [] => Err(without_a_pool().unwrap_or_else(|| {
            Failure::refused("there is no Docker root with a devicemapper pool here")
                .fact(
                    "found",
                    "none of a running dockerd, none in its unit or /etc/docker/daemon.json, none in /var/lib/docker",
                )
                .next("dmpool status --root DIR    when it is elsewhere")
        })),
        [first, ..] => {
            let paths: Vec<_> = all.iter().map(|r| r.path.display().to_string()).collect();
            Err(Failure::new(Kind::Usage, "there are several Docker roots: name one by its path")
                .fact("found", paths.join(", "))
                .next(format!("dmpool status {}", crate::process::quote(&first.path.to_string_lossy()))))
        }
    }
}

/// Returns the root at a path.
///
/// # Errors
/// Refused when it cannot be read, or no devicemapper driver ever ran there: with the driver that did.
pub fn at(path: &Path) -> Outcome<DockerRoot> {
    let found = roots::at(path).map_err(|e| {
        Failure::refused(format!("cannot read the Docker root `{}`", path.display()))
            .next("dmpool list    shows every pool here")
            .because(e)
    })?;
    found.ok_or_else(|| {
        let drivers = driver::at(path).unwrap_or_default();
        of_other_drivers(path, &drivers).unwrap_or_else(|| {
            Failure::refused(format!("`{}` is no Docker root with a devicemapper pool", path.display()))
                .fact("needed", format!("{}/devicemapper", path.display()))
                .next("dmpool list    shows every pool here")
        })
    })
}

/// Returns what to say when the machine's Docker keeps its layers otherwise than in a thin pool; nothing when there is no
/// Docker root at all.
pub fn without_a_pool() -> Option<Failure> {
    let path = roots::in_use();
    of_other_drivers(&path, &driver::at(&path).ok()?)
}

fn of_other_drivers(path: &Path, drivers: &[Driver]) -> Option<Failure> {
    let first = *drivers.iter().find(|driver| **driver != Driver::Devicemapper)?;
    let names: Vec<_> = drivers.iter().map(|driver| format!("{driver}/")).collect();
    let place = crate::process::quote(&path.to_string_lossy());
    let next = match first {
        Driver::Btrfs => format!("btrfs filesystem usage {place}    says how full it is"),
        Driver::Zfs => format!("zfs list    and df -h {place}    say how full it is"),
        _ => format!("df -h {place}    and docker system df    say how full it is"),
    };
    Some(
        Failure::refused(format!(
            "`{}` is a Docker root of the {first} driver, which keeps its layers {}: there is no thin pool",
            path.display(),
            kept(first)
        ))
        .fact("found", names.join(", "))
        .next(next),
    )
}

/// Where a driver keeps layers, in a few words.
const fn kept(driver: Driver) -> &'static str {
    match driver {
        Driver::Devicemapper => "in a thin pool",
        Driver::Btrfs => "in subvolumes of the file system",
        Driver::Zfs => "in data sets of a zpool",
        Driver::Overlay2 | Driver::Overlay | Driver::FuseOverlayfs | Driver::Aufs | Driver::Vfs => {
            "as files of the file system"
        }
    }
}
