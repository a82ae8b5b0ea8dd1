//! `create`: a pool on two sparse loop files.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::error::{Failure, Outcome};
use crate::kernel::dm::DmId;
use crate::kernel::fs::{self as durable, FsFacts};
use crate::ops::journal;
use crate::ops::plan::{Operation, Plan};
use crate::ops::steps::{self, Kit, MakeDirectory, MakeFile, Register, Step};
use crate::ops::{Change, Done, facts, find, gate, own_disk, random, registry};
use crate::pool::{Behaviour, ENTRY_FORMAT, Entry, PoolReport, PoolUuid, Spec, Store, sizing};
use crate::units::{Bytes, MAX_META_BLOCKS, MIN_META_BLOCKS};

/// What must be free on the file system before anything is made there: a pool needs some hundred kilobytes at once.
const LEAST_FREE: Bytes = Bytes::new(16 << 20);

/// What `create` is asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// What the pool shall be.
    pub spec: Spec,
    /// Whether a pool that is already just so is success.
    pub ensure: bool,
}

/// What decides whether it can be done.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Devices that have one of the names already.
    pub taken: Vec<String>,
    /// The registry's entry of that name, and the pool it leads to.
    pub registered: Option<(Entry, PoolReport)>,
    /// The directory that was named, or the nearest one that is there of the default.
    pub directory: Directory,
    /// What exists already of what would be made.
    pub existing: Vec<PathBuf>,
    /// Whether that directory is dmpool's own default.
    pub is_default: bool,
    /// The folder of the registry, and the file system it is on.
    pub registry: (PathBuf, Box<FsFacts>),
    /// The largest file this process may make, when it is limited.
    pub file_size_limit: Option<Bytes>,
    /// The pool's identity, should it be made.
    pub uuid: PoolUuid,
}

/// The directory under which a pool's own is made.
#[derive(Clone, Debug)]
pub enum Directory {
    /// It is there.
    There {
        /// Its mode bits.
        mode: u32,
        /// The file system it is on.
        fs: Box<FsFacts>,
        /// Whether a file as long as the data's can be made there; nothing when that cannot be tried.
        holds: Option<bool>,
    },
    /// Something else has its name.
    Not(&'static str),
    /// It is missing.
    Missing,
}

/// Makes the pool, or says what would be done.
///
/// # Errors
/// Refused with the reason; [`crate::error::Kind::Failed`] when it could not be done and was taken back.
pub fn create(kit: &Kit, options: &Options, change: Change) -> Outcome<Done> {
    gate::may_change(kit)?;
    gate::no_interrupted(kit, options.spec.name.as_str())?;
    let first = plan(&look(kit, &options.spec)?, options)?;
    if change == Change::Describe || first.is_empty() {
        return Ok(Done::planned(first));
    }
    let _lock = gate::lock(kit, gate::EXISTENCE, &first.what)?;
    gate::no_interrupted(kit, options.spec.name.as_str())?;
    let plan = plan(&look(kit, &options.spec)?, options)?;
    let ended = journal::carry_out(kit, plan.clone())?;
    Ok(Done::ended(plan, ended))
}

/// Looks at what decides.
///
/// # Errors
/// When the registry or the kernel cannot be read.
pub fn look(kit: &Kit, spec: &Spec) -> Outcome<Facts> {
    let cannot = |e: anyhow::Error| Failure::failed(format!("cannot create pool `{}`", spec.name)).because(e);
    let names = [spec.name.to_string(), spec.name.data_device(), spec.name.metadata_device()];
    let mut taken = Vec::new();
    for name in names {
        if let Some(info) = kit.dm.info(&DmId::name(&name)).map_err(cannot)? {
            taken.push(format!("`{name}` ({})", info.devno));
        }
    }
    let registered = match registry::read(&kit.state, &spec.name)? {
        Some(entry) => {
            let found = find::Found {
                name: spec.name.to_string(),
                entry: Some(entry.clone()),
                bad_entry: None,
                docker: None,
                tie: None,
                by_root: None,
                containerd: crate::ops::containerd::Claim::default(),
                loops: Vec::new(),
            };
            Some((entry, facts::look(kit, &found)?))
        }
        None => None,
    };
    let is_default = spec.directory == kit.state.pools;
    // The default is dmpool's own, and made with the pool's; of another one a missing part may be a missing mount.
    let looked_at = if is_default { own_disk::there(&spec.directory) } else { &spec.directory };
    let registry_fs = FsFacts::of(own_disk::there(&kit.state.registry)).map_err(cannot)?;
    let existing = [spec.own_directory(), spec.data_file(), spec.metadata_file()];
    let file_size_limit = durable::file_size_limit().map_err(cannot)?;
    Ok(Facts {
        taken,
        registered,
        directory: directory(looked_at, spec.data_size, file_size_limit).map_err(cannot)?,
        existing: existing.into_iter().filter(|path| fs::symlink_metadata(path).is_ok()).collect(),
        is_default,
        registry: (kit.state.registry.clone(), Box::new(registry_fs)),
        file_size_limit,
        uuid: PoolUuid::from_random(random::bits().map_err(cannot)?),
    })
}

fn directory(path: &Path, length: Bytes, limit: Option<Bytes>) -> Result<Directory> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Directory::Missing),
        Err(e) => return Err(anyhow::Error::new(e).context(format!("looking at {}", path.display()))),
    };
    if found.is_symlink() {
        return Ok(Directory::Not("a symbolic link"));
    }
    if !found.is_dir() {
        return Ok(Directory::Not("no directory"));
    }
    let fs = FsFacts::of(path)?;
    // Past the limit the kernel would end this process for trying.
    let holds = match fs.read_only || gate::is_past(length, limit) {
        true => None,
        false => durable::can_hold(path, length).unwrap_or(None),
    };
    Ok(Directory::There { mode: found.mode(), fs: Box::new(fs), holds })
}

