//! Whether overlay2 can stand where devicemapper's root is.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use crate::engine::docker_objects::Objects;
use crate::engine::driver::Driver;
use crate::engine::version::Version;
use crate::error::{Failure, Outcome};
use crate::kernel::folder::Folder;
use crate::kernel::fs::{FsFacts, nameless};
use crate::kernel::mounts::{self, Mount};
use crate::ops::contents::archive::DEFAULT;
use crate::ops::filesystem::in_kernel;
use crate::process::quote;
use crate::units::Bytes;

/// File systems on which Docker's overlay2 was seen to run on.
const KNOWN: [&str; 2] = ["ext4", "xfs"];
/// What overlay2 makes before it has a layer.
const LEFTOVERS: [&str; 3] = ["l", "staging", "backingFsBlockDev"];
/// The first Docker that has it, the first that looks what the kernel can do, and the kernel that those in between ask for.
const FIRST: Version = Version::new(1, 12);
const TRIES: Version = Version::new(17, 12);
const NEEDED: Version = Version::new(4, 0);
/// A cache, by layers that overlay2 does not have.
const BUILDS: &str = "buildkit";

/// What was found out of it.
#[derive(Debug)]
pub(in crate::ops) struct Ground {
    file_system: Result<FsFacts, String>,
    /// Whether the kernel has overlayfs.
    overlay: Result<(), String>,
    /// Whether a listing says what each name is, without which overlayfs does not tell deletions from files.
    kinds: Result<bool, String>,
    /// Whether files can have the attributes that overlayfs needs.
    attributes: Result<(), String>,
    /// What overlay2 has there already.
    taken: Option<String>,
    /// What cannot be renamed, or not to there, each a sentence.
    fixed: Vec<String>,
    /// What is set aside, by name in the root.
    pub(in crate::ops) aside: Vec<PathBuf>,
}

impl Ground {
    pub(in crate::ops) fn look(objects: &Objects) -> Self {
        let root = &objects.path;
        let (taken, aside) = in_the_way(objects);
        Self {
            file_system: FsFacts::of(root).map_err(|e| format!("{e:#}")),
            overlay: in_kernel("overlay"),
            kinds: Folder::open(root).and_then(|folder| folder.tells_kinds()).map_err(|e| e.to_string()),
            attributes: attributes(root),
            taken,
            fixed: fixed(root, &mounts::own().unwrap_or_default()),
            aside,
        }
    }

    /// Returns what overlay2 has there already, as a sentence goes on.
    pub(in crate::ops) fn taken(&self) -> Option<&str> {
        self.taken.as_deref()
    }

    /// Refuses where overlay2 cannot run, or has run.
    pub(in crate::ops) fn may_have_overlay2(&self, root: &Path, refuse: &dyn Fn(String) -> Failure) -> Outcome<()> {
        if let Some(taken) = &self.taken {
            return Err(refuse("overlay2 has something there already, which Docker would show instead".to_owned())
                .fact("found", taken)
                .next("dmpool rescue images    # shows what each driver has; what overlay2 has goes only where nobody needs it, with Docker on overlay2:\ndocker rm NAME\ndocker rmi NAME"));
        }
        if !self.fixed.is_empty() {
            let failure = refuse("what overlay2 has is put in its place by a rename, which cannot be done".to_owned());
            return Err(self.fixed.iter().fold(failure, |failure, found| failure.fact("found", found)).next(
                "put a plain directory in its place (with Docker stopped, when anything is in it), then run this again",
            ));
        }
        has_no_default_acl(root, refuse)?;
        self.overlay.as_ref().map_err(|why| {
            refuse("the kernel has no overlayfs".to_owned())
                .fact("found", why)
                .next("modprobe overlay    # says why not")
        })?;
        let file_system = self
            .file_system
            .as_ref()
            .map_err(|why| refuse("its file system cannot be looked at".to_owned()).fact("found", why))?;
        let found = format!("{} at {}", file_system.fs_type, file_system.mount_point.display());
        if !KNOWN.contains(&file_system.fs_type.as_str()) {
            return Err(refuse("overlay2 needs XFS or ext4 beneath".to_owned()).fact("found", found));
        }
        if self.kinds != Ok(true) {
            return Err(refuse("its file system does not say in a listing what each name is".to_owned())
                .fact("found", format!("{found}: an XFS that was made with ftype=0 does not, and cannot learn it"))
                .next(
                    "xfs_info shows ftype; a new file system for Docker's root, made with mkfs.xfs -n ftype=1, has it",
                ));
        }
        self.attributes.as_ref().map_err(|why| {
            refuse("files there cannot have the attributes that overlayfs needs".to_owned())
                .fact("found", format!("{found}: {why}"))
        })?;
        Ok(())
    }

