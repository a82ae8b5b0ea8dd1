//! One pool, looked at: what every command decides by, and `status` shows.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::engine::docker_root::{LeadsTo, LoopLink};
use crate::engine::options::StorageOptions;
use crate::error::{Failure, Outcome};
use crate::kernel::dm::Dm;
use crate::kernel::fs::FsFacts;
use crate::kernel::loopdev::LoopInfo;
use crate::kernel::{ask, block};
use crate::metadata::{BadSuperblock, Superblock};
use crate::ops::find::Found;
use crate::ops::sight::{self, Live};
use crate::ops::steps::Kit;
use crate::ops::{carrier, journal, lvm, members, tie};
use crate::pool::label::{self, DeviceUuid, Purpose, Unassembled};
use crate::pool::{
    Activity, Backing, Carrier, Entry, HostFs, Interrupted, Link, LoopDisk, LoopFile, Maker, PoolReport, PoolStatus,
    Recorded, Tie, UUID_PREFIX, User,
};
use crate::units::{Bytes, Sectors};

/// Looks at a pool: kernel and files only, nothing is changed, nothing waits for ever.
///
/// # Errors
/// When the device is there and is no thin pool, or the kernel does not answer at all. What else cannot be read is
/// listed in the report.
pub fn look(kit: &Kit, found: &Found) -> Outcome<PoolReport> {
    look_knowing(kit, found, &[])
}

/// The same for who changes nothing: what was seen of the pool's loop devices when it was found stands.
///
/// # Errors
/// As [`look`].
pub fn look_as_found(kit: &Kit, found: &Found) -> Outcome<PoolReport> {
    look_knowing(kit, found, &found.loops)
}

fn look_knowing(kit: &Kit, found: &Found, loops: &[LoopInfo]) -> Outcome<PoolReport> {
    let dm = &kit.dm;
    let live = sight::live(dm, &found.name)
        .map_err(|e| Failure::refused(format!("cannot read `{}` as a thin pool", found.name)).because(e))?;
    let mut unread = Vec::new();
    unread.extend(found.bad_entry.iter().map(|bad| format!("the registry's {}: {}", bad.path.display(), bad.why)));
    let interrupted = interrupted(kit, &found.name, &mut unread);
    let mut report = match live {
        Some(live) => of_live(dm, found, live, loops, &mut unread),
        None => of_files(dm, found, &mut unread),
    };
    let is_blank = report.data_space().is_some_and(|space| space.used.get() == 0);
    unread.extend(found.containerd.problems.iter().map(|p| format!("{}: {}", p.path.display(), p.why)));
    let prepared = found.entry.as_ref().and_then(|entry| entry.prepared.clone());
    if let Some(root) = prepared {
        report.user = User::Docker { root };
        report.tie = Some(Tie::Prepared);
    } else if let Some((user, tie)) = found.containerd.user(is_blank, &mut unread) {
        report.user = user;
        report.tie = Some(tie);
    } else if let (User::Unknown, Some(root)) = (&report.user, &found.awaited_by) {
        report.user = User::Docker { root: root.clone() };
        report.tie = Some(Tie::Configured);
    }
    report.interrupted = interrupted;
    report.unread = unread;
    Ok(report)
}

fn of_live(dm: &Dm, found: &Found, live: Live, loops: &[LoopInfo], unread: &mut Vec<String>) -> PoolReport {
    let root = found.docker.as_ref();
    let link = |file: Option<&PathBuf>, link: Option<&LoopLink>| {
        Some(Link { at: file?.clone(), target: link?.target.clone() })
    };
    let data_link = root.and_then(|root| link(root.data_file.as_ref(), root.data_link.as_ref()));
    let metadata_link = root.and_then(|root| link(root.metadata_file.as_ref(), root.metadata_link.as_ref()));
    let devices = [live.table.data, live.table.metadata];
    let homes = places(found).map(|place| path_of(&place.backing()));
    let [mut data, mut metadata] = carrier::of_devices(dm, devices, [data_link, metadata_link], homes, loops, unread);
    let mut status = None;
    {
        let mut ask_status = || Seen::Status(sight::status(dm, &found.name).map_err(|e| format!("{e:#}")));
        let paths = [path_to_look_at(&data), path_to_look_at(&metadata)];
        let [mut ask_data, mut ask_metadata] = paths.map(|path| move || Seen::file(path.as_deref()));
        let answers = ask::in_turn(&mut [&mut ask_status, &mut ask_data, &mut ask_metadata]);
        let mut answers = answers.into_iter();
        match answers.next() {
            Some(Ok(Seen::Status(Ok(seen)))) => status = Some(seen),
            Some(Ok(Seen::Status(Err(why))) | Err(why)) => unread.push(format!("the pool's status: {why}")),
            Some(Ok(_)) | None => {}
        }
        for backing in [&mut data, &mut metadata] {
            fill_in(backing, answers.next(), unread);
        }
    }
    PoolReport {
        name: live.info.name.clone(),
        argument: argument(found, live.info.uuid.as_deref()),
        uuid: live.info.uuid.clone(),
        device: Some(live.info.devno),
        activity: if live.info.suspended { Activity::Suspended } else { Activity::Active },
        maker: maker(found, live.info.uuid.as_deref()),
        user: user(found),
        tie: found.tie,
        open_count: Some(live.info.open_count),
        status,
        recorded: None,
        unread: Vec::new(),
        missing: Vec::new(),
        data,
        metadata,
        table: Some(live.table),
        volume_group: None,
        interrupted: None,
    }
}

