//! Guests never outlive the lab. Each is started through this program again, as a keeper: it makes a session of its own
//! for the guest and kills the whole session when the guest ends, or when the lab does, however that happens (its end of
//! a pipe closes, even by `kill -9`).

use std::io::{self, Read};
use std::process::{Command, ExitCode, Stdio};
use std::thread;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::{getpgrp, setsid};

/// The first argument that makes `lab` a keeper.
pub const ARGUMENT: &str = "__keep";

/// Runs the program in `words` until it ends or standard input does.
pub fn run(words: impl IntoIterator<Item = String>) -> ExitCode {
    let mut words = words.into_iter();
    let (Ok(_), Some(program)) = (setsid(), words.next()) else {
        return ExitCode::FAILURE;
    };
    let Ok(mut guest) = Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        .spawn()
    else {
        return ExitCode::FAILURE;
    };
    thread::spawn(|| {
        let mut nothing = [0; 64];
        while io::stdin().read(&mut nothing).is_ok_and(|n| n > 0) {}
        end_session();
    });
    let _ = guest.wait();
    end_session();
    ExitCode::SUCCESS
}

/// Kills every process of this session's group, this one included.
fn end_session() {
    let _ = killpg(getpgrp(), Signal::SIGKILL);
}
