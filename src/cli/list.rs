//! `dmpool list`

use std::path::{Path, PathBuf};

use clap::ValueEnum;

use crate::cli::{show, status as status_cli};
use crate::error::{Failure, Kind, Outcome};
use crate::ops::{State, gate, named_file, status};
use crate::report::{failure, json, merged, table};
use crate::units::Bytes;

/// More than the pools of any machine need.
const MAX_FILE: Bytes = Bytes::new(256 << 20);

/// List every thin pool of this machine, or those of many
///
/// Those that the kernel has, those registered and not active, and those of Docker roots: who made each, who uses it,
/// how full it is, when it will be full, and a verdict. What cannot be read is named, the rest is listed, and the exit
/// code is 5.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// How they are printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,

    /// Instead of this machine's pools, those that `list --format json` has printed on others; `-` is standard input
    ///
    /// Sorted by when they will be full. Needs no kernel and no root.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    from: Vec<PathBuf>,
}

/// How pools are printed.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// One a line
    Text,
    /// For programs: what `status --format json` has, for each
    Json,
}

impl Args {
    pub(super) fn run(self, state: State) -> Outcome<()> {
        if !self.from.is_empty() {
            return merge(&self.from, self.format);
        }
        let kit = gate::open(state)?;
        let seen = status::all(&kit)?;
        let views: Vec<_> = seen.found.iter().map(status_cli::view).collect();
        show::value(&match self.format {
            Format::Text => table::text(&views),
            Format::Json => json::list(&views, &status::origin()?),
        })?;
        show::lost(seen.broken)
    }
}

/// Prints the pools of all files that can be read, and names those that cannot.
fn merge(files: &[PathBuf], format: Format) -> Outcome<()> {
    let mut rows = Vec::new();
    let mut broken = 0;
    for file in files {
        let parse = |bytes: Vec<u8>| merged::parse(&bytes).map_err(|why| unusable(file, &why));
        match read(file).and_then(parse) {
            Ok(found) => rows.extend(found),
            Err(failure) => {
                broken += 1;
                show::error(&failure::text(&failure));
            }
        }
    }
    if rows.is_empty() && broken > 0 {
        let what = format!("there is nothing to list: none of {} files could be used", files.len());
        return Err(Failure::new(Kind::Damaged, what).next("what is said above of each of them"));
    }
    merged::sort(&mut rows);
    show::value(&match format {
        Format::Text => merged::text(&rows),
        Format::Json => merged::json(&rows),
    })?;
    if broken == 0 {
        return Ok(());
    }
    let what = format!("the list is not whole: {broken} of {} files could not be used", files.len());
    Err(Failure::new(Kind::Damaged, what)
        .fact("state", "the pools of the others are listed")
        .next("what is said above of each of them"))
}

/// Returns the bytes of a list.
fn read(path: &Path) -> Outcome<Vec<u8>> {
    let bytes = named_file::read(path, MAX_FILE)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length >= MAX_FILE.get()) {
        return Err(unusable(path, "it is longer than any list of pools"));
    }
    Ok(bytes)
}

/// A file that can be read and is no list.
fn unusable(path: &Path, why: &str) -> Failure {
    Failure::failed(format!("cannot use `{}`: {why}", path.display()))
        .next("make it anew on its machine:  dmpool list --format json")
}
