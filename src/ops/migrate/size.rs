//! How large a copy is: judged before anything is stopped.

use anyhow::{Result, bail};
use serde_json::Value;

use super::blocks::{Family, Origin, Source, need};
use super::{Ground, told, users};
use crate::engine::docker_root::DockerRoot;
use crate::error::{Failure, Outcome};
use crate::metadata::Superblock;
use crate::ops::sight;
use crate::units::{BlockSize, Bytes, DataBlocks, MetaBlocks};

/// How often metadata is read that is written meanwhile; what the last time does not tell the superblock does.
const TIMES: usize = 5;

/// A pool as it is now.
pub(super) struct Old {
    /// Where it is read now.
    pub now: Origin,
    /// What its superblock says.
    pub superblock: Superblock,
    /// What it lies on once Docker is down.
    pub origin: Origin,
    /// Its dm name.
    pub pool: String,
    /// The length of its blocks.
    pub block: BlockSize,
    /// How large its data is.
    pub data: Bytes,
    /// How large its metadata is.
    pub metadata: Bytes,
    /// How many of its metadata blocks are in use.
    pub metadata_used: MetaBlocks,
    /// How many metadata blocks a larger base device takes beside.
    pub metadata_longer: MetaBlocks,
    /// How many volumes it has.
    pub volumes: usize,
    /// How many blocks its volumes map, each with its own count of what they share.
    pub mapped: DataBlocks,
    /// Records of volumes that it does not have, by their names.
    pub missing: Vec<String>,
    /// What the copy takes in new blocks at most.
    pub need: Bytes,
    /// Whether nobody wrote to it while it was read: then all of that is so.
    pub is_steady: bool,
    /// What of that is left when the rest was prepared; nothing when nothing was, or it cannot be told.
    pub left: Option<Bytes>,
    /// How long it takes when its volumes are made anew, in seconds; nothing when blocks are copied.
    pub by_files: Option<u64>,
}

/// Looks at the pool of a root, also while Docker writes to it: `info` is what Docker says of itself, `block` how long the new blocks are.
pub(super) fn look(
    ground: &Ground<'_>,
    info: &Value,
    block: Option<BlockSize>,
    refuse: &impl Fn(String) -> Failure,
) -> Outcome<Old> {
    let root = &ground.root;
    let (pool, origin) = origin_of(root);
    told::is_one(root, info, &pool, refuse)?;
    is_there(&origin, refuse)?;
    let dm = &ground.kit.dm;
    let unread = |why: anyhow::Error| {
        refuse("its pool cannot be read".to_owned()).because(why).fact("state", "nothing was touched").next(format!(
            "dmpool health {}    # says what is wrong with it; dmpool rescue reads what is left",
            root.path.display()
        ))
    };
    let prefix = root.daemon.is_some().then_some(root.device_prefix.as_str());
    users::none_else(dm, &pool, &origin, prefix, refuse)?;
    let live = sight::live(dm, &pool).map_err(unread)?;
    let now = if live.is_some() { Origin::Pool(pool.clone()) } else { origin.clone() };
    if live.is_none() && matches!(origin, Origin::Pool(_)) {
        return Err(refuse(format!("its pool `{pool}` is down"))
            .next(format!("dmpool activate {pool}    # or bring it up as it was made (LVM's: lvchange -ay)")));
    }
    let look = |may_change: bool| -> Result<Old> {
        let source = Source::open(dm, &now)?;
        let superblock = source.metadata.superblock.clone();
        let details = source.metadata.details()?;
        let mapped = details.values().fold(0_u64, |sum, volume| sum.saturating_add(volume.mapped.get()));
        let family = Family::look(&root.path, &details)?;
        let need = need(&source.metadata, &family, block.unwrap_or(superblock.block_size));
        let is_steady = Source::open(dm, &now)?.metadata.seal == source.metadata.seal;
        if !is_steady && !may_change {
            bail!("it was written while it was read");
        }
        Ok(Old {
            now: now.clone(),
            origin: origin.clone(),
            pool: pool.clone(),
            block: superblock.block_size,
            data: superblock.block_size.bytes_of(superblock.data_total),
            metadata: superblock.metadata_total.bytes(),
            metadata_used: superblock.metadata_used,
            metadata_longer: MetaBlocks::new(0),
            volumes: family.members.len(),
            mapped: DataBlocks::new(mapped),
            missing: family.missing,
            need: if is_steady { need? } else { superblock.block_size.bytes_of(superblock.data_used) },
            is_steady,
            left: None,
            by_files: None,
            superblock,
        })
    };
    let mut looked = look(false);
    for time in 1..TIMES {
        if looked.is_ok() {
            break;
        }
        looked = look(time + 1 == TIMES);
    }
    looked.map_err(unread)
}

/// Returns the dm name of a root's pool, and what it lies on once Docker is down.
pub(super) fn origin_of(root: &DockerRoot) -> (String, Origin) {
    let options = root.options.known();
    if let Some(pool) = options.and_then(|options| options.named_pool()).filter(|_| root.is_this_machines()) {
        return (pool.to_owned(), Origin::Pool(pool.to_owned()));
    }
    let folder = root.path.join("devicemapper/devicemapper");
    let device = |of: Option<&String>, name: &str| of.map_or_else(|| folder.join(name), Into::into);
    let data = device(options.and_then(|options| options.data_device.as_ref()), "data");
    let metadata = device(options.and_then(|options| options.metadata_device.as_ref()), "metadata");
    (root.own_pool(), Origin::Parts { data, metadata })
}

fn is_there(origin: &Origin, refuse: &impl Fn(String) -> Failure) -> Outcome<()> {
    let Origin::Parts { data, metadata } = origin else { return Ok(()) };
    match [data, metadata].into_iter().find(|path| !path.exists()) {
        Some(path) => Err(refuse("its pool is not in the root, and nothing says where it is".to_owned())
            .fact("found", format!("no {}", path.display()))
            .next("dmpool list    # shows the pools here")),
        None => Ok(()),
    }
}
