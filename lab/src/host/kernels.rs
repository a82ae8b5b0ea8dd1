//! The kernels guests run, fetched as Debian packages, with their modules as disk images.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::cache;
use super::debian::{self, Suite};
use super::image;
use super::packages;
use super::place::Places;
use super::show;
use super::tool;
use super::trouble::{OrTrouble, Result, Trouble};

/// A kernel by the name it has on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Kernel {
    /// Debian 11's.
    #[value(name = "5.10")]
    V5_10,
    /// Debian 12's.
    #[value(name = "6.1")]
    V6_1,
    /// Debian 13's.
    #[value(name = "6.12")]
    V6_12,
    /// What Debian's development suite has today.
    #[value(name = "newest")]
    Newest,
}

impl Kernel {
    /// All of them, oldest first.
    pub const ALL: [Kernel; 4] = [Kernel::V5_10, Kernel::V6_1, Kernel::V6_12, Kernel::Newest];

    /// The name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kernel::V5_10 => "5.10",
            Kernel::V6_1 => "6.1",
            Kernel::V6_12 => "6.12",
            Kernel::Newest => "newest",
        }
    }

    fn suite(self) -> &'static str {
        match self {
            Kernel::V5_10 => "bullseye",
            Kernel::V6_1 => "bookworm",
            Kernel::V6_12 => "trixie",
            Kernel::Newest => "sid",
        }
    }
}

/// What a lane needs of a kernel.
#[derive(Debug, Clone, Default)]
pub struct KernelFiles {
    /// The program (user mode Linux) or the image (QEMU).
    pub kernel: PathBuf,
    /// An ext4 image of its modules folder.
    pub modules: PathBuf,
    /// The modules that the root disk needs, in load order.
    pub early: Vec<PathBuf>,
    /// A library to preload (user mode Linux).
    pub preload: Option<PathBuf>,
}

/// Modules that an initramfs for QEMU must load before there is a root disk.
const EARLY: &[&str] = &["virtio_pci", "virtio_blk", "crc32c_generic", "crc32c_intel", "ext4"];

/// Folders under `kernel/` whose modules are kept; the rest are drivers of hardware that no guest has.
const KEPT: &[&str] = &[
    "arch",
    "block",
    "crypto",
    "drivers/block",
    "drivers/char",
    "drivers/md",
    "drivers/virtio",
    "drivers/net/veth",
    "drivers/net/dummy",
    "fs",
    "lib",
    "mm",
    "net/bridge",
    "net/ipv4",
    "net/ipv6",
    "net/netfilter",
    "net/802",
    "net/llc",
    "drivers/dax",
    "drivers/nvdimm",
    "security",
];

/// Files for a guest in QEMU.
///
/// # Errors
/// When they cannot be fetched or unpacked.
pub fn for_qemu(places: &Places, kernel: Kernel) -> Result<KernelFiles> {
    let recipe = format!("4 {} {EARLY:?} {KEPT:?}", kernel.suite());
    let name = format!("kernel-{}", kernel.name());
    let piece = cache::piece(&places.cache(), &name, &recipe, |folder| {
        let what = format!("fetching kernel {} (Debian {})", kernel.name(), kernel.suite());
        show::step(&what, || {
            let suite = Suite::open(&places.lab(), kernel.suite())?;
            // What the metapackage stands for today; newer Debians keep image and modules in packages of their own.
            let mut packages = suite.depends("linux-image-cloud-amd64", "linux-image-")?;
            for package in packages.clone() {
                packages.extend(suite.depends(&package, "linux-binary-")?);
                packages.extend(suite.depends(&package, "linux-modules-")?);
            }
            let tree = folder.join("tree");
            fs::create_dir(&tree).or_trouble(|| format!("cannot create `{}`", tree.display()))?;
            suite.unpack(&packages, &tree)?;
            // Newer Debians keep everything under /usr.
            let lib = [tree.join("usr/lib/modules"), tree.join("lib/modules")].into_iter().find(|p| p.exists());
            let lib = lib.ok_or_else(|| Trouble::new(format!("cannot find the modules in {packages:?}")))?;
            let modules = only_in(&lib, "")?;
            let beside = modules.join("vmlinuz");
            let image = if beside.exists() { beside } else { only_in(&tree.join("boot"), "vmlinuz-")? };
            move_file(&image, &folder.join("vmlinuz"))?;
            prune(&modules)?;
            pack_modules(&modules, folder)?;
            fs::remove_dir_all(&tree).or_trouble(|| format!("cannot remove `{}`", tree.display()))
        })
    })?;
    let early = fs::read_to_string(piece.join("early.list")).or_trouble(|| "cannot read `early.list`".into())?;
    Ok(KernelFiles {
        kernel: piece.join("vmlinuz"),
        modules: piece.join("modules.img"),
        early: early.lines().map(|l| piece.join("early").join(l)).collect(),
        preload: None,
    })
}

