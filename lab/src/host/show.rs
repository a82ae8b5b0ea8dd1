//! The lab's own words to the person: on standard error, so that results on standard output stay alone.
#![allow(clippy::print_stderr, clippy::print_stdout, reason = "the one place of the lab that prints")]

use std::time::Instant;

/// One line about what is going on.
pub fn line(text: &str) {
    eprintln!("lab: {text}");
}

/// One line of results.
pub fn result(text: &str) {
    println!("{text}");
}

/// Runs something that takes long, with a line before it and one with its time after it.
///
/// # Errors
/// Those of `work`.
pub fn step<T, E>(what: &str, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    line(&format!("{what} …"));
    let start = Instant::now();
    let done = work()?;
    line(&format!("{what}: {:.1} s", start.elapsed().as_secs_f64()));
    Ok(done)
}

/// What stopped the lab.
pub fn trouble(trouble: &super::trouble::Trouble) {
    eprintln!("cargo lab: {trouble}");
}
