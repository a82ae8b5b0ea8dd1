//! What `status` prints: the keys of `docker info`, then what `docker info` hides, then what to do.

use std::collections::BTreeMap;

use super::docker_info::{self, DockerView, Pair, UNKNOWN};
use super::failure::printable;
use super::health;
use super::human::{duration, percent};
use crate::engine::docker_root::{DockerRoot, Standing};
use crate::engine::driver::Driver;
use crate::pool::{
    Activity, Backing, Carrier, Discard, Finding, Forecast, Full, HostFs, Limit, Maker, Mode, NoSpace, PoolReport,
    PoolStatus, Snapshot, Tie, User, Working,
};
use crate::units::{Bytes, META_BLOCK_BYTES};

/// How many containers are named in one line.
const MOST_CONTAINERS: usize = 10;

/// All that is shown of one pool.
#[derive(Clone, Copy, Debug)]
pub struct StatusView<'a> {
    /// The pool.
    pub pool: &'a PoolReport,
    /// What Docker's files say of it.
    pub docker: DockerView<'a>,
    /// What is wrong with it, or worth knowing, the worst first.
    pub findings: &'a [Finding],
    /// How fast it fills.
    pub forecast: Forecast,
}

/// Returns the whole text, each line ended.
pub fn text(view: &StatusView<'_>) -> String {
    let pool = view.pool;
    let mut text = format!("{}\n", heading(pool));
    let shown = docker_info::pairs(pool, view.docker);
    for (key, value) in shown.into_iter().chain(hidden(view)) {
        text.push_str(&format!(" {key}: {}\n", printable(&value)));
    }
    for sentence in not_read(view) {
        text.push_str(&format!(" Not Read: {}\n", printable(&sentence)));
    }
    // The verdict stands apart: below thirty lines of keys it is what somebody looks for.
    text.push('\n');
    text.push_str(&health::findings_at_a_glance(view.findings, pool));
    text
}

/// Returns what could not be read, of the kernel or of Docker's files, each a sentence.
pub fn not_read<'a>(view: &StatusView<'a>) -> impl Iterator<Item = String> + use<'a> {
    let root = view.docker.root.map_or(&[][..], |root| &root.problems);
    // What the root cannot give its devices cannot give either.
    let devices = view.docker.devices.into_iter().flat_map(|d| d.problems.iter().chain(&d.duplicates));
    let files = root
        .iter()
        .chain(devices.filter(|problem| !root.contains(problem)))
        .map(|problem| format!("{}: {}", problem.path.display(), problem.why));
    view.pool.unread.iter().cloned().chain(files)
}

/// Returns the one line that says which pool this is.
fn heading(pool: &PoolReport) -> String {
    let number = pool.device.map(|device| format!(" ({device})")).unwrap_or_default();
    let maker = match pool.maker {
        Maker::Unknown => "maker unknown".to_owned(),
        known => format!("made by {}", maker(known)),
    };
    let from_when = match pool.tie {
        Some(Tie::Configured) => ", once that is started",
        Some(Tie::Prepared) => ", once the migration that is prepared has ended",
        _ => "",
    };
    format!("{}{number}, {maker}, used by {}{from_when}", printable(&pool.name), user(&pool.user))
}

/// Returns who made a pool, in one word.
pub fn maker(maker: Maker) -> &'static str {
    match maker {
        Maker::Dmpool => "dmpool",
        Maker::Docker => "Docker",
        Maker::Lvm => "LVM",
        Maker::Unknown => UNKNOWN,
    }
}

/// Returns who uses a pool, in a few words.
pub fn user(user: &User) -> String {
    match user {
        User::Docker { root } => format!("Docker in {}", printable(&root.to_string_lossy())),
        User::Containerd { root_path: Some(root_path), .. } => {
            format!("containerd in {}", printable(&root_path.to_string_lossy()))
        }
        User::Containerd { root_path: None, .. } => "containerd, by the names of its volumes".to_owned(),
        User::Unknown => "nobody that dmpool knows".to_owned(),
    }
}

