//! The lab's own words to the person: on standard error, so that results on standard output stay alone.

use std::io::Write;
use std::time::Instant;

/// One line about what is going on.
pub fn line(text: &str) {
    let _ = writeln!(std::io::stderr(), "lab: {text}");
}

/// One line of results.
pub fn result(text: &str) {
    // Whoever reads may have gone; that stops nothing.
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// What a guest's console says, as it says it.
pub fn bytes(bytes: &[u8]) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(bytes);
    let _ = out.flush();
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
    let _ = writeln!(std::io::stderr(), "cargo lab: {trouble}");
}
