//! What fills the file system under Docker's loop files, when that is what binds.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::space;
use crate::engine::docker_root::DockerRoot;
use crate::engine::small_file::Directory;
use crate::kernel::fs::{self, Bounds, Occupied};
use crate::ops::cost::ONLINE;
use crate::pool::{Finding, Key, PoolReport};
use crate::process::quote;
use crate::units::Bytes;

/// What a walk of one folder may take: `health` has a limit of its own.
const BOUNDS: Bounds = Bounds { entries: 100_000, time: Duration::from_secs(1) };
/// Below this a log is not worth a command.
const MANY: u64 = 64 << 20;

/// What lies on the file system under a Docker root, and how much of it each takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Filling {
    /// The logs of all containers, `containers/ID/ID-json.log` and those rotated.
    logs: Bytes,
    /// The largest of them.
    largest: Option<(PathBuf, Bytes)>,
    /// `volumes`.
    volumes: Option<Occupied>,
    /// `tmp`.
    tmp: Option<Occupied>,
    /// The pool's own loop files.
    files: Bytes,
}

/// Looks at what of a Docker root lies on a file system.
pub(super) fn look(root: &DockerRoot, pool: &PoolReport) -> Filling {
    let (logs, largest) = logs(&root.path).unwrap_or_default();
    let walk = |name: &str| fs::occupied(&root.path.join(name), BOUNDS).ok();
    let allocated = |file: Option<&crate::pool::LoopFile>| file.and_then(|f| f.allocated).unwrap_or_default();
    Filling {
        logs,
        largest,
        volumes: walk("volumes"),
        tmp: walk("tmp"),
        files: Bytes::new(
            allocated(pool.data.loop_file()).get().saturating_add(allocated(pool.metadata.loop_file()).get()),
        ),
    }
}

type Largest = Option<(PathBuf, Bytes)>;

fn logs(root: &Path) -> std::io::Result<(Bytes, Largest)> {
    let containers = Directory::open(root)?.enter("containers")?;
    let (mut sum, mut largest): (u64, Largest) = (0, None);
    for id in containers.names()?.iter().filter_map(|id| id.to_str()) {
        let Ok(container) = containers.enter(id) else { continue };
        for name in container.names().unwrap_or_default() {
            // `ID-json.log`, and `ID-json.log.1` once rotated.
            if !name.to_str().is_some_and(|name| name.contains("-json.log")) {
                continue;
            }
            let path = container.path().join(&name);
            let Ok(bytes) = fs::allocated(&path) else { continue };
            sum = sum.saturating_add(bytes.get());
            if largest.as_ref().is_none_or(|(_, most)| bytes > *most) {
                largest = Some((path, bytes));
            }
        }
    }
    Ok((Bytes::new(sum), largest))
}

/// Says in the finding about the host's file system what fills it, the most first, and what gives space back.
pub(super) fn judge(pool: &PoolReport, findings: &[Finding], filling: &Filling) -> Option<Finding> {
    let before = findings.iter().find(|f| f.key == Key::HostFileSystem)?;
    let host = pool.data.loop_file()?.host.as_ref()?;
    let mut parts: Vec<(Bytes, String)> = vec![
        (filling.logs, format!("containers' json logs {}", filling.logs.human())),
        (filling.files, format!("the pool's own files {}", filling.files.human())),
    ];
    for (what, found) in [("volumes", filling.volumes), ("tmp", filling.tmp)] {
        if let Some(found) = found {
            let least = if found.whole { "" } else { "at least " };
            parts.push((found.bytes, format!("{what} {least}{}", found.bytes.human())));
        }
    }
    parts.retain(|(bytes, _)| bytes.get() > 0);
    parts.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    let said: Vec<String> = parts.into_iter().map(|(_, text)| text).collect();
    let wanted = pool.data_space()?.free();
    let mut finding = space::host_finding(before.severity, host, wanted, Some(&said.join(", ")));
    if let Some((path, bytes)) = filling.largest.as_ref().filter(|(_, bytes)| bytes.get() >= MANY) {
        let way = format!("truncate -s 0 {}", quote(&path.to_string_lossy()));
        let cost = format!("{ONLINE}; gives {} back, and that log is lost", bytes.human());
        finding.ways.insert(0, crate::pool::Way::run(way, cost));
    }
    Some(finding)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use std::fs;

    use super::*;
    use crate::pool::Severity;
    use crate::report::samples::{docker_pool, docker_root};

    #[test]
    fn the_largest_log_is_found_and_links_are_not_followed() {
        let temp = tempfile::tempdir().unwrap();
        let container = |id: &str, name: &str, size: usize| {
            let dir = temp.path().join("containers").join(id);
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join(name), vec![1; size]).unwrap();
        };
        container("c1", "c1-json.log", 1 << 20);
        container("c1", "c1-json.log.1", 3 << 20);
        container("c2", "config.v2.json", 5 << 20);
        fs::create_dir_all(temp.path().join("volumes/v/_data")).unwrap();
        fs::write(temp.path().join("volumes/v/_data/f"), vec![1; 2 << 20]).unwrap();
        let root = crate::engine::docker_root::DockerRoot { path: temp.path().to_owned(), ..docker_root() };
        let filling = look(&root, &docker_pool("0 1/2 3/4", 0));
        assert!(filling.logs.get() >= 4 << 20, "{filling:?}");
        assert!(filling.largest.unwrap().0.ends_with("c1/c1-json.log.1"));
        assert!(filling.volumes.unwrap().bytes.get() >= 2 << 20);
        assert_eq!(filling.tmp, None);
        assert_eq!(filling.files.get(), 10_737_418_240 + 26_214_400);
    }

    #[test]
    fn what_fills_it_is_said_the_most_first() {
        let pool = docker_pool("0 6211/524288 9/1638400 - rw discard_passdown queue_if_no_space - 1024", 1 << 20);
        let filling = Filling {
            logs: Bytes::new(20 << 30),
            largest: Some((PathBuf::from("/var/lib/docker/containers/a b/x-json.log"), Bytes::new(15 << 30))),
            volumes: Some(Occupied { bytes: Bytes::new(30 << 30), entries: 100_000, whole: false, changed: None }),
            tmp: Some(Occupied { whole: true, ..Occupied::default() }),
            files: Bytes::new(10 << 30),
        };
        let before = Finding::new(Key::HostFileSystem, Severity::Critical, "/", "x");
        let found = judge(&pool, &[before], &filling).unwrap();
        let said = "volumes at least 30.0 GiB, containers' json logs 20.0 GiB, the pool's own files 10.0 GiB";
        assert!(found.sentence.ends_with(said), "{found:?}");
        assert_eq!(
            found.ways[0].command.as_deref().unwrap(),
            "truncate -s 0 '/var/lib/docker/containers/a b/x-json.log'"
        );
        assert_eq!(judge(&pool, &[], &filling), None, "when the host does not bind, nobody asks");
    }
}
