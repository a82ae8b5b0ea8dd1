//! The file that an archive goes to: there when it is whole, and not before.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use crate::error::{Failure, Outcome};
use crate::kernel::fs::sync_dir;
use crate::kernel::interrupt::Held;
use crate::kernel::{Called, KernelError};
use crate::process::quote;

/// A file that is being written, under a name beside its own.
#[derive(Debug)]
pub struct Output {
    file: File,
    path: PathBuf,
    temporary: PathBuf,
    held: Held,
    done: bool,
}

impl Output {
    /// Begins it. What has its name already stays until [`Self::finish`].
    ///
    /// # Errors
    /// When nothing can be made there.
    pub fn begin(path: &Path) -> Outcome<Self> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".dmpool-{}", std::process::id()));
        Self::begin_as(path, path.with_file_name(name))
    }

    /// Begins it under a name of its own, which must be free.
    ///
    /// # Errors
    /// As [`Self::begin`].
    pub fn begin_as(path: &Path, temporary: PathBuf) -> Outcome<Self> {
        let unmade = |e: anyhow::Error| {
            let failure = Failure::failed(format!("cannot write `{}`", path.display()));
            let missing = parent(path);
            let failure = failure.fact("state", "nothing was written").because(e);
            if missing.is_dir() {
                failure
            } else {
                failure.next(format!("mkdir -p {}", quote(&missing.to_string_lossy())))
            }
        };
        let held = Held::hold().map_err(|e| unmade(e.into()))?;
        let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary);
        let file = opened.called("open", temporary.display()).map_err(|e| unmade(e.into()))?;
        Ok(Self { file, path: path.to_owned(), temporary, held, done: false })
    }

    /// Puts it in its place, whole and on disk.
    ///
    /// # Errors
    /// When it cannot be; what had its name is as it was then.
    pub fn finish(mut self) -> Outcome<()> {
        let finished = || -> anyhow::Result<()> {
            self.file.sync_all().called("fsync", self.temporary.display())?;
            fs::rename(&self.temporary, &self.path).called("rename", self.path.display())?;
            sync_dir(parent(&self.path))
        };
        finished().map_err(|e| self.failure(e))?;
        self.done = true;
        Ok(())
    }

    /// Says why writing it ended, and that nothing is left of it.
    pub fn broken(self, error: &io::Error) -> Failure {
        if let Some(signal) = self.held.take() {
            return Failure::failed(format!("did not write `{}`: {signal} came", self.path.display()))
                .fact("state", "what was written is removed; what had its name before is as it was");
        }
        let cause = match error.raw_os_error().map(Errno::from_raw) {
            Some(errno) => KernelError { errno, call: "write", object: self.temporary.display().to_string() }.into(),
            None => anyhow::anyhow!("{error}"),
        };
        self.failure(cause)
    }

    fn failure(&self, cause: anyhow::Error) -> Failure {
        Failure::failed(format!("cannot write `{}`", self.path.display()))
            .because(cause)
            .fact("state", "what was written is removed; what had its name before is as it was")
            .next("name a file on another file system, or write to a pipe:  -o -")
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.held.came() {
            return Err(io::Error::new(ErrorKind::TimedOut, "a signal came"));
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if !self.done {
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
