//! Questions that the kernel might never answer: asked by a child that can be given up.
//!
//! A thread would not do: one that hangs in the kernel keeps the whole process from ending.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{lock, raw};

/// How many milliseconds the kernel has to answer. A commit of the metadata that a status waits for takes one or two.
static LIMIT: AtomicU64 = AtomicU64::new(5000);

/// Gives the kernel less, or more, time for each question from now on: for one who has a limit of his own for many.
pub fn limit_each(limit: Duration) {
    LIMIT.store(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
}

/// Returns what `question` returns, asked in a child process; its values must survive a trip through JSON.
///
/// Call it from the only thread of the process: the child is a copy of this one.
///
/// # Errors
/// In words: it was not answered within five seconds (or [`limit_each`]), or could not be asked.
pub fn within_limit<T: Serialize + DeserializeOwned>(mut question: impl FnMut() -> T) -> Result<T, String> {
    in_turn(&mut [&mut question]).pop().unwrap_or_else(|| Err(NO_ANSWER.to_owned()))
}

/// Returns what each question returns, all asked in one child process, one after the other: when one of them is not
/// answered, those after it are not either, and each says so. As [`within_limit`] otherwise.
pub fn in_turn<T: Serialize + DeserializeOwned>(questions: &mut [&mut dyn FnMut() -> T]) -> Vec<Result<T, String>> {
    in_turn_within(Duration::from_millis(LIMIT.load(Ordering::Relaxed)), questions)
}

const NO_ANSWER: &str = "it was asked and there was no answer";

/// As [`in_turn`], with this limit for all of them together. A question may itself be one that asks in this way.
pub fn in_turn_within<T: Serialize + DeserializeOwned>(
    limit: Duration,
    questions: &mut [&mut dyn FnMut() -> T],
) -> Vec<Result<T, String>> {
    let until = Instant::now() + limit;
    collect(ask(questions), questions.len(), until, limit)
}

/// Returns what each question returns, every one asked in a child process of its own and all at the same time: one that
/// hangs keeps no other from answering.
pub fn all_within<T: Serialize + DeserializeOwned>(
    limit: Duration,
    questions: &mut [&mut dyn FnMut() -> T],
) -> Vec<Result<T, String>> {
    let until = Instant::now() + limit;
    let asked: Vec<_> = questions.iter_mut().map(|question| ask(std::slice::from_mut(question))).collect();
    asked.into_iter().flat_map(|asked| collect(asked, 1, until, limit)).collect()
}

/// Returns that many answers of a child, parsed; for those that do not come until then, why.
fn collect<T: DeserializeOwned>(
    asked: std::io::Result<Asked>,
    count: usize,
    until: Instant,
    limit: Duration,
) -> Vec<Result<T, String>> {
    match asked.map(|asked| answers(asked, count, until, limit)) {
        Ok((lines, why)) => {
            let mut found: Vec<Result<T, String>> = lines
                .split_inclusive(|b| *b == b'\n')
                .filter_map(|line| line.strip_suffix(b"\n"))
                .map(|line| serde_json::from_slice(line).map_err(|_| NO_ANSWER.to_owned()))
                .collect();
            found.resize_with(count, || Err(why.clone()));
            found
        }
        Err(e) => (0..count).map(|_| Err(format!("it could not be asked: {e}"))).collect(),
    }
}

/// A child that answers, a line for each question.
struct Asked {
    child: nix::unistd::Pid,
    answers: UnixStream,
}

fn ask<T: Serialize>(questions: &mut [&mut dyn FnMut() -> T]) -> std::io::Result<Asked> {
    let (ours, theirs) = UnixStream::pair()?;
    let child = raw::fork_running(|| {
        lock::leave_to_parent();
        leave_standard_streams();
        for question in questions.iter_mut() {
            // JSON has no raw line end, and one answer is one write.
            let Ok(mut line) = serde_json::to_vec(&question()) else { return 1 };
            line.push(b'\n');
            if (&theirs).write_all(&line).is_err() {
                return 1;
            }
        }
        0
    })?;
    Ok(Asked { child, answers: ours })
}

/// Returns the answers' lines as far as they came, and why no more came.
fn answers(asked: Asked, count: usize, until: Instant, limit: Duration) -> (Vec<u8>, String) {
    let Asked { child, answers: mut ours } = asked;
    let mut lines: Vec<u8> = Vec::new();
    let mut chunk = [0_u8; 4096];
    loop {
        let left = until.saturating_duration_since(Instant::now()).as_millis();
        match raw::wait_readable(ours.as_fd(), i32::try_from(left).unwrap_or(i32::MAX)) {
            Ok(true) => {}
            Err(nix::errno::Errno::EINTR) => continue,
            Ok(false) | Err(_) => break,
        }
        match ours.read(&mut chunk) {
            Ok(0) => {
                let _ = waitpid(child, None);
                return (lines, NO_ANSWER.to_owned());
            }
            Ok(read) => lines.extend(chunk.iter().take(read)),
            Err(_) => break,
        }
        // A child of the child that hangs keeps the other end open for ever.
        if lines.iter().filter(|b| **b == b'\n').count() == count {
            break;
        }
    }
    // It may be where no signal reaches it; then init takes it over when we end.
    let _ = kill(child, Signal::SIGKILL);
    let _ = waitpid(child, Some(WaitPidFlag::WNOHANG));
    let why = format!("the kernel did not answer within {} s; something under it hangs", limit.as_secs());
    (lines, why)
}

/// A child that hangs lives on, and whoever reads our output to its end would wait for it.
fn leave_standard_streams() {
    if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
        let _ = dup2_stdin(&null).and_then(|()| dup2_stdout(&null)).and_then(|()| dup2_stderr(&null));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::kernel::lock::FileLock;

    #[test]
    fn who_hangs_does_not_keep_the_lock_of_who_asked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let lock = FileLock::try_exclusive(&path).unwrap().unwrap();
        let child = raw::fork_running(|| {
            lock::leave_to_parent();
            std::thread::sleep(Duration::from_secs(3600));
            0
        });
        let child = child.unwrap();
        assert!(FileLock::try_exclusive(&path).unwrap().is_err(), "the parent has it");
        drop(lock);
        let until = Instant::now() + Duration::from_secs(60);
        let mut again = FileLock::try_exclusive(&path).unwrap();
        while again.is_err() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
            again = FileLock::try_exclusive(&path).unwrap();
        }
        let _ = kill(child, Signal::SIGKILL);
        let _ = waitpid(child, None);
        assert!(again.is_ok(), "the child, which lives for an hour, has not");
    }

    #[test]
    fn an_answer_comes_back_whole() {
        let long = "x\n".repeat(100_000);
        assert_eq!(within_limit(|| long.clone()), Ok(long));
        assert_eq!(within_limit(|| Err::<u8, _>("no".to_owned())), Ok(Err("no".to_owned())));
    }

    #[test]
    fn who_does_not_answer_is_given_up_and_what_came_before_stands() {
        let mut hangs = || {
            std::thread::sleep(Duration::from_secs(3600));
            1
        };
        let (mut first, mut last) = (|| 0, || 2);
        let asked = in_turn_within(Duration::from_millis(200), &mut [&mut first, &mut hangs, &mut last]);
        assert_eq!(asked.first(), Some(&Ok(0)));
        assert!(asked.iter().skip(1).all(|a| a.as_ref().is_err_and(|why| why.contains("did not answer"))), "{asked:?}");
        assert_eq!(asked.len(), 3);
    }

    #[test]
    fn who_does_not_answer_keeps_no_other_from_it() {
        let mut hangs = || {
            std::thread::sleep(Duration::from_secs(3600));
            1
        };
        let (mut first, mut last) = (|| 0, || 2);
        let asked = all_within(Duration::from_secs(5), &mut [&mut hangs, &mut first, &mut last]);
        assert!(asked.first().is_some_and(Result::is_err), "{asked:?}");
        assert_eq!(asked.get(1..), Some(&[Ok(0), Ok(2)][..]));
    }

    #[test]
    fn who_asked_and_was_not_answered_can_still_answer() {
        let mut outer = || {
            let mut hangs = || std::thread::sleep(Duration::from_secs(3600));
            in_turn_within(Duration::from_millis(100), &mut [&mut hangs]).iter().all(Result::is_err)
        };
        let mut said = || 7;
        // Without limit: the answers end it, not the end of the children.
        let day = Duration::from_secs(24 * 3600);
        assert_eq!(in_turn_within(day, &mut [&mut outer]), [Ok(true)]);
        assert_eq!(in_turn_within(day, &mut [&mut said]), [Ok(7)]);
    }
}
