//! Changes to files that are on disk when the call returns: the file and the folder that names it.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

use crate::kernel::{Called, KernelError, is_gone, processes};
use crate::units::Bytes;

/// Makes a sparse file of that length that only root may use, and returns it open for reading and writing. Neither
/// overwrites nor follows anything that has the name already.
///
/// # Errors
/// EEXIST; EFBIG when the file system cannot hold a file that long; what else the kernel said. A file that could not
/// be given its length is removed again.
pub fn create_file_durably(path: &Path, length: Bytes) -> Result<File> {
    let context = || format!("making {}", path.display());
    let file = create_new(path, 0o600).with_context(context)?;
    let filled = || -> Result<()> {
        set_length(&file, path, length)?;
        file.sync_all().called("fsync", path.display())?;
        sync_dir(parent(path))
    };
    if let Err(e) = filled() {
        // The first cause is what is told.
        let _ = fs::remove_file(path);
        return Err(e).with_context(context);
    }
    Ok(file)
}

fn set_length(file: &File, path: &Path, length: Bytes) -> Result<(), KernelError> {
    // Past 2^63 std refuses without asking the kernel, which would say the same.
    let asked = if i64::try_from(length.get()).is_ok() { file.set_len(length.get()) } else { Err(Errno::EFBIG.into()) };
    asked.called("ftruncate", path.display())
}

fn create_new(path: &Path, mode: u32) -> Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(mode)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
        .called("open", path.display())?;
    // Whatever the umask took away.
    file.set_permissions(Permissions::from_mode(mode)).called("fchmod", path.display())?;
    Ok(file)
}

/// Makes a folder with that mode, and its parents where they are missing. Returns the folders that were made, deepest
/// last; the mode of one that was there is left alone.
///
/// # Errors
/// What the kernel said.
pub fn make_dir_durably(path: &Path, mode: u32) -> Result<Vec<PathBuf>> {
    let context = || format!("making the folder {}", path.display());
    let missing: Vec<&Path> = path
        .ancestors()
        .filter(|dir| !dir.as_os_str().is_empty())
        .take_while(|dir| dir.symlink_metadata().is_err_and(|e| is_gone(&e)))
        .collect();
    let mut made = Vec::new();
    for dir in missing.into_iter().rev() {
        match DirBuilder::new().mode(mode).create(dir) {
            Ok(()) => {}
            // Somebody else was quicker.
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists && dir.is_dir() => continue,
            Err(e) => return Err(e).called("mkdir", dir.display()).with_context(context),
        }
        fs::set_permissions(dir, Permissions::from_mode(mode)).called("chmod", dir.display()).with_context(context)?;
        sync_dir(dir).and_then(|()| sync_dir(parent(dir))).with_context(context)?;
        made.push(dir.to_owned());
    }
    Ok(made)
}

/// Makes one folder with that mode; its parent must be there, and nothing may have its name.
///
/// # Errors
/// EEXIST when something has the name; what else the kernel said.
pub fn make_dir(path: &Path, mode: u32) -> Result<()> {
    let context = || format!("making the folder {}", path.display());
    DirBuilder::new().mode(mode).create(path).called("mkdir", path.display()).with_context(context)?;
    settle_dir(path, mode).with_context(context)
}

/// Gives a folder its mode and makes it durable: the rest of [`make_dir`], when a death came in between.
///
/// # Errors
/// When the mode cannot be set, or a folder not synced.
pub fn settle_dir(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode)).called("chmod", path.display())?;
    sync_dir(path).and_then(|()| sync_dir(parent(path)))
}

/// Removes an empty folder. Returns whether there was one.
///
/// # Errors
/// ENOTEMPTY; what else the kernel said.
pub fn remove_dir_durably(path: &Path) -> Result<bool> {
    match fs::remove_dir(path) {
        Ok(()) => sync_dir(parent(path)).map(|()| true),
        Err(e) if is_gone(&e) => sync_if_there(parent(path)).map(|()| false),
        Err(e) => Err(e).called("rmdir", path.display()).with_context(|| format!("removing {}", path.display())),
    }
}

