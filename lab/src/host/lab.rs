//! One run of the lab: its places, its folder, what it was asked for, and the machines it can make.

use std::path::PathBuf;

use super::image;
use super::kernels::{self, Kernel, KernelFiles};
use super::kvm;
use super::machine::{self, Accelerator, Lane, Machine};
use super::native;
use super::packages;
use super::place::{Places, RunFolder};
use super::programs::Programs;
use super::trouble::Result;

/// A run of the lab.
#[derive(Debug)]
pub struct Lab {
    /// Where everything is.
    pub places: Places,
    /// This run's own folder.
    pub run: RunFolder,
    /// Whether failed tests' guests are kept.
    pub keep: bool,
    /// Tests do all they can, instead of CI's measure.
    pub full: bool,
}

impl Lab {
    /// Finds its places and installs what it takes to build.
    ///
    /// # Errors
    /// When packages are missing and cannot be installed, and when the target folder cannot be written.
    pub fn open(keep: bool) -> Result<Lab> {
        packages::install(&[packages::TO_BUILD, packages::TO_MAKE_IMAGES].concat())?;
        let places = Places::find()?;
        let run = RunFolder::make(&places.lab())?;
        Ok(Lab { places, run, keep, full: false })
    }

    /// As [`Self::open`], also for root without cargo.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn for_setup() -> Result<Lab> {
        packages::install(&[packages::TO_BUILD, packages::TO_MAKE_IMAGES].concat())?;
        let places = Places::find().or_else(|_| Places::of_this_program())?;
        let run = RunFolder::make(&places.lab())?;
        Ok(Lab { places, run, keep: false, full: false })
    }

    /// On a machine that has the lab's programs, and neither the project nor cargo.
    ///
    /// # Errors
    /// When the temporary folder cannot be written.
    pub fn without_cargo(keep: bool) -> Result<Lab> {
        let here = std::env::temp_dir().join("dmpool-lab");
        let places = Places { workspace: here.clone(), target: here, metadata: serde_json::Value::Null };
        let run = RunFolder::make(&places.lab())?;
        Ok(Lab { places, run, keep, full: false })
    }

    /// Fetches and makes what guests of this kind need, unless it is there. Done before anything is built, so that a
    /// machine without network, room or root hears of it in seconds.
    ///
    /// # Errors
    /// When it cannot be fetched or made.
    pub fn prepare(&self, lane: Lane, kernel: Kernel) -> Result<()> {
        if lane != Lane::Native {
            image::root(&self.places)?;
            self.files(lane, kernel)?;
        }
        Ok(())
    }

    fn files(&self, lane: Lane, kernel: Kernel) -> Result<KernelFiles> {
        match lane {
            Lane::Uml => kernels::for_uml(&self.places, kernel),
            Lane::Qemu => {
                packages::install(packages::TO_RUN_QEMU)?;
                kernels::for_qemu(&self.places, kernel)
            }
            Lane::Native => Ok(KernelFiles::default()),
        }
    }

    /// A guest of this kind, not yet booted; what it needs is fetched and made unless it is there.
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
        let folder = self.run.path().join(if systemd {
            format!("{}-{}-systemd", lane.name(), kernel.name())
        } else {
            format!("{}-{}", lane.name(), kernel.name())
        });
        let agent = programs.agent()?;
        let plugged = machine::all_scratch();
        let files = self.files(lane, kernel)?;
        if lane == Lane::Native {
            native::install(&payload)?;
            let (root, accelerator) = (PathBuf::new(), Accelerator::Tcg);
            return Ok(Machine { lane, files, root, payload, agent, folder, systemd, accelerator, plugged });
        }
        let accelerator = match lane {
            Lane::Qemu => kvm::choose(&self.places, &files.kernel),
            Lane::Uml | Lane::Native => Accelerator::Tcg,
        };
        let root = image::root(&self.places)?;
        Ok(Machine { lane, files, root, payload, agent, folder, systemd, accelerator, plugged })
    }
}
