//! What says on a host how Docker is told, for people.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::save::{NEVER, file};
use crate::kernel::folder::FileKind;
use crate::kernel::fs::read_limited;
use crate::ops::contents::archive::{Member, Writer, made};
use crate::ops::daemon::kept::{SOURCES, firewall};
use crate::ops::steps::Hold;
use crate::units::Bytes;

/// No configuration of the host's is longer.
const LONGEST: Bytes = Bytes::new(16 << 20);

/// What is taken for what the host's own files say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::ops) struct Told {
    /// What files say in truth; nothing for those that are not there.
    files: BTreeMap<PathBuf, Option<String>>,
    /// What `iptables-save` printed when containers ran.
    firewall: Option<String>,
}

impl Told {
    /// Returns how Docker was told before it was held, and the rules that there were.
    pub(in crate::ops) fn before(hold: &Hold, firewall: Option<String>) -> Self {
        let files = hold.files.iter().map(|file| (file.path.clone(), file.before.clone()));
        let files = files.chain(hold.drop_ins.iter().map(|drop_in| (drop_in.clone(), None))).collect();
        Self { files, firewall }
    }
}

/// Writes what says on this host how Docker is told.
pub(super) fn host<W: Write>(place: &Path, told: &Told, out: &mut Writer<W>) -> io::Result<()> {
    let mut files = BTreeMap::new();
    let mut next: Vec<PathBuf> = SOURCES.iter().map(PathBuf::from).collect();
    while let Some(path) = next.pop() {
        match path.symlink_metadata() {
            Ok(found) if found.is_dir() => {
                next.extend(path.read_dir()?.flatten().map(|entry| entry.path()));
            }
            Ok(found) if found.is_file() => {
                let bytes = read_limited(&path, LONGEST).map_err(|e| io::Error::other(format!("{e:#}")))?;
                files.extend(bytes.map(|bytes| (path, bytes)));
            }
            _ => {}
        }
    }
    for (path, says) in &told.files {
        match says {
            Some(says) => drop(files.insert(path.clone(), says.clone().into_bytes())),
            None => drop(files.remove(path)),
        }
    }
    let rules = told.firewall.clone().unwrap_or_else(firewall);
    files.insert(PathBuf::from("/iptables-save"), rules.into_bytes());
    let folder = made(FileKind::Directory, 0o700, NEVER);
    let mut made_before = BTreeSet::new();
    let mut directory = |path: &Path, out: &mut Writer<W>| {
        if made_before.insert(path.to_owned()) {
            out.other(Member { path, status: &folder, attributes: &[] }, None)
        } else {
            Ok(())
        }
    };
    directory(place, out)?;
    for (path, bytes) in &files {
        let path = place.join(path.strip_prefix("/").unwrap_or(path));
        let mut above: Vec<&Path> = path.ancestors().skip(1).take_while(|above| *above != place).collect();
        above.reverse();
        for above in above {
            directory(above, out)?;
        }
        file(out, &path, bytes)?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::ops::steps::HeldFile;

    #[test]
    fn the_hold_is_no_part_of_how_docker_is_told() {
        let file = |name: &str, before: Option<&str>| HeldFile {
            path: Path::new("/etc/docker").join(name),
            before: before.map(str::to_owned),
            held: "held".to_owned(),
            after: None,
            backup: None,
        };
        let mut hold = Hold::of_nothing();
        hold.files = vec![file("of-a-test.json", Some("{\"own\": 1}")), file("none-of-a-test.json", None)];
        hold.drop_ins = vec!["/etc/systemd/system/docker.service.d/dmpool-hold.conf".into()];
        let mut written = Vec::new();
        let mut out = Writer::new(&mut written);
        host(Path::new("host"), &Told::before(&hold, Some("the rules".to_owned())), &mut out).unwrap();
        out.finish().unwrap();
        let text = String::from_utf8_lossy(&written);
        assert!(text.contains("host/etc/docker/of-a-test.json") && text.contains("{\"own\": 1}"), "{text}");
        assert!(
            !text.contains("none-of-a-test") && !text.contains("dmpool-hold") && text.contains("the rules"),
            "{text}"
        );
    }
}
