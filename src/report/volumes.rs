//! The volumes of pools, one a line, and as JSON.

use serde::Serialize;

use super::docker_info::UNKNOWN;
use super::failure::printable;
use super::{json, table};
use crate::ops::thin::list::{Active, Listing, Row, Stranger};

const HEADINGS: [&str; 8] = ["POOL", "VOLUME", "ID", "SIZE", "MAPPED", "ORIGIN", "DEVICE", "MOUNTED"];

/// Returns the table of all volumes, then what is not as it should be, each line ended.
pub fn text(pools: &[Listing]) -> String {
    let rows: Vec<_> = pools.iter().flat_map(|pool| pool.volumes.iter().map(|row| cells(pool, row))).collect();
    let mut text = match (rows.is_empty(), pools) {
        (false, _) => table::columns(&HEADINGS, &rows),
        (true, [only]) => format!("pool `{}` has no volumes that dmpool made\n", printable(&only.pool)),
        (true, _) => "no volumes that dmpool made\n".to_owned(),
    };
    for pool in pools {
        let remarks = pool.remarks.iter().map(|remark| format!("pool `{}`: {remark}", pool.pool));
        let missing = pool.volumes.iter().filter(|row| row.in_pool == Some(false)).map(|row| {
            format!("pool `{}`: it does not have the volume `{}` (id {})", pool.pool, row.volume.name, row.volume.id)
        });
        let strangers = pool.strangers.iter().map(|stranger| of_stranger(&pool.pool, stranger));
        for line in remarks.chain(missing).chain(strangers) {
            text.push_str(&format!("note: {}\n", printable(&line)));
        }
    }
    text
}

fn of_stranger(pool: &str, stranger: &Stranger) -> String {
    let mapped = stranger.mapped.map(|mapped| format!(", {} mapped", mapped.human())).unwrap_or_default();
    let device = stranger.device.as_ref().map(|device| format!(", active as `{device}`")).unwrap_or_default();
    format!(
        "pool `{pool}`: the volume with id {}{mapped}{device} is not one that dmpool made (dmpool thin adopt takes it)",
        stranger.id
    )
}

fn cells(pool: &Listing, row: &Row) -> [String; 8] {
    let device = match &row.active {
        Some(Active { suspended: true, .. }) => format!("{} (suspended)", row.device),
        Some(_) => row.device.clone(),
        None => "-".to_owned(),
    };
    let mounts: Vec<_> =
        row.active.iter().flat_map(|active| &active.mounts).map(|path| path.display().to_string()).collect();
    let mapped = match row.in_pool {
        Some(false) => "missing".to_owned(),
        _ => row.mapped.map_or_else(|| UNKNOWN.to_owned(), crate::units::Bytes::human),
    };
    [
        printable(&pool.pool),
        row.volume.name.to_string(),
        row.volume.id.to_string(),
        row.volume.size.human(),
        mapped,
        row.origin.clone().unwrap_or_else(|| "-".to_owned()),
        printable(&device),
        if mounts.is_empty() { "-".to_owned() } else { printable(&mounts.join(", ")) },
    ]
}

/// Returns the same as JSON, in one document, ended by a line end. Keys are described in `docs/guide.md`.
pub fn json(pools: &[Listing]) -> String {
    let volume = |row: &Row| JsonVolume {
        name: row.volume.name.to_string(),
        id: row.volume.id.get(),
        size: row.volume.size.get(),
        mapped: row.mapped.map(crate::units::Bytes::get),
        origin: row.origin.clone(),
        in_pool: row.in_pool,
        device: row.active.as_ref().map(|_| row.device.clone()),
        suspended: row.active.as_ref().map(|active| active.suspended),
        open_count: row.active.as_ref().map(|active| active.open_count),
        mounts: row.active.iter().flat_map(|a| &a.mounts).map(|path| path.to_string_lossy().into_owned()).collect(),
    };
    let stranger = |stranger: &Stranger| JsonStranger {
        id: stranger.id,
        mapped: stranger.mapped.map(crate::units::Bytes::get),
        device: stranger.device.clone(),
    };
    let pool = |pool: &Listing| JsonPool {
        name: pool.pool.clone(),
        transaction_id: pool.transaction,
        volumes: pool.volumes.iter().map(volume).collect(),
        unknown_volumes: pool.strangers.iter().map(stranger).collect(),
        remarks: pool.remarks.clone(),
    };
    json::document(&Document { format: json::FORMAT, pools: pools.iter().map(pool).collect() })
}

