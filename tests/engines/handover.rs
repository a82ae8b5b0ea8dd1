//! Pools made for Docker and containerd: the engines themselves start on what was written into their configuration.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lab::guest::boot;
use lab::guest::disk::{Kind, Mounted};
use lab::guest::docker::{Config, DAEMON_JSON, Docker, find};
use lab::guest::run::{Cmd, Running};
use lab::guest::sys;

use crate::host::assert_refused;
use crate::support::at_boot::AtBoot;
use crate::support::health::Said;
use crate::support::{Bench, volume};

const DEFAULTS: &str = "/etc/default/docker";
pub const CONTAINERD: &str = "/etc/containerd/config.toml";
const PATIENCE: Duration = Duration::from_secs(120);

/// A file of the machine, which says again what it said when this is dropped. What dmpool kept beside it goes.
pub struct Kept {
    path: PathBuf,
    before: Option<Vec<u8>>,
}

impl Kept {
    pub fn new(path: &str, text: &str) -> Self {
        let path = PathBuf::from(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let before = fs::read(&path).ok();
        fs::write(&path, text).unwrap();
        Self { path, before }
    }

    pub fn text(&self) -> String {
        fs::read_to_string(&self.path).unwrap()
    }

    fn backup(&self) -> PathBuf {
        PathBuf::from(format!("{}.before-dmpool", self.path.display()))
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = match &self.before {
            Some(bytes) => fs::write(&self.path, bytes),
            None => fs::remove_file(&self.path),
        };
        let _ = fs::remove_file(self.backup());
    }
}

/// An empty Docker root on a file system of its own.
fn root(bench: &Bench) -> (Mounted, PathBuf) {
    let disk = Mounted::format(Kind::Xfs, &boot::scratch_disks()[0], &bench.sweep.path("docker")).unwrap();
    let root = disk.dir().join("root");
    fs::create_dir_all(&root).unwrap();
    (disk, root)
}

/// The arguments that make this test's pool for an engine.
pub fn create(bench: &Bench, engine: &str, more: &[&str]) -> Vec<String> {
    let (pool, dir) = (bench.pool(), bench.dir.to_str().unwrap().to_owned());
    let words = ["create", &pool, "--dir", &dir, "--data-size", "1G", "--metadata-size", "16M", "--for", engine];
    words.iter().chain(more).map(|word| (*word).to_owned()).collect()
}

pub fn words(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

/// What a daemon in a guest needs, whatever its storage, as options of the driver.
pub fn udev_option() -> &'static str {
    if sys::udev_answers() { "dm.min_free_space=5%" } else { "dm.override_udev_sync_check=true" }
}

#[test]
fn docker_starts_on_the_pool_that_was_made_for_it_and_finds_it_again() {
    let (bench, _at_boot) = (Bench::new(), AtBoot::none());
    let (disk, root) = root(&bench);
    // Written by hand: foreign keys, no order, no one way to set a line.
    let text = format!(
        "{{\n  \"data-root\" : \"{}\",\n  \"iptables\":false,   \"bridge\": \"none\",\n\n  \"labels\": [ \"a=b\",\"c=d\" ],\n  \
         \"storage-driver\": \"overlay2\",\n  \"storage-opts\": [\"{}\", \"dm.basesize=1G\"]\n}}",
        root.display(),
        udev_option()
    );
    let json = Kept::new(DAEMON_JSON, &text);
    fs::create_dir_all(root.join("overlay2/l")).unwrap();
    let args = create(&bench, "docker", &[]);

    let described = bench.cmd(&words(&args)).arg("--dry-run").run().checked().unwrap().stdout;
    let pool = bench.pool();
    let added = format!("\"dm.thinpooldev=/dev/mapper/{pool}\", \"dm.blkdiscard=true\"]");
    let lines = [
        "+++ /etc/docker/daemon.json".to_owned(),
        "-  \"storage-driver\": \"overlay2\",".to_owned(),
        "+  \"storage-driver\": \"devicemapper\",".to_owned(),
        format!("+  \"storage-opts\": [\"{}\", \"dm.basesize=1G\", {added}", udev_option()),
    ];
    for line in lines {
        assert!(described.lines().any(|other| other == line), "`{line}` is missing: {described}");
    }
    assert_eq!(json.text(), text, "only described");

    let made = bench.cmd(&words(&args)).run().checked().unwrap();
    let wanted = text.replace("overlay2", "devicemapper").replace("1G\"]", &format!("1G\", {added}"));
    assert_eq!((json.text(), fs::read_to_string(json.backup()).unwrap()), (wanted.clone(), text.clone()));
    assert!(made.stderr.contains("with overlay2 stays there"), "{made}");
    let table = sys::dmsetup(["table", &pool]).run().checked().unwrap().stdout;
    assert!(table.contains("skip_block_zeroing"), "{table}");
    let again = bench.cmd(&words(&args)).arg("--ensure").run().checked().unwrap();
    assert!(again.stdout.contains("unchanged"), "{again}");

    let mut docker = Docker::start_as_told(Config::new(&root), None).unwrap();
    docker.busybox(&[]).unwrap();
    docker.run_detached(&["--name", "kept"], &["sh", "-c", "echo here >/data/file; sync"]).unwrap();
    assert_eq!(docker.pool().unwrap(), pool);
    docker.cmd(["wait", "kept"]).run().checked().unwrap();

    // It is Docker's now: it does not go under it, and no other engine is told of it.
    let told = format!("dm.thinpooldev=/dev/mapper/{pool} in {DAEMON_JSON}");
    assert_refused(&bench.run(&["destroy", &pool, "--yes"]), 3, &["Docker runs, and is told to use it", &told, "stop"]);
    let containerd = bench.cmd(&words(&create(&bench, "containerd", &[]))).arg("--ensure").run();
    assert_refused(&containerd, 3, &["Docker is told to use a pool of that name", &told, "choose another name"]);
    let section = "[plugins.\"io.containerd.snapshotter.v1.devmapper\"]";
    let both = Kept::new(CONTAINERD, &format!("version = 2\n{section}\npool_name = \"{pool}\"\n"));
    let said = Said::about(&bench, &pool, &[]);
    assert!(said.sentence("two_users", "warning").contains(CONTAINERD));
    assert!(said.by_hand("two_users", "warning").contains("if it is Docker's pool"));
    drop(both);
    Said::about(&bench, &pool, &[]).without("two_users");

    // As at a reboot: the pool is gone, and comes up before Docker does.
    docker.stop().unwrap();
    bench.ok(&["deactivate", &pool]);
    bench.ok(&["activate", &pool]);
    docker.up().unwrap();
    let copied = bench.sweep.path("copied");
    docker.cmd(["cp", "kept:/data/file"]).arg(&copied).run().checked().unwrap();
    assert_eq!(fs::read_to_string(copied).unwrap(), "here\n");
    docker.stop().unwrap();
    let described = bench.ok(&["destroy", &pool, "--with-volumes", "--dry-run"]);
    assert!(described.contains(&format!("Docker is told of it by {DAEMON_JSON}")), "{described}");

    // A root with images of another pool's is not handed a new one, nor a Docker that is told of another.
    let other = bench.sweep.name("other");
    let refused = |said: &[&str]| {
        let mut args = words(&args);
        args[1] = &other;
        assert_refused(&bench.run(&args), 3, said);
        assert!(!sys::dm_exists(&other).unwrap());
    };
    refused(&["told of another storage", "dm.thinpooldev"]);
    fs::write(DAEMON_JSON, &text).unwrap();
    refused(&["holds images or containers of devicemapper", root.to_str().unwrap()]);
    fs::write(DAEMON_JSON, "{").unwrap();
    refused(&["cannot be read", DAEMON_JSON]);
    drop(docker);
    bench.ok(&["destroy", &pool, "--yes", "--with-volumes"]);
    drop(json);
    drop(disk);
}

#[test]
fn docker_with_its_options_in_a_file_of_variables_starts_on_its_pool() {
    let (bench, _at_boot) = (Bench::with_faults(), AtBoot::none());
    // The pool is all that this is about.
    bench.ok(&["activate", "--all", "--at-boot"]);
    let (disk, root) = root(&bench);
    let json = Kept::new(
        DAEMON_JSON,
        &format!("{{\"data-root\": \"{}\", \"iptables\": false, \"bridge\": \"none\"}}\n", root.display()),
    );
    let text = format!("# Docker's\nDOCKER_OPTS=\"--debug --storage-opt {}\" # own\n", udev_option());
    let variables = Kept::new(DEFAULTS, &text);
    let (before, pool) = (json.text(), bench.pool());
    let args = create(&bench, "docker", &[]);

    // The last step is the one that writes; it fails, it dies, and is taken back and finished.
    let described = bench.cmd(&words(&args)).arg("--dry-run").run().checked().unwrap().stdout;
    let writes = described.lines().find(|line| line.contains(&format!("write {DEFAULTS}"))).unwrap();
    let step = writes.trim().split('.').next().unwrap().to_owned();
    let fault =
        |point: &str, how: &str| bench.cmd(&words(&args)).env("DMPOOL_FAULT", format!("{step}:{point}:{how}")).run();
    let is_as_it_was = || {
        assert_eq!((variables.text(), json.text()), (text.clone(), before.clone()));
        assert!(!variables.backup().exists() && !sys::dm_exists(&pool).unwrap());
    };
    for point in ["before", "after"] {
        assert_eq!(fault(point, "fail").code(), Some(1), "{point}");
        is_as_it_was();
        fault(point, "die");
        assert!(bench.ok(&["undo"]).starts_with("taken back"), "{point}");
        is_as_it_was();
    }
    fault("after", "die");
    // What somebody has changed since is his, and the pool that it may speak of stays.
    fs::write(DEFAULTS, "DOCKER_OPTS=\"--debug\"\n").unwrap();
    assert!(bench.ok(&["undo"]).contains("was changed since"));
    assert!(sys::dm_exists(&pool).unwrap() && variables.text() == "DOCKER_OPTS=\"--debug\"\n");
    fs::write(DEFAULTS, &text).unwrap();
    fs::remove_file(variables.backup()).unwrap();

    // The pool is there, and is handed over alone; but not once somebody has a volume on it.
    let described = bench.cmd(&words(&args)).args(["--ensure", "--dry-run"]).run().checked().unwrap().stdout;
    assert!(described.contains("hand pool") && described.contains("  1. write") && !described.contains("  2. "));
    let name = bench.sweep.name("v");
    let of = format!("of={}", volume(&pool, 0, &name, 1 << 20).display());
    Cmd::new("dd").args(["if=/dev/zero", &of, "bs=64K", "count=1", "conv=fsync"]).run().checked().unwrap();
    sys::dmsetup(["remove", "--retry", &name]).run().checked().unwrap();
    assert_refused(
        &bench.cmd(&words(&args)).arg("--ensure").run(),
        3,
        &["has volumes already", "data blocks in use: 1"],
    );
    bench.ok(&["destroy", &pool, "--yes", "--with-volumes"]);
    fault("after", "die");
    assert!(bench.ok(&["continue"]).starts_with("finished"));
    let driven = format!(
        "{} --storage-driver devicemapper --storage-opt dm.thinpooldev=/dev/mapper/{pool} --storage-opt dm.blkdiscard=true\"",
        udev_option()
    );
    assert_eq!(variables.text(), text.replace(&format!("{}\"", udev_option()), &driven));
    assert_eq!(json.text(), before, "never the same key twice");

    let line = format!(". {DEFAULTS}; exec dockerd $DOCKER_OPTS");
    let docker = Docker::start_as_told(Config { line, ..Config::new(&root) }, None).unwrap();
    assert_eq!(docker.pool().unwrap(), pool);
    drop(docker);
    bench.ok(&["destroy", &pool, "--yes", "--with-volumes"]);
    drop((json, variables));
    drop(disk);
}

/// A containerd that reads the usual file; ended when dropped, its volumes gone.
pub struct Containerd {
    socket: PathBuf,
    pool: String,
    daemon: Option<Running>,
}

impl Containerd {
    pub fn start(bench: &Bench) -> Self {
        let dir = bench.sweep.dir();
        Self::at(&dir.join("containerd.sock"), &dir.join("containerd.log"), &bench.pool())
    }

