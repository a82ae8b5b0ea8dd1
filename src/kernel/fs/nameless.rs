//! Files without a name, which go with the last who has them open.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::kernel::{Called, KernelError};

/// Makes a file in a folder that nobody else sees, and that is gone when it is closed, however this process ends.
///
/// # Errors
/// As open(2).
pub fn nameless(folder: &Path) -> Result<File, KernelError> {
    let mut how = OpenOptions::new();
    how.read(true).write(true).mode(0o600);
    match how.clone().custom_flags(libc::O_TMPFILE).open(folder) {
        // Before Linux 3.11, and on file systems that have no such files.
        Err(e) if matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR | libc::ENOENT | libc::EINVAL)) => {}
        opened => return opened.called("open", folder.display()),
    }
    let path = folder.join(format!(".dmpool-{}", std::process::id()));
    let file = how.create_new(true).open(&path).called("open", path.display())?;
    fs::remove_file(&path).called("unlink", path.display())?;
    Ok(file)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn nothing_is_left_of_it() {
        let temp = tempfile::tempdir().unwrap();
        let file = nameless(temp.path()).unwrap();
        file.write_all_at(b"x", 10).unwrap();
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
        assert!(nameless(&temp.path().join("none")).is_err());
    }
}
