//! Findings as text, as JSON, and as monitoring plugins print them.

use serde::Serialize;

use super::failure::printable;
use super::json::{self, Binds, FindingOf};
use crate::ops::health::{self, Health, PoolHealth, Threshold, Thresholds};
use crate::pool::{Finding, PoolReport, Severity, Space, Way, finding};
use crate::units::Bytes;

/// What is said of a pool in which nothing is wrong as far as `status` and `list` look: `health` looks at more.
pub const WELL_AT_A_GLANCE: &str = "OK at a glance";

/// Returns the verdict of who did not look at all in one line: `OK at a glance`, or `CRITICAL: it is full`.
pub fn verdict_at_a_glance(findings: &[Finding]) -> String {
    finding::verdict(findings).map_or_else(|| WELL_AT_A_GLANCE.to_owned(), line)
}

/// Returns what was found of a pool at a glance, as [`findings`]; when all is well, by what command one looks at more.
pub fn findings_at_a_glance(findings: &[Finding], pool: &PoolReport) -> String {
    let more = format!("{WELL_AT_A_GLANCE}; dmpool health {} looks at more", health::argument(pool));
    listed(findings, &more)
}

/// Returns all findings, each line ended: the verdict first, and under each the ways out, the best first, with what
/// they cost.
pub fn findings(findings: &[Finding]) -> String {
    listed(findings, "OK")
}

fn listed(findings: &[Finding], well: &str) -> String {
    let mut text = String::new();
    if finding::verdict(findings).is_none() {
        text.push_str(&format!("{}\n", one_line(well)));
    }
    for finding in findings {
        text.push_str(&format!("{}\n", line(finding)));
        for (number, way) in finding.ways.iter().enumerate() {
            let label = if number == 0 { "next:" } else { "or:  " };
            text.push_str(&format!("  {label} {}    {}\n", one_line(&what_to_do(way)), one_line(&cost(way))));
        }
    }
    text
}

/// What follows `$ ` is to be pasted, to the end of the line; what comes before is to be done by hand first.
fn what_to_do(way: &Way) -> String {
    match (&way.first, &way.command) {
        (None, None) => String::new(),
        (None, Some(command)) => format!("$ {command}"),
        (Some(first), None) => first.clone(),
        (Some(first), Some(command)) => format!("{first}, then  $ {command}"),
    }
}

/// Behind a command it is a comment of the shell's, so that the whole line can be pasted.
fn cost(way: &Way) -> String {
    if way.command.is_some() { format!("# {}", way.cost) } else { format!("({})", way.cost) }
}

fn line(finding: &Finding) -> String {
    format!("{}: {}", finding.severity.word(), one_line(&finding.sentence))
}

fn one_line(text: &str) -> String {
    printable(text).replace('\n', " ")
}

/// Returns what `health` prints for people: each pool's name and findings.
pub fn text(health: &Health) -> String {
    let mut text = String::new();
    for pool in &health.pools {
        text.push_str(&format!("{}:\n", one_line(pool.name.as_deref().unwrap_or(&pool.argument))));
        text.push_str(&findings(&pool.findings));
    }
    text
}

/// Returns the one line of a monitoring plugin, with the used bytes of every pool behind a bar
/// (`'label'=value;warning;critical;minimum;maximum`).
pub fn nagios(health: &Health, thresholds: &Thresholds) -> String {
    let troubles: Vec<String> = health.pools.iter().filter_map(trouble).collect();
    let state = match health.severity() {
        Severity::Info => "OK",
        worse => worse.word(),
    };
    let said = if troubles.is_empty() { well(health) } else { troubles.join("; ") };
    let mut line = format!("DMPOOL {state} - {}", said.replace('|', "/"));
    let values = performance(health, thresholds);
    if !values.is_empty() {
        line.push_str(&format!(" | {}", values.join(" ")));
    }
    line.push('\n');
    line
}

