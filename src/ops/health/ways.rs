//! The ways out that several findings share: only commands that exist, with what they cost.

use std::path::Path;

use super::cost::ONLINE;
use crate::engine::docker_root::DockerRoot;
use crate::engine::dockerd::Flags;
use crate::pool::{Carrier, LoopDisk, Maker, PoolReport, Space, Way};
use crate::process::quote;
use crate::units::Bytes;

/// The cost of what LVM can do as long as it has something to give.
const IN_GROUP: &str = "online, when the volume group has room";

/// Returns the word by which commands name a pool, as it is typed.
pub fn argument(pool: &PoolReport) -> String {
    quote(&pool.argument)
}

/// Returns how the data of a pool grows: by half.
pub(super) fn grow_data(pool: &PoolReport) -> Option<Way> {
    grow_data_by(pool, &format!("+{}", half(pool.data_space()?)))
}

/// Returns how the data of a pool grows to at least that size, in whole GiB.
pub(super) fn grow_data_to(pool: &PoolReport, least: Bytes) -> Option<Way> {
    grow_data_by(pool, &format!("{}G", least.get().div_ceil(Bytes::GIB.get())))
}

/// A sparse file on a file system that has no more than the file already promises gains nothing by growing.
fn grow_data_by(pool: &PoolReport, size: &str) -> Option<Way> {
    if let Some(lv) = logical_volume(pool) {
        return Some(Way::run(format!("lvextend -L {size} {lv}"), IN_GROUP));
    }
    match &pool.data.carrier {
        Carrier::Device { path } if pool.data.linear.is_none() => return Some(reload(pool, path)),
        Carrier::LoopOverDevice { disk, .. } => return Some(with_disk(pool, disk, "")),
        Carrier::Device { .. } | Carrier::Devices { .. } if pool.maker == Maker::Dmpool => {
            let command = format!("dmpool grow {} max", argument(pool));
            return Some(Way::after("enlarge one of the devices that it lies on", command, ONLINE));
        }
        Carrier::Device { .. } | Carrier::Devices { .. } | Carrier::Loop { .. } | Carrier::Unknown => {}
    }
    let file = pool.data.loop_file()?;
    if let (Some(host), Some(promised)) = (&file.host, file.promised())
        && host.free <= promised
    {
        let mount = quote(&host.mount_point.to_string_lossy());
        return Some(Way::act(format!("free space on {mount}: growing would gain nothing"), ONLINE));
    }
    Some(Way::run(format!("dmpool grow {} {size}{}", argument(pool), overcommit(pool)), ONLINE))
}

/// A pool on a device by somebody's own table: that table, as long as the device is by then.
fn reload(pool: &PoolReport, device: &Path) -> Way {
    let (name, device) = (quote(&pool.name), quote(&device.to_string_lossy()));
    let length = format!("awk -v n=$(blockdev --getsz {device}) '{{ $2 = n; print }}'");
    let load = format!("dmsetup table {name} | {length} | dmsetup load {name} && dmsetup resume {name}");
    Way::after(format!("enlarge {device}"), load, ONLINE)
}

/// A disk behind a loop device, which `grow` takes as large as it has become.
fn with_disk(pool: &PoolReport, disk: &LoopDisk, option: &str) -> Way {
    let command = format!("dmpool grow {} {option}max", argument(pool));
    Way::after(format!("enlarge {}", disk.path.display()), command, ONLINE)
}

/// Returns how the metadata of a pool grows: by half.
pub(super) fn grow_metadata(pool: &PoolReport) -> Option<Way> {
    let by = half(pool.metadata_space()?);
    if let Some(lv) = logical_volume(pool) {
        return Some(Way::run(format!("lvextend --poolmetadatasize +{by} {lv}"), IN_GROUP));
    }
    if let Carrier::LoopOverDevice { disk, .. } = &pool.metadata.carrier {
        return Some(with_disk(pool, disk, "--metadata "));
    }
    if pool.maker == Maker::Dmpool && pool.metadata.loop_file().is_none() {
        return Some(Way::run(format!("dmpool grow {} --metadata max", argument(pool)), ONLINE));
    }
    pool.metadata.loop_file()?;
    Some(Way::run(format!("dmpool grow {} --metadata +{by}{}", argument(pool), overcommit(pool)), ONLINE))
}

/// Returns the option without which `grow` refuses when both files together promise more than there is: one of them may
/// still have room.
fn overcommit(pool: &PoolReport) -> &'static str {
    if pool.overcommitted_by().is_some() { " --overcommit" } else { "" }
}

/// Returns what is done while Docker is stopped. `cost` is what that costs, Docker's stop and start included.
pub(super) fn with_docker_stopped(root: &DockerRoot, command: &str, cost: String) -> Way {
    match &root.unit {
        // The socket would start it again.
        Some(unit) => Way::run(
            format!("systemctl stop {unit}.socket; systemctl stop {unit} && {command} && systemctl start {unit}"),
            cost,
        ),
        None => Way::after("stop Docker", command, format!("{cost}; it is started again afterwards")),
    }
}

