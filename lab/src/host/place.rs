//! Where the lab keeps things: `target/lab/cache` for what can be kept, `target/lab/run/PID` for one run.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::tool;
use super::trouble::{OrTrouble, Result, Trouble};

/// Present in a run's folder that shall outlive the run.
const KEEP: &str = "keep";

/// The project and the build folder, as cargo knows them.
#[derive(Debug, Clone)]
pub struct Places {
    /// The folder of the workspace's `Cargo.toml`.
    pub workspace: PathBuf,
    /// cargo's target folder (`CARGO_TARGET_DIR` where that is set).
    pub target: PathBuf,
    /// What cargo says about the packages of the workspace.
    pub metadata: serde_json::Value,
}

impl Places {
    /// Asks cargo.
    ///
    /// # Errors
    /// When cargo does not answer.
    pub fn find() -> Result<Places> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let text = tool::run(
            Command::new(cargo).args(["metadata", "--no-deps", "--format-version=1", "--manifest-path"]).arg(manifest),
        )?;
        let metadata: serde_json::Value =
            serde_json::from_str(&text).or_trouble(|| "cannot read what `cargo metadata` says".into())?;
        let folder = |key: &str| metadata.get(key).and_then(|v| v.as_str()).map(PathBuf::from);
        let (Some(workspace), Some(target)) = (folder("workspace_root"), folder("target_directory")) else {
            return Err(Trouble::new("cannot find the workspace: `cargo metadata` does not name it"));
        };
        Ok(Places { workspace, target, metadata })
    }

    /// The places that this program itself was built in: for root, who may have no cargo (sudo keeps neither PATH nor HOME).
    ///
    /// # Errors
    /// When the program is not where cargo puts it.
    pub fn of_this_program() -> Result<Places> {
        let program = std::env::current_exe().or_trouble(|| "cannot find this program".into())?;
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
        // TARGET/PROFILE/lab
        let (Some(workspace), Some(target)) = (workspace, program.ancestors().nth(2)) else {
            return Err(Trouble::new(format!("cannot tell where `{}` was built", program.display())));
        };
        Ok(Places { workspace: workspace.into(), target: target.into(), metadata: serde_json::Value::Null })
    }

    /// Gives what root has made to who called sudo, so that he can go on without it.
    ///
    /// # Errors
    /// When chown fails.
    pub fn give_back(&self) -> Result<()> {
        let id = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
        let (Some(user), Some(group)) = (id("SUDO_UID"), id("SUDO_GID")) else { return Ok(()) };
        if !nix::unistd::geteuid().is_root() {
            return Ok(());
        }
        let owner = format!("{user}:{group}");
        tool::run(Command::new("chown").args(["-R", "-h", "--from=0", &owner]).arg(self.lab())).map(drop)
    }

    /// The lab's own folder, the only one that `cargo lab clean` removes.
    #[must_use]
    pub fn lab(&self) -> PathBuf {
        self.target.join("lab")
    }

    /// Where fetched and built pieces are kept.
    #[must_use]
    pub fn cache(&self) -> PathBuf {
        self.lab().join("cache")
    }
}

/// The folder of one run of the lab. It goes with the run unless it was told to stay; folders of runs that died are
/// removed by the next one.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    _lock: File,
}

impl RunFolder {
    /// Makes the folder of this process, and removes those of dead ones.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn make(lab: &Path) -> Result<RunFolder> {
        let all = lab.join("run");
        fs::create_dir_all(&all).or_trouble(|| format!("cannot create `{}`", all.display()))?;
        // Between making a folder and locking it, another lab must not take it for a dead one's.
        let turn = all.join("turn");
        let turn = File::create(&turn).or_trouble(|| format!("cannot create `{}`", turn.display()))?;
        turn.lock().or_trouble(|| format!("cannot lock `{}`", all.display()))?;
        remove_dead(&all);
        let path = all.join(std::process::id().to_string());
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).or_trouble(|| format!("cannot create `{}`", path.display()))?;
        let lock = File::create(path.join("lock")).or_trouble(|| format!("cannot write in `{}`", path.display()))?;
        lock.lock().or_trouble(|| format!("cannot lock `{}`", path.display()))?;
        Ok(RunFolder { path, _lock: lock })
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lets the folder outlive this run.
    pub fn keep(&self) {
        let _ = fs::write(self.path.join(KEEP), "");
    }

    /// Whether the folder will stay.
    #[must_use]
    pub fn kept(&self) -> bool {
        self.path.join(KEEP).exists()
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        if !self.kept() {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// This program's path, as a person would type it.
#[must_use]
pub fn this_program() -> String {
    std::env::current_exe().map_or_else(|_| "target/debug/lab".to_string(), |path| path.display().to_string())
}

/// Removes run folders whose lock nobody holds and that nobody wanted kept.
fn remove_dead(all: &Path) {
    for entry in fs::read_dir(all).into_iter().flatten().flatten() {
        let folder = entry.path();
        let dead = File::open(folder.join("lock")).is_ok_and(|lock| lock.try_lock().is_ok());
        if dead && !folder.join(KEEP).exists() {
            let _ = fs::remove_dir_all(&folder);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_dead_runs_folder_goes_a_kept_or_living_one_stays() {
        let lab = std::env::temp_dir().join(format!("lab-place-{}", std::process::id()));
        let old = |name: &str| {
            let folder = lab.join("run").join(name);
            fs::create_dir_all(&folder).unwrap();
            (File::create(folder.join("lock")).unwrap(), folder)
        };
        let (_, dead) = old("1");
        let (_, kept) = old("2");
        fs::write(kept.join(KEEP), "").unwrap();
        let (living_lock, living) = old("3");
        living_lock.lock().unwrap();
        let mine = RunFolder::make(&lab).unwrap();
        assert!(!dead.exists() && kept.exists() && living.exists() && mine.path().exists());
        let path = mine.path().to_path_buf();
        drop(mine);
        assert!(!path.exists());
        fs::remove_dir_all(lab).unwrap();
    }
}
