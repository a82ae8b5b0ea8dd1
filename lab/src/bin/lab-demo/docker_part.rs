//! Docker's default pool: shown, and grown while a container writes.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::guest::docker::{Config, DAEMON_JSON, Docker, IMAGE, find, pairs, storage_block};
use lab::guest::run::Cmd;
use lab::guest::writer::{Plan, Tally};

use crate::terminal::Terminal;

/// Where the writer reports, on both sides of the container's wall. On the root disk, not on the pool.
const REPORTS: &str = "/var/tmp/dmpool-demo-writer";

pub(crate) fn show(terminal: &mut Terminal, root: &Path) -> Result<()> {
    terminal.chapter("Docker starts on its default pool: sparse loop files, 100 GB");
    let mut docker = Docker::start(Config::new(root)).context("Docker did not start")?;
    terminal.run(Cmd::new("cat").arg(DAEMON_JSON))?;
    docker.busybox(&[&find("lab-writer")?])?;
    terminal.run(Cmd::new("docker").arg("images"))?;
    terminal
        .run(Cmd::new("sh").args(["-c", "ls -lsh /var/lib/docker/devicemapper/devicemapper"]))?;

    terminal.chapter("A container writes, and syncs every write");
    fs::create_dir_all(REPORTS)?;
    let volume = format!("{REPORTS}:/reports");
    let mut run = Cmd::new("docker").args([
        "run",
        "-d",
        "--name",
        "writer",
        "--network",
        "none",
        "-v",
        &volume,
        IMAGE,
    ]);
    run = run.args([
        "lab-writer",
        "/data/written",
        "--slots",
        "256",
        "--report",
        "/reports/tally.json",
    ]);
    terminal.run(run)?;
    // Once round all its slots: from here on it takes no new space, and both programs see the same numbers.
    writes(300)?;

    terminal.chapter("The same pool, as Docker and as dmpool tell it");
    compare(terminal, &docker)?;
    terminal.try_run(Cmd::new("dmpool").args(["status", "docker"]));
    terminal.try_run(Cmd::new("dmpool").arg("list"));
    terminal.promise(
        "docker info says 107.4GB",
        docker.storage_value("Data Space Total")? == "107.4GB",
    );

    terminal.chapter("Twice the size, while the container writes");
    let before = tally()?;
    let (began_us, began) = (now_us(), Instant::now());
    let grown = terminal.try_run(Cmd::new("dmpool").args(["grow", "docker", "200G"]));
    let took = began.elapsed();
    let ended_us = now_us();
    let after = writes(20)?;
    terminal.remark(&format!(
        "dmpool took {} ms from start to end",
        took.as_millis()
    ));
    terminal.remark(&format!("the writer before: {}", before.line()));
    terminal.remark(&format!("the writer now:    {}", after.line()));
    let at_the_grow =
        after.longest_at_us + after.longest_us >= began_us && after.longest_at_us <= ended_us;
    let when = if at_the_grow {
        "during the grow"
    } else {
        "not during the grow"
    };
    terminal.remark(&format!(
        "its longest wait of all was {} ms, {when}",
        after.longest_us.div_ceil(1000)
    ));
    terminal.promise("dmpool grow docker 200G ended with 0", grown.ok());
    terminal.promise("the writer saw no error", after.errors == 0);
    terminal.promise("the writer went on", after.ops > before.ops);
    let total = docker.storage_value("Data Space Total")?;
    terminal.promise(
        "docker info says 214.7GB, without a restart",
        total == "214.7GB",
    );
    compare(terminal, &docker)?;

    terminal.chapter("Every write that was acknowledged is there");
    terminal.run(Cmd::new("docker").args(["stop", "writer"]))?;
    terminal.run(Cmd::new("docker").args(["cp", "writer:/data/written", REPORTS]))?;
    let last = tally()?;
    terminal.remark(&last.line());
    let verified = last.verify(&Plan {
        slots: 256,
        ..Plan::new(format!("{REPORTS}/written"))
    });
    if let Err(lost) = &verified {
        terminal.remark(&format!("{lost:#}"));
    }
    terminal.promise(
        "all blocks that the writer was promised are there",
        verified.is_ok(),
    );
    terminal.promise("no error to the end", last.errors == 0);

    terminal.chapter("The new size outlives a restart of Docker");
    docker.stop()?;
    docker.up()?;
    let total = docker.storage_value("Data Space Total")?;
    terminal.remark(&format!("after the restart: Data Space Total: {total}"));
    terminal.promise("the size is kept", total == "214.7GB");
    Ok(())
}

