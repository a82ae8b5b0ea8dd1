//! Reads one pool's status, of whatever maker:  status POOL
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example prints")]

use std::process::ExitCode;

use dmpool::error::Outcome;
use dmpool::ops::{State, gate, status};
use dmpool::report;

fn show(pool: &str) -> Outcome<()> {
    let kit = gate::open(State::default())?;
    // Kernel and files only: no program is run, no daemon is asked, nothing is changed.
    let found = status::status(&kit, Some(pool))?.found.report;
    println!("{}: made by {:?}, {:?}", found.name, found.maker, found.activity);
    // What is not known is nothing, never zero.
    match found.data_space() {
        Some(data) => println!("data: {} of {} used", data.used.human(), data.total.human()),
        None => println!("data: unknown ({})", found.unread.join("; ")),
    }
    Ok(())
}

fn main() -> ExitCode {
    let Some(pool) = std::env::args().nth(1) else {
        eprintln!("status POOL");
        return ExitCode::from(2);
    };
    match show(&pool) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprint!("{}", report::failure::text(&failure));
            ExitCode::from(failure.kind.exit_code())
        }
    }
}
