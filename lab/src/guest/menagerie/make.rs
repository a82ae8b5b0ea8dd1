//! The script: images first, then volumes, then the containers of both.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::names::{
    BOUND_VOLUME, CHANGED, COMMITTED_IMAGE, DANGLING, DATA_VOLUME, DECLARED_IMAGE, FORGOTTEN_VOLUME, GONE_IMAGE,
    LINKED, NAME_LIKE_ID, NETWORK, NFS_VOLUME, ODD, OPTIONS, ORPHAN, PAUSED, READ_ONLY_VOLUME, READER, SIDECAR, TALKER,
    TERMINAL, VOLUMES, WEB, WEB_AGAIN, WEB_IMAGE, WRITTEN,
};
use super::{ask, logs, served, text};
use crate::guest::docker::{Docker, IMAGE, find, post};
use crate::guest::inmate::{CHANGEABLE, last_lines};
use crate::guest::odd_tree;
use crate::guest::run::Cmd;
use crate::guest::sys::PREFIX;

/// Lines of [`TALKER`] on each stream: more than its log files hold.
const TALKED: u32 = 80;

/// Where bind mounts come from: beside Docker's root, not below it.
fn beside(docker: &Docker) -> PathBuf {
    docker.root().with_file_name("binds")
}

pub(super) fn all(docker: &Docker, small: u32) -> Result<()> {
    images(docker).context("cannot make the images")?;
    volumes(docker).context("cannot make the volumes")?;
    run(docker, &["network", "create", "--subnet", "10.77.0.0/24", "--label", "purpose=shop", NETWORK])?;
    create(docker, small).context("cannot create the containers")?;
    start(docker).context("cannot run the containers")
}

fn run(docker: &Docker, args: &[&str]) -> Result<String> {
    Ok(docker.cmd(args).run().checked()?.stdout.trim().to_owned())
}

fn images(docker: &Docker) -> Result<()> {
    docker.busybox(&[&find("lab-inmate")?])?;
    let dir = Path::new("/var/tmp").join(format!("{PREFIX}build"));
    let _ = fs::remove_dir_all(&dir);
    let www = dir.join("www");
    let deleted = [("deleted-in-the-image.txt", "short-lived"), ("deleted-dir-in-the-image/inside", "short-lived")];
    for (name, content) in CHANGEABLE.iter().chain(&deleted) {
        let file = www.join(name);
        fs::create_dir_all(file.parent().context("no directory")?)?;
        fs::write(file, content)?;
    }
    fs::write(www.join("large"), "0123456789abcdef".repeat(20_000))?;
    fs::create_dir(dir.join("later"))?;
    fs::write(dir.join("later/index.html"), "<h1>the front page of a later layer</h1>\n")?;
    let build = |dockerfile: &str| -> Result<()> {
        fs::write(dir.join("Dockerfile"), dockerfile)?;
        run(docker, &["build", "--network", "none", "--tag", WEB_IMAGE, &dir.to_string_lossy()]).map(drop)
    };
    // The next build takes its tag away.
    build(&format!("FROM {IMAGE}\nLABEL com.example.title=\"The image's own\" version=0\n"))?;
    build(&format!(
        "FROM {IMAGE}\n\
         COPY www /www\n\
         RUN rm -r /www/deleted-in-the-image.txt /www/deleted-dir-in-the-image && lab-inmate tree /odd 7 20\n\
         COPY later /www\n\
         CMD [\"busybox\", \"httpd\", \"-f\", \"-p\", \"80\", \"-h\", \"/www\"]\n"
    ))?;
    run(docker, &["tag", WEB_IMAGE, WEB_AGAIN])?;

    let tar = dir.join("small.tar");
    Cmd::new("tar").arg("-cf").arg(&tar).arg("-C").arg(dir.join("later")).arg(".").run().checked()?;
    let tar = tar.to_string_lossy();
    let declared = [
        "ENV PATH=/bin:/usr/bin GREETING=\"hello big world\"",
        "ENTRYPOINT [\"/bin/sh\", \"-c\"]",
        "CMD [\"echo \\\"$GREETING\\\"\"]",
        "EXPOSE 80 81/udp 9000-9002",
        "HEALTHCHECK --interval=1h --timeout=3s --retries=2 CMD test -e /index.html",
        "LABEL empty= \"with blanks\"=\"a b\"",
        "ONBUILD RUN true",
        "USER 1000:1000",
        "VOLUME [\"/declared\", \"/declared too\"]",
        "WORKDIR /srv/here",
    ];
    let declared = declared.iter().flat_map(|change| ["--change", change]);
    let import = ["import", "--message", "all that an image can declare"];
    docker.cmd(import).args(declared).args([&tar, DECLARED_IMAGE]).run().checked()?;
    run(docker, &["import", &tar, GONE_IMAGE])?;
    fs::remove_dir_all(&dir)?;
    Ok(())
}

