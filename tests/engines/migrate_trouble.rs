//! Docker misbehaves while its pool is migrated: it says no, hangs, does not come back, or somebody starts it.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lab::guest::boot;
use lab::guest::disk::{Kind, Mounted};
use lab::guest::docker::{Config, DAEMON_JSON, Docker, IMAGE, SOCKET};
use lab::guest::run::{Cmd, Ran};
use lab::guest::sys::{self, dmsetup};
use lab::guest::wrap::{Behaviour, Wrapped};

use crate::migrate::{WAITS, entries, of_container, without_backups};
use crate::migrate_room::is_refused_without_room;
use crate::support::Bench;

const PID: &str = "/var/run/docker.pid";
/// What the two scripts run besides, when it is there: once.
const HOOKS: [&str; 2] = ["on-stop", "on-start"];

/// A Docker behind a socket that answers some calls itself, stopped and started by scripts in which something may happen.
pub struct Trouble {
    pub docker: Docker,
    pub bench: Bench,
    pub ways: Vec<String>,
    /// What the container was like.
    pub web: String,
    pub disk: Mounted,
}

impl Trouble {
    pub fn new(bench: Bench) -> Self {
        Self::on(bench, Kind::Xfs, &boot::scratch_disks()[0])
    }

    pub fn on(bench: Bench, kind: Kind, device: &Path) -> Self {
        let disk = Mounted::format(kind, device, &bench.sweep.path("docker")).unwrap();
        let bench = bench.at(disk.dir());
        let config = Config::new(disk.dir().join("root")).option("dm.basesize=1G");
        let config = config.option("dm.loopdatasize=2G").option("dm.loopmetadatasize=16M");
        let docker = Docker::start(config).unwrap();
        docker.busybox(&[]).unwrap();
        docker.run_detached(&["--name", "web"], &WAITS).unwrap();
        assert!(docker.exec("web", &["sh", "-c", "echo by hand >/by-hand; sync"]).ok());
        // A socket that somebody listens at keeps its file system mounted.
        let (rules, socket) = (disk.dir().join("rules"), bench.sweep.path("socket"));
        answer_for_docker(&socket, &rules);
        let hook =
            |name: &str| format!("h={}/{name}; [ -e $h ] && {{ mv $h $h.done; . $h.done; }}", disk.dir().display());
        let stop = format!(
            "pid=$(cat {PID}); {}\nkill $pid; while [ -d /proc/$pid ] && ! grep -q 'State:.Z' /proc/$pid/status; do sleep 0.1; done",
            hook(HOOKS[0])
        );
        // It becomes Docker itself.
        let start = format!("{}\nexec dockerd", hook(HOOKS[1]));
        let scripts = [("stop", stop), ("start", start)].map(|(name, text)| {
            let path = disk.dir().join(name);
            fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            path.to_str().unwrap().to_owned()
        });
        let [stop, start] = scripts;
        let socket = socket.to_str().unwrap().to_owned();
        let ways = ["--docker-socket", &socket, "--stop-command", &stop, "--start-command", &start].map(str::to_owned);
        let web = of_container(&docker, "web");
        Self { docker, bench, ways: ways.to_vec(), web, disk }
    }

    /// Has the calls whose first line has these words answered so from now on: `500` or `hang`.
    fn answer(&self, rules: &[(&str, &str)]) {
        let text: String = rules.iter().map(|(call, how)| format!("{how} {call}\n")).collect();
        fs::write(self.disk.dir().join("rules"), text).unwrap();
    }

    /// Has that done once by the script that stops or starts Docker.
    pub fn hook(&self, which: &str, line: &str) {
        fs::write(self.disk.dir().join(which), format!("{line}\n")).unwrap();
    }

    fn migrate(&self, size: &str) -> Ran {
        self.migrate_with(size, "")
    }

    fn migrate_with(&self, size: &str, fault: &str) -> Ran {
        self.migrate_to(&["--data-size", size], fault)
    }

    pub fn migrate_to(&self, what: &[&str], fault: &str) -> Ran {
        let ways: Vec<&str> = self.ways.iter().map(String::as_str).collect();
        let args = [&["migrate"], what, &ways, &["--yes"]].concat();
        let began = Instant::now();
        let cmd = self.bench.cmd(&args).limit(Duration::from_secs(1500));
        let ran = if fault.is_empty() { cmd } else { cmd.env("DMPOOL_FAULT", fault) }.run();
        println!("  {} s: {ran}", began.elapsed().as_secs());
        ran
    }

