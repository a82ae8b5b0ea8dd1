//! Makes a thin pool on two sparse loop files, as root:  create NAME DIRECTORY
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example prints")]

use std::process::ExitCode;

use dmpool::error::{Failure, Kind, Outcome};
use dmpool::ops::{Change, State, create, gate};
use dmpool::pool::{Place, PoolName, Spec};
use dmpool::report;
use dmpool::units::{BlockSize, Bytes, DataBlocks};

fn make(name: &str, directory: &str) -> Outcome<()> {
    // Opens device-mapper; refused when this is not root, or the kernel has none.
    let kit = gate::open(State::default())?;
    let spec = Spec {
        name: PoolName::new(name).map_err(|e| Failure::new(Kind::Usage, e.to_string()))?,
        data_size: Some(Bytes::new(10 << 30)),
        metadata_size: Some(Bytes::new(64 << 20)),
        block_size: BlockSize::DEFAULT,
        low_water: DataBlocks::new(1024),
        zero: true,
        error_when_full: false,
        discard: true,
        ephemeral: false,
        on: Place::Files { directory: directory.into(), preallocate: false },
    };
    // With `Change::Describe` nothing is done and `done.plan` says what would be.
    let done = create::create(
        &kit,
        &create::Options { spec, ensure: true, wipe: false, engine: None, at_boot: false },
        Change::Make,
    )?;
    println!("did {}, in {} steps: /dev/mapper/{name}", done.plan.what, done.plan.steps.len());
    Ok(())
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [name, directory] = words.as_slice() else {
        eprintln!("create NAME DIRECTORY");
        return ExitCode::from(Kind::Usage.exit_code());
    };
    match make(name, directory) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // The sentence, the facts, and what to do next.
            eprint!("{}", report::failure::text(&failure));
            ExitCode::from(failure.kind.exit_code())
        }
    }
}