/// Decides what is to be done.
///
/// # Errors
/// Every reason not to do it.
pub fn plan(facts: &Facts, options: &Options) -> Outcome<Plan> {
    let spec = &options.spec;
    let what = format!("create pool `{}`", spec.name);
    let refuse = |why: String| Failure::refused(format!("cannot {what}: {why}"));
    if let Some((entry, report)) = &facts.registered {
        return already_there(entry, report, options, &what);
    }
    if !facts.taken.is_empty() {
        return Err(refuse("a device has that name".to_owned())
            .fact("found", facts.taken.join(", "))
            .next("choose another name; dmpool list shows the pools here"));
    }
    sizes(spec, &refuse)?;
    let fs = place(facts, spec, &refuse)?;
    own_disk::takes_files(&facts.registry.1, &facts.registry.0, &refuse)?;
    let mut notes = Vec::new();
    let wanted = Bytes::new(spec.data_size.get().saturating_add(spec.metadata_size.get()));
    if spec.preallocate && wanted > fs.available {
        return Err(refuse("the file system has too little space to preallocate it".to_owned())
            .fact("needed", wanted.exact())
            .fact("free", fs.available.exact())
            .next("leave out --preallocate for sparse files, or choose a smaller --data-size"));
    }
    if wanted > fs.free {
        notes.push(format!(
            "the files promise {}, the file system {} has {} free: {} more is promised than is there",
            wanted.human(),
            fs.mount_point.display(),
            fs.free.human(),
            wanted.saturating_sub(fs.free).human()
        ));
    }
    let steps = steps_of(spec, &facts.uuid, facts.is_default);
    Ok(Plan { operation: Operation::Create, pool: spec.name.to_string(), what, steps, notes })
}