/// What `docker info` does not tell, in the kernel's words.
fn hidden(view: &StatusView<'_>) -> Vec<Pair> {
    let pool = view.pool;
    let working = pool.status.as_ref().and_then(PoolStatus::working);
    let mut pairs = vec![("Mode", mode(pool)), ("Suspended", yes_no(pool.activity, Activity::Suspended))];
    pairs.extend([
        ("Needs Check", known(needs_check(pool, working).map(|yes| if yes { "yes" } else { "no" }))),
        ("No Space Policy", no_space_policy(pool, working)),
        ("Discard", known(working.and_then(|w| w.discard).map(Discard::word))),
        ("Transaction Id", known(transaction_id(pool, working))),
        ("Data Used", used(pool.data_space().map(|s| (s.used, s.total)))),
        ("Metadata Used", used(pool.metadata_space().map(|s| (s.used, s.total)))),
        ("Low Water Mark", known(low_water(pool))),
        ("Metadata Low Watermark", known(metadata_low_watermark(working))),
        ("Held Metadata Root", held_root(working)),
        ("Zeroing", known(pool.table.as_ref().map(|t| if t.has("skip_block_zeroing") { "no" } else { "yes" }))),
    ]);
    if view.docker.root.is_some() {
        pairs.push(("Thin Volumes Known To Docker", known(view.docker.devices.map(|devices| devices.all))));
    }
    pairs.extend(view.docker.root.into_iter().flat_map(|root| root_lines(root, pool.tie)));
    if let User::Containerd { devices, .. } = &pool.user {
        pairs.push(("Devices Known To containerd", known(devices.as_deref().map(states))));
        pairs.extend(devices.as_deref().and_then(containers).map(|names| ("Containers Of containerd", names)));
    }
    pairs.push(("Open Count", known(pool.open_count)));
    pairs.push(carried(&pool.data, "Data File Allocated", "Data Device Size"));
    pairs.push(carried(&pool.metadata, "Metadata File Allocated", "Metadata Device Size"));
    pairs.extend(host_file_systems(pool));
    for (key, backing) in [("Data Link", &pool.data), ("Metadata Link", &pool.metadata)] {
        pairs.extend(backing.link().map(|link| (key, format!("{} -> {}", link.at.display(), link.target.display()))));
    }
    if pool.data.loop_file().is_some() {
        pairs.push(("Overcommitted By", overcommit(pool)));
    }
    // What runs no programs does not know what LVM will do.
    let unless = if pool.may_be_extended() { ", unless LVM extends it" } else { "" };
    let filling = matches!(view.forecast.full, Full::In { .. });
    pairs.push(("Growth", format!("{}{}", growth(view.forecast), if filling { unless } else { "" })));
    let binds = |(limit, left)| format!("{}{unless}", binds(limit, left));
    pairs.push(("Binds First", known(pool.binding_limit().map(binds))));
    if let Some(it) = &pool.interrupted {
        pairs.push(("Interrupted Operation", format!("{} ({})", it.what, it.id)));
    }
    pairs
}

/// How many devices there are, and in which states.
fn states(devices: &[Snapshot]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for device in devices {
        *counts.entry(&device.state).or_default() += 1;
    }
    let counts: Vec<_> = counts.iter().map(|(state, count)| format!("{count} {state}")).collect();
    if counts.is_empty() { "none".to_owned() } else { format!("{}: {}", devices.len(), counts.join(", ")) }
}

/// The containers whose roots are on the pool, as `ctr` and `crictl` know them; nothing without any.
fn containers(devices: &[Snapshot]) -> Option<String> {
    let named = |device: &Snapshot| {
        let owner = device.owner.as_ref()?;
        let image = owner.image.as_ref().map(|image| format!(" ({image})")).unwrap_or_default();
        Some(format!("{}/{}{image}", owner.namespace, owner.container.as_ref()?))
    };
    let mut names: Vec<_> = devices.iter().filter_map(named).collect();
    names.sort();
    let more = names.len().saturating_sub(MOST_CONTAINERS);
    names.truncate(MOST_CONTAINERS);
    if more > 0 {
        names.push(format!("and {more} more"));
    }
    (!names.is_empty()).then(|| names.join(", "))
}

