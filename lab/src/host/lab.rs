//! One run of the lab: its places, its folder, what it was asked for, and the machines it can make.

use std::path::PathBuf;

use super::image;
use super::kernels::{self, Kernel};
use super::kvm;
use super::machine::{Accelerator, Lane, Machine};
use super::packages;
use super::place::{Places, RunFolder};
use super::programs::Programs;
use super::trouble::{Result, Trouble};

/// A run of the lab.
#[derive(Debug)]
pub struct Lab {
    /// Where everything is.
    pub places: Places,
    /// This run's own folder.
    pub run: RunFolder,
    /// Whether failed tests' guests are kept.
    pub keep: bool,
}

impl Lab {
    /// Finds its places and installs what every use of the lab needs.
    ///
    /// # Errors
    /// When packages are missing and cannot be installed, and when the target folder cannot be written.
    pub fn open(keep: bool) -> Result<Lab> {
        let needs = [packages::TO_BUILD, packages::TO_MAKE_IMAGES].concat();
        packages::install(&needs)?;
        let places = Places::find()?;
        let run = RunFolder::make(&places.lab())?;
        Ok(Lab { places, run, keep })
    }

    /// Fetches and makes what guests of this kind need, unless it is there.
    ///
    /// # Errors
    /// When it cannot be fetched or made.
    pub fn machine(
        &self,
        lane: Lane,
        kernel: Kernel,
        systemd: bool,
        programs: &Programs,
        payload: PathBuf,
    ) -> Result<Machine> {
        let files = match lane {
            Lane::Uml => kernels::for_uml(&self.places, kernel)?,
            Lane::Qemu => {
                packages::install(packages::TO_RUN_QEMU)?;
                kernels::for_qemu(&self.places, kernel)?
            }
            Lane::Native => {
                return Err(Trouble::new("cannot boot a guest in the native lane: this machine is the guest"));
            }
        };
        let accelerator = match lane {
            Lane::Qemu => kvm::choose(&self.places, &files.kernel),
            Lane::Uml | Lane::Native => Accelerator::Tcg,
        };
        let kind = format!("{}-{}{}", lane.name(), kernel.name(), if systemd { "-systemd" } else { "" });
        Ok(Machine {
            lane,
            files,
            root: image::root(&self.places)?,
            payload,
            agent: programs.agent()?,
            folder: self.run.path().join(kind),
            systemd,
            accelerator,
        })
    }
}
