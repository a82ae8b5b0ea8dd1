//! Disk images: ext4 file systems made from folders, without mounting anything.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::cache;
use super::debian;
use super::place::{self, Places};
use super::show;
use super::tool;
use super::trouble::{OrTrouble, Result, Trouble};

/// The Debian of every guest, whatever its kernel.
pub const ROOT_SUITE: &str = "bookworm";

/// What the root image holds beside a minimal Debian.
const ROOT_PACKAGES: &[&str] = &[
    "busybox-static",
    "containerd",
    "dbus",
    "dmsetup",
    "docker.io",
    "dosfstools",
    "e2fsprogs",
    "fdisk",
    "file",
    "iproute2",
    "kmod",
    "lvm2",
    "mdadm",
    "procps",
    "psmisc",
    "strace",
    "systemd",
    "systemd-sysv",
    "thin-provisioning-tools",
    "udev",
    "util-linux",
    "xfsprogs",
];

/// The root image's size; sparse, so only what is used counts.
const ROOT_SIZE: u64 = 16 << 30;

/// Makes an ext4 image of `size` bytes (sparse) that holds a copy of `folder`.
///
/// # Errors
/// When mke2fs fails.
pub fn ext4(image: &Path, size: u64, folder: &Path, journal: bool) -> Result<()> {
    let file = File::create(image).or_trouble(|| format!("cannot create `{}`", image.display()))?;
    file.set_len(size).or_trouble(|| format!("cannot size `{}`", image.display()))?;
    let mut command = Command::new("mke2fs");
    command.args(["-q", "-F", "-t", "ext4", "-m", "0", "-E", "root_owner=0:0"]);
    if !journal {
        command.args(["-O", "^has_journal"]);
    }
    tool::run(command.arg("-d").arg(folder).arg(image)).map(|_| ())
}

/// Bytes for an image that must hold `folder` and nothing more.
///
/// # Errors
/// When the folder cannot be measured.
pub fn size_for(folder: &Path) -> Result<u64> {
    let text = tool::run(Command::new("du").args(["--summarize", "--block-size=1", "--dereference-args"]).arg(folder))?;
    let used = text.split_ascii_whitespace().next().and_then(|n| n.parse::<u64>().ok());
    let used = used.ok_or_else(|| Trouble::new(format!("cannot measure `{}`", folder.display())).fact("said", text))?;
    Ok(used + used / 4 + (32 << 20))
}

/// The guests' root image, made if it is not there.
///
/// # Errors
/// When mmdebstrap or mke2fs fails.
pub fn root(places: &Places) -> Result<PathBuf> {
    let recipe = format!("3 {ROOT_SUITE} {ROOT_SIZE} {}", ROOT_PACKAGES.join(" "));
    let piece = cache::piece(&places.cache(), "root", &recipe, |folder| {
        if !nix::unistd::geteuid().is_root() {
            return Err(Trouble::new("cannot make the guests' root image: only root can, and it is done once")
                .next(format!("sudo {} setup    then run this again as yourself", place::this_program())));
        }
        show::step("making the guests' root image (Debian 12 with Docker and containerd)", || make_root(folder))
    })?;
    Ok(piece.join("root.img"))
}

fn make_root(folder: &Path) -> Result<()> {
    let tree = folder.join("tree");
    // It mounts below the tree: where those mounts are its own, they end with it, and whoever clears up after one that was
    // killed removes the tree alone.
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "--", "mmdebstrap"]);
    command.args(["--variant=minbase", "--architectures=amd64"]);
    command.arg(format!("--include={}", ROOT_PACKAGES.join(",")));
    // Documentation and translations are only weight.
    for what in ["man", "doc", "locale", "info"] {
        command.arg(format!("--dpkgopt=path-exclude=/usr/share/{what}/*"));
    }
    command.arg("--customize-hook=systemctl --root=\"$1\" mask serial-getty@.service getty@.service apt-daily.timer apt-daily-upgrade.timer");
    command.arg("--customize-hook=mkdir -p \"$1/usr/local/lib/dmpool-examples\"");
    command.arg("--customize-hook=rm -f \"$1/etc/resolv.conf\"; echo lab > \"$1/etc/hostname\"; echo 127.0.0.1 localhost lab > \"$1/etc/hosts\"");
    command.arg(ROOT_SUITE).arg(&tree);
    tool::run(command.args(debian::sources(ROOT_SUITE)?))?;
    ext4(&folder.join("root.img"), ROOT_SIZE, &tree, true)?;
    std::fs::remove_dir_all(&tree).or_trouble(|| format!("cannot remove `{}`", tree.display()))
}
