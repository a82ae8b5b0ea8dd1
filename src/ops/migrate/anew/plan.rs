//! Whether what is in a pool's volumes fits into others: tried with a file system that is made in a file without a name.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::sizes;
use crate::engine::configuration::Configuration;
use crate::engine::configure::docker::key_of;
use crate::engine::docker_objects;
use crate::engine::start::{self, Instead};
use crate::error::{Failure, Outcome};
use crate::ops::contents::devicemapper::{Inner, Tried, needed};
use crate::ops::cost;
use crate::ops::filesystem::{self, Used, growth, used};
use crate::ops::migrate::Ground;
use crate::ops::migrate::base::{named, no_file_system};
use crate::ops::migrate::blocks::{Head, Records, Source};
use crate::ops::migrate::size::Old;
use crate::process;
use crate::units::{Bytes, MetaBlocks};

/// Docker's options for its file systems.
const ARGUMENTS: &str = "dm.mkfsarg";
const MOUNTED: &str = "dm.mountopt";
/// How often a larger size is tried, and what it is a multiple of.
const TRIES: usize = 8;
const ROUND: u64 = 64 << 20;
/// How many names a sentence has.
const NAMED: usize = 5;

/// What is asked of the volumes.
pub(in crate::ops::migrate) struct Wanted<'a> {
    pub records: &'a Records,
    /// The beginning of every volume; nothing while it cannot be read because Docker writes.
    pub heads: Option<&'a BTreeMap<String, Head>>,
    /// The file system in the base device.
    pub now: Option<Inner>,
    pub inner: Inner,
    pub size: Bytes,
    /// The length of the new pool's blocks.
    pub block: Bytes,
}

/// Looks whether every volume can be made anew, adds what that takes to what the copy needs, and says so in `notes`. Returns what else
/// Docker gives the program that makes file systems.
///
/// # Errors
/// Refused when a program is missing, no such file system can be made or mounted, or what is in a volume does not fit.
pub(in crate::ops::migrate) fn look(
    ground: &Ground<'_>,
    old: &mut Old,
    wanted: &Wanted<'_>,
    notes: &mut Vec<String>,
    refuse: &impl Fn(String) -> Failure,
) -> Outcome<Vec<String>> {
    let Wanted { records, inner, size, .. } = *wanted;
    if let Some(missing) = inner.programs().iter().find(|program| !process::is_there(program)) {
        let package = if inner == Inner::Xfs { "xfsprogs" } else { "e2fsprogs" };
        return Err(refuse(format!("there is no {missing}, which makes the file systems"))
            .fact("state", "nothing was touched")
            .next(format!("install {package}, then run this again")));
    }
    let arguments = arguments(wanted, refuse)?;
    let home = ground.root.path.join("devicemapper");
    let tried =
        Tried::or_refused(&home, inner, &arguments, size, &|why| refuse(why).fact("state", "nothing was touched"))?;
    let objects = docker_objects::read(&ground.root.path)
        .map_err(|e| refuse("Docker's records of containers and images cannot be read".to_owned()).because(e))?;
    let sizes = sizes(&objects, &records.volumes, size);
    let heads = wanted.heads.into_iter().flatten();
    let mut all = Used::default();
    let mut short = BTreeMap::new();
    let mut lacks = Bytes::default();
    for (name, head) in heads {
        let used = used(&head.bytes).ok_or_else(|| no_file_system(name, records, refuse))?;
        all.bytes = Bytes::new(all.bytes.get().saturating_add(used.bytes.get()));
        all.inodes = all.inodes.saturating_add(used.inodes);
        let longer = sizes.get(name).copied().unwrap_or(size).saturating_sub(size);
        if let Some(missing) = tried.lacks(used, longer) {
            lacks = lacks.max(missing);
            short.insert(name.as_str(), used);
        }
    }
    if let Some((first, used)) = short.iter().max_by_key(|(_, used)| needed(**used)) {
        let names = named(&objects, &short);
        let whose = if names.is_empty() { format!("the layer {first}") } else { names.join(", ") };
        let would = smallest(&home, wanted, &arguments, &sizes, lacks);
        let failure = refuse(format!("what is in some volumes does not fit into {}", size.human()))
            .fact("found", format!("{} volumes with more: {whose}", short.len()))
            .fact("found", format!("up to {} in {} files", used.bytes.human(), used.inodes))
            .fact("room", format!("{} in an {} of {}", tried.room.human(), inner.name(), size.human()))
            .fact("state", "nothing was touched");
        return Err(failure.next(match would {
            Some(size) => {
                format!("--base-size {} or more; or remove what is named with docker rm, docker rmi", size.typed())
            }
            None => "a larger --base-size; or remove what is named with docker rm, docker rmi".to_owned(),
        }));
    }
    let volumes = u64::try_from(records.volumes.len()).unwrap_or(u64::MAX);
    let each = growth(&tried.head, size, wanted.block).unwrap_or_default();
    let writes = each.data.saturating_mul(wanted.block.get()).saturating_mul(volumes);
    let more = tried.takes.get().saturating_add(writes);
    old.need = Bytes::new(old.need.get().saturating_add(more));
    old.metadata_longer = MetaBlocks::new(each.metadata.get().saturating_mul(volumes));
    old.by_files = Some(cost::carry_files(records.volumes.len(), all.inodes, old.need));
    let unshared = Bytes::new(all.bytes.get().saturating_add(more));
    notes.push(format!(
        "{volumes} volumes are made anew, each an {} of {}, with the same files: a file that was changed in one place is written whole, so \
         that it may take more than is said of the copy, but not more than {}; when the new pool is full before all is there, it is taken back",
        inner.name(),
        size.human(),
        unshared.human()
    ));
    if wanted.heads.is_none() {
        notes.push(
            "how much is in each volume cannot be told while Docker writes; it is looked at as it is copied".to_owned(),
        );
    }
    let larger: BTreeSet<&str> = objects
        .containers
        .iter()
        .filter(|container| {
            let mount = container.mount.as_ref().and_then(|mount| mount.mount_id.as_ref());
            mount.and_then(|mount| sizes.get(mount)).is_some_and(|own| *own > size)
        })
        .map(|container| container.name().unwrap_or(&container.id))
        .collect();
    if !larger.is_empty() {
        let names: Vec<&str> = larger.iter().copied().take(NAMED).collect();
        notes.push(format!(
            "containers that were told to be larger (--storage-opt size=) stay so: {}",
            names.join(", ")
        ));
    }
    notes.extend(unrecorded(ground, old, records));
    notes.push(
        "access times, inode numbers, and security.selinux where nothing else differs are not carried; what the new file system cannot hold \
         (attributes of more than 4 KiB in ext4, some flags of chattr in XFS) ends the copy, by name, and it is taken back"
            .to_owned(),
    );
    Ok(arguments)
}