/// Reads a whole small file; nothing when it is not there.
///
/// # Errors
/// EFBIG when it is longer than `limit`, ELOOP when it is a symbolic link; what else the kernel said.
pub fn read_limited(path: &Path, limit: Bytes) -> Result<Option<Vec<u8>>> {
    let context = || format!("reading {}", path.display());
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path);
    let file = match opened {
        Ok(file) => file,
        Err(e) if is_gone(&e) => return Ok(None),
        Err(e) => return Err(e).called("open", path.display()).with_context(context),
    };
    // Room for a usual one: into an empty vector it would be read in bits of 32, 64, 128 bytes.
    let mut bytes = Vec::with_capacity(4096);
    let read = file.take(limit.get().saturating_add(1)).read_to_end(&mut bytes);
    let read = read.called("read", path.display()).with_context(context)?;
    if u64::try_from(read).is_ok_and(|read| read > limit.get()) {
        return Err(Errno::EFBIG).called("read", path.display()).with_context(context);
    }
    Ok(Some(bytes))
}

/// Opens a file of ours for reading and writing, by no symbolic link.
///
/// # Errors
/// ELOOP when it is a symbolic link; what else the kernel said.
pub fn open_existing(path: &Path) -> Result<File> {
    let opened = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOFOLLOW).open(path);
    opened.called("open", path.display()).with_context(|| format!("opening {}", path.display()))
}

/// Gives a file a smaller length. Only for taking back what [`extend_file`] did: who calls it has made sure that
/// nothing uses what goes.
///
/// # Errors
/// When that would lengthen it; what the kernel said.
pub fn shorten_file(file: &File, path: &Path, length: Bytes) -> Result<()> {
    let context = || format!("shortening {} to {length}", path.display());
    let had = file.metadata().called("fstat", path.display()).with_context(context)?.len();
    if length.get() > had {
        bail!("shortening {} to {length}: it has {had} bytes", path.display());
    }
    file.set_len(length.get()).called("ftruncate", path.display()).with_context(context)?;
    file.sync_all().called("fsync", path.display()).with_context(context)
}

/// Returns whether the file system of a folder can hold a file that long, by making one without a name.
/// Nothing where the kernel or the file system has no such files (before Linux 3.11).
///
/// # Errors
/// What the kernel said of the folder.
pub fn can_hold(folder: &Path, length: Bytes) -> Result<Option<bool>> {
    let context = || format!("trying a file of {length} in {}", folder.display());
    let opened = OpenOptions::new().read(true).write(true).custom_flags(libc::O_TMPFILE).mode(0o600).open(folder);
    let file = match opened {
        Ok(file) => file,
        Err(e) if matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR | libc::ENOENT | libc::EINVAL)) => {
            return Ok(None);
        }
        Err(e) => return Err(e).called("open", folder.display()).with_context(context),
    };
    match file.set_len(length.get()) {
        Ok(()) => Ok(Some(true)),
        Err(e) if matches!(e.raw_os_error(), Some(libc::EFBIG | libc::EINVAL)) => Ok(Some(false)),
        Err(e) => Err(e).called("ftruncate", folder.display()).with_context(context),
    }
}

/// Returns once the names in a folder are on disk.
///
/// # Errors
/// What the kernel said; EINVAL is none, it means that the file system keeps no folders to sync.
pub fn sync_dir(path: &Path) -> Result<()> {
    let context = || format!("syncing the folder {}", path.display());
    let dir = OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(path);
    let dir = dir.called("open", path.display()).with_context(context)?;
    match dir.sync_all() {
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => Ok(()),
        result => result.called("fsync", path.display()).with_context(context),
    }
}

/// Returns once everything that was written to the file system of a folder is on disk.
///
/// # Errors
/// What the kernel said; from 5.8 on also what an earlier write met.
pub fn sync_file_system(path: &Path) -> Result<()> {
    let context = || format!("syncing the file system of {}", path.display());
    let dir = OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(path);
    let dir = dir.called("open", path.display()).with_context(context)?;
    nix::unistd::syncfs(&dir).called("syncfs", path.display()).with_context(context)
}

/// Replaces a file's contents whole: after a power cut it has either the old bytes or the new ones.
///
/// # Errors
/// What the kernel said (ENOSPC, EROFS); the file then has its old contents.
pub fn write_replace(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    write_replace_with(path, bytes, mode, |_| Ok(()))
}

