//! The lab's hand in the guest. One static program with three uses:
//!
//! - as process 1 of the initramfs (`init`): mounts the root disk, the kernel's modules and the payload, then starts
//!   itself as a service, or systemd, which does;
//! - as that service (`serve`): takes orders from the host over a serial line, one job at a time;
//! - on a machine made to be thrown away (`--lane native`), the same service as a plain process.
#![allow(clippy::print_stderr, reason = "its standard error is the guest's console")]

mod disks;
mod doorbell;
mod down;
mod init;
mod job;
mod serve;
mod sweep;

use std::env;
use std::fmt;
use std::fs;
use std::process;

/// Where the agent's own program lies in a running guest.
const AGENT: &str = "/run/lab/agent";

/// Where programs are looked for.
const PATH: &str = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the host wrote on the kernel's command line for the agent, or gave a native agent in its environment.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Settings {
    /// `uml`, `qemu` or `native`.
    lane: String,
    /// The serial line to the host; nothing for a native agent, which has standard input and output.
    control: Option<String>,
    /// What the machine's disks are, in their order: `root`, `modules`, `payload`, `scratch0`, …
    disks: Vec<String>,
    /// Whether systemd shall be process 1.
    systemd: bool,
}

impl Settings {
    /// Reads `lab.NAME=VALUE` words; words of others are passed over.
    fn parse(command_line: &str) -> Settings {
        let value = |name: &str| {
            command_line
                .split_ascii_whitespace()
                .filter_map(|word| word.strip_prefix("lab.")?.split_once('='))
                .find_map(|(key, value)| (key == name).then(|| value.to_string()))
        };
        Settings {
            lane: value("lane").unwrap_or_default(),
            control: value("control"),
            disks: value("disks").map(|d| d.split(',').map(str::to_string).collect()).unwrap_or_default(),
            systemd: value("systemd").as_deref() == Some("1"),
        }
    }

    /// Whether this machine is one that the lab has booted. Only those are ever taken down.
    fn is_guest(&self) -> bool {
        ["uml", "qemu"].contains(&self.lane.as_str())
    }

    /// From the running kernel's command line, or from `LAB_SETTINGS` where that is set (native lane).
    fn read() -> Settings {
        match env::var("LAB_SETTINGS") {
            Ok(text) => Settings::parse(&text),
            Err(_) => Settings::parse(&fs::read_to_string("/proc/cmdline").unwrap_or_default()),
        }
    }
}

/// Runs the use that the situation asks for. Never returns to a caller that has anything left to do.
pub fn main() {
    if process::id() == 1 {
        init::run();
    }
    if let Err(e) = serve::run(&Settings::read()) {
        say(format!("the agent gives up: {e:#}"));
        process::exit(1);
    }
}

/// One line on the console, marked as the agent's.
fn say(text: impl fmt::Display) {
    eprintln!("lab-agent: {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_found_among_the_kernels_own_words() {
        let settings =
            Settings::parse("quiet lab.lane=uml lab.control=/dev/tty1 lab.disks=root,modules,payload mem=1G");
        assert_eq!(settings.lane, "uml");
        assert_eq!(settings.control.as_deref(), Some("/dev/tty1"));
        assert_eq!(settings.disks, ["root", "modules", "payload"]);
        assert!(!settings.systemd);
        assert_eq!(Settings::parse("quiet"), Settings::parse(""));
    }
}
