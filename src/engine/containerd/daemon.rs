//! Which configurations containerd runs with, and will run with: by the command lines of processes and of units.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::engine::docker_root::Problem;
use crate::engine::dockerd::{LONGEST_TABLE, SOCKETS};
use crate::engine::small_file;
use crate::engine::start;

/// Where containerd reads its configuration when `--config` names no other.
pub(super) const CONFIG: &str = "/etc/containerd/config.toml";
/// Its units: of the distributions, and of Firecracker's build of it.
const UNITS: [&str; 2] = ["containerd.service", "firecracker-containerd.service"];
const PROGRAMS: [&str; 2] = ["containerd", "firecracker-containerd"];
/// What the kernel keeps of a program's name.
const KEPT: usize = 15;
/// Flags with a value of their own (cmd/containerd/command/main.go).
const WITH_VALUE: [&str; 8] = ["config", "c", "root", "state", "address", "a", "log-level", "l"];
/// The longest command line looked at.
const LONGEST: u64 = 1 << 20;

/// What a command line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flags {
    /// `--config` or `-c`, or the place where it is otherwise.
    pub config: PathBuf,
    /// `--root`, which counts more than the configuration's.
    pub root: Option<PathBuf>,
}

impl Flags {
    /// Reads a command line; nothing when the program is no containerd, or does something else than run.
    pub fn of_words(words: &[&str]) -> Option<Self> {
        let (program, rest) = words.split_first()?;
        if !PROGRAMS.contains(&program.rsplit('/').next()?) {
            return None;
        }
        let mut flags = Self { config: PathBuf::from(CONFIG), root: None };
        let mut rest = rest.iter();
        while let Some(word) = rest.next() {
            // A word that is no flag is a command: `containerd config default`.
            let flag = word.trim_start_matches('-');
            if flag == *word {
                return None;
            }
            let (name, attached) = flag.split_once('=').map_or((flag, None), |(name, value)| (name, Some(value)));
            let value = if WITH_VALUE.contains(&name) { attached.or_else(|| rest.next().copied()) } else { None };
            match (name, value) {
                ("config" | "c", Some(value)) => flags.config = PathBuf::from(value),
                ("root", Some(value)) => flags.root = Some(PathBuf::from(value)),
                _ => {}
            }
        }
        Some(flags)
    }
}

/// Returns the command lines of all containerds that run on this machine's files, those of Docker's own among them. Processes
/// are looked at only when some socket has its name: a machine has a kernel thread for each of its thousand thin volumes.
pub(super) fn running() -> Vec<Flags> {
    let named = |table: Vec<u8>| table.windows(10).any(|word| word == b"containerd");
    if !small_file::read_at(Path::new(SOCKETS), LONGEST_TABLE).map_or(true, named) {
        return Vec::new();
    }
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut pids: Vec<u32> = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    pids.into_iter().filter_map(of_process).collect()
}

fn of_process(pid: u32) -> Option<Flags> {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let name = small_file::read_at(&process.join("comm"), 64).ok()?;
    let name = name.trim_ascii_end();
    if !PROGRAMS.iter().any(|program| name == program.as_bytes().get(..KEPT).unwrap_or(program.as_bytes())) {
        return None;
    }
    let line = small_file::read_at(&process.join("cmdline"), LONGEST).ok()?;
    let text = String::from_utf8_lossy(&line);
    let words: Vec<&str> = text.strip_suffix('\0').unwrap_or(&text).split('\0').collect();
    let flags = Flags::of_words(&words)?;
    let config = match flags.config.is_relative() {
        true => fs::read_link(process.join("cwd")).ok()?.join(&flags.config),
        false => flags.config,
    };
    // The files of one in a container are not ours.
    let identity = |path: &Path| path.metadata().map(|found| (found.dev(), found.ino())).ok();
    let theirs = process.join("root").join(config.strip_prefix("/").ok()?);
    (identity(&theirs) == identity(&config)).then_some(Flags { config, ..flags })
}

/// Returns what the units on a machine will start containerd with; with none of them, what it takes by itself.
pub(super) fn next(base: &Path, problems: &mut Vec<Problem>) -> Vec<Flags> {
    let found: Vec<_> = of_units(base, problems).into_iter().map(|(_, flags)| flags).collect();
    if found.is_empty() { vec![Flags { config: PathBuf::from(CONFIG), root: None }] } else { found }
}

/// Returns the units on a machine that start a containerd, with what they start it with.
pub(super) fn of_units(base: &Path, problems: &mut Vec<Problem>) -> Vec<(&'static str, Flags)> {
    let mut found = Vec::new();
    for unit in UNITS {
        let (words, why) = start::service(base, unit);
        problems.extend(why);
        let words = words.unwrap_or_default();
        let flags = Flags::of_words(&words.iter().map(String::as_str).collect::<Vec<_>>());
        found.extend(flags.map(|flags| (unit, flags)));
    }
    found
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn command_lines_are_read_in_every_spelling() {
        let of = |line: &str| Flags::of_words(&line.split(' ').collect::<Vec<_>>());
        let flags =
            |config: &str, root: Option<&str>| Some(Flags { config: config.into(), root: root.map(PathBuf::from) });
        assert_eq!(of("/usr/bin/containerd"), flags(CONFIG, None));
        for line in
            ["containerd --config /c.toml", "containerd -c /c.toml --log-level debug", "containerd -l debug -c=/c.toml"]
        {
            assert_eq!(of(line), flags("/c.toml", None), "{line}");
        }
        let k3s = "containerd -c /var/lib/rancher/k3s/agent/etc/containerd/config.toml -a /run/k3s/containerd/containerd.sock \
                   --state /run/k3s/containerd --root /var/lib/rancher/k3s/agent/containerd";
        let place = "/var/lib/rancher/k3s/agent/etc/containerd/config.toml";
        assert_eq!(of(k3s), flags(place, Some("/var/lib/rancher/k3s/agent/containerd")));
        assert_eq!(of("/opt/firecracker-containerd --config=/c.toml"), flags("/c.toml", None));
        for other in ["containerd config dump", "containerd-shim -namespace moby", "ctr --config /c", ""] {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[test]
    fn a_unit_tells_what_the_next_one_will_read() {
        let temp = tempfile::tempdir().unwrap();
        let mut problems = Vec::new();
        assert_eq!(next(temp.path(), &mut problems), [Flags { config: CONFIG.into(), root: None }]);
        let units = temp.path().join("etc/systemd/system");
        fs::create_dir_all(&units).unwrap();
        let unit = "[Service]\nExecStartPre=-/sbin/modprobe overlay\nExecStart=/usr/bin/containerd -c /srv/c.toml\n";
        fs::write(units.join("containerd.service"), unit).unwrap();
        assert_eq!(next(temp.path(), &mut problems), [Flags { config: "/srv/c.toml".into(), root: None }]);
        assert_eq!(problems, []);
    }
}
