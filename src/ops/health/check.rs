//! How a pool is brought back whose metadata must be checked, or cannot be gone on with.

use std::borrow::Cow;
use std::path::Path;

use super::Facts;
use super::ways::{argument, logical_volume, with_docker_stopped};
use crate::engine::docker_root::DockerRoot;
use crate::ops::cost::{self, docker_stopped, pool_stopped};
use crate::pool::{Activity, Carrier, Maker, PoolReport, Way};
use crate::process::quote;

/// LVM's check before it activates a pool, so that it lets the kernel write again when it finds no damage.
const CLEARING: &str = r#"global { thin_check_options = [ "-q", "--clear-needs-check-flag" ] }"#;
/// What must be done where no unit stops what uses the pool.
const BY_HAND: &str = "stop what uses it and deactivate its volumes";

/// Returns the ways: the check that lets the kernel write again, then the repair when that finds damage.
pub(super) fn ways(facts: &Facts<'_>) -> Vec<Way> {
    let pool = facts.pool;
    let root = facts.docker;
    if let Some(lv) = logical_volume(pool) {
        return of_lvm(pool, root, &lv);
    }
    let Some(device) = metadata(pool).map(Cow::into_owned) else {
        let what = format!("{BY_HAND}, take it down, and run thin_check on its metadata device");
        return vec![Way::act(what, "stopped meanwhile")];
    };
    let file = quote(&device.to_string_lossy());
    let check = format!("thin_check {file} && thin_check --clear-needs-check-flag {file}");
    let name = quote(&pool.name);
    let down = pool.activity == Activity::Inactive;
    let whole = match pool.maker {
        _ if down => check,
        // Docker leaves its pool up when it is killed, and a check writes to what the kernel then still has.
        Maker::Docker if root.is_some() => format!("{{ ! dmsetup info {name} || dmsetup remove {name}; }} && {check}"),
        Maker::Dmpool => format!("dmpool deactivate {0} && {check} && dmpool activate {0}", argument(pool)),
        // Its loop devices go with it, and Docker attaches them again.
        Maker::Docker => format!("dmsetup remove {name} && {check}"),
        Maker::Lvm | Maker::Unknown => match again(pool) {
            Some(again) => format!("dmsetup remove {name} && {check} && {again}"),
            None => {
                let what = format!("{BY_HAND}, note `dmsetup table {name}` and `losetup -l`");
                return vec![Way::after(
                    what,
                    format!("dmsetup remove {name} && {check}"),
                    "stopped until it is made again",
                )];
            }
        },
    };
    let mut ways = vec![stopped(pool, root, &whole, cost::check(pool))];
    // These open the file by its name when they start: another one may take its place.
    if matches!(pool.maker, Maker::Docker | Maker::Dmpool) && pool.metadata.loop_file().is_some() {
        let repair = format!(
            "cp -a --sparse=always {file} {file}.repaired && thin_repair -i {file} -o {file}.repaired && \
             mv {file} {file}.damaged && mv {file}.repaired {file}"
        );
        let time = cost::repair(pool).map_or_else(|| "stopped for minutes".to_owned(), pool_stopped);
        ways.push(Way::after("when thin_check finds damage, with the pool down", repair, time));
    }
    ways
}

/// Returns what makes a pool of somebody's again once it was removed, of its live table: a loop device that has gone away with
/// it is attached again first, and goes with it again. Nothing when that table is not known, or what such a device showed of
/// its file.
fn again(pool: &PoolReport) -> Option<String> {
    let table = pool.table.as_ref()?;
    let name = quote(&pool.name);
    let uuid = pool.uuid.as_ref().map(|uuid| format!(" --uuid {}", quote(uuid))).unwrap_or_default();
    let parts = [("m", table.metadata, &pool.metadata), ("d", table.data, &pool.data)];
    let (mut attach, mut detach, mut devices) = (String::new(), String::new(), Vec::new());
    for (variable, number, backing) in parts {
        match backing.loop_file().filter(|file| file.autoclear && backing.linear.is_none()) {
            Some(file) if file.is_part || file.deleted => return None,
            Some(file) => {
                let path = quote(&file.path.to_string_lossy());
                attach.push_str(&format!("{variable}=$(losetup --find --show {path}) && "));
                detach.push_str(&format!(" \"${variable}\""));
                devices.push(format!("${variable}"));
            }
            None => devices.push(number.to_string()),
        }
    }
    if attach.is_empty() {
        return Some(format!("dmsetup create {name}{uuid} --table {}", quote(&table.to_string())));
    }
    let numbers = format!(" {} {} ", table.metadata, table.data);
    let line = table.to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || " :_-".contains(c);
    let line =
        Some(line).filter(|line| line.chars().all(plain))?.replacen(&numbers, &format!(" {} ", devices.join(" ")), 1);
    Some(format!("{attach}dmsetup create {name}{uuid} --table \"{line}\" && losetup --detach{detach}"))
}