/// Files for a guest in user mode Linux.
///
/// # Errors
/// When they cannot be fetched or unpacked, and for a kernel whose Debian has no user mode Linux.
pub fn for_uml(places: &Places, kernel: Kernel) -> Result<KernelFiles> {
    if kernel == Kernel::V5_10 {
        return Err(Trouble::new("cannot run kernel 5.10 as user mode Linux: no Debian package of it is in this lab")
            .next("cargo lab … --lane qemu --kernel 5.10"));
    }
    let foreign = debian::machine_suite() != kernel.suite();
    // A patched program names its library folder by its full path, so the place is part of the recipe.
    let recipe =
        format!("4 {} {}", kernel.suite(), if foreign { places.cache().display().to_string() } else { String::new() });
    let name = format!("uml-{}", kernel.name());
    let piece = cache::piece(&places.cache(), &name, &recipe, |folder| {
        let what = format!("fetching user mode Linux {} (Debian {})", kernel.name(), kernel.suite());
        if foreign {
            packages::install(packages::TO_RUN_NEWER_UML)?;
        }
        show::step(&what, || {
            let suite = Suite::open(&places.lab(), kernel.suite())?;
            let tree = folder.join("tree");
            fs::create_dir(&tree).or_trouble(|| format!("cannot create `{}`", tree.display()))?;
            suite.unpack(&["user-mode-linux"], &tree)?;
            move_file(&tree.join("usr/bin/linux.uml"), &folder.join("linux.uml"))?;
            pack_modules(&only_in(&tree.join("usr/lib/uml/modules"), "")?, folder)?;
            if foreign {
                suite.unpack(&["libc6"], &tree)?;
                adopt_library(&tree, folder)?;
            }
            fs::remove_dir_all(&tree).or_trouble(|| format!("cannot remove `{}`", tree.display()))
        })
    })?;
    Ok(KernelFiles {
        kernel: piece.join("linux.uml"),
        modules: piece.join("modules.img"),
        early: Vec::new(),
        preload: Some(preload(places)?),
    })
}

/// Gives the program in `folder` the C library of its own Debian.
fn adopt_library(tree: &Path, folder: &Path) -> Result<()> {
    let library = folder.join("lib");
    fs::create_dir(&library).or_trouble(|| format!("cannot create `{}`", library.display()))?;
    let from = [tree.join("usr/lib/x86_64-linux-gnu"), tree.join("lib/x86_64-linux-gnu")];
    for name in ["libc.so.6", "ld-linux-x86-64.so.2"] {
        let Some(file) = from.iter().map(|f| f.join(name)).find(|f| f.exists()) else {
            return Err(Trouble::new(format!("cannot find `{name}` in package `libc6`")));
        };
        fs::copy(&file, library.join(name)).or_trouble(|| format!("cannot copy `{}`", file.display()))?;
    }
    // The piece is renamed when it is finished: name the final place.
    let final_library = library.display().to_string().replace(&format!("{}/", cache::PARTIAL), "/");
    tool::run(
        Command::new("patchelf")
            .arg("--set-interpreter")
            .arg(format!("{final_library}/ld-linux-x86-64.so.2"))
            .arg("--set-rpath")
            .arg(&final_library)
            .arg(folder.join("linux.uml")),
    )
    .map(|_| ())
}

/// The library that mends user mode Linux; its source says what.
fn preload(places: &Places) -> Result<PathBuf> {
    let piece = cache::piece(&places.cache(), "uml-preload", PRELOADED, |folder| compile_preload(folder).map(drop))?;
    Ok(piece.join("uml.so"))
}

const PRELOADED: &str = include_str!("../../shim/uml.c");

fn compile_preload(folder: &Path) -> Result<PathBuf> {
    let (text, library) = (folder.join("uml.c"), folder.join("uml.so"));
    fs::write(&text, PRELOADED).or_trouble(|| format!("cannot write `{}`", text.display()))?;
    tool::run(Command::new("cc").args(["-O2", "-Wall", "-shared", "-fPIC", "-o"]).arg(&library).arg(text))?;
    Ok(library)
}

