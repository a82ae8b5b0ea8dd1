//! The dmpool program: a command line in, an exit code out.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(dmpool::cli::run(std::env::args_os()))
}
