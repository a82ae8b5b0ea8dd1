//! Which Docker roots a machine has: those of running daemons, the one of the next daemon, and those left behind.

use std::io;
use std::path::{Path, PathBuf};

use super::configuration::Configuration;
use super::docker_root::{About, DEFAULT_ROOT, DockerRoot, Problem, Standing, read_if_there};
use super::dockerd::{self, Dockerd};
use super::small_file::Directory;

/// The Docker roots of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roots {
    /// Those that use devicemapper, each once.
    pub found: Vec<DockerRoot>,
    /// Those that are there and cannot be opened.
    pub unreadable: Vec<Problem>,
}

impl Roots {
    /// Adds roots, each once.
    pub fn add(&mut self, more: impl IntoIterator<Item = DockerRoot>) {
        for root in more {
            if self.found.iter().all(|other| other.path != root.path) {
                self.found.push(root);
            }
        }
    }

    fn take(&mut self, path: &Path, read: io::Result<Option<DockerRoot>>) {
        match read {
            Ok(root) => self.add(root),
            Err(_) if self.unreadable.iter().any(|other| other.path == path) => {}
            Err(error) => self.unreadable.push(Problem { path: path.to_owned(), why: error.to_string() }),
        }
    }
}

/// Returns the Docker roots of this machine that use devicemapper, each once: those of the running daemons, the one that
/// the next daemon will use, and Docker's own place when it has one that nobody uses. A daemon in a container is passed
/// over: its root is not ours.
pub fn find() -> Roots {
    of(Path::new("/"), dockerd::running())
}

/// Returns what [`find`] does, and looks at every process for daemons: for a pool that none of those roots explains.
pub fn find_all() -> Roots {
    of(Path::new("/"), dockerd::all())
}

/// Returns the path of the root that this machine's Docker uses, or will use, whatever its storage driver.
pub fn in_use() -> PathBuf {
    let daemon = dockerd::running().into_iter().next();
    daemon.map_or_else(|| Configuration::of_next(Path::new("/")), |daemon| Configuration::of_running(&daemon)).root()
}

fn of(base: &Path, daemons: Vec<Dockerd>) -> Roots {
    let next = Configuration::of_next(base);
    let mut roots = Roots::default();
    for daemon in daemons {
        let configuration = Configuration::of_running(&daemon);
        let root = configuration.root();
        if seen_by_both(&daemon, &root) {
            let next = same(&root, &next.root()).then(|| next.clone());
            let about = About { standing: Standing::Running, daemon: Some(daemon), configuration, next };
            roots.take(&root, read_if_there(&root, about));
        }
    }
    let path = super::start::below(base, &next.root());
    let about = About { standing: Standing::Configured, daemon: None, configuration: next, next: None };
    roots.take(&path, read_if_there(&path, about));
    // One that was left behind must not keep anyone from the others.
    let usual = super::start::below(base, Path::new(DEFAULT_ROOT));
    roots.add(read_if_there(&usual, About::only(Standing::Left)).unwrap_or_default());
    roots
}

/// Returns the Docker root at a path that somebody named, with its daemon if one runs on it; nothing when no
/// devicemapper driver ever ran there.
///
/// # Errors
/// When the path cannot be opened, or what is below it cannot.
pub fn at(path: &Path) -> io::Result<Option<DockerRoot>> {
    let identity = Directory::open(path)?.identity()?;
    let is_it = |root: &Path| Directory::open(root).and_then(|d| d.identity()).is_ok_and(|other| other == identity);
    let next = Configuration::of_next(Path::new("/"));
    let will_be = is_it(&next.root());
    let runs_on_it = |daemon: Dockerd| {
        let configuration = Configuration::of_running(&daemon);
        let root = configuration.root();
        (is_it(&root) && seen_by_both(&daemon, &root)).then_some((daemon, configuration))
    };
    // One that is not the usual one may be beside it.
    let usual = dockerd::running().into_iter().find_map(runs_on_it);
    if let Some((daemon, configuration)) = usual.or_else(|| dockerd::all().into_iter().find_map(runs_on_it)) {
        let next = will_be.then_some(next);
        let about = About { standing: Standing::Running, daemon: Some(daemon), configuration, next };
        return read_if_there(path, about);
    }
    let about = if will_be {
        About { standing: Standing::Configured, daemon: None, configuration: next, next: None }
    } else {
        About::only(Standing::Named)
    };
    read_if_there(path, about)
}

