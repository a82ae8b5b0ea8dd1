//! Disks of a chosen size and name: linear devices over a part of another.

use std::path::{Path, PathBuf};

use lab::guest::sys::dmsetup;

/// A device of device-mapper that stands for a disk; removed with this.
pub struct Disk {
    name: String,
    below: PathBuf,
    start: u64,
}

impl Disk {
    /// The device NAME, so many MiB of another from a MiB of it on.
    pub fn new(name: &str, below: &Path, start_mib: u64, mib: u64) -> Self {
        let disk = Self { name: name.to_owned(), below: below.to_owned(), start: start_mib * 2048 };
        dmsetup(["create", name, "--table", &disk.table(mib)]).run().checked().unwrap();
        disk
    }

    fn table(&self, mib: u64) -> String {
        format!("0 {} linear {} {}", mib * 2048, self.below.display(), self.start)
    }

    /// Gives it another length while it is in use, as a SAN does.
    pub fn resize(&self, mib: u64) {
        dmsetup(["load", &self.name, "--table", &self.table(mib)]).run().checked().unwrap();
        dmsetup(["resume", &self.name]).run().checked().unwrap();
    }

    pub fn path(&self) -> String {
        format!("/dev/mapper/{}", self.name)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // What stands on it after a test that failed is swept.
        let _ = dmsetup(["remove", "--retry", &self.name]).run();
    }
}
