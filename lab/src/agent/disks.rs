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

/// The devices of the scratch disks by their numbers, up to the last one that is plugged in.
pub(super) fn scratch(disks: &[String]) -> Vec<Option<PathBuf>> {
    let number = |name: &String| name.strip_prefix("scratch")?.parse::<usize>().ok();
    let count = disks.iter().filter_map(number).max().map_or(0, |last| last + 1);
    let found = |n| disks.iter().find(|name| number(name) == Some(n));
    (0..count).map(|n| device(disks, found(n)?).ok()).collect()
}

/// udev's rules for disks that have no serial number (UML's), which gives them the names that QEMU's have by theirs.
pub(super) fn rules(disks: &[String]) -> String {
    let plugged = |name: &&String| name.starts_with("scratch") || name.starts_with("copy");
    let rule = |name: &String| {
        let kernel = kernel_name(disks.iter().position(|disk| disk == name)?)?;
        let link = format!("SYMLINK+=\"disk/by-id/virtio-{}", serial(name));
        Some(format!(
            "SUBSYSTEM==\"block\", ENV{{DEVTYPE}}==\"disk\", KERNEL==\"{kernel}\", {link}\"\n\
             SUBSYSTEM==\"block\", ENV{{DEVTYPE}}==\"partition\", KERNEL==\"{kernel}[0-9]*\", {link}-part%n\"\n"
        ))
    };
    disks.iter().filter(plugged).filter_map(rule).collect()
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

fn kernel_name(place: usize) -> Option<String> {
    let letter = char::from(b'a'.checked_add(u8::try_from(place).ok()?)?);
    Some(format!("ubd{letter}"))
}

fn by_place(place: usize) -> Option<PathBuf> {
    let name = kernel_name(place)?;
    block_devices().contains(&name).then(|| PathBuf::from("/dev").join(name))
}

fn block_devices() -> Vec<String> {
    let Ok(entries) = fs::read_dir("/sys/block") else {
        return Vec::new();
    };
    entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_keeps_its_name_in_another_place() {
        let disks = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let usual = rules(&disks(&["root", "scratch0", "scratch1"]));
        assert!(usual.contains("KERNEL==\"ubdb\", SYMLINK+=\"disk/by-id/virtio-lab-scratch0\"\n"), "{usual}");
        assert!(
            usual.contains("KERNEL==\"ubdc[0-9]*\", SYMLINK+=\"disk/by-id/virtio-lab-scratch1-part%n\"\n"),
            "{usual}"
        );
        let swapped = rules(&disks(&["root", "scratch1", "copy1"]));
        assert!(swapped.contains("KERNEL==\"ubdb\", SYMLINK+=\"disk/by-id/virtio-lab-scratch1\"\n"), "{swapped}");
        assert!(swapped.contains("KERNEL==\"ubdc\", SYMLINK+=\"disk/by-id/virtio-lab-copy1\"\n"), "{swapped}");
        assert_eq!(swapped.lines().count(), 4);
    }
}
