//! The Docker daemon that runs now, as far as `/proc` tells: its process, and what its command line says of storage.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::small_file;

/// Where a daemon writes its process id when `--pidfile` names no other place.
const PID_FILE: &str = "/var/run/docker.pid";
/// The longest command line or environment looked at.
const LONGEST_COMMAND_LINE: u64 = 1 << 20;

/// The variable that names the storage driver: it counts more than command line and `daemon.json` (`NewDaemon`,
/// daemon/daemon.go).
pub const DRIVER_VARIABLE: &str = "DOCKER_DRIVER";

/// What a daemon's command line says of its storage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// `--data-root`, or `--graph`, or `-g`.
    pub root: Option<PathBuf>,
    /// `--config-file`.
    pub config_file: Option<PathBuf>,
    /// `--storage-driver`, or `-s`.
    pub storage_driver: Option<String>,
    /// `--storage-opt`, each as given.
    pub storage_options: Vec<String>,
    /// Every flag, by the key that says the same in `daemon.json`, with its values as given.
    pub keys: BTreeMap<String, Vec<String>>,
}

/// Flags with one letter, and their long names (cmd/dockerd/config*.go).
const SHORT: [(&str, &str); 9] = [
    ("b", "bridge"),
    ("D", "debug"),
    ("g", "graph"),
    ("G", "group"),
    ("H", "host"),
    ("l", "log-level"),
    ("p", "pidfile"),
    ("s", "storage-driver"),
    ("e", "exec-driver"),
];

/// Flags that may be given many times are called otherwise in `daemon.json` (`NewNamedListOptsRef` and its like,
/// cmd/dockerd/config*.go).
const NAMED: [(&str, &str); 14] = [
    ("add-runtime", "runtimes"),
    ("authorization-plugin", "authorization-plugins"),
    ("cluster-store-opt", "cluster-store-opts"),
    ("default-address-pool", "default-address-pools"),
    ("default-ulimit", "default-ulimits"),
    ("dns-opt", "dns-opts"),
    ("exec-opt", "exec-opts"),
    ("host", "hosts"),
    ("insecure-registry", "insecure-registries"),
    ("label", "labels"),
    ("log-opt", "log-opts"),
    ("node-generic-resource", "node-generic-resources"),
    ("registry-mirror", "registry-mirrors"),
    ("storage-opt", "storage-opts"),
];

/// A Docker daemon that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dockerd {
    /// Its process.
    pub pid: u32,
    /// What it was started with.
    pub flags: Flags,
    /// The storage driver that its environment names ([`DRIVER_VARIABLE`]).
    pub driver_variable: Option<String>,
}

/// Returns the Docker daemons that run, the one of the usual PID file first. Other processes are looked at only when
/// that file names none and a socket of Docker's says that there is one: a machine has a kernel thread for each of its
/// thousand thin volumes.
pub fn running() -> Vec<Dockerd> {
    let usual = small_file::read_at(Path::new(PID_FILE), 32)
        .ok()
        .and_then(|bytes| std::str::from_utf8(&bytes).ok()?.trim().parse().ok())
        .and_then(daemon);
    match usual {
        Some(dockerd) => vec![dockerd],
        None if has_socket() => all(),
        None => Vec::new(),
    }
}

/// The kernel's table of Unix sockets.
pub(super) const SOCKETS: &str = "/proc/net/unix";
/// More than it has with a hundred thousand of them.
pub(super) const LONGEST_TABLE: u64 = 16 << 20;

/// Whether a Unix socket with Docker's name is open: beside the one it is asked by (`docker.sock`), every daemon with
/// networks has one below `/run/docker` (libnetwork's). Where it cannot be told, it may be.
fn has_socket() -> bool {
    let table = small_file::read_at(Path::new(SOCKETS), LONGEST_TABLE);
    table.map_or(true, |table| table.windows(6).any(|word| word == b"docker"))
}

/// Returns every Docker daemon that runs, also those beside the one of the usual PID file.
pub fn all() -> Vec<Dockerd> {
    let Ok(processes) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let mut pids: Vec<u32> = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    pids.into_iter().filter_map(daemon).collect()
}

/// Returns the daemon that runs as that process, or nothing when it is gone or something else.
fn daemon(pid: u32) -> Option<Dockerd> {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let name = small_file::read_at(&process.join("comm"), 64).ok()?;
    if !name.starts_with(b"docker") {
        return None;
    }
    let line = small_file::read_at(&process.join("cmdline"), LONGEST_COMMAND_LINE).ok()?;
    let flags = Flags::parse(&line)?;
    let environment = small_file::read_at(&process.join("environ"), LONGEST_COMMAND_LINE).unwrap_or_default();
    Some(Dockerd { pid, flags, driver_variable: driver_in(&environment) })
}

/// Returns the storage driver that the bytes of `/proc/PID/environ` name; an empty one is none to Docker.
fn driver_in(environment: &[u8]) -> Option<String> {
    let of_variable = |assignment: &[u8]| {
        let value = assignment.strip_prefix(DRIVER_VARIABLE.as_bytes())?.strip_prefix(b"=")?;
        Some(String::from_utf8_lossy(value).into_owned())
    };
    environment.split(|byte| *byte == 0).find_map(of_variable).filter(|driver| !driver.is_empty())
}

impl Flags {
    /// Reads the bytes of `/proc/PID/cmdline`; as [`Self::of_words`].
    pub fn parse(command_line: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(command_line);
        Self::of_words(&text.strip_suffix('\0').unwrap_or(&text).split('\0').collect::<Vec<_>>())
    }

