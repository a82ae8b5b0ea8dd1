//! The ways out that several findings share: only commands that exist, with what they cost.

use std::path::Path;

use crate::engine::docker_root::DockerRoot;
use crate::engine::dockerd::Flags;
use crate::ops::cost::ONLINE;
use crate::pool::{Backing, Carrier, Maker, PoolReport, Space, Way};
use crate::process::quote;
use crate::units::{Bytes, META_BLOCK_BYTES, Sectors};

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
    if let Some(way) = into_room(pool, &pool.data, pool.data_space()?.total, pool.block_bytes()?, ("", size)) {
        return Some(way);
    }
    match &pool.data.carrier {
        Carrier::Device { path } if pool.data.linear.is_none() => return Some(with_disk(pool, path, "")),
        Carrier::LoopOverDevice { disk, .. } => return Some(with_disk(pool, &disk.path, "")),
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

/// Returns how a part grows into what its device has already, or with the LV that it ends on; nothing where that has to be
/// made larger by somebody first. `asked` are the option of that part and a size.
fn into_room(pool: &PoolReport, part: &Backing, has: Bytes, block: Bytes, asked: (&str, &str)) -> Option<Way> {
    let room = match &part.carrier {
        Carrier::Device { .. } if part.linear.is_none() => part.size.map(Sectors::bytes)?.saturating_sub(has),
        Carrier::LoopOverDevice { disk, .. } => disk.size.unwrap_or_default().saturating_sub(has),
        Carrier::Device { .. } | Carrier::Devices { .. } => part.room,
        Carrier::Loop { .. } | Carrier::Unknown => return None,
    };
    let (option, size) = asked;
    let grow = |size: &str| format!("dmpool grow {} {option}{size}", argument(pool));
    // On devices that dmpool has formatted pieces are whole MiB.
    if room >= block.max(Bytes::MIB) {
        return Some(Way::run(grow("max"), ONLINE));
    }
    part.on_lv.then(|| Way::run(grow(size), IN_GROUP))
}

/// A disk beneath, which `grow` takes as large as it has become.
fn with_disk(pool: &PoolReport, disk: &Path, option: &str) -> Way {
    let command = format!("dmpool grow {} {option}max", argument(pool));
    Way::after(format!("enlarge {}", disk.display()), command, ONLINE)
}

/// Returns how the metadata of a pool grows: by half.
pub(super) fn grow_metadata(pool: &PoolReport) -> Option<Way> {
    let by = half(pool.metadata_space()?);
    if let Some(lv) = logical_volume(pool) {
        return Some(Way::run(format!("lvextend --poolmetadatasize +{by} {lv}"), IN_GROUP));
    }
    let (metadata, block) = (pool.metadata_space()?.total, Bytes::new(META_BLOCK_BYTES));
    if pool.maker != Maker::Dmpool
        && let Some(way) = into_room(pool, &pool.metadata, metadata, block, ("--metadata ", &format!("+{by}")))
    {
        return Some(way);
    }
    match &pool.metadata.carrier {
        Carrier::LoopOverDevice { disk, .. } => return Some(with_disk(pool, &disk.path, "--metadata ")),
        Carrier::Device { path } if pool.metadata.linear.is_none() => {
            return Some(with_disk(pool, path, "--metadata "));
        }
        _ => {}
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
    let Some(starter) = &root.starter else {
        return Way::after("stop Docker", command, format!("{cost}; it is started again afterwards"));
    };
    // The socket would start it again.
    let socket = starter.unit().map(|unit| format!("systemctl stop {}; ", quote(&format!("{unit}.socket"))));
    let (stop, start) = (starter.command("stop"), starter.command("start"));
    Way::run(format!("{}{stop} && {command} && {start}", socket.unwrap_or_default()), cost)
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
    use crate::engine::start::Starter;
    use crate::pool::LoopDisk;
    use crate::report::samples::{docker_pool, docker_root, lvm_pool};

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
    fn docker_is_stopped_by_what_runs_the_machine() {
        let stopped = |starter: Option<Starter>| {
            let way = with_docker_stopped(&DockerRoot { starter, ..docker_root() }, "true", "10 s".to_owned());
            (way.first, way.command.unwrap())
        };
        let by_systemd = "systemctl stop docker.socket; systemctl stop docker && true && systemctl start docker";
        assert_eq!(stopped(Some(Starter::Unit("docker".to_owned()))), (None, by_systemd.to_owned()));
        let by_script = "service docker stop && true && service docker start";
        assert_eq!(stopped(Some(Starter::Script("docker".to_owned()))), (None, by_script.to_owned()));
        assert_eq!(stopped(None), (Some("stop Docker".to_owned()), "true".to_owned()));
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
        let disk = LoopDisk { path: "/dev/sdb".into(), number: None, size: None, link: None, volume: None };
        pool.data.carrier = Carrier::LoopOverDevice { device: Some("/dev/loop0".into()), disk };
        assert_eq!(grow_data(&pool), Some(Way::after("enlarge /dev/sdb", "dmpool grow docker max", ONLINE)));
    }

    #[test]
    fn a_device_that_has_more_than_the_pool_is_taken_first_and_an_lv_is_extended_by_grow() {
        let mut pool = docker_pool(LINE, 0);
        let disk = LoopDisk {
            path: "/dev/sdb".into(),
            number: None,
            size: Some(Bytes::new(200 << 30)),
            link: None,
            volume: None,
        };
        pool.data.carrier = Carrier::LoopOverDevice { device: Some("/dev/loop0".into()), disk };
        assert_eq!(grow_data(&pool), Some(Way::run("dmpool grow docker max", ONLINE)));
        pool.data.carrier = Carrier::Device { path: "/dev/sdb".into() };
        assert_eq!(grow_data(&pool).unwrap().first.as_deref(), Some("enlarge /dev/sdb"));
        pool.data.on_lv = true;
        assert_eq!(grow_data(&pool), Some(Way::run("dmpool grow docker +50G", IN_GROUP)));
        (pool.maker, pool.data.linear) = (Maker::Dmpool, Some("p0_tdata".to_owned()));
        pool.data.room = Bytes::new(5 << 30);
        assert_eq!(grow_data(&pool), Some(Way::run("dmpool grow docker max", ONLINE)));
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