/// The root that the pool belongs to, how that is known, and which Docker's it is.
fn root_lines(root: &DockerRoot, tie: Option<Tie>) -> Vec<Pair> {
    let standing = match root.standing {
        Standing::Running => "a daemon runs on it",
        Standing::Configured => "no daemon runs, the next one will use it",
        Standing::Named => "no daemon runs on it",
        Standing::Left => "left behind: no daemon uses it that was found",
    };
    let by = match tie {
        Some(Tie::Before) if let Some(driver) = root.other_driver() => {
            &format!("; Docker uses the {driver} driver there now")
        }
        None => "",
        Some(Tie::Options) => "; its options name the pool",
        Some(Tie::Files) => "; its files are behind the pool's loop devices",
        Some(Tie::Devices) => "; the devices in its options are the pool's",
        Some(Tie::Name) => "; the pool has the name that Docker makes for it",
        Some(Tie::DeletedFile) => "; its deleted file is behind the pool's loop device",
        Some(Tie::Volumes) => "; the volumes on the pool have its names",
        Some(Tie::Configured) => "; its options name the pool, and Docker has not been started with them",
        Some(Tie::Prepared) => "; a migration into the pool is prepared",
        Some(Tie::Before) => "; Docker uses another pool there now",
    };
    let mut pairs = vec![("Docker Root", format!("{} ({standing}{by})", root.path.display()))];
    pairs.push((
        "Docker Version",
        known(root.version.as_ref().map(|known| {
            let at_least = if known.exact { "" } else { " or later" };
            format!("{}{at_least} ({})", known.version, known.mark)
        })),
    ));
    let others = root.drivers.iter().filter(|driver| **driver != Driver::Devicemapper);
    let others: Vec<_> = others.map(|driver| driver.name()).collect();
    if !others.is_empty() {
        pairs.push(("Other Storage Drivers", others.join(", ")));
    }
    for twice in &root.twice {
        let (from, file) = (twice.from.display(), twice.file.display());
        pairs.push(("Set Twice", format!("{}: in {from} and in {file}; the next dockerd refuses to start", twice.key)));
    }
    pairs
}

fn known(value: Option<impl ToString>) -> String {
    value.map_or_else(|| UNKNOWN.to_owned(), |value| value.to_string())
}

fn yes_no(is: Activity, asked: Activity) -> String {
    if is == asked { "yes".to_owned() } else { "no".to_owned() }
}

/// The mode, or what stands in its place when the pool has none.
fn mode(pool: &PoolReport) -> String {
    match (&pool.status, pool.activity) {
        (_, Activity::Inactive) => "not active".to_owned(),
        (Some(PoolStatus::Working(working)), _) => known(working.mode.map(Mode::word)),
        (Some(PoolStatus::Fail), _) => "Fail".to_owned(),
        (Some(PoolStatus::Error), _) => "Error".to_owned(),
        (Some(PoolStatus::Unreadable(_)) | None, _) => UNKNOWN.to_owned(),
    }
}

fn needs_check(pool: &PoolReport, working: Option<&Working>) -> Option<bool> {
    match working {
        Some(working) => working.needs_check,
        None => pool.recorded.map(|recorded| recorded.needs_check),
    }
}

fn transaction_id(pool: &PoolReport, working: Option<&Working>) -> Option<u64> {
    working.map(|w| w.transaction_id).or_else(|| pool.recorded.map(|recorded| recorded.transaction_id))
}

fn no_space_policy(pool: &PoolReport, working: Option<&Working>) -> String {
    let word = known(working.and_then(|w| w.no_space).map(NoSpace::word));
    if pool.gave_up_queueing() {
        return format!("{word} (its table says queue_if_no_space; it gave up after 60 s)");
    }
    word
}

fn used(space: Option<(Bytes, Bytes)>) -> String {
    known(space.map(|(used, total)| {
        let share = percent(used.get(), total.get()).unwrap_or_else(|| UNKNOWN.to_owned());
        format!("{} of {}, {share}", used.exact(), total.exact())
    }))
}

fn low_water(pool: &PoolReport) -> Option<String> {
    let table = pool.table.as_ref()?;
    let bytes = table.block_size.bytes_of(table.low_water);
    Some(format!("{} ({})", table.low_water, bytes.human()))
}

fn metadata_low_watermark(working: Option<&Working>) -> Option<String> {
    let blocks = working?.metadata_low_water?;
    let bytes = Bytes::new(blocks.get().saturating_mul(META_BLOCK_BYTES));
    Some(format!("{blocks} ({})", bytes.human()))
}

fn held_root(working: Option<&Working>) -> String {
    match working {
        None => UNKNOWN.to_owned(),
        Some(working) => match working.held_root {
            Some(block) => format!("block {} (a metadata snapshot is held)", block.get()),
            None => "none".to_owned(),
        },
    }
}

