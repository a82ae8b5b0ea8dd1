//! Running the machine's programs.

use std::path::Path;
use std::process::{Command, Stdio};

use super::trouble::{OrTrouble, Result, Trouble};

/// The last part of a program's words that is shown when it fails, in lines.
const SHOWN_LINES: usize = 15;

/// What to do about a full disk.
pub const MAKE_ROOM: &str =
    "make room (the lab needs about 4 GiB under target/lab, or wherever CARGO_TARGET_DIR leads), then run this again";

/// The longest command line that is shown in a sentence; a longer one stands under it, whole.
const LONGEST_IN_A_SENTENCE: usize = 100;

/// Runs a program to its end without showing anything; returns its standard output.
///
/// # Errors
/// When it cannot be started or says it failed; with its last words.
pub fn run(command: &mut Command) -> Result<String> {
    let name = line_of(command);
    let output = command.stdin(Stdio::null()).output().or_trouble(|| format!("cannot run `{name}`"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let failed = |cannot: &str| {
        let is_long = name.len() > LONGEST_IN_A_SENTENCE;
        let program = command.get_program().to_string_lossy();
        let shown = if is_long { format!("{program} …") } else { name.clone() };
        let trouble = Trouble::new(format!("{cannot}: `{shown}` failed ({})", output.status));
        let trouble = trouble.fact("said", last_lines(&said));
        if is_long { trouble.fact("ran", &name) } else { trouble }
    };
    if said.contains("No space left on device") {
        return Err(failed("the disk is full").next(MAKE_ROOM));
    }
    let offline = ["Temporary failure resolving", "Could not connect", "Could not resolve", "Unable to connect"];
    if offline.iter().any(|words| said.contains(words)) {
        return Err(failed("cannot reach the package mirror").next(
            "look at the network and the addresses in /etc/apt/sources.list*, then run this again; what is fetched once is kept",
        ));
    }
    Err(failed("cannot go on"))
}

/// Whether a program of this name can be found.
#[must_use]
pub fn exists(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin"].map(Path::new).map(Path::to_path_buf);
    std::env::split_paths(&path).chain(usual).any(|folder| folder.join(program).is_file())
}

/// The command as a person would type it, without its environment.
fn line_of(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|w| w.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.trim().lines().collect();
    lines.iter().skip(lines.len().saturating_sub(SHOWN_LINES)).copied().collect::<Vec<_>>().join("\n")
}