/// Returns the Docker root whose loop files are at such a path (`ROOT/devicemapper/devicemapper/data`), where the kernel
/// says that a live pool has them; nothing when the path is of no such shape, or there is no such root.
pub fn around(loop_file: &Path) -> Option<DockerRoot> {
    let home = loop_file.parent()?.parent()?;
    let shape = [loop_file.parent()?, home].iter().all(|d| d.file_name().is_some_and(|name| name == "devicemapper"));
    if !shape || !loop_file.file_name().is_some_and(|name| name == "data" || name == "metadata") {
        return None;
    }
    read_if_there(home.parent()?, About::only(Standing::Left)).ok().flatten()
}

fn same(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| Directory::open(path).and_then(|d| d.identity()).ok();
    one == other || identity(one).is_some_and(|one| identity(other) == Some(one))
}

/// Whether a path is the same directory to the daemon and to us; not so for a daemon in a container. A daemon with a mount
/// namespace of its own (`MountFlags=slave` on CentOS 7) is no different from one without.
fn seen_by_both(daemon: &Dockerd, root: &Path) -> bool {
    let Ok(relative) = root.strip_prefix("/") else {
        return false;
    };
    same(root, &PathBuf::from(format!("/proc/{}/root", daemon.pid)).join(relative))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::engine::docker_root::Options;
    use crate::engine::dockerd::Flags;

    fn lay_out(root: &Path) {
        fs::create_dir_all(root.join("devicemapper/devicemapper")).unwrap();
        fs::write(root.join("devicemapper/devicemapper/data"), "").unwrap();
    }

    /// The standing and path of every root, below the machine's directory.
    fn told(base: &Path, daemons: Vec<Dockerd>) -> Vec<(Standing, PathBuf)> {
        let roots = of(base, daemons).found;
        let base = base.canonicalize().unwrap();
        roots.into_iter().map(|r| (r.standing, r.path.strip_prefix(&base).unwrap().to_owned())).collect()
    }

    #[test]
    fn the_running_the_next_and_the_one_left_behind_each_once() {
        let temp = tempfile::tempdir().unwrap();
        assert_eq!(told(temp.path(), vec![]), []);
        lay_out(&temp.path().join("var/lib/docker"));
        let usual = PathBuf::from("var/lib/docker");
        assert_eq!(told(temp.path(), vec![]), [(Standing::Configured, usual.clone())]);

        lay_out(&temp.path().join("srv/docker"));
        fs::create_dir_all(temp.path().join("etc/docker")).unwrap();
        fs::write(temp.path().join("etc/docker/daemon.json"), r#"{"data-root": "/srv/docker"}"#).unwrap();
        let next = PathBuf::from("srv/docker");
        assert_eq!(told(temp.path(), vec![]), [(Standing::Configured, next.clone()), (Standing::Left, usual.clone())]);

        // This process stands for a daemon: it sees the same files.
        let running = temp.path().join("data/docker");
        lay_out(&running);
        let line = format!("dockerd\0--config-file\0/none\0--data-root\0{}\0", running.display());
        let daemon = Dockerd { pid: std::process::id(), flags: Flags::parse(line.as_bytes()).unwrap() };
        assert_eq!(
            told(temp.path(), vec![daemon.clone()]),
            [
                (Standing::Running, PathBuf::from("data/docker")),
                (Standing::Configured, next),
                (Standing::Left, usual.clone())
            ]
        );
        // A link to a root is that root.
        fs::remove_dir_all(temp.path().join("srv/docker")).unwrap();
        symlink("../data/docker", temp.path().join("srv/docker")).unwrap();
        let both = told(temp.path(), vec![daemon]);
        assert_eq!(both, [(Standing::Running, PathBuf::from("data/docker")), (Standing::Left, usual)]);
    }

    #[test]
    fn a_root_is_found_around_the_files_of_a_pool() {
        let temp = tempfile::tempdir().unwrap();
        lay_out(temp.path());
        let file = temp.path().join("devicemapper/devicemapper/data");
        let found = around(&file).unwrap();
        assert_eq!((found.standing, &found.options), (Standing::Left, &Options::Unknown));
        assert_eq!(found.path, temp.path().canonicalize().unwrap());
        for other in ["devicemapper/data", "devicemapper/devicemapper/other", "data"] {
            assert_eq!(around(&temp.path().join(other)), None, "{other}");
        }
        assert!(at(&temp.path().join("no")).is_err());
        assert_eq!(at(temp.path()).unwrap().unwrap().standing, Standing::Named);
    }
}
