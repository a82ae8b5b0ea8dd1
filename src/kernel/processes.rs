//! Processes, as /proc shows them; every answer may be out of date when it arrives.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

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

/// Returns the processes that have a file open, lowest first; none when it is not there.
///
/// # Errors
/// When /proc cannot be read.
pub fn with_open(path: &Path) -> Result<Vec<u32>> {
    let identity = |path: &Path| fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
    let Some(file) = identity(path) else { return Ok(Vec::new()) };
    let has_it = |pid: &u32| {
        let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        files.into_iter().any(|entry| identity(&entry.path()) == Some(file))
    };
    Ok(all()?.into_iter().filter(has_it).collect())
}

/// Returns whether there is a process with that id.
pub fn is_alive(pid: u32) -> bool {
    fs::metadata(format!("/proc/{pid}")).is_ok()
}

/// Returns when a process began, in ticks since the boot: with its id this is one process and no other. Nothing when it has
/// ended, or has been reaped by nobody yet.
pub fn started(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may have blanks and brackets itself (proc(5)); the state is the first field behind it.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    if fields.next()? == "Z" { None } else { fields.nth(18)?.parse().ok() }
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
        assert!(started(own) >= started(1), "{:?}", started(own));
        assert_eq!(started(u32::MAX), None);
        assert_ne!(comm(own), "?");
        assert_eq!(comm(u32::MAX), "?");
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(with_open(file.path()).unwrap(), [own]);
        assert_eq!(with_open(&file.into_temp_path()).unwrap(), Vec::<u32>::new());
    }
}
