//! Docker as its users have it: a daemon with a `daemon.json`, images, containers, and what it says about its pool.
//!
//! One daemon at a time, on Docker's own paths: what finds Docker by its configuration has to find this one.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::run::{Cmd, Ran, Running};
use super::sys;

/// Where dockerd listens.
pub const SOCKET: &str = "/var/run/docker.sock";
/// The daemon's configuration.
pub const DAEMON_JSON: &str = "/etc/docker/daemon.json";
/// The image of [`Docker::busybox`].
pub const IMAGE: &str = "dmpool-test-busybox:1";

const LOG: &str = "/var/log/dmpool-test-dockerd.log";
/// From start to answering; the first start makes a file system for the base device.
const UP: Duration = Duration::from_secs(180);
/// To stop, with containers that do not listen.
const DOWN: Duration = Duration::from_secs(60);
/// Longer than any guest lives.
const FOREVER: Duration = Duration::from_secs(30 * 86400);

/// How a daemon is to run.
#[derive(Debug, Clone)]
pub struct Config {
    /// Docker's root, `data-root`.
    pub root: PathBuf,
    /// Storage options such as `dm.basesize=2G`.
    pub options: Vec<String>,
    /// The storage driver.
    pub driver: String,
    /// With the network of containers that name none, `docker0`; without it they have none.
    pub bridge: bool,
    /// Run by systemd (`docker.service` and `docker.socket`) instead of as a child of the test.
    pub systemd: bool,
    /// The line of shell that a child of the test is started with, as an init script has it.
    pub line: String,
}

impl Config {
    /// The devicemapper driver with no option, as a child of the test: Docker makes its 100 GB loop-file pool.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        let line = "exec dockerd".to_owned();
        let driver = "devicemapper".into();
        Self { root: root.into(), options: Vec::new(), driver, bridge: false, systemd: false, line }
    }

    /// With one more storage option.
    #[must_use]
    pub fn option(mut self, option: &str) -> Self {
        self.options.push(option.into());
        self
    }

    /// The text of `daemon.json`.
    fn json(&self) -> Value {
        let mut options = self.options.clone();
        if self.driver == "devicemapper" && !sys::udev_answers() {
            options.push("dm.override_udev_sync_check=true".into());
        }
        json!({
            "data-root": self.root,
            "storage-driver": self.driver,
            "storage-opts": options,
            // No guest has a network: without this dockerd would stop over the missing tables.
            "iptables": false,
            "bridge": if self.bridge { "" } else { "none" },
        })
    }
}

/// A running daemon. Dropped, it is ended with its containers, and its pool and configuration are taken away; its root stays.
#[derive(Debug)]
pub struct Docker {
    config: Config,
    daemon: Option<Running>,
    before: Option<Vec<u8>>,
}

impl Docker {
    /// Writes `daemon.json`, starts the daemon and waits until it answers.
    ///
    /// # Errors
    /// When it ends or does not answer; with the end of its log.
    pub fn start(config: Config) -> Result<Self> {
        fs::create_dir_all("/etc/docker")?;
        fs::create_dir_all(&config.root)?;
        let before = fs::read(DAEMON_JSON).ok();
        fs::write(DAEMON_JSON, serde_json::to_string_pretty(&config.json())? + "\n")?;
        Self::begin(config, before)
    }