fn volumes(docker: &Docker) -> Result<()> {
    let bound = beside(docker).join("bound-volume");
    fs::create_dir_all(&bound)?;
    let device = format!("device={}", bound.display());
    let of_a_server: &[&str] = &["--opt", "type=nfs", "--opt", "o=addr=192.0.2.1,rw", "--opt", "device=:/export"];
    for (name, options) in [
        (DATA_VOLUME, ["--label", "purpose=shop"].as_slice()),
        (READ_ONLY_VOLUME, &[]),
        (FORGOTTEN_VOLUME, &[]),
        (NFS_VOLUME, of_a_server),
        (BOUND_VOLUME, &["--opt", "type=none", "--opt", "o=bind", "--opt", &device]),
    ] {
        docker.cmd(["volume", "create"]).args(options).arg(name).run().checked()?;
    }
    let data = |volume: &str| docker.root().join("volumes").join(volume).join("_data");
    odd_tree::make(&data(FORGOTTEN_VOLUME).join("tree"), odd_tree::Plan { seed: 5, small: 10, everything: true })?;
    fs::write(data(READ_ONLY_VOLUME).join("configuration"), "answer=42\n")?;
    Ok(())
}

/// Creates every container, each with its own purpose; the order is that of `docker ps`, the last first.
fn create(docker: &Docker, small: u32) -> Result<()> {
    let make = |name: &str, options: &[&str], image: &str, command: &[&str]| -> Result<String> {
        let cmd = docker.cmd(["create", "--name", name]).args(options).arg(image).args(command);
        Ok(cmd.run().checked()?.stdout.trim().to_owned())
    };
    let wait = &["lab-inmate", "wait"];
    let small = small.to_string();
    let binds = beside(docker);
    fs::write(binds.join("file"), "outside of Docker\n")?;
    let bind = format!("{}:/bound:ro", binds.display());
    let none = ["--network", "none"];

    let web = [
        ["--publish", "8080:80"],
        ["--publish", "127.0.0.1:8081:81/udp"],
        ["--restart", "unless-stopped"],
        ["--label", "com.example.title=The \"front\" page"],
        ["--label", "empty="],
        ["--hostname", "web.example.org"],
        ["--env", "GREETING=hello big world"],
        ["--env", "QUOTES=it's \"so\""],
        ["--env", "LINES=one\ntwo\n"],
        ["--env", "EQUALS=a=b=c"],
        ["--env", "EMPTY="],
        ["--env", "SHELL_WORDS=$HOME `id` \\ * ;"],
        ["--memory", "64m"],
    ];
    // As process 1 the server would sit out every stop.
    let web: Vec<&str> = web.iter().flatten().copied().chain(["--init"]).collect();
    let web = make(WEB, &web, WEB_IMAGE, &[])?;
    let tree = ["lab-inmate", "tree", "/odd", "11", &small, "everything"];
    make(ODD, &["--network", "none", "--privileged"], IMAGE, &tree)?;
    let change = "lab-inmate change /www && lab-inmate touch-middle /www/large && rm /odd/names/*quote* && exit 3";
    make(CHANGED, &none, WEB_IMAGE, &["sh", "-c", change])?;
    let rotated = ["--log-opt", "max-size=50k", "--log-opt", "max-file=3", "--log-opt", "labels=a", "--label", "a=b"];
    make(TALKER, &[&none, rotated.as_slice()].concat(), IMAGE, &["lab-inmate", "talk", &TALKED.to_string(), "wait"])?;
    make(PAUSED, &none, IMAGE, wait)?;
    make(LINKED, &["--link", "web:the-front", "--link", WEB], IMAGE, wait)?;
    make(SIDECAR, &["--network", "container:web", "--pid", "container:web"], IMAGE, wait)?;
    let mounts = [
        ["--volume", "data:/data"],
        ["--volume", "/anonymous"],
        ["--volume", &bind],
        ["--mount", "type=volume,source=read-only-data,destination=/read-only,readonly"],
        ["--tmpfs", "/scratch:size=1m,mode=1770"],
    ];
    let fill = "lab-inmate tree /data/tree 13 20 && echo kept >/anonymous/file && echo gone >/scratch/file";
    let mounts: Vec<&str> = mounts.iter().flatten().chain(&none).copied().collect();
    make(VOLUMES, &mounts, IMAGE, &["sh", "-c", fill])?;
    let reader = [["--volumes-from", "volumes:ro"], ["--log-driver", "local"], none].concat();
    make(READER, &reader, IMAGE, &["sh", "-c", "cat /anonymous/file && lab-inmate talk 20"])?;
    let terminal = [
        ["--network", NETWORK],
        ["--ip", "10.77.0.9"],
        ["--network-alias", "console"],
        ["--health-cmd", "test -e /bin/sh"],
        ["--health-interval", "1h"],
        ["--health-retries", "7"],
        ["--restart", "on-failure:5"],
    ];
    let terminal: Vec<&str> = terminal.iter().flatten().copied().chain(["--tty", "--interactive"]).collect();
    make(TERMINAL, &terminal, IMAGE, &["sh", "-c", "echo to the terminal; exec lab-inmate wait"])?;
    make(OPTIONS, &options(docker.driver()), IMAGE, &["-c", "echo \"$0\" 'quoted \"twice\"'", "last argument"])?;
    make(ORPHAN, &none, GONE_IMAGE, &["none"])?;
    run(docker, &["rmi", "--force", GONE_IMAGE])?;
    let dangling = run(docker, &["images", "--quiet", "--no-trunc", "--filter", "dangling=true"])?;
    make(DANGLING, &none, dangling.lines().next().context("no dangling image")?, &["sh"])?;
    make(web.get(..NAME_LIKE_ID).context("a short id")?, &none, DECLARED_IMAGE, &[]).map(drop)
}

