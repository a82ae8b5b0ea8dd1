//! What machine, kernel and user this is.

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::Called;

/// Number of the capability that device-mapper and loop devices want (`CAP_SYS_ADMIN`, linux/capability.h).
const CAP_SYS_ADMIN: u32 = 21;

/// Returns the id of this boot, which changes with every start of the kernel.
///
/// # Errors
/// When /proc cannot be read.
pub fn boot_id() -> Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    let text = fs::read_to_string(path).called("read", path).context("reading the id of this boot")?;
    Ok(text.trim_end().to_owned())
}

/// Returns whether this process may change device-mapper: effective user 0, and `CAP_SYS_ADMIN` in effect.
pub fn is_root() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    nix::unistd::geteuid().is_root() && has_capability(&status, CAP_SYS_ADMIN)
}

pub(crate) fn has_capability(status: &str, capability: u32) -> bool {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).is_some_and(|set| set >> capability & 1 == 1)
}

/// Returns the running kernel's release: `3.10.0-1160.el7.x86_64`.
///
/// # Errors
/// When the kernel does not say.
pub fn kernel_release() -> Result<String> {
    let uname = nix::sys::utsname::uname().called("uname", "the kernel").context("asking for the kernel's release")?;
    Ok(uname.release().to_string_lossy().into_owned())
}

/// Returns the name that the machine has given itself.
///
/// # Errors
/// When the kernel does not say.
pub fn host_name() -> Result<String> {
    let uname = nix::sys::utsname::uname().called("uname", "the kernel").context("asking for the machine's name")?;
    Ok(uname.nodename().to_string_lossy().into_owned())
}

/// Whether a kernel module can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModuleState {
    /// It is loaded, or built in and initialised.
    Loaded,
    /// It is built into the kernel.
    BuiltIn,
    /// It can be loaded: `modprobe MODULE`.
    Loadable,
    /// Neither is so, as far as the module lists of the running kernel say.
    Absent,
}

impl fmt::Display for ModuleState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loaded => "loaded",
            Self::BuiltIn => "built in",
            Self::Loadable => "loadable",
            Self::Absent => "absent",
        })
    }
}

/// Returns the state of the thin pool target's module, `dm_thin_pool`.
pub fn thin_module_state() -> ModuleState {
    module_state("dm_thin_pool")
}

/// Returns the state of a module; underscores and dashes in its name are one.
pub fn module_state(module: &str) -> ModuleState {
    let module = module.replace('-', "_");
    if Path::new("/sys/module").join(&module).exists() {
        return ModuleState::Loaded;
    }
    let Ok(release) = kernel_release() else { return ModuleState::Absent };
    let list = |name: &str| {
        ["/lib/modules", "/usr/lib/modules"]
            .iter()
            .find_map(|dir| fs::read_to_string(Path::new(dir).join(&release).join(name)).ok())
            .unwrap_or_default()
    };
    if lists_module(&list("modules.builtin"), &module) {
        ModuleState::BuiltIn
    } else if lists_module(&list("modules.dep"), &module) {
        ModuleState::Loadable
    } else {
        ModuleState::Absent
    }
}

/// Whether a line of modules.builtin (`kernel/drivers/md/dm-mod.ko`) or modules.dep (`….ko.xz: …`) is of the module.
pub(crate) fn lists_module(list: &str, module: &str) -> bool {
    list.lines().any(|line| {
        let path = line.split(':').next().unwrap_or_default();
        let file = path.rsplit('/').next().unwrap_or_default();
        file.split_once(".ko").is_some_and(|(name, _)| name.replace('-', "_") == module)
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn modules_are_found_in_the_kernels_lists() {
        let builtin = "kernel/drivers/md/dm-mod.ko\nkernel/fs/ext4/ext4.ko\n";
        let dep = "kernel/drivers/md/dm-thin-pool.ko.xz: kernel/drivers/md/dm-mod.ko.xz\nkernel/x/loop.ko:\n";
        assert!(lists_module(builtin, "dm_mod"));
        assert!(lists_module(dep, "dm_thin_pool"));
        assert!(lists_module(dep, "loop"));
        // What another module needs is not what the list offers.
        assert!(!lists_module(dep, "dm_mod"));
        assert!(!lists_module(dep, "dm_thin"));
        assert!(!lists_module("", "dm_mod"));
    }

    #[test]
    fn the_capability_is_a_bit_of_the_effective_set() {
        let status = |set: &str| format!("Name:\tx\nCapPrm:\t000001ffffffffff\nCapEff:\t{set}\n");
        assert!(has_capability(&status("000001ffffffffff"), CAP_SYS_ADMIN));
        assert!(has_capability(&status("0000000000200000"), CAP_SYS_ADMIN));
        assert!(!has_capability(&status("00000000a80425fb"), CAP_SYS_ADMIN));
        assert!(!has_capability("", CAP_SYS_ADMIN));
    }

    #[test]
    fn a_boot_has_an_id_and_a_kernel_a_release() {
        assert_eq!(boot_id().unwrap().len(), 36);
        assert!(kernel_release().unwrap().contains('.'));
    }
}
