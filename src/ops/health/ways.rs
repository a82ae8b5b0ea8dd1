//! The ways out that several findings share: only commands that exist, with what they cost.

use crate::engine::docker_root::DockerRoot;
use crate::pool::{Maker, PoolReport, Space, Way};
use crate::process::quote;
use crate::units::Bytes;

/// The cost of what stops nothing.
pub(super) const ONLINE: &str = "online";

/// Returns the word by which commands name a pool: Docker's by `docker`, since its dm name changes when the root moves.
pub fn argument(pool: &PoolReport) -> String {
    match pool.maker {
        Maker::Docker => "docker".to_owned(),
        Maker::Dmpool | Maker::Lvm | Maker::Unknown => quote(&pool.name),
    }
}

/// Returns how the data of a pool grows: by half. A sparse file on a file system that has no more than the file already
/// promises would gain nothing by growing.
pub(super) fn grow_data(pool: &PoolReport) -> Option<Way> {
    let by = half(pool.data_space()?);
    if let Some(file) = pool.data.loop_file()
        && let (Some(host), Some(promised)) = (&file.host, file.promised())
        && host.free <= promised
    {
        let mount = quote(&host.mount_point.to_string_lossy());
        return Some(Way::new(format!("free space on {mount} first: growing would gain nothing"), ONLINE));
    }
    match logical_volume(pool) {
        Some(lv) => Some(Way::new(format!("lvextend -L +{by} {lv}"), "online, when the volume group has room")),
        None if pool.data.loop_file().is_some() => {
            Some(Way::new(format!("dmpool grow {} +{by}", argument(pool)), ONLINE))
        }
        None => None,
    }
}

/// Returns how the data of a pool grows to at least that size, in whole GiB.
pub(super) fn grow_data_to(pool: &PoolReport, least: Bytes) -> Option<Way> {
    let gib = least.get().div_ceil(Bytes::GIB.get());
    match logical_volume(pool) {
        Some(lv) => Some(Way::new(format!("lvextend -L {gib}G {lv}"), "online, when the volume group has room")),
        None if pool.data.loop_file().is_some() => {
            Some(Way::new(format!("dmpool grow {} {gib}G", argument(pool)), ONLINE))
        }
        None => None,
    }
}

/// Returns how Docker gives back what nobody uses, when it runs.
pub(super) fn prune(root: Option<&DockerRoot>) -> Option<Way> {
    root?.daemon.as_ref()?;
    Some(Way::new("docker image prune -a", "online; deletes every image that no container uses"))
}

/// Returns how the metadata of a pool grows: by half.
pub(super) fn grow_metadata(pool: &PoolReport) -> Option<Way> {
    let by = half(pool.metadata_space()?);
    match logical_volume(pool) {
        Some(lv) => {
            Some(Way::new(format!("lvextend --poolmetadatasize +{by} {lv}"), "online, when the volume group has room"))
        }
        None if pool.metadata.loop_file().is_some() => {
            Some(Way::new(format!("dmpool grow {} --metadata +{by}", argument(pool)), ONLINE))
        }
        None => None,
    }
}

/// Returns `VG/LV` of a pool that LVM made, from its dm name: dashes in either are doubled there, and a pool with
/// volumes of LVM's own ends in `-tpool` (lvm2, `dm_build_dm_name`).
pub(super) fn logical_volume(pool: &PoolReport) -> Option<String> {
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
