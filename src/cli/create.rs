//! `dmpool create`

use std::path::PathBuf;

use clap::ValueEnum;

use crate::cli::{parse, show};
use crate::error::Outcome;
use crate::ops::{State, create, gate};
use crate::pool::{PoolName, Spec, sizing};
use crate::units::{BlockSize, Bytes, DataBlocks};

/// Make a pool on two sparse loop files
///
/// Without options it has Docker's own sizes: 100 GiB of data, 2 GiB of metadata, blocks of 64 KiB. The files are
/// DIR/POOL/data and DIR/POOL/metadata, mode 0600 in a directory of mode 0700; nothing is ever written over.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The name it shall have: letters, digits and _ . -
    #[arg(value_parser = parse::pool_name)]
    pool: PoolName,

    /// How large its data shall be; 100G means 100 x 2^30 bytes
    #[arg(long, value_name = "SIZE", value_parser = parse::size, allow_hyphen_values = true, default_value = "100G")]
    data_size: Bytes,

    /// How large its metadata shall be [default: 2G, or more where the data needs it]
    #[arg(long, value_name = "SIZE", value_parser = parse::size, allow_hyphen_values = true)]
    metadata_size: Option<Bytes>,

    /// The directory in which its own is made; it must be there [default: /var/lib/dmpool/pools, made when missing]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,

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

    /// Give the files all their blocks now instead of making them sparse
    #[arg(long)]
    preallocate: bool,

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

impl Args {
    pub(super) fn run(self, state: State) -> Outcome<()> {
        let kit = gate::open(state)?;
        let metadata = || sizing::default_metadata(self.data_size, self.block_size);
        let spec = Spec {
            name: self.pool,
            data_size: self.data_size,
            metadata_size: self.metadata_size.unwrap_or_else(metadata),
            block_size: self.block_size,
            low_water: self.low_water,
            zero: !self.no_zero,
            error_when_full: self.when_full == WhenFull::Error,
            discard: !self.no_discard,
            directory: self.dir.unwrap_or_else(|| kit.state.pools.clone()),
            preallocate: self.preallocate,
        };
        let sentence = format!(
            "made pool `{}`: {} of data, {} of metadata, at /dev/mapper/{}",
            spec.name,
            spec.data_size.human(),
            spec.metadata_size.human(),
            spec.name
        );
        let change = parse::change(self.dry_run);
        let done = create::create(&kit, &create::Options { spec, ensure: self.ensure }, change)?;
        show::done(&done, change, &sentence);
        Ok(())
    }
}
