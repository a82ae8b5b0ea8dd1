//! `activate`: a registered pool comes up, with the size that its superblock says.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Failure, Outcome};
use crate::kernel::dm::DmId;
use crate::kernel::fs::FsFacts;
use crate::kernel::loopdev::LoopInfo;
use crate::metadata::{BadSuperblock, Superblock};
use crate::ops::journal::{self, Unfinished};
use crate::ops::plan::{Operation, Plan};
use crate::ops::steps::{self, Kit};
use crate::ops::{Change, Done, gate, sight};
use crate::pool::{Entry, Interrupted};
use crate::units::Bytes;

/// What decides whether it can be done.
#[derive(Clone, Debug)]
pub struct Facts {
    /// What the registry says.
    pub entry: Entry,
    /// The pool's device, when the kernel has one of that name: its uuid.
    pub pool: Option<Option<String>>,
    /// The other devices that have one of the names, with their uuids.
    pub others: Vec<(String, Option<String>)>,
    /// The metadata file.
    pub metadata: FileFacts,
    /// The data file.
    pub data: FileFacts,
    /// What is in block 0 of the metadata file; nothing when the file is not there.
    pub superblock: Option<Result<Superblock, BadSuperblock>>,
    /// An operation on the pool that was interrupted: which one, and how it can be ended.
    pub interrupted: Option<(Operation, Interrupted)>,
}

/// What there is of a loop file.
#[derive(Clone, Debug)]
pub struct FileFacts {
    /// Its path.
    pub path: PathBuf,
    /// Its length; nothing when it is missing or no file.
    pub length: Option<Bytes>,
    /// What is there instead of a file.
    pub not_a_file: Option<&'static str>,
    /// The type of the file system it is on, when that is not this machine's own.
    pub network: Option<String>,
    /// The loop devices that have it.
    pub loops: Vec<LoopInfo>,
}

/// Brings the pool up, or says what would be done.
///
/// # Errors
/// Refused with the reason; [`crate::error::Kind::Failed`] when it could not be done and was taken back.
pub fn activate(kit: &Kit, entry: &Entry, change: Change) -> Outcome<Done> {
    gate::may_change(kit)?;
    let first = plan(&look(kit, entry)?)?;
    if change == Change::Describe || first.is_empty() {
        return Ok(Done::planned(first));
    }
    let _existence = gate::lock(kit, gate::EXISTENCE, &first.what)?;
    let _lock = gate::lock(kit, &gate::key_of(&entry.metadata.file), &first.what)?;
    let plan = plan(&look(kit, entry)?)?;
    let ended = journal::carry_out(kit, plan.clone())?;
    Ok(Done::ended(plan, ended))
}

/// Looks at what decides.
///
/// # Errors
/// When the kernel does not answer, or a journal cannot be read.
pub fn look(kit: &Kit, entry: &Entry) -> Outcome<Facts> {
    let cannot = |e: anyhow::Error| Failure::failed(format!("cannot activate pool `{}`", entry.name)).because(e);
    let uuid = |name: &str| kit.dm.info(&DmId::name(name)).map_err(cannot).map(|info| info.map(|i| i.uuid));
    let mut others = Vec::new();
    // A death between the making of a device and its table leaves it empty: that is no active pool.
    let pool = kit.dm.info(&DmId::name(entry.name.as_str())).map_err(cannot)?;
    let pool = match pool {
        Some(info) if !info.live_table && info.uuid.as_deref() == Some(entry.uuid.pool().as_str()) => {
            others.push((entry.name.to_string(), info.uuid));
            None
        }
        pool => pool.map(|info| info.uuid),
    };
    for name in [entry.name.data_device(), entry.name.metadata_device()] {
        if let Some(uuid) = uuid(&name)? {
            others.push((name, uuid));
        }
    }
    let metadata = file(&entry.metadata.file).map_err(cannot)?;
    let superblock = match metadata.length {
        Some(_) => Some(sight::superblock_in(&entry.metadata.file).map_err(cannot)?),
        None => None,
    };
    let interrupted = journal::of_pool(&kit.state, entry.name.as_str())?
        .map(|Unfinished { journal, .. }| (journal.opened.plan.operation, journal::ways_out(kit, &journal)));
    Ok(Facts {
        pool,
        entry: entry.clone(),
        others,
        metadata,
        data: file(&entry.data.file).map_err(cannot)?,
        superblock,
        interrupted,
    })
}

fn file(path: &Path) -> anyhow::Result<FileFacts> {
    let mut facts =
        FileFacts { path: path.to_owned(), length: None, not_a_file: None, network: None, loops: Vec::new() };
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(anyhow::Error::new(e).context(format!("looking at {}", path.display()))),
        Ok(found) if found.is_symlink() => facts.not_a_file = Some("a symbolic link"),
        Ok(found) if !found.is_file() => facts.not_a_file = Some("no file"),
        Ok(found) => {
            facts.length = Some(Bytes::new(found.len()));
            let fs = FsFacts::of(path)?;
            facts.network = fs.is_network.then_some(fs.fs_type);
            facts.loops = sight::loops_on(path)?;
        }
    }
    Ok(facts)
}

