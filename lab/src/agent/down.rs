//! Taking the guest down as an orderly machine does.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, sync};

use super::Settings;

/// How long programs have to end by themselves.
const PATIENCE: Duration = Duration::from_secs(10);

/// Ends every program, unmounts every file system, and stops the machine. The host starts it again if that was the wish.
///
/// A machine that is not the lab's is left alone: there only the agent ends.
pub(super) fn go(settings: &Settings) -> ! {
    if !settings.is_guest() {
        std::process::exit(0);
    }
    if settings.systemd {
        // systemd ends this service on the way.
        let _ = Command::new("systemctl").args(["--no-block", "reboot"]).status();
        loop {
            thread::sleep(Duration::from_secs(60));
        }
    }
    end_programs();
    unmount_all();
    sync();
    let _ = mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, None::<&str>);
    stop(settings)
}

/// Stops the machine as it is.
pub(super) fn stop(settings: &Settings) -> ! {
    // User mode Linux would boot again by itself; QEMU is told not to, and a PC is surest to stop by a reset.
    let how = if settings.lane == "uml" { RebootMode::RB_POWER_OFF } else { RebootMode::RB_AUTOBOOT };
    if settings.is_guest() {
        let _ = reboot(how);
    }
    std::process::exit(1)
}

fn end_programs() {
    let everyone = Pid::from_raw(-1);
    let _ = kill(everyone, Signal::SIGTERM);
    let give_up = Instant::now() + PATIENCE;
    while others_alive() && Instant::now() < give_up {
        thread::sleep(Duration::from_millis(20));
    }
    let _ = kill(everyone, Signal::SIGKILL);
}

/// Whether any program beside process 1 and this one is left. Kernel threads have no command line.
fn others_alive() -> bool {
    let me = std::process::id();
    let Ok(entries) = fs::read_dir("/proc") else {
        return false;
    };
    entries
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok())
        .any(|pid| pid != 1 && pid != me && fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty()))
}

/// Unmounts what lies on disks, the last mounted first. A file system that is still busy is left: it is synced.
fn unmount_all() {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for line in mounts.lines().rev() {
        let mut words = line.split(' ');
        let (Some(source), Some(place)) = (words.next(), words.next()) else {
            continue;
        };
        if source.starts_with('/') && place != "/" {
            let _ = umount2(place, MntFlags::empty());
        }
    }
}