/// LVM runs thin_check when it activates, on some distributions without the flag that lets the kernel write again
/// (lvm.conf(5), `thin_check_options`), and repairs only what is not active.
fn of_lvm(pool: &PoolReport, root: Option<&DockerRoot>, lv: &str) -> Vec<Way> {
    // As long as one of LVM's own volumes is active, so is the pool under it, whatever `lvchange -an` of the pool says.
    let (group, name) = lv.split_once('/').unwrap_or((lv, ""));
    let [off, on] = ["-an", "-ay"].map(|how| format!("lvchange {how} --select pool_lv={name} {group}"));
    let around = |middle: &str| {
        if pool.name.ends_with("-tpool") {
            format!("{off} && lvchange -an {lv} && {middle} && {on}")
        } else {
            format!("lvchange -an {lv} && {middle}")
        }
    };
    let checked = around(&format!("lvchange -ay --config {} {lv}", quote(CLEARING)));
    let repair = around(&format!("lvconvert -y --repair {lv} && lvchange -ay {lv}"));
    let time = cost::repair(pool).map_or_else(|| "stopped for minutes".to_owned(), pool_stopped);
    vec![
        stopped(pool, root, &checked, cost::check(pool)),
        Way::after(format!("when LVM's check finds damage, {BY_HAND}"), repair, time),
    ]
}

/// What is done while nobody uses the pool; `seconds` without the stop and the start.
fn stopped(pool: &PoolReport, root: Option<&DockerRoot>, command: &str, seconds: Option<u64>) -> Way {
    let cost = |stopped: fn(u64) -> String| seconds.map_or_else(|| "stopped meanwhile".to_owned(), stopped);
    match root {
        Some(root) if root.daemon.is_some() || pool.activity != Activity::Inactive => {
            with_docker_stopped(root, command, cost(docker_stopped))
        }
        _ if pool.activity == Activity::Inactive || pool.open_count == Some(0) => Way::run(command, cost(pool_stopped)),
        _ => Way::after(BY_HAND, command, cost(pool_stopped)),
    }
}

