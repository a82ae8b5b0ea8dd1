//! The same as JSON, for programs: stable keys, bytes as whole numbers, `null` for what is not known.
//!
//! A key is never renamed and never changes its unit; new ones may come. What would break a reader raises `format`.
//! Keys are described in `docs/guide.md`.

use std::path::Path;

use serde::Serialize;

use super::status::{self, StatusView};
use crate::engine::docker_root::{DeviceCounts, DockerRoot, Standing};
use crate::ops::status::Origin;
use crate::pool::{
    Backing, BytesPerDay, Carrier, DevNo, Discard, Finding, Full, HostFs, Limit, LoopFile, Mode, NoSpace, PoolReport,
    PoolStatus, Snapshot, Space, User, Way, finding,
};
use crate::units::{Bytes, MetaBlock, MetaBlocks, Sectors};

/// The version of the keys.
pub const FORMAT: u32 = 1;

/// Returns one pool as `status --format json` prints it, in one document, ended by a line end.
pub fn status(view: &StatusView<'_>) -> String {
    document(&Status { format: FORMAT, pool: Pool::of(view) })
}

/// Returns all pools of a machine as `list --format json` prints them.
pub fn list(views: &[StatusView<'_>], origin: &Origin) -> String {
    document(&List {
        format: FORMAT,
        hostname: &origin.hostname,
        time: origin.time.to_string(),
        pools: views.iter().map(Pool::of).collect(),
    })
}

/// The types below hold strings, numbers and vectors only, which always have a JSON form.
pub(super) fn document(value: &impl Serialize) -> String {
    let mut text = serde_json::to_string_pretty(value).unwrap_or_else(|error| format!("{{\"error\": \"{error}\"}}"));
    text.push('\n');
    plain(text)
}

/// JSON itself lets DEL and the controls above 0x80 stand, which steer a terminal as well.
pub(super) fn plain(text: String) -> String {
    let steers = |c: char| c.is_control() && c != '\n';
    if !text.contains(steers) {
        return text;
    }
    text.chars().fold(String::new(), |mut plain, c| {
        match steers(c) {
            true => plain.push_str(&format!("\\u{:04x}", u32::from(c))),
            false => plain.push(c),
        }
        plain
    })
}

#[derive(Serialize)]
struct Status {
    format: u32,
    pool: Pool,
}

#[derive(Serialize)]
struct List<'a> {
    format: u32,
    hostname: &'a str,
    /// RFC 3339, UTC.
    time: String,
    pools: Vec<Pool>,
}

#[derive(Serialize)]
struct Pool {
    name: String,
    uuid: Option<String>,
    device: Option<DevNo>,
    maker: &'static str,
    user: &'static str,
    /// How the user is known: `options`, `files`, `devices`, `name`, `deleted_file`, `volumes`; `before` of a pool that
    /// Docker used before another.
    user_known_by: Option<crate::pool::Tie>,
    docker_root: Option<String>,
    containerd_root: Option<String>,
    containerd_devices: Option<Vec<Snapshot>>,
    activity: crate::pool::Activity,
    verdict: Sentence,
    findings: Vec<FindingOf>,
    /// The kernel's word: `rw`, `ro`, `out_of_data_space`, `Fail`, `Error`.
    mode: Option<&'static str>,
    needs_check: Option<bool>,
    no_space_policy: Option<&'static str>,
    gave_up_queueing: bool,
    discard: Option<&'static str>,
    transaction_id: Option<u64>,
    block_size: Option<Bytes>,
    data: Device,
    metadata: Device,
    low_water_mark_blocks: Option<u64>,
    metadata_low_watermark_blocks: Option<u64>,
    held_metadata_root: Option<u64>,
    features: Option<Vec<String>>,
    table: Option<String>,
    open_count: Option<u32>,
    overcommitted_by: Option<Bytes>,
    binds_first: Option<Binds>,
    growth: Growth,
    full: FullOf,
    interrupted: Option<String>,
    docker: Option<Docker>,
    not_read: Vec<String>,
}

#[derive(Serialize)]
struct Sentence {
    /// `ok`, `warning`, `critical`, `unknown`.
    state: &'static str,
    reason: Option<String>,
}

