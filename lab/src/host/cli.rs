//! The command line of `cargo lab`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::kernels::Kernel;
use super::machine::Lane;

/// Boots guests whose kernels have device-mapper, and runs dmpool in them.
#[derive(Debug, Parser)]
#[command(name = "cargo lab", bin_name = "cargo lab", disable_help_subcommand = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Install what this machine lacks, and fetch and make what guests need
    Setup,
    /// Run all tests: those of this machine, then those that need a guest
    Test {
        /// Run only tests whose name contains this
        filter: Option<String>,
        /// Run every suite on every kernel and in every lane that can run it, and fuzz every parser
        #[arg(long)]
        full: bool,
        /// Run only what needs a guest
        #[arg(long)]
        guests_only: bool,
        /// Write docs/proof.md when everything has passed
        #[arg(long)]
        write_proof: bool,
        /// Build nothing: use what `cargo lab dist` has put into this folder (only with `--lane native`)
        #[arg(long, value_name = "DIR")]
        prebuilt: Option<PathBuf>,
        /// In which guests
        #[command(flatten)]
        guest: GuestOptions,
    },
    /// Give dmpool's parsers inputs that libFuzzer makes up, guided by the code that they reach
    Fuzz {
        /// Try only parsers whose `fuzz::NAME` contains this
        filter: Option<String>,
        /// How long each is tried
        #[arg(long, default_value_t = super::fuzz::USUAL.as_secs())]
        seconds: u64,
    },
    /// Show what dmpool does, on a real kernel with a real Docker
    Demo {
        /// In which guest
        #[command(flatten)]
        guest: GuestOptions,
    },
    /// Measure dmpool side by side with dmsetup, lvs and docker
    Bench {
        /// In which guest
        #[command(flatten)]
        guest: GuestOptions,
        /// Passed on to the measuring program
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Open a shell in a guest, with dmpool on its PATH; or run the commands given on standard input
    Shell {
        /// With dockerd running on its devicemapper driver
        #[arg(long)]
        docker: bool,
        /// With systemd as process 1, which starts Docker as a distribution does (only in QEMU)
        #[arg(long, conflicts_with = "docker")]
        systemd: bool,
        /// In which guest
        #[command(flatten)]
        guest: GuestOptions,
    },
    /// Build the static binary into target/dist, and run it on every kernel
    Dist,
    /// Remove everything the lab has fetched and made (target/lab)
    Clean,
}

/// Which guest.
#[derive(Debug, Args, Clone, Copy)]
pub struct GuestOptions {
    /// How guests run; without it, what each test needs
    #[arg(long)]
    pub lane: Option<Lane>,
    /// Their kernel
    #[arg(long)]
    pub kernel: Option<Kernel>,
    /// Keep the disks and the console of a failed test's guest
    #[arg(long)]
    pub keep: bool,
}