    /// One that listens there by its configuration, with that pool.
    pub fn at(socket: &Path, log: &Path, pool: &str) -> Self {
        let line = format!("exec containerd >>{} 2>&1", log.display());
        let daemon = Cmd::new("sh").args(["-c", &line]).limit(Duration::from_secs(86400)).start().unwrap();
        let containerd = Self { socket: socket.to_owned(), pool: pool.to_owned(), daemon: Some(daemon) };
        let until = Instant::now() + PATIENCE;
        while !containerd.ctr(&["plugins", "ls"]).run().ok() {
            let log = || fs::read_to_string(log).unwrap_or_default();
            assert!(Instant::now() < until, "containerd does not answer: {}", log());
            std::thread::sleep(Duration::from_millis(100));
        }
        containerd
    }

    pub fn ctr(&self, args: &[&str]) -> Cmd {
        Cmd::new("ctr").arg("--address").arg(&self.socket).args(args).limit(PATIENCE)
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            let _ = daemon.kill();
        }
        let own = format!("{}-snap", self.pool);
        for name in sys::dm_names().unwrap_or_default().iter().filter(|name| name.starts_with(&own)) {
            let _ = sys::dmsetup(["remove", "--retry", name]).run();
        }
    }
}

/// An archive as `docker save` writes it, of one layer with these programs in it.
pub fn image(dir: &Path, programs: &[&str]) -> PathBuf {
    let root = dir.join("image/root/bin");
    fs::create_dir_all(&root).unwrap();
    for program in programs {
        fs::copy(find(program).unwrap(), root.join(program)).unwrap();
    }
    let image = dir.join("image");
    let tar = |args: &[&str]| Cmd::new("tar").arg("-C").arg(&image).args(args).run().checked().unwrap();
    tar(&["-cf", image.join("layer.tar").to_str().unwrap(), "-C", "root", "."]);
    let sum = Cmd::new("sha256sum").arg(image.join("layer.tar")).run().checked().unwrap().stdout;
    let layer = sum.split_whitespace().next().unwrap();
    let config = format!(
        "{{\"architecture\":\"amd64\",\"os\":\"linux\",\"config\":{{}},\"rootfs\":{{\"type\":\"layers\",\"diff_ids\":[\"sha256:{layer}\"]}}}}"
    );
    fs::write(image.join("config.json"), config).unwrap();
    let manifest = r#"[{"Config":"config.json","RepoTags":["dmpool-test/bb:1"],"Layers":["layer.tar"]}]"#;
    fs::write(image.join("manifest.json"), manifest).unwrap();
    let archive = dir.join("image.tar");
    tar(&["-cf", archive.to_str().unwrap(), "manifest.json", "config.json", "layer.tar"]);
    archive
}