/// A pool that the kernel does not have: what its superblock and its files say.
fn of_files(dm: &Dm, found: &Found, unread: &mut Vec<String>) -> PoolReport {
    let mut both = places(found).map(Place::backing);
    let (mut recorded, mut missing) = (None, Vec::new());
    {
        let [_, metadata] = &both;
        let metadata = path_of(metadata);
        let labelled = found.entry.as_ref().filter(|entry| !entry.devices().is_empty());
        let mut ask_superblock = || match labelled {
            Some(entry) => Seen::Labels(Labels::of(dm, entry)),
            None => Seen::Recorded(metadata.as_deref().map(recorded_in)),
        };
        let [mut ask_data, mut ask_metadata] =
            both.each_ref().map(path_to_look_at).map(|path| move || Seen::file(path.as_deref()));
        // The superblock last: a file's length may be known of a disk that does not answer.
        let answers = ask::in_turn(&mut [&mut ask_data, &mut ask_metadata, &mut ask_superblock]);
        let mut answers = answers.into_iter();
        for backing in &mut both {
            fill_in(backing, answers.next(), unread);
        }
        match answers.next() {
            Some(Ok(Seen::Recorded(Some(Ok(seen))))) => recorded = Some(seen),
            Some(Ok(Seen::Recorded(Some(Err(why))))) => unread.push(why),
            Some(Ok(Seen::Labels(labels))) => {
                recorded = labels.recorded;
                for (backing, paths) in both.iter_mut().zip(labels.places) {
                    if !paths.is_empty() {
                        backing.carrier = Carrier::Devices { paths };
                    }
                }
                missing = labels.missing;
                unread.extend(labels.unread);
            }
            Some(Err(why)) => {
                let path = metadata.map(|path| path.display().to_string()).unwrap_or_default();
                unread.push(format!("the superblock in {path}: {why}"));
            }
            Some(Ok(_)) | None => {}
        }
    }
    let [data, metadata] = both;
    PoolReport {
        name: found.name.clone(),
        argument: argument(found, None),
        uuid: found.entry.as_ref().map(|e| e.uuid.pool()),
        device: None,
        activity: Activity::Inactive,
        maker: maker(found, None),
        user: user(found),
        tie: found.tie,
        open_count: None,
        table: None,
        status: None,
        recorded,
        unread: Vec::new(),
        missing,
        data,
        metadata,
        volume_group: None,
        interrupted: None,
    }
}

/// Where one part of an inactive pool is kept.
enum Place {
    File(PathBuf, Option<Link>),
    /// A disk in a loop file's place.
    LoopDisk(PathBuf, Option<Link>),
    Disk(PathBuf),
    /// Nobody knows; of devices that dmpool has formatted their labels say it.
    Unknown,
}

impl Place {
    fn backing(self) -> Backing {
        let (size, carrier) = match self {
            Self::File(path, link) => {
                let file = LoopFile { link, ..LoopFile::unlooked(path, false) };
                (None, Carrier::Loop { device: None, file })
            }
            Self::LoopDisk(path, link) => (None, Carrier::LoopOverDevice { device: None, disk: disk_at(path, link) }),
            Self::Disk(path) => {
                let size = block::devno_of(&path).and_then(block::size).ok();
                (size, Carrier::Device { path })
            }
            Self::Unknown => (None, Carrier::Unknown),
        };
        Backing { size, ..Backing::on(carrier) }
    }
}

