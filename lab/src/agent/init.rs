//! The first seconds of a guest: from an initramfs with nothing but this program to a Debian root with its agent.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use nix::sys::wait::{WaitStatus, wait};
use nix::unistd::{Pid, chdir, chroot, sethostname};

use super::{AGENT, Settings, disks, down, say};
use crate::protocol::PAYLOAD;

/// The root disk's place while the initramfs is still `/`.
const NEW_ROOT: &str = "/root";

/// Paths of the modules that the root disk itself needs, in load order; written by the host.
const EARLY_MODULES: &str = "/early-modules";

/// Modules that tests may need. One that a kernel lacks (or has built in) is passed over: the test that needs it says so.
const MODULES: &[&str] = &[
    "dm-mod",
    "dm-thin-pool",
    "dm-snapshot",
    "dm-flakey",
    "dm-log-writes",
    "dm-delay",
    "dm-dust",
    "loop",
    "overlay",
    "ext4",
    "xfs",
    "fuse",
];

/// What process 1 does; on any failure the guest goes down, which the host sees.
pub(super) fn run() -> ! {
    let failure = match boot() {
        Ok(never) => match never {},
        Err(e) => e,
    };
    say(format!("this guest cannot start: {failure:#}"));
    down::stop(&Settings::read())
}

/// A program with the PATH that the kernel gives nobody.
fn program(name: &str) -> Command {
    let mut command = Command::new(name);
    command.env("PATH", super::PATH);
    command
}

fn boot() -> Result<Infallible> {
    mount_kernel_folders("")?;
    let settings = Settings::read();
    load_early_modules()?;
    mount_disk(&settings, "root", Path::new(NEW_ROOT), MsFlags::empty()).context("mounting the root disk")?;
    mount_kernel_folders(NEW_ROOT)?;
    let in_new_root = |path: &str| Path::new(NEW_ROOT).join(path.trim_start_matches('/'));
    fs::create_dir_all(in_new_root("/run/lab"))?;
    fs::copy("/init", in_new_root(AGENT)).context("keeping the agent for later")?;
    let release = nix::sys::utsname::uname()?.release().to_string_lossy().into_owned();
    let modules = in_new_root(&format!("/lib/modules/{release}"));
    mount_disk(&settings, "modules", &modules, MsFlags::MS_RDONLY).context("mounting the kernel's modules")?;
    mount_disk(&settings, "payload", &in_new_root(PAYLOAD), MsFlags::MS_RDONLY).context("mounting the payload")?;
    for (part, place) in [("bin", "/usr/local/bin"), ("examples", "/usr/local/lib/dmpool-examples")] {
        let place = in_new_root(place);
        fs::create_dir_all(&place)?;
        bind(&in_new_root(PAYLOAD).join(part), &place)?;
    }
    if settings.systemd {
        write_unit(&in_new_root("/run/systemd/system"))?;
    }
    enter(NEW_ROOT)?;
    sethostname("lab")?;
    load_modules();
    if settings.systemd {
        return Err(program("/sbin/init").exec()).context("starting systemd");
    }
    start_plain(&settings)
}

/// Without systemd: the file systems and daemons a test expects, then the agent, whose end is the guest's.
fn start_plain(settings: &Settings) -> Result<Infallible> {
    fs::create_dir_all("/run/lock")?;
    mount(Some("cgroup2"), "/sys/fs/cgroup", Some("cgroup2"), MsFlags::empty(), None::<&str>)
        .context("mounting the cgroups")?;
    let _ = program("ip").args(["link", "set", "lo", "up"]).status();
    if settings.lane == "uml" {
        fs::create_dir_all("/run/udev/rules.d")?;
        fs::write("/run/udev/rules.d/59-lab.rules", disks::rules(&settings.disks)).context("naming the disks")?;
    }
    super::serve::start_udev();
    let agent = program(AGENT).spawn().context("starting the agent")?;
    let agent = Pid::from_raw(i32::try_from(agent.id())?);
    loop {
        match wait() {
            Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, _, _)) if pid == agent => {
                anyhow::bail!("the agent ended");
            }
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(e) => return Err(e).context("waiting for children"),
        }
    }
}

/// /proc, /sys, /dev and /run under `root`.
fn mount_kernel_folders(root: &str) -> Result<()> {
    let everywhere = [
        ("proc", "proc", None),
        ("sysfs", "sys", None),
        ("devtmpfs", "dev", None),
        ("tmpfs", "run", Some("mode=0755")),
        ("tmpfs", "tmp", Some("mode=1777")),
        ("devpts", "dev/pts", Some("mode=0620,ptmxmode=0666")),
        ("tmpfs", "dev/shm", Some("mode=1777")),
    ];
    for (kind, place, options) in everywhere {
        let place = format!("{root}/{place}");
        fs::create_dir_all(&place).with_context(|| format!("creating {place}"))?;
        match mount(Some(kind), place.as_str(), Some(kind), MsFlags::empty(), options) {
            // A kernel may mount devtmpfs by itself.
            Ok(()) | Err(nix::Error::EBUSY) => {}
            Err(e) => return Err(e).with_context(|| format!("mounting {kind} on {place}")),
        }
    }
    for (link, target) in [("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")] {
        match symlink(target, format!("{root}/dev/{link}")) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                return Err(e).context("linking in /dev");
            }
            _ => {}
        }
    }
    Ok(())
}

fn load_early_modules() -> Result<()> {
    let Ok(list) = fs::read_to_string(EARLY_MODULES) else {
        return Ok(());
    };
    for path in list.lines() {
        let file = fs::File::open(path).with_context(|| format!("opening {path}"))?;
        match finit_module(&file, c"", ModuleInitFlags::empty()) {
            Ok(()) | Err(nix::Error::EEXIST) => {}
            Err(e) => return Err(e).with_context(|| format!("loading {path}")),
        }
    }
    Ok(())
}

fn load_modules() {
    match program("modprobe").arg("--all").args(MODULES).output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => say(String::from_utf8_lossy(&output.stderr).trim_end()),
        Err(e) => say(format!("modprobe: {e}")),
    }
}

fn mount_disk(settings: &Settings, name: &str, place: &Path, flags: MsFlags) -> Result<()> {
    let device = disks::device(&settings.disks, name)?;
    fs::create_dir_all(place).with_context(|| format!("creating {}", place.display()))?;
    mount(Some(&device), place, Some("ext4"), flags, None::<&str>)
        .with_context(|| format!("mounting {} on {}", device.display(), place.display()))
}

fn bind(from: &Path, to: &Path) -> Result<()> {
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .with_context(|| format!("mounting {} on {}", from.display(), to.display()))
}

/// Makes `new_root` the root of everything.
fn enter(new_root: &str) -> Result<()> {
    chdir(new_root).context("entering the root disk")?;
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>).context("moving the root disk to /")?;
    chroot(".").context("entering the root disk")?;
    chdir("/").context("entering the root disk")
}

/// A unit that starts the agent once Docker and everything else is up.
fn write_unit(folder: &Path) -> Result<()> {
    let unit = format!(
        "[Unit]\nDescription=The lab's agent\nAfter=multi-user.target\n\n\
         [Service]\nExecStart={AGENT}\nKillMode=process\nStandardOutput=journal+console\n\
         StandardError=journal+console\nDelegate=yes\n"
    );
    let wants = folder.join("graphical.target.wants");
    fs::create_dir_all(&wants)?;
    fs::create_dir_all(folder.join("multi-user.target.wants"))?;
    fs::write(folder.join("lab-agent.service"), unit)?;
    symlink("../lab-agent.service", wants.join("lab-agent.service"))?;
    Ok(())
}
