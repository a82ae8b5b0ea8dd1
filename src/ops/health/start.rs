//! Whether a pool is there again after the next boot.

use std::path::Path;

use super::Facts;
use crate::ops::boot::text;
use crate::ops::cost::ONLINE;
use crate::pool::{Backing, Carrier, DevNo, Finding, Key, Maker, PoolReport, Severity, Tie};
use crate::process::quote;

/// Judges whether a pool that somebody must activate is activated by anybody. Docker brings up its own pool, and LVM its
/// pools. `stable` gives a disk's name that no other has.
pub(super) fn judge(
    facts: &Facts<'_>,
    activator: Option<&Path>,
    stable: &dyn Fn(DevNo) -> Option<String>,
) -> Option<Finding> {
    let pool = facts.pool;
    let given = facts.docker.and_then(|root| root.options.known()?.named_pool()) == Some(pool.name.as_str());
    // What is prepared is brought up by who switches to it.
    let is_somebodys = activator.is_some() || pool.tie == Some(Tie::Prepared);
    if is_somebodys || !(pool.maker == Maker::Dmpool || pool.maker == Maker::Unknown && given) {
        return None;
    }
    let sentence = "nothing activates it when the machine boots: no unit and no script names it";
    let finding = Finding::new(Key::NoBootActivation, Severity::Warning, &pool.name, sentence);
    if pool.maker == Maker::Dmpool {
        return Some(finding.run("dmpool activate --all --at-boot", ONLINE));
    }
    Some(match by_hand(pool, stable).filter(|line| !line.contains(['%', '\'', '\n'])) {
        Some(line) => finding.run(unit(&pool.name, &line), ONLINE),
        None => finding.act("a unit that makes it of devices by names that stay, before Docker starts", ONLINE),
    })
}

/// Returns the command that makes and enables a unit which runs that line before Docker and containerd start.
fn unit(pool: &str, line: &str) -> String {
    let name = format!("dmpool-{pool}.service");
    let lines: Vec<String> = text::unit(line).lines().map(quote).collect();
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
    use super::*;
    use crate::engine::docker_root::Options;
    use crate::engine::options::StorageOptions;
    use crate::pool::PoolReport;
    use crate::report::samples::{docker_pool, docker_root, lvm_pool};

    #[test]
    fn who_needs_a_unit_is_told_so() {
        let line = "0 9/524288 9/1638400 - rw discard_passdown queue_if_no_space - 1024";
        let docker = docker_pool(line, 1 << 40);
        let told = |facts: &Facts<'_>| judge(facts, None, &|_| None);
        assert_eq!(told(&Facts::of(&docker)), None, "Docker's own comes with Docker");
        let own =
            PoolReport { maker: Maker::Dmpool, name: "p0".to_owned(), argument: "p0".to_owned(), ..docker.clone() };
        let way = told(&Facts::of(&own)).unwrap().ways[0].command.clone();
        assert_eq!(way.as_deref(), Some("dmpool activate --all --at-boot"));
        let unit = Path::new("/etc/systemd/system/p.service");
        assert_eq!(judge(&Facts::of(&own), Some(unit), &|_| None), None);
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
        let command = unit("tp", &line);
        assert!(
            command.contains(" '[Unit]' ") && command.ends_with(" && systemctl enable dmpool-tp.service"),
            "{command}"
        );
        let written = text::unit(&line);
        assert!(crate::ops::boot::found::activates(written.as_bytes(), "tp", None), "{written}");
    }
}
