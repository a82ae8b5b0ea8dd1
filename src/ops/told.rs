//! Which engines are told to use a pool: by what the daemons that run were told, and the next ones will be.

use std::path::Path;

use crate::engine::configuration::Configuration;
use crate::engine::docker_root::Problem;
use crate::engine::options::StorageOptions;
use crate::engine::{containerd, dockerd, start};
use crate::ops::handover::Engine;

/// An engine that is told to use a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Which.
    pub engine: Engine,
    /// The file that says so, or the process whose command line does.
    pub by: String,
    /// What in it does: `dm.thinpooldev=/dev/mapper/p0`.
    pub words: String,
    /// Whether a daemon of that configuration runs.
    pub runs: bool,
}

impl Told {
    /// Returns what must be done before its engine is started without that pool.
    pub fn way_out(&self) -> String {
        format!("take {} out of {}", self.words, self.by)
    }
}

/// A configuration of an engine that may say so, and was not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread {
    /// Of which engine.
    pub engine: Engine,
    /// The file, and why.
    pub problem: Problem,
    /// Whether a daemon of that engine runs.
    pub runs: bool,
}

impl Unread {
    /// Returns the file, and why it was not read.
    pub fn cause(&self) -> String {
        format!("{}: {}", self.problem.path.display(), self.problem.why)
    }
}

/// What the engines of a machine are told of a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Engines {
    /// Those that are told to use it, each file once.
    pub told: Vec<Told>,
    /// What may say that another one is.
    pub unread: Vec<Unread>,
}

/// Returns what the engines of this machine are told of a pool.
pub fn engines(pool: &str) -> Engines {
    let mut all = of_docker(Path::new("/"), pool, &dockerd::running());
    let containerd = of_containerd(Path::new("/"), pool);
    all.told.extend(containerd.told);
    all.unread.extend(containerd.unread);
    all
}

impl Engines {
    fn of(engine: Engine, told: Vec<Told>, problems: Vec<Problem>, runs: bool) -> Self {
        let mut unread: Vec<Unread> = Vec::new();
        for problem in problems {
            if unread.iter().all(|other| other.problem != problem) {
                unread.push(Unread { engine, problem, runs });
            }
        }
        Self { told: each_once(told), unread }
    }
}

fn of_docker(base: &Path, pool: &str, running: &[dockerd::Dockerd]) -> Engines {
    let thin_pool = |option: &String| StorageOptions::parse([option.as_str()]).thin_pool;
    // Of several the last counts: a migration adds the new pool's behind the old one's.
    let named = |options: &[String]| {
        let last = options.iter().rfind(|option| thin_pool(option).is_some())?;
        (thin_pool(last).as_deref() == Some(pool)).then(|| last.clone())
    };
    let told = |configuration: &Configuration, line: String, file: String| {
        let on_line = configuration.flags.as_ref().and_then(|flags| named(&flags.storage_options));
        let in_file = configuration.json.storage_options.as_deref().and_then(named);
        let said = on_line.map(|words| (words, line)).into_iter().chain(in_file.map(|words| (words, file)));
        let runs = !running.is_empty();
        said.map(|(words, by)| Told { engine: Engine::Docker, by, words, runs }).collect::<Vec<_>>()
    };
    let start = start::read(base);
    let next = Configuration::of_start(base, &start, &start::Instead::new());
    let file = start.daemon_json(base).display().to_string();
    let line = next.from.as_ref().map(|from| from.display().to_string()).unwrap_or_default();
    let mut found = told(&next, line, file.clone());
    let mut problems = next.problems;
    for daemon in running {
        let file = daemon.flags.config_file.as_ref().map_or_else(|| file.clone(), |named| named.display().to_string());
        let line = format!("the command line of process {}", daemon.pid);
        // A unit's command line is its daemon's.
        let configuration = Configuration::of_running(daemon);
        let of_it = told(&configuration, line, file);
        problems.extend(configuration.problems);
        found.extend(
            of_it
                .into_iter()
                .filter(|more| next.from.is_none() || found.iter().all(|other| other.words != more.words))
                .collect::<Vec<_>>(),
        );
    }
    Engines::of(Engine::Docker, found, problems, !running.is_empty())
}

fn of_containerd(base: &Path, pool: &str) -> Engines {
    let all = containerd::find();
    let of_it: Vec<_> = all.found.into_iter().filter(|snapshotter| snapshotter.pool == pool).collect();
    if of_it.is_empty() && all.problems.is_empty() {
        return Engines::default();
    }
    let (daemons, _) = containerd::daemons(base);
    let told = of_it.into_iter().map(|snapshotter| Told {
        engine: Engine::Containerd,
        runs: daemons.iter().any(|daemon| daemon.config == snapshotter.config && daemon.runs),
        words: format!("pool_name = \"{pool}\""),
        by: snapshotter.config.display().to_string(),
    });
    let told = told.collect();
    Engines::of(Engine::Containerd, told, all.problems, daemons.iter().any(|daemon| daemon.runs))
}

fn each_once(told: Vec<Told>) -> Vec<Told> {
    let mut once: Vec<Told> = Vec::new();
    for told in told {
        if once.iter().all(|other| (&other.by, other.engine) != (&told.by, told.engine)) {
            once.push(told);
        }
    }
    once
}

#[cfg(test)]
#[allow(clippy::panic, clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn docker_is_told_in_its_file_or_by_its_unit() {
        let temp = tempfile::tempdir().unwrap();
        let base = temp.path();
        let told = |pool: &str| {
            let told = of_docker(base, pool, &[]).told.into_iter();
            told.map(|t| (t.by.replacen(base.to_str().unwrap(), "", 1), t.words, t.runs)).collect::<Vec<_>>()
        };
        assert_eq!(told("p0"), []);
        fs::create_dir_all(base.join("etc/docker")).unwrap();
        let json = "/etc/docker/daemon.json".to_owned();
        fs::write(
            base.join("etc/docker/daemon.json"),
            r#"{"storage-opts": ["dm.fs=xfs", "dm.thinpooldev=/dev/mapper/p0"]}"#,
        )
        .unwrap();
        assert_eq!(told("p0"), [(json, "dm.thinpooldev=/dev/mapper/p0".to_owned(), false)]);
        assert_eq!(told("p"), []);
        let both = r#"{"storage-opts": ["dm.thinpooldev=p0", "dm.thinpooldev=p1", "dm.blkdiscard=true"]}"#;
        fs::write(base.join("etc/docker/daemon.json"), both).unwrap();
        assert_eq!((told("p0").len(), told("p1").len()), (0, 1));
        fs::write(base.join("etc/docker/daemon.json"), r#"{"storage-opts": ["dm.thinpooldev=p0"#).unwrap();
        let unread = of_docker(base, "p0", &[]).unread;
        let [Unread { engine: Engine::Docker, problem, runs: false }] = unread.as_slice() else { panic!("{unread:?}") };
        assert!(problem.path.ends_with("daemon.json") && problem.why.contains("not what Docker reads"), "{problem:?}");
        fs::write(base.join("etc/docker/daemon.json"), "{}").unwrap();
        let units = base.join("etc/systemd/system");
        fs::create_dir_all(&units).unwrap();
        let unit = "[Service]\nExecStart=/usr/bin/dockerd --storage-opt dm.thinpooldev=p0\n";
        fs::write(units.join("docker.service"), unit).unwrap();
        let by = "/etc/systemd/system/docker.service".to_owned();
        assert_eq!(told("p0"), [(by, "dm.thinpooldev=p0".to_owned(), false)]);
    }
}
