//! Whether a pool is there again after the next boot.

use std::path::{Path, PathBuf};

use super::Facts;
use super::cost::ONLINE;
use super::ways::argument;
use crate::engine::small_file::{self, Directory};
use crate::pool::{Backing, Carrier, DevNo, Finding, Key, Maker, PoolReport, Severity};
use crate::process::quote;

/// Where what runs at boot is written down, below the root directory: units, and what came before them.
const DIRECTORIES: [&str; 7] = [
    "etc/systemd/system",
    "run/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
    "etc/init.d",
    "etc/init",
];
const FILES: [&str; 3] = ["etc/rc.local", "etc/rc.d/rc.local", "etc/crontab"];
/// Enough for any unit.
const LARGEST: u64 = 64 << 10;
/// No machine has more of them.
const MOST_FILES: usize = 5000;

/// Returns the file that brings a pool up at boot, if one does, below that root directory.
///
/// Whether the unit is enabled is not asked: a pool that has one has somebody who knows.
pub(super) fn activator(base: &Path, pool: &str) -> Option<PathBuf> {
    let mut seen = 0;
    for directory in DIRECTORIES {
        let Ok(directory) = Directory::open(&base.join(directory)) else { continue };
        for name in directory.names().unwrap_or_default().iter().filter_map(|name| name.to_str()) {
            seen += 1;
            if seen > MOST_FILES {
                return None;
            }
            if directory.read(name, LARGEST).is_ok_and(|bytes| activates(&bytes, pool)) {
                return Some(directory.path().join(name));
            }
        }
    }
    let mut files = FILES.iter().map(|file| base.join(file));
    files.find(|path| small_file::read_at(path, LARGEST).is_ok_and(|bytes| activates(&bytes, pool)))
}

/// Whether a text activates the pool: with dmpool, or by a dmsetup of its own.
pub(crate) fn activates(text: &[u8], pool: &str) -> bool {
    let text = String::from_utf8_lossy(text);
    let mut lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    lines.any(|line| {
        let names = line.split(|c: char| c.is_whitespace() || "\"'=".contains(c)).any(|word| word == pool);
        // Without a name it is the only registered pool.
        let dmpool =
            line.contains("dmpool activate") && (names || line.contains("--all")) || line.ends_with("dmpool activate");
        dmpool || (line.contains("dmsetup") && line.contains("create") && names)
    })
}

/// Judges whether a pool that somebody must activate is activated by anybody. Docker brings up its own pool, and LVM its
/// pools. `dmpool` is where this program is, and `stable` gives a disk's name that no other has.
pub(super) fn judge(
    facts: &Facts<'_>,
    activator: Option<&Path>,
    dmpool: &Path,
    stable: &dyn Fn(DevNo) -> Option<String>,
) -> Option<Finding> {
    let pool = facts.pool;
    let given = facts.docker.and_then(|root| root.options.known()?.named_pool()) == Some(pool.name.as_str());
    let starts = match pool.maker {
        Maker::Dmpool => Some(format!("{} activate {}", dmpool.display(), argument(pool))),
        Maker::Unknown if given => by_hand(pool, stable),
        Maker::Unknown | Maker::Docker | Maker::Lvm => return None,
    };
    if activator.is_some() {
        return None;
    }
    let sentence = "nothing activates it when the machine boots: no unit and no script names it";
    let finding = Finding::new(Key::NoBootActivation, Severity::Warning, &pool.name, sentence);
    Some(match starts.filter(|line| !line.contains(['%', '\'', '\n'])) {
        Some(line) => finding.run(unit(&pool.name, &line), ONLINE),
        None => finding.act("a unit that makes it of devices by names that stay, before Docker starts", ONLINE),
    })
}

/// Returns the command that makes and enables a unit which runs that line before Docker and containerd start.
fn unit(pool: &str, line: &str) -> String {
    let name = format!("dmpool-{pool}.service");
    let lines = [
        "[Unit]",
        "Before=docker.service containerd.service",
        "[Service]",
        "Type=oneshot",
        "RemainAfterExit=yes",
        &format!("ExecStart={line}"),
        "[Install]",
        "WantedBy=multi-user.target",
    ];
    let lines: Vec<String> = lines.iter().map(|line| quote(line)).collect();
    let file = quote(&format!("/etc/systemd/system/{name}"));
    format!("printf '%s\\n' {} >{file} && systemctl enable {}", lines.join(" "), quote(&name))
}

