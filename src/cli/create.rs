//! `dmpool create`

use std::path::{Path, PathBuf};

use clap::ValueEnum;

use crate::cli::{parse, show};
use crate::error::{Failure, Kind, Outcome};
use crate::kernel::fs;
use crate::ops::handover::Engine;
use crate::ops::plan::Plan;
use crate::ops::steps::{Part, Step};
use crate::ops::{State, create, gate};
use crate::pool::{Place, PoolName, Spec};
use crate::units::{BlockSize, Bytes, DataBlocks, NewSize};

/// Make a pool on two sparse loop files, on disks, or on LVs of a volume group
///
/// Without options it has Docker's own sizes: 100 GiB of data, 2 GiB of metadata, blocks of 64 KiB. The files are
/// DIR/POOL/data and DIR/POOL/metadata, mode 0600 in a directory of mode 0700; nothing is ever written over. With
/// --data-device it lies on disks, partitions, LVs or multipath devices instead, which get a label that they are found by
/// under whatever name; one that somebody has, or that has something on it, is refused. With --vg LVM makes two LVs for it,
/// POOL_data and POOL_meta.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The name it shall have: letters, digits and _ . -
    #[arg(value_parser = parse::pool_name, required_unless_present = "file")]
    pool: Option<PoolName>,

    /// Take everything from this TOML file instead; dmpool show --toml POOL prints one
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = [
            "pool", "data_size", "metadata_size", "dir", "data_device", "metadata_device", "stripe", "vg", "block_size",
            "low_water", "zero", "no_zero", "when_full", "no_discard", "preallocate", "ephemeral",
        ]
    )]
    file: Option<PathBuf>,

    /// How large its data shall be; 100G means 100 x 2^30 bytes; with --vg also 50%FREE or 10%VG [default: 100G, or all
    /// that the devices or the group have]
    #[arg(long, value_name = "SIZE", value_parser = parse::new_size, allow_hyphen_values = true)]
    data_size: Option<NewSize>,

    /// How large its metadata shall be [default: 2G, or what the kernel's rule wants and as much again]
    #[arg(long, value_name = "SIZE", value_parser = parse::size, allow_hyphen_values = true)]
    metadata_size: Option<Bytes>,

    /// The directory in which its own is made; it must be there [default: /var/lib/dmpool/pools, made when missing]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,

    /// A disk for its data; several one after the other. The first carries the metadata too, without --metadata-device
    #[arg(long, value_name = "DEV", conflicts_with_all = ["dir", "preallocate"])]
    data_device: Vec<PathBuf>,

    /// A disk for its metadata
    #[arg(long, value_name = "DEV", requires = "data_device")]
    metadata_device: Option<PathBuf>,

    /// Spread the data over the disks instead of filling one after the other: in pieces of 64K, or of SIZE, which needs
    /// the `=` (--stripe=256K)
    #[arg(
        long,
        value_name = "SIZE",
        value_parser = parse::size,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "64K",
        requires = "data_device"
    )]
    stripe: Option<Bytes>,

    /// The volume group in which LVM makes its LVs
    #[arg(long, value_name = "VG", conflicts_with_all = ["dir", "preallocate", "data_device", "wipe"])]
    vg: Option<String>,

    /// Take disks that are not blank: what is on them is lost. Only what is overwritten at once is kept in
    /// /var/lib/dmpool/saved: the first MiB and 4 KiB of each, and signatures elsewhere. Not for disks in use, with
    /// partitions, or with the label of another pool
    #[arg(long)]
    wipe: bool,

    /// The length of a block: 64K to 1G, a multiple of 64K
    #[arg(long, value_name = "SIZE", value_parser = parse::block_size, allow_hyphen_values = true, default_value = "64K")]
    block_size: BlockSize,

    /// With this many blocks left the kernel sends an event
    #[arg(long, value_name = "BLOCKS", value_parser = parse::blocks, allow_hyphen_values = true, default_value = "32768")]
    low_water: DataBlocks,

    /// Zero each block before a volume sees it; this is the default
    #[arg(long, overrides_with = "no_zero")]
    zero: bool,

    /// Do not zero blocks: faster, but a new volume can read what another one left
    #[arg(long)]
    no_zero: bool,

    /// What a write to the full pool meets
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = WhenFull::Queue)]
    when_full: WhenFull,

    /// Do not give back blocks that volumes discard
    #[arg(long)]
    no_discard: bool,

    /// Make it anew, empty, when its disks come back blank, as a cloud's instance store does; only blank disks are taken
    #[arg(long, requires = "data_device")]
    ephemeral: bool,

    /// Give the files all their blocks now instead of making them sparse
    #[arg(long)]
    preallocate: bool,

    /// Tell this engine to use it: Docker (blocks are then not zeroed, unless --zero) or containerd, in its configuration
    #[arg(long = "for", value_enum, value_name = "ENGINE")]
    engine: Option<For>,

    /// Have the registered pools brought up at boot, before Docker and containerd; with --for that is done anyhow
    #[arg(long)]
    at_boot: bool,

    /// When the same pool is there already, that is success; when it is there otherwise, refuse and say the difference
    #[arg(long)]
    ensure: bool,

    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

