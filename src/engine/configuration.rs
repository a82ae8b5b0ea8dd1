//! What a Docker daemon is told about its storage: by its command line and by `daemon.json`, which may not both say it.

use std::io;
use std::path::{Path, PathBuf};

use super::daemon_json::{self, DaemonJson};
use super::docker_root::{DEFAULT_ROOT, Options, Problem};
use super::dockerd::{Dockerd, Flags};
use super::options::StorageOptions;
use super::small_file;
use super::start::{self, Instead, Start, Starter};

/// No daemon.json in use comes near this.
const LARGEST: u64 = 1 << 20;

/// Keys that may be on the command line and in the file (`skipDuplicates`, daemon/config/config.go).
const MAY_BE_TWICE: [&str; 1] = ["runtimes"];

/// An option that the command line and `daemon.json` both set: Docker refuses to start (`the following directives are
/// specified both as a flag and in the configuration file`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Twice {
    /// Its key in the file: `storage-opts`.
    pub key: String,
    /// What the command line says.
    pub flag: String,
    /// Where the command line is written: the unit, or an init script's file.
    pub from: PathBuf,
    /// What the file says, as JSON.
    pub value: String,
    /// The file.
    pub file: PathBuf,
}

/// All that a daemon is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    /// What its command line says; nothing when that is not known.
    pub flags: Option<Flags>,
    /// Where its command line is written; nothing for a daemon that runs.
    pub from: Option<PathBuf>,
    /// What starts it; as above.
    pub starter: Option<Starter>,
    /// What its file says.
    pub json: DaemonJson,
    /// The storage driver that its environment names, which counts more than both.
    pub driver_variable: Option<String>,
    /// What is set in both.
    pub twice: Vec<Twice>,
    /// What could not be read.
    pub problems: Vec<Problem>,
    runs: bool,
    json_is_whole: bool,
}

impl Configuration {
    /// Returns what a running daemon was told. Its file may have been changed since.
    pub fn of_running(daemon: &Dockerd) -> Self {
        let file = daemon.flags.config_file.clone().unwrap_or_else(|| daemon_json::DEFAULT_PATH.into());
        let (json, problem) = read_json(&file);
        Self {
            flags: Some(daemon.flags.clone()),
            from: None,
            starter: None,
            json_is_whole: problem.is_none(),
            json,
            driver_variable: daemon.driver_variable.clone(),
            twice: Vec::new(),
            problems: problem.into_iter().collect(),
            runs: true,
        }
    }

    /// Returns what the next daemon will be told on the machine whose root directory that is.
    pub fn of_next(base: &Path) -> Self {
        Self::of_start(base, &start::read(base), &Instead::new())
    }

    /// Returns what the next daemon will be told that is started that way, did some files say something else.
    pub fn of_start(base: &Path, start: &Start, instead: &Instead) -> Self {
        let start = start.clone();
        let starter = start.starter(base);
        let file = start.daemon_json(base);
        let (json, problem) = match instead.get(&file) {
            Some(text) => json_of(&file, text.as_bytes()),
            None => read_json(&file),
        };
        let twice = match (&start.flags, &start.from) {
            (Some(flags), Some(from)) => both(flags, from, &json, &file),
            _ => Vec::new(),
        };
        Self {
            flags: start.flags,
            from: start.from,
            starter,
            json_is_whole: problem.is_none(),
            json,
            driver_variable: start.driver_variable,
            twice,
            problems: start.problems.into_iter().chain(problem).collect(),
            runs: false,
        }
    }

    /// Returns the root that the daemon uses.
    pub fn root(&self) -> PathBuf {
        let of_flags = self.flags.as_ref().and_then(|flags| flags.root.clone());
        of_flags.or_else(|| self.json.root().map(PathBuf::from)).unwrap_or_else(|| PathBuf::from(DEFAULT_ROOT))
    }

    /// Returns the storage driver that it is told to use, by name.
    pub fn driver(&self) -> Option<&str> {
        let of_flags = self.flags.as_ref().and_then(|flags| flags.storage_driver.as_deref());
        self.driver_variable.as_deref().or(of_flags).or(self.json.storage_driver.as_deref())
    }

    /// Returns every storage option that it is given, as written: those of its file first.
    pub fn given_options(&self) -> Vec<&str> {
        let of_json = self.json.storage_options.iter().flatten();
        let of_flags = self.flags.iter().flat_map(|flags| &flags.storage_options);
        of_json.chain(of_flags).map(String::as_str).collect()
    }

    /// Returns its storage options, when all that could give some was read.
    pub fn options(&self) -> Options {
        let of_json = self.json.storage_options.as_deref();
        let of_flags = self.flags.as_ref().map(|flags| flags.storage_options.as_slice());
        let all = || {
            let given = of_json.unwrap_or_default().iter().chain(of_flags.unwrap_or_default());
            StorageOptions::parse(given.map(String::as_str))
        };
        match (self.runs, of_flags, of_json) {
            // An unreadable file may give options; a running daemon that has its own would have refused to start.
            (true, Some([]), None) if !self.json_is_whole => Options::Unknown,
            (true, ..) => Options::Running(all()),
            (false, Some(_), _) if self.json_is_whole => Options::Configured(all()),
            // A daemon that has options in its file takes none from its command line.
            (false, _, Some(_)) => Options::Configured(all()),
            (false, _, None) => Options::Unknown,
        }
    }
}

fn both(flags: &Flags, from: &Path, json: &DaemonJson, file: &Path) -> Vec<Twice> {
    let set = flags.keys.iter().filter(|(key, _)| !MAY_BE_TWICE.contains(&key.as_str()));
    set.filter_map(|(key, values)| {
        Some(Twice {
            key: key.clone(),
            flag: values.join(" "),
            from: from.to_owned(),
            value: json.keys.get(key)?.clone(),
            file: file.to_owned(),
        })
    })
    .collect()
}

