//! `dmpool thin`

use clap::{Subcommand, ValueEnum};

use crate::cli::{parse, show};
use crate::error::{Failure, Kind, Outcome};
use crate::ops::thin::{adopt, create, grow, list, remove, snapshot};
use crate::ops::{Change, State, find, gate, registry};
use crate::pool::{VolumeId, VolumeName};
use crate::report::volumes;
use crate::units::{Bytes, SizeArg};

/// Make, snapshot, grow, remove and list the thin volumes of pools that dmpool made
///
/// The device of a volume is /dev/mapper/POOL-NAME. Names, ids and sizes are in /etc/dmpool/volumes, and agree with the
/// pool whenever the machine dies. On a pool that Docker or containerd uses it refuses: its volumes are theirs.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Create(CreateArgs),
    Snapshot(SnapshotArgs),
    Grow(GrowArgs),
    #[command(visible_alias = "rm")]
    Remove(RemoveArgs),
    Adopt(AdoptArgs),
    #[command(visible_alias = "ls")]
    List(ListArgs),
}

/// Make an empty volume
///
/// It takes space of the pool as it is written. All volumes together may promise more than the pool has; that is said.
#[derive(Debug, clap::Args)]
struct CreateArgs {
    /// The pool
    pool: String,

    /// The volume's name: letters, digits and _ . -
    #[arg(value_parser = parse::new_volume_name)]
    name: VolumeName,

    /// How long it is (10G); rounded up to whole blocks of the pool
    #[arg(long, value_name = "SIZE", value_parser = parse::size, allow_hyphen_values = true)]
    size: Bytes,

    /// Do not make its device now; `dmpool activate POOL` does
    #[arg(long)]
    no_activate: bool,

    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

/// Make a volume that begins as another one is now
///
/// Both can be written and go their own ways from then on. An active origin is suspended for a moment: its file system
/// is written out and held still, so that the snapshot is as if it had been unmounted; then it goes on.
#[derive(Debug, clap::Args)]
struct SnapshotArgs {
    /// The pool
    pool: String,

    /// The volume that it is of
    #[arg(value_parser = parse::volume_name)]
    origin: VolumeName,

    /// The snapshot's name
    #[arg(value_parser = parse::new_volume_name)]
    name: VolumeName,

    /// Do not make its device now; `dmpool activate POOL` does
    #[arg(long)]
    no_activate: bool,

    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

/// Make a volume longer while it is in use, with the ext4, ext3 or XFS that is mounted on it
///
/// A file system that is not mounted, or another one, stays as it is, and that is said. A volume cannot shrink.
#[derive(Debug, clap::Args)]
struct GrowArgs {
    /// The pool
    pool: String,

    /// The volume
    #[arg(value_parser = parse::volume_name)]
    name: VolumeName,

    /// The size it shall have (20G), or become larger by (+5G)
    #[arg(value_parser = parse::size_arg, allow_hyphen_values = true)]
    size: SizeArg,

    /// Leave the file system on it as it is
    #[arg(long)]
    no_file_system: bool,

    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

/// Remove a volume, with all that is in it
///
/// Only when nothing has it open: otherwise it says what has. Its snapshots stay, they have what is in them. It asks
/// first; --yes answers.
#[derive(Debug, clap::Args)]
struct RemoveArgs {
    /// The pool
    pool: String,

    /// The volume
    #[arg(value_parser = parse::volume_name)]
    name: VolumeName,

    /// Do not ask
    #[arg(long, short = 'y')]
    yes: bool,

    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

/// Take volumes that the pool has and dmpool has not written down into its record
///
/// After the record was lost, or the pool came from another machine: nothing in the pool changes. Their names are thin-ID.
/// Nothing knows how long a volume is that has no device: the end of the last block that it maps is taken, and said.
#[derive(Debug, clap::Args)]
struct AdoptArgs {
    /// The pool
    pool: String,

    /// Only the volume with this id; without, all
    #[arg(value_parser = parse::volume_id)]
    id: Option<VolumeId>,

    /// What it shall be called
    #[arg(long, requires = "id", value_parser = parse::new_volume_name)]
    name: Option<VolumeName>,

    /// How long it is (10G); rounded up to whole blocks of the pool
    #[arg(long, value_name = "SIZE", requires = "id", value_parser = parse::size, allow_hyphen_values = true)]
    size: Option<Bytes>,

    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

/// List the volumes of pools that dmpool made
///
/// What the pool has and the record has not, and the reverse, is named.
#[derive(Debug, clap::Args)]
struct ListArgs {
    /// The pool; without, all that are registered
    pool: Option<String>,

