//! Disks that Docker finds by a name which another disk may have after the next boot.

use std::path::Path;

use super::Facts;
use super::ways::with_docker_stopped;
use crate::ops::cost::{self, ONLINE};
use crate::pool::{Activity, Backing, Carrier, DevNo, Finding, Key, LoopDisk, Severity, Way};
use crate::process::quote;

/// Gives a disk's name that no other has, when somebody has looked.
type Stable<'a> = &'a dyn Fn(DevNo) -> Option<String>;

/// A part of a pool, and the option that names its disk.
type Part<'a> = (&'static str, &'static str, &'a Backing);

/// Judges the links in the loop files' places, and the options that name disks.
pub(super) fn judge(facts: &Facts<'_>, stable: Stable<'_>) -> Vec<Finding> {
    let pool = facts.pool;
    let parts: [Part<'_>; 2] = [("data", "dm.datadev", &pool.data), ("metadata", "dm.metadatadev", &pool.metadata)];
    let linked = parts.into_iter().filter_map(|part| linked(facts, part, stable));
    linked.chain(parts.into_iter().filter_map(|part| named(facts, part, stable))).collect()
}

/// Of a pool that is down it is not known which disk was under it: by now the name may be another one's.
fn is_sure(facts: &Facts<'_>) -> bool {
    facts.pool.activity != Activity::Inactive
}

fn may_be_another(facts: &Facts<'_>, name: &str) -> String {
    match is_sure(facts) {
        true => format!("after a boot {name} may be another disk, which Docker then writes on"),
        false => format!("since a boot {name} may be another disk, and Docker writes on it when it starts"),
    }
}

/// A disk behind a loop device, by a link.
fn linked(facts: &Facts<'_>, (part, option, backing): Part<'_>, stable: Stable<'_>) -> Option<Finding> {
    let Carrier::LoopOverDevice { disk, .. } = &backing.carrier else { return None };
    let link = disk.link.as_ref().filter(|link| !is_stable(&link.target, disk.volume.as_deref(), is_sure(facts)))?;
    let at = link.at.to_string_lossy();
    let another = may_be_another(facts, &link.target.display().to_string());
    let sentence = format!("its {part} is the disk behind the link {at}: {another}");
    let finding = Finding::new(Key::SymlinkedDevice, Severity::Critical, at.as_ref(), sentence);
    Some(match is_sure(facts) {
        true => with_cures(finding, facts, option, &at, disk, stable),
        false => {
            let first = format!("find out which disk Docker's {part} is on, before Docker is started");
            let then = format!("shows the names that stay, for  ln -sfn NAME {}", quote(&at));
            finding.with(Way::after(first, "ls -l /dev/disk/by-id/", then))
        }
    })
}

fn with_cures(
    finding: Finding,
    facts: &Facts<'_>,
    option: &str,
    at: &str,
    disk: &LoopDisk,
    stable: Stable<'_>,
) -> Finding {
    // A command with a name to be filled in would make a link to nothing, and Docker a new file behind it.
    let Some(name) = disk.number.and_then(stable) else {
        let path = disk.path.display();
        let then = format!("shows a name of {path} that stays, for {option} among Docker's storage options");
        return finding.run("ls -l /dev/disk/by-id/", then);
    };
    let away = format!("rm {}", quote(at));
    let cost = format!("{}; nothing is copied", cost::docker_stopped(0));
    let restart = facts.docker.map(|root| with_docker_stopped(root, &away, cost));
    let set = format!("add {option}={name} to Docker's storage options, where the others are");
    let relink = format!("ln -sfn {} {}", quote(&name), quote(at));
    let finding = match restart {
        Some(Way { first, command, cost }) => {
            let first = first.map_or_else(|| set.clone(), |first| format!("{set}, {first}"));
            finding.with(Way { first: Some(first), command, cost })
        }
        None => finding,
    };
    finding.run(relink, ONLINE)
}

/// A disk that Docker's own pool lies on, by an option.
fn named(facts: &Facts<'_>, (part, option, backing): Part<'_>, stable: Stable<'_>) -> Option<Finding> {
    let options = facts.docker?.options.known().filter(|options| options.named_pool().is_none())?;
    let given = match part {
        "data" => options.data_device.as_deref(),
        _ => options.metadata_device.as_deref(),
    };
    let volume = match &backing.carrier {
        Carrier::Device { path } => path.to_str().and_then(|path| path.strip_prefix("/dev/mapper/")),
        _ => None,
    };
    let path = given.filter(|path| !is_stable(Path::new(path), volume, is_sure(facts)))?;
    let sentence = format!("its {part} is {path}, by {option}: {}", may_be_another(facts, path));
    let finding = Finding::new(Key::UnstableName, Severity::Critical, path, sentence);
    let name = backing.device.filter(|_| is_sure(facts)).and_then(stable);
    Some(match name {
        Some(name) => finding.act(
            format!("write {option}={name} in the place of {path} among Docker's storage options"),
            "online; counts when Docker is started next",
        ),
        None => {
            let first = format!("find out which disk Docker's {part} is on, before Docker is started again");
            let then = format!("shows the names that stay, for {option} among Docker's storage options");
            finding.with(Way::after(first, "ls -l /dev/disk/by-id/", then))
        }
    })
}

/// Folders of /dev that are no volume group's.
const NO_GROUPS: [&str; 6] = ["block", "bus", "char", "disk", "loop", "sd"];

/// Whether a name stays with its disk: udev's links by identity, names of device-mapper's, and `/dev/VG/LV` of a logical volume,
/// whose dm name is given. Where nothing is known of the disk that shape alone tells.
fn is_stable(target: &Path, volume: Option<&str>, is_sure: bool) -> bool {
    let text = target.to_string_lossy();
    let Some(name) = text.strip_prefix("/dev/") else { return false };
    if ["disk/by-id/", "disk/by-uuid/", "disk/by-partuuid/", "mapper/"].iter().any(|kind| name.starts_with(kind)) {
        return true;
    }
    match (name.split_once('/'), volume) {
        (Some((group, lv)), Some(volume)) => volume == format!("{}-{}", doubled(group), doubled(lv)),
        (Some((folder, lv)), None) => !is_sure && !lv.contains('/') && !NO_GROUPS.contains(&folder),
        (None, _) => false,
    }
}

/// Returns a name as it is part of a volume's dm name: dashes in it are doubled there (lvm2, `dm_build_dm_name`).
fn doubled(name: &str) -> String {
    name.replace('-', "--")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use crate::engine::docker_root::{DockerRoot, Options};
    use crate::engine::options::StorageOptions;
    use crate::pool::{Link, PoolReport};
    use crate::report::samples::{docker_pool, docker_root};

    #[test]
    fn a_disk_behind_a_link_by_a_name_that_changes_is_told_with_one_that_does_not() {
        let mut pool = docker_pool("0 9/524288 9/1638400", 1 << 40);
        let root = docker_root();
        let mut linked = |target: &str, volume: Option<&str>| {
            pool.data.carrier = Carrier::LoopOverDevice {
                device: Some("/dev/loop0".into()),
                disk: LoopDisk {
                    path: "/dev/sdb".into(),
                    number: Some(DevNo { major: 8, minor: 16 }),
                    size: None,
                    volume: volume.map(str::to_owned),
                    link: Some(Link {
                        at: "/var/lib/docker/devicemapper/devicemapper/data".into(),
                        target: target.into(),
                    }),
                },
            };
            let facts = Facts { docker: Some(&root), ..Facts::of(&pool) };
            judge(&facts, &|_| Some("/dev/disk/by-id/wwn-0x5000".to_owned()))
        };
        let told = linked("/dev/sdb", None);
        assert_eq!((told[0].key, told[0].severity), (Key::SymlinkedDevice, Severity::Critical));
        let first = "add dm.datadev=/dev/disk/by-id/wwn-0x5000 to Docker's storage options, where the others are";
        assert_eq!(told[0].ways[0].first.as_deref(), Some(first));
        let away =
            "systemctl stop docker && rm /var/lib/docker/devicemapper/devicemapper/data && systemctl start docker";
        assert!(told[0].ways[0].command.as_deref().unwrap().ends_with(away), "{told:?}");
        assert_eq!(
            told[0].ways[1].command.as_deref().unwrap(),
            "ln -sfn /dev/disk/by-id/wwn-0x5000 /var/lib/docker/devicemapper/devicemapper/data"
        );
        for stable in ["/dev/disk/by-id/wwn-0x5000", "/dev/mapper/v--g-data", "/dev/v-g/data"] {
            assert_eq!(linked(stable, Some("v--g-data")), [], "{stable}");
        }
        for (other, volume) in [
            ("/dev/block/8:16", None),
            ("/dev/sd/b", None),
            ("/dev/vg/data", None),
            ("/dev/vg/other", Some("vg-data")),
            ("/dev/disk/by-path/pci-0000", None),
        ] {
            assert_eq!(linked(other, volume).len(), 1, "{other}");
        }
        // Which disk it was nobody knows any more: no name of what is there now is offered.
        pool.activity = Activity::Inactive;
        let facts = Facts { docker: Some(&root), ..Facts::of(&pool) };
        let told = judge(&facts, &|_| Some("/dev/disk/by-id/wwn-0x6000".to_owned()));
        assert!(told[0].sentence.contains("since a boot /dev/disk/by-path/pci-0000 may be"), "{told:?}");
        assert!(!format!("{told:?}").contains("0x6000"), "{told:?}");
    }

    #[test]
    fn a_disk_that_an_option_names_is_told_with_the_name_that_stays_while_it_is_known() {
        let given = |data: &str| {
            let options = StorageOptions::parse([data, "dm.metadatadev=/dev/mapper/vg-meta"]);
            DockerRoot { options: Options::Configured(options), ..docker_root() }
        };
        let mut pool = docker_pool("0 9/524288 9/1638400", 1 << 40);
        pool.data.device = Some(DevNo { major: 8, minor: 16 });
        let told = |pool: &PoolReport, root: &DockerRoot| {
            let facts = Facts { docker: Some(root), ..Facts::of(pool) };
            judge(&facts, &|disk| (disk.minor == 16).then(|| "/dev/disk/by-id/wwn-0x5000".to_owned()))
        };
        let up = told(&pool, &given("dm.datadev=/dev/sdb"));
        assert_eq!((up.len(), up[0].key, up[0].severity), (1, Key::UnstableName, Severity::Critical));
        let way = up[0].ways[0].first.as_deref().unwrap();
        assert!(way.starts_with("write dm.datadev=/dev/disk/by-id/wwn-0x5000 in the place of /dev/sdb"), "{way}");
        pool.activity = Activity::Inactive;
        let down = told(&pool, &given("dm.datadev=/dev/sdb"));
        assert!(down[0].sentence.contains("since a boot /dev/sdb may be another disk"), "{down:?}");
        assert!(!format!("{down:?}").contains("0x5000"), "{down:?}");
        assert_eq!(told(&pool, &given("dm.datadev=/dev/disk/by-id/wwn-0x5000")), []);
    }
}
