//! `dmpool migrate` against the procedure that people follow by hand: save, export, stop, copy, remove, load, import, run.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lab::guest::docker::{Config, Docker, IMAGE, find};
use lab::guest::run::Cmd;
use serde_json::Value;

use crate::ratios::Ratio;
use crate::report::{Line, Report, Verdict};
use crate::status::run;

/// Pairs at most: each carries hundreds of megabytes several times.
const ROUNDS: u32 = 3;
const MIB: f64 = 1024.0;
/// What the smallest root has in it, about: one image, a stopped container with much, two that run.
pub(crate) const SMALLEST_MIB: u32 = 200;
/// What each further image has, and each container of one.
const IMAGE_MIB: u32 = 128;
const CONTAINER_MIB: u32 = 32;
/// How many images go with one container.
const IMAGES_PER_CONTAINER: u32 = 4;
/// Where dmpool writes its journals.
const JOURNALS: &str = "/var/lib/dmpool/journal";
/// What runs, and is to run again.
const RUNNING: [&str; 2] = ["web", "small"];
const WAITS: &str = "trap exit TERM; while :; do sleep 1; done";
const STOP: &str = "pid=$(cat /var/run/docker.pid); kill $pid; \
    while grep -q dockerd /proc/$pid/comm 2>/dev/null && ! grep -q 'State:.Z' /proc/$pid/status; do sleep 0.1; done";
const START: &str = "setsid dockerd </dev/null >>/var/log/lab-bench-dockerd.log 2>&1 &";
/// `$1` is Docker's root, `$2` an empty folder beside it, `$3` and `$4` stop and start Docker. The times between its parts go
/// into `$2/times`: when it begins, when it stops the containers, when all run again.
const BY_HAND: &str = r#"set -e
now() { date +%s.%N >>"$2/times"; }
now "$@"
docker save -o "$2/images.tar" $(docker images --filter dangling=false --format '{{.Repository}}:{{.Tag}}')
all=$(docker ps -a --format '{{.Names}}')
running=$(docker ps --format '{{.Names}}')
for name in $all; do docker export -o "$2/$name.tar" "$name"; done
now "$@"
docker stop $running
"$3"
cp -a "$1" "$2/backup"
rm -rf "$1"
mkdir "$1"
"$4"
until docker info >/dev/null 2>&1; do sleep 0.1; done
docker load -i "$2/images.tar"
for name in $all; do
    docker import "$2/$name.tar" "restored-$name:1"
    case " $(echo $running) " in
        *" $name "*) docker run -d --network none --name "$name" "restored-$name:1" sh -c 'trap exit TERM; while :; do sleep 1; done' ;;
        *) docker create --network none --name "$name" "restored-$name:1" true ;;
    esac
done
now "$@"
"#;

/// How long one way took, in seconds.
struct Took {
    all: f64,
    down: f64,
}

/// Measures on a Docker root of its own below `home`, with about `mib` in it.
pub(crate) fn measure(report: &mut Report, home: &Path, rounds: u32, mib: u32) -> Result<()> {
    let bench = Bench::new(home, mib)?;
    let (mut hands, mut ours, mut prepared, mut peak) = (Vec::new(), Vec::new(), Vec::new(), 0f64);
    for round in 0..rounds.min(ROUNDS) {
        report.progress(&format!("migrate, round {}", round + 1));
        // Turn about, so that neither always finds what the other has left.
        if round % 2 == 1 {
            hands.push(bench.by_hand(report)?);
        }
        for (kept, is_prepared) in [(&mut ours, false), (&mut prepared, true)] {
            let (took, kib, steps) = bench.dmpool(round * 2 + u32::from(is_prepared), is_prepared)?;
            let how = if is_prepared { "prepared" } else { "at once" };
            report.note(format!("migrate, {how}: {:.1} s, not running {:.1} s; {steps}", took.all, took.down));
            peak = peak.max(kib / MIB);
            kept.push(took);
        }
        if round % 2 == 0 {
            hands.push(bench.by_hand(report)?);
        }
    }
    let of = |took: &[Took], what: fn(&Took) -> f64| took.iter().map(what).collect::<Vec<_>>();
    let all: fn(&Took) -> f64 = |took| took.all;
    let down: fn(&Took) -> f64 = |took| took.down;
    for (what, whose, which, goal) in [
        ("end to end: by hand / migrate", &ours, all, Some((2.0, "twice as fast: at least 2"))),
        ("end to end: by hand / --prepare and migrate", &prepared, all, Some((2.0, "twice as fast: at least 2"))),
        ("not running: by hand / migrate", &ours, down, None),
        ("not running: by hand / --prepare and migrate", &prepared, down, Some((5.0, "a fifth: at least 5"))),
    ] {
        let ratio = Ratio::of(&of(&hands, which), &of(whose, which)).context("no rounds")?;
        let median = ratio.median;
        let line = Line::ratio(what, ratio);
        report.add(match goal {
            Some((least, goal)) => line.goal(Verdict::of(median >= least), goal),
            None => line,
        });
    }
    let line = Line::number("peak memory of dmpool migrate", peak, " MiB");
    report.add(line.goal(Verdict::of(peak < 128.0), "under 128 MiB"));
    bench.end()
}