    /// How they are printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// One a line
    Text,
    /// For programs
    Json,
}

impl Args {
    pub(super) fn run(self, state: State) -> Outcome<()> {
        match self.command {
            Command::Create(args) => args.run(state),
            Command::Snapshot(args) => args.run(state),
            Command::Grow(args) => args.run(state),
            Command::Remove(args) => args.run(state),
            Command::Adopt(args) => args.run(state),
            Command::List(args) => args.run(state),
        }
    }
}

impl CreateArgs {
    fn run(self, state: State) -> Outcome<()> {
        let kit = gate::open(state)?;
        let found = find::find(&kit.dm, &kit.state, &self.pool)?;
        let change = parse::change(self.dry_run);
        let options = create::Options { name: self.name.clone(), size: self.size, activate: !self.no_activate };
        let done = create::create(&kit, &found, &options, change)?;
        show::done(&done, change, &made(&found.name, &self.name, self.no_activate))
    }
}

impl SnapshotArgs {
    fn run(self, state: State) -> Outcome<()> {
        let kit = gate::open(state)?;
        let found = find::find(&kit.dm, &kit.state, &self.pool)?;
        let change = parse::change(self.dry_run);
        let options = snapshot::Options { origin: self.origin, name: self.name.clone(), activate: !self.no_activate };
        let done = snapshot::snapshot(&kit, &found, &options, change)?;
        show::done(&done, change, &made(&found.name, &self.name, self.no_activate))
    }
}

fn made(pool: &str, name: &VolumeName, is_inactive: bool) -> String {
    match is_inactive {
        true => format!("made volume `{name}` in pool `{pool}`; it is not active"),
        false => format!("made volume `{name}` in pool `{pool}`: /dev/mapper/{pool}-{name}"),
    }
}

impl GrowArgs {
    fn run(self, state: State) -> Outcome<()> {
        let kit = gate::open(state)?;
        let found = find::find(&kit.dm, &kit.state, &self.pool)?;
        let change = parse::change(self.dry_run);
        let options = grow::Options { name: self.name, size: self.size, file_system: !self.no_file_system };
        let done = grow::grow(&kit, &found, &options, change)?;
        let did = done.plan.what.strip_prefix("grow ").unwrap_or(&done.plan.what);
        show::done(&done, change, &format!("grew {did}"))
    }
}

impl RemoveArgs {
    fn run(self, state: State) -> Outcome<()> {
        let kit = gate::open(state)?;
        let found = find::find(&kit.dm, &kit.state, &self.pool)?;
        let change = parse::change(self.dry_run);
        let what = format!("remove volume `{}` of pool `{}`", self.name, found.name);
        if change == Change::Make {
            // Every refusal comes before the question.
            remove::remove(&kit, &found, &self.name, Change::Describe)?;
            show::confirm(&format!("{what}? What is in it is deleted."), &what, self.yes)?;
        }
        let done = remove::remove(&kit, &found, &self.name, change)?;
        show::done(&done, change, &format!("removed volume `{}` of pool `{}`", self.name, found.name))
    }
}

impl AdoptArgs {
    fn run(self, state: State) -> Outcome<()> {
        let kit = gate::open(state)?;
        let found = find::find(&kit.dm, &kit.state, &self.pool)?;
        let change = parse::change(self.dry_run);
        let only = self.id.map(|id| adopt::Only { id, name: self.name, size: self.size });
        let done = adopt::adopt(&kit, &found, &adopt::Options { only }, change)?;
        show::done(
            &done,
            change,
            &format!("wrote the volumes of pool `{0}` down; dmpool activate {0}    brings them up", found.name),
        )
    }
}

impl ListArgs {
    fn run(self, state: State) -> Outcome<()> {
        let kit = gate::open(state)?;
        let (mut listed, mut lost) = (Vec::new(), Vec::new());
        match &self.pool {
            Some(pool) => listed.push(list::list(&kit, pool)?),
            None => {
                for name in registry::names(&kit.state)? {
                    match list::list(&kit, name.as_str()) {
                        Ok(pool) => listed.push(pool),
                        Err(failure) => lost.push(Failure { kind: Kind::Damaged, ..failure }),
                    }
                }
            }
        }
        show::value(&match self.format {
            Format::Text => volumes::text(&listed),
            Format::Json => volumes::json(&listed),
        })?;
        show::lost(lost)
    }
}
