//! What a guest is made of, and the two ways to run it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::cpio::Archive;
use super::guest::{Guest, Lines};
use super::kernels::KernelFiles;
use super::native;
use super::tool;
use super::trouble::{OrTrouble, Result, Trouble};
use crate::protocol::{Disks, Plug};

/// How tests run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Lane {
    /// User mode Linux: an ordinary process; fast; one processor.
    Uml,
    /// QEMU: a distribution's kernel, several processors, systemd.
    Qemu,
    /// This machine itself, if it was made to be thrown away.
    Native,
}

impl Lane {
    /// The name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Lane::Uml => "uml",
            Lane::Qemu => "qemu",
            Lane::Native => "native",
        }
    }
}

/// The blank disks of every guest: name and size in bytes. All are sparse on the host.
pub const SCRATCH: &[(&str, u64)] = &[("scratch0", 8 << 30), ("scratch1", 8 << 30), ("scratch2", 400_000_000_000)];

/// All of them, in their order.
#[must_use]
pub fn all_scratch() -> Disks {
    Disks((0..SCRATCH.len()).map(Plug::Disk).collect())
}

/// The guest's memory, in MiB.
const MEMORY_MIB: u32 = 1536;

/// What QEMU is told to run guest code with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// The processor's own virtualisation, where a probe has shown that it works.
    Kvm,
    /// Translation; works everywhere, 5 to 10 times slower.
    Tcg,
}

/// Everything that makes a guest; its disks live in `folder` and survive its boots.
#[derive(Debug, Clone)]
pub struct Machine {
    /// How it runs; in the native lane the disks, the kernel and the images are the machine's own.
    pub lane: Lane,
    /// Kernel and modules.
    pub files: KernelFiles,
    /// The root image, never written.
    pub root: PathBuf,
    /// The payload image, never written.
    pub payload: PathBuf,
    /// The agent's program.
    pub agent: PathBuf,
    /// This guest's own folder.
    pub folder: PathBuf,
    /// Whether systemd is process 1.
    pub systemd: bool,
    /// For QEMU.
    pub accelerator: Accelerator,
    /// The scratch disks of its next boot.
    pub plugged: Disks,
}

