//! Whether nobody changes a Docker root while it is saved, or made.

use std::path::Path;

use crate::engine::docker_objects::CONTAINERS;
use crate::engine::driver::Driver;
use crate::engine::roots;
use crate::error::{Failure, Outcome};
use crate::kernel::mounts::{self, MountSeen};
use crate::ops::daemon::containers::shims;
use crate::ops::daemon::stop_command;
use crate::process::quote;

/// How many mounts are named.
const NAMED: usize = 10;

/// Refuses a root on which Docker runs: what its containers write meanwhile would be half of it in the archive.
pub(super) fn docker_is_down(root: &Path, refuse: &dyn Fn(String) -> Failure) -> Outcome<()> {
    if roots::runs_on(root) {
        return Err(refuse("its Docker runs".to_owned()).next(stop_command(root)));
    }
    Ok(())
}

/// Refuses a root some of whose containers run or are mounted without Docker, in whatever mount namespace.
pub(super) fn no_container_runs(root: &Path, driver: Driver, refuse: &dyn Fn(String) -> Failure) -> Outcome<()> {
    if let Some((pid, comm)) = shims(root).first() {
        return Err(refuse("containers run, and no Docker daemon does".to_owned())
            .fact("found", format!("process {pid} ({comm})"))
            .next("start Docker, which finds them again, stop the containers, and stop Docker"));
    }
    let seen = mounts::everywhere().map_err(|e| refuse("what is mounted cannot be told".to_owned()).because(e))?;
    let seen: Vec<_> = seen.into_iter().filter(|seen| is_of_container(&seen.mount.mount_point, root, driver)).collect();
    let Some(first) = seen.first() else { return Ok(()) };
    let says = |seen: &MountSeen| {
        format!("{}, as {} (process {}) sees it", seen.mount.mount_point.display(), seen.comm, seen.pid)
    };
    let failure = refuse("files of containers are mounted, and may change meanwhile".to_owned());
    let failure = seen.iter().take(NAMED).fold(failure, |failure, seen| failure.fact("found", says(seen)));
    let more = seen.len().saturating_sub(NAMED);
    let failure = if more > 0 { failure.fact("found", format!("{more} more")) } else { failure };
    let place = quote(&first.mount.mount_point.to_string_lossy());
    Err(failure.next(if mounts::own_namespace().as_ref() == Some(&first.namespace) {
        format!("umount {place}    # when no container runs; else stop it first")
    } else {
        format!("nsenter -t {} -m umount {place}    # when no container runs; else stop it first", first.pid)
    }))
}

/// Whether a mount is of a container: of its layer, or what it has beside (`shm`, secrets). The driver mounts its own folder, too.
fn is_of_container(place: &Path, root: &Path, driver: Driver) -> bool {
    [driver.name(), CONTAINERS].iter().map(|name| root.join(name)).any(|home| place != home && place.starts_with(home))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn what_a_container_has_mounted_is_told_from_the_drivers_own() {
        let root = Path::new("/var/lib/docker");
        let is = |place: &str| is_of_container(&root.join(place), root, Driver::Overlay2);
        assert!(is("overlay2/aa/merged") && is("containers/aa/mounts/shm"));
        assert!(!is("overlay2") && !is("") && !is("volumes/db/_data") && !is("devicemapper/mnt/aa"));
        assert!(!is_of_container(Path::new("/var/lib/docker2/overlay2/aa"), root, Driver::Overlay2));
    }

    #[test]
    fn a_mount_in_another_mount_namespace_is_seen() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().canonicalize().unwrap();
        let shm = root.join("containers/aa/mounts/shm");
        std::fs::create_dir_all(&shm).unwrap();
        let refuse = |why: String| Failure::refused(why);
        no_container_runs(&root, Driver::Overlay2, &refuse).unwrap();
        let line = format!("mount -t tmpfs none {} && echo mounted && read line", shm.display());
        let Ok(mut other) = std::process::Command::new("unshare")
            .args(["-m", "sh", "-c", &line])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
        else {
            return;
        };
        let mut said = [0; 8];
        let is_mounted = std::io::Read::read_exact(&mut other.stdout.take().unwrap(), &mut said).is_ok();
        let found = no_container_runs(&root, Driver::Overlay2, &refuse);
        drop(other.stdin.take());
        other.wait().unwrap();
        // Where namespaces may not be made, there is none to be seen.
        if is_mounted {
            assert!(format!("{:?}", found.unwrap_err()).contains("mounts/shm, as "));
        }
    }
}