#[test]
fn containerd_starts_on_the_pool_that_was_made_for_it_and_runs_an_image() {
    let (bench, _at_boot) = (Bench::new(), AtBoot::none());
    let dir = bench.sweep.dir().display().to_string();
    let section = "[plugins.\"io.containerd.snapshotter.v1.devmapper\"]";
    let text = format!(
        "version = 2 # of the file\nroot = \"{dir}/root\"\nstate = \"{dir}/state\"\n# off: no Kubernetes here\n\
         disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\n[grpc]\n  address = \"{dir}/containerd.sock\"\n\n\
         {section}\n  # small\n  base_image_size = \"64MB\"\n\n[timeouts]\n  # mine\n"
    );
    let config = Kept::new(CONTAINERD, &text);
    let (args, pool) = (create(&bench, "containerd", &[]), bench.pool());
    let refused = bench.run(&words(&create(&bench, "containerd", &["--no-zero"])));
    assert_refused(&refused, 3, &["does not zero", "--no-zero"]);
    let made = bench.cmd(&words(&args)).run().checked().unwrap();
    assert!(made.stderr.contains("containerd uses the pool when it starts"), "{made}");
    let added = format!("\"64MB\"\n  pool_name = \"{pool}\"\n  discard_blocks = true\n");
    assert_eq!(config.text(), text.replace("\"64MB\"\n", &added));
    let table = sys::dmsetup(["table", &pool]).run().checked().unwrap().stdout;
    assert!(!table.contains("skip_block_zeroing"), "{table}");
    assert!(bench.cmd(&words(&args)).arg("--ensure").run().checked().unwrap().stdout.contains("unchanged"));

    let containerd = Containerd::start(&bench);
    let plugins = containerd.ctr(&["plugins", "ls"]).run().checked().unwrap().stdout;
    let plugin = plugins.lines().find(|line| line.contains("devmapper")).unwrap();
    assert!(plugin.trim_end().ends_with("ok"), "{plugins}");
    let archive = image(bench.sweep.dir(), &["busybox"]);
    containerd.ctr(&["images", "import", "--snapshotter", "devmapper"]).arg(&archive).run().checked().unwrap();
    let run = ["run", "--rm", "--snapshotter", "devmapper", "docker.io/dmpool-test/bb:1", "one"];
    let ran = containerd.ctr(&run).args(["/bin/busybox", "echo", "here"]).run().checked().unwrap();
    assert_eq!(ran.stdout.trim(), "here", "{ran}");
    drop(containerd);

    // A pool of another name finds the snapshots of this one: nothing is written over them.
    fs::write(CONTAINERD, &text).unwrap();
    let mut other = words(&args);
    let name = bench.sweep.name("other");
    other[1] = &name;
    assert_refused(&bench.run(&other), 3, &["snapshots of another pool", "metadata.db"]);
    bench.ok(&["destroy", &pool, "--yes", "--with-volumes"]);
}
