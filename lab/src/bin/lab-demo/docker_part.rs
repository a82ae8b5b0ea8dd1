//! Docker's default pool: shown, and grown while a container writes.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::guest::docker::{Config, DAEMON_JSON, Docker, IMAGE, find, pairs};
use lab::guest::run::{Cmd, Ran};
use lab::guest::writer::{Plan, Tally, now_us};

use crate::terminal::Terminal;

/// Where the writer reports, on both sides of the container's wall. On the root disk, not on the pool.
const REPORTS: &str = "/var/tmp/dmpool-demo-writer";

pub(crate) fn show(terminal: &mut Terminal, root: &Path) -> Result<()> {
    terminal.chapter("Docker starts on its default pool: sparse loop files, 100 GB");
    let mut docker = Docker::start(Config::new(root)).context("Docker did not start")?;
    terminal.run(Cmd::new("cat").arg(DAEMON_JSON))?;
    docker.busybox(&[&find("lab-writer")?])?;
    terminal.run(Cmd::new("docker").arg("images"))?;
    terminal.run(Cmd::new("ls").arg("-lsh").arg(root.join("devicemapper/devicemapper")))?;

    terminal.chapter("A container writes, and syncs every write");
    fs::create_dir_all(REPORTS)?;
    let volume = format!("{REPORTS}:/reports");
    let mut run = Cmd::new("docker").args(["run", "-d", "--name", "writer", "--network", "none", "-v", &volume, IMAGE]);
    run = run.args(["lab-writer", "/data/written", "--slots", "256", "--report", "/reports/tally.json"]);
    terminal.run(run)?;
    // Once round all its slots: from here on it takes no new space, and both programs see the same numbers.
    writes(300)?;

    terminal.chapter("The same pool, as Docker and as dmpool tell it");
    compare(terminal, &docker)?;
    terminal.try_run(Cmd::new("dmpool").args(["status", "docker"]));
    terminal.try_run(Cmd::new("dmpool").arg("list"));
    terminal.promise("docker info says 107.4GB", docker.storage_value("Data Space Total")? == "107.4GB");

    terminal.chapter("Twice the size, while the container writes");
    let before = tally()?;
    let began = now_us();
    let grown = terminal.try_run(Cmd::new("dmpool").args(["grow", "docker", "200G"]));
    let ended = now_us();
    let after = writes(20)?;
    let wait = after.longest_between(began, ended).map_or(0, |wait| wait.as_millis());
    terminal.remark(&format!("dmpool took {} ms from start to end", (ended - began) / 1000));
    terminal.remark(&format!("the writer before: {}", before.line()));
    terminal.remark(&format!("the writer now:    {}", after.line()));
    terminal.remark(&format!("its longest wait during the grow: {wait} ms"));
    terminal.promise("dmpool grow docker 200G ended with 0", grown.ok());
    terminal.promise("the writer saw no error", after.errors == 0);
    terminal.promise("the writer went on", after.ops > before.ops);
    let total = docker.storage_value("Data Space Total")?;
    terminal.promise("docker info says 214.7GB, without a restart", total == "214.7GB");
    compare(terminal, &docker)?;

    terminal.chapter("Every write that was acknowledged is there");
    terminal.run(Cmd::new("docker").args(["stop", "writer"]))?;
    terminal.run(Cmd::new("docker").args(["cp", "writer:/data/written", REPORTS]))?;
    let last = tally()?;
    terminal.remark(&last.line());
    let verified = last.verify(&Plan { slots: 256, ..Plan::new(format!("{REPORTS}/written")) });
    if let Err(lost) = &verified {
        terminal.remark(&format!("{lost:#}"));
    }
    terminal.promise("all blocks that the writer was promised are there", verified.is_ok());
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
    let (theirs, ours, differ) = ask_both(docker)?;
    terminal.typed("docker info");
    terminal.remark("its storage block:");
    print_block(&theirs);
    terminal.typed("dmpool status docker --format docker");
    print_block(&ours.stdout);
    print_block(&ours.stderr);
    for line in &differ {
        terminal.remark(line);
    }
    if theirs == ours.stdout {
        terminal.remark("the same, byte for byte");
    }
    terminal.promise("dmpool status says what docker info says", ours.ok() && differ.is_empty());
    Ok(())
}

