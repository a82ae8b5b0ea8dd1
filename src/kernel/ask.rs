//! Questions that the kernel might never answer: asked by a child that can be given up.
//!
//! A thread would not do: one that hangs in the kernel keeps the whole process from ending.

use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::raw;

/// How long the kernel has to answer. A commit of the metadata that a status waits for takes milliseconds.
const LIMIT: Duration = Duration::from_secs(5);

/// Returns what `question` returns, asked in a child process; its values must survive a trip through JSON.
///
/// Call it from the only thread of the process: the child is a copy of this one.
///
/// # Errors
/// In words: it was not answered within five seconds, or could not be asked.
pub fn within_limit<T: Serialize + DeserializeOwned>(question: impl FnOnce() -> T) -> Result<T, String> {
    ask(question, LIMIT)
}

fn ask<T: Serialize + DeserializeOwned>(question: impl FnOnce() -> T, limit: Duration) -> Result<T, String> {
    let (mut ours, theirs) = UnixStream::pair().map_err(|e| format!("it could not be asked: {e}"))?;
    let mut question = Some(question);
    let child = raw::fork_running(|| {
        let answer = question.take().map(|question| question());
        match answer {
            Some(answer) if serde_json::to_writer(&theirs, &answer).is_ok() => 0,
            _ => 1,
        }
    });
    let child = child.map_err(|e| format!("it could not be asked: {e}"))?;
    drop(theirs);
    let until = Instant::now() + limit;
    let mut bytes = Vec::new();
    let answered = loop {
        let left = until.saturating_duration_since(Instant::now()).as_millis();
        match raw::wait_readable(ours.as_fd(), i32::try_from(left).unwrap_or(i32::MAX)) {
            Ok(true) => {}
            Err(nix::errno::Errno::EINTR) => continue,
            Ok(false) | Err(_) => break false,
        }
        let mut chunk = [0_u8; 4096];
        match ours.read(&mut chunk) {
            Ok(0) => break true,
            Ok(read) => bytes.extend(chunk.iter().take(read)),
            Err(_) => break false,
        }
    };
    if answered {
        let _ = waitpid(child, None);
        return serde_json::from_slice(&bytes).map_err(|_| "it was asked and there was no answer".to_owned());
    }
    // It may be where no signal reaches it; then init takes it over when we end.
    let _ = kill(child, Signal::SIGKILL);
    let _ = waitpid(child, Some(WaitPidFlag::WNOHANG));
    Err(format!("the kernel did not answer within {} s; something under the pool hangs", limit.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_comes_back_whole() {
        let long = "x".repeat(100_000);
        assert_eq!(within_limit(|| long.clone()), Ok(long));
        assert_eq!(within_limit(|| Err::<u8, _>("no".to_owned())), Ok(Err("no".to_owned())));
    }

    #[test]
    fn who_does_not_answer_is_given_up() {
        let asked = ask(|| std::thread::sleep(Duration::from_secs(3600)), Duration::from_millis(50));
        assert!(asked.is_err_and(|why| why.contains("did not answer")));
    }
}