/// The same, with something that must be done with the file, open for reading and writing, before anybody can find it
/// under its name. Returns what that returned.
///
/// # Errors
/// As [`write_replace`]; what it failed with.
pub fn write_replace_with<T>(
    path: &Path,
    bytes: &[u8],
    mode: u32,
    before: impl FnOnce(File) -> Result<T>,
) -> Result<T> {
    let context = || format!("writing {}", path.display());
    let name = path.file_name().with_context(|| format!("{} names no file", path.display()))?;
    let mut beside = std::ffi::OsString::from(".");
    beside.push(name);
    beside.push(format!(".{}.new", std::process::id()));
    let beside = path.with_file_name(beside);
    let written = || -> Result<T> {
        sweep_replacements(parent(path));
        // Left by a process that died and had our number.
        match fs::remove_file(&beside) {
            Err(e) if !is_gone(&e) => return Err(e).called("unlink", beside.display()).map_err(Into::into),
            _ => {}
        }
        let mut file = create_new(&beside, mode)?;
        file.write_all(bytes).called("write", beside.display())?;
        file.sync_all().called("fsync", beside.display())?;
        let done = before(file)?;
        fs::rename(&beside, path).called("rename", path.display())?;
        Ok(done)
    };
    let done = written().inspect_err(|_| drop(fs::remove_file(&beside))).with_context(context)?;
    sync_dir(parent(path)).with_context(context)?;
    Ok(done)
}

/// Removes a file. Returns whether there was one.
///
/// # Errors
/// What the kernel said.
pub fn remove_durably(path: &Path) -> Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => sync_dir(parent(path)).map(|()| true),
        Err(e) if is_gone(&e) => sync_if_there(parent(path)).map(|()| false),
        Err(e) => Err(e).called("unlink", path.display()).with_context(|| format!("removing {}", path.display())),
    }
}

/// Gives a file real space for its first `length` bytes, and at least that length; what it holds stays.
///
/// Where the file system cannot (EOPNOTSUPP), zeros are written from the file's end on: then space for holes before
/// its end cannot be had, and such a file is refused.
///
/// # Errors
/// ENOSPC when the space is not there.
pub fn reserve(file: &File, path: &Path, length: Bytes) -> Result<()> {
    let context = || format!("reserving {length} for {}", path.display());
    let wanted = i64::try_from(length.get()).with_context(context)?;
    loop {
        match fallocate(file, FallocateFlags::empty(), 0, wanted) {
            Ok(()) => break,
            Err(Errno::EINTR) => {}
            Err(Errno::EOPNOTSUPP) => {
                fill_with_zeros(file, path, length).with_context(context)?;
                break;
            }
            Err(errno) => return Err(errno).called("fallocate", path.display()).with_context(context),
        }
    }
    file.sync_all().called("fsync", path.display()).with_context(context)
}

fn fill_with_zeros(file: &File, path: &Path, length: Bytes) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let metadata = file.metadata().called("fstat", path.display())?;
    if metadata.blocks().saturating_mul(512) < metadata.len() {
        return Err(Errno::EOPNOTSUPP).called("fallocate", path.display()).context("the file has holes");
    }
    let zeros = [0_u8; 64 * 1024];
    let mut at = metadata.len();
    while at < length.get() {
        let left = usize::try_from(length.get() - at).unwrap_or(usize::MAX);
        let chunk = zeros.get(..left.min(zeros.len())).unwrap_or(&zeros);
        file.write_all_at(chunk, at).called("pwrite", path.display())?;
        at += u64::try_from(chunk.len())?;
    }
    Ok(())
}

/// Gives a file a greater length, without space for it. Returns the length it had.
///
/// # Errors
/// When that would shorten it; EFBIG when the file system cannot hold a file that long.
pub fn extend_file(file: &File, path: &Path, length: Bytes) -> Result<Bytes> {
    let context = || format!("extending {} to {length}", path.display());
    let had = file.metadata().called("fstat", path.display()).with_context(context)?.len();
    if length.get() < had {
        bail!("extending {} to {length}: it has {had} bytes, and is never shortened", path.display());
    }
    set_length(file, path, length).with_context(context)?;
    file.sync_all().called("fsync", path.display()).with_context(context)?;
    Ok(Bytes::new(had))
}

/// Syncs a folder that something is gone from: who removed it may have died before the sync.
fn sync_if_there(path: &Path) -> Result<()> {
    if path.is_dir() { sync_dir(path) } else { Ok(()) }
}