    /// Refuses what does not fit.
    pub(in crate::ops) fn has_room(&self, bytes: u64, entries: u64, refuse: &dyn Fn(String) -> Failure) -> Outcome<()> {
        let Ok(file_system) = &self.file_system else { return Ok(()) };
        let place = file_system.mount_point.display();
        let needed = Bytes::new(bytes);
        if needed > file_system.available {
            return Err(refuse(format!("the file system at {place} has too little space for a copy"))
                .fact("needed", needed.human())
                .fact("free", file_system.available.human())
                .next("remove what is not needed: docker system df shows it"));
        }
        match file_system.free_inodes {
            Some(free) if free < entries => {
                Err(refuse(format!("the file system at {place} has too few inodes for a copy"))
                    .fact("needed", entries.to_string())
                    .fact("free", free.to_string()))
            }
            _ => Ok(()),
        }
    }
}

/// Refuses a root in which whatever is made gets an ACL.
pub(in crate::ops) fn has_no_default_acl(root: &Path, refuse: &dyn Fn(String) -> Failure) -> Outcome<()> {
    if !matches!(xattr::get(root, DEFAULT), Ok(Some(_))) {
        return Ok(());
    }
    let root = quote(&root.to_string_lossy());
    Err(refuse("the root has a default ACL, which every file of a copy would get".to_owned())
        .fact("found", format!("{DEFAULT} of {root}"))
        .next(format!("setfacl -k {root}    # removes it; the ACLs of what is there stay as they are")))
}

/// What says which Docker shall run on overlay2, and on which kernel.
#[derive(Debug)]
pub(in crate::ops) struct Host {
    /// Its version, when that is known exactly.
    pub(in crate::ops) docker: Option<Version>,
    /// The kernel's release; nothing when it does not say.
    pub(in crate::ops) kernel: String,
    /// Whether Docker will be told not to look at the kernel's version.
    pub(in crate::ops) is_told: bool,
}

impl Host {
    /// Refuses a Docker that does not start with overlay2. The driver is there from 1.12 on, and asks for a kernel 4.0; from 17.12 on it
    /// tries whether the kernel can do it (`Init`, daemon/graphdriver/overlay2/overlay.go).
    pub(in crate::ops) fn has_overlay2(&self, refuse: &dyn Fn(String) -> Failure) -> Outcome<()> {
        let Some(docker) = self.docker else { return Ok(()) };
        let next = "update Docker to 17.12 or later first, which still has devicemapper up to 24, then run this again";
        if docker < FIRST {
            return Err(refuse(format!("Docker {docker} has no overlay2")).next(next));
        }
        let major = Version::parse(&self.kernel);
        if docker < TRIES && !self.is_told && major.is_some_and(|kernel| kernel < NEEDED) {
            return Err(refuse(format!("Docker {docker} does not start with overlay2 on a kernel before 4.0"))
                .fact("found", format!("Linux {}", self.kernel))
                .next(next));
        }
        Ok(())
    }
}

