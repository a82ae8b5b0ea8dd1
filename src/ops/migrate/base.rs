//! Another base device: which volumes become longer, or are made anew, what that takes, and what Docker is told.

use std::collections::BTreeMap;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};

use super::Ground;
use super::anew::{Anew, plan};
use super::blocks::{Head, Origin, Records, Source, heads, wanted};
use super::size::Old;
use super::target::is_renamed;
use crate::engine::bookkeeping::{BASE, DEVICE_SET, DeviceSet};
use crate::engine::configure::docker::key_of;
use crate::engine::docker_objects::{self, Image, Objects};
use crate::engine::version::Version;
use crate::error::{Failure, Outcome};
use crate::kernel::identity::kernel_release;
use crate::ops::contents::devicemapper::Inner;
use crate::ops::filesystem::{Growth, growth, inode_tables, stays_short};
use crate::ops::sight;
use crate::ops::steps::{Carried, GrowVolumes, SetAside, Step, Swap, WriteRecords};
use crate::process::quote;
use crate::units::{BlockSize, Bytes};

/// Docker's options.
const OPTION: &str = "dm.basesize";
const INNER: &str = "dm.fs";
/// How often a pool is read that is written meanwhile, and how long after each other where Docker is in the midst of something.
const TIMES: usize = 5;
const AGAIN: Duration = Duration::from_secs(1);
/// The first kernel that makes an ext4 longer by itself.
const RESIZES: Version = Version { major: 3, minor: 3 };
/// How many names a sentence has.
const NAMED: usize = 5;

/// What is asked of the base device.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Asked {
    pub size: Option<Bytes>,
    pub inner: Option<Inner>,
}

/// Another base device, decided upon.
pub(super) struct NewBase {
    size: Bytes,
    records: Swap,
    /// What every volume becomes, when they are made anew.
    anew: Option<Anew>,
}

/// What the growth takes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Takes {
    /// How many volumes become longer.
    volumes: usize,
    /// What it needs of the new pool.
    growth: Growth,
    /// How much an ext4 writes later, in each container, at most.
    later: Bytes,
}