/// Returns the line of a monitoring plugin for a command line that was wrong, from the first line of what is wrong.
pub fn nagios_wrong(error: &str) -> String {
    let error = error.strip_prefix("error: ").unwrap_or(error);
    format!("DMPOOL UNKNOWN - wrong command line: {}\n", one_line(error).replace('|', "/"))
}

/// The worst of one pool, and how many others there are.
fn trouble(pool: &PoolHealth) -> Option<String> {
    let worst = finding::verdict(&pool.findings)?;
    let more = pool.findings.iter().filter(|f| f.severity > Severity::Info).count() - 1;
    let more = if more == 0 { String::new() } else { format!(" (and {more} more)") };
    Some(format!("{}: {}{more}", one_line(&pool.argument), one_line(&worst.sentence)))
}

/// What is said of pools that are well: how full each is.
fn well(health: &Health) -> String {
    let used = |pool: &PoolHealth| {
        let percent =
            |space: Option<Space>| space.map_or_else(|| "unknown".to_owned(), |s| format!("{}%", s.percent()));
        let (data, metadata) = (percent(pool.data), percent(pool.metadata));
        pool.name.as_ref().map(|_| format!("{}: data {data}, metadata {metadata}", one_line(&pool.argument)))
    };
    let pools: Vec<String> = health.pools.iter().filter_map(used).collect();
    if pools.is_empty() { "there is no thin pool".to_owned() } else { pools.join("; ") }
}

fn performance(health: &Health, thresholds: &Thresholds) -> Vec<String> {
    let mut values = Vec::new();
    for pool in &health.pools {
        let label = printable(&pool.argument).replace(['\'', '=', '|'], "_");
        values.extend(pool.data.map(|space| value(&label, "data", space, thresholds.data)));
        values.extend(pool.metadata.map(|space| value(&label, "metadata", space, thresholds.metadata)));
    }
    values
}

fn value(label: &str, what: &str, space: Space, threshold: Threshold) -> String {
    let share = |percent: u8| {
        let bytes = u128::from(space.total.get()) * u128::from(percent) / 100;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    };
    let (used, total) = (space.used.get(), space.total.get());
    format!("'{label} {what}'={used}B;{};{};0;{total}", share(threshold.warning), share(threshold.critical))
}

#[derive(Serialize)]
struct Document {
    format: u32,
    /// `ok`, `warning`, `unknown`, `critical`.
    state: &'static str,
    exit: u8,
    pools: Vec<PoolOf>,
}

#[derive(Serialize)]
struct PoolOf {
    name: Option<String>,
    argument: String,
    state: &'static str,
    data: Option<SpaceOf>,
    metadata: Option<SpaceOf>,
    binds_first: Option<Binds>,
    findings: Vec<FindingOf>,
}

#[derive(Serialize)]
struct SpaceOf {
    used: Bytes,
    total: Bytes,
}

impl SpaceOf {
    const fn of(space: Space) -> Self {
        Self { used: space.used, total: space.total }
    }
}

const fn state(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "ok",
        worse => worse.key(),
    }
}