    /// Fails unless Docker runs as it did on a pool of that size, with no hold and no journal, and nothing half made.
    #[track_caller]
    pub fn is_as_it_was(&self, size: &str) {
        assert_eq!(self.docker.storage_value("Data Space Total").unwrap(), size);
        assert_eq!(self.docker.exec("web", &["cat", "/by-hand"]).stdout, "by hand\n");
        assert_eq!(of_container(&self.docker, "web"), self.web);
        assert!(!fs::read_to_string(DAEMON_JSON).unwrap().contains("under way"));
        assert_eq!(entries(&self.bench.state.join("journal")), Vec::<String>::new());
        let made = entries(&self.docker.root().join("devicemapper"));
        assert!(!made.iter().any(|name| name.contains("dmpool") && !name.ends_with(".old")), "{made:?}");
        let own = |name: &&String| name.starts_with("dmpool-") && !name.starts_with(sys::PREFIX);
        assert_eq!(sys::dm_names().unwrap().iter().find(own), None);
    }

    /// Goes one way out of what was interrupted.
    #[track_caller]
    pub fn ends(&self, way: &str) -> Ran {
        let args: &[&str] = if way == "continue" { &[way, "--yes"] } else { &[way] };
        let ran = self.bench.cmd(args).limit(Duration::from_secs(600)).run();
        println!("{ran}");
        ran
    }
}

impl Drop for Trouble {
    fn drop(&mut self) {
        // Docker as dmpool has started it, which the lab does not know as its child.
        let _ = Cmd::new("sh").args(["-c", "docker rm -f $(docker ps -aq)"]).run();
        let _ = Cmd::new("sh").args(["-c", &format!("kill -CONT $(cat {PID})")]).run();
        if let Some(stop) = self.ways.get(3) {
            let _ = Cmd::new(stop).run();
        }
        without_backups();
    }
}

/// Listens beside Docker. Calls that the file `rules` names are answered as it says, all others by Docker.
fn answer_for_docker(socket: &Path, rules: &Path) {
    let listener = UnixListener::bind(socket).unwrap();
    let rules = rules.to_owned();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let rules = rules.clone();
            std::thread::spawn(move || pass_on(stream, &rules));
        }
    });
}

fn pass_on(mut stream: UnixStream, rules: &PathBuf) -> Option<()> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.extend(byte);
    }
    let call = String::from_utf8_lossy(&head).lines().next()?.to_owned();
    let rule = || {
        let text = fs::read_to_string(rules).unwrap_or_default();
        let rule = text.lines().find(|line| line.split_once(' ').is_some_and(|(_, words)| call.contains(words)));
        rule.map(|line| line.starts_with("hang"))
    };
    match rule() {
        Some(false) => {
            let body = "{\"message\":\"no luck today\"}";
            let answer = format!("HTTP/1.1 500 x\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            stream.write_all(answer.as_bytes()).ok()
        }
        Some(true) => {
            while rule() == Some(true) {
                std::thread::sleep(Duration::from_millis(50));
            }
            None
        }
        None => {
            let mut docker = UnixStream::connect(SOCKET).ok()?;
            docker.write_all(&head).ok()?;
            std::io::copy(&mut docker, &mut stream).ok().map(drop)
        }
    }
}

/// Fails unless dmpool ended with that exit code and an error that has these words.
#[track_caller]
pub fn says(ran: &Ran, code: i32, words: &[&str]) {
    assert_eq!(ran.code(), Some(code), "{ran}");
    assert!(ran.stderr.lines().any(|line| line.starts_with("dmpool: ")), "{ran}");
    for words in words {
        assert!(ran.stderr.contains(words), "`{words}` is missing: {ran}");
    }
}

fn docker_pid() -> u32 {
    fs::read_to_string(PID).unwrap().trim().parse().unwrap()
}

fn signal(what: &str) {
    Cmd::new("kill").args([what, &docker_pid().to_string()]).run().checked().unwrap();
}

