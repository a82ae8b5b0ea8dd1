//! `cargo lab`: argv in, exit code out.

use std::env;
use std::process::ExitCode;

use clap::Parser;
use lab::host::cli::Cli;
use lab::host::{commands, keeper, show};

fn main() -> ExitCode {
    let mut words = env::args().skip(1);
    if words.next().as_deref() == Some(keeper::ARGUMENT) {
        return keeper::run(words);
    }
    match commands::run(Cli::parse()) {
        Ok(code) => code,
        Err(trouble) => {
            show::trouble(&trouble);
            ExitCode::FAILURE
        }
    }
}
