//! A configuration file that is to be written, and where it really is.

use std::fs;
use std::path::{Path, PathBuf};

use crate::engine::configure::{Edit, Obstacle};
use crate::error::{Failure, Outcome};
use crate::kernel::fs::FsFacts;
use crate::ops::own_disk;
use crate::ops::steps::WriteConfig;
use crate::ops::steps::configure::Reader;

/// Returns the refusal of a configuration that is not written.
pub fn refusal(obstacle: &Obstacle, refuse: &impl Fn(String) -> Failure) -> Failure {
    let failure = refuse(obstacle.why.clone());
    let failure = match &obstacle.found {
        Some(found) => failure.fact("found", found),
        None => failure,
    };
    failure.next(obstacle.next.clone())
}

/// A file that is to be written, and where it is.
#[derive(Clone, Debug)]
pub struct Target {
    /// What is written.
    pub edit: Edit,
    /// The file itself, when the engine names a symbolic link.
    pub path: PathBuf,
    /// Where what it says now can be kept: a name that nothing has.
    backup: PathBuf,
    /// Whether its directory is missing.
    folder: bool,
    /// The file system that it is on.
    fs: Option<Box<FsFacts>>,
}

impl Target {
    /// Looks at where it is.
    pub fn look(edit: Edit) -> Self {
        let path = fs::canonicalize(&edit.path).unwrap_or_else(|_| edit.path.clone());
        let folder = path.parent().unwrap_or(Path::new("/"));
        let fs = FsFacts::of(own_disk::there(folder)).ok().map(Box::new);
        Self { backup: unused(&path), folder: !folder.exists(), fs, path, edit }
    }

    /// Returns the step that writes it.
    ///
    /// # Errors
    /// Refused when its file system takes no files.
    pub fn write(&self, reader: Reader, refuse: &impl Fn(String) -> Failure) -> Outcome<WriteConfig> {
        if let Some(fs) = self.fs.as_ref().filter(|fs| fs.read_only) {
            let mount = crate::process::quote(&fs.mount_point.to_string_lossy());
            return Err(refuse(format!("the file system of `{}` is read-only", self.path.display()))
                .next(format!("mount -o remount,rw {mount}")));
        }
        Ok(WriteConfig {
            path: self.path.clone(),
            before: self.edit.before.clone(),
            after: self.edit.after.clone(),
            backup: self.backup.clone(),
            folder: self.folder,
            reader,
            program: false,
            pools: Vec::new(),
        })
    }

    /// Says what becomes of it.
    pub fn note(&self) -> String {
        match self.edit.before {
            Some(_) => format!("{} is written; what it said is kept as {}", self.path.display(), self.backup.display()),
            None => format!("{} is new", self.path.display()),
        }
    }
}

/// Returns a name beside a file that nothing has. No engine reads it: neither ends in `.json`, `.conf` or `.toml`.
fn unused(path: &Path) -> PathBuf {
    let named = |number: u32| {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".before-dmpool");
        if number > 1 {
            name.push(format!("-{number}"));
        }
        path.with_file_name(name)
    };
    (1..).map(named).find(|path| fs::symlink_metadata(path).is_err()).unwrap_or_else(|| named(1))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_said_is_kept_under_a_name_that_nothing_has() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("daemon.json");
        for name in ["daemon.json.before-dmpool", "daemon.json.before-dmpool-2", "daemon.json.before-dmpool-3"] {
            assert_eq!(unused(&file), dir.path().join(name));
            fs::write(dir.path().join(name), "").unwrap();
        }
    }

    #[test]
    fn a_link_is_followed_to_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let (link, file) = (dir.path().join("daemon.json"), dir.path().canonicalize().unwrap().join("real"));
        fs::write(&file, "{}").unwrap();
        std::os::unix::fs::symlink("real", &link).unwrap();
        let target = Target::look(Edit { path: link, before: Some("{}".to_owned()), after: "{ }".to_owned() });
        assert_eq!((&target.path, target.folder), (&file, false));
        let missing = dir.path().join("no/daemon.json");
        let target = Target::look(Edit { path: missing.clone(), before: None, after: String::new() });
        assert_eq!((target.path, target.folder), (missing, true));
    }
}
