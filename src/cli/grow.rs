//! `dmpool grow`

use std::path::PathBuf;

use crate::cli::{parse, show};
use crate::error::{Failure, Kind, Outcome};
use crate::ops::find::Found;
use crate::ops::steps::{Kit, Part};
use crate::ops::{Change, State, facts, find, gate, grow};
use crate::report;
use crate::units::SizeArg;

/// Make a pool larger while everything runs
///
/// The loop file is made longer and the pool takes it, in a fraction of a second: nothing is stopped, nothing is copied,
/// nothing is asked. A pool on disks takes what they have, what they have gained (max), and disks that are added. Where an
/// LV is beneath, LVM extends it first; LVM's own thin pools it extends alone. Works on a full pool, and on one that is
/// read-only because its metadata is full. Without a size it says what can be chosen.
#[derive(Debug, clap::Args)]
#[command(override_usage = "dmpool grow [OPTIONS] [POOL] [SIZE]")]
pub(super) struct Args {
    /// The pool, then the size its data shall have (200G), become larger by (+50G, +20%; on LVs +50%FREE, +10%VG), or
    /// max; the pool may be left out when there is one
    #[arg(value_name = "[POOL] SIZE", num_args = 0..=2)]
    pool_and_size: Vec<String>,

    /// The size its metadata shall have; 15.875 GiB is the most
    #[arg(long, value_name = "SIZE", value_parser = parse::size_arg, allow_hyphen_values = true)]
    metadata: Option<SizeArg>,

    /// A disk to be added to a pool on disks; without a size the pool takes all of it
    #[arg(long, value_name = "DEV", conflicts_with = "metadata")]
    add_device: Vec<PathBuf>,

    /// Add disks that are not blank: what is on them is lost. Only what is overwritten at once is kept in
    /// /var/lib/dmpool/saved: the first MiB and 4 KiB of each, and signatures elsewhere
    #[arg(long, requires = "add_device")]
    wipe: bool,

    /// Grow although the file system under the loop file fills up first: the pool then promises space that must be made
    /// there before it is needed. Takes no value
    #[arg(long)]
    overcommit: bool,

    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

/// What was typed, understood.
struct Asked {
    pool: Option<String>,
    data: Option<SizeArg>,
}

impl Args {
    pub(super) fn run(self, state: State) -> Outcome<()> {
        let asked = self.asked()?;
        let kit = gate::open(state)?;
        let found = match &asked.pool {
            Some(pool) => find::find(&kit.dm, &kit.state, pool)?,
            None => find::unnamed(&kit.dm, &kit.state, "grow")?,
        };
        let all = (!self.add_device.is_empty()).then_some(SizeArg::Max);
        let parts = [(Part::Metadata, self.metadata), (Part::Data, asked.data.or(all))];
        let wanted: Vec<_> = parts.into_iter().filter_map(|(part, size)| Some((part, size?))).collect();
        if wanted.is_empty() {
            return choices(&kit, &found);
        }
        let change = parse::change(self.dry_run);
        let takes_group = asked.data.is_some() || self.add_device.is_empty();
        let options = |part, size, metadata| grow::Options {
            takes_group,
            metadata,
            overcommit: self.overcommit,
            add: self.add_device.clone(),
            wipe: self.wipe,
            ..grow::Options::new(part, size)
        };
        if let [(_, _), (second, size)] = wanted.as_slice() {
            // What refuses the second is said before the first is done.
            grow::grow(&kit, &found, &options(*second, *size, None), Change::Describe)?;
        }
        let mut metadata = None;
        for (at, (part, size)) in wanted.into_iter().enumerate() {
            let done = grow::grow(&kit, &found, &options(part, size, metadata), change).map_err(|failure| {
                match (at, change) {
                    (1, Change::Make) => after_the_first(failure),
                    _ => failure,
                }
            })?;
            metadata = done.plan.size_of_metadata();
            let did = done.plan.what.strip_prefix("grow ").unwrap_or(&done.plan.what);
            show::done(&done, change, &format!("grew {did}"))?;
        }
        Ok(())
    }

    /// Tells pool and size apart: two words are both; one word is the size when it reads as one, else the pool.
    fn asked(&self) -> Outcome<Asked> {
        let size =
            |text: &str| SizeArg::parse(text).map_err(|e| Failure::new(Kind::Usage, format!("cannot grow: {e}")));
        match self.pool_and_size.as_slice() {
            [] => Ok(Asked { pool: None, data: None }),
            [one] => match SizeArg::parse(one) {
                Ok(data) => Ok(Asked { pool: None, data: Some(data) }),
                Err(e)
                    if one.starts_with(['+', '-'])
                        || one.starts_with(|c: char| c.is_ascii_digit()) && self.metadata.is_none() =>
                {
                    Err(Failure::new(Kind::Usage, format!("cannot grow: {e}")))
                }
                Err(_) => Ok(Asked { pool: Some(one.clone()), data: None }),
            },
            [pool, text, ..] => Ok(Asked { pool: Some(pool.clone()), data: Some(size(text)?) }),
        }
    }
}

/// A failure of the second part: the first has grown, so that nothing about it says any more that all is as it was.
fn after_the_first(mut failure: Failure) -> Failure {
    if matches!(failure.kind, Kind::Refused | Kind::Failed) {
        failure.kind = Kind::Damaged;
    }
    failure.facts.retain(|fact| fact.label != "state");
    failure.fact("state", "the metadata has grown; the data is as it was")
}

/// Says what can be chosen.
fn choices(kit: &Kit, found: &Found) -> Outcome<()> {
    let report = facts::look(kit, found)?;
    let room = |part| grow::room_of(kit, found, &report, part);
    show::value(&report::choices::text(&report, room(Part::Data), room(Part::Metadata)))
}