fn read_json(path: &Path) -> (DaemonJson, Option<Problem>) {
    match small_file::read_at(path, LARGEST) {
        Ok(bytes) => json_of(path, &bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => (DaemonJson::default(), None),
        Err(error) => bad_json(path, error.to_string()),
    }
}

fn json_of(path: &Path, bytes: &[u8]) -> (DaemonJson, Option<Problem>) {
    match DaemonJson::parse(bytes) {
        Ok(json) => (json, None),
        Err(error) => bad_json(path, format!("it is not what Docker reads: {error}")),
    }
}

fn bad_json(path: &Path, why: String) -> (DaemonJson, Option<Problem>) {
    (DaemonJson::default(), Some(Problem { path: path.to_owned(), why }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use std::fs;

    use super::*;

    fn machine(files: &[(&str, &str)]) -> (tempfile::TempDir, Configuration) {
        let temp = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = temp.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let next = Configuration::of_next(temp.path());
        (temp, next)
    }

    const UNIT: &str = "lib/systemd/system/docker.service";
    const DEBIAN: &str =
        "[Service]\nEnvironmentFile=-/etc/default/docker\nExecStart=/usr/sbin/dockerd -H fd:// $DOCKER_OPTS\n";

    #[test]
    fn with_a_unit_the_options_of_the_next_daemon_are_known() {
        let (_temp, next) =
            machine(&[(UNIT, DEBIAN), ("etc/default/docker", "DOCKER_OPTS='-g /srv -s devicemapper'\n")]);
        assert_eq!(next.options(), Options::Configured(StorageOptions::default()));
        assert_eq!((next.root(), next.driver()), (PathBuf::from("/srv"), Some("devicemapper")));

        let json = r#"{"data-root": "/d", "storage-driver": "overlay2", "storage-opts": ["dm.min_free_space=5%"]}"#;
        let (_temp, next) = machine(&[(UNIT, DEBIAN), ("etc/docker/daemon.json", json)]);
        assert_eq!(next.options().known().unwrap().min_free_space_percent, Some(5));
        assert_eq!((next.root(), next.driver(), next.twice.len()), (PathBuf::from("/d"), Some("overlay2"), 0));
    }

    #[test]
    fn the_driver_in_the_environment_counts_most() {
        let json = r#"{"storage-driver": "devicemapper"}"#;
        let files =
            [(UNIT, DEBIAN), ("etc/docker/daemon.json", json), ("etc/default/docker", "DOCKER_DRIVER=overlay2\n")];
        let (_temp, next) = machine(&files);
        assert_eq!((next.driver(), next.twice.len()), (Some("overlay2"), 0));
        let flags = Flags::parse(b"dockerd\0--config-file\0/none\0-s\0devicemapper").unwrap();
        let daemon = Dockerd { pid: 1, flags, driver_variable: Some("vfs".to_owned()) };
        assert_eq!(Configuration::of_running(&daemon).driver(), Some("vfs"));
    }

    #[test]
    fn without_one_only_a_file_with_options_tells_them() {
        assert_eq!(machine(&[]).1.options(), Options::Unknown);
        assert_eq!(machine(&[("etc/docker/daemon.json", "{}")]).1.options(), Options::Unknown);
        let five = r#"{"storage-opts":["dm.min_free_space=5%"]}"#;
        let (_temp, next) = machine(&[("etc/docker/daemon.json", five)]);
        assert_eq!(next.options().known().unwrap().min_free_space_percent, Some(5));
        let (_temp, next) = machine(&[(UNIT, DEBIAN), ("etc/docker/daemon.json", "[")]);
        assert_eq!((next.options(), next.problems.len()), (Options::Unknown, 1));
        assert!(next.problems[0].why.contains("not what Docker reads"));
    }

    #[test]
    fn an_option_in_both_places_is_named() {
        let unit = "[Service]\nExecStart=/usr/bin/dockerd -H fd:// --storage-opt dm.basesize=20G --add-runtime a=b\n";
        let json = r#"{"hosts": ["tcp://0.0.0.0:1"], "storage-opts": ["dm.fs=xfs"], "runtimes": {}, "debug": true}"#;
        let (temp, next) = machine(&[(UNIT, unit), ("etc/docker/daemon.json", json)]);
        let said: Vec<_> = next.twice.iter().map(|t| (t.key.as_str(), t.flag.as_str(), t.value.as_str())).collect();
        assert_eq!(
            said,
            [("hosts", "fd://", r#"["tcp://0.0.0.0:1"]"#), ("storage-opts", "dm.basesize=20G", r#"["dm.fs=xfs"]"#)]
        );
        assert_eq!(next.twice[0].from, temp.path().join(UNIT));
        assert_eq!(next.twice[0].file, temp.path().join("etc/docker/daemon.json"));
    }

    #[test]
    fn a_running_daemon_was_told_what_it_was_started_with() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("daemon.json");
        let daemon = |options: &str| {
            let line = format!("dockerd\0--config-file\0{}\0{options}", file.display());
            let flags = Flags::parse(line.as_bytes()).unwrap();
            Configuration::of_running(&Dockerd { pid: 1, flags, driver_variable: None })
        };
        assert_eq!(daemon("").options(), Options::Running(StorageOptions::default()));
        let thin = "--storage-opt\0dm.thinpooldev=/dev/mapper/tp\0";
        assert_eq!(daemon(thin).options().known().unwrap().named_pool(), Some("tp"));
        fs::write(&file, "[").unwrap();
        assert_eq!(daemon("").options(), Options::Unknown);
        assert_eq!(daemon(thin).options().known().unwrap().named_pool(), Some("tp"));
    }
}