/// Returns what of the places of overlay2 is no plain directory of the root's own mount.
fn fixed(root: &Path, mounts: &[Mount]) -> Vec<String> {
    let name = Driver::Overlay2.name();
    let places = [PathBuf::from(name), PathBuf::from("image"), Path::new("image").join(name), PathBuf::from(BUILDS)];
    let paths = places.iter().map(|place| root.join(place));
    let found = paths.filter_map(|path| {
        let found = path.symlink_metadata().ok()?;
        let what = if found.is_symlink() {
            "a symbolic link"
        } else if !found.is_dir() {
            "no directory"
        } else if mounts.iter().any(|mount| mount.mount_point == path) {
            "a mount point"
        } else {
            return None;
        };
        Some(format!("{} is {what}", path.display()))
    });
    found.collect()
}

fn attributes(root: &Path) -> Result<(), String> {
    let file = nameless(root).map_err(|e| format!("{e:#}"))?;
    ["trusted.overlay.opaque", "user.dmpool"].into_iter().try_for_each(|key| {
        use xattr::FileExt;
        file.set_xattr(key, b"y").map_err(|e| format!("{key}: {e}"))
    })
}

/// Returns what overlay2 has in the root, or else what of it is empty and set aside.
fn in_the_way(objects: &Objects) -> (Option<String>, Vec<PathBuf>) {
    let name = Driver::Overlay2.name();
    let is_there = |path: &Path| objects.path.join(path).symlink_metadata().is_ok();
    if let Some(store) = objects.stores.iter().find(|store| store.driver == name) {
        let (images, containers) = (store.images.len(), store.mounts.len());
        return (
            Some(format!(
                "{images} images and {containers} containers in {}",
                objects.path.join("image").join(name).display()
            )),
            Vec::new(),
        );
    }
    let folder = objects.path.join(name);
    let layers = fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let layers = layers.filter(|name| !LEFTOVERS.iter().any(|empty| name == OsStr::new(empty))).count();
    if layers > 0 {
        return (Some(format!("{layers} layers in {}", folder.display())), Vec::new());
    }
    let aside = [PathBuf::from(name), Path::new("image").join(name), PathBuf::from(BUILDS)];
    (None, aside.into_iter().filter(|path| is_there(path)).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_docker_that_does_not_start_with_overlay2_is_told() {
        let takes = |docker: Option<Version>, kernel: &str, is_told: bool| {
            let host = Host { docker, kernel: kernel.to_owned(), is_told };
            host.has_overlay2(&|why| Failure::refused(why)).is_ok()
        };
        let (old, new) = (Some(Version::new(1, 13)), Some(Version::new(17, 12)));
        assert!(!takes(Some(Version::new(1, 11)), "6.1.0", true));
        assert!(takes(Some(Version::new(1, 12)), "4.0.0", false));
        assert!(!takes(old, "3.10.0-1160.el7.x86_64", false) && takes(old, "3.10.0-1160.el7.x86_64", true));
        assert!(takes(new, "3.10.0-1160.el7.x86_64", false) && takes(None, "3.10.0", false) && takes(old, "", false));
    }

    #[test]
    fn what_cannot_be_renamed_is_told() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path();
        for name in ["overlay2", "image", "elsewhere"] {
            fs::create_dir(root.join(name)).unwrap();
        }
        assert!(fixed(root, &[]).is_empty());
        std::os::unix::fs::symlink("elsewhere", root.join("buildkit")).unwrap();
        fs::write(root.join("image/overlay2"), "").unwrap();
        let line = format!("36 35 8:1 / {} rw - ext4 /dev/sda1 rw", root.join("overlay2").display());
        let found = fixed(root, &mounts::parse(line.as_bytes())).join("\n");
        for said in ["overlay2 is a mount point", "image/overlay2 is no directory", "buildkit is a symbolic link"] {
            assert!(found.contains(said), "{said}: {found}");
        }
    }
}