/// Returns it for programs: bytes as whole numbers, `null` for what is not known.
pub fn document(health: &Health) -> String {
    let pool = |pool: &PoolHealth| PoolOf {
        name: pool.name.clone(),
        argument: pool.argument.clone(),
        state: state(finding::verdict(&pool.findings).map_or(Severity::Info, |f| f.severity)),
        data: pool.data.map(SpaceOf::of),
        metadata: pool.metadata.map(SpaceOf::of),
        binds_first: Binds::of(pool.binds_first, pool.unless_extended),
        findings: pool.findings.iter().map(FindingOf::of).collect(),
    };
    json::document(&Document {
        format: json::FORMAT,
        state: state(health.severity()),
        exit: health.severity().exit_code(),
        pools: health.pools.iter().map(pool).collect(),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use crate::pool::{Key, Limit};

    fn pool(name: &str, argument: &str, findings: Vec<Finding>) -> PoolHealth {
        PoolHealth {
            name: Some(name.to_owned()),
            argument: argument.to_owned(),
            data: Some(Space { used: Bytes::new(9 << 30), total: Bytes::new(100 << 30) }),
            metadata: Some(Space { used: Bytes::new(1 << 20), total: Bytes::new(2 << 30) }),
            binds_first: Some((Limit::Pool, Bytes::new(91 << 30))),
            findings,
            ..PoolHealth::default()
        }
    }

    fn critical() -> Vec<Finding> {
        vec![
            Finding::new(Key::Full, Severity::Critical, "p", "it is full").run("dmpool grow docker +50G", "online"),
            Finding::new(Key::VolumeUse, Severity::Warning, "c", "container `a|b` is\nfull"),
            Finding::new(Key::LoopFiles, Severity::Info, "p", "it is on loop files")
                .act("move it to a disk", "a restart"),
        ]
    }

    #[test]
    fn a_plugin_says_one_line_and_the_bytes() {
        let health = Health { pools: vec![pool("docker-8:1-9-pool", "docker", critical()), pool("p0", "p0", vec![])] };
        let line = nagios(&health, &Thresholds::default());
        assert_eq!(
            line,
            "DMPOOL CRITICAL - docker: it is full (and 1 more) | \
             'docker data'=9663676416B;85899345920;102005473280;0;107374182400 \
             'docker metadata'=1048576B;1717986918;2040109465;0;2147483648 \
             'p0 data'=9663676416B;85899345920;102005473280;0;107374182400 \
             'p0 metadata'=1048576B;1717986918;2040109465;0;2147483648\n"
        );
        assert_eq!(health.severity().exit_code(), 2);
    }

    #[test]
    fn what_is_well_says_how_full_and_two_dockers_are_told_apart() {
        let two = Health {
            pools: vec![pool("docker-8:1-9-pool", "docker", vec![]), pool("docker-8:1-7-pool", "/srv/docker", vec![])],
        };
        let line = nagios(&two, &Thresholds::default());
        assert!(line.starts_with("DMPOOL OK - docker: data 9%, metadata 0%; /srv/docker: data"), "{line}");
        assert!(line.contains("'docker data'=") && line.contains("'/srv/docker data'="), "{line}");
        assert_eq!(nagios(&Health { pools: vec![] }, &Thresholds::default()), "DMPOOL OK - there is no thin pool\n");
    }

    #[test]
    fn nothing_in_a_sentence_ends_the_line_or_begins_the_values() {
        let finding = Finding::new(Key::VolumeUse, Severity::Warning, "c", "container `a|b\n\u{1b}` is full");
        let line = nagios(&Health { pools: vec![pool("p", "p|'=", vec![finding])] }, &Thresholds::default());
        assert_eq!(line.matches('|').count(), 1, "{line}");
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        assert!(line.contains("'p___ data'="), "{line}");
    }

    #[test]
    fn people_read_each_pool_with_its_ways_out() {
        let health = Health { pools: vec![pool("docker-8:1-9-pool", "docker", critical()), pool("p0", "p0", vec![])] };
        assert_eq!(
            text(&health),
            "\
docker-8:1-9-pool:
CRITICAL: it is full
  next: $ dmpool grow docker +50G    # online
WARNING: container `a|b` is full
INFO: it is on loop files
  next: move it to a disk    (a restart)
p0:
OK
"
        );
    }

    #[test]
    fn programs_read_the_state_and_every_finding() {
        let health = Health { pools: vec![pool("docker-8:1-9-pool", "docker", critical())] };
        let value: serde_json::Value = serde_json::from_str(&document(&health)).unwrap();
        assert_eq!((&value["state"], &value["exit"]), (&"critical".into(), &2.into()));
        assert_eq!(value["pools"][0]["findings"][0]["key"], "full");
        assert_eq!(value["pools"][0]["findings"][0]["ways"][0]["command"], "dmpool grow docker +50G");
        assert_eq!(value["pools"][0]["data"]["used"], 9_663_676_416_u64);
        assert_eq!(value["pools"][0]["binds_first"]["limit"], "pool");
    }
}
