//! `dmpool migrate` against the procedure that people follow by hand: save, export, stop, copy, remove, load, import, run.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use lab::guest::docker::{Config, Docker, IMAGE, find};
use lab::guest::run::Cmd;

use crate::ratios::Ratio;
use crate::report::{Line, Report, Verdict};
use crate::status::run;

/// Pairs at most: each carries hundreds of megabytes several times.
const ROUNDS: u32 = 3;
const MIB: f64 = 1024.0;
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

/// Measures on a Docker root of its own below `home`.
pub(crate) fn measure(report: &mut Report, home: &Path, rounds: u32) -> Result<()> {
    let bench = Bench::new(home)?;
    let (mut hands, mut ours, mut prepared, mut peak) = (Vec::new(), Vec::new(), Vec::new(), 0f64);
    for round in 0..rounds.min(ROUNDS) {
        report.progress(&format!("migrate, round {}", round + 1));
        // Turn about, so that neither always finds what the other has left.
        if round % 2 == 1 {
            hands.push(bench.by_hand()?);
        }
        for (kept, is_prepared) in [(&mut ours, false), (&mut prepared, true)] {
            let (took, kib) = bench.dmpool(round * 2 + u32::from(is_prepared), is_prepared)?;
            peak = peak.max(kib / MIB);
            kept.push(took);
        }
        if round % 2 == 0 {
            hands.push(bench.by_hand()?);
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
    fn new(home: &Path) -> Result<Self> {
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

    /// Other loop files by dmpool, prepared first or not, and how much memory it took at most, in KiB.
    fn dmpool(&self, number: u32, is_prepared: bool) -> Result<(Took, f64)> {
        let size = format!("{}G", 50 + number);
        let ways = ["--stop-command", self.stop.as_str(), "--start-command", &self.start];
        let root = self.root.to_str().context("a path that is no text")?;
        let args = [&["dmpool", "migrate", root, "--data-size", &size], &ways[..]].concat();
        let before = if is_prepared { Some(run(&[&args[..], &["--prepare"]].concat())?) } else { None };
        let ran = run(&[&args[..], &["--yes"]].concat())?;
        let (sooner, peak) = before.map_or((0.0, 0.0), |before| (before.seconds, before.peak_kib));
        let down = "docker inspect -f '{{.State.FinishedAt}} {{.State.StartedAt}}' web small | tr ' ' '\\n' \
                    | while read -r time; do date -d \"$time\" +%s.%N; done | sort -n | sed -n '1p;$p'";
        let down = Self::times(&Cmd::new("sh").args(["-c", down]).run().checked()?.stdout)?;
        let old = format!("rm -rf {root}/devicemapper/devicemapper.dmpool-*.old /etc/docker/*before-dmpool*");
        Cmd::new("sh").args(["-c", &old]).run().checked()?;
        let [stopped, started] = down[..] else { anyhow::bail!("{down:?} are not two times") };
        Ok((Took { all: sooner + ran.seconds, down: started - stopped }, ran.peak_kib.max(peak)))
    }

    fn by_hand(&self) -> Result<Took> {
        fs::create_dir(&self.aside)?;
        let args = ["-c", BY_HAND, "by-hand"];
        let ran = Cmd::new("sh").args(args).args([&self.root, &self.aside]).args([&self.stop, &self.start]);
        ran.limit(Duration::from_secs(1200)).run().checked()?;
        let times = Self::times(&fs::read_to_string(self.aside.join("times"))?)?;
        fs::remove_dir_all(&self.aside)?;
        let [began, stopped, ended] = times[..] else { anyhow::bail!("{times:?} are not three times") };
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