/// Removes what replacements that died left in a folder: `.NAME.PID.new` of a process that is no more.
fn sweep_replacements(folder: &Path) {
    // What cannot be listed or removed is in nobody's way.
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let words = name.to_str().and_then(|n| n.strip_prefix('.')).and_then(|n| n.strip_suffix(".new"));
        let pid = words.and_then(|n| n.rsplit_once('.')).and_then(|(_, pid)| pid.parse().ok());
        if pid.is_some_and(|pid| !processes::is_alive(pid)) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;
    use crate::kernel::errno_of;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn a_new_file_is_sparse_private_and_never_in_place_of_another() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let file = create_file_durably(&path, Bytes::GIB).unwrap();
        let metadata = file.metadata().unwrap();
        assert_eq!((metadata.len(), metadata.blocks(), mode(&path)), (1 << 30, 0, 0o600));
        let error = create_file_durably(&path, Bytes::MIB).unwrap_err();
        assert_eq!(errno_of(&error), Some(Errno::EEXIST));
        assert_eq!(fs::metadata(&path).unwrap().len(), 1 << 30);
        let link = dir.path().join("link");
        symlink(dir.path().join("nowhere"), &link).unwrap();
        assert_eq!(errno_of(&create_file_durably(&link, Bytes::MIB).unwrap_err()), Some(Errno::EEXIST));
    }

    #[test]
    fn a_file_that_cannot_have_its_length_is_not_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let error = create_file_durably(&path, Bytes::new(u64::MAX)).unwrap_err();
        assert_eq!(errno_of(&error), Some(Errno::EFBIG));
        assert!(!path.exists());
    }

    #[test]
    fn a_file_is_replaced_whole_and_nothing_stays_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pool.toml");
        write_replace(&path, b"old", 0o600).unwrap();
        write_replace(&path, b"new", 0o640).unwrap();
        assert_eq!((fs::read(&path).unwrap().as_slice(), mode(&path)), (b"new".as_slice(), 0o640));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(remove_durably(&path).unwrap());
        assert!(!remove_durably(&path).unwrap());
    }

    #[test]
    fn what_a_dead_replacement_left_is_swept_and_a_living_ones_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        // No process has a number beyond the largest that the kernel gives (PID_MAX_LIMIT, 2^22).
        for name in [".p0.toml.4194305.new", ".p0.toml.1.new", ".other.new"] {
            fs::write(at(name), "").unwrap();
        }
        write_replace(&at("p0.toml"), b"new", 0o600).unwrap();
        assert!(!at(".p0.toml.4194305.new").exists());
        assert!(at(".p0.toml.1.new").exists() && at(".other.new").exists() && at("p0.toml").exists());
    }

    #[test]
    fn a_replacement_that_fails_leaves_the_old_contents() {
        let dir = tempfile::tempdir().unwrap();
        // A folder cannot be replaced by a file.
        let path = dir.path().join("folder");
        fs::create_dir(&path).unwrap();
        assert!(write_replace(&path, b"new", 0o600).is_err());
        assert!(path.is_dir());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_is_extended_and_never_shortened() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let file = create_file_durably(&path, Bytes::MIB).unwrap();
        assert_eq!(extend_file(&file, &path, Bytes::GIB).unwrap(), Bytes::MIB);
        assert!(extend_file(&file, &path, Bytes::MIB).is_err());
        assert_eq!(file.metadata().unwrap().len(), 1 << 30);
    }

    #[test]
    fn reserved_space_is_real_and_keeps_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let file = create_file_durably(&path, Bytes::new(0)).unwrap();
        file.write_all_at(b"kept", 0).unwrap();
        reserve(&file, &path, Bytes::MIB).unwrap();
        let metadata = file.metadata().unwrap();
        assert!(metadata.len() == 1 << 20 && metadata.blocks() * 512 >= 1 << 20, "{metadata:?}");
        assert_eq!(fs::read(&path).unwrap().get(..5).unwrap(), b"kept\0");
        assert!(reserve(&file, &path, Bytes::new(u64::MAX)).is_err());
    }

    #[test]
    fn the_fallback_of_reserving_writes_only_past_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let file = create_file_durably(&path, Bytes::new(0)).unwrap();
        file.write_all_at(b"kept", 0).unwrap();
        fill_with_zeros(&file, &path, Bytes::new(200_000)).unwrap();
        let bytes = fs::read(&path).unwrap();
        assert_eq!((bytes.len(), bytes.get(..5).unwrap()), (200_000, b"kept\0".as_slice()));
    }

    #[test]
    fn folders_are_made_with_their_mode_and_reported() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b");
        assert_eq!(make_dir_durably(&deep, 0o700).unwrap(), [dir.path().join("a"), deep.clone()]);
        assert_eq!(mode(&deep), 0o700);
        assert_eq!(make_dir_durably(&deep, 0o755).unwrap(), Vec::<PathBuf>::new());
        assert_eq!(mode(&deep), 0o700);
    }
}
