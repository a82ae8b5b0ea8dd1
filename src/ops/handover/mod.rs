//! Handing a pool to Docker or containerd: what its configuration has to say, as steps at the end of a plan.

mod containerd;
mod docker;

use std::fs;
use std::path::{Path, PathBuf};

use crate::engine::configure::{Edit, Obstacle};
use crate::error::{Failure, Outcome};
use crate::kernel::fs::FsFacts;
use crate::ops::own_disk;
use crate::ops::steps::configure::Reader;
use crate::ops::steps::{Step, WriteConfig};
use crate::pool::{Place, PoolReport, PoolStatus, Spec};

/// Who shall use a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// Docker, with its devicemapper driver.
    Docker,
    /// containerd, with its devmapper snapshotter.
    Containerd,
}

impl Engine {
    /// Returns its name as it writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Docker => "Docker",
            Self::Containerd => "containerd",
        }
    }
}

/// What decides whether an engine can be handed a pool.
#[derive(Clone, Debug)]
pub struct Facts(Of);

#[derive(Clone, Debug)]
enum Of {
    Docker(docker::Facts),
    Containerd(containerd::Facts),
}

/// What is done at the end of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Handover {
    /// None when the engine is told already.
    pub steps: Vec<Step>,
    /// What the user should know.
    pub notes: Vec<String>,
}

/// Looks at what an engine is told, and at what would be written.
pub fn look(engine: Engine, spec: &Spec) -> Facts {
    // A sparse file gets blocks back only by discards; on a disk they cost time and bring nothing.
    let discard = spec.discard && matches!(&spec.on, Place::Files { preallocate: false, .. });
    let pool = spec.name.as_str();
    Facts(match engine {
        Engine::Docker => Of::Docker(docker::look(pool, discard)),
        Engine::Containerd => Of::Containerd(containerd::look(pool, discard)),
    })
}

/// Decides how the engine is told; `there` is the pool when it need not be made.
///
/// # Errors
/// Every reason not to do it.
pub fn plan(
    facts: &Facts,
    spec: &Spec,
    there: Option<&PoolReport>,
    refuse: &impl Fn(String) -> Failure,
) -> Outcome<Handover> {
    let handover = match &facts.0 {
        Of::Docker(facts) => docker::plan(facts, refuse)?,
        Of::Containerd(facts) => containerd::plan(facts, spec, refuse)?,
    };
    if handover.steps.is_empty() {
        return Ok(handover);
    }
    there.map_or(Ok(()), |pool| is_empty(pool, refuse))?;
    Ok(handover)
}

/// Refuses a pool that somebody has volumes on: Docker does not start on one (`checkThinPool`,
/// daemon/graphdriver/devmapper/deviceset.go), and the ids that containerd gives its devices would be theirs.
fn is_empty(pool: &PoolReport, refuse: &impl Fn(String) -> Failure) -> Outcome<()> {
    let working = pool.status.as_ref().and_then(PoolStatus::working);
    let used = working.map(|working| (working.data_used.get(), working.transaction_id));
    match used {
        Some((0, 0)) => Ok(()),
        Some((blocks, transaction)) => {
            Err(refuse("the pool has volumes already, and engines want one of their own".to_owned())
                .fact("found", format!("data blocks in use: {blocks}, transaction id {transaction}"))
                .next(format!(
                    "dmsetup ls --tree    shows those of `{}` that are active; else make another pool",
                    pool.argument
                )))
        }
        None => Err(refuse("whether the pool is empty cannot be read".to_owned())
            .next(format!("dmpool status {}    says what is wrong with it", pool.argument))),
    }
}

fn refusal(obstacle: &Obstacle, refuse: &impl Fn(String) -> Failure) -> Failure {
    let failure = refuse(obstacle.why.clone());
    let failure = match &obstacle.found {
        Some(found) => failure.fact("found", found),
        None => failure,
    };
    failure.next(obstacle.next.clone())
}

/// A file that is to be written, and where it is.
#[derive(Clone, Debug)]
struct Target {
    edit: Edit,
    /// The file itself, when the engine names a symbolic link.
    path: PathBuf,
    /// Where what it says now can be kept: a name that nothing has.
    backup: PathBuf,
    /// Whether its directory is missing.
    folder: bool,
    /// The file system that it is on.
    fs: Option<Box<FsFacts>>,
}

impl Target {
    fn look(edit: Edit) -> Self {
        let path = fs::canonicalize(&edit.path).unwrap_or_else(|_| edit.path.clone());
        let folder = path.parent().unwrap_or(Path::new("/"));
        let fs = FsFacts::of(own_disk::there(folder)).ok().map(Box::new);
        Self { backup: unused(&path), folder: !folder.exists(), fs, path, edit }
    }

    /// Returns the step that writes it.
    ///
    /// # Errors
    /// Refused when its file system takes no files.
    fn step(&self, reader: Reader, refuse: &impl Fn(String) -> Failure) -> Outcome<Step> {
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
        }
        .into())
    }

    fn note(&self) -> String {
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