/// About every option that changes nothing outside of the container.
fn options(driver: &str) -> Vec<&'static str> {
    let pairs = [
        ["--network", "none"],
        ["--cap-add", "NET_ADMIN"],
        ["--cap-add", "SYS_TIME"],
        ["--cap-drop", "MKNOD"],
        ["--ulimit", "nofile=1024:2048"],
        ["--ulimit", "core=0"],
        ["--add-host", "db:192.0.2.7"],
        ["--add-host", "six:2001:db8::1"],
        ["--dns", "192.0.2.53"],
        ["--dns-search", "example.org"],
        ["--dns-option", "timeout:3"],
        ["--device", "/dev/null:/dev/my-null:rw"],
        ["--sysctl", "net.ipv4.ip_forward=0"],
        ["--security-opt", "no-new-privileges"],
        ["--security-opt", "seccomp=unconfined"],
        ["--shm-size", "32m"],
        ["--tmpfs", "/run:rw,noexec,size=64k"],
        ["--cpu-shares", "512"],
        ["--pids-limit", "100"],
        ["--oom-score-adj", "300"],
        ["--group-add", "7"],
        ["--user", "1000:1000"],
        ["--workdir", "/tmp"],
        ["--entrypoint", "/bin/sh"],
        ["--stop-signal", "SIGUSR1"],
        ["--stop-timeout", "3"],
        ["--hostname", "options"],
        ["--domainname", "example.org"],
        ["--ipc", "shareable"],
        ["--expose", "9000-9002"],
        ["--publish", "8443:443"],
        ["--log-driver", "json-file"],
        ["--log-opt", "max-size=1m"],
        ["--restart", "always"],
        ["--attach", "stdout"],
        ["--mac-address", "02:42:0a:4d:00:42"],
        ["--cgroup-parent", "/menagerie"],
    ];
    let plain = ["--read-only", "--init", "--no-healthcheck", "--publish-all"];
    let large: &[&str] = if driver == "devicemapper" { &["--storage-opt", "size=1500M"] } else { &[] };
    pairs.into_iter().flatten().chain(plain).chain(large.iter().copied()).collect()
}