impl Machine {
    /// Makes the guest's disks as new.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn make_disks(&self) -> Result<()> {
        let cannot = || format!("cannot write in `{}`", self.folder.display());
        if self.folder.exists() {
            fs::remove_dir_all(&self.folder).or_trouble(cannot)?;
        }
        fs::create_dir_all(&self.folder).or_trouble(cannot)?;
        if self.lane == Lane::Native {
            return Ok(());
        }
        self.blank_scratch()?;
        self.write_initramfs()?;
        if self.lane == Lane::Qemu {
            let mut command = Command::new("qemu-img");
            command.args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"]);
            tool::run(command.arg(&self.root).arg(self.overlay()))?;
        }
        Ok(())
    }

    /// Makes the scratch disks blank; true if any had been written. A running guest must drop what it has cached.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn blank_scratch(&self) -> Result<bool> {
        let mut written = false;
        if self.lane == Lane::Native {
            return Ok(written);
        }
        for (name, size) in SCRATCH {
            let path = self.folder.join(name);
            let cannot = || format!("cannot size the disk `{}`", path.display());
            if fs::metadata(&path).is_ok_and(|m| m.len() == *size && std::os::unix::fs::MetadataExt::blocks(&m) == 0) {
                continue;
            }
            written = true;
            let file = File::options().create(true).truncate(false).write(true).open(&path).or_trouble(cannot)?;
            file.set_len(0).or_trouble(cannot)?;
            file.set_len(*size).or_trouble(cannot)?;
        }
        Ok(written)
    }

    /// Chooses the scratch disks of the next boots.
    ///
    /// # Errors
    /// When there is no disk of such a number, or what is plugged out cannot be removed.
    pub fn plug(&mut self, disks: Disks) -> Result<()> {
        for plug in &disks.0 {
            let (Plug::Disk(number) | Plug::CopyOf(number)) = *plug;
            if number >= SCRATCH.len() {
                return Err(Trouble::new(format!("cannot plug in the scratch disk {number}: there is none")));
            }
        }
        let gone = |plug: &&Plug| matches!(plug, Plug::CopyOf(_)) && !disks.0.contains(plug);
        for plug in self.plugged.0.iter().filter(gone) {
            let copy = self.folder.join(plug.name());
            if copy.exists() {
                fs::remove_file(&copy).or_trouble(|| format!("cannot remove `{}`", copy.display()))?;
            }
        }
        self.plugged = disks;
        Ok(())
    }

    /// Makes the copies that the next boot has and no boot had before.
    fn copy_disks(&self) -> Result<()> {
        for plug in &self.plugged.0 {
            let copy = self.folder.join(plug.name());
            if let Plug::CopyOf(number) = *plug
                && !copy.exists()
            {
                let original = self.folder.join(Plug::Disk(number).name());
                tool::run(Command::new("cp").args(["--sparse=always", "--reflink=auto"]).arg(original).arg(copy))?;
            }
        }
        Ok(())
    }

    /// Boots the guest with the disks as they are.
    ///
    /// # Errors
    /// When its agent does not come up.
    pub fn boot(&self) -> Result<Guest> {
        self.copy_disks()?;
        Guest::start(&self.folder.join("console.log"), |lines| match self.lane {
            Lane::Uml => self.uml(lines),
            Lane::Native => native::command(&self.agent, lines),
            Lane::Qemu => self.qemu(lines),
        })
    }

    /// The disks in the order in which the guest sees them: name, file, whether it may be written.
    fn disks(&self) -> Vec<(String, PathBuf, bool)> {
        let fixed = [
            ("root".to_string(), self.overlay(), true),
            ("modules".to_string(), self.files.modules.clone(), false),
            ("payload".to_string(), self.payload.clone(), false),
        ];
        let scratch = self.plugged.0.iter().map(|plug| (plug.name(), self.folder.join(plug.name()), true));
        fixed.into_iter().chain(scratch).collect()
    }

    fn overlay(&self) -> PathBuf {
        self.folder.join("root.overlay")
    }

    fn initramfs(&self) -> PathBuf {
        self.folder.join("initramfs")
    }

    /// What the agent must know, as words of the kernel's command line.
    fn settings(&self, control: &str) -> Vec<String> {
        let disks: Vec<String> = self.disks().into_iter().map(|(name, _, _)| name).collect();
        vec![
            format!("lab.lane={}", self.lane.name()),
            format!("lab.control={control}"),
            format!("lab.disks={}", disks.join(",")),
            format!("lab.systemd={}", u8::from(self.systemd)),
            // Where the kernel has it and the root no apparmor_parser, Docker starts no container.
            "apparmor=0".to_string(),
            "panic=-1".to_string(),
            "loglevel=4".to_string(),
        ]
    }

    fn uml(&self, lines: Lines) -> Vec<String> {
        let mut words = vec!["env".to_string()];
        if let Some(library) = &self.files.preload {
            words.push(format!("LD_PRELOAD={}", library.display()));
        }
        words.push(self.files.kernel.display().to_string());
        words.push(format!("mem={MEMORY_MIB}M"));
        words.push(format!("initrd={}", self.initramfs().display()));
        for (place, (name, file, writable)) in self.disks().iter().enumerate() {
            let flag = if *writable { "" } else { "r" };
            let backing = if name == "root" { format!(",{}", self.root.display()) } else { String::new() };
            words.push(format!("ubd{place}{flag}={}{backing}", file.display()));
        }
        words.push(format!("uml_dir={}", self.folder.display()));
        words.extend(["con=null".to_string(), "ssl=null".to_string()]);
        words.push(format!("con0=fd:{}", lines.console));
        words.push(format!("con1=fd:{}", lines.control));
        words.extend(self.settings("/dev/tty1"));
        words
    }

    fn qemu(&self, lines: Lines) -> Vec<String> {
        let mut words: Vec<String> = vec!["qemu-system-x86_64".to_string()];
        words.extend(accelerator_words(self.accelerator).map(str::to_string));
        let fixed = "-smp 2 -nodefaults -display none -no-reboot -no-user-config";
        words.extend(fixed.split(' ').map(str::to_string));
        words.extend(["-m".to_string(), MEMORY_MIB.to_string()]);
        for (id, fd) in [("console", lines.console), ("control", lines.control)] {
            words.extend(["-chardev".to_string(), format!("socket,id={id},fd={fd}")]);
            words.extend(["-serial".to_string(), format!("chardev:{id}")]);
        }
        for (name, file, writable) in self.disks() {
            // Raw files need no flush to survive the end of QEMU; an overlay's own bookkeeping does.
            let kind =
                if name == "root" { "format=qcow2,cache=writeback" } else { "format=raw,cache=unsafe,discard=unmap" };
            let read_only = if writable { "off" } else { "on" };
            words.push("-drive".to_string());
            words.push(format!("if=none,id={name},file={},{kind},read-only={read_only}", file.display()));
            words.extend(["-device".to_string(), format!("virtio-blk-pci,drive={name},serial=lab-{name}")]);
        }
        words.extend(["-kernel".to_string(), self.files.kernel.display().to_string()]);
        words.extend(["-initrd".to_string(), self.initramfs().display().to_string()]);
        let append = [vec!["console=ttyS0".to_string()], self.settings("/dev/ttyS1")].concat();
        words.extend(["-append".to_string(), append.join(" ")]);
        words
    }

    fn write_initramfs(&self) -> Result<()> {
        let mut archive = Archive::default();
        let read = |path: &Path| fs::read(path).or_trouble(|| format!("cannot read `{}`", path.display()));
        for folder in ["dev", "proc", "sys", "run", "tmp", "root", "early"] {
            archive.folder(folder);
        }
        archive.file("init", 0o755, &read(&self.agent)?);
        let mut list = String::new();
        for module in &self.files.early {
            let name = format!("early/{}", module.file_name().unwrap_or_default().to_string_lossy());
            archive.file(&name, 0o644, &read(module)?);
            list.push_str(&format!("/{name}\n"));
        }
        archive.file("early-modules", 0o644, list.as_bytes());
        let place = self.initramfs();
        fs::write(&place, archive.finish()).or_trouble(|| format!("cannot write `{}`", place.display()))
    }
}

/// QEMU's words for an accelerator and the processor that goes with it.
pub fn accelerator_words(accelerator: Accelerator) -> impl Iterator<Item = &'static str> {
    match accelerator {
        Accelerator::Kvm => "-accel kvm -cpu host",
        // QEMU 7.2's 16-byte compare-and-exchange makes newer kernels fault at random.
        Accelerator::Tcg => "-accel tcg,thread=multi -cpu max,-cx16",
    }
    .split(' ')
}
