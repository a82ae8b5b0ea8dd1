//! The dmpool program.
fn main() {}