fn start(docker: &Docker) -> Result<()> {
    together(&[WEB, ODD, CHANGED, TALKER, VOLUMES, PAUSED, TERMINAL])?;
    for (name, status) in [(ODD, 0), (CHANGED, 3), (VOLUMES, 0)] {
        ended(name, status)?;
    }
    // Docker gives an ended container's streams two seconds to be empty, and loses the unfinished line after that
    // (`handleContainerExit`, daemon/monitor.go): it ends when nothing else is at work.
    heard(TALKER)?;
    told(&format!("/containers/{TALKER}/kill?signal=TERM"))?;
    ended(TALKER, 0)?;
    together(&[LINKED, SIDECAR, READER])?;
    ended(READER, 0)?;
    told(&format!("/containers/{PAUSED}/pause"))?;
    told(&format!("/containers/{LINKED}/kill"))?;
    ended(LINKED, 137)?;
    let by_hand = "echo '<p>written later</p>' >/www/page.html; echo 'made by hand' >/tmp/by-hand.txt";
    docker.exec(WEB, &["sh", "-c", by_hand]).checked()?;
    ensure!(served()? == WRITTEN, "the web server shows another page");
    run(docker, &["commit", "--author", "A. U. Thor", "--message", "by hand", CHANGED, COMMITTED_IMAGE])?;
    Ok(())
}

/// Starts containers at the same time: each waits much for the kernel.
fn together(names: &[&str]) -> Result<()> {
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            names.iter().map(|name| scope.spawn(move || told(&format!("/containers/{name}/start")))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or(Ok(())))
    })
}

fn told(path: &str) -> Result<()> {
    let (status, body) = post(path)?;
    ensure!(status == 204, "docker answers {status} to {path}: {}", String::from_utf8_lossy(&body));
    Ok(())
}

/// Waits until Docker has written down all that was said. It gives a container that has ended 2 s to hand over what is still in
/// its pipes, and forgets the rest (`handleContainerExit`, daemon/monitor.go): too little on a busy machine.
fn heard(name: &str) -> Result<()> {
    let until = std::time::Instant::now() + Duration::from_secs(60);
    loop {
        let (stdout, stderr) = logs(name, &ask(&format!("/containers/{name}/json"))?)?;
        if stdout.0.ends_with(&last_lines("out", TALKED)) && stderr.0.ends_with(&last_lines("err", TALKED)) {
            return Ok(());
        }
        ensure!(std::time::Instant::now() < until, "{name}: docker logs does not come to an end");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn ended(name: &str, expected: i64) -> Result<()> {
    let until = std::time::Instant::now() + Duration::from_secs(60);
    loop {
        let state = ask(&format!("/containers/{name}/json"))?;
        if text(&state, "/State/Status")? == "exited" {
            let code = state.pointer("/State/ExitCode").and_then(Value::as_i64);
            ensure!(
                code == Some(expected),
                "{name} ended with {code:?}: {}",
                crate::guest::run::Ran::to_string(&Cmd::new("docker").args(["logs", name]).run())
            );
            return Ok(());
        }
        ensure!(std::time::Instant::now() < until, "{name} does not end: {state}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
