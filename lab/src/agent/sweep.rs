//! What a test left behind: found, told, cleared away.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Everything that tests make carries this in its name; what still does afterwards was left behind.
const MARK: &str = "dmpool-test-";

/// How long one clearing step may take before the guest is given up.
const PATIENCE: Duration = Duration::from_secs(20);

/// Folders that programs under test make; removed unless they were there before.
const STATE: &[&str] =
    &["/etc/dmpool", "/var/lib/dmpool", "/run/dmpool", "/etc/docker", "/var/lib/docker", "/var/lib/containerd"];

/// What there was before the test.
pub(super) struct Before {
    systemd: bool,
    processes: BTreeSet<i32>,
    mounts: BTreeSet<String>,
    dm: BTreeSet<String>,
    loops: BTreeSet<String>,
    state: Vec<&'static str>,
}

/// What a sweep found.
#[derive(Default)]
pub(super) struct Swept {
    /// What a test must not leave, one line each.
    pub(super) left: Vec<String>,
    /// What could not be cleared away, and how that went.
    pub(super) told: Vec<String>,
    /// Whether something could not be cleared away.
    pub(super) stuck: bool,
}

impl Before {
    /// Looks at the guest as it is.
    pub(super) fn look(systemd: bool) -> Before {
        Before {
            systemd,
            processes: processes().into_iter().collect(),
            mounts: mounts().into_iter().collect(),
            dm: dm_names().into_iter().collect(),
            loops: loops().into_iter().map(|(device, _)| device).collect(),
            state: STATE.iter().copied().filter(|p| Path::new(p).exists()).collect(),
        }
    }

    /// Finds what is new since, and clears it away.
    pub(super) fn sweep(&self) -> Swept {
        let mut swept = Swept { left: self.left(), ..Swept::default() };
        if !self.end_processes() {
            swept.stuck = true;
            swept.told.push("-- a process that the test left cannot be killed".to_string());
        }
        // A device can be removed only after what stands on it: a few rounds settle every stack.
        for _ in 0..6 {
            if self.clear_once() {
                break;
            }
        }
        for name in dm_names().difference(&self.dm) {
            swept.stuck = true;
            swept.told.push(format!("-- the device-mapper device {name} stays"));
        }
        for folder in STATE.iter().filter(|p| !self.state.contains(p)) {
            let _ = fs::remove_dir_all(folder);
        }
        swept
    }

    /// New things that carry the mark.
    fn left(&self) -> Vec<String> {
        let devices = dm_names();
        let devices = devices.difference(&self.dm).map(|n| format!("device-mapper device {n}"));
        let loops = loops().into_iter().filter(|(device, _)| !self.loops.contains(device));
        let loops = loops.map(|(device, file)| format!("loop device {device} on {file}"));
        let mounts = mounts().into_iter().filter(|m| !self.mounts.contains(m)).map(|m| format!("mount {m}"));
        devices.chain(loops).chain(mounts).filter(|line| line.contains(MARK)).collect()
    }

    /// Kills what the test started and left running. False if something survives that.
    fn end_processes(&self) -> bool {
        let give_up = Instant::now() + Duration::from_secs(3);
        loop {
            let alive: Vec<i32> = processes().into_iter().filter(|p| self.is_the_tests(*p)).collect();
            if alive.is_empty() {
                return true;
            }
            if Instant::now() > give_up {
                return false;
            }
            for pid in alive {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Under systemd others start programs too: there only what shares the agent's cgroup is the test's.
    fn is_the_tests(&self, pid: i32) -> bool {
        if self.processes.contains(&pid) {
            return false;
        }
        if self.systemd {
            let cgroup = |p: &str| fs::read_to_string(format!("/proc/{p}/cgroup")).unwrap_or_default();
            return cgroup(&pid.to_string()) == cgroup("self");
        }
        !is_udevd(pid)
    }

    /// One round over mounts, dm devices and loop devices. True when nothing new is left.
    fn clear_once(&self) -> bool {
        for place in mounts().iter().rev().filter(|m| !self.mounts.contains(*m)) {
            if umount2(place.as_str(), MntFlags::empty()).is_err() {
                let _ = umount2(place.as_str(), MntFlags::MNT_DETACH);
            }
        }
        for name in dm_names().difference(&self.dm) {
            // A suspended device would make the removal of what stands on it wait for ever.
            let _ = limited("dmsetup", &["resume", "--noflush", name]);
            let _ = limited("dmsetup", &["remove", "--retry", name]);
        }
        for (device, _) in loops().into_iter().filter(|(d, _)| !self.loops.contains(d)) {
            let _ = limited("losetup", &["-d", &format!("/dev/{device}")]);
        }
        dm_names().is_subset(&self.dm)
            && mounts().iter().all(|m| self.mounts.contains(m))
            && loops().iter().all(|(d, _)| self.loops.contains(d))
    }
}

/// Whether a udevd or one of its workers runs.
pub(super) fn any_udevd() -> bool {
    processes().into_iter().any(is_udevd)
}

fn is_udevd(pid: i32) -> bool {
    // The kernel keeps 15 characters of `systemd-udevd`; a worker is called `(udev-worker)`.
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.contains("udev"))
}

/// Ids of all processes that are programs (kernel threads and zombies have no command line).
fn processes() -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty()))
        .collect()
}

/// Mount points, in the order of mounting.
fn mounts() -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    table.lines().filter_map(|l| l.split(' ').nth(1)).map(|m| m.replace("\\040", " ")).collect()
}

/// Names of all device-mapper devices.
fn dm_names() -> BTreeSet<String> {
    let Ok(entries) = fs::read_dir("/sys/block") else {
        return BTreeSet::new();
    };
    entries
        .flatten()
        .filter_map(|e| fs::read_to_string(e.path().join("dm/name")).ok())
        .map(|name| name.trim().to_string())
        .collect()
}

/// Loop devices in use, each with its backing file.
fn loops() -> Vec<(String, String)> {
    let Ok(entries) = fs::read_dir("/sys/block") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|e| {
            let file = fs::read_to_string(e.path().join("loop/backing_file")).ok()?;
            Some((e.file_name().into_string().ok()?, file.trim().to_string()))
        })
        .collect()
}

/// Runs a program that may hang on a broken device. True if it ended well in time.
fn limited(program: &str, args: &[&str]) -> bool {
    let quiet = Command::new(program)
        .args(args)
        .env("PATH", super::PATH)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut child) = quiet else { return false };
    let give_up = Instant::now() + PATIENCE;
    while Instant::now() < give_up {
        match child.try_wait() {
            Ok(Some(status)) => return status.success(),
            Ok(None) => thread::sleep(Duration::from_millis(5)),
            Err(_) => return false,
        }
    }
    let _ = child.kill();
    false
}