/// How much of the sparse file has blocks, or how long the device is.
fn carried(backing: &Backing, file_key: &'static str, device_key: &'static str) -> Pair {
    match &backing.carrier {
        Carrier::Loop { file, .. } => {
            let deleted = if file.deleted { ", deleted: its blocks go when the pool does" } else { "" };
            let allocated = known(file.allocated.map(Bytes::exact));
            (file_key, format!("{allocated} of {}{deleted}", known(file.size.map(Bytes::human))))
        }
        Carrier::LoopOverDevice { .. } | Carrier::Device { .. } | Carrier::Devices { .. } | Carrier::Unknown => {
            (device_key, known(backing.size.map(|size| size.bytes().exact())))
        }
    }
}

/// The file systems that hold the loop files, each once.
fn host_file_systems(pool: &PoolReport) -> Vec<Pair> {
    let of = |backing: &Backing| backing.loop_file().and_then(|file| file.host.clone());
    let (data, metadata) = (of(&pool.data), of(&pool.metadata));
    let same = data.as_ref().map(|host| host.device) == metadata.as_ref().map(|host| host.device);
    let line = |host: HostFs| {
        let mount = host.mount_point.display();
        format!("{} free of {} on {mount} ({})", host.free.exact(), host.total.human(), host.kind)
    };
    let mut pairs = Vec::new();
    pairs.extend(data.map(|host| ("Host Filesystem", line(host))));
    pairs.extend(metadata.filter(|_| !same).map(|host| ("Host Filesystem Of Metadata", line(host))));
    pairs
}

fn overcommit(pool: &PoolReport) -> String {
    let readable = pool.data.loop_file().is_some_and(|file| file.promised().is_some() && file.host.is_some());
    match pool.overcommitted_by() {
        Some(by) => format!("{}: the files promise more than their file system has", by.exact()),
        None if readable => "nothing".to_owned(),
        None => UNKNOWN.to_owned(),
    }
}

/// How fast it fills and when it is full: `1.2 GiB a day, full in 34 days (the pool's data)`.
fn growth(forecast: Forecast) -> String {
    let rate = known(forecast.data);
    match forecast.full {
        Full::Unknown => rate,
        Full::NotFilling => format!("{rate}, not filling"),
        Full::In { limit, seconds: 0 } => format!("{rate}, full now ({})", limit_name(limit)),
        Full::In { limit, seconds } => format!("{rate}, full in {} ({})", duration(seconds), limit_name(limit)),
    }
}

fn binds(limit: Limit, left: Bytes) -> String {
    let about = if limit == Limit::Metadata { "about " } else { "" };
    format!("{}, after {about}{} more", limit_name(limit), left.exact())
}