/// Returns where the data and the metadata of an inactive pool are kept.
fn places(found: &Found) -> [Place; 2] {
    if let Some([metadata, data]) = found.entry.as_ref().and_then(Entry::files) {
        return [data, metadata].map(|store| Place::File(store.file.clone(), None));
    }
    let Some(root) = found.docker.as_ref().filter(|root| root.own_pool() == found.name) else {
        return [Place::Unknown, Place::Unknown];
    };
    let options = root.options.known();
    let device = |of: fn(&StorageOptions) -> &Option<String>| options.and_then(|o| of(o).as_ref()).map(PathBuf::from);
    let place = |device: Option<PathBuf>, file: &Option<PathBuf>, link: &Option<LoopLink>| match (device, file, link) {
        (Some(device), ..) => Place::Disk(device),
        (None, Some(at), None) => Place::File(at.clone(), None),
        (None, Some(at), Some(link)) => {
            let path = at.canonicalize().unwrap_or_else(|_| link.target.clone());
            let known = Some(Link { at: at.clone(), target: link.target.clone() });
            match link.leads_to {
                LeadsTo::File => Place::File(path, known),
                LeadsTo::Device(_) => Place::LoopDisk(path, known),
                LeadsTo::Nothing(_) => Place::Unknown,
            }
        }
        (None, None, _) => Place::Unknown,
    };
    [
        place(device(|o| &o.data_device), &root.data_file, &root.data_link),
        place(device(|o| &o.metadata_device), &root.metadata_file, &root.metadata_link),
    ]
}

/// Returns the file or disk that a part of an inactive pool is kept on.
fn path_of(backing: &Backing) -> Option<PathBuf> {
    match &backing.carrier {
        Carrier::Loop { file, .. } => Some(file.path.clone()),
        Carrier::LoopOverDevice { disk, .. } => Some(disk.path.clone()),
        Carrier::Device { path } => Some(path.clone()),
        Carrier::Devices { .. } | Carrier::Unknown => None,
    }
}

fn disk_at(path: PathBuf, link: Option<Link>) -> LoopDisk {
    let number = block::devno_of(&path).ok();
    let size = number.and_then(|number| block::size(number).ok()).map(Sectors::bytes);
    let volume = number.and_then(tie::volume_of_lvm);
    LoopDisk { path, number, size, link, volume }
}

fn maker(found: &Found, uuid: Option<&str>) -> Maker {
    match uuid {
        Some(uuid) if uuid.starts_with("LVM-") => Maker::Lvm,
        Some(uuid) if uuid.starts_with(UUID_PREFIX) => Maker::Dmpool,
        _ if found.entry.is_some() => Maker::Dmpool,
        _ if is_dockers_name(&found.name) => Maker::Docker,
        _ => Maker::Unknown,
    }
}

fn argument(found: &Found, uuid: Option<&str>) -> String {
    let by_root = found.by_root.clone().filter(|_| maker(found, uuid) == Maker::Docker);
    // A device that somebody has called `docker` goes by its path.
    let by_name = || if found.name == "docker" { "/dev/mapper/docker".to_owned() } else { found.name.clone() };
    by_root.unwrap_or_else(by_name)
}

/// Returns whether a name is one that Docker makes for a pool of its own: `docker-8:1-131073-pool`.
fn is_dockers_name(name: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let inner = name.strip_prefix("docker-").and_then(|rest| rest.strip_suffix("-pool"));
    let parts =
        inner.and_then(|inner| inner.split_once(':')).and_then(|(major, rest)| Some((major, rest.split_once('-')?)));
    parts.is_some_and(|(major, (minor, inode))| number(major) && number(minor) && number(inode))
}

fn user(found: &Found) -> User {
    match (&found.docker, found.tie) {
        (Some(root), Some(tie)) if tie != Tie::Before => User::Docker { root: root.path.clone() },
        _ => User::Unknown,
    }
}

/// What may hang, and is asked of a child.
#[derive(Serialize, Deserialize)]
enum Seen {
    /// The pool's status.
    Status(Result<PoolStatus, String>),
    /// A loop file: its length, its blocks, the file system under it; nothing when there is none to look at.
    File(Option<Result<(Bytes, Bytes, HostFs), String>>),
    /// What a superblock says; nothing when nobody knows where it is.
    Recorded(Option<Result<Recorded, String>>),
    /// What the labels of its devices say.
    Labels(Labels),
}

/// What devices that dmpool has formatted say of their pool.
#[derive(Default, Serialize, Deserialize)]
struct Labels {
    recorded: Option<Recorded>,
    /// On which devices data and metadata are, as these are called now.
    places: [Vec<PathBuf>; 2],
    /// Which of them are not here, each a phrase.
    missing: Vec<String>,
    unread: Vec<String>,
}

