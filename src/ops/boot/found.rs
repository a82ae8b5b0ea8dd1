//! Who brings a pool up at boot already: units, init scripts, whatever runs then.

use std::path::{Path, PathBuf};

use crate::engine::small_file::{self, Directory};
use crate::ops::steps::at_boot::Registrar;

/// Where what runs at boot is written down, below the root directory: units, and what came before them.
const DIRECTORIES: [&str; 7] = [
    "etc/systemd/system",
    "run/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
    "etc/init.d",
    "etc/init",
];
const FILES: [&str; 3] = ["etc/rc.local", "etc/rc.d/rc.local", "etc/crontab"];
/// Enough for any unit.
const LARGEST: u64 = 64 << 10;
/// No machine has more of them.
const MOST_FILES: usize = 5000;

/// Returns the file that brings a pool up at boot, if one does, below that root directory; `state` is the directory of the
/// registry that has it, when `--state-dir` named one.
///
/// dmpool's own counts when it is enabled. Of others that is not asked: a pool that has one has somebody who knows.
pub fn activator(base: &Path, pool: &str, state: Option<&Path>) -> Option<PathBuf> {
    let mut seen = 0;
    let own = super::name(state);
    let unit = format!("{own}.service");
    let is_left = |file: &str| {
        (file == unit && !Registrar::Systemctl.has_enabled(base, &own))
            || (file == own && !Registrar::UpdateRcD.has_enabled(base, &own))
    };
    for directory in DIRECTORIES {
        let Ok(directory) = Directory::open(&base.join(directory)) else { continue };
        for name in directory.names().unwrap_or_default().iter().filter_map(|name| name.to_str()) {
            seen += 1;
            if seen > MOST_FILES {
                return None;
            }
            if !is_left(name) && directory.read(name, LARGEST).is_ok_and(|bytes| activates(&bytes, pool, state)) {
                return Some(directory.path().join(name));
            }
        }
    }
    let mut files = FILES.iter().map(|file| base.join(file));
    files.find(|path| small_file::read_at(path, LARGEST).is_ok_and(|bytes| activates(&bytes, pool, state)))
}

/// Whether a text activates the pool: with dmpool, or by a dmsetup of its own.
pub(crate) fn activates(text: &[u8], pool: &str, state: Option<&Path>) -> bool {
    let text = String::from_utf8_lossy(text);
    let mut lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    lines.any(|line| {
        let separates = |c: char| c.is_whitespace() || "\"'=".contains(c);
        let words: Vec<_> = line.split(separates).filter(|word| !word.is_empty()).collect();
        let names = words.contains(&pool);
        by_dmpool(&words, pool, state) || (line.contains("dmsetup") && words.contains(&"create") && names)
    })
}

/// Whether the words of a line make `dmpool activate` bring the pool up.
fn by_dmpool(words: &[&str], pool: &str, state: Option<&Path>) -> bool {
    let program = words.iter().position(|word| word.rsplit('/').next() == Some("dmpool"));
    let Some(rest) = program.and_then(|at| words.get(at + 1..)) else { return false };
    let directory = rest.iter().skip_while(|word| **word != "--state-dir").nth(1).map(Path::new);
    let Some(activate) = rest.iter().position(|word| *word == "activate") else { return false };
    let named = rest.get(activate + 1..).unwrap_or_default();
    // Without a name it is the only registered pool.
    let is_meant = named.first().is_none_or(|word| *word == "--state-dir");
    directory == state && (is_meant || named.contains(&"--all") || named.contains(&pool))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_unit_that_names_the_pool_is_found() {
        for (text, activates_it) in [
            ("ExecStart=/usr/bin/dmpool activate p0", true),
            ("ExecStart=-/usr/bin/dmpool activate", true),
            ("ExecStart=/usr/bin/dmpool activate --all --wait 60s", true),
            ("ExecStart=/usr/bin/dmpool activate --all --wait 60s --state-dir /srv/x", false),
            ("ExecStart=/usr/bin/dmpool --state-dir=/srv/x activate p0", false),
            ("ExecStart=/usr/bin/dmpool activate p01", false),
            ("ExecStart=/usr/bin/dmpool destroy p0", false),
            ("#ExecStart=/usr/bin/dmpool activate p0", false),
            ("ExecStart=/sbin/dmsetup create p0 --table \"0 2048 thin-pool 8:1 8:2 128 0\"", true),
            ("ExecStart=/sbin/dmsetup create p1 --table \"0 2048 thin-pool 8:1 8:2 128 0\"", false),
            ("ExecStart=/usr/bin/dockerd --storage-opt dm.thinpooldev=/dev/mapper/p0", false),
        ] {
            assert_eq!(activates(text.as_bytes(), "p0", None), activates_it, "{text}");
        }
        let elsewhere = Some(Path::new("/srv/x"));
        for line in ["dmpool --state-dir=/srv/x activate", "dmpool activate --all --wait 60s --state-dir '/srv/x'"] {
            assert!(activates(line.as_bytes(), "p0", elsewhere) && !activates(line.as_bytes(), "p0", None), "{line}");
        }
        let temp = tempfile::tempdir().unwrap();
        assert_eq!(activator(temp.path(), "p0", None), None);
        let units = temp.path().join("etc/systemd/system");
        fs::create_dir_all(&units).unwrap();
        fs::write(units.join("a.service"), [0xff; 100]).unwrap();
        fs::write(units.join("p.service"), "[Service]\nExecStart=dmpool activate p0\n").unwrap();
        assert_eq!(activator(temp.path(), "p0", None), Some(units.join("p.service")));
    }

    #[test]
    fn dmpools_own_unit_or_script_counts_once_it_is_enabled() {
        use crate::ops::boot::text::WANTED_BY;
        let line = "dmpool activate --all --wait 60s";
        for (folder, file, links) in [
            (
                "etc/systemd/system",
                "dmpool-activate.service",
                WANTED_BY
                    .iter()
                    .map(|unit| format!("etc/systemd/system/{unit}.wants/dmpool-activate.service"))
                    .collect(),
            ),
            ("etc/init.d", "dmpool-activate", vec!["etc/rc3.d/S26dmpool-activate".to_owned()]),
        ] {
            let temp = tempfile::tempdir().unwrap();
            let path = temp.path().join(folder).join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, format!("ExecStart={line}\n")).unwrap();
            assert_eq!(activator(temp.path(), "p0", None), None, "{file} is left over");
            for link in links {
                let link = temp.path().join(link);
                fs::create_dir_all(link.parent().unwrap()).unwrap();
                std::os::unix::fs::symlink(&path, link).unwrap();
            }
            assert_eq!(activator(temp.path(), "p0", None), Some(path));
        }
    }

    #[test]
    fn what_is_written_is_found_again() {
        use crate::ops::boot::text;
        let line = "/usr/sbin/dmpool activate --all --wait 60s";
        for text in [text::unit(line), text::script("dmpool-activate", line, "/usr/sbin/dmpool list")] {
            assert!(activates(text.as_bytes(), "p0", None), "{text}");
        }
    }
}