/// What Docker said, what dmpool said, and where they contradict each other.
///
/// The pool is written to meanwhile, so Docker is asked before and after, and all again while its own answers differ.
fn ask_both(docker: &Docker) -> Result<(String, Ran, Vec<String>)> {
    let mut tries = 0;
    loop {
        let before = docker.storage_block()?;
        let ours = Cmd::new("dmpool").args(["status", "docker", "--format", "docker"]).run();
        let after = docker.storage_block()?;
        tries += 1;
        if before == after || tries == 10 {
            let differ = differences(&before, &ours.stdout, &after);
            return Ok((after, ours, differ));
        }
    }
}

#[allow(clippy::print_stdout, reason = "the output of a program")]
fn print_block(block: &str) {
    print!("{block}");
}

/// The keys of dmpool's block whose values contradict Docker's before and after. `unknown` contradicts nothing, and a
/// number that moved may be anywhere on its way.
fn differences(before: &str, ours: &str, after: &str) -> Vec<String> {
    let (ours, after) = (pairs(ours), pairs(after));
    let value = |block: &[(String, String)], key: &str| {
        block.iter().find(|(name, _)| name == key).map_or(String::new(), |(_, value)| value.clone())
    };
    let mut differ = Vec::new();
    for (key, before) in pairs(before) {
        let (ours, after) = (value(&ours, &key), value(&after, &key));
        if ours != before && ours != after && ours != "unknown" && !on_the_way(&before, &ours, &after) {
            differ.push(format!("{key}: docker info says {before}, dmpool says {ours:?}"));
        }
    }
    differ
}

/// Whether a size lies between two others that are printed in the same unit.
fn on_the_way(before: &str, ours: &str, after: &str) -> bool {
    let split = |text: &str| {
        let (number, unit) = text.split_at(text.find(char::is_alphabetic)?);
        Some((number.trim().parse::<f64>().ok()?, unit.to_owned()))
    };
    match (split(before), split(ours), split(after)) {
        (Some(a), Some(b), Some(c)) => a.1 == b.1 && b.1 == c.1 && (a.0.min(c.0)..=a.0.max(c.0)).contains(&b.0),
        _ => false,
    }
}

/// What the writer in the container last reported.
fn tally() -> Result<Tally> {
    let path = Path::new(REPORTS).join("tally.json");
    let text = fs::read(&path).with_context(|| format!("the writer left no report in {}", path.display()))?;
    Ok(serde_json::from_slice(&text)?)
}

/// Waits until the writer has written `more` blocks, and returns its report then.
fn writes(more: u64) -> Result<Tally> {
    let until = Instant::now() + Duration::from_secs(120);
    let goal = tally().map_or(0, |tally| tally.ops) + more;
    loop {
        match tally() {
            Ok(tally) if tally.ops >= goal => return Ok(tally),
            last => ensure!(Instant::now() < until, "the writer does not go on: {:?}", last.map(|t| t.line())),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_contradictions_count() {
        let block = |used: &str, library: &str| format!("  Data Space Used: {used}\n  Library Version: {library}\n");
        let (before, after) = (block("147.2MB", "1"), block("151.7MB", "1"));
        let differ = |used: &str, library: &str| differences(&before, &block(used, library), &after).len();
        assert_eq!(differ("147.2MB", "unknown"), 0);
        assert_eq!(differ("151.7MB", "1"), 0);
        assert_eq!(differ("150MB", "1"), 0, "on its way");
        assert_eq!(differ("160MB", "1"), 1);
        assert_eq!(differ("150GB", "2"), 2);
        let missing = differences(&before, "", &after);
        assert_eq!(
            missing.first().map(String::as_str),
            Some("Data Space Used: docker info says 147.2MB, dmpool says \"\"")
        );
    }
}
