//! Guests for dmpool's tests: small virtual machines whose kernels have device-mapper.
//!
//! | module | runs on | is |
//! |---|---|---|
//! | [`host`] | the developer's machine | `cargo lab`: fetches, builds, boots, collects results |
//! | [`agent`] | the guest | the first program there; runs what the host orders |
//! | [`guest`] | the guest | what a test may ask: reboot, power cut, disks, dm wrappers, Docker |
//! | [`protocol`] | both | the words host and agent exchange |

pub mod agent;
pub mod guest;
pub mod host;
pub mod protocol;
