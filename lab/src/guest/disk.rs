//! Small disks and file systems for tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::run::Cmd;
use super::sys::{self, PREFIX};

/// mkfs of a large scratch disk on a slow lane.
const MKFS: Duration = Duration::from_secs(180);

/// A loop device on a sparse file, detached when dropped.
#[derive(Debug)]
pub struct LoopDisk {
    device: PathBuf,
    file: PathBuf,
}

impl LoopDisk {
    /// Makes the file with `bytes` bytes, all hole, and attaches it. The file stays when the disk is dropped.
    ///
    /// # Errors
    /// When the file exists, is not below something named `dmpool-test-*` (nothing would sweep it), or losetup fails.
    pub fn create(file: &Path, bytes: u64) -> Result<Self> {
        ensure!(file.to_string_lossy().contains(PREFIX), "{} is not named {PREFIX}*", file.display());
        fs::File::create_new(file)
            .and_then(|new| new.set_len(bytes))
            .with_context(|| format!("cannot make {}", file.display()))?;
        Self::attach(file)
    }

    /// Attaches a file that is there.
    ///
    /// # Errors
    /// When losetup fails.
    pub fn attach(file: &Path) -> Result<Self> {
        let ran = Cmd::new("losetup").args(["--find", "--show"]).arg(file).run().checked()?;
        Ok(Self { device: ran.stdout.trim().into(), file: file.into() })
    }

    /// `/dev/loopN`.
    #[must_use]
    pub fn device(&self) -> &Path {
        &self.device
    }

    /// The backing file.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Gives the file `bytes` bytes and tells the loop device (`losetup -c`).
    ///
    /// # Errors
    /// When either fails.
    pub fn resize(&self, bytes: u64) -> Result<()> {
        fs::OpenOptions::new().write(true).open(&self.file)?.set_len(bytes)?;
        Cmd::new("losetup").arg("-c").arg(&self.device).run().checked()?;
        Ok(())
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        // What BLKROSET has set stays with the number, and would be the next file's.
        let _ = Cmd::new("blockdev").arg("--setrw").arg(&self.device).run();
        let _ = Cmd::new("losetup").arg("-d").arg(&self.device).run();
    }
}

/// A file system type that tests use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// ext4; files up to 16 TiB minus one block.
    Ext4,
    /// XFS; needs 300 MiB at least. CentOS 7's default.
    Xfs,
}

impl Kind {
    /// The kernel's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        }
    }

    /// Makes a file system on `device`, over whatever is there.
    ///
    /// # Errors
    /// When mkfs fails.
    pub fn format(self, device: &Path) -> Result<()> {
        // No discard and lazy tables: a 400 GB sparse disk stays sparse and is done at once.
        let args: &[&str] = match self {
            Self::Ext4 => &["-q", "-F", "-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1"],
            Self::Xfs => &["-q", "-f", "-K"],
        };
        Cmd::new(format!("mkfs.{}", self.name())).args(args).arg(device).limit(MKFS).run().checked()?;
        sys::settle();
        Ok(())
    }
}

/// A mounted file system, unmounted when dropped (lazily if it is busy).
#[derive(Debug)]
pub struct Mounted {
    dir: PathBuf,
}

impl Mounted {
    /// Formats `device` and mounts it on `dir`, which is made if missing. Nothing writes to it by itself afterwards: no
    /// thread of ext4 fills its tables, and what mounting wrote is on the device.
    ///
    /// # Errors
    /// When mkfs or mount fails.
    pub fn format(kind: Kind, device: &Path, dir: &Path) -> Result<Self> {
        kind.format(device)?;
        let options = match kind {
            Kind::Ext4 => "noinit_itable",
            Kind::Xfs => "defaults",
        };
        let mounted = Self::mount(device, dir, options)?;
        nix::unistd::syncfs(fs::File::open(dir)?).with_context(|| format!("cannot sync {}", dir.display()))?;
        Ok(mounted)
    }