    /// Starts the daemon with the configuration that the test has written. Of `config` only the root, which must be that
    /// of the configuration, and how it is run count. Dropped, the configuration is `before` again.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_as_told(config: Config, before: Option<Vec<u8>>) -> Result<Self> {
        Self::begin(config, before)
    }

    fn begin(config: Config, before: Option<Vec<u8>>) -> Result<Self> {
        let mut docker = Self { config, daemon: None, before };
        if docker.config.systemd {
            // The machine's boot has started it, without this configuration.
            docker.stop()?;
        }
        docker.up()?;
        Ok(docker)
    }

    /// Starts it again after [`Self::stop`] or [`Self::kill`].
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn up(&mut self) -> Result<()> {
        if self.config.systemd {
            for unit in ["docker.socket", "docker.service"] {
                Cmd::new("systemctl").args(["start", unit]).limit(UP).run().checked()?;
            }
        } else {
            let cmd = format!("{} >>{LOG} 2>&1", self.config.line);
            self.daemon = Some(Cmd::new("sh").args(["-c", &cmd]).limit(FOREVER).start()?);
        }
        let until = Instant::now() + UP;
        loop {
            let answer = get("/_ping");
            if matches!(&answer, Ok((200, _))) {
                return Ok(());
            }
            if self.daemon.as_mut().is_some_and(|daemon| !daemon.alive()) {
                bail!("dockerd ended: {}", self.log_tail());
            }
            ensure!(Instant::now() < until, "dockerd does not answer ({answer:?}): {}", self.log_tail());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Stops the daemon as a shutdown does (SIGTERM, or systemctl with the socket), containers with it.
    ///
    /// # Errors
    /// When it is still there after a minute.
    pub fn stop(&mut self) -> Result<()> {
        if self.config.systemd {
            // The socket first: any client would start the service again.
            Cmd::new("systemctl").args(["stop", "docker.socket", "docker.service"]).limit(DOWN).run().checked()?;
            return Ok(());
        }
        let Some(mut daemon) = self.daemon.take() else {
            return Ok(());
        };
        daemon.signal(Signal::SIGTERM);
        let until = Instant::now() + DOWN;
        while daemon.alive() {
            if Instant::now() >= until {
                let ran = daemon.kill();
                bail!("dockerd did not stop within {DOWN:?}: {:?}; {}", ran.end, self.log_tail());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Kills the daemon at once (SIGKILL); its containers go on.
    ///
    /// # Errors
    /// When systemd does not do it.
    pub fn kill(&mut self) -> Result<()> {
        if self.config.systemd {
            Cmd::new("systemctl").args(["kill", "-s", "KILL", "docker.service"]).run().checked()?;
        } else if let Some(daemon) = self.daemon.take() {
            daemon.signal(Signal::SIGKILL);
            let _ = daemon.kill();
        }
        Ok(())
    }

    /// The end of the daemon's own log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        if self.config.systemd {
            return Cmd::new("journalctl").args(["-u", "docker", "-n", "20", "--no-pager"]).run().stdout;
        }
        let log = fs::read_to_string(LOG).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n")
    }

    /// The `docker` program with these arguments.
    #[must_use]
    pub fn cmd<I, S>(&self, args: I) -> Cmd
    where
        I: IntoIterator<Item = S>,
        S: AsRef<std::ffi::OsStr>,
    {
        Cmd::new("docker").args(args).limit(Duration::from_secs(120))
    }

    /// `docker info`, its whole standard output.
    ///
    /// # Errors
    /// When it fails.
    pub fn info(&self) -> Result<String> {
        Ok(self.cmd(["info"]).run().checked()?.stdout)
    }

    /// The storage block of `docker info`.
    ///
    /// # Errors
    /// When `docker info` fails or has none.
    pub fn storage_block(&self) -> Result<String> {
        let info = self.info()?;
        storage_block(&info).with_context(|| format!("no storage driver in docker info:\n{info}"))
    }

    /// One value of the storage block, as printed.
    ///
    /// # Errors
    /// When there is no such key.
    pub fn storage_value(&self, key: &str) -> Result<String> {
        let block = self.storage_block()?;
        let found = pairs(&block).into_iter().find(|(name, _)| name == key);
        found.map(|(_, value)| value).with_context(|| format!("no `{key}` in\n{block}"))
    }

    /// Makes the image [`IMAGE`]: static busybox with links for its commands, and `extra` programs under /bin.
    ///
    /// # Errors
    /// When busybox is missing, or docker import fails.
    pub fn busybox(&self, extra: &[&Path]) -> Result<()> {
        let dir = Path::new("/var/tmp").join("dmpool-test-image");
        let _ = fs::remove_dir_all(&dir);
        for sub in ["bin", "tmp", "data"] {
            fs::create_dir_all(dir.join("root").join(sub))?;
        }
        let bin = dir.join("root/bin");
        fs::copy(find("busybox")?, bin.join("busybox"))?;
        for name in ["sh", "sleep", "cat", "ls", "dd", "sync", "sha256sum", "md5sum", "echo", "rm", "df", "touch"] {
            std::os::unix::fs::symlink("busybox", bin.join(name))?;
        }
        for program in extra {
            let name = program.file_name().with_context(|| format!("{} is no file", program.display()))?;
            fs::copy(program, bin.join(name)).with_context(|| format!("cannot copy {}", program.display()))?;
        }
        let tar = dir.join("image.tar");
        Cmd::new("tar").arg("-cf").arg(&tar).arg("-C").arg(dir.join("root")).arg(".").run().checked()?;
        let import = self.cmd(["import"]).arg(&tar).arg(IMAGE).run().checked();
        let _ = fs::remove_dir_all(&dir);
        import.map(drop)
    }

    /// `docker run -d --network none` with more options, then the image [`IMAGE`] and `command`. Returns the container's id.
    ///
    /// # Errors
    /// When docker run fails.
    pub fn run_detached(&self, options: &[&str], command: &[&str]) -> Result<String> {
        let cmd = self.cmd(["run", "-d", "--network", "none"]).args(options).arg(IMAGE).args(command);
        Ok(cmd.run().checked()?.stdout.trim().to_owned())
    }

    /// `docker exec`.
    #[must_use]
    pub fn exec(&self, container: &str, command: &[&str]) -> Ran {
        self.cmd(["exec", container]).args(command).run()
    }

    /// Docker's root.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.config.root
    }

    /// Its storage driver.
    #[must_use]
    pub fn driver(&self) -> &str {
        &self.config.driver
    }

    /// The name of its pool on device-mapper.
    ///
    /// # Errors
    /// As [`Self::storage_value`].
    pub fn pool(&self) -> Result<String> {
        self.storage_value("Pool Name")
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let all = self.cmd(["ps", "-aq"]).limit(Duration::from_secs(20)).run();
        if !all.stdout.trim().is_empty() {
            let _ = self.cmd(["rm", "-f"]).args(all.stdout.split_whitespace()).limit(DOWN).run();
        }
        if self.stop().is_err() {
            let _ = self.kill();
        }
        // A killed dockerd leaves its containerd, shims, devices and loops.
        for pid in pids_of_containerd() {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL);
        }
        take_down(&self.config.root);
        let _ = match &self.before {
            Some(text) => fs::write(DAEMON_JSON, text),
            None => fs::remove_file(DAEMON_JSON),
        };
    }
}

