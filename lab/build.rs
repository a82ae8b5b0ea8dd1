//! Programs that go into images are linked without their symbols: ten times smaller, and copied with every layer.

#[allow(clippy::print_stdout, reason = "how a build script speaks to cargo")]
fn main() {
    for program in ["lab-inmate", "lab-writer"] {
        println!("cargo::rustc-link-arg-bin={program}=-Wl,--strip-all");
    }
}
