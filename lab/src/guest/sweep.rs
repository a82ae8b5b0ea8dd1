//! Nothing stays behind: everything a test made is named `dmpool-test-*`, and goes when its [`Sweep`] does.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::run::Cmd;
use super::sys::{self, PREFIX};

/// Set (to anything) by `cargo lab --keep`: the wreck of a failed test stays to be looked at.
pub const KEEP: &str = "LAB_KEEP";

/// How long one clean-up step may take: a suspended device would hold it for ever.
const STEP: Duration = Duration::from_secs(20);

/// The scope of one test: hands out names and directories, and sweeps when dropped.
#[derive(Debug)]
pub struct Sweep {
    dir: PathBuf,
}

impl Sweep {
    /// Sweeps what an earlier test left, then makes a directory for this one under `/var/tmp`.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn new() -> Result<Self> {
        Self::under(Path::new("/var/tmp"))
    }

    /// Likewise with the directory under `base`, for a test that needs it on a certain file system.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn under(base: &Path) -> Result<Self> {
        sweep();
        let dir = base.join(format!("{PREFIX}{}", std::process::id()));
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        Ok(Self { dir })
    }

    /// `dmpool-test-WHAT`: a name for a pool, a volume or a dm device.
    #[must_use]
    pub fn name(&self, what: &str) -> String {
        format!("{PREFIX}{what}")
    }

    /// The test's own directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A path in the test's own directory; nothing is made there.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A fresh empty directory in the test's own one, as for a mount point.
    ///
    /// # Errors
    /// When it cannot be made, or is there already.
    pub fn subdir(&self, name: &str) -> Result<PathBuf> {
        let dir = self.dir.join(name);
        fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        Ok(dir)
    }
}

impl Drop for Sweep {
    fn drop(&mut self) {
        if std::thread::panicking() && std::env::var_os(KEEP).is_some() {
            return;
        }
        sweep();
        // What is still mounted in there must not be deleted through the mount.
        if !leftovers().iter().any(|left| left.starts_with("mount ")) {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// Everything named `dmpool-test-*` that is there: `mount DIR`, `dm NAME`, `loop DEVICE FILE`, one each.
#[must_use]
pub fn leftovers() -> Vec<String> {
    let mut left = Vec::new();
    left.extend(test_mounts().iter().map(|point| format!("mount {}", point.display())));
    left.extend(test_devices().iter().map(|name| format!("dm {name}")));
    left.extend(test_loops().iter().map(|l| format!("loop {} {}", l.device.display(), l.file)));
    left
}

/// Removes the leftovers, mounts first, then dm devices from the top down, then loop devices; what would not go stays in
/// [`leftovers`].
pub fn sweep() {
    // A suspended device holds every umount and every remove for ever: resumed first.
    for name in test_devices() {
        let _ = sys::dmsetup(["resume", &name]).limit(STEP).run();
    }
    for point in test_mounts().iter().rev() {
        let plain = Cmd::new("umount").arg(point).limit(STEP).run();
        if !plain.ok() {
            let _ = Cmd::new("umount").arg("-l").arg(point).limit(STEP).run();
        }
    }
    // A device goes once nothing stands on it, so every pass frees the next layer; --retry outlasts udev's probes.
    let mut before = usize::MAX;
    while test_devices().len() < before && before > 0 {
        let names = test_devices();
        before = names.len();
        for name in &names {
            let _ = sys::dmsetup(["remove", name]).limit(STEP).run();
        }
    }
    for name in test_devices() {
        let _ = sys::dmsetup(["remove", "--retry", &name]).limit(STEP).run();
    }
    for device in test_loops() {
        let _ = Cmd::new("losetup").arg("-d").arg(&device.device).limit(STEP).run();
    }
}

fn test_mounts() -> Vec<PathBuf> {
    let mounts = sys::mounts().unwrap_or_default();
    let ours = |text: &str| text.contains(PREFIX);
    mounts.into_iter().filter(|m| ours(&m.source) || ours(&m.point.to_string_lossy())).map(|m| m.point).collect()
}

fn test_devices() -> Vec<String> {
    let mut names = sys::dm_names().unwrap_or_default();
    names.retain(|name| name.starts_with(PREFIX));
    names
}

fn test_loops() -> Vec<sys::Loop> {
    let mut loops = sys::loops().unwrap_or_default();
    loops.retain(|l| l.file.contains(PREFIX));
    loops
}