/// Removes the mounts, dm devices, loop devices and bridges that a dead daemon left for this root.
pub fn take_down(root: &Path) {
    let limit = Duration::from_secs(20);
    let below: Vec<_> = sys::mounts().unwrap_or_default().into_iter().filter(|m| m.point.starts_with(root)).collect();
    for mount in below.iter().rev().filter(|m| m.point != root) {
        let _ = Cmd::new("umount").arg("-l").arg(&mount.point).limit(limit).run();
    }
    for pass in ["-", "-pool"] {
        for name in sys::dm_names().unwrap_or_default().iter().filter(|n| n.starts_with("docker-")) {
            if pass == "-pool" || !name.ends_with("-pool") {
                let _ = sys::dmsetup(["remove", "--retry", name]).limit(limit).run();
            }
        }
    }
    for device in sys::loops().unwrap_or_default() {
        if Path::new(&device.file).starts_with(root) {
            let _ = Cmd::new("losetup").arg("-d").arg(&device.device).limit(limit).run();
        }
    }
    for link in fs::read_dir("/sys/class/net").into_iter().flatten().flatten() {
        let name = link.file_name();
        if name == "docker0" || name.to_string_lossy().starts_with("br-") {
            let _ = Cmd::new("ip").args(["link", "delete"]).arg(name).limit(limit).run();
        }
    }
}

