//! What there is, for who is asked what it shall become.

use std::path::{Path, PathBuf};

use super::blocks::{Origin, Records, Source};
use super::grow_instead::{Grow, may_grow};
use super::{Ground, Options, To, files, ground, preflight, size, told};
use crate::engine::bookkeeping::BASE;
use crate::error::{Failure, Outcome};
use crate::kernel::dm::Dm;
use crate::ops::daemon::vanishing::{self, Vanishing};
use crate::ops::preflight::Judged;
use crate::ops::steps::Kit;
use crate::ops::{gate, sight};
use crate::units::{BlockSize, Bytes};

/// A Docker root, and what is needed to ask about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Now {
    /// The root.
    pub root: PathBuf,
    /// The root as commands take it: `docker`, or its path.
    pub name: String,
    /// The size of its pool, or why that can become no other pool; then it can be carried to overlay2.
    pub size: Result<Size, String>,
    /// Whether `grow` would make it larger.
    pub grow: Grow,
    /// The daemon's process, when nothing says what stops and starts it.
    pub by_hand: Option<u32>,
    /// The containers that are gone when Docker stops (`--rm`).
    pub vanish: Vec<Vanishing>,
}

/// How large a pool is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Its data.
    pub data: Bytes,
    /// What of that is in use.
    pub used: Bytes,
    /// The length of a block.
    pub block: BlockSize,
    /// How large its base device is, as Docker has written it down; nothing when it has not.
    pub base: Option<Bytes>,
}

/// Looks at a root, by its path or as `docker`, and at the Docker that runs on it.
///
/// # Errors
/// Refused when there is no such root, and with every reason that stands whatever it shall become.
pub fn now(kit: &Kit, root: Option<&str>, options: &preflight::Options) -> Outcome<Now> {
    let any = Options {
        root: root.map(str::to_owned),
        to: To::Overlay2 { offline: false },
        base_size: None,
        inner: None,
        docker: options.clone(),
    };
    let ground = ground(kit, &any)?;
    let root = &ground.root;
    let facts = preflight::look(&root.path, options);
    let containers = match &facts.asked {
        Some(Ok(asked)) => asked.containers.as_slice(),
        _ => &[],
    };
    let judged = preflight::judge(&facts, &options.answered(&facts))?;
    let (pool, origin) = size::origin_of(root);
    gate::no_interrupted(kit, &pool)?;
    let source = source(&ground, &judged, &pool, origin)?;
    let needs_check = source.as_ref().is_ok_and(|source| source.metadata.superblock.needs_check);
    Ok(Now {
        name: root.as_typed(),
        grow: may_grow(&kit.dm, &pool, needs_check),
        size: source.map(|source| measured(&source, &root.path)),
        by_hand: facts.pid.filter(|_| options.stop.is_none() && facts.is_started_by_hand()),
        vanish: if options.without_rm || options.keep_rm { Vec::new() } else { vanishing::still_there(containers) },
        root: root.path.clone(),
    })
}

/// Opens the pool of a root; says why it can become no other pool, where it can be carried to overlay2.
///
/// # Errors
/// Refused where it can become neither, and where Docker is told of another pool than it uses.
fn source(ground: &Ground<'_>, judged: &Judged, pool: &str, origin: Origin) -> Outcome<Result<Source, String>> {
    let (root, info) = (&ground.root, &judged.info);
    let cannot = |why: String| format!("cannot migrate the pool of the Docker root `{}`: {why}", root.path.display());
    if let Err(other) = told::uses_the_driver(root, info, &Failure::refused) {
        // One that was migrated already is on another driver for that.
        files::is_over(ground, judged)?;
        return match files::may_begin(ground, judged) {
            Ok(()) => Ok(Err(other.what)),
            Err(_) => Err(Failure { what: cannot(other.what), ..other }),
        };
    }
    told::is_told_of_it(root, info, pool, &|why: String| Failure::refused(cannot(why)))?;
    let opened = opened(&ground.kit.dm, pool, origin).map_err(|e| format!("its pool cannot be read as a whole: {e:#}"));
    if let Err(why) = &opened {
        files::may_begin(ground, judged).map_err(|failure| failure.fact("pool", why))?;
    }
    Ok(opened)
}

fn opened(dm: &Dm, pool: &str, origin: Origin) -> anyhow::Result<Source> {
    let origin = if sight::live(dm, pool)?.is_some() { Origin::Pool(pool.to_owned()) } else { origin };
    Source::open(dm, &origin)
}

fn measured(source: &Source, root: &Path) -> Size {
    let superblock = &source.metadata.superblock;
    let bytes = |blocks| superblock.block_size.bytes_of(blocks);
    let records = Records::read(&root.join("devicemapper/metadata")).ok();
    Size {
        data: bytes(superblock.data_total),
        used: bytes(superblock.data_used),
        block: superblock.block_size,
        base: records.and_then(|records| records.volumes.get(BASE).map(|base| base.size)),
    }
}
