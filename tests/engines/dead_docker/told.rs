//! What `rescue` prints of a root, beside Docker's own words.

use std::collections::BTreeMap;

use lab::guest::docker::Docker;
use lab::guest::menagerie::{Container, Menagerie, names};
use serde_json::Value;

use super::Source;

/// Everything that `rescue` prints of a root, by the command. Ages, which go on, are left out of it.
pub(super) fn words(source: &Source<'_>, made: &Menagerie) -> BTreeMap<String, String> {
    let mut lines: Vec<Vec<&str>> = vec![
        vec!["rescue", "images", "--all", "--format", "json"],
        vec!["rescue", "images", "--tree", "--no-trunc"],
        vec!["volumes", "list", "--format", "json"],
    ];
    for image in &made.images {
        lines.push(vec!["rescue", "inspect", &image.id]);
    }
    for container in &made.containers {
        lines.push(vec!["rescue", "inspect", &container.id]);
        lines.push(vec!["rescue", "run-line", &container.id]);
        lines.push(vec!["rescue", "diff", &container.id]);
        if is_logged(container) {
            lines.push(vec!["rescue", "logs", &container.id]);
        }
    }
    let mut words = BTreeMap::new();
    for line in lines {
        let ended = source.run(&line);
        let stdout = ended.stdout.escape_ascii().to_string();
        let ended = ended.whole();
        words.insert(line.join(" "), stdout);
        if line.contains(&"logs") {
            words.insert(format!("{} on standard error", line.join(" ")), ended.stderr.escape_ascii().to_string());
        }
    }
    words
}

/// What Docker prints in the order of a Go map, which is another each time, is sorted.
fn in_order(text: &str) -> String {
    let mut all: Value = serde_json::from_str(text).unwrap();
    for object in all.as_array_mut().unwrap() {
        if let Some(mounts) = object.get_mut("Mounts").and_then(Value::as_array_mut) {
            mounts.sort_by_key(|mount| mount["Destination"].to_string());
        }
        if let Some(links) = object.pointer_mut("/HostConfig/Links").and_then(Value::as_array_mut) {
            links.sort_by_key(Value::to_string);
        }
    }
    serde_json::to_string_pretty(&all).unwrap()
}

/// Docker 20.10 forgets the end of a line that the driver `local` has in pieces (daemon/logger/local/read.go); the container
/// wrote it.
fn with_all_ends(container: &Container, said: &[u8]) -> Vec<u8> {
    let mut all = said.to_vec();
    if container.name == names::READER {
        let pieces = [b'x'; 20_000];
        if let Some(at) = said.windows(pieces.len()).position(|part| part == pieces) {
            assert_ne!(said[at + pieces.len()], b'\n', "this Docker does not forget it");
            all.insert(at + pieces.len(), b'\n');
        }
    }
    all
}

fn is_logged(container: &Container) -> bool {
    container.state() != "created"
}