/// Looks what becomes longer when no volume shall be shorter, or what is made anew when the base device becomes smaller or has another file
/// system; adds what that takes to what the copy needs, and says so in `notes`. Nothing when nothing is asked, and where all is as it
/// shall be.
///
/// # Errors
/// Refused when a record cannot be read, a volume has no file system that is known, or something does not fit.
pub(super) fn look(
    ground: &Ground<'_>,
    old: &mut Old,
    asked: Asked,
    block: Option<BlockSize>,
    notes: &mut Vec<String>,
    refuse: &impl Fn(String) -> Failure,
) -> Outcome<Option<NewBase>> {
    if asked.size.is_none() && asked.inner.is_none() {
        return Ok(None);
    }
    let home = ground.root.path.join("devicemapper");
    let folder = home.join("metadata");
    is_renamed(&folder, refuse).map_err(|failure| {
        failure.next("mount that file system elsewhere, with what is in it in a folder of the root; or  dmpool migrate    # without --base-size and --fs")
    })?;
    let (records, heads) = volumes(ground, old, &folder).map_err(|e| {
        refuse("Docker's records of its volumes cannot all be read, and say how long these are".to_owned())
            .because(e)
            .fact("state", "nothing was touched")
            .next(format!(
                "dmpool health {}    # says what is wrong; without --base-size they are left alone",
                quote(&ground.root.path.to_string_lossy())
            ))
    })?;
    let Some(base) = records.volumes.get(BASE).map(|base| base.size) else {
        return Err(refuse("Docker has no record of its base device".to_owned())
            .fact("found", format!("no {}", folder.join("base").display()))
            .next("start Docker once, which makes one, then run this again"));
    };
    let size = asked.size.unwrap_or(base);
    is_possible(size, refuse)?;
    let block = block.unwrap_or(old.block).bytes();
    let now = inner_now(&records, heads.as_ref().ok());
    let inner = asked.inner.or(now);
    let is_other = match &heads {
        Ok(heads) => asked.inner.is_some() && heads.values().any(|head| plan::inner_of(head) != asked.inner),
        Err(_) => asked.inner.is_some() && asked.inner != now,
    };
    let mut anew = None;
    match &heads {
        Ok(_) | Err(_) if size < base || is_other => {
            let inner = inner.ok_or_else(|| no_file_system(BASE, &records, refuse))?;
            if let (Err(e), true) = (&heads, old.is_steady) {
                return Err(unread(refuse, format!("{e:#}")));
            }
            let wanted = plan::Wanted { records: &records, heads: heads.as_ref().ok(), now, inner, size, block };
            let arguments = plan::look(ground, old, &wanted, notes, refuse)?;
            anew = Some((inner, arguments));
        }
        Ok(heads) => {
            let heads = heads.clone();
            let takes = takes(&records, &heads, size, block).map_err(|name| no_file_system(&name, &records, refuse))?;
            become_longer(ground, &records, &heads, size, refuse)?;
            if takes.volumes == 0 {
                notes.push(format!("no volume is shorter than {}: the base device stays as it is", size.human()));
                return Ok(None);
            }
            let more = Bytes::new(takes.growth.data.saturating_mul(block.get()));
            old.need = Bytes::new(old.need.get().saturating_add(more.get()));
            old.metadata_longer = takes.growth.metadata;
            notes.extend(told(&takes, base, size, more));
        }
        Err(_) if !old.is_steady => notes.push(format!(
            "every volume that is shorter becomes {} long; what that takes cannot be told while Docker writes",
            size.human()
        )),
        Err(e) => return Err(unread(refuse, format!("{e:#}"))),
    }
    if anew.is_none() {
        notes.extend(longer(ground, &records, size));
    }
    let records = Swap {
        aside: home.join(format!("metadata.dmpool-{}.old", ground.stamp)),
        made: home.join(format!("metadata.dmpool-{}", ground.stamp)),
        folder,
    };
    notes.push(format!(
        "Docker's records of the old pool's volumes stay too, and go with it:  rm -r {}",
        quote(&records.aside.to_string_lossy())
    ));
    let anew = anew.map(|(inner, arguments)| Anew { size, inner, arguments, records: records.clone() });
    Ok(Some(NewBase { size, records, anew }))
}

fn unread(refuse: &impl Fn(String) -> Failure, why: String) -> Failure {
    refuse("the volumes cannot be looked at".to_owned())
        .fact("cause", why)
        .fact("state", "nothing was touched")
        .next("dmpool health docker    # says what is wrong")
}

/// Returns the file system in the base device.
fn inner_now(records: &Records, heads: Option<&BTreeMap<String, Head>>) -> Option<Inner> {
    let of_head = || heads?.get(BASE).and_then(plan::inner_of);
    let set = || DeviceSet::parse(records.files.get(DEVICE_SET)?).ok();
    of_head().or_else(|| Inner::named(&set()?.base_filesystem))
}

/// Refuses a size that no file system takes.
fn is_possible(size: Bytes, refuse: &impl Fn(String) -> Failure) -> Outcome<()> {
    if !size.get().is_multiple_of(Bytes::MIB.get()) {
        let up = Bytes::new(size.get().next_multiple_of(Bytes::MIB.get()));
        return Err(refuse("a base device has whole mebibytes".to_owned())
            .fact("asked", size.exact())
            .next(format!("--base-size {}", up.typed())));
    }
    Ok(())
}

/// Refuses a volume of which nobody knows the file system.
pub(super) fn no_file_system(name: &str, records: &Records, refuse: &impl Fn(String) -> Failure) -> Failure {
    let id = records.volumes.get(name).map(|device| device.id.to_string()).unwrap_or_default();
    refuse("there is no XFS and no ext4 on one of its volumes".to_owned())
        .fact("found", format!("the volume {id}, with the record {name}"))
        .fact("state", "nothing was touched")
        .next("dmpool migrate    # without --base-size and --fs; it is copied as it is")
}

