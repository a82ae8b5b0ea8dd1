//! Processes, as /proc shows them; every answer may be out of date when it arrives.

use std::fs;

use anyhow::{Context, Result};

use super::Called;

/// Returns the ids of all processes, lowest first.
///
/// # Errors
/// When /proc cannot be read.
pub fn all() -> Result<Vec<u32>> {
    let entries = fs::read_dir("/proc").called("opendir", "/proc").context("listing processes")?;
    let mut pids: Vec<u32> = entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    Ok(pids)
}

/// Returns a process's name, at most 15 bytes as the kernel keeps it; `?` when it has ended.
pub fn comm(pid: u32) -> String {
    match fs::read(format!("/proc/{pid}/comm")) {
        Ok(name) => String::from_utf8_lossy(&name).trim_end().to_owned(),
        Err(_) => "?".to_owned(),
    }
}

/// Returns whether there is a process with that id.
pub fn is_alive(pid: u32) -> bool {
    fs::metadata(format!("/proc/{pid}")).is_ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_among_them() {
        let own = std::process::id();
        assert!(all().unwrap().contains(&own));
        assert!(is_alive(own));
        assert_ne!(comm(own), "?");
        assert_eq!(comm(u32::MAX), "?");
    }
}
