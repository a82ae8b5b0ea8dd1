//! `dmpool grow`

use crate::cli::{parse, show};
use crate::error::{Failure, Kind, Outcome};
use crate::ops::find::Found;
use crate::ops::steps::{Kit, Part};
use crate::ops::{State, facts, find, gate, grow};
use crate::report;
use crate::units::SizeArg;

/// Make a pool larger while everything runs
///
/// The loop file is made longer and the pool takes it, in a fraction of a second: nothing is stopped, nothing is copied,
/// nothing is asked. Works on a full pool, and on one that is read-only because its metadata is full. Without a size it
/// says what can be chosen.
#[derive(Debug, clap::Args)]
#[command(override_usage = "dmpool grow [OPTIONS] [POOL] [SIZE]")]
pub(super) struct Args {
    /// The pool, then the size its data shall have (200G), become larger by (+50G, +20%), or max; the pool may be left
    /// out when there is one
    #[arg(value_name = "[POOL] SIZE", num_args = 0..=2)]
    pool_and_size: Vec<String>,

    /// The size its metadata shall have; 15.875 GiB is the most
    #[arg(long, value_name = "SIZE", value_parser = parse::size_arg, allow_hyphen_values = true)]
    metadata: Option<SizeArg>,

    /// Grow although the file system under the loop file fills up before the pool does
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
        let found = find::find(&kit.dm, &kit.state, asked.pool.as_deref())?;
        let parts = [(Part::Metadata, self.metadata), (Part::Data, asked.data)];
        let wanted: Vec<_> = parts.into_iter().filter_map(|(part, size)| Some((part, size?))).collect();
        if wanted.is_empty() {
            return choices(&kit, &found);
        }
        let change = parse::change(self.dry_run);
        for (part, size) in wanted {
            let options = grow::Options { part, size, overcommit: self.overcommit };
            let done = grow::grow(&kit, &found, &options, change)?;
            let did = done.plan.what.strip_prefix("grow ").unwrap_or(&done.plan.what);
            show::done(&done, change, &format!("grew {did}"));
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

/// Says what can be chosen.
fn choices(kit: &Kit, found: &Found) -> Outcome<()> {
    let report = facts::look(&kit.dm, &kit.state, found)?;
    let room = |part| grow::room(&report, part);
    show::value(&report::choices::text(&report, room(Part::Data), room(Part::Metadata)));
    Ok(())
}
