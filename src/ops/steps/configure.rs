//! Steps that write an engine's configuration, and have it read.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::kernel;
use crate::kernel::processes;
use crate::ops::registry;
use crate::ops::steps::{Act, Attempt, Kit, Reverted, Rewrite, WayBack};
use crate::pool::PoolName;
use crate::process;
use crate::units::Bytes;

/// No configuration that is written is longer.
const LONGEST: Bytes = Bytes::new(1 << 20);
/// What systemd gives a service to start and to stop, and some.
const RESTART: Duration = Duration::from_secs(240);
/// How long a containerd that says that it has started may take to open what it was told of.
const OPENED: Duration = Duration::from_secs(20);
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);
/// How much of systemctl's output is kept; it is not looked at.
const OUTPUT: usize = 4096;

/// Who reads a configuration when it has changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reader {
    /// The engine, when somebody starts it again.
    Later,
    /// systemd: it is a unit's.
    Systemd,
    /// A service that is started again in a step of its own, and once more when the file is taken back.
    Service(String),
}

/// Writes a configuration file of an engine; what it said is kept beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteConfig {
    /// The file, free of symbolic links.
    pub path: PathBuf,
    /// What it says; nothing when it is not there.
    pub before: Option<String>,
    /// What it shall say.
    pub after: String,
    /// Where what it said is kept.
    pub backup: PathBuf,
    /// Whether its directory is missing, and made for it.
    pub folder: bool,
    /// Who reads it.
    pub reader: Reader,
    /// Whether it is run: a new one gets the mode for that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub program: bool,
    /// The pools that may be registered when it is taken back: it stays while another one is, which counts on it. None for
    /// what no pool counts on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pools: Vec<PoolName>,
}

impl WriteConfig {
    fn says(&self) -> Result<Option<String>> {
        let bytes = kernel::fs::read_limited(&self.path, LONGEST)?;
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// Writes the file; a new one gets the mode of its kind.
    fn write(&self, text: &str) -> Result<()> {
        let mode = if self.program { 0o755 } else { 0o644 };
        kernel::fs::write_alike(&self.path, text.as_bytes(), &self.path, mode)
    }

    fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    /// Has systemd read its units again where it runs.
    fn read_by_systemd(&self) -> Result<()> {
        match self.reader == Reader::Systemd && is_systemd() {
            true => systemctl(&["daemon-reload"]),
            false => Ok(()),
        }
    }
}

impl Act for WriteConfig {
    fn sentence(&self) -> String {
        let path = self.path.display();
        match &self.before {
            Some(_) => format!("write {path}, and keep what it says now as {}", self.backup.display()),
            None => format!("make the file {path}"),
        }
    }

    fn lasts(&self) -> bool {
        true
    }

    fn way_back(&self) -> WayBack {
        WayBack::By(match (&self.before, &self.reader) {
            (Some(_), Reader::Service(_)) => "written back, and its service started again",
            (None, Reader::Service(_)) => "removed, and its service started again",
            (Some(_), _) => "written back, unless somebody changed it since",
            (None, _) => "removed, unless somebody changed it since",
        })
    }

    fn apply(&self, _: &Kit, attempt: Attempt) -> Result<()> {
        let says = self.says()?;
        let is_done = attempt == Attempt::Again && says.as_deref() == Some(self.after.as_str());
        if !is_done {
            ensure!(says == self.before, "{} was changed since the plan was made", self.path.display());
            if self.folder {
                kernel::fs::make_dir_durably(self.folder(), 0o755)?;
            }
            if let Some(before) = &self.before {
                kernel::fs::write_alike(&self.backup, before.as_bytes(), &self.path, 0o644)?;
            }
            self.write(&self.after)?;
        }
        self.read_by_systemd()
    }

    fn verify(&self, _: &Kit) -> Result<()> {
        let path = self.path.display();
        ensure!(self.says()?.as_deref() == Some(self.after.as_str()), "{path} does not say what was written");
        Ok(())
    }