/// What a write to a full pool meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum WhenFull {
    /// It waits, up to 60 seconds
    Queue,
    /// It fails at once
    Error,
}

/// Who shall use the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum For {
    /// Docker, by its devicemapper driver
    Docker,
    /// containerd, by its devmapper snapshotter
    Containerd,
}

impl From<For> for Engine {
    fn from(engine: For) -> Self {
        match engine {
            For::Docker => Self::Docker,
            For::Containerd => Self::Containerd,
        }
    }
}

impl Args {
    pub(super) fn run(self, state: State) -> Outcome<()> {
        let kit = gate::open(state)?;
        let change = parse::change(self.dry_run);
        let engine = self.engine.map(Engine::from);
        let (ensure, wipe, at_boot) = (self.ensure, self.wipe, self.at_boot);
        let options = create::Options { ensure, wipe, engine, at_boot, spec: self.spec(&kit.state)? };
        if wipe && !matches!(options.spec.on, Place::Devices { .. }) {
            let why = format!("cannot create pool `{}`: --wipe is about disks, and none is named", options.spec.name);
            return Err(Failure::new(Kind::Usage, why).next("name them with --data-device DEV, or leave out --wipe"));
        }
        let name = options.spec.name.clone();
        let done = create::create(&kit, &options, change)?;
        let is_new = done.plan.steps.iter().any(|step| matches!(step, Step::MakePool(_)));
        let sentence = match (is_new, engine) {
            (false, None) => format!("pool `{name}` is brought up at boot"),
            (false, Some(engine)) => format!("{} is told of pool `{name}`, at /dev/mapper/{name}", engine.name()),
            (true, _) => format!("made pool `{name}`: {}, at /dev/mapper/{name}", sizes(&done.plan)),
        };
        show::done(&done, change, &sentence)
    }

    fn spec(self, state: &State) -> Outcome<Spec> {
        if let Some(path) = &self.file {
            return from_file(path, state);
        }
        let (data_size, share) = match self.data_size {
            Some(NewSize::Bytes(bytes)) => (Some(bytes), None),
            Some(NewSize::Share(share)) => (None, Some(share)),
            None => (None, None),
        };
        if let Some(share) = share.filter(|_| self.vg.is_none()) {
            return Err(Failure::new(
                Kind::Usage,
                format!("cannot create a pool: {share} is a share of a volume group"),
            )
            .next("name the group with --vg, or a size such as 100G"));
        }
        let on = if let Some(group) = self.vg {
            Place::Volumes { group, share }
        } else if self.data_device.is_empty() {
            let directory = self.dir.unwrap_or_else(|| state.pools.clone());
            Place::Files { directory, preallocate: self.preallocate }
        } else {
            Place::Devices { data: self.data_device, metadata: self.metadata_device, stripe: self.stripe }
        };
        Ok(Spec {
            name: self.pool.ok_or_else(|| Failure::new(Kind::Usage, "cannot create a pool: it has no name"))?,
            data_size,
            metadata_size: self.metadata_size,
            block_size: self.block_size,
            low_water: self.low_water,
            zero: if self.engine == Some(For::Docker) { self.zero } else { !self.no_zero },
            error_when_full: self.when_full == WhenFull::Error,
            discard: !self.no_discard,
            ephemeral: self.ephemeral,
            on,
        })
    }
}

/// More than any such file has.
const LONGEST: Bytes = Bytes::new(64 << 10);

fn from_file(path: &Path, state: &State) -> Outcome<Spec> {
    let cannot = |why: String| {
        Failure::new(Kind::Usage, format!("cannot create a pool from `{}`: {why}", path.display()))
            .next("dmpool show --toml POOL    # prints the file of a pool that is there")
    };
    let bytes = fs::read_limited(path, LONGEST).map_err(|e| cannot("it cannot be read".to_owned()).because(e))?;
    let bytes = bytes.ok_or_else(|| cannot("there is no such file".to_owned()))?;
    let text = String::from_utf8(bytes).map_err(|_| cannot("it is not text".to_owned()))?;
    Spec::parse(&text, &state.pools).map_err(cannot)
}

/// Says how large the pool is that a plan makes.
fn sizes(plan: &Plan) -> String {
    let length = |wanted: Part| {
        let lengths = plan.steps.iter().filter_map(|step| match step {
            Step::MapFile(map) if map.name.ends_with("_tdata") == (wanted == Part::Data) => Some(map.length),
            Step::MapDevices(map) if map.part == wanted => Some(map.length),
            _ => None,
        });
        lengths.map(|length| length.bytes().human()).next().unwrap_or_default()
    };
    format!("{} of data, {} of metadata", length(Part::Data), length(Part::Metadata))
}
