//! The lane without a guest: on a machine that was made to be thrown away.

use std::env;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::guest::Lines;
use super::trouble::{OrTrouble, Result, Trouble};
use crate::protocol::PAYLOAD;

/// A machine that has this file may be broken by tests.
const MARK: &str = "/etc/dmpool-throwaway-machine";

/// Says the same in the environment, with the value `yes`.
const VARIABLE: &str = "LAB_THROWAWAY";

/// Refuses a machine that nobody has given up.
///
/// # Errors
/// When neither the file nor the variable says that it may be broken, and when the process is not root.
pub fn must_be_throwaway() -> Result<()> {
    let given_up = Path::new(MARK).exists() || env::var(VARIABLE).is_ok_and(|v| v == "yes");
    if !given_up {
        return Err(Trouble::new("cannot run guest tests on this machine: nothing says that it may be thrown away")
            .fact("needed", format!("the file {MARK}, or {VARIABLE}=yes in the environment"))
            .next("cargo lab test    which boots guests; or, on a machine made for this:  touch ".to_string() + MARK));
    }
    if !nix::unistd::geteuid().is_root() {
        return Err(Trouble::new("cannot run guest tests on this machine: they need root")
            .next("sudo cargo lab test --lane native"));
    }
    Ok(())
}

/// Puts the payload where guests have it.
///
/// # Errors
/// When the machine's folders cannot be written.
pub fn install(payload: &Path) -> Result<()> {
    link(payload, Path::new(PAYLOAD))?;
    link(&payload.join("examples"), Path::new("/usr/local/lib/dmpool-examples"))?;
    let programs = payload.join("bin");
    for entry in fs::read_dir(&programs).or_trouble(|| format!("cannot list `{}`", programs.display()))?.flatten() {
        link(&entry.path(), &Path::new("/usr/local/bin").join(entry.file_name()))?;
    }
    Ok(())
}

/// The agent's command: its standard input and output are the line to the host.
#[must_use]
pub fn command(agent: &Path, lines: Lines) -> Vec<String> {
    let systemd = u8::from(Path::new("/run/systemd/system").exists());
    let start = format!("exec \"$0\" <&{0} >&{0}", lines.control);
    [
        "env",
        &format!("LAB_SETTINGS=lab.lane=native lab.systemd={systemd}"),
        "bash",
        "-c",
        &start,
        &agent.display().to_string(),
    ]
    .map(str::to_string)
    .to_vec()
}

fn link(to: &Path, at: &Path) -> Result<()> {
    let cannot = || format!("cannot link `{}`", at.display());
    if let Some(parent) = at.parent() {
        fs::create_dir_all(parent).or_trouble(cannot)?;
    }
    let _ = fs::remove_file(at);
    let to: PathBuf = fs::canonicalize(to).or_trouble(cannot)?;
    symlink(to, at).or_trouble(cannot)
}
