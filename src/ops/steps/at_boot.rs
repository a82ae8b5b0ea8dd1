//! The step that has something run at boot.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::configure::{needed_by, systemctl};
use crate::ops::boot::text;
use crate::ops::steps::{Act, Attempt, Kit, Reverted, WayBack};
use crate::pool::PoolName;
use crate::process;

/// Where init scripts have their links, one folder for each runlevel.
const RUNLEVELS: [&str; 8] = [
    "etc/rc2.d",
    "etc/rc3.d",
    "etc/rc4.d",
    "etc/rc5.d",
    "etc/rc.d/rc2.d",
    "etc/rc.d/rc3.d",
    "etc/rc.d/rc4.d",
    "etc/rc.d/rc5.d",
];

/// Who is told what runs at boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Registrar {
    /// systemd.
    Systemctl,
    /// The init scripts of Debian and its kin.
    UpdateRcD,
    /// Those of Red Hat and SUSE.
    Chkconfig,
}

impl Registrar {
    /// Returns the file of that name that it runs.
    pub fn file(self, name: &str) -> PathBuf {
        match self {
            Self::Systemctl => Path::new("/etc/systemd/system").join(format!("{name}.service")),
            Self::UpdateRcD | Self::Chkconfig => Path::new("/etc/init.d").join(name),
        }
    }

    /// Returns whether it runs that at the next boot of the machine whose root directory that is, by the links that it makes.
    pub fn has_enabled(self, base: &Path, name: &str) -> bool {
        match self {
            Self::Systemctl => text::WANTED_BY.iter().all(|unit| {
                let link = base.join(format!("etc/systemd/system/{unit}.wants/{name}.service"));
                fs::symlink_metadata(link).is_ok()
            }),
            Self::UpdateRcD | Self::Chkconfig => RUNLEVELS.iter().any(|folder| {
                let links = fs::read_dir(base.join(folder)).into_iter().flatten().flatten();
                let mut names = links.filter_map(|link| link.file_name().into_string().ok());
                names.any(|link| link.starts_with('S') && link.get(3..) == Some(name))
            }),
        }
    }

    fn enable(self, name: &str) -> Result<()> {
        match self {
            Self::Systemctl => systemctl(&["enable", &format!("{name}.service")]),
            Self::UpdateRcD => run("update-rc.d", &[name, "defaults"]),
            Self::Chkconfig => run("chkconfig", &["--add", name]),
        }
    }

    fn disable(self, name: &str) -> Result<()> {
        match self {
            Self::Systemctl => systemctl(&["disable", &format!("{name}.service")]),
            Self::UpdateRcD => run("update-rc.d", &["-f", name, "remove"]),
            Self::Chkconfig => run("chkconfig", &["--del", name]),
        }
    }
}

fn run(program: &str, args: &[&str]) -> Result<()> {
    process::run(program, args).map(drop).with_context(|| format!("telling {program} of {}", args.join(" ")))
}

/// Has a unit or an init script run at boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnableAtBoot {
    /// Its name, without `.service`.
    pub name: String,
    /// Who is told.
    pub registrar: Registrar,
    /// As [`super::WriteConfig::pools`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pools: Vec<PoolName>,
}

impl Act for EnableAtBoot {
    fn sentence(&self) -> String {
        let how = match self.registrar {
            Registrar::Systemctl => "systemctl enable",
            Registrar::UpdateRcD => "update-rc.d",
            Registrar::Chkconfig => "chkconfig",
        };
        format!("have {} run at boot ({how})", self.registrar.file(&self.name).display())
    }

    fn lasts(&self) -> bool {
        true
    }

    fn way_back(&self) -> WayBack {
        WayBack::By("disabled")
    }

    fn apply(&self, _: &Kit, _: Attempt) -> Result<()> {
        self.registrar.enable(&self.name)
    }

    fn verify(&self, _: &Kit) -> Result<()> {
        let is_enabled = self.registrar.has_enabled(Path::new("/"), &self.name);
        ensure!(is_enabled, "nothing links to {}", self.registrar.file(&self.name).display());
        Ok(())
    }

    fn revert(&self, kit: &Kit) -> Result<Reverted> {
        let file = self.registrar.file(&self.name);
        if let Some(pool) = needed_by(kit, &self.pools)? {
            return Ok(Reverted::Left(format!("{} stays: pool `{pool}` is brought up by it", file.display())));
        }
        // Its file goes after this, and stays when somebody has changed it.
        if file.exists() {
            self.registrar.disable(&self.name)?;
        }
        Ok(Reverted::Gone)
    }
}