#[test]
fn a_docker_that_says_no_or_does_not_come_back_loses_nothing() {
    boot::time_limit(Duration::from_secs(600));
    let it = Trouble::new(Bench::new());

    // Before anything is stopped.
    is_refused_without_room(&it, 8 << 20);
    let pid = docker_pid();
    it.answer(&[("/info", "500")]);
    says(&it.migrate("3G"), 3, &["does not say what runs in it", "500: no luck today"]);
    it.answer(&[("/networks", "500")]);
    let ran = it.migrate("3G");
    says(&ran, 1, &["step 1 of", "/networks` with 500: no luck today", "everything that had been done was taken back"]);
    signal("-STOP");
    let stopped = it.migrate("3G");
    signal("-CONT");
    says(&stopped, 3, &["was stopped by a signal", &format!("kill -CONT {pid}")]);
    // In the middle of what is small.
    it.answer(&[("/stop HTTP", "500")]);
    let ran = it.migrate("3G");
    says(&ran, 1, &["stopping the container `web`", "500: no luck today", "taken back"]);
    assert_eq!(docker_pid(), pid, "Docker went on all the while");
    it.answer(&[]);
    it.is_as_it_was("2.147GB");

    // It was started, and what is asked then is not answered: it has run, and nothing leads back.
    let rules = it.disk.dir().join("rules");
    it.hook("on-start", &format!("echo '500 /images/json' >{}", rules.display()));
    let ran = it.migrate("3G");
    says(&ran, 4, &["/images/json` with 500", "Docker has run on what was made", "dmpool continue"]);
    assert!(!ran.stderr.contains("or dmpool undo"), "{ran}");
    says(&it.ends("undo"), 3, &["Docker has run since on what was made"]);
    it.answer(&[]);
    assert!(it.ends("continue").ok());
    it.is_as_it_was("3.221GB");

    // Two whole migrations more.
    if !boot::full() {
        return;
    }
    // What starts Docker fails, and not when all is taken back.
    let listens = ["run", "-d", "--network", "host", "--name", "listens", IMAGE, "busybox", "nc", "-l", "-p", "8088"];
    it.docker.cmd(listens).run().checked().unwrap();
    it.hook("on-start", "exit 7");
    let next = "mend what is named, then run the same command again";
    says(&it.migrate("4G"), 1, &["exit status: 7", "everything that had been done was taken back", next]);
    it.is_as_it_was("3.221GB");

    // All went well but that one container has lost its port, and another is refused.
    let id = it.docker.cmd(["inspect", "-f", "{{.Id}}", "web"]).run().checked().unwrap().stdout;
    let refuses = format!("echo '500 {}/start' >{}", id.trim(), rules.display());
    it.hook(
        "on-start",
        &format!(
            "{refuses}; setsid busybox nc -l -p 8088 </dev/null >/dev/null 2>&1 & echo $! >{}/taker",
            it.disk.dir().display()
        ),
    );
    let ran = it.migrate("4G");
    let taker = fs::read_to_string(it.disk.dir().join("taker")).unwrap();
    Cmd::new("kill").arg(taker.trim()).run().checked().unwrap();
    says(
        &ran,
        5,
        &[
            "`web` ran before and does not start (Docker answered",
            "no luck today); when that is mended:  docker start web",
            "`listens` was started and has ended since (exit code 1):  docker logs listens",
            "undo leads back no more",
        ],
    );
    it.answer(&[]);
    it.docker.cmd(["start", "web", "listens"]).run().checked().unwrap();
    it.is_as_it_was("4.295GB");
}

