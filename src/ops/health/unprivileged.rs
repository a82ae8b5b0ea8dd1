//! What can be seen without being root, or without device-mapper: names and suspension of dm devices in sysfs, and the
//! file system under Docker's default root.

use std::fs;
use std::path::Path;

use super::run::PoolHealth;
use super::{Thresholds, space};
use crate::engine::docker_root::DEFAULT_ROOT;
use crate::error::Failure;
use crate::kernel::fs::FsFacts;
use crate::pool::{Finding, Key, Severity};
use crate::process::quote;

/// A device-mapper device as sysfs shows it to everybody.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shown {
    name: String,
    uuid: String,
    suspended: bool,
}

/// Returns what was seen, and first that it was not all.
pub(super) fn look(failure: &Failure, thresholds: &Thresholds) -> Vec<PoolHealth> {
    let mut seen: Vec<PoolHealth> = shown(Path::new("/sys/block")).iter().filter_map(judge).collect();
    let mut findings = vec![not_all(failure)];
    findings.extend(host(thresholds));
    seen.push(PoolHealth { argument: "this machine".to_owned(), findings, ..PoolHealth::default() });
    seen
}

fn not_all(failure: &Failure) -> Finding {
    let sentence = format!("not seen: tables, status and files of the pools: {}", failure.what);
    let finding = Finding::new(Key::NotSeen, Severity::Unknown, "this machine", sentence);
    match &failure.next {
        Some(next) => finding.act(next.clone(), "online"),
        None => finding,
    }
}

fn shown(blocks: &Path) -> Vec<Shown> {
    let mut all = Vec::new();
    for entry in fs::read_dir(blocks).into_iter().flatten().flatten() {
        let read = |name: &str| fs::read_to_string(entry.path().join("dm").join(name)).ok();
        let Some(name) = read("name") else { continue };
        all.push(Shown {
            name: name.trim_end().to_owned(),
            uuid: read("uuid").unwrap_or_default().trim_end().to_owned(),
            suspended: read("suspended").is_some_and(|text| text.trim() == "1"),
        });
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

/// A suspended device is trouble whatever it is; of the others only what is a pool by its name or uuid is named.
fn judge(device: &Shown) -> Option<PoolHealth> {
    let is_pool = match device.uuid.starts_with(crate::pool::UUID_PREFIX) {
        // dmpool's own say what they are: a volume may be called `pool`.
        true => device.uuid.ends_with("-pool"),
        false => device.name.ends_with("-pool") || device.name.ends_with("-tpool") || device.uuid.ends_with("-tpool"),
    };
    if !is_pool && !device.suspended {
        return None;
    }
    let findings = if device.suspended {
        let way = format!("dmsetup resume {}", quote(&device.name));
        let sentence = "it is suspended: all I/O waits";
        vec![Finding::new(Key::Suspended, Severity::Critical, &device.name, sentence).run(way, "online")]
    } else {
        let sentence = "it is not suspended; how full it is, and in which mode, was not seen";
        vec![Finding::new(Key::NotSeen, Severity::Unknown, &device.name, sentence)]
    };
    Some(PoolHealth {
        name: Some(device.name.clone()),
        argument: device.name.clone(),
        findings,
        ..PoolHealth::default()
    })
}

fn host(thresholds: &Thresholds) -> Option<Finding> {
    let host = FsFacts::of(Path::new(DEFAULT_ROOT)).ok()?;
    let severity = space::host_in_use(host.free, host.total, thresholds.data)?;
    let mount = host.mount_point.to_string_lossy();
    let (left, of) = (host.free.human(), host.total.human());
    let sentence = format!("{mount}, where {DEFAULT_ROOT} is, has {left} of {of} left");
    Some(
        Finding::new(Key::HostFileSystem, severity, mount.as_ref(), sentence)
            .act(format!("free space on {}", quote(&mount)), "online"),
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn sysfs_tells_suspended_devices_to_everybody() {
        let temp = tempfile::tempdir().unwrap();
        for (dm, name, uuid, suspended) in [
            ("dm-0", "docker-8:1-131073-pool", "", "0"),
            ("dm-1", "vg-root", "LVM-x", "0"),
            ("dm-2", "p0", "DMPOOL-1234", "1"),
        ] {
            let dir = temp.path().join(dm).join("dm");
            fs::create_dir_all(&dir).unwrap();
            for (file, text) in [("name", name), ("uuid", uuid), ("suspended", suspended)] {
                fs::write(dir.join(file), format!("{text}\n")).unwrap();
            }
        }
        fs::create_dir_all(temp.path().join("sda")).unwrap();
        let seen: Vec<_> = shown(temp.path()).iter().filter_map(judge).collect();
        let names: Vec<_> = seen.iter().map(|pool| pool.argument.as_str()).collect();
        assert_eq!(names, ["docker-8:1-131073-pool", "p0"]);
        assert_eq!((seen[0].findings[0].key, seen[0].findings[0].severity), (Key::NotSeen, Severity::Unknown));
        assert_eq!(seen[1].findings[0].key, Key::Suspended);
        assert_eq!(shown(&temp.path().join("none")), []);
    }
}