/// Decides what is to be done.
///
/// # Errors
/// Every reason not to do it.
pub fn plan(facts: &Facts) -> Outcome<Plan> {
    let entry = &facts.entry;
    let name = &entry.name;
    let what = format!("activate pool `{name}`");
    let refuse = |why: String| Failure::refused(format!("cannot {what}: {why}")).fact("state", "nothing was touched");
    let mut plan = Plan {
        operation: Operation::Activate,
        pool: name.to_string(),
        what: what.clone(),
        steps: Vec::new(),
        notes: Vec::new(),
    };
    if let Some((operation, how)) = &facts.interrupted {
        plan.notes.push(interrupted(*operation, how));
    }
    if let Some(uuid) = &facts.pool {
        if uuid.as_deref() != Some(entry.uuid.pool().as_str()) {
            return Err(refuse(format!("another device is called `{name}`"))
                .fact("found", format!("uuid {}", uuid.as_deref().unwrap_or("none")))
                .next(format!("dmsetup info {name}    says more; dmsetup rename {name} OTHER    frees the name")));
        }
        plan.notes.push(format!("pool `{name}` is active already: unchanged"));
        return Ok(plan);
    }
    if let (Some((device, _)), Some((operation, how))) = (facts.others.first(), &facts.interrupted) {
        return Err(refuse(format!("`{}` was interrupted half way", operation.word()))
            .fact("found", format!("the journal {}, and the device `{device}`", how.id))
            .next(how.ways()));
    }
    if let Some((device, uuid)) = facts.others.first() {
        return Err(refuse(format!("a device is called `{device}` already"))
            .fact("found", format!("uuid {}", uuid.as_deref().unwrap_or("none")))
            .next(format!("dmsetup info {device}    says more; if nothing uses it:  dmsetup remove {device}")));
    }
    let superblock = superblock(facts, &refuse)?;
    let length =
        superblock.length().ok_or_else(|| refuse("its superblock counts more blocks than there can be".to_owned()))?;
    let metadata = superblock.metadata_total.bytes();
    for (file, needed, part) in [(&facts.data, length.bytes(), "data"), (&facts.metadata, metadata, "metadata")] {
        long_enough(file, needed, part, &refuse)?;
    }
    let behaviour = &entry.pool;
    if behaviour.block_size != superblock.block_size {
        return Err(refuse("registry and superblock disagree about its block size".to_owned())
            .fact(
                "found",
                format!("registry {}, superblock {}", behaviour.block_size.sectors(), superblock.block_size.sectors()),
            )
            .next("the data file's pool is the one of the superblock: put the right metadata file in its place"));
    }
    // What the superblock counts, also of a file that a grow which was interrupted has made longer: `continue` gives the rest.
    plan.steps = steps::devices_of(entry, metadata.sectors(), length).into();
    Ok(plan)
}

/// Says what of an interrupted operation a pool that comes up has. It is registered, so it is whole: `create` registers
/// last, and `destroy` takes it out before it deletes anything.
fn interrupted(operation: Operation, how: &Interrupted) -> String {
    let side = match operation {
        Operation::Grow => "the pool comes up with the size that its superblock says",
        Operation::Create => "the pool was made, and comes up",
        Operation::Activate => "the pool comes up",
        Operation::Deactivate | Operation::Destroy => "the pool comes up as it was before",
    };
    format!("`{}` was interrupted; {side}. End it:  {}", how.id, how.ways())
}

fn superblock<'f>(facts: &'f Facts, refuse: &impl Fn(String) -> Failure) -> Outcome<&'f Superblock> {
    for file in [&facts.metadata, &facts.data] {
        let path = file.path.display();
        if let Some(other) = file.not_a_file {
            return Err(refuse(format!("{path} is {other}")).next("put the pool's own file in its place"));
        }
        if file.length.is_none() {
            return Err(refuse(format!("its file {path} is missing"))
                .next("mount the file system it is on, or put the file back"));
        }
        if let Some(kind) = &file.network {
            return Err(refuse(format!("{path} is on a file system that is not this machine's own ({kind})")).next(
                "copy its files to a local disk (cp --sparse=always): a pool must not depend on a server's answer",
            ));
        }
        if let Some(user) = file.loops.first() {
            return Err(refuse(format!("{path} is in use by {}", user.path().display()))
                .next(format!("find out who uses it:  losetup -l {0}; then losetup -d {0}", user.path().display())));
        }
    }
    let path = facts.metadata.path.display();
    match &facts.superblock {
        Some(Ok(superblock)) => Ok(superblock),
        Some(Err(BadSuperblock::Zero)) => Err(refuse(format!("{path} is blank"))
            .fact("found", "block 0 is all zeros: activating would format a new, empty pool over the data")
            .next("put the pool's metadata back; if there is none, the data cannot be read as a pool")),
        Some(Err(bad)) => Err(refuse(format!("the superblock in {path} cannot be read: {bad}"))
            .next(format!("copy it before anything else:  cp --sparse=always {path} COPY    then  thin_check COPY"))),
        None => Err(refuse(format!("its file {path} is missing"))),
    }
}

fn long_enough(file: &FileFacts, needed: Bytes, part: &str, refuse: &impl Fn(String) -> Failure) -> Outcome<()> {
    let found = file.length.unwrap_or_default();
    if found >= needed {
        return Ok(());
    }
    let path = file.path.display();
    Err(refuse(format!("its {part} file {path} is shorter than the pool"))
        .fact("needed", format!("{}, as the superblock records", needed.exact()))
        .fact("found", found.exact())
        .next(format!(
            "if it was cut by accident (dd, truncate), what lay behind is lost; with   truncate -s {} {path}   the rest can be read again",
            needed.get()
        )))
}