/// Returns what a limit is called.
pub fn limit_name(limit: Limit) -> &'static str {
    match limit {
        Limit::Pool => "the pool's data",
        Limit::VolumeGroup => "the pool's data and its volume group",
        Limit::HostFileSystem => "the file system under its loop file",
        Limit::Metadata => "the pool's metadata",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::Interrupted;
    use crate::report::samples::{self, devices, docker_pool, docker_root, findings, growing, lvm_pool, mute_pool};

    fn alone(pool: &PoolReport) -> String {
        text(&samples::alone(pool, &findings(pool)))
    }

    #[test]
    fn dockers_pool_whole() {
        let line = "180 6211/524288 137985/1638400 - rw discard_passdown queue_if_no_space - 1024";
        let (pool, root, devices) = (docker_pool(line, 13_740_000_000), docker_root(), devices());
        let docker = DockerView {
            root: Some(&root),
            devices: Some(&devices),
            driver_version: Some((4, 43)),
            ..DockerView::default()
        };
        let shown = text(&StatusView { pool: &pool, docker, findings: &findings(&pool), forecast: growing() });
        assert_eq!(shown, include_str!("../../tests/fixtures/status/docker.txt"));
    }

    #[test]
    fn an_lvm_pool_on_centos_7() {
        assert_eq!(alone(&lvm_pool()), include_str!("../../tests/fixtures/status/lvm-centos-7.txt"));
    }

    #[test]
    fn a_pool_that_says_nothing() {
        assert_eq!(alone(&mute_pool()), include_str!("../../tests/fixtures/status/mute.txt"));
    }

    #[test]
    fn a_status_ends_with_what_is_wrong_and_the_ways_out() {
        let line = "180 6211/524288 1589248/1638400 604 rw discard_passdown queue_if_no_space - 1024";
        let (pool, root) = (docker_pool(line, 500 << 30), docker_root());
        let facts = crate::ops::health::Facts { docker: Some(&root), ..crate::ops::health::Facts::of(&pool) };
        let found = crate::ops::health::judge(&facts, &crate::ops::health::Thresholds::default());
        let shown = text(&samples::alone(&pool, &found));
        let end: Vec<&str> = shown.lines().skip_while(|line| !line.contains("Binds First")).skip(1).collect();
        assert_eq!(end.join("\n") + "\n", include_str!("../../tests/fixtures/status/docker-in-trouble.txt"));
    }

    /// The last lines: the verdict, and what to do.
    fn end(pool: &PoolReport) -> String {
        alone(pool).lines().skip_while(|line| !line.contains("Binds First")).skip(1).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn every_trouble_has_its_way_out() {
        const PLENTY: u64 = 500 << 30;
        let full = "0 6211/524288 1638400/1638400 - out_of_data_space discard_passdown queue_if_no_space - 1024";
        let lost = full.replace("queue_if", "error_if");
        let metadata = "0 524288/524288 9/1638400 - ro discard_passdown queue_if_no_space - 1024";
        let check = "0 487/512 9/1638400 - ro discard_passdown queue_if_no_space needs_check 1024";
        let well = "0 6211/524288 9/1638400 - rw discard_passdown queue_if_no_space - 1024";
        for (line, host_free, said) in [
            (full, PLENTY, "CRITICAL: it is full\n  next: $ dmpool grow docker +50G"),
            (&*lost, PLENTY, "acknowledged writes were lost\n  next: $ dmpool grow docker +50G"),
            (full, 1 << 30, "CRITICAL: it is full\n  next: free space on /: growing would gain nothing"),
            (
                metadata,
                PLENTY,
                "CRITICAL: it is read-only: its metadata is full\n  next: $ dmpool grow docker --metadata +1G",
            ),
            (
                check,
                PLENTY,
                "needs a check; it cannot be written until then\n  next: stop what uses it and deactivate its volumes, then  $ dmsetup remove docker-179:2-1049372-pool && thin_check /var",
            ),
            (
                well,
                1 << 30,
                "CRITICAL: the file system under its loop file, /, has 1.0 GiB of 59.6 GiB left, and the pool may still take 100.0 GiB\n  next: free space on /",
            ),
            (well, PLENTY, "OK"),
            ("Fail", PLENTY, "CRITICAL: it has failed"),
        ] {
            let shown = end(&docker_pool(line, host_free));
            assert!(shown.contains(said), "{line}\n{shown}");
        }
        let suspended = PoolReport { activity: Activity::Suspended, ..docker_pool(well, PLENTY) };
        assert!(end(&suspended).contains("next: $ dmsetup resume docker-179:2-1049372-pool"));
        let interrupted_in = |what: &str, destroys, can_finish, can_go_back| {
            let (id, what) = ("grow-1".to_owned(), what.to_owned());
            let it = Interrupted { id, what, destroys, can_finish, can_go_back };
            end(&PoolReport { interrupted: Some(it), ..docker_pool(well, PLENTY) })
        };
        let interrupted = |can_finish, can_go_back| interrupted_in("grow", false, can_finish, can_go_back);
        let destroy = interrupted_in("destroy pool `p0`", true, true, true);
        assert!(destroy.contains("interrupted: destroy pool `p0` (grow-1)\n  next: $ dmpool undo grow-1"), "{destroy}");
        assert!(destroy.contains("or:   $ dmpool continue grow-1 --yes"), "{destroy}");
        assert!(interrupted(true, true).contains("next: $ dmpool continue grow-1"));
        assert!(interrupted(true, true).contains("dmpool undo grow-1"));
        assert!(!interrupted(true, false).contains("dmpool undo"));
        assert!(interrupted(false, true).contains("next: $ dmpool undo grow-1"));
    }

    #[test]
    fn bookkeeping_that_cannot_be_read_is_unknown() {
        let (pool, root) = (docker_pool("0 1/2 1/2 - rw discard_passdown queue_if_no_space - 1024", 0), docker_root());
        let docker = DockerView { root: Some(&root), ..DockerView::default() };
        let view = StatusView { pool: &pool, docker, findings: &[], forecast: Forecast::default() };
        assert!(text(&view).contains(" Thin Volumes Known To Docker: unknown\n"));
    }

    #[test]
    fn a_pool_that_gave_up_queueing_says_what_its_table_says() {
        let lost = "0 6211/524288 1638400/1638400 - out_of_data_space discard_passdown error_if_no_space - 1024";
        let said = " No Space Policy: error_if_no_space (its table says queue_if_no_space; it gave up after 60 s)\n";
        assert!(alone(&docker_pool(lost, 0)).contains(said));
    }
}