/// A finding, as every command prints it.
#[derive(Serialize)]
pub(super) struct FindingOf {
    key: &'static str,
    severity: &'static str,
    object: String,
    sentence: String,
    ways: Vec<WayOf>,
}

#[derive(Serialize)]
struct WayOf {
    /// What is to be done by hand first, or instead.
    first: Option<String>,
    /// What can be pasted.
    command: Option<String>,
    cost: String,
}

#[derive(Serialize)]
struct Device {
    used: Option<Bytes>,
    total: Option<Bytes>,
    free: Option<Bytes>,
    device: Option<DevNo>,
    device_size: Option<Bytes>,
    path: Option<String>,
    file: Option<File>,
    /// The disk behind a loop device that has no file.
    disk: Option<Disk>,
    /// The symbolic link by which Docker finds file or disk.
    link: Option<SymbolicLink>,
}

#[derive(Serialize)]
struct Disk {
    path: String,
    device: Option<DevNo>,
    size: Option<Bytes>,
}

#[derive(Serialize)]
struct SymbolicLink {
    path: String,
    target: String,
}

#[derive(Serialize)]
struct File {
    path: String,
    deleted: bool,
    size: Option<Bytes>,
    allocated: Option<Bytes>,
    host_filesystem: Option<Host>,
}

#[derive(Serialize)]
struct Host {
    mount_point: String,
    r#type: String,
    device: DevNo,
    free: Bytes,
    total: Bytes,
}

#[derive(Serialize)]
pub(super) struct Binds {
    /// `pool`, `volume_group`, `host_file_system`, `metadata`.
    limit: Limit,
    after: Bytes,
    /// Whether LVM may extend the pool before that, and was not asked.
    unless_extended: bool,
}

impl Binds {
    /// Of a pool whose limits are known.
    pub(super) fn of(binds: Option<(Limit, Bytes)>, unless_extended: bool) -> Option<Self> {
        binds.map(|(limit, after)| Self { limit, after, unless_extended })
    }
}

#[derive(Serialize)]
struct Growth {
    data_bytes_per_day: Option<BytesPerDay>,
    metadata_bytes_per_day: Option<BytesPerDay>,
}

#[derive(Serialize)]
struct FullOf {
    /// `in`, `not_filling`, `unknown`.
    state: &'static str,
    /// As in `binds_first`.
    limit: Option<Limit>,
    seconds: Option<u64>,
}

#[derive(Serialize)]
struct Docker {
    root: String,
    /// `running`, `configured`, `named`, `left`.
    standing: &'static str,
    version: Option<DockerVersion>,
    /// The first version that prints the storage block in the layout used here.
    layout: &'static str,
    storage_driver: Option<String>,
    drivers: Vec<&'static str>,
    set_twice: Vec<SetTwice>,
    daemon_pid: Option<u32>,
    options_known: bool,
    base_device_size: Option<Bytes>,
    backing_filesystem: Option<String>,
    next_device_id: Option<u32>,
    open_transaction_id: Option<u64>,
    min_free_space_percent: Option<u8>,
    udev_sync: Option<bool>,
    deferred_removal: Option<bool>,
    deferred_deletion: Option<bool>,
    devices: Option<u64>,
    deferred_deleted_devices: Option<u64>,
    library_version: Option<String>,
}

#[derive(Serialize)]
struct DockerVersion {
    version: String,
    /// Whether it is exactly that one, or at least that one.
    exact: bool,
    known_by: String,
}

/// An option that the command line of the next daemon and `daemon.json` both set.
#[derive(Serialize)]
struct SetTwice {
    key: String,
    command_line: String,
    command_line_in: String,
    file: String,
}