/// Refuses a file system that the kernel would not make longer.
fn become_longer(
    ground: &Ground<'_>,
    records: &Records,
    heads: &BTreeMap<String, Head>,
    size: Bytes,
    refuse: &impl Fn(String) -> Failure,
) -> Outcome<()> {
    let kernel = kernel_release().ok();
    let has_resize = kernel.as_deref().and_then(Version::parse).is_none_or(|kernel| kernel >= RESIZES);
    let short: BTreeMap<&str, &str> = heads
        .iter()
        .filter(|(name, head)| {
            let wanted = |record| head.found.and_then(|found| wanted(record, &found, size));
            records.volumes.get(*name).and_then(wanted).is_some()
        })
        .filter_map(|(name, head)| Some((name.as_str(), stays_short(&head.bytes, has_resize)?)))
        .collect();
    let Some((first, why)) = short.first_key_value() else { return Ok(()) };
    let named = match docker_objects::read(&ground.root.path) {
        Ok(objects) => named(&objects, &short),
        Err(_) => Vec::new(),
    };
    let whose = if named.is_empty() { format!("the layer {first}") } else { named.join(", ") };
    Err(refuse(format!("{whose} {why}"))
        .fact("found", format!("{} volumes with such a file system, on Linux {}", short.len(), kernel.unwrap_or_default()))
        .fact("state", "nothing was touched")
        .next("dmpool migrate    # without --base-size: it is copied as it is; or remove what is named with docker rm, docker rmi"))
}

/// Returns the containers and images by their names whose own layer is one of these; no more than a sentence has.
pub(super) fn named<T>(objects: &Objects, short: &BTreeMap<&str, T>) -> Vec<String> {
    let is_short = |name: Option<&str>| name.is_some_and(|name| short.contains_key(name));
    let containers = objects.containers.iter().filter(|container| {
        let mount = container.mount.as_ref();
        is_short(mount.and_then(|mount| mount.mount_id.as_deref()))
    });
    let containers = containers.map(|container| format!("the container {}", container.name().unwrap_or(&container.id)));
    let images = objects.stores.iter().flat_map(|store| {
        let layer = |chain: &String| store.layers.get(chain).and_then(|layer| layer.cache_id.as_deref());
        let top = move |image: &&Image| is_short(image.layers.last().and_then(|part| layer(part.chain.as_ref()?)));
        store.images.iter().filter(top)
    });
    let images = images.map(|image| format!("the image {}", image.tags.first().unwrap_or(&image.id)));
    containers.chain(images).take(NAMED).collect()
}

type Heads = Result<BTreeMap<String, Head>>;

/// Reads Docker's records, and the beginning of every volume, also while Docker writes.
///
/// # Errors
/// When a record cannot be read.
fn volumes(ground: &Ground<'_>, old: &Old, folder: &Path) -> Result<(Records, Heads)> {
    // Docker empties a volume before it deletes it.
    let is_whole = |heads: &Heads| match heads {
        Ok(heads) => heads.values().all(|head| head.found.is_some()) || !is_live(ground, old).unwrap_or(false),
        Err(_) => true,
    };
    let look = || -> Result<(Records, Heads)> {
        let records = Records::read(folder)?;
        let heads = heads_of(ground, old, &records);
        Ok((records, heads))
    };
    let mut looked = look()?;
    for _ in 1..TIMES {
        if is_whole(&looked.1) {
            break;
        }
        thread::sleep(AGAIN);
        looked = look()?;
    }
    Ok(looked)
}

fn is_live(ground: &Ground<'_>, old: &Old) -> Result<bool> {
    Ok(sight::live(&ground.kit.dm, &old.pool)?.is_some())
}