/// Compares all that Docker says with what the files say of it.
pub(super) fn as_docker_tells(source: &Source<'_>, docker: &Docker, made: &Menagerie) {
    let mut differing = Vec::new();
    let theirs = docker.cmd(["ps", "--all", "--no-trunc"]).run().checked().unwrap().stdout;
    let ours = source.run(&["rescue", "ps", "-a", "--no-trunc"]).whole().text();
    tables("ps", &theirs, &ours, &mut differing);
    let theirs = docker.cmd(["images", "--all", "--no-trunc"]).run().checked().unwrap().stdout;
    let ours = source.run(&["rescue", "images", "-a", "--no-trunc"]).whole().text();
    tables("images", &theirs, &ours, &mut differing);
    let objects = made.containers.iter().map(|c| ("container", &c.id, c.name.as_str()));
    let objects = objects.chain(made.images.iter().map(|i| ("image", &i.id, i.id.as_str())));
    for (kind, id, name) in objects {
        let theirs = docker.cmd(["inspect", "--type", kind, id]).run().checked().unwrap().stdout;
        let ours = source.run(&["rescue", "inspect", "--type", kind, id]).whole().text();
        same_lines(&format!("inspect {name}"), &in_order(&theirs), &in_order(&ours), &mut differing);
    }
    for container in &made.containers {
        let ours = source.run(&["rescue", "diff", &container.id]).whole().text();
        let mut theirs: Vec<_> = container.changes.iter().map(|line| escaped(line)).collect();
        theirs.sort();
        let mut ours: Vec<_> = ours.lines().map(no_text).collect();
        ours.sort();
        same_lines(&format!("diff {}", container.name), &theirs.join("\n"), &ours.join("\n"), &mut differing);
        if is_logged(container) {
            let ours = source.run(&["rescue", "logs", &container.id]);
            for (stream, theirs, ours) in
                [("stdout", &container.stdout.0, &ours.stdout), ("stderr", &container.stderr.0, &ours.stderr)]
            {
                let theirs = &with_all_ends(container, theirs);
                if theirs != ours {
                    let at = theirs.iter().zip(ours).position(|(a, b)| a != b);
                    differing.push(format!(
                        "logs {}: {stream} from byte {at:?} on; {} and {} bytes",
                        container.name,
                        theirs.len(),
                        ours.len()
                    ));
                }
            }
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

/// Fails unless everything is told as it was.
pub(super) fn as_before(source: &Source<'_>, made: &Menagerie, before: &BTreeMap<String, String>) {
    let now = words(source, made);
    let mut differing = Vec::new();
    for (line, was) in before {
        same_lines(line, &was.replace("\\n", "\n"), &now[line].replace("\\n", "\n"), &mut differing);
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

/// Lines, each with its place.
fn same_lines(what: &str, theirs: &str, ours: &str, differing: &mut Vec<String>) {
    let (theirs, ours): (Vec<_>, Vec<_>) = (theirs.lines().collect(), ours.lines().collect());
    let pairs = (0..theirs.len().max(ours.len())).map(|at| (at, theirs.get(at), ours.get(at)));
    // Behind a few all is out of step.
    for (at, theirs, ours) in pairs.filter(|(_, theirs, ours)| theirs != ours).take(12) {
        differing.push(format!("{what}, line {at}: {ours:?} instead of {theirs:?}"));
    }
}

/// Docker's client and this print ages at two moments; and that a container runs, only Docker knows.
fn tables(what: &str, theirs: &str, ours: &str, differing: &mut Vec<String>) {
    // Clients from 24 on put an address of IPv6 in brackets, as is done here.
    let (theirs, ours) = (rows(&theirs.replace(":::", "[::]:")), rows(ours));
    let text =
        |rows: &[Vec<(String, String)>]| rows.iter().map(|row| format!("{row:?}")).collect::<Vec<_>>().join("\n");
    same_lines(what, &text(&theirs), &text(&ours), differing);
}

fn rows(text: &str) -> Vec<Vec<(String, String)>> {
    let heading: Vec<char> = text.lines().next().unwrap_or_default().chars().collect();
    let begins: Vec<usize> = (0..heading.len())
        .filter(|at| heading[*at] != ' ' && (*at == 0 || heading[at.saturating_sub(2)..*at].iter().all(|c| *c == ' ')))
        .collect();
    let cut = |line: &str| -> Vec<String> {
        let line: Vec<char> = line.chars().collect();
        let ends = begins.iter().skip(1).copied().chain([line.len()]);
        let cells = begins
            .iter()
            .zip(ends)
            .map(|(from, to)| line[(*from).min(line.len())..to.min(line.len())].iter().collect::<String>());
        cells.map(|cell| cell.trim().to_owned()).collect()
    };
    let headings = cut(text.lines().next().unwrap_or_default());
    let row = |line: &str| {
        let cells = headings.iter().cloned().zip(cut(line)).filter(|(heading, _)| heading != "CREATED");
        cells
            .map(|(heading, cell)| if heading == "STATUS" { (heading, state(&cell)) } else { (heading, cell) })
            .collect()
    };
    text.lines().skip(1).map(row).collect()
}

/// Without ages and health, and of what runs that it did.
fn state(status: &str) -> String {
    let status = match (status.starts_with("Up "), status.contains("(Paused)")) {
        (true, true) => "was paused",
        (true, false) => "was running",
        (false, _) => status,
    };
    let end = status.find(')').map(|at| at + 1).or_else(|| status.find(',')).unwrap_or(status.len());
    status[..end].to_owned()
}

/// As `rescue` escapes what Docker prints as it is; Docker has one character for every byte that is no text.
fn escaped(line: &str) -> String {
    let mut text = String::new();
    for c in line.chars() {
        match c {
            '\u{fffd}' => text.push_str("\\x??"),
            c if c.is_control() => text.extend(c.escape_default()),
            c => text.push(c),
        }
    }
    text
}

/// Which byte is no text, Docker does not tell.
fn no_text(line: &str) -> String {
    let mut pieces = line.split("\\x");
    let first = pieces.next().unwrap_or_default().to_owned();
    pieces.fold(first, |text, piece| text + "\\x??" + piece.get(2..).unwrap_or_default())
}
