//! What this machine must have, and how it gets it.

use std::fs;
use std::process::{Command, Stdio};

use super::show;
use super::tool;
use super::trouble::{Result, Trouble};

/// A Debian package and what it is for.
type Need = (&'static str, &'static str);

/// To build dmpool and the programs that run in guests.
pub const TO_BUILD: &[Need] = &[
    ("gcc", "links Rust programs"),
    ("libc6-dev", "links Rust programs, also statically"),
    ("pkg-config", "finds libdevmapper when the devicemapper crate is built"),
    ("libdevmapper-dev", "headers for the devicemapper crate"),
    ("libclang-dev", "bindgen reads those headers with it"),
];

/// To fetch kernels and make disks.
pub const TO_MAKE_IMAGES: &[Need] = &[
    ("mmdebstrap", "makes the guests' root file system"),
    ("e2fsprogs", "makes disk images"),
    ("kmod", "indexes the kernels' modules"),
    ("xz-utils", "unpacks the modules of newer kernels"),
];

/// To run a distribution's kernel.
pub const TO_RUN_QEMU: &[Need] =
    &[("qemu-system-x86", "runs guests with a distribution's kernel"), ("qemu-utils", "makes copy-on-write disks")];

/// To give parsers inputs that libFuzzer makes up.
pub const TO_FUZZ: &[Need] = &[("g++", "compiles libFuzzer")];

/// To run user mode Linux of a newer Debian.
pub const TO_RUN_NEWER_UML: &[Need] = &[("patchelf", "lets a newer user mode Linux use its own C library")];

/// Installs what is missing of `needs`; says what and why.
///
/// # Errors
/// When this is no Debian, when the process is not root, and when apt-get fails.
pub fn install(needs: &[Need]) -> Result<()> {
    if !tool::exists("dpkg-query") || !tool::exists("apt-get") {
        let names: Vec<&str> = needs.iter().map(|(name, _)| *name).collect();
        return Err(Trouble::new("cannot set up the lab: this machine is no Debian, its packages cannot be installed")
            .fact("found", system_name())
            .fact("needed", names.join(" "))
            .next("run this on Debian 12 or later, or in a container of it"));
    }
    let missing: Vec<Need> = needs.iter().copied().filter(|(name, _)| !installed(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let root = nix::unistd::geteuid().is_root();
    for (name, why) in &missing {
        show::line(&format!("{} {name}: {why}", if root { "installing" } else { "missing" }));
    }
    let names: Vec<&str> = missing.iter().map(|(name, _)| *name).collect();
    if !root {
        return Err(Trouble::new("cannot set up the lab: packages are missing and only root can install them")
            .fact("missing", names.join(" "))
            .next(format!("sudo apt-get install --no-install-recommends {}", names.join(" "))));
    }
    let first = apt_install(&names);
    if first.is_ok() {
        return Ok(());
    }
    // The lists may be missing or too old for what the mirror has now.
    tool::run(Command::new("apt-get").args(["update", "--quiet=2"]))?;
    apt_install(&names)
}

fn apt_install(names: &[&str]) -> Result<()> {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command.args(["install", "--yes", "--quiet=2", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300"]);
    tool::run(command.args(names)).map(|_| ())
}

fn installed(name: &str) -> bool {
    let asked = Command::new("dpkg-query")
        .args(["--show", "--showformat=${Status}", name])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    asked.is_ok_and(|o| String::from_utf8_lossy(&o.stdout).ends_with("ok installed"))
}

/// The system's own name for itself.
fn system_name() -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = text.lines().find_map(|l| l.strip_prefix("PRETTY_NAME="));
    name.map_or_else(|| "an unknown system".to_string(), |n| n.trim_matches('"').to_string())
}