fn heads_of(ground: &Ground<'_>, old: &Old, records: &Records) -> Heads {
    let dm = &ground.kit.dm;
    let now = if is_live(ground, old)? { Origin::Pool(old.pool.clone()) } else { old.origin.clone() };
    let look = || -> Result<BTreeMap<String, Head>> {
        let source = Source::open(dm, &now)?;
        let heads = heads(&source, records)?;
        if Source::open(dm, &now)?.metadata.seal != source.metadata.seal {
            bail!("it was written while it was read");
        }
        Ok(heads)
    };
    let mut looked = look();
    for _ in 1..TIMES {
        if looked.is_ok() {
            break;
        }
        looked = look();
    }
    looked
}

/// Adds up what the growth takes, or names the volume of which nobody knows the file system.
fn takes(records: &Records, heads: &BTreeMap<String, Head>, size: Bytes, block: Bytes) -> Result<Takes, String> {
    let mut takes = Takes::default();
    for (name, head) in heads {
        let Some(record) = records.volumes.get(name) else { continue };
        let found = head.found.ok_or_else(|| name.clone())?;
        let Some(to) = wanted(record, &found, size) else { continue };
        takes.volumes += 1;
        takes.growth = takes.growth.and(growth(&head.bytes, to, block).unwrap_or_default());
        let [now, then] = [found.size, to].map(|length| inode_tables(&head.bytes, length).unwrap_or_default());
        takes.later = takes.later.max(then.saturating_sub(now));
    }
    Ok(takes)
}

fn told(takes: &Takes, base: Bytes, size: Bytes, more: Bytes) -> Vec<String> {
    let mut notes = vec![format!(
        "{} volumes become {} long, with their file systems, which takes {} more at most; the base device has {} now",
        takes.volumes,
        size.human(),
        more.human(),
        base.human()
    )];
    if takes.later > Bytes::default() {
        notes.push(format!(
            "ext4 fills what it gets for inodes with zeros later: up to {} in each container that runs",
            takes.later.human()
        ));
    }
    notes
}

/// Says which containers are longer than that, and stay so.
fn longer(ground: &Ground<'_>, records: &Records, size: Bytes) -> Option<String> {
    let objects = docker_objects::read(&ground.root.path).ok()?;
    let mut names: Vec<String> = Vec::new();
    for container in &objects.containers {
        let mount = container.mount.as_ref().and_then(|mount| mount.mount_id.as_deref());
        let Some(record) = mount.and_then(|mount| records.volumes.get(mount)) else { continue };
        if record.size > size {
            let name = container.name().unwrap_or(&container.id);
            names.push(format!("{name} ({})", record.size.human()));
        }
    }
    let more = names.len().saturating_sub(NAMED);
    names.truncate(NAMED);
    let others = if more > 0 { format!(", and {more} more") } else { String::new() };
    (!names.is_empty()).then(|| format!("containers that are larger stay so: {}{others}", names.join(", ")))
}

impl NewBase {
    /// Returns what Docker must be told: only one that is told another size, or file system, is, since the base device's record has it else.
    pub(super) fn options(&self, given: &[&str]) -> Vec<String> {
        let inner = self.anew.as_ref().and_then(|anew| inner_option(given, anew.inner));
        option(given, self.size).into_iter().chain(inner).collect()
    }

    /// Returns what every volume becomes, when they are made anew.
    pub(super) fn anew(&self) -> Option<Anew> {
        self.anew.clone()
    }

    /// Returns the step that makes volumes longer, or writes down how long those are that were made anew.
    pub(super) fn grow(&self, carried: &Carried) -> Step {
        match self.anew {
            Some(_) => WriteRecords { carried: carried.clone() }.into(),
            None => GrowVolumes { carried: carried.clone(), size: self.size, records: self.records.clone() }.into(),
        }
    }

    /// Returns the steps that put the new records in the place of the old ones.
    pub(super) fn swap(self) -> [Step; 2] {
        let Swap { folder, aside, made } = self.records;
        [SetAside { from: folder.clone(), to: aside }.into(), SetAside { from: made, to: folder }.into()]
    }
}

