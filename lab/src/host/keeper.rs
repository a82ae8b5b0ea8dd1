//! Guests never outlive the lab. Each is started through this program again, as a keeper: it makes a process group of its
//! own for the guest and kills the whole group when the guest ends, or when the lab does, however that happens (its end
//! of a pipe closes, even by `kill -9`).

use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::thread;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, setsid};

/// The first argument that makes `lab` a keeper.
pub const ARGUMENT: &str = "__keep";

/// Runs the program in `words` until it ends or standard input does.
pub fn run(words: impl IntoIterator<Item = String>) -> ExitCode {
    let mut words = words.into_iter();
    // Away from the terminal's group: what Ctrl-C sends is for the lab, whose end then ends the guest.
    let (Ok(_), Some(program)) = (setsid(), words.next()) else { return ExitCode::FAILURE };
    let mut command = Command::new(program);
    // The leader of a group cannot leave it: user mode Linux tries to, and its helpers would outlive it.
    command.args(words).stdin(Stdio::null()).process_group(0);
    let Ok(mut guest) = command.spawn() else { return ExitCode::FAILURE };
    let Ok(group) = i32::try_from(guest.id()).map(Pid::from_raw) else { return ExitCode::FAILURE };
    thread::spawn(move || {
        let mut nothing = [0; 64];
        while io::stdin().read(&mut nothing).is_ok_and(|n| n > 0) {}
        let _ = killpg(group, Signal::SIGKILL);
    });
    let _ = guest.wait();
    let _ = killpg(group, Signal::SIGKILL);
    ExitCode::SUCCESS
}
