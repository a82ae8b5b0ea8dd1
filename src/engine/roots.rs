//! Which Docker roots a machine has: those of running daemons, the one of the next daemon, and those left behind.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::configuration::Configuration;
use super::docker_root::{About, DEFAULT_ROOT, DockerRoot, Problem, Standing, read_if_there};
use super::dockerd::{self, Dockerd};
use super::driver::Driver;
use super::small_file::Directory;

/// The Docker roots of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roots {
    /// Those that use devicemapper, each once.
    pub found: Vec<DockerRoot>,
    /// Those that are there and cannot be opened.
    pub unreadable: Vec<Problem>,
    /// The pool that the next daemon is told to use, on a root that devicemapper never ran on.
    pub awaited: Option<Awaited>,
}

/// A pool that Docker is told of and has not met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Awaited {
    /// Its dm name.
    pub pool: String,
    /// The root that Docker will use it for.
    pub root: PathBuf,
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

/// Looks at what [`find`] and [`at`] look at below a root: to be asked of somebody who can be given up, since what a root
/// lies on may hang. Nobody waits who looks again.
pub fn touch(path: &Path) {
    let _ = read_if_there(path, About::only(Standing::Left));
}

/// Whether a path can be looked at without waiting for ever; why not.
pub type Answers<'a> = &'a dyn Fn(&Path) -> Result<(), String>;

/// Returns the Docker roots of this machine that use devicemapper, each once: those of the running daemons, the one that
/// the next daemon will use, and Docker's own place when it has one that nobody uses. A daemon in a container is passed
/// over: its root is not ours. One that does not answer is unreadable.
pub fn find(answers: Answers<'_>) -> Roots {
    of(Path::new("/"), dockerd::running(), answers)
}

/// Returns what [`find`] does, and looks at every process for daemons: for a pool that none of those roots explains.
pub fn find_all(answers: Answers<'_>) -> Roots {
    of(Path::new("/"), dockerd::all(), answers)
}

/// Returns the path of the root that this machine's Docker uses, or will use, whatever its storage driver.
pub fn in_use() -> PathBuf {
    let daemon = dockerd::running().into_iter().next();
    daemon.map_or_else(|| Configuration::of_next(Path::new("/")), |daemon| Configuration::of_running(&daemon)).root()
}

/// Whether a daemon of this machine runs on a root.
pub fn runs_on(root: &Path) -> bool {
    !daemons_on(root).is_empty()
}

/// Returns the daemons of this machine that run on a root.
pub fn daemons_on(root: &Path) -> Vec<Dockerd> {
    let mut daemons = dockerd::all();
    daemons.retain(|daemon| {
        let of_daemon = Configuration::of_running(daemon).root();
        seen_by_both(daemon, &of_daemon) && (of_daemon == root || same(&of_daemon, root))
    });
    daemons
}

fn of(base: &Path, daemons: Vec<Dockerd>, answers: Answers<'_>) -> Roots {
    let next = Configuration::of_next(base);
    let next_root = super::start::below(base, &next.root());
    let mut asked = Asked { answers, before: BTreeMap::new() };
    let mut roots = Roots::default();
    for daemon in daemons {
        let configuration = Configuration::of_running(&daemon);
        let root = configuration.root();
        if let Err(why) = asked.of(&root) {
            roots.take(&root, Err(why));
        } else if seen_by_both(&daemon, &root) {
            let is_next = root == next_root || asked.of(&next_root).is_ok() && same(&root, &next_root);
            let about = About {
                standing: Standing::Running,
                daemon: Some(daemon),
                configuration,
                next: is_next.then(|| next.clone()),
            };
            roots.take(&root, read_if_there(&root, about));
        }
    }
    let awaited = awaited(&next, &next_root);
    let about = About { standing: Standing::Configured, daemon: None, configuration: next, next: None };
    let read = asked.of(&next_root).and_then(|()| read_if_there(&next_root, about));
    roots.awaited = awaited.filter(|_| matches!(read, Ok(None)));
    roots.take(&next_root, read);
    let usual = super::start::below(base, Path::new(DEFAULT_ROOT));
    match asked.of(&usual) {
        // One that was left behind must not keep anyone from the others.
        Ok(()) => roots.add(read_if_there(&usual, About::only(Standing::Left)).unwrap_or_default()),
        Err(why) => roots.take(&usual, Err(why)),
    }
    roots
}

/// Returns the pool that a configuration names, with the root that it would be for.
fn awaited(next: &Configuration, root: &Path) -> Option<Awaited> {
    let pool = next.options().known()?.thin_pool.clone()?;
    let is_driver = next.driver().is_none_or(|driver| driver == Driver::Devicemapper.name());
    is_driver.then(|| Awaited { pool, root: root.to_owned() })
}

/// Which paths answer, each asked once.
struct Asked<'a> {
    answers: Answers<'a>,
    before: BTreeMap<PathBuf, Result<(), String>>,
}

impl Asked<'_> {
    fn of(&mut self, path: &Path) -> io::Result<()> {
        let answer = self.before.entry(path.to_owned()).or_insert_with(|| (self.answers)(path));
        answer.clone().map_err(io::Error::other)
    }
}

