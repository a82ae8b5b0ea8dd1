//! Faults on demand, for the tests: with the feature `faults`, `DMPOOL_FAULT` names a step and what befalls it there.
//!
//! `DMPOOL_FAULT=STEP:POINT:HOW`, STEP counting from 1 as `--dry-run` numbers them, POINT one of `before`, `after`,
//! `before-revert`, `after-revert`; `before-device`, `after-device`, `layer` and `saved` count devices, layers and containers of `--rm` in STEP's place. HOW is `fail`,
//! `die`, or `wait` for somebody to want an end. Several are separated by commas. `suspended:die` is the moment in which a snapshot's origin is suspended.

use anyhow::Result;

/// Where in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// Written down, not yet done.
    Before,
    /// Done, not yet looked at.
    After,
    /// Written down that it is taken back, not yet taken back.
    BeforeRevert,
    /// Taken back, not yet written down.
    AfterRevert,
    /// A device that is there while files are read is made, not yet loaded; the number is the device's.
    BeforeDevice,
    /// It is there.
    AfterDevice,
    /// A layer is whole; the number is the layer's.
    Layer,
    /// The image of a container of `--rm` is made, not yet the container; the number is its own.
    Saved,
}

/// Fails or dies when a fault was asked for here.
///
/// # Errors
/// When the fault is `fail`.
#[cfg(feature = "faults")]
pub fn reached(step: usize, point: Point) -> Result<()> {
    let Ok(faults) = std::env::var("DMPOOL_FAULT") else { return Ok(()) };
    let word = match point {
        Point::Before => "before",
        Point::After => "after",
        Point::BeforeRevert => "before-revert",
        Point::AfterRevert => "after-revert",
        Point::BeforeDevice => "before-device",
        Point::AfterDevice => "after-device",
        Point::Layer => "layer",
        Point::Saved => "saved",
    };
    for fault in faults.split(',') {
        if fault == format!("{}:{word}:fail", step + 1) {
            anyhow::bail!("a fault was asked for {word} step {}", step + 1);
        }
        if fault == format!("{}:{word}:die", step + 1) {
            nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL)?;
        }
        while fault == format!("{}:{word}:wait", step + 1) && crate::kernel::critical::wanted_end().is_none() {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
    Ok(())
}

/// Returns whether to die while a device is suspended (`DMPOOL_FAULT=suspended:die`): asked beforehand, since nothing is
/// read there.
#[cfg(feature = "faults")]
pub fn dies_suspended() -> bool {
    std::env::var("DMPOOL_FAULT").is_ok_and(|faults| faults.split(',').any(|fault| fault == "suspended:die"))
}

/// Dies, where [`dies_suspended`] said so.
#[cfg(feature = "faults")]
pub fn die() {
    let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
}

/// Never, in the binary that users get.
#[cfg(not(feature = "faults"))]
pub const fn dies_suspended() -> bool {
    false
}

/// Does nothing in the binary that users get.
#[cfg(not(feature = "faults"))]
pub const fn die() {}

/// Does nothing in the binary that users get.
///
/// # Errors
/// Never.
#[cfg(not(feature = "faults"))]
pub const fn reached(_: usize, _: Point) -> Result<()> {
    Ok(())
}