/// Shows both blocks and says where they differ.
fn compare(terminal: &mut Terminal, docker: &Docker) -> Result<()> {
    let mut seen = None;
    // A commit of metadata between the two commands moves a number: then both are asked again.
    for _ in 0..5 {
        let theirs = docker.storage_block()?;
        let ours = Cmd::new("dmpool")
            .args(["status", "docker", "--format", "docker"])
            .run();
        let differ = differences(&theirs, &ours.stdout);
        let same = ours.ok() && differ.is_empty();
        seen = Some((theirs, ours, differ));
        if same {
            break;
        }
    }
    let (theirs, ours, differ) = seen.context("nothing was compared")?;
    terminal.typed("docker info");
    let info = docker.info()?;
    terminal.remark(&format!(
        "{} lines; the storage block:",
        info.lines().count()
    ));
    ensure!(
        storage_block(&info).is_some(),
        "docker info has no storage block any more"
    );
    print_block(&theirs);
    terminal.typed("dmpool status docker --format docker");
    print_block(&ours.stdout);
    print_block(&ours.stderr);
    for line in &differ {
        terminal.remark(line);
    }
    terminal.promise(
        "dmpool status says what docker info says",
        ours.ok() && differ.is_empty(),
    );
    if theirs == ours.stdout {
        terminal.remark("byte for byte");
    }
    Ok(())
}

#[allow(clippy::print_stdout, reason = "the output of a program")]
fn print_block(block: &str) {
    print!("{block}");
}

/// The keys whose values contradict each other. Where dmpool says `unknown`, it contradicts nothing.
fn differences(theirs: &str, ours: &str) -> Vec<String> {
    let (theirs, ours) = (pairs(theirs), pairs(ours));
    let value = |key: &str| {
        ours.iter()
            .find(|(name, _)| name == key)
            .map(|(_, value)| value.as_str())
    };
    let differ = theirs.iter().filter_map(|(key, theirs)| match value(key) {
        Some(ours) if ours == theirs || ours == "unknown" => None,
        Some(ours) => Some(format!(
            "{key}: docker info says {theirs}, dmpool says {ours}"
        )),
        None => Some(format!(
            "{key}: docker info says {theirs}, dmpool says nothing"
        )),
    });
    differ.collect()
}

/// What the writer in the container last reported.
fn tally() -> Result<Tally> {
    let path = Path::new(REPORTS).join("tally.json");
    let text = fs::read(&path)
        .with_context(|| format!("the writer left no report in {}", path.display()))?;
    Ok(serde_json::from_slice(&text)?)
}

/// Waits until the writer has written `more` blocks, and returns its report then.
fn writes(more: u64) -> Result<Tally> {
    let until = Instant::now() + Duration::from_secs(120);
    let goal = tally().map_or(0, |tally| tally.ops) + more;
    loop {
        match tally() {
            Ok(tally) if tally.ops >= goal => return Ok(tally),
            last => ensure!(
                Instant::now() < until,
                "the writer does not go on: {:?}",
                last.map(|t| t.line())
            ),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn now_us() -> u64 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_contradictions_count() {
        let theirs = " Storage Driver: devicemapper\n  Pool Name: p\n  Data Space Total: 107.4GB\n  Library Version: 1\n";
        let ours = " Storage Driver: devicemapper\n  Pool Name: p\n  Data Space Total: 107.4GB\n  Library Version: unknown\n";
        assert_eq!(differences(theirs, ours), Vec::<String>::new());
        let wrong = ours.replace("107.4GB", "1GB");
        assert_eq!(
            differences(theirs, &wrong),
            ["Data Space Total: docker info says 107.4GB, dmpool says 1GB"]
        );
        assert_eq!(differences(theirs, "").len(), 4);
    }
}
