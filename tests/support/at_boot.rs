//! What has pools brought up at boot, taken away again.

use std::fs;
use std::path::PathBuf;

use lab::guest::run::Cmd;

const SCRIPTS: &str = "/etc/init.d";
const UNITS: &str = "/etc/systemd/system";

/// Takes away every unit and script that brings pools up, now and when dropped.
pub struct AtBoot;

impl AtBoot {
    pub fn none() -> Self {
        clear();
        Self
    }

    /// The files that there are.
    pub fn files() -> Vec<PathBuf> {
        let there = [SCRIPTS, UNITS].into_iter().flat_map(|folder| fs::read_dir(folder).into_iter().flatten());
        let paths = there.map(|entry| entry.unwrap().path());
        paths.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("dmpool-activate")).collect()
    }

    /// The links by which init runs them in runlevel 2, by name.
    pub fn links() -> Vec<String> {
        let there = fs::read_dir("/etc/rc2.d").into_iter().flatten();
        let mut names: Vec<_> = there.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| name.contains("dmpool-activate"));
        names
    }
}

impl Drop for AtBoot {
    fn drop(&mut self) {
        clear();
    }
}

fn clear() {
    for file in AtBoot::files() {
        let name = file.file_name().unwrap();
        let tell = match file.starts_with(UNITS) {
            true => Cmd::new("systemctl").args(["--quiet", "disable"]),
            false => Cmd::new("update-rc.d").arg("-f"),
        };
        let tell = tell.arg(name);
        let _ = if file.starts_with(UNITS) { tell } else { tell.arg("remove") }.run();
        let _ = fs::remove_file(file);
    }
}