impl Pool {
    fn of(view: &StatusView<'_>) -> Self {
        let pool = view.pool;
        let working = pool.status.as_ref().and_then(PoolStatus::working);
        let (user, docker_root, containerd_root) = match &pool.user {
            User::Docker { root } => ("docker", Some(text(root)), None),
            User::Containerd { root_path, .. } => ("containerd", None, root_path.as_deref().map(text)),
            User::Unknown => ("unknown", None, None),
        };
        Self {
            name: pool.name.clone(),
            uuid: pool.uuid.clone(),
            device: pool.device,
            maker: maker(pool),
            user,
            user_known_by: pool.tie,
            docker_root,
            containerd_root,
            containerd_devices: match &pool.user {
                User::Containerd { devices, .. } => devices.clone(),
                User::Docker { .. } | User::Unknown => None,
            },
            activity: pool.activity,
            verdict: Sentence::of(view.findings),
            findings: view.findings.iter().map(FindingOf::of).collect(),
            mode: pool.status.as_ref().and_then(mode),
            needs_check: match working {
                Some(working) => working.needs_check,
                None => pool.recorded.map(|recorded| recorded.needs_check),
            },
            no_space_policy: working.and_then(|w| w.no_space).map(NoSpace::word),
            gave_up_queueing: pool.gave_up_queueing(),
            discard: working.and_then(|w| w.discard).map(Discard::word),
            transaction_id: working
                .map(|w| w.transaction_id)
                .or_else(|| pool.recorded.map(|recorded| recorded.transaction_id)),
            block_size: pool.block_bytes(),
            data: Device::of(&pool.data, pool.data_space()),
            metadata: Device::of(&pool.metadata, pool.metadata_space()),
            low_water_mark_blocks: pool.table.as_ref().map(|table| table.low_water.get()),
            metadata_low_watermark_blocks: working.and_then(|w| w.metadata_low_water).map(MetaBlocks::get),
            held_metadata_root: working.and_then(|w| w.held_root).map(MetaBlock::get),
            features: pool.table.as_ref().map(|table| table.features.clone()),
            table: pool.table.as_ref().map(ToString::to_string),
            open_count: pool.open_count,
            overcommitted_by: pool.overcommitted_by(),
            binds_first: Binds::of(pool.binding_limit(), pool.may_be_extended()),
            growth: Growth { data_bytes_per_day: view.forecast.data, metadata_bytes_per_day: view.forecast.metadata },
            full: FullOf::of(view.forecast.full),
            interrupted: pool.interrupted.as_ref().map(|it| it.id.clone()),
            docker: view.docker.root.map(|root| Docker::of(root, view)),
            not_read: status::not_read(view).collect(),
        }
    }
}

const fn maker(pool: &PoolReport) -> &'static str {
    match pool.maker {
        crate::pool::Maker::Dmpool => "dmpool",
        crate::pool::Maker::Docker => "docker",
        crate::pool::Maker::Lvm => "lvm",
        crate::pool::Maker::Unknown => "unknown",
    }
}