/// Returns how Docker gives back what nobody uses, when it runs.
pub(super) fn prune(root: Option<&DockerRoot>) -> Option<Way> {
    let daemon = root?.daemon.as_ref()?;
    let prune = format!("{} image prune -a", client(&daemon.flags));
    Some(Way::run(prune, "online; deletes every image that no container uses"))
}

/// Returns the `docker` that asks a daemon: with `-H` when it listens in other places only than the usual one.
fn client(flags: &Flags) -> String {
    let usual = |host: &String| matches!(host.as_str(), "fd://" | "unix://") || host.ends_with("/run/docker.sock");
    match flags.keys.get("hosts").map(Vec::as_slice) {
        Some([host, rest @ ..]) if !usual(host) && !rest.iter().any(usual) => format!("docker -H {}", quote(host)),
        Some(_) | None => "docker".to_owned(),
    }
}

/// Returns `VG/LV` of a pool that LVM made, from its dm name: dashes in either are doubled there, and a pool with
/// volumes of LVM's own ends in `-tpool` (lvm2, `dm_build_dm_name`).
pub fn logical_volume(pool: &PoolReport) -> Option<String> {
    if pool.maker != Maker::Lvm {
        return None;
    }
    let name = pool.name.strip_suffix("-tpool").unwrap_or(&pool.name);
    let mut chars = name.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if c != '-' {
            continue;
        }
        if chars.next_if(|(_, next)| *next == '-').is_none() {
            let (vg, lv) = (name.get(..at)?, name.get(at + 1..)?);
            return Some(quote(&format!("{}/{}", vg.replace("--", "-"), lv.replace("--", "-"))));
        }
    }
    None
}

/// Half as much again, in whole GiB.
fn half(space: Space) -> String {
    format!("{}G", (space.total.get() / 2).div_ceil(Bytes::GIB.get()).max(1))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::report::samples::{docker_pool, lvm_pool};

    const LINE: &str = "0 6211/524288 1638400/1638400 - out_of_data_space discard_passdown queue_if_no_space - 1024";

    /// 90 GiB of the data file and 2 GiB of the metadata's are promised.
    fn ways(host_free: u64) -> [String; 2] {
        let pool = docker_pool(LINE, host_free << 30);
        [grow_data(&pool), grow_metadata(&pool)].map(|way| way.unwrap()).map(|way| way.command.or(way.first).unwrap())
    }

    #[test]
    fn growing_is_told_as_grow_takes_it() {
        let (data, metadata) = ("dmpool grow docker +50G", "dmpool grow docker --metadata +1G");
        assert_eq!(ways(93), [data.to_owned(), metadata.to_owned()]);
        assert_eq!(ways(91), [format!("{data} --overcommit"), format!("{metadata} --overcommit")]);
        let first = "free space on /: growing would gain nothing";
        assert_eq!(ways(90), [first.to_owned(), format!("{metadata} --overcommit")]);
    }

    #[test]
    fn a_pool_that_docker_does_not_mean_is_named_by_its_root() {
        let other = PoolReport { argument: "/srv/second root".to_owned(), ..docker_pool(LINE, 93 << 30) };
        assert_eq!(grow_data(&other).unwrap().command.as_deref(), Some("dmpool grow '/srv/second root' +50G"));
        assert_eq!(argument(&other), "'/srv/second root'");
    }

    #[test]
    fn images_are_pruned_where_the_daemon_listens() {
        let of = |line: &str| client(&Flags::of_words(&line.split(' ').collect::<Vec<_>>()).unwrap());
        assert_eq!(of("dockerd"), "docker");
        assert_eq!(of("dockerd -H fd:// -H tcp://0.0.0.0:2375"), "docker");
        assert_eq!(of("dockerd -H unix:///srv/d.sock"), "docker -H unix:///srv/d.sock");
    }

    #[test]
    fn a_disk_behind_a_loop_device_grows_by_itself_first() {
        let mut pool = docker_pool(LINE, 0);
        let disk = LoopDisk { path: "/dev/sdb".into(), number: None, size: None, link: None };
        pool.data.carrier = Carrier::LoopOverDevice { device: Some("/dev/loop0".into()), disk };
        assert_eq!(grow_data(&pool), Some(Way::after("enlarge /dev/sdb", "dmpool grow docker max", ONLINE)));
    }

    #[test]
    fn pools_of_lvm_grow_by_lvm() {
        let pool = lvm_pool();
        let extend = |size: &str| Some(Way::run(format!("lvextend {size} docker/thinpool"), IN_GROUP));
        assert_eq!(grow_data(&pool), extend("-L +24G"));
        assert_eq!(grow_data_to(&pool, Bytes::new(60 << 30)), extend("-L 60G"));
        assert_eq!(grow_metadata(&pool), extend("--poolmetadatasize +1G"));
    }
}
