//! What a pool is made of: a data and a metadata file, or device, open for reading.

use std::fs::File;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::{down, live};
use crate::engine::docker_root::{DockerRoot, LeadsTo, LoopLink};
use crate::engine::options::DIRECT_LVM_POOL;
use crate::engine::small_file::Directory;
use crate::error::{Failure, Outcome};
use crate::kernel::dm::Dm;
use crate::kernel::{ask, block};
use crate::metadata::BLOCK;
use crate::ops::contents::source::{Place, Reach};
use crate::ops::contents::tree::shown;
use crate::ops::{lvm, registry};
use crate::pool::{DevNo, PoolName};
use crate::process::{ProgramError, quote};

/// Both.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) data: Part,
    pub(super) metadata: Part,
    /// How they were found, where the root does not tell.
    pub(super) note: Option<String>,
}

/// A file, or a device.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) path: PathBuf,
    pub(super) file: File,
    /// Its number, when it is a device.
    pub(super) devno: Option<DevNo>,
}

#[derive(Clone, Copy)]
enum Which {
    Data,
    Metadata,
}

impl Which {
    const fn name(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Metadata => "metadata",
        }
    }
}

impl Parts {
    /// Opens what was named with `--data` and `--metadata`; else the devices of a pool that is there and gives nothing, those
    /// that Docker's options name, or the files in the root.
    pub(super) fn of(
        place: &Place<'_>,
        root: &DockerRoot,
        dm: Option<&Dm>,
        live: Option<&live::Pool>,
    ) -> Outcome<Self> {
        if let Some(pool) = told_of(root).filter(|_| live.is_none() && root.is_this_machines())
            && place.reach.data.is_none()
            && place.reach.metadata.is_none()
        {
            return match down::parts(place, dm, pool) {
                Ok(Some(parts)) => Ok(parts),
                Ok(None) => Err(somebody_elses(place, root, pool)),
                Err(why) => Err(why.downcast().unwrap_or_else(|why| somebody_elses(place, root, pool).because(why))),
            };
        }
        let part = |which: Which| -> Outcome<Part> {
            let Reach { data, metadata, .. } = place.reach;
            let named = match which {
                Which::Data => data,
                Which::Metadata => metadata,
            };
            let opened = match named {
                Some(path) => at(path),
                None => of_root(place, root, live, which)?,
            };
            opened.map_err(|e| unread(place, e))
        };
        Ok(Self { data: part(Which::Data)?, metadata: part(Which::Metadata)?, note: None })
    }

    /// Refuses what would keep its reader waiting for ever.
    pub(super) fn answer(&self, place: &Place<'_>) -> Outcome<()> {
        for part in [&self.data, &self.metadata] {
            let hangs = |why: String| {
                place
                    .refused(format!("{} does not answer", part.path.display()))
                    .fact("found", why)
                    .fact("state", "nothing was touched")
            };
            if let Some(name) = part.suspended() {
                return Err(hangs(suspended_device(&name)).next(format!(
                    "dmsetup resume {}    # once it is known who has suspended it, and is done",
                    quote(&name)
                )));
            }
            let first = || block::read_direct(&part.file, 0, BLOCK).is_ok();
            ask::within_limit(first).map_err(|why| hangs(why).next("dmesg | tail    # may tell what hangs"))?;
        }
        Ok(())
    }
}

impl Part {
    /// Returns which device under it is suspended, or itself: who reads it waits for the resume.
    pub(super) fn suspended(&self) -> Option<String> {
        self.devno.and_then(suspended)
    }
}

/// Returns which device is suspended, of those under it and itself.
pub(super) fn suspended(device: DevNo) -> Option<String> {
    if block::attribute(device, "dm/suspended").as_deref() == Some("1") {
        return block::attribute(device, "dm/name");
    }
    block::slaves(device).unwrap_or_default().into_iter().find_map(suspended)
}

/// What is said of one.
pub(super) fn suspended_device(name: &str) -> String {
    format!("the device `{name}` is suspended: who reads it waits until it is resumed")
}

fn unread(place: &Place<'_>, why: anyhow::Error) -> Failure {
    place
        .refused("what its pool is made of cannot be read")
        .fact("state", "nothing was touched")
        .because(why)
        .next("put data and metadata back into the root, in devicemapper/devicemapper, or name them with --data and --metadata")
}

/// Returns the pool that is not in the root.
fn told_of(root: &DockerRoot) -> Option<&str> {
    let named = root.options.known().and_then(|options| options.named_pool());
    named.or(root.direct_lvm.is_some().then_some(DIRECT_LVM_POOL))
}