fn mode(status: &PoolStatus) -> Option<&'static str> {
    match status {
        PoolStatus::Working(working) => working.mode.map(Mode::word),
        PoolStatus::Fail => Some("Fail"),
        PoolStatus::Error => Some("Error"),
        PoolStatus::Unreadable(_) => None,
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

impl Sentence {
    fn of(findings: &[Finding]) -> Self {
        match finding::verdict(findings) {
            None => Self { state: "ok", reason: None },
            Some(worst) => Self { state: worst.severity.key(), reason: Some(worst.sentence.clone()) },
        }
    }
}

impl FindingOf {
    pub(super) fn of(finding: &Finding) -> Self {
        let way = |way: &Way| WayOf { first: way.first.clone(), command: way.command.clone(), cost: way.cost.clone() };
        Self {
            key: finding.key.word(),
            severity: finding.severity.key(),
            object: finding.object.clone(),
            sentence: finding.sentence.clone(),
            ways: finding.ways.iter().map(way).collect(),
        }
    }
}

impl FullOf {
    const fn of(full: Full) -> Self {
        let (state, limit) = match full {
            Full::Unknown => ("unknown", None),
            Full::NotFilling => ("not_filling", None),
            Full::In { limit, .. } => ("in", Some(limit)),
        };
        Self { state, limit, seconds: full.seconds() }
    }
}

impl Device {
    fn of(backing: &Backing, space: Option<Space>) -> Self {
        let path = match &backing.carrier {
            Carrier::Loop { device, .. } | Carrier::LoopOverDevice { device, .. } => device.as_deref().map(text),
            Carrier::Device { path } => Some(text(path)),
            Carrier::Devices { paths } => Some(joined(paths)),
            Carrier::Unknown => None,
        };
        Self {
            used: space.map(|space| space.used),
            total: space.map(|space| space.total),
            free: space.map(Space::free),
            device: backing.device,
            device_size: backing.size.map(Sectors::bytes),
            path,
            file: backing.loop_file().map(File::of),
            disk: match &backing.carrier {
                Carrier::LoopOverDevice { disk, .. } => {
                    Some(Disk { path: text(&disk.path), device: disk.number, size: disk.size })
                }
                Carrier::Loop { .. } | Carrier::Device { .. } | Carrier::Devices { .. } | Carrier::Unknown => None,
            },
            link: backing.link().map(|link| SymbolicLink { path: text(&link.at), target: text(&link.target) }),
        }
    }
}

/// Returns paths as one text, a blank between them.
fn joined(paths: &[std::path::PathBuf]) -> String {
    paths.iter().map(|path| text(path)).collect::<Vec<_>>().join(" ")
}

impl File {
    fn of(file: &LoopFile) -> Self {
        Self {
            path: text(&file.path),
            deleted: file.deleted,
            size: file.size,
            allocated: file.allocated,
            host_filesystem: file.host.as_ref().map(Host::of),
        }
    }
}

impl Host {
    fn of(host: &HostFs) -> Self {
        Self {
            mount_point: text(&host.mount_point),
            r#type: host.kind.clone(),
            device: host.device,
            free: host.free,
            total: host.total,
        }
    }
}

impl Docker {
    fn of(root: &DockerRoot, view: &StatusView<'_>) -> Self {
        let driver = view.docker.driver_version;
        let whole = |counts: &&DeviceCounts| counts.problems.is_empty();
        Self {
            root: text(&root.path),
            standing: match root.standing {
                Standing::Running => "running",
                Standing::Configured => "configured",
                Standing::Named => "named",
                Standing::Left => "left",
            },
            version: root.version.as_ref().map(|known| DockerVersion {
                version: known.version.to_string(),
                exact: known.exact,
                known_by: known.mark.clone(),
            }),
            layout: view.docker.layout.since(),
            storage_driver: root.storage_driver.clone(),
            drivers: root.drivers.iter().map(|driver| driver.name()).collect(),
            set_twice: root
                .twice
                .iter()
                .map(|twice| SetTwice {
                    key: twice.key.clone(),
                    command_line: twice.flag.clone(),
                    command_line_in: text(&twice.from),
                    file: text(&twice.file),
                })
                .collect(),
            daemon_pid: root.daemon.as_ref().map(|daemon| daemon.pid),
            options_known: root.options.known().is_some(),
            base_device_size: root.base.as_ref().map(|base| base.size),
            backing_filesystem: root.device_set.as_ref().map(|set| set.base_filesystem.clone()),
            next_device_id: root.device_set.as_ref().map(|set| set.next_device_id),
            open_transaction_id: root.transaction.as_ref().map(|transaction| transaction.id),
            min_free_space_percent: root.options.minimum_free_percent(),
            udev_sync: root.udev_sync(),
            deferred_removal: root.deferred_removal(driver),
            deferred_deletion: root.deferred_deletion(driver),
            devices: view.docker.devices.map(|counts| counts.all),
            deferred_deleted_devices: view.docker.devices.filter(whole).map(|counts| counts.deleted),
            library_version: root.library_version.clone(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::pool::Moment;
    use crate::report::docker_info::DockerView;
    use crate::report::samples::{alone, devices, docker_pool, docker_root, growing, lvm_pool, mute_pool};

    #[test]
    fn dockers_pool_in_raw_bytes() {
        let line = "180 6211/524288 137985/1638400 - rw discard_passdown queue_if_no_space - 1024";
        let (pool, root, devices) = (docker_pool(line, 13_740_000_000), docker_root(), devices());
        let docker = DockerView {
            root: Some(&root),
            devices: Some(&devices),
            driver_version: Some((4, 43)),
            ..DockerView::default()
        };
        let value: Value =
            serde_json::from_str(&status(&StatusView { pool: &pool, docker, findings: &[], forecast: growing() }))
                .unwrap();
        assert_eq!(value["format"], 1);
        let pool = &value["pool"];
        assert_eq!(pool["data"]["used"], 137_985_u64 * 65_536);
        assert_eq!(pool["data"]["total"], 107_374_182_400_u64);
        assert_eq!(pool["metadata"]["file"]["host_filesystem"]["free"], 13_740_000_000_u64);
        assert_eq!(pool["device"], "253:0");
        assert_eq!(pool["table"], "0 209715200 thin-pool 7:1 7:0 128 32768 1 skip_block_zeroing");
        assert_eq!(
            pool["binds_first"],
            json!({"limit": "host_file_system", "after": 13_740_000_000_u64, "unless_extended": false})
        );
        assert_eq!(pool["growth"]["data_bytes_per_day"], 512 << 20);
        assert_eq!(pool["full"], json!({"state": "in", "limit": "host_file_system", "seconds": 25 * 86_400 + 7200}));
        assert_eq!(pool["docker"]["deferred_removal"], true);
        assert_eq!(pool["docker"]["min_free_space_percent"], 10);
        assert_eq!(pool["verdict"], json!({"state": "ok", "reason": null}));
    }

    #[test]
    fn the_keys_are_those_of_format_1() {
        let keys = |value: &Value| {
            let mut keys: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
            keys.sort_unstable();
            keys.join(" ")
        };
        let (pool, root) = (docker_pool("0 1/2 3/4", 0), docker_root());
        let docker = DockerView { root: Some(&root), ..DockerView::default() };
        let value: Value = serde_json::from_str(&status(&StatusView { docker, ..alone(&pool, &[]) })).unwrap();
        assert_eq!(
            keys(&value["pool"]),
            "activity binds_first block_size containerd_devices containerd_root data device discard docker docker_root features findings full \
             gave_up_queueing growth held_metadata_root interrupted low_water_mark_blocks maker metadata metadata_low_watermark_blocks mode name \
             needs_check no_space_policy not_read open_count overcommitted_by table transaction_id user \
             user_known_by uuid verdict"
        );
        assert_eq!(keys(&value["pool"]["data"]), "device device_size disk file free link path total used");
        assert_eq!(keys(&value["pool"]["data"]["file"]), "allocated deleted host_filesystem path size");
        assert_eq!(
            keys(&value["pool"]["docker"]),
            "backing_filesystem base_device_size daemon_pid deferred_deleted_devices deferred_deletion deferred_removal \
             devices drivers layout library_version min_free_space_percent next_device_id open_transaction_id options_known \
             root set_twice standing storage_driver udev_sync version"
        );
    }

    #[test]
    fn what_is_not_known_is_null_and_never_zero() {
        let (mute, lvm) = (mute_pool(), lvm_pool());
        let origin = Origin { hostname: "web1".to_owned(), time: Moment(1_800_000_000) };
        let value: Value = serde_json::from_str(&list(&[alone(&mute, &[]), alone(&lvm, &[])], &origin)).unwrap();
        assert_eq!((&value["hostname"], &value["time"]), (&json!("web1"), &json!("2027-01-15T08:00:00Z")));
        let mute = &value["pools"][0];
        for key in ["device", "mode", "needs_check", "transaction_id", "block_size", "table", "open_count", "docker"] {
            assert_eq!(mute[key], Value::Null, "{key}");
        }
        assert_eq!(mute["data"]["used"], Value::Null);
        assert_eq!(mute["growth"]["data_bytes_per_day"], Value::Null);
        assert_eq!(mute["full"], json!({"state": "unknown", "limit": null, "seconds": null}));
        assert_eq!(mute["not_read"].as_array().unwrap().len(), 1);
        let lvm = &value["pools"][1];
        assert_eq!((&lvm["needs_check"], &lvm["mode"], &lvm["maker"]), (&Value::Null, &json!("rw"), &json!("lvm")));
    }
}
