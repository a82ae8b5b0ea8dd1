//! What a running Docker daemon does although nobody wrote it down: udev sync, deferred removal and deletion.
//!
//! A daemon tells these only when asked. Some can be concluded with certainty from what can be read; the others are
//! unknown, since Docker's defaults depend on its version.

use super::docker_root::{DockerRoot, Options};
use super::libdm;
use super::version::Version;

/// The first device-mapper driver in the kernel that can defer a removal (`determineDriverCapabilities`,
/// daemon/graphdriver/devmapper/deviceset.go).
const DRIVER_DEFERRED_REMOVAL: (u32, u32) = (4, 27);

/// The first Docker that defers where it can without being told to.
const BY_DEFAULT: Version = Version::new(17, 7);

impl DockerRoot {
    /// Returns whether the daemon synchronises with udev, when that is certain: one that cannot refuses to start, unless
    /// told to go on (`dm.override_udev_sync_check`).
    pub fn udev_sync(&self) -> Option<bool> {
        match &self.options {
            Options::Running(options) if options.override_udev_sync_check != Some(true) => Some(true),
            Options::Running(_) | Options::Configured(_) | Options::Unknown => None,
        }
    }

    /// Returns whether the daemon leaves the removal of a busy device to the kernel, when that is certain. `driver` is
    /// the version of the kernel's device-mapper driver (`DM_VERSION`), major and minor.
    pub fn deferred_removal(&self, driver: Option<(u32, u32)>) -> Option<bool> {
        let given = self.options.known()?.deferred_removal;
        given.or_else(|| self.deferred_by_default(driver))
    }

    /// Returns whether the daemon deletes a busy device later, when that is certain; `driver` as above.
    pub fn deferred_deletion(&self, driver: Option<(u32, u32)>) -> Option<bool> {
        let given = self.options.known()?.deferred_deletion;
        given.or_else(|| self.deferred_by_default(driver))
    }

    /// From Docker 17.07 on both are the default where kernel and libdevmapper can do it (moby#33698), before it neither is.
    fn deferred_by_default(&self, driver: Option<(u32, u32)>) -> Option<bool> {
        let in_kernel = driver.map(|version| version >= DRIVER_DEFERRED_REMOVAL);
        let in_library = self
            .library_version
            .as_deref()
            .and_then(libdm::version_numbers)
            .map(|version| version >= libdm::DEFERRED_REMOVAL);
        let version = self.version.as_ref();
        let is_default = version.is_some_and(|known| known.version >= BY_DEFAULT);
        let is_not = version.is_some_and(|known| known.exact && known.version < BY_DEFAULT);
        match (in_kernel, in_library) {
            (Some(false), _) | (_, Some(false)) => Some(false),
            _ if is_not => Some(false),
            (Some(true), Some(true)) if is_default => Some(true),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::engine::docker_root::Standing;
    use crate::engine::driver::Driver;
    use crate::engine::options::StorageOptions;
    use crate::engine::version::Known;

    fn root(options: Options, library: Option<&str>, is_new: bool) -> DockerRoot {
        DockerRoot {
            path: PathBuf::from("/var/lib/docker"),
            daemon: None,
            options,
            device_prefix: "docker-8:1-131073".to_owned(),
            data_file: None,
            metadata_file: None,
            base: None,
            device_set: None,
            transaction: None,
            standing: Standing::Running,
            next_options: Options::Unknown,
            storage_driver: None,
            starter: None,
            twice: Vec::new(),
            drivers: vec![Driver::Devicemapper],
            version: is_new.then(|| known(18, 6, false)),
            data_link: None,
            metadata_link: None,
            direct_lvm: None,
            library_version: library.map(str::to_owned),
            problems: Vec::new(),
        }
    }

    fn known(major: u16, minor: u16, exact: bool) -> Known {
        Known { version: Version::new(major, minor), exact, mark: "a test".to_owned() }
    }

    fn running(given: &[&str]) -> Options {
        Options::Running(StorageOptions::parse(given.iter().copied()))
    }

    const NEW: Option<&str> = Some("1.02.185 (2022-05-18)");

    #[test]
    fn a_running_daemon_has_udev_sync_unless_it_was_told_to_do_without() {
        assert_eq!(root(running(&[]), NEW, true).udev_sync(), Some(true));
        assert_eq!(root(running(&["dm.override_udev_sync_check=true"]), NEW, true).udev_sync(), None);
        assert_eq!(root(Options::Unknown, None, true).udev_sync(), None);
    }

    #[test]
    fn what_was_given_holds_and_the_default_only_where_the_version_is_certain() {
        let given = root(running(&["dm.use_deferred_removal=true", "dm.use_deferred_deletion=false"]), None, false);
        assert_eq!(given.deferred_removal(None), Some(true));
        assert_eq!(given.deferred_deletion(Some((4, 47))), Some(false));

        assert_eq!(root(running(&[]), NEW, true).deferred_removal(Some((4, 47))), Some(true));
        assert_eq!(root(running(&[]), NEW, true).deferred_removal(None), None);
        assert_eq!(root(running(&[]), None, true).deferred_removal(Some((4, 47))), None);
        assert_eq!(root(running(&[]), NEW, false).deferred_deletion(Some((4, 47))), None);
        assert_eq!(root(running(&[]), NEW, true).deferred_deletion(Some((4, 26))), Some(false));
        let old = Some("1.02.77 (2012-10-15)");
        assert_eq!(root(running(&[]), old, false).deferred_removal(Some((4, 37))), Some(false));
        assert_eq!(root(Options::Unknown, NEW, true).deferred_removal(Some((4, 26))), None);

        let centos_7 = DockerRoot { version: Some(known(1, 13, true)), ..root(running(&[]), NEW, false) };
        assert_eq!(centos_7.deferred_removal(Some((4, 37))), Some(false));
        let at_least = DockerRoot { version: Some(known(1, 12, false)), ..centos_7 };
        assert_eq!(at_least.deferred_removal(Some((4, 37))), None, "it may be a newer one");
    }
}