/// A Docker past the hold, and one that hangs: minutes of waiting.
#[test]
fn a_docker_that_hangs_or_that_somebody_starts_meanwhile_is_not_waited_for_for_ever() {
    if !boot::full() {
        boot::skip("minutes: with --full");
    }
    boot::time_limit(Duration::from_secs(3000));
    let it = Trouble::new(Bench::with_faults());

    // It dies where the new pool is in Docker's place, and somebody starts Docker on it with another configuration.
    let json = fs::read_to_string(DAEMON_JSON).unwrap();
    let other = it.disk.dir().join("other.json");
    fs::write(&other, &json).unwrap();
    assert!(!it.migrate_with("3G", "11:before:die").ok());
    let by_hand = format!("exec dockerd --config-file {} >/var/log/dmpool-test-by-hand.log 2>&1", other.display());
    let mut daemon = Cmd::new("sh").args(["-c", &by_hand]).limit(Duration::from_secs(1000)).start().unwrap();
    let until = Instant::now() + Duration::from_secs(120);
    while it.docker.info().is_err() {
        assert!(Instant::now() < until && daemon.alive());
        std::thread::sleep(Duration::from_millis(200));
    }
    for way in ["undo", "continue"] {
        let pid = docker_pid().to_string();
        says(&it.ends(way), 3, &["somebody has started Docker while it was held", &pid, "nothing was touched"]);
    }
    it.docker.cmd(["start", "web"]).run().checked().unwrap();
    assert!(it.docker.exec("web", &["sh", "-c", "echo since >/since; sync"]).ok());
    it.docker.cmd(["stop", "web"]).run().checked().unwrap();
    signal("-TERM");
    while daemon.alive() {
        std::thread::sleep(Duration::from_millis(100));
    }
    says(&it.ends("undo"), 3, &["Docker has run since on what was made for it, while it was held", "dmpool continue"]);
    let ended = it.ends("continue");
    assert!(ended.ok(), "{ended}");
    assert_eq!(it.docker.exec("web", &["cat", "/since"]).stdout, "since\n");
    assert!(it.docker.exec("web", &["rm", "/since"]).ok());
    it.is_as_it_was("3.221GB");

    // Somebody has Docker's configuration written while it is held, by which it does not start.
    let spoiled = it.disk.dir().join("spoiled.json");
    fs::write(&spoiled, json.replacen('{', "{\"of-a-newer-docker\": 1,", 1)).unwrap();
    it.hook("on-stop", &format!("cp {} {DAEMON_JSON}", spoiled.display()));
    let ran = it.migrate("4G");
    let said = ["somebody has changed /etc/docker/daemon.json", "Docker said last", "of-a-newer-docker", "dmpool undo"];
    says(&ran, 4, &said);
    says(&it.ends("undo"), 4, &["of-a-newer-docker", "dmpool undo"]);
    fs::write(DAEMON_JSON, &json).unwrap();
    assert!(it.ends("undo").ok());
    it.is_as_it_was("3.221GB");

    // It hangs from when it is stopped on, and then from when it was started on.
    it.hook("on-stop", "kill -STOP $pid; exit 1");
    let ran = it.migrate("4G");
    says(&ran, 4, &["was stopped by a signal", "kill -CONT", "dmpool undo"]);
    signal("-CONT");
    assert!(it.ends("undo").ok());
    it.is_as_it_was("3.221GB");
    let stops =
        format!("( until [ -e {PID} ] && docker info >/dev/null 2>&1; do sleep 0.1; done; kill -STOP $(cat {PID}) ) &");
    it.hook("on-start", &stops);
    let ran = it.migrate("4G");
    assert_eq!(ran.code(), Some(4), "{ran}");
    signal("-CONT");
    assert!(it.ends("continue").ok());
    it.is_as_it_was("4.295GB");
}

#[test]
fn a_container_that_nothing_ends_keeps_docker_where_it_was() {
    if !boot::full() {
        boot::skip("minutes: with --full");
    }
    boot::time_limit(Duration::from_secs(1500));
    let it = Trouble::new(Bench::new());

    // Docker takes the call, and does not answer.
    it.answer(&[("/stop HTTP", "hang")]);
    says(&it.migrate("3G"), 1, &["stopping the container `web`", "did not answer `POST", "it hangs", "was taken back"]);
    it.answer(&[]);
    it.is_as_it_was("2.147GB");

    // A process of a container waits for a disk that does not answer.
    let below = Wrapped::new(&it.bench.sweep.name("silent"), &boot::scratch_disks()[1], &Behaviour::Linear).unwrap();
    let silent = Mounted::format(Kind::Ext4, &below.device(), &it.bench.sweep.path("silent")).unwrap();
    let writes = "while :; do dd if=/dev/zero of=/silent/x bs=4k count=1 conv=fsync 2>/dev/null; done";
    let volume = format!("{}:/silent", silent.dir().display());
    it.docker.run_detached(&["--name", "stuck", "--stop-timeout", "1", "-v", &volume], &["sh", "-c", writes]).unwrap();
    dmsetup(["suspend", "--noflush", "--nolockfs", below.name()]).run().checked().unwrap();
    let ran = it.migrate("3G");
    dmsetup(["resume", below.name()]).run().checked().unwrap();
    let said = [
        "cause:  the container `stuck` was killed and runs still: process",
        "(dd) in it waits in the kernel, where no signal reaches it",
        "taken back but for what is left",
        "the container `stuck` was killed, and ends as soon as the kernel lets it; when it has:  docker start stuck",
    ];
    says(&ran, 1, &said);
    it.docker.cmd(["wait", "stuck"]).run().checked().unwrap();
    it.docker.cmd(["rm", "stuck"]).run().checked().unwrap();
    it.is_as_it_was("2.147GB");
    silent.unmount().unwrap();
}