/// The containerd and shims that dockerd itself started: theirs run below /run/docker.
fn pids_of_containerd() -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let program = line.split('\0').next().unwrap_or_default();
        program.contains("containerd") && line.contains("/run/docker/containerd")
    })
    .collect()
}

/// A program on PATH.
///
/// # Errors
/// When there is none of this name.
pub fn find(program: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
        .with_context(|| format!("{program} is not on PATH"))
}

/// The lines of `docker info` from `Storage Driver:` to the end of what is indented below it, unchanged.
#[must_use]
pub fn storage_block(info: &str) -> Option<String> {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut lines = info.split_inclusive('\n').skip_while(|line| !line.trim_start().starts_with("Storage Driver:"));
    let first = lines.next()?;
    let below = lines.take_while(|line| indent(line) > indent(first));
    Some(std::iter::once(first).chain(below).collect())
}

/// The keys and values of such a block, without the indent, in order.
#[must_use]
pub fn pairs(block: &str) -> Vec<(String, String)> {
    let lines = block.lines().filter_map(|line| line.trim().split_once(':'));
    lines.map(|(key, value)| (key.to_owned(), value.trim().to_owned())).collect()
}

/// `GET path` on Docker's socket: status and body.
///
/// # Errors
/// When nobody listens, or the answer is no HTTP.
pub fn get(path: &str) -> Result<(u16, Vec<u8>)> {
    request("GET", path)
}

/// `POST path` without a body on Docker's socket: status and body of the answer.
///
/// # Errors
/// As [`get`].
pub fn post(path: &str) -> Result<(u16, Vec<u8>)> {
    request("POST", path)
}

fn request(method: &str, path: &str) -> Result<(u16, Vec<u8>)> {
    let mut stream = UnixStream::connect(SOCKET).with_context(|| format!("cannot connect to {SOCKET}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    // HTTP/1.0: the body ends with the connection, and is never sent in chunks.
    write!(stream, "{method} {path} HTTP/1.0\r\nHost: docker\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    parse_answer(&answer)
}

fn parse_answer(answer: &[u8]) -> Result<(u16, Vec<u8>)> {
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").context("an answer without a header")?;
    let (head, body) = answer.split_at(end + 4);
    let head = String::from_utf8_lossy(head);
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok((status.ok_or_else(|| anyhow!("no HTTP status in {head:?}"))?, body.to_vec()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_storage_block_is_cut_out_exactly() {
        let info = "Client:\n Context:    default\n\nServer:\n Server Version: 20.10.24+dfsg1\n \
                    Storage Driver: devicemapper\n  Pool Name: docker-254:0-13785-pool\n  Data file: /dev/loop0\n \
                    Logging Driver: json-file\n";
        let block = storage_block(info).unwrap();
        let expected = " Storage Driver: devicemapper\n  Pool Name: docker-254:0-13785-pool\n  Data file: /dev/loop0\n";
        assert_eq!(block, expected);
        let pool = ("Pool Name".to_owned(), "docker-254:0-13785-pool".to_owned());
        assert!(pairs(&block).contains(&pool));
        assert_eq!(storage_block("Server:\n"), None);
    }

    #[test]
    fn an_answer_is_taken_apart() {
        let (status, body) = parse_answer(b"HTTP/1.0 200 OK\r\nA: b\r\n\r\nOK").unwrap();
        assert_eq!((status, body.as_slice()), (200, b"OK".as_slice()));
        assert!(parse_answer(b"nonsense").is_err());
    }
}