    /// Mounts what is on `device`, with mount's `options`.
    ///
    /// # Errors
    /// When mount fails.
    pub fn mount(device: &Path, dir: &Path, options: &str) -> Result<Self> {
        Self::mount_any(&["-o", options], device, dir)
    }

    /// A tmpfs of `bytes` bytes.
    ///
    /// # Errors
    /// When mount fails.
    pub fn tmpfs(dir: &Path, bytes: u64) -> Result<Self> {
        let options = format!("size={bytes},mode=0755");
        Self::mount_any(&["-t", "tmpfs", "-o", &options], Path::new("tmpfs"), dir)
    }

    /// A folder of the host that the guest runs on, empty, gone with the guest; nothing where the kernel is not user mode
    /// Linux.
    ///
    /// # Errors
    /// When mount fails.
    pub fn hostfs(dir: &Path) -> Result<Option<Self>> {
        let words = fs::read_to_string("/proc/cmdline").context("cannot read /proc/cmdline")?;
        let Some(guest) = words.split_ascii_whitespace().find_map(|w| w.strip_prefix("uml_dir=")) else {
            return Ok(None);
        };
        let mount = |folder: &str| Self::mount_any(&["-t", "hostfs", "-o", folder], Path::new("none"), dir);
        let name = format!("{PREFIX}hostfs-{}", std::process::id());
        let all = mount(guest)?;
        fs::create_dir(all.dir().join(&name)).with_context(|| format!("cannot make {name} on the host"))?;
        all.unmount()?;
        mount(&format!("{guest}/{name}")).map(Some)
    }

    /// An overlay whose changes go to new folders in `base`.
    ///
    /// # Errors
    /// When a folder cannot be made, or mount fails.
    pub fn overlay(base: &Path, dir: &Path) -> Result<Self> {
        let folders = ["lower", "upper", "work"].map(|name| base.join(name));
        for folder in &folders {
            fs::create_dir(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let [lower, upper, work] = folders.map(|folder| folder.display().to_string());
        let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
        Self::mount_any(&["-t", "overlay", "-o", &options], Path::new("overlay"), dir)
    }

    fn mount_any(options: &[&str], source: &Path, dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        Cmd::new("mount").args(options).arg(source).arg(dir).run().checked()?;
        Ok(Self { dir: dir.into() })
    }

    /// Where it is mounted.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes it read-only, or writable again.
    ///
    /// # Errors
    /// When mount refuses, as with files open for writing.
    pub fn set_read_only(&self, read_only: bool) -> Result<()> {
        let options = if read_only { "remount,ro" } else { "remount,rw" };
        Cmd::new("mount").args(["-o", options]).arg(&self.dir).run().checked()?;
        Ok(())
    }

    /// Unmounts it now, and tells when that fails.
    ///
    /// # Errors
    /// When it is busy; then it stays mounted.
    pub fn unmount(self) -> Result<()> {
        let ran = Cmd::new("umount").arg(&self.dir).run();
        // The drop would unmount lazily what the caller was just told is busy.
        std::mem::forget(self);
        ran.checked().map(drop)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if !Cmd::new("umount").arg(&self.dir).run().ok() {
            let _ = Cmd::new("umount").arg("-l").arg(&self.dir).run();
        }
    }
}

/// Writes zeroes into a file until its file system is full, and gives the file back (delete it to make room).
///
/// # Errors
/// When the file cannot be made, or writing ends with anything but "no space".
pub fn fill(dir: &Path) -> Result<PathBuf> {
    use std::io::Write;
    let path = dir.join(format!("{PREFIX}filler"));
    let mut file = fs::File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    for size in [1 << 20, 4096] {
        let zeroes = vec![0; size];
        loop {
            match file.write_all(&zeroes).and_then(|()| file.sync_data()) {
                Ok(()) => {}
                Err(e) if e.kind() == std::io::ErrorKind::StorageFull => break,
                Err(e) => return Err(e).with_context(|| format!("cannot fill {}", dir.display())),
            }
        }
    }
    Ok(path)
}