/// Returns the line that makes a pool of its live table; nothing when its devices have no names that stay: their numbers
/// may be other disks' after the boot.
fn by_hand(pool: &PoolReport, stable: &dyn Fn(DevNo) -> Option<String>) -> Option<String> {
    let name = |backing: &Backing| match &backing.carrier {
        Carrier::Device { path } if path.starts_with("/dev/mapper") => Some(path.to_string_lossy().into_owned()),
        Carrier::Device { .. } => stable(backing.device?),
        Carrier::Loop { .. } | Carrier::LoopOverDevice { .. } | Carrier::Devices { .. } | Carrier::Unknown => None,
    };
    let table = pool.table.as_ref()?;
    let (metadata, data) = (name(&pool.metadata)?, name(&pool.data)?);
    let line = table.to_string();
    let numbers = format!(" {} {} ", table.metadata, table.data);
    let line = line.replacen(&numbers, &format!(" {metadata} {data} "), 1);
    Some(format!("/sbin/dmsetup create {} --table \"{line}\"", pool.name))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use std::fs;

    use super::*;
    use crate::engine::docker_root::Options;
    use crate::engine::options::StorageOptions;
    use crate::pool::PoolReport;
    use crate::report::samples::{docker_pool, docker_root, lvm_pool};

    #[test]
    fn a_unit_that_names_the_pool_is_found() {
        for (text, activates_it) in [
            ("ExecStart=/usr/bin/dmpool activate p0", true),
            ("ExecStart=/usr/bin/dmpool activate --all --wait 60s", true),
            ("ExecStart=/usr/bin/dmpool activate p01", false),
            ("#ExecStart=/usr/bin/dmpool activate p0", false),
            ("ExecStart=/sbin/dmsetup create p0 --table \"0 2048 thin-pool 8:1 8:2 128 0\"", true),
            ("ExecStart=/sbin/dmsetup create p1 --table \"0 2048 thin-pool 8:1 8:2 128 0\"", false),
            ("ExecStart=/usr/bin/dockerd --storage-opt dm.thinpooldev=/dev/mapper/p0", false),
        ] {
            assert_eq!(activates(text.as_bytes(), "p0"), activates_it, "{text}");
        }
        let temp = tempfile::tempdir().unwrap();
        assert_eq!(activator(temp.path(), "p0"), None);
        let units = temp.path().join("etc/systemd/system");
        fs::create_dir_all(&units).unwrap();
        fs::write(units.join("a.service"), [0xff; 100]).unwrap();
        fs::write(units.join("p.service"), "[Service]\nExecStart=dmpool activate p0\n").unwrap();
        assert_eq!(activator(temp.path(), "p0"), Some(units.join("p.service")));
    }

    #[test]
    fn who_needs_a_unit_is_told_so() {
        let line = "0 9/524288 9/1638400 - rw discard_passdown queue_if_no_space - 1024";
        let docker = docker_pool(line, 1 << 40);
        let told = |facts: &Facts<'_>| judge(facts, None, Path::new("/usr/local/sbin/dmpool"), &|_| None);
        assert_eq!(told(&Facts::of(&docker)), None, "Docker's own comes with Docker");
        let own =
            PoolReport { maker: Maker::Dmpool, name: "p0".to_owned(), argument: "p0".to_owned(), ..docker.clone() };
        let command = told(&Facts::of(&own)).unwrap().ways[0].command.clone().unwrap();
        assert_eq!(
            command,
            "printf '%s\\n' '[Unit]' 'Before=docker.service containerd.service' '[Service]' Type=oneshot \
             RemainAfterExit=yes 'ExecStart=/usr/local/sbin/dmpool activate p0' '[Install]' WantedBy=multi-user.target \
             >/etc/systemd/system/dmpool-p0.service && systemctl enable dmpool-p0.service"
        );
        let unit = Path::new("/etc/systemd/system/p.service");
        assert_eq!(judge(&Facts::of(&own), Some(unit), Path::new("/dmpool"), &|_| None), None);
        let given = PoolReport { maker: Maker::Unknown, name: "tp".to_owned(), ..docker };
        assert_eq!(told(&Facts::of(&given)), None, "nobody needs it at boot");
        let options = StorageOptions::parse(["dm.thinpooldev=/dev/mapper/tp"]);
        let root = crate::engine::docker_root::DockerRoot { options: Options::Running(options), ..docker_root() };
        let found = told(&Facts { docker: Some(&root), ..Facts::of(&given) }).unwrap();
        assert_eq!(found.ways[0].command, None, "a loop device has another file after the boot");
    }

    #[test]
    fn a_pool_on_devices_comes_back_by_their_names() {
        let pool = PoolReport { maker: Maker::Unknown, name: "tp".to_owned(), ..lvm_pool() };
        let line = by_hand(&pool, &|_| None).unwrap();
        assert_eq!(
            line,
            "/sbin/dmsetup create tp --table \"0 99604480 thin-pool /dev/mapper/docker-thinpool_tmeta \
             /dev/mapper/docker-thinpool_tdata 1024 0 1 skip_block_zeroing\""
        );
        assert!(activates(format!("ExecStart={line}\n").as_bytes(), "tp"));
    }
}
