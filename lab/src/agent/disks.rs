//! Which block device is which of the lab's disks.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// The device of the disk called `name`: by serial number (QEMU), else by its place in the list (UML's `ubda`, …).
/// Waits a little, since drivers probe in the background.
pub(super) fn device(disks: &[String], name: &str) -> Result<PathBuf> {
    let Some(place) = disks.iter().position(|d| d == name) else {
        bail!("this guest has no disk called {name}");
    };
    let give_up = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = by_serial(name).or_else(|| by_place(place)) {
            return Ok(found);
        }
        if Instant::now() > give_up {
            bail!("no disk called {name} appeared; there are: {:?}", block_devices());
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// The devices of all scratch disks, in order.
pub(super) fn scratch(disks: &[String]) -> Vec<PathBuf> {
    disks.iter().filter(|d| d.starts_with("scratch")).filter_map(|d| device(disks, d).ok()).collect()
}

/// The serial number that the host gives the disk called `name`.
fn serial(name: &str) -> String {
    format!("lab-{name}")
}

fn by_serial(name: &str) -> Option<PathBuf> {
    let wanted = serial(name);
    block_devices().into_iter().find_map(|device| {
        let found = fs::read_to_string(format!("/sys/block/{device}/serial")).ok()?;
        (found.trim() == wanted).then(|| PathBuf::from("/dev").join(device))
    })
}

fn by_place(place: usize) -> Option<PathBuf> {
    let letter = char::from(b'a'.checked_add(u8::try_from(place).ok()?)?);
    let name = format!("ubd{letter}");
    block_devices().contains(&name).then(|| PathBuf::from("/dev").join(name))
}

fn block_devices() -> Vec<String> {
    let Ok(entries) = fs::read_dir("/sys/block") else {
        return Vec::new();
    };
    entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect()
}