/// Turns a modules folder into `modules.img`, `early/` and `early.list`.
fn pack_modules(modules: &Path, folder: &Path) -> Result<()> {
    let release = modules.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let base = folder.join("base");
    let home = base.join("lib/modules");
    fs::create_dir_all(&home).or_trouble(|| format!("cannot create `{}`", home.display()))?;
    let place = home.join(&release);
    fs::rename(modules, &place).or_trouble(|| format!("cannot move `{}`", modules.display()))?;
    let compressed = "find \"$1\" -name '*.ko.xz' -print0 | xargs -0 -r -P2 -n64 xz --decompress";
    tool::run(Command::new("sh").args(["-ec", compressed, "sh"]).arg(&place))?;
    tool::run(Command::new("depmod").arg("-b").arg(&base).arg(&release))?;
    let dependencies =
        fs::read_to_string(place.join("modules.dep")).or_trouble(|| "cannot read `modules.dep`".into())?;
    let early = folder.join("early");
    fs::create_dir(&early).or_trouble(|| format!("cannot create `{}`", early.display()))?;
    let mut list = String::new();
    for module in load_order(&dependencies, EARLY) {
        let file = Path::new(&module).file_name().unwrap_or_default();
        fs::copy(place.join(&module), early.join(file)).or_trouble(|| format!("cannot copy `{module}`"))?;
        list.push_str(&file.to_string_lossy());
        list.push('\n');
    }
    fs::write(folder.join("early.list"), list).or_trouble(|| "cannot write `early.list`".into())?;
    image::ext4(&folder.join("modules.img"), image::size_for(&place)?, &place, false)?;
    fs::remove_dir_all(&base).or_trouble(|| format!("cannot remove `{}`", base.display()))
}

/// Removes the modules of hardware that no guest has.
fn prune(modules: &Path) -> Result<()> {
    let kernel = modules.join("kernel");
    let list = tool::run(Command::new("find").arg(&kernel).args(["-name", "*.ko*", "-printf", "%P\\n"]))?;
    for path in list.lines().filter(|path| !KEPT.iter().any(|kept| path.starts_with(kept))) {
        fs::remove_file(kernel.join(path)).or_trouble(|| format!("cannot remove `{path}`"))?;
    }
    Ok(())
}

/// The paths of `wanted` modules and all they depend on, what is needed first first. Modules that are not in the
/// list (built in, or not in this kernel) are passed over.
fn load_order(modules_dep: &str, wanted: &[&str]) -> Vec<String> {
    let mut needs: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut path_of: BTreeMap<String, &str> = BTreeMap::new();
    for (path, rest) in modules_dep.lines().filter_map(|l| l.split_once(':')) {
        needs.insert(path, rest.split_ascii_whitespace().collect());
        let file = path.rsplit('/').next().unwrap_or(path);
        let name = file.split('.').next().unwrap_or(file).replace('-', "_");
        path_of.insert(name, path);
    }
    let mut order = Vec::new();
    let mut placed = BTreeSet::new();
    for path in wanted.iter().filter_map(|name| path_of.get(*name)) {
        // modules.dep lists the whole closure, the nearest first: load it from its end.
        for module in needs.get(path).into_iter().flatten().rev().chain([path]) {
            if placed.insert(*module) {
                order.push((*module).to_string());
            }
        }
    }
    order
}

/// The only entry of `folder` whose name begins with `prefix`.
fn only_in(folder: &Path, prefix: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).or_trouble(|| format!("cannot list `{}`", folder.display()))?;
    let mut found = entries
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with(prefix)));
    found.next().ok_or_else(|| Trouble::new(format!("cannot find `{prefix}…` in `{}`", folder.display())))
}

fn move_file(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).or_trouble(|| format!("cannot move `{}`", from.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_timer_that_is_set_once_comes_again_until_it_is_set_anew() {
        let folder = tempfile::tempdir().unwrap();
        let library = compile_preload(folder.path()).unwrap();
        let (text, program) = (folder.path().join("timer.c"), folder.path().join("timer"));
        fs::write(&text, include_str!("../../shim/timer.c")).unwrap();
        tool::run(Command::new("cc").args(["-Wall", "-Werror", "-o"]).arg(&program).arg(text)).unwrap();
        let line = |preload: &Path| Command::new(&program).env("LD_PRELOAD", preload).status().unwrap().code();
        assert_eq!(line(&library), Some(0));
        // Without it, the timer does not come a second time.
        assert_ne!(line(Path::new("")), Some(0));
    }

    #[test]
    fn what_a_module_needs_is_loaded_before_it_and_once() {
        let dep =
            "a/ext4.ko: a/jbd2.ko a/crc.ko\na/jbd2.ko: a/crc.ko\na/crc.ko:\nb/virtio-pci.ko: b/ring.ko\nb/ring.ko:\n";
        let order = load_order(dep, &["virtio_pci", "absent", "jbd2", "ext4"]);
        assert_eq!(order, ["b/ring.ko", "b/virtio-pci.ko", "a/crc.ko", "a/jbd2.ko", "a/ext4.ko"]);
    }
}