fn of_root(place: &Place<'_>, root: &DockerRoot, live: Option<&live::Pool>, which: Which) -> Outcome<Result<Part>> {
    let options = root.options.known();
    let configured = options.and_then(|options| match which {
        Which::Data => options.data_device.as_ref(),
        Which::Metadata => options.metadata_device.as_ref(),
    });
    match (configured, told_of(root), live) {
        (_, Some(_), Some(live)) => Ok(live_device(live, which)),
        (_, Some(pool), None) => Err(somebody_elses(place, root, pool)),
        (Some(path), None, live) => Ok(device(Path::new(path), live)),
        (None, None, Some(live)) if root.data_file.is_none() => Ok(live_device(live, which)),
        (None, None, live) => {
            let link = match which {
                Which::Data => root.data_link.as_ref(),
                Which::Metadata => root.metadata_link.as_ref(),
            };
            match link {
                Some(LoopLink { leads_to: LeadsTo::Device(_), target }) if !root.is_this_machines() => Err(place
                    .refused(format!("its {} is a link to a disk, {}", which.name(), shown(target)))
                    .fact("found", "no Docker of this machine runs on the root: the disk may be another machine's")
                    .fact("state", "nothing was touched")
                    .next("name its devices, or copies of them, with --data and --metadata")),
                _ => Ok(in_root(root, which.name(), link, live)),
            }
        }
    }
}

const NOBODYS: &str = "neither dmpool's registry nor LVM on this machine has it";

/// Says how a pool comes up that is neither active nor this root's own.
fn somebody_elses(place: &Place<'_>, root: &DockerRoot, pool: &str) -> Failure {
    if !root.is_this_machines() {
        return place
            .refused(format!("its pool `{pool}` is not in the root"))
            .fact("found", "no Docker of this machine runs on the root: a pool of that name here may be another")
            .fact("state", "nothing was touched")
            .next("name its devices, or copies of them, with --data and --metadata");
    }
    let refused = place
        .refused(format!("its pool `{pool}` is not active, and is not in the root"))
        .fact("state", "nothing was touched");
    let registered = |name: &PoolName| registry::look(&place.reach.state, name).is_ok_and(|entry| entry.is_some());
    if PoolName::new(pool).is_ok_and(|name| registered(&name)) {
        return refused.fact("found", "it is dmpool's own").next(format!("dmpool activate {}", quote(pool)));
    }
    let by_hand = "name its devices, or copies of them, with --data and --metadata";
    match lvm::thin_pool(pool) {
        Ok(Some(volume)) => {
            let word = quote(&volume.of.word());
            refused.fact("found", format!("it is LVM's {}", volume.of.word())).next(format!(
                "lvchange -ay {word}    # or, so that nothing writes to it: lvchange -ay -y {word}_tdata {word}_tmeta, and \
                 then --data /dev/{word}_tdata --metadata /dev/{word}_tmeta"
            ))
        }
        Ok(None) => refused.fact("found", NOBODYS).next(by_hand),
        Err(e) if e.downcast_ref::<ProgramError>().is_some_and(|e| e.missing) => {
            refused.fact("found", format!("{NOBODYS}: LVM's programs are not installed")).next(by_hand)
        }
        Err(e) => refused
            .fact("found", format!("dmpool's registry does not have it, and whether LVM does is not known: {e:#}"))
            .next(by_hand),
    }
}

/// Opens what the operator has named.
pub(super) fn at(path: &Path) -> Result<Part> {
    let context = || format!("opening {}", path.display());
    let path = path.canonicalize().with_context(context)?;
    if path.metadata().with_context(context)?.file_type().is_block_device() {
        return device(&path, None);
    }
    let (parent, name) = (path.parent(), path.file_name().and_then(|name| name.to_str()));
    let (Some(parent), Some(name)) = (parent, name) else { bail!("opening {}: it is no file", path.display()) };
    let file = Directory::open(parent).and_then(|folder| folder.open_file(name)).with_context(context)?;
    Ok(Part { path, file, devno: None })
}

fn in_root(root: &DockerRoot, name: &str, link: Option<&LoopLink>, live: Option<&live::Pool>) -> Result<Part> {
    let path = root.path.join("devicemapper/devicemapper").join(name);
    if let Some(LoopLink { leads_to: LeadsTo::Device(_), .. }) = link {
        return device(&path, live);
    }
    let folder = ["devicemapper", "devicemapper"]
        .iter()
        .try_fold(Directory::open(&root.path), |folder, name| folder.map(|folder| folder.enter(name)));
    let file = folder.and_then(|folder| folder).and_then(|folder| folder.open_file(name));
    let file = file.with_context(|| format!("opening {}", path.display()))?;
    Ok(Part { path, file, devno: None })
}

fn live_device(live: &live::Pool, which: Which) -> Result<Part> {
    let [data, metadata] = live.devices.with_context(|| format!("reading the table of `{}`", live.name))?;
    let devno = match which {
        Which::Data => data,
        Which::Metadata => metadata,
    };
    let path = block::name(devno).map_or_else(|| PathBuf::from(devno.to_string()), |name| Path::new("/dev").join(name));
    Ok(Part { path, file: block::open_direct(devno)?, devno: Some(devno) })
}

/// One that the pool itself has claimed is read all the same, and device-mapper puts another pool on it.
fn device(path: &Path, live: Option<&live::Pool>) -> Result<Part> {
    let devno = block::devno_of(path)?;
    let is_the_pools = live.and_then(|live| live.devices).is_some_and(|devices| devices.contains(&devno));
    if !is_the_pools && block::is_claimed(devno)? {
        bail!("{} is in use by somebody else", path.display());
    }
    Ok(Part { path: path.to_owned(), file: block::open_direct(devno)?, devno: Some(devno) })
}