/// What is read lies on a disk that cannot read it.
#[test]
fn a_disk_that_is_bad_is_named_and_docker_runs_again() {
    if !boot::full() {
        boot::skip("minutes: with --full");
    }
    boot::time_limit(Duration::from_secs(1500));
    let bench = Bench::new();
    let below = Wrapped::new(&bench.sweep.name("bad"), &boot::scratch_disks()[0], &Behaviour::Linear).unwrap();
    let it = Trouble::on(bench, Kind::Xfs, &below.device());

    // A part of a program in the image cannot be read once Docker is stopped.
    let program = fs::read("/bin/busybox").unwrap();
    let at = sector_of(&it.docker.root().join("devicemapper/devicemapper/data"), &program[1 << 20..][..4096]);
    let device = ["image", "inspect", "-f", "{{.GraphDriver.Data.DeviceName}}", IMAGE];
    let device = it.docker.cmd(device).run().checked().unwrap().stdout;
    let image = device.trim().rsplit('-').next().unwrap();
    let sectors = sys::size_of(&below.device()).unwrap() / 512;
    let disk = boot::scratch_disks()[0].clone();
    let part = |from: u64, to: u64| format!("{from} {} linear {} {from}", to - from, disk.display());
    let bad = [part(0, at), format!("{at} 8 error"), part(at + 8, sectors)].join("\\n");
    let becomes = |table: &str| {
        let name = below.name();
        format!(
            "sync; printf '{table}\\n' | dmsetup load {name}; dmsetup resume {name}; echo 3 >/proc/sys/vm/drop_caches"
        )
    };
    for (what, says_where) in [
        (["--data-size", "3G"], ["reading the old pool's data", &format!("({image})")]),
        (["--to-driver", "overlay2"], ["bin/busybox", "copying layer sha256:"]),
    ] {
        it.hook("on-stop", &format!("trap \"{}\" EXIT", becomes(&bad)));
        it.hook("on-start", &becomes(&part(0, sectors)));
        let said = [&["EIO", "everything that had been done was taken back"], &says_where[..]].concat();
        says(&it.migrate_to(&what, ""), 1, &said);
        it.is_as_it_was("2.147GB");
    }
}

/// Returns the sector of its disk at which a file has this page.
fn sector_of(file: &Path, page: &[u8]) -> u64 {
    let extents = Cmd::new("filefrag").args(["-b512", "-v"]).arg(file).run().checked().unwrap().stdout;
    let of = fs::File::open(file).unwrap();
    let range = |text: &str| -> Option<(u64, u64)> {
        let (from, to) = text.split_once("..")?;
        Some((from.trim().parse().ok()?, to.trim().parse().ok()?))
    };
    let found = extents.lines().find_map(|line| {
        let mut fields = line.split(':').skip(1);
        let ((from, to), (on_disk, _)) = (range(fields.next()?)?, range(fields.next()?)?);
        let mut bytes = vec![0; usize::try_from((to + 1 - from) * 512).unwrap()];
        of.read_exact_at(&mut bytes, from * 512).unwrap();
        let at = bytes.chunks(page.len()).position(|chunk| chunk == page)?;
        Some(on_disk + u64::try_from(at * page.len()).unwrap() / 512)
    });
    found.unwrap_or_else(|| panic!("{} does not have it:\n{extents}", file.display()))
}