#[derive(Serialize)]
struct Document {
    format: u32,
    pools: Vec<JsonPool>,
}

#[derive(Serialize)]
struct JsonPool {
    name: String,
    transaction_id: Option<u64>,
    volumes: Vec<JsonVolume>,
    unknown_volumes: Vec<JsonStranger>,
    remarks: Vec<String>,
}

#[derive(Serialize)]
struct JsonVolume {
    name: String,
    id: u32,
    size: u64,
    mapped: Option<u64>,
    origin: Option<String>,
    in_pool: Option<bool>,
    device: Option<String>,
    suspended: Option<bool>,
    open_count: Option<u32>,
    mounts: Vec<String>,
}

#[derive(Serialize)]
struct JsonStranger {
    id: u64,
    mapped: Option<u64>,
    device: Option<String>,
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::pool::{DevNo, Volume, VolumeId, VolumeName};
    use crate::units::Bytes;

    fn row(name: &str, id: u32) -> Row {
        let (name, id) = (VolumeName::new(name).unwrap(), VolumeId::new(id).unwrap());
        let volume = Volume { name: name.clone(), id, size: Bytes::new(10 << 30), origin: None };
        Row { device: format!("p0-{name}"), volume, mapped: None, origin: None, in_pool: None, active: None }
    }

    fn pool() -> Listing {
        let active =
            Active { devno: DevNo::new(253, 4), suspended: false, open_count: 1, mounts: vec!["/srv/web".into()] };
        let web = Row { mapped: Some(Bytes::new(3 << 20)), in_pool: Some(true), active: Some(active), ..row("web", 1) };
        let lost = Row { in_pool: Some(false), ..row("lost", 2) };
        Listing {
            pool: "p0".to_owned(),
            transaction: Some(7),
            volumes: vec![web, lost, Row { origin: Some("web".to_owned()), ..row("db", 12) }],
            strangers: vec![Stranger { id: 3, mapped: Some(Bytes::new(0)), device: Some("by-hand".to_owned()) }],
            remarks: vec!["something".to_owned()],
        }
    }

    #[test]
    fn every_volume_has_its_line_and_what_is_wrong_stands_below() {
        assert_eq!(
            text(&[pool()]),
            "\
POOL  VOLUME  ID      SIZE   MAPPED  ORIGIN  DEVICE  MOUNTED
p0    web      1  10.0 GiB  3.0 MiB  -       p0-web  /srv/web
p0    lost     2  10.0 GiB  missing  -       -       -
p0    db      12  10.0 GiB  unknown  web     -       -
note: pool `p0`: something
note: pool `p0`: it does not have the volume `lost` (id 2)
note: pool `p0`: the volume with id 3, 0 bytes mapped, active as `by-hand` is not one that dmpool made (dmpool thin adopt takes it)
"
        );
    }

    #[test]
    fn no_volumes_are_said_in_words() {
        assert_eq!(text(&[]), "no volumes that dmpool made\n");
        let none = Listing { volumes: vec![], strangers: vec![], remarks: vec![], ..pool() };
        assert_eq!(text(&[none]), "pool `p0` has no volumes that dmpool made\n");
    }

    #[test]
    fn json_has_bytes_and_null_for_what_is_not_known() {
        let value: serde_json::Value = serde_json::from_str(&json(&[pool()])).unwrap();
        let at = |pointer: &str| value.pointer(pointer).cloned().unwrap();
        assert_eq!(at("/pools/0/transaction_id"), 7);
        assert_eq!(at("/pools/0/volumes/0/mapped"), 3 << 20);
        assert_eq!(at("/pools/0/volumes/0/mounts/0"), "/srv/web");
        assert!(at("/pools/0/volumes/2/in_pool").is_null() && at("/pools/0/volumes/2/device").is_null());
        assert_eq!(at("/pools/0/unknown_volumes/0/device"), "by-hand");
        assert_eq!(
            (at("/pools/0/volumes/0/origin"), at("/pools/0/volumes/2/origin")),
            (serde_json::Value::Null, "web".into())
        );
    }
}