/// What holds the metadata, by a name that is there without the pool: the first of what the pool stands on that stays, since
/// all below may hold more than the metadata.
fn metadata(pool: &PoolReport) -> Option<Cow<'_, Path>> {
    let stays = matches!(pool.maker, Maker::Unknown) && pool.activity != Activity::Inactive;
    if let Some(linear) = pool.metadata.linear.as_ref().filter(|_| stays) {
        return Some(Path::new("/dev/mapper").join(linear).into());
    }
    match &pool.metadata.carrier {
        Carrier::Loop { device: Some(device), file } if stays && !file.autoclear => Some(device.into()),
        Carrier::Loop { file, .. } => Some(file.path.as_path().into()).filter(|_| !file.deleted && !file.is_part),
        Carrier::LoopOverDevice { disk, .. } => Some(disk.path.as_path().into()),
        // On a device with a label it begins somewhere behind that.
        Carrier::Device { path } if pool.metadata.linear.is_none() => Some(path.into()),
        Carrier::Device { .. } | Carrier::Devices { .. } | Carrier::Unknown => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use crate::pool::{Backing, LoopFile};
    use crate::report::samples::{docker_pool, docker_root, lvm_pool, mute_pool};

    const LINE: &str = "0 487/512 9/1638400 - ro discard_passdown queue_if_no_space needs_check 1024";

    fn of(pool: &PoolReport, docker: Option<&DockerRoot>) -> Vec<Way> {
        ways(&Facts { docker, ..Facts::of(pool) })
    }

    #[test]
    fn a_check_takes_the_pool_down_as_its_maker_does() {
        let docker = docker_pool(LINE, 0);
        let file = "/var/lib/docker/devicemapper/devicemapper/metadata";
        let checked = format!("thin_check {file} && thin_check --clear-needs-check-flag {file}");
        let root = docker_root();
        let name = &docker.name;
        let pasted = format!(
            "systemctl stop docker.socket; systemctl stop docker && {{ ! dmsetup info {name} || dmsetup remove {name}; }} && {checked} && systemctl start \
             docker"
        );
        assert_eq!(of(&docker, Some(&root))[0], Way::run(pasted, "~40 s with Docker stopped"));
        let by_hand = DockerRoot { starter: None, ..root };
        assert_eq!(of(&docker, Some(&by_hand))[0].first.as_deref(), Some("stop Docker"));
        let own =
            PoolReport { maker: Maker::Dmpool, name: "p0".to_owned(), argument: "p0".to_owned(), ..docker.clone() };
        let pasted = format!("dmpool deactivate p0 && {checked} && dmpool activate p0");
        assert_eq!(of(&own, None)[0], Way::after(BY_HAND, &pasted, "~10 s stopped"));
        let idle = PoolReport { open_count: Some(0), ..own };
        assert_eq!(of(&idle, None)[0], Way::run(pasted, "~10 s stopped"));
        let other = PoolReport { maker: Maker::Unknown, ..idle };
        let attached = "m=$(losetup --find --show /var/lib/docker/devicemapper/devicemapper/metadata) && \
                        d=$(losetup --find --show /var/lib/docker/devicemapper/devicemapper/data)";
        let pasted = format!(
            "dmsetup remove p0 && {checked} && {attached} && dmsetup create p0 --table \
             \"0 209715200 thin-pool $m $d 128 32768 1 skip_block_zeroing\" && losetup --detach \"$m\" \"$d\""
        );
        assert_eq!(of(&other, None), [Way::run(pasted, "~10 s stopped")]);
        assert_eq!(of(&mute_pool(), None)[0].command, None);
    }

    /// A pool that somebody has made on loop devices, changed so.
    fn of_somebody(change: impl Fn(&mut Backing, &mut LoopFile)) -> Vec<Way> {
        let mut pool = docker_pool(LINE, 0);
        (pool.maker, pool.name, pool.open_count) = (Maker::Unknown, "p0".to_owned(), Some(0));
        for backing in [&mut pool.data, &mut pool.metadata] {
            let Carrier::Loop { device, mut file } = backing.carrier.clone() else { unreachable!() };
            change(backing, &mut file);
            backing.carrier = Carrier::Loop { device, file };
        }
        of(&pool, None)
    }

    #[test]
    fn what_stays_without_the_pool_is_checked_as_it_stands() {
        let table = "0 209715200 thin-pool 7:1 7:0 128 32768 1 skip_block_zeroing";
        let whole = |device: &str| {
            let checked = format!("thin_check {device} && thin_check --clear-needs-check-flag {device}");
            format!("dmsetup remove p0 && {checked} && dmsetup create p0 --table '{table}'")
        };
        let attached = of_somebody(|_, file| (file.autoclear, file.is_part) = (false, true));
        assert_eq!(attached[0].command.as_deref(), Some(whole("/dev/loop1").as_str()));
        // Only a part of what is below may be the metadata.
        let linear = of_somebody(|backing, _| backing.linear = Some("meta".to_owned()));
        assert_eq!(linear[0].command.as_deref(), Some(whole("/dev/mapper/meta").as_str()));
        let gone = of_somebody(|_, file| file.is_part = true);
        assert_eq!(gone[0].command, None);
    }

    #[test]
    fn lvm_checks_when_nothing_of_the_pool_is_active() {
        let command = |pool: &PoolReport, way: usize| of(pool, None)[way].command.clone().unwrap();
        let pool = lvm_pool();
        assert_eq!(
            command(&pool, 0),
            format!("lvchange -an docker/thinpool && lvchange -ay --config '{CLEARING}' docker/thinpool")
        );
        let with_volumes = PoolReport { name: "vg-pool-tpool".to_owned(), ..pool };
        assert_eq!(
            command(&with_volumes, 1),
            "lvchange -an --select pool_lv=pool vg && lvchange -an vg/pool && lvconvert -y --repair vg/pool && \
             lvchange -ay vg/pool && lvchange -ay --select pool_lv=pool vg"
        );
    }
}