/// A Docker that is started by a script, with something in it.
struct Bench {
    root: PathBuf,
    aside: PathBuf,
    stop: String,
    start: String,
    docker: Docker,
}

impl Bench {
    fn new(home: &Path, mib: u32) -> Result<Self> {
        let script = |name: &str, text: &str| -> Result<String> {
            let path = home.join(name);
            fs::write(&path, format!("#!/bin/sh\n{text}\n"))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
            path.into_os_string().into_string().ok().context("a path that is no text")
        };
        let root = home.join("docker");
        let mut docker = Docker::start(Config::new(&root).option("dm.basesize=2G"))?;
        docker.busybox(&[&find("lab-inmate")?])?;
        let inside = |name: &str, script: &str| {
            let args = ["run", "--network", "none", "--name", name, IMAGE, "sh", "-c", script];
            docker.cmd(args).run().checked()
        };
        let noise = |path: &str, mib: u32| format!("dd if=/dev/urandom of={path} bs=1M count={mib} 2>/dev/null");
        inside("base", &noise("/large", 128))?;
        docker.cmd(["commit", "base", "dmpool-test-big:1"]).run().checked()?;
        docker.cmd(["rm", "base"]).run().checked()?;
        inside("done", &noise("/done", 64))?;
        for number in 0..mib.saturating_sub(SMALLEST_MIB) / IMAGE_MIB {
            inside("base", &noise("/large", IMAGE_MIB))?;
            let image = format!("dmpool-test-more:{number}");
            docker.cmd(["commit", "base", &image]).run().checked()?;
            docker.cmd(["rm", "base"]).run().checked()?;
            if number % IMAGES_PER_CONTAINER == 0 {
                let name = format!("more-{number}");
                let script = noise("/own", CONTAINER_MIB);
                let args = ["run", "--network", "none", "--name", &name, &image, "sh", "-c", &script];
                docker.cmd(args).run().checked()?;
            }
        }
        for (name, image) in RUNNING.into_iter().zip(["dmpool-test-big:1", IMAGE]) {
            docker.cmd(["run", "-d", "--network", "none", "--name", name, image, "sh", "-c", WAITS]).run().checked()?;
        }
        docker.cmd(["exec", "web", "sh", "-c", "echo by hand >/by-hand"]).run().checked()?;
        docker.cmd(["exec", "small", "lab-inmate", "tree", "/small", "1", "2000"]).run().checked()?;
        let (stop, start) = (script("stop", STOP)?, script("start", START)?);
        docker.stop()?;
        let bench = Self { root, aside: home.join("aside"), stop, start, docker };
        Cmd::new(&bench.start).run().checked()?;
        bench.answers()?;
        for name in RUNNING {
            bench.docker.cmd(["start", name]).run().checked()?;
        }
        Ok(bench)
    }

    fn answers(&self) -> Result<()> {
        let wait = "until docker info >/dev/null 2>&1; do sleep 0.1; done";
        Cmd::new("sh").args(["-c", wait]).limit(Duration::from_secs(120)).run().checked()?;
        Ok(())
    }