    fn revert(&self, kit: &Kit) -> Result<Reverted> {
        if let Some(pool) = needed_by(kit, &self.pools)? {
            return Ok(Reverted::Left(format!("{} stays: pool `{pool}` is brought up by it", self.path.display())));
        }
        let says = self.says()?;
        let was_written = says.as_deref() == Some(self.after.as_str());
        let kept = self.before.is_some() && self.backup.exists();
        if was_written {
            match &self.before {
                Some(before) => self.write(before)?,
                None => kernel::fs::remove_durably(&self.path).map(drop)?,
            }
        } else if says != self.before && (kept || self.before.is_none()) {
            let was = match kept {
                true => format!("; what it said before is in {}", self.backup.display()),
                false => String::new(),
            };
            return Ok(Reverted::Stands(format!("{} was changed since, and stays as it is{was}", self.path.display())));
        }
        self.read_by_systemd()?;
        match &self.reader {
            // It may have died after the file was back, and before this.
            Reader::Service(unit) if (was_written || kept) && runs(unit) => restart(unit)?,
            _ => {}
        }
        if kept {
            kernel::fs::remove_durably(&self.backup)?;
        }
        if self.folder && self.folder().is_dir() && fs::read_dir(self.folder())?.next().is_none() {
            kernel::fs::remove_dir_durably(self.folder())?;
        }
        Ok(Reverted::Gone)
    }

    fn rewrite(&self) -> Option<Rewrite<'_>> {
        Some(Rewrite { path: &self.path, before: self.before.as_deref().unwrap_or_default(), after: &self.after })
    }
}

/// Starts containerd again, so that it finds a pool that it did not find when it started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartContainerd {
    /// Its unit.
    pub unit: String,
    /// The database that its devmapper snapshotter has open as long as it is well.
    pub database: PathBuf,
}

impl Act for RestartContainerd {
    fn sentence(&self) -> String {
        format!("restart {}, and see that its devmapper plugin is well; containers go on", self.unit)
    }

    fn lasts(&self) -> bool {
        true
    }

    fn way_back(&self) -> WayBack {
        WayBack::By("restarted once more, with the configuration that it had")
    }

    fn apply(&self, _: &Kit, _: Attempt) -> Result<()> {
        restart(&self.unit)
    }

    fn verify(&self, _: &Kit) -> Result<()> {
        let until = Instant::now() + OPENED;
        while !is_open_in_containerd(&self.database)? {
            if Instant::now() >= until {
                bail!(
                    "the devmapper plugin of {} did not open its database {}: `ctr plugins ls -d id==devmapper` and \
                     `journalctl -u {}` say why",
                    self.unit,
                    self.database.display(),
                    self.unit
                );
            }
            std::thread::sleep(BETWEEN_LOOKS);
        }
        Ok(())
    }

    fn revert(&self, _: &Kit) -> Result<Reverted> {
        // It is started again when its configuration is back.
        Ok(Reverted::Gone)
    }
}

/// Returns a registered pool that is none of these; nothing when it is asked for none.
pub(super) fn needed_by(kit: &Kit, pools: &[PoolName]) -> Result<Option<PoolName>> {
    if pools.is_empty() {
        return Ok(None);
    }
    Ok(registry::names(&kit.state)?.into_iter().find(|name| !pools.contains(name)))
}

fn is_open_in_containerd(database: &Path) -> Result<bool> {
    Ok(processes::with_open(database)?.into_iter().any(|pid| processes::comm(pid).contains("containerd")))
}

/// Returns whether systemd runs the machine (sd_booted(3)).
pub fn is_systemd() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// Returns whether systemd runs a service now.
pub fn runs(unit: &str) -> bool {
    is_systemd() && systemctl(&["is-active", "--quiet", unit]).is_ok()
}

fn restart(unit: &str) -> Result<()> {
    systemctl(&["restart", unit])
}

pub(in crate::ops) fn systemctl(args: &[&str]) -> Result<()> {
    let ran = process::run_within("systemctl", args, RESTART, OUTPUT);
    ran.map(drop).with_context(|| format!("asking systemd for {}", args.join(" ")))
}
