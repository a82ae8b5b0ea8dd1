//! Which Docker root is meant, and what to say of one that has no pool.

use std::io::ErrorKind;
use std::path::Path;

use crate::engine::docker_root::{DockerRoot, Problem, Standing};
use crate::engine::driver::{self, Driver};
use crate::engine::roots::{self, Roots};
use crate::error::{Failure, Kind, Outcome};
use crate::kernel::{ask, mounts};
use crate::ops::State;

/// Returns the Docker roots of the machine, and the one that was named, each once.
///
/// # Errors
/// When the one that was named cannot be read; others are listed as such.
pub fn roots(state: &State) -> Outcome<Roots> {
    let mut all = Roots::default();
    if let Some(path) = &state.docker_root {
        all.add([at(path)?]);
    }
    let Roots { found, unreadable, awaited } = roots::find(&answers);
    all.add(found);
    all.unreadable = unreadable;
    all.awaited = awaited;
    Ok(all)
}

/// Whether a Docker root can be looked at: asked of a child, since what it lies on may hang; not when it is not there at all.
///
/// # Errors
/// In words: what the child did not do.
pub fn answers(root: &Path) -> Result<(), String> {
    if is_missing(root) { Ok(()) } else { ask::within_limit(|| roots::touch(root)) }
}

/// Whether a path can be seen not to be there without leaving the root file system, where dmpool's own files are.
fn is_missing(path: &Path) -> bool {
    let mounts = mounts::own().unwrap_or_default();
    if mounts::mount_of(&mounts, path).is_none_or(|mount| mount.mount_point != Path::new("/")) {
        return false;
    }
    let mut above: Vec<&Path> = path.ancestors().collect();
    above.reverse();
    for folder in above {
        match folder.symlink_metadata() {
            Ok(found) if found.is_dir() => {}
            Ok(_) => return false,
            Err(error) => return error.kind() == ErrorKind::NotFound,
        }
    }
    false
}

/// Returns the failure of a Docker root that cannot be opened.
pub fn unreadable(root: &Problem) -> Failure {
    let place = crate::process::quote(&root.path.to_string_lossy());
    Failure::refused(format!("cannot read the Docker root `{}`", root.path.display()))
        .fact("cause", &root.why)
        .next(format!("ls -ld {place} {place}/devicemapper    # shows what is in the way"))
}

/// Returns the root that `docker` means: the one that was named; else the one a daemon runs on; else the one the next
/// daemon will; else one that was left behind.
///
/// # Errors
/// Refused when there is none; a usage error when several daemons run.
pub fn chosen(state: &State) -> Outcome<DockerRoot> {
    match &state.docker_root {
        Some(path) => at(path),
        None => best(roots(state)?),
    }
}

/// Returns the pool that Docker is told of and has not met, where no root says more than that.
pub fn awaited(state: &State) -> Option<String> {
    let roots = roots(state).ok().filter(|_| state.docker_root.is_none())?;
    let is_left = roots.found.iter().all(|root| root.standing == Standing::Left);
    roots.awaited.filter(|_| is_left && roots.unreadable.is_empty()).map(|awaited| awaited.pool)
}

/// Returns the root that `docker` means to a command that is typed without `--root`, given what [`roots()`] has found; nothing
/// when it means none, or not one alone.
pub fn meant(roots: &Roots) -> Option<DockerRoot> {
    let mut roots = roots.clone();
    roots.found.retain(|root| root.standing != Standing::Named);
    best(roots).ok()
}

fn best(roots: Roots) -> Outcome<DockerRoot> {
    // A daemon with neither the usual PID file nor a socket of Docker's name is looked for when there is no other.
    let is_empty = roots.found.is_empty() && roots.unreadable.is_empty();
    let Roots { found: mut all, unreadable: bad, .. } = if is_empty { roots::find_all(&answers) } else { roots };
    if let (Some(root), true) = (bad.first(), all.iter().all(|root| root.standing == Standing::Left)) {
        return Err(unreadable(root));
    }
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
                .next("dmpool status --root DIR    # when it is elsewhere")
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
    let found = roots::at(path, &answers).map_err(|e| {
        Failure::refused(format!("cannot read the Docker root `{}`", path.display()))
            .next("dmpool list    # shows every pool here")
            .because(e)
    })?;
    found.ok_or_else(|| {
        let drivers = driver::at(path).unwrap_or_default();
        of_other_drivers(path, &drivers).unwrap_or_else(|| {
            Failure::refused(format!("`{}` is no Docker root with a devicemapper pool", path.display()))
                .fact("needed", format!("{}/devicemapper", path.display()))
                .next("dmpool list    # shows every pool here")
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
        Driver::Btrfs => format!("btrfs filesystem usage {place}    # says how full it is"),
        Driver::Zfs => format!("zfs list    # and df -h {place} say how full it is"),
        _ => format!("df -h {place}    # and docker system df say how full it is"),
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_seen_not_to_be_there_on_the_root_file_system_is_missing() {
        assert!(is_missing(Path::new("/no-such-folder-of-dmpools/docker")));
        for there_or_elsewhere in ["/", "/usr", "/proc/no-such-file", "/proc/self/no-such-file", "relative"] {
            assert!(!is_missing(Path::new(there_or_elsewhere)), "{there_or_elsewhere}");
        }
    }
}