fn sizes(spec: &Spec, refuse: &impl Fn(String) -> Failure) -> Outcome<()> {
    let block = spec.block_size.bytes();
    if spec.data_size < block {
        return Err(refuse(format!("its data, {}, is less than one block", spec.data_size.human()))
            .fact("needed", format!("at least {}", block.human()))
            .next(format!("--data-size {}", block.get())));
    }
    if !spec.data_size.get().is_multiple_of(block.get()) {
        let rounded = spec.data_size.get() / block.get() * block.get();
        return Err(refuse(format!("its data, {} bytes, is no whole number of blocks", spec.data_size.get()))
            .fact("needed", format!("a multiple of {}", block.exact()))
            .next(format!("--data-size {rounded}")));
    }
    if spec.metadata_size.meta_blocks() < MIN_META_BLOCKS {
        return Err(refuse(format!("its metadata, {}, is too small", spec.metadata_size.human()))
            .fact("needed", format!("at least {}", MIN_META_BLOCKS.bytes().human()))
            .next("leave out --metadata-size: dmpool chooses one that fits"));
    }
    if spec.metadata_size > MAX_META_BLOCKS.bytes() {
        return Err(refuse(format!("its metadata, {}, is more than the kernel uses", spec.metadata_size.human()))
            .fact("needed", format!("at most {}", MAX_META_BLOCKS.bytes().exact()))
            .next("--metadata-size 16256M"));
    }
    let rule = sizing::metadata_for(spec.block_size.blocks_in(spec.data_size.sectors())).bytes();
    if spec.metadata_size < rule {
        return Err(refuse(format!("{} of metadata cannot map its data", spec.metadata_size.human()))
            .fact("needed", format!("at least {}: 48 bytes for each block of {}", rule.exact(), block.human()))
            .next(format!("--metadata-size {}M, or a larger --block-size", rule.get().div_ceil(1 << 20))));
    }
    Ok(())
}

fn place<'f>(facts: &'f Facts, spec: &Spec, refuse: &impl Fn(String) -> Failure) -> Outcome<&'f FsFacts> {
    let path = spec.directory.display();
    let (mode, fs, holds) = match &facts.directory {
        Directory::There { mode, fs, holds } => (*mode, fs, *holds),
        Directory::Missing => {
            return Err(refuse(format!("the directory `{path}` is missing")).next(format!("mkdir -m 0700 {path}")));
        }
        Directory::Not(other) => {
            return Err(refuse(format!("`{path}` is {other}")).next("name a directory that is one, by its own path"));
        }
    };
    if mode & 0o002 != 0 {
        return Err(refuse(format!("everybody may write in the directory `{path}`"))
            .fact("found", format!("mode {:04o}", mode & 0o7777))
            .next(format!("chmod o-w {path}, or name a directory of root's own")));
    }
    if let Some(file) = facts.existing.first() {
        return Err(refuse(format!("`{}` is there already", file.display()))
            .fact("state", "nothing was touched; dmpool never writes over a file")
            .next("choose another name or another --dir, or move what is there away"));
    }
    if fs.is_network {
        return Err(refuse(format!("`{path}` is on a file system that is not this machine's own ({})", fs.fs_type))
            .fact("found", format!("{} on {}", fs.source.display(), fs.mount_point.display()))
            .next("choose a directory on a local disk: a pool must not depend on a server's answer"));
    }
    if fs.read_only {
        return Err(refuse(format!("the file system of `{path}` is read-only"))
            .fact("found", format!("{} on {}", fs.fs_type, fs.mount_point.display()))
            .next(format!("mount -o remount,rw {}", fs.mount_point.display())));
    }
    if fs.sparse == Some(false) && !fs.keeps_modes {
        let why = format!("the file system of `{path}` ({}) has no sparse files and keeps no permissions", fs.fs_type);
        return Err(refuse(why)
            .fact("found", format!("{} on {}", fs.source.display(), fs.mount_point.display()))
            .next("choose a directory on ext4 or xfs: there the pool's files are root's alone"));
    }
    if fs.sparse == Some(false) && !spec.preallocate {
        return Err(refuse(format!("the file system of `{path}` ({}) has no sparse files", fs.fs_type))
            .next("--preallocate, or a directory on ext4 or xfs"));
    }
    if holds == Some(false) || fs.max_file_size.is_some_and(|most| spec.data_size > most) {
        let most = fs.max_file_size.map_or_else(|| "less".to_owned(), Bytes::exact);
        return Err(refuse(format!("the file system of `{path}` ({}) cannot hold a file of that length", fs.fs_type))
            .fact("needed", spec.data_size.exact())
            .fact("found", format!("its largest file: {most}"))
            .next("choose a smaller --data-size, or a directory on xfs"));
    }
    gate::file_size(spec.data_size.max(spec.metadata_size), facts.file_size_limit, refuse)?;
    if fs.available < LEAST_FREE {
        return Err(refuse(format!("the file system of `{path}` is full"))
            .fact("needed", format!("{} for a new pool", LEAST_FREE.human()))
            .fact("free", fs.available.exact())
            .next(format!("make room on {}, or choose another --dir", fs.mount_point.display())));
    }
    Ok(fs)
}

