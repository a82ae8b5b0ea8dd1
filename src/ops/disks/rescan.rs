//! How a machine is told to look again: for a disk that was plugged in, and for one that was made larger.

use crate::kernel::disks::Scsi;
use crate::pool::disk::{BlockDevice, Kind};
use crate::process;

/// A command that finds what the kernel has not noticed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rescan {
    /// What for: `new_disk`, `larger_disk`.
    pub key: &'static str,
    /// What for, in words.
    pub what: &'static str,
    /// The command.
    pub command: String,
}

/// Returns the commands that do something on this machine.
pub fn rescans(found: &Scsi, devices: &[BlockDevice]) -> Vec<Rescan> {
    let mut rescans = Vec::new();
    let mut add = |key, what, command: String| rescans.push(Rescan { key, what, command });
    let (new, larger) = ("a disk that was plugged in", "a disk that was made larger");
    if !found.hosts.is_empty() {
        let command = r#"for scan in /sys/class/scsi_host/host*/scan; do echo "- - -" >"$scan"; done"#;
        add("new_disk", new, command.to_owned());
    }
    if !found.nvme.is_empty() {
        let command = r#"for scan in /sys/class/nvme/nvme*/rescan_controller; do echo 1 >"$scan"; done"#;
        add("new_disk", new, command.to_owned());
    }
    if found.disks.iter().any(|disk| disk.starts_with("sd")) {
        let command = r#"for disk in /sys/block/sd*/device/rescan; do echo 1 >"$disk"; done"#;
        add("larger_disk", larger, command.to_owned());
    }
    for device in devices {
        if let Kind::Multipath { name } = &device.kind {
            add("larger_disk", larger, format!("multipathd resize map {}", process::quote(name)));
        }
    }
    rescans
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_commands_that_do_something_here_are_given() {
        assert_eq!(rescans(&Scsi::default(), &[]), []);
        let some = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let found = Scsi { hosts: some(&["host0"]), disks: some(&["sr0"]), nvme: some(&["nvme0"]) };
        let commands: Vec<_> = rescans(&found, &[]).into_iter().map(|r| (r.key, r.command)).collect();
        assert!(
            matches!(commands.as_slice(), [("new_disk", scsi), ("new_disk", nvme)]
            if scsi.contains("scsi_host") && nvme.contains("rescan_controller")),
            "{commands:?}"
        );
        let found = Scsi { disks: some(&["sda"]), ..Scsi::default() };
        assert!(rescans(&found, &[]).iter().all(|r| r.key == "larger_disk" && r.command.contains("device/rescan")));
    }
}