/// Returns the values of Docker's option for the program, which mean nothing to the one for another file system.
fn arguments(wanted: &Wanted<'_>, refuse: &impl Fn(String) -> Failure) -> Outcome<Vec<String>> {
    let base = Path::new("/");
    let now = Configuration::of_start(base, &start::read(base), &Instead::new());
    let given = now.given_options();
    let own = |key: &str| given.iter().filter(|option| key_of(option) == key).copied().collect::<Vec<_>>();
    let (arguments, mounted) = (own(ARGUMENTS), own(MOUNTED));
    if wanted.now != Some(wanted.inner)
        && let Some(option) = arguments.iter().chain(&mounted).next()
    {
        return Err(refuse("Docker has an option that is for the file system of now".to_owned())
            .fact("found", *option)
            .fact("state", "nothing was touched")
            .next(format!("take {} out, start Docker again, then run this again", process::quote(option))));
    }
    let value = |option: &str| option.split_once('=').map(|(_, value)| value.trim().to_owned());
    Ok(arguments.into_iter().filter_map(value).collect())
}

/// Returns the smallest size that is found in which everything fits.
fn smallest(
    home: &Path,
    wanted: &Wanted<'_>,
    arguments: &[String],
    sizes: &BTreeMap<String, Bytes>,
    mut lacks: Bytes,
) -> Option<Bytes> {
    let mut size = wanted.size;
    for _ in 0..TRIES {
        let more = lacks.get().saturating_add(lacks.get() / 16);
        let next = Bytes::new(size.get().saturating_add(more).checked_next_multiple_of(ROUND)?);
        size = if next > size { next } else { Bytes::new(size.get().saturating_add(ROUND)) };
        let tried = Tried::make(home, wanted.inner, arguments, size).ok()?;
        let missing = wanted.heads?.iter().filter_map(|(name, head)| {
            let longer = sizes.get(name).copied().unwrap_or(size).saturating_sub(size);
            tried.lacks(used(&head.bytes)?, longer)
        });
        match missing.max() {
            Some(missing) => lacks = missing,
            None => return Some(size),
        }
    }
    None
}

/// Says which volumes Docker has no record of: nothing says how long they are, and nobody can mount them.
fn unrecorded(ground: &Ground<'_>, old: &Old, records: &Records) -> Option<String> {
    let details = Source::open(&ground.kit.dm, &old.now).ok()?.metadata.details().ok()?;
    let known: BTreeSet<u64> = records.volumes.values().map(|device| u64::from(device.id)).collect();
    let ids: Vec<String> = details.keys().filter(|id| !known.contains(id)).map(u64::to_string).collect();
    let names = ids.get(..ids.len().min(NAMED)).unwrap_or_default().join(", ");
    let more = if ids.len() > NAMED { format!(", and {} more", ids.len() - NAMED) } else { String::new() };
    (!ids.is_empty()).then(|| {
        format!("volumes that Docker has no record of, or has deleted, are not made anew, and stay in the old pool alone: {names}{more}")
    })
}

/// Returns the file system that a volume begins with.
pub(in crate::ops::migrate) fn inner_of(head: &Head) -> Option<Inner> {
    let found = head.found?;
    Some(if found.kind == filesystem::XFS { Inner::Xfs } else { Inner::Ext4 })
}