impl Labels {
    fn of(dm: &Dm, entry: &Entry) -> Self {
        let mut labels = Self::default();
        let sight = match members::look(dm) {
            Ok(sight) => sight,
            Err(e) => {
                labels.unread.push(format!("the labels of its devices: {e:#}"));
                return labels;
            }
        };
        let missing = match label::assemble(&sight.of(&entry.uuid)) {
            Ok(assembly) => {
                match recorded_by(members::superblock(&assembly), "the metadata") {
                    Ok(recorded) => labels.recorded = Some(recorded),
                    Err(why) => labels.unread.push(why),
                }
                labels.places = [Purpose::Data, Purpose::Metadata].map(|purpose| sight.names(&assembly, purpose));
                return labels;
            }
            Err(Unassembled::None) => entry.devices().iter().map(|device| device.uuid).collect(),
            Err(Unassembled::Missing(devices)) => devices,
            Err(why) => {
                labels.unread.push(format!("its devices do not come to one pool: {why}"));
                Vec::new()
            }
        };
        for uuid in missing {
            labels.lacks(entry, uuid);
        }
        labels.unread.extend(sight.unread);
        labels
    }

    /// A device whose label is not here. An LV may only have to be activated, and what is ephemeral came back blank: who
    /// activates the pool sees to that.
    fn lacks(&mut self, entry: &Entry, uuid: DeviceUuid) {
        let all = entry.devices();
        let Some(at) = all.iter().position(|device| device.uuid == uuid) else {
            return self.missing.push(format!("the device with the label {uuid}"));
        };
        let path = all.get(at).map(|device| device.path.as_path()).unwrap_or(Path::new(""));
        let name = path.display();
        if lvm::names_in(path).is_some() {
            self.unread.push(format!("its LV {name} is not active, or not there"));
        } else if entry.ephemeral.is_some() {
            self.unread.push(format!("its device {name} is not here, or came back blank"));
        } else {
            self.missing.push(format!("device {} of {}, {name} (as it was called last)", at + 1, all.len()));
        }
    }
}

impl Seen {
    fn file(path: Option<&Path>) -> Self {
        Self::File(path.map(|path| look_at_file(path).map_err(|e| format!("{e:#}"))))
    }
}

/// Returns what the superblock in a file or on a disk says.
fn recorded_in(path: &Path) -> Result<Recorded, String> {
    recorded_by(sight::superblock_in(path), &path.display().to_string())
}

fn recorded_by(read: Result<Result<Superblock, BadSuperblock>>, place: &str) -> Result<Recorded, String> {
    match read {
        Ok(Ok(sb)) => Ok(Recorded {
            transaction_id: sb.transaction_id,
            needs_check: sb.needs_check,
            block_size: sb.block_size,
            data_total: sb.data_total,
            data_used: sb.data_used,
            metadata_total: sb.metadata_total,
            metadata_used: sb.metadata_used,
        }),
        Ok(Err(bad)) => Err(format!("the superblock in {place}: {bad}")),
        Err(e) => Err(format!("{e:#}")),
    }
}

fn path_to_look_at(backing: &Backing) -> Option<PathBuf> {
    backing.loop_file().filter(|file| !file.deleted).map(|file| file.path.clone())
}

/// Fills in what was seen of a loop file.
fn fill_in(backing: &mut Backing, answer: Option<Result<Seen, String>>, unread: &mut Vec<String>) {
    let Carrier::Loop { file, .. } = &mut backing.carrier else { return };
    match answer {
        Some(Ok(Seen::File(Some(Ok((size, allocated, host)))))) => {
            file.size = Some(size);
            file.allocated = Some(allocated);
            file.host = Some(host);
        }
        Some(Ok(Seen::File(Some(Err(why)))) | Err(why)) => {
            unread.push(format!("the loop file {}: {why}", file.path.display()));
        }
        Some(Ok(_)) | None => {}
    }
}

fn look_at_file(path: &Path) -> Result<(Bytes, Bytes, HostFs)> {
    let found = fs::metadata(path).map_err(anyhow::Error::from)?;
    let host = FsFacts::of(path)?;
    Ok((
        Bytes::new(found.len()),
        Bytes::new(found.blocks().saturating_mul(512)),
        HostFs {
            mount_point: host.mount_point,
            kind: host.fs_type,
            device: host.devno,
            free: host.free,
            total: host.total,
        },
    ))
}

/// Returns the operation on a pool that was interrupted.
fn interrupted(kit: &Kit, pool: &str, unread: &mut Vec<String>) -> Option<Interrupted> {
    match journal::of_pool(&kit.state, pool) {
        // One that is being carried out is no trouble.
        Ok(unfinished) => unfinished.filter(|it| !it.at_work).map(|it| journal::ways_out(kit, &it.journal)),
        Err(e) => {
            unread.push(e.what);
            None
        }
    }
}