fn option(given: &[&str], size: Bytes) -> Option<String> {
    let told = given.iter().rev().find(|option| key_of(option) == OPTION)?;
    let is_so = told.split_once('=').is_some_and(|(_, value)| Bytes::parse(value.trim()) == Ok(size));
    (!is_so).then(|| format!("{OPTION}={}", size.typed()))
}

fn inner_option(given: &[&str], inner: Inner) -> Option<String> {
    let told = given.iter().rev().find(|option| key_of(option) == INNER)?;
    let is_so = told.split_once('=').is_some_and(|(_, value)| value.trim() == inner.name());
    (!is_so).then(|| format!("{INNER}={}", inner.name()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::engine::bookkeeping::Device;
    use crate::ops::filesystem::{HEAD, parse};
    use crate::pool::VolumeId;
    use crate::units::MetaBlocks;

    const G: u64 = 1 << 30;

    fn refuse(why: String) -> Failure {
        Failure::refused(why)
    }

    fn xfs(gib: u64) -> Vec<u8> {
        let mut head = vec![0; HEAD];
        let fields: [(usize, &[u8]); 4] = [
            (0, b"XFSB"),
            (4, &4096_u32.to_be_bytes()),
            (8, &(gib * G / 4096).to_be_bytes()),
            (84, &655_360_u32.to_be_bytes()),
        ];
        for (at, bytes) in fields {
            head.splice(at..at + bytes.len(), bytes.iter().copied());
        }
        head
    }

    #[test]
    fn what_is_shorter_is_counted_and_what_nobody_knows_is_named() {
        let mut records = Records::default();
        let mut heads = BTreeMap::new();
        for (id, name, gib) in [(1, "base", 10), (2, "aa", 10), (3, "big", 60)] {
            let device =
                Device { id, size: Bytes::new(gib * G), transaction_id: 1, initialized: false, deleted: false };
            records.volumes.insert(name.to_owned(), device);
            let bytes = xfs(gib);
            heads.insert(name.to_owned(), Head { id: VolumeId::new(id).unwrap(), found: parse(&bytes), bytes });
        }
        let block = Bytes::new(64 << 10);
        let counted = takes(&records, &heads, Bytes::new(50 * G), block).unwrap();
        let growth = Growth { data: 2 * (2 * 20 + 64), metadata: MetaBlocks::new(2 * (2 * 20 + 8)) };
        assert_eq!(counted, Takes { volumes: 2, growth, later: Bytes::default() });
        assert_eq!(takes(&records, &heads, Bytes::new(10 * G), block).unwrap(), Takes::default());
        heads.get_mut("aa").unwrap().found = None;
        assert_eq!(takes(&records, &heads, Bytes::new(50 * G), block), Err("aa".to_owned()));
    }

    #[test]
    fn only_a_docker_that_is_told_another_size_is_told() {
        let size = Bytes::new(50 * G);
        assert_eq!(option(&["dm.fs=xfs"], size), None);
        assert_eq!(option(&["dm.basesize=10G", "dm.basesize=50G"], size), None);
        assert_eq!(option(&["DM.BaseSize=10G"], size).as_deref(), Some("dm.basesize=50G"));
        assert_eq!(option(&["dm.basesize=1.5 g"], size).as_deref(), Some("dm.basesize=50G"));
    }

    #[test]
    fn only_a_docker_that_is_told_another_file_system_is_told() {
        assert_eq!(inner_option(&["dm.fs=xfs"], Inner::Xfs), None);
        assert_eq!(inner_option(&["dm.basesize=10G"], Inner::Xfs), None);
        assert_eq!(inner_option(&["dm.fs=ext4", "DM.fs=xfs"], Inner::Ext4).as_deref(), Some("dm.fs=ext4"));
    }

    #[test]
    fn a_base_device_has_whole_mebibytes() {
        assert!(is_possible(Bytes::new(G), &refuse).is_ok());
        let odd = is_possible(Bytes::new(10 * G + 1), &refuse).unwrap_err();
        assert_eq!(odd.next.as_deref(), Some("--base-size 10241M"));
    }
}