    /// Reads a command line. Returns nothing when the program is no Docker daemon: `dockerd`, `dockerd-current`
    /// (CentOS 7), `docker daemon` (1.8 to 1.11) and `docker -d` (before) are.
    pub fn of_words(words: &[&str]) -> Option<Self> {
        let (program, mut words) = words.split_first()?;
        match (program.rsplit('/').next()?, words) {
            ("dockerd" | "dockerd-current" | "dockerd-latest", _) => {}
            ("docker" | "docker-current" | "docker-latest", ["daemon" | "-d" | "--daemon", rest @ ..]) => words = rest,
            _ => return None,
        }
        let mut flags = Self::default();
        let mut words = words.iter().peekable();
        while let Some(word) = words.next() {
            let Some((name, attached)) = flag(word) else { continue };
            // What follows and is no flag itself is its value; one that is on or off has none.
            let follows = |next: &&&str| !next.starts_with('-') && !next.is_empty();
            let value = attached.map_or_else(|| words.next_if(|next| follows(next)).copied(), Some).map(unquoted);
            flags.take(&name, value);
        }
        Some(flags)
    }

    fn take(&mut self, name: &str, value: Option<&str>) {
        let key = NAMED.iter().find(|(flag, _)| *flag == name).map_or(name, |(_, key)| *key);
        self.keys.entry(key.to_owned()).or_default().extend(value.map(str::to_owned));
        let Some(value) = value else { return };
        match name {
            "data-root" | "graph" => self.root = Some(PathBuf::from(value)),
            "config-file" => self.config_file = Some(PathBuf::from(value)),
            "storage-driver" => self.storage_driver = Some(value.to_owned()),
            "storage-opt" => self.storage_options.push(value.to_owned()),
            _ => {}
        }
    }
}

/// Returns the long name of a flag, and its value when it is attached; nothing for a word that is no flag.
fn flag(word: &str) -> Option<(String, Option<&str>)> {
    let (flag, attached) = word.split_once('=').map_or((word, None), |(flag, value)| (flag, Some(value)));
    // One dash and a long name was good enough for Docker 1.x.
    let name = flag.trim_start_matches('-');
    if flag == name || name.is_empty() {
        return None;
    }
    let short = |letter: &str| SHORT.iter().find(|(short, _)| *short == letter).map(|(_, long)| (*long).to_owned());
    let letter = name.chars().next().map(String::from).unwrap_or_default();
    match short(name) {
        Some(long) => Some((long, attached)),
        // `-Hunix:///x`; `-host` is a long name of Docker 1.x.
        None if word == flag && !word.starts_with("--") && name.contains([':', '/']) => {
            Some((short(&letter)?, name.get(letter.len()..)))
        }
        None => Some((name.to_owned(), attached)),
    }
}

/// Docker takes quotes off these values (`opts.QuotedString`, opts/quotedstring.go), and unit files are full of them.
fn unquoted(value: &str) -> &str {
    for quote in ['"', '\''] {
        if let Some(inner) = value.strip_prefix(quote).and_then(|v| v.strip_suffix(quote)) {
            return inner;
        }
    }
    value
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn parse(line: &str) -> Option<Flags> {
        Flags::parse(format!("{}\0", line.replace(' ', "\0")).as_bytes())
    }

    #[test]
    fn flags_are_read_in_every_spelling() {
        for line in [
            "/usr/bin/dockerd -H fd:// --data-root /srv/d --storage-opt dm.basesize=20G",
            "/usr/bin/dockerd --data-root=/srv/d --storage-opt=dm.basesize=20G --debug",
            "/usr/bin/dockerd-current --graph=/srv/d -D --storage-opt dm.basesize=20G",
            "/usr/bin/docker daemon -g /srv/d --storage-opt=dm.basesize=20G",
            "/usr/bin/docker -d -g=\"/srv/d\" --storage-opt dm.basesize=20G",
        ] {
            let flags = parse(line).unwrap();
            assert_eq!(flags.root.as_deref(), Some(Path::new("/srv/d")), "{line}");
            assert_eq!(flags.storage_options, ["dm.basesize=20G"], "{line}");
        }
    }

    #[test]
    fn defaults_are_left_open_and_a_flag_without_its_value_is_no_harm() {
        assert_eq!(parse("dockerd --config-file /etc/d.json").unwrap().config_file.unwrap(), Path::new("/etc/d.json"));
        assert_eq!(parse("dockerd").unwrap(), Flags::default());
        assert_eq!(parse("dockerd --data-root").unwrap().root, None);
    }

    #[test]
    fn every_flag_is_known_by_its_key_in_the_file() {
        let flags = parse(
            "dockerd -D -H fd:// --host=tcp://0:1 -Hunix:///x --label a=b -s devicemapper --iptables=false -g /d",
        )
        .unwrap();
        let keys: Vec<_> = flags.keys.iter().map(|(key, values)| format!("{key}: {}", values.join(" "))).collect();
        assert_eq!(
            keys,
            [
                "debug: ",
                "graph: /d",
                "hosts: fd:// tcp://0:1 unix:///x",
                "iptables: false",
                "labels: a=b",
                "storage-driver: devicemapper"
            ]
        );
        assert_eq!(flags.storage_driver.as_deref(), Some("devicemapper"));
    }

    #[test]
    fn the_driver_in_the_environment_is_found() {
        assert_eq!(driver_in(b"PATH=/bin\0DOCKER_DRIVER=overlay2\0"), Some("overlay2".to_owned()));
        for none in [&b"DOCKER_DRIVER=\0"[..], b"X=DOCKER_DRIVER=a\0", b"DOCKER_DRIVERS=a\0", b""] {
            assert_eq!(driver_in(none), None);
        }
    }

    #[test]
    fn clients_and_others_are_no_daemon() {
        for line in ["docker run -d busybox", "docker-containerd", "docker-proxy -proto tcp", "bash dockerd", ""] {
            assert_eq!(parse(line), None, "{line}");
        }
    }
}
