//! Replacing a file of others', with its owner, mode and extended attributes kept.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::Path;

use anyhow::{Context, Result};
use xattr::FileExt;

use super::durable::write_replace_with;
use crate::kernel::{Called, is_gone};

/// Replaces a file's contents whole, as [`super::write_replace`] does. The file gets the owner, the mode and the extended
/// attributes (an SELinux label, an ACL) of the file `like`, which may be itself; the mode `new` when that is not there.
///
/// # Errors
/// What the kernel said, also of an attribute that cannot be kept; the file then has its old contents.
pub fn write_alike(path: &Path, bytes: &[u8], like: &Path, new: u32) -> Result<()> {
    write_replace_with(path, bytes, 0o600, |file| {
        let context = || format!("giving {} what {} has", path.display(), like.display());
        match fs::metadata(like) {
            Ok(found) => {
                fchown(&file, Some(found.uid()), Some(found.gid())).called("fchown", path.display())?;
                copy_attributes(like, &file).with_context(context)?;
                // After its owner, whose change takes bits away, and its ACL, whose change sets others.
                let mode = Permissions::from_mode(found.mode() & 0o7777);
                file.set_permissions(mode).called("fchmod", path.display())?;
            }
            Err(e) if is_gone(&e) => {
                file.set_permissions(Permissions::from_mode(new)).called("fchmod", path.display())?;
            }
            Err(e) => return Err(e).called("stat", like.display()).with_context(context),
        }
        Ok(file.sync_all().called("fsync", path.display())?)
    })
}

fn copy_attributes(like: &Path, file: &File) -> Result<()> {
    let names = match xattr::list(like) {
        Ok(names) => names,
        // The file system has none.
        Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(()),
        Err(e) => return Err(e).called("listxattr", like.display()).map_err(Into::into),
    };
    for name in names {
        let Some(value) = xattr::get(like, &name).called("getxattr", like.display())? else { continue };
        let there = file.get_xattr(&name).unwrap_or_default();
        if there.as_deref() != Some(value.as_slice()) {
            let set: io::Result<()> = file.set_xattr(&name, &value);
            set.called("fsetxattr", name.display())?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn whose_it_is_stays_and_what_it_says_is_new() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("daemon.json");
        write_alike(&path, b"{}", &path, 0o755).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o755);
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        xattr::set(&path, "user.kept", b"yes").unwrap();
        write_alike(&path, b"{ }", &path, 0o644).unwrap();
        let backup = dir.path().join("backup");
        write_alike(&backup, b"{}", &path, 0o644).unwrap();
        for (file, says) in [(&path, "{ }"), (&backup, "{}")] {
            assert_eq!(fs::read_to_string(file).unwrap(), says);
            assert_eq!(fs::metadata(file).unwrap().mode() & 0o7777, 0o640);
            assert_eq!(xattr::get(file, "user.kept").unwrap().unwrap(), b"yes");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
