//! Grows the data of a pool on loop files while everything runs:  grow POOL SIZE    (20G, +5G, +20%, max)
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example prints")]

use std::process::ExitCode;

use dmpool::error::{Failure, Kind, Outcome};
use dmpool::ops::steps::Part;
use dmpool::ops::{Change, State, find, gate, grow};
use dmpool::report;
use dmpool::units::SizeArg;

fn enlarge(pool: &str, size: &str) -> Outcome<()> {
    let size = SizeArg::parse(size).map_err(|e| Failure::new(Kind::Usage, e.to_string()))?;
    let kit = gate::open(State::default())?;
    let found = find::find(&kit.dm, &kit.state, pool)?;
    let options = grow::Options::new(Part::Data, size);
    // What the plan says and what is done are one: first it is shown, then carried out.
    let planned = grow::grow(&kit, &found, &options, Change::Describe)?;
    print!("{}", report::plan::text(&planned.plan));
    grow::grow(&kit, &found, &options, Change::Make)?;
    println!("done");
    Ok(())
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [pool, size] = words.as_slice() else {
        eprintln!("grow POOL SIZE");
        return ExitCode::from(Kind::Usage.exit_code());
    };
    match enlarge(pool, size) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprint!("{}", report::failure::text(&failure));
            ExitCode::from(failure.kind.exit_code())
        }
    }
}