    /// Other loop files by dmpool, prepared first or not, how much memory it took at most, in KiB, and how long each step took.
    fn dmpool(&self, number: u32, is_prepared: bool) -> Result<(Took, f64, String)> {
        let size = format!("{}G", 50 + number);
        let ways = ["--stop-command", self.stop.as_str(), "--start-command", &self.start];
        let root = self.root.to_str().context("a path that is no text")?;
        let args = [&["dmpool", "migrate", root, "--data-size", &size], &ways[..]].concat();
        let before = if is_prepared { Some(run(&[&args[..], &["--prepare"]].concat())?) } else { None };
        let watch = Watch::journals();
        let ran = run(&[&args[..], &["--yes"]].concat())?;
        let steps = watch.steps()?;
        let (sooner, peak) = before.map_or((0.0, 0.0), |before| (before.seconds, before.peak_kib));
        let down = "docker inspect -f '{{.State.FinishedAt}} {{.State.StartedAt}}' web small | tr ' ' '\\n' \
                    | while read -r time; do date -d \"$time\" +%s.%N; done | sort -n | sed -n '1p;$p'";
        let down = Self::times(&Cmd::new("sh").args(["-c", down]).run().checked()?.stdout)?;
        let old = format!("rm -rf {root}/devicemapper/devicemapper.dmpool-*.old /etc/docker/*before-dmpool*");
        Cmd::new("sh").args(["-c", &old]).run().checked()?;
        let [stopped, started] = down[..] else { anyhow::bail!("{down:?} are not two times") };
        Ok((Took { all: sooner + ran.seconds, down: started - stopped }, ran.peak_kib.max(peak), steps))
    }

    fn by_hand(&self, report: &mut Report) -> Result<Took> {
        fs::create_dir(&self.aside)?;
        let args = ["-c", BY_HAND, "by-hand"];
        let ran = Cmd::new("sh").args(args).args([&self.root, &self.aside]).args([&self.stop, &self.start]);
        ran.limit(Duration::from_secs(1200)).run().checked()?;
        let times = Self::times(&fs::read_to_string(self.aside.join("times"))?)?;
        fs::remove_dir_all(&self.aside)?;
        let [began, stopped, ended] = times[..] else { anyhow::bail!("{times:?} are not three times") };
        report.note(format!("by hand: {:.1} s, not running {:.1} s", ended - began, ended - stopped));
        Ok(Took { all: ended - began, down: ended - stopped })
    }

    fn times(text: &str) -> Result<Vec<f64>> {
        text.split_whitespace().map(|time| time.parse().with_context(|| format!("{time} is not a time"))).collect()
    }

    fn end(self) -> Result<()> {
        Cmd::new(&self.stop).run().checked()?;
        Ok(())
    }
}

/// Who looks at the journal of a migration while it runs, and when each of its lines came.
struct Watch {
    over: Arc<AtomicBool>,
    looks: JoinHandle<Vec<(f64, String)>>,
}

impl Watch {
    fn journals() -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (is_over, began) = (Arc::clone(&over), Instant::now());
        let looks = std::thread::spawn(move || {
            let mut seen = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                let journals = fs::read_dir(JOURNALS).into_iter().flatten().flatten();
                let text: String = journals.filter_map(|entry| fs::read_to_string(entry.path()).ok()).collect();
                let at = began.elapsed().as_secs_f64();
                // Behind its records a journal has zeros.
                let lines = text.lines().filter(|line| !line.starts_with('\0'));
                seen.extend(lines.skip(seen.len()).map(|line| (at, line.to_owned())).collect::<Vec<_>>());
                std::thread::sleep(Duration::from_millis(20));
            }
            seen
        });
        Self { over, looks }
    }

    /// Returns how long each step took that took long.
    fn steps(self) -> Result<String> {
        self.over.store(true, Ordering::Relaxed);
        let seen = self.looks.join().ok().context("the thread that looks at journals died")?;
        let record = |line: &str| -> Option<Value> { serde_json::from_str(line.split_once(' ')?.1).ok() };
        let records: Vec<(f64, Value)> = seen.iter().filter_map(|(at, line)| Some((*at, record(line)?))).collect();
        let plan = records.iter().find_map(|(_, record)| record.pointer("/opened/plan/steps")?.as_array());
        let name = |record: &Value| {
            let number = usize::try_from(record.get("begun")?.as_u64()?).ok()?;
            Some(plan?.get(number)?.get("step")?.as_str()?.to_owned())
        };
        let took = records.windows(2).filter_map(|pair| match pair {
            [(at, record), (next, _)] if next - at >= 0.1 => Some(format!("{} {:.1}", name(record)?, next - at)),
            _ => None,
        });
        Ok(took.collect::<Vec<_>>().join(", "))
    }
}
