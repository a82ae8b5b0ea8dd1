//! The Docker daemon that runs now, as far as `/proc` tells: its process, and what its command line says of storage.

use std::fs;
use std::path::{Path, PathBuf};

use super::small_file;

/// Where a daemon writes its process id when `--pidfile` names no other place.
const PID_FILE: &str = "/var/run/docker.pid";
/// The longest command line looked at.
const LONGEST_COMMAND_LINE: u64 = 1 << 20;

/// What a daemon's command line says of its storage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// `--data-root`, or `--graph`, or `-g`.
    pub root: Option<PathBuf>,
    /// `--config-file`.
    pub config_file: Option<PathBuf>,
    /// `--storage-opt`, each as given.
    pub storage_options: Vec<String>,
}

/// A Docker daemon that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dockerd {
    /// Its process.
    pub pid: u32,
    /// What it was started with.
    pub flags: Flags,
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

/// Whether a Unix socket with Docker's name is open: beside the one it is asked by (`docker.sock`), every daemon with
/// networks has one below `/run/docker` (libnetwork's). Where it cannot be told, it may be.
fn has_socket() -> bool {
    fs::read("/proc/net/unix").map_or(true, |table| table.windows(6).any(|word| word == b"docker"))
}

fn all() -> Vec<Dockerd> {
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
    Some(Dockerd { pid, flags: Flags::parse(&line)? })
}

impl Flags {
    /// Reads the bytes of `/proc/PID/cmdline`. Returns nothing when the program is no Docker daemon: `dockerd`,
    /// `dockerd-current` (CentOS 7), `docker daemon` (1.8 to 1.11) and `docker -d` (before) are.
    pub fn parse(command_line: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(command_line);
        let mut words = text.split('\0');
        let program = words.next()?.rsplit('/').next()?;
        let mut words = words.peekable();
        let is_daemon = match program {
            "dockerd" | "dockerd-current" | "dockerd-latest" => true,
            "docker" | "docker-current" => matches!(words.peek(), Some(&("daemon" | "-d"))),
            _ => false,
        };
        if !is_daemon {
            return None;
        }
        let mut flags = Self::default();
        while let Some(word) = words.next() {
            let (flag, attached) = match word.split_once('=') {
                Some((flag, value)) => (flag, Some(value)),
                None => (word, None),
            };
            // One dash and a long name was good enough for Docker 1.x.
            let name = flag.trim_start_matches('-');
            let wanted = matches!(name, "data-root" | "graph" | "g" | "config-file" | "storage-opt");
            if flag == name || !wanted {
                continue;
            }
            let Some(value) = attached.or_else(|| words.next()).map(unquoted) else {
                break;
            };
            match name {
                "config-file" => flags.config_file = Some(PathBuf::from(value)),
                "storage-opt" => flags.storage_options.push(value.to_owned()),
                _ => flags.root = Some(PathBuf::from(value)),
            }
        }
        Some(flags)
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
        assert!(parse("dockerd --data-root").unwrap().root.is_none_or(|root| root.as_os_str().is_empty()));
    }

    #[test]
    fn clients_and_others_are_no_daemon() {
        for line in ["docker run -d busybox", "docker-containerd", "docker-proxy -proto tcp", "bash dockerd", ""] {
            assert_eq!(parse(line), None, "{line}");
        }
    }
}