fn steps_of(spec: &Spec, uuid: &PoolUuid, parents: bool) -> Vec<Step> {
    let behaviour = Behaviour { block_size: spec.block_size, low_water: spec.low_water, features: spec.features() };
    let file = |path: PathBuf, size: Bytes| MakeFile { path, size, preallocate: spec.preallocate };
    let entry = Entry {
        format: ENTRY_FORMAT,
        name: spec.name.clone(),
        uuid: uuid.clone(),
        pool: behaviour.clone(),
        metadata: Store { file: spec.metadata_file(), preallocated: spec.preallocate },
        data: Store { file: spec.data_file(), preallocated: spec.preallocate },
    };
    let length = spec.data_size.sectors();
    let [metadata, data, pool] = steps::devices_of(&entry, spec.metadata_size.sectors(), length);
    vec![
        MakeDirectory { path: spec.own_directory(), parents }.into(),
        file(spec.metadata_file(), spec.metadata_size).into(),
        file(spec.data_file(), spec.data_size).into(),
        metadata,
        data,
        pool,
        Register { entry }.into(),
    ]
}

/// Decides about a name that is registered: with `--ensure`, the same pool is success.
fn already_there(entry: &Entry, report: &PoolReport, options: &Options, what: &str) -> Outcome<Plan> {
    let spec = &options.spec;
    let refuse = |why: &str| Failure::refused(format!("cannot {what}: {why}"));
    if !options.ensure {
        return Err(refuse("a pool of that name is registered already").next(format!(
            "dmpool status {}    or, if the same pool being there is fine:  dmpool create {} --ensure …",
            spec.name, spec.name
        )));
    }
    let differences = differences(entry, report, spec);
    if !differences.is_empty() {
        return Err(refuse("it is there already and is not the same").fact("found", differences.join("; ")).next(
            format!("dmpool grow {} SIZE    where only the size is too small; else choose another name", spec.name),
        ));
    }
    if report.table.is_none() {
        return Err(refuse("it is there already, and is not active").next(format!("dmpool activate {}", spec.name)));
    }
    Ok(Plan {
        operation: Operation::Create,
        pool: spec.name.to_string(),
        what: what.to_owned(),
        steps: Vec::new(),
        notes: vec![format!("pool `{}` is there already, just so: unchanged", spec.name)],
    })
}

fn differences(entry: &Entry, report: &PoolReport, spec: &Spec) -> Vec<String> {
    let mut found = Vec::new();
    let mut compare = |what: &str, there: String, wanted: String| {
        if there != wanted {
            found.push(format!("{what}: {there} is there, {wanted} is wanted"));
        }
    };
    let size = |space: Option<crate::pool::Space>| space.map_or_else(|| "unknown".to_owned(), |s| s.total.exact());
    compare("data", size(report.data_space()), spec.data_size.exact());
    compare("metadata", size(report.metadata_space()), spec.metadata_size.meta_blocks().bytes().exact());
    compare("block size", entry.pool.block_size.bytes().human(), spec.block_size.bytes().human());
    compare("low water mark", entry.pool.low_water.to_string(), spec.low_water.to_string());
    compare("features", format!("[{}]", entry.pool.features.join(" ")), format!("[{}]", spec.features().join(" ")));
    compare("data file", entry.data.file.display().to_string(), spec.data_file().display().to_string());
    found
}