/// Returns the Docker root at a path that somebody named, with its daemon if one runs on it; nothing when no
/// devicemapper driver ever ran there.
///
/// # Errors
/// When the path cannot be opened, or what is below it cannot, or does not answer.
pub fn at(path: &Path, answers: Answers<'_>) -> io::Result<Option<DockerRoot>> {
    let asked = RefCell::new(Asked { answers, before: BTreeMap::new() });
    asked.borrow_mut().of(path)?;
    let identity = Directory::open(path)?.identity()?;
    let is_it = |root: &Path| {
        let answered = asked.borrow_mut().of(root);
        answered.and_then(|()| Directory::open(root)?.identity()).is_ok_and(|other| other == identity)
    };
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
pub fn around(loop_file: &Path, answers: Answers<'_>) -> Option<DockerRoot> {
    let home = loop_file.parent()?.parent()?;
    let shape = [loop_file.parent()?, home].iter().all(|d| d.file_name().is_some_and(|name| name == "devicemapper"));
    if !shape || !loop_file.file_name().is_some_and(|name| name == "data" || name == "metadata") {
        return None;
    }
    let root = home.parent()?;
    answers(root).ok()?;
    read_if_there(root, About::only(Standing::Left)).ok().flatten()
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

/// Whether a file, which need not be there, is the same one to a daemon and to us; not so for a daemon in a container.
pub fn file_seen_by_both(daemon: &Dockerd, file: &Path) -> bool {
    let beside = PathBuf::from(format!("/proc/{}/root", daemon.pid));
    let identity = |path: &Path| path.metadata().ok().map(|found| (found.dev(), found.ino()));
    // One that is made later is made in the nearest folder that is there.
    let there = file.ancestors().find_map(|path| Some((path.strip_prefix("/").ok()?, identity(path)?)));
    there.is_some_and(|(relative, own)| identity(&beside.join(relative)) == Some(own))
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
        let roots = of(base, daemons, &|_| Ok(())).found;
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
        let daemon =
            Dockerd { pid: std::process::id(), flags: Flags::parse(line.as_bytes()).unwrap(), driver_variable: None };
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
    fn a_pool_that_docker_is_told_of_is_awaited_until_its_root_is_there() {
        let temp = tempfile::tempdir().unwrap();
        let base = temp.path();
        fs::create_dir_all(base.join("etc/docker")).unwrap();
        let awaited = |json: &str| {
            fs::write(base.join("etc/docker/daemon.json"), json).unwrap();
            of(base, vec![], &|_| Ok(())).awaited.map(|awaited| awaited.pool)
        };
        let told = r#"{"storage-opts": ["dm.thinpooldev=/dev/mapper/p0"]}"#;
        assert_eq!(awaited(told).as_deref(), Some("p0"));
        assert_eq!(awaited("{}"), None);
        assert_eq!(awaited(&told.replacen('{', r#"{"storage-driver": "overlay2", "#, 1)), None);
        assert_eq!(awaited(&told.replacen('{', r#"{"storage-driver": "devicemapper", "#, 1)).as_deref(), Some("p0"));
        lay_out(&base.join("var/lib/docker"));
        assert_eq!(awaited(told), None, "its root says that the pool is its own");
    }

    #[test]
    fn a_root_that_does_not_answer_is_named_and_hides_no_other() {
        let temp = tempfile::tempdir().unwrap();
        let base = temp.path();
        for root in ["srv/docker", "var/lib/docker"] {
            lay_out(&base.join(root));
        }
        fs::create_dir_all(base.join("etc/docker")).unwrap();
        fs::write(base.join("etc/docker/daemon.json"), r#"{"data-root": "/srv/docker"}"#).unwrap();
        let hung = base.join("srv/docker");
        let roots = of(base, vec![], &|path| if path == hung { Err("it hangs".to_owned()) } else { Ok(()) });
        assert_eq!(roots.unreadable, [Problem { path: hung.clone(), why: "it hangs".to_owned() }]);
        assert_eq!(roots.found.iter().map(|root| root.standing).collect::<Vec<_>>(), [Standing::Left]);
    }

    #[test]
    fn a_root_is_found_around_the_files_of_a_pool() {
        let temp = tempfile::tempdir().unwrap();
        lay_out(temp.path());
        let file = temp.path().join("devicemapper/devicemapper/data");
        let answers = |_: &Path| Ok(());
        let found = around(&file, &answers).unwrap();
        assert_eq!((found.standing, &found.options), (Standing::Left, &Options::Unknown));
        assert_eq!(found.path, temp.path().canonicalize().unwrap());
        for other in ["devicemapper/data", "devicemapper/devicemapper/other", "data"] {
            assert_eq!(around(&temp.path().join(other), &answers), None, "{other}");
        }
        assert!(at(&temp.path().join("no"), &answers).is_err());
        assert_eq!(at(temp.path(), &answers).unwrap().unwrap().standing, Standing::Named);
        let hangs = |_: &Path| Err("it hangs".to_owned());
        assert_eq!(at(temp.path(), &hangs).unwrap_err().to_string(), "it hangs");
    }
    #[test]
    fn a_file_is_the_same_to_who_has_the_same_file_there() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("docker/daemon.json");
        let daemon = |pid| Dockerd { pid, flags: Flags::default(), driver_variable: None };
        let sees = |pid| file_seen_by_both(&daemon(pid), &file);
        assert!(sees(std::process::id()), "also one that is made later");
        fs::create_dir(file.parent().unwrap()).unwrap();
        fs::write(&file, "{}").unwrap();
        assert!(sees(std::process::id()));
        assert!(!sees(u32::MAX), "nobody sees what cannot be looked at");
    }
}
