//! libFuzzer, and the parser that `DMPOOL_FUZZ` names. Without `--cfg fuzzing` a program that does nothing, so that
//! whoever builds the workspace needs no C++.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
use std::sync::LazyLock;

#[cfg(fuzzing)]
use dmpool::fuzzing::{PARSERS, Parser};

#[cfg(fuzzing)]
#[allow(clippy::expect_used, reason = "the lab names a parser that there is")]
static PARSER: LazyLock<&Parser> = LazyLock::new(|| {
    let name = std::env::var("DMPOOL_FUZZ").unwrap_or_default();
    PARSERS.iter().find(|parser| parser.name == name).expect("DMPOOL_FUZZ names a parser of src/fuzzing/mod.rs")
});

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    (PARSER.check)(bytes);
});

#[cfg(not(fuzzing))]
fn main() {}
