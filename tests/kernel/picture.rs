//! What a pool's operations change, as text that two runs can be compared by.
//!
//! Smaller than the lab's snapshot, which asks LVM and hashes contents: hundreds of cases are compared with this one.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use lab::guest::sys::{self, PREFIX, dmsetup};

use crate::support::Bench;

/// Devices, their tables, loop devices, nodes, files with modes and lengths, registry and journals. Device numbers are
/// left out (what is made again has others), and so are identities that `create` draws at random.
pub fn picture(bench: &Bench) -> String {
    let mut lines = Vec::new();
    for args in [vec!["table"], vec!["info", "-c", "--noheadings", "-o", "name,uuid,suspended,tables_loaded"]] {
        let ran = dmsetup(args).run().checked().unwrap();
        lines.extend(ran.stdout.lines().filter(|line| line.contains(PREFIX)).map(without_numbers));
    }
    let loops = sys::loops().unwrap();
    let ours = loops.iter().filter(|l| l.file.contains(PREFIX));
    lines.extend(ours.map(|l| format!("loop {} {} {}", l.file, l.sectors, l.flags)));
    for node in fs::read_dir("/dev/mapper").unwrap() {
        let name = node.unwrap().file_name().into_string().unwrap();
        if name.starts_with(PREFIX) {
            lines.push(format!("node {name}"));
        }
    }
    walk(&bench.dir, &mut lines);
    walk(&bench.state.join("registry"), &mut lines);
    walk(&bench.state.join("volumes"), &mut lines);
    walk(&bench.state.join("journal"), &mut lines);
    lines.sort();
    lines.join("\n")
}

/// Both are the same picture, or the test ends with the lines that only one of them has.
#[track_caller]
pub fn assert_picture(case: &str, wanted: &str, found: &str) {
    let only = |a: &str, b: &str| -> String {
        let others: Vec<_> = b.lines().collect();
        a.lines().filter(|line| !others.contains(line)).map(|line| format!("\n    {line}")).collect()
    };
    let (missing, surplus) = (only(wanted, found), only(found, wanted));
    assert!(wanted == found, "{case}: the state is not the one it should be\n  missing:{missing}\n  surplus:{surplus}");
}

fn walk(path: &Path, lines: &mut Vec<String>) {
    let Ok(found) = fs::symlink_metadata(path) else { return };
    if found.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            let path = entry.unwrap().path();
            let found = fs::symlink_metadata(&path).unwrap();
            let length = if found.is_dir() { 0 } else { found.len() };
            lines.push(format!("file {} {:o} {length}", path.display(), found.mode()));
            if path.extension().is_some_and(|e| e == "toml") {
                let text = fs::read_to_string(&path).unwrap();
                lines.extend(text.lines().map(|line| format!("registry {}", without_numbers(line))));
            }
            walk(&path, lines);
        }
    }
}

/// Replaces device numbers and random identities by words.
fn without_numbers(line: &str) -> String {
    let word = |word: &str| {
        let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        match word.split_once(':') {
            Some((major, minor)) if number(major) && number(minor) => "DEVICE".to_owned(),
            _ => without_identity(word),
        }
    };
    line.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// Replaces every run of 16 or more hexadecimal digits and dashes.
fn without_identity(word: &str) -> String {
    let mut text = String::new();
    let mut run = String::new();
    for c in word.chars().chain(std::iter::once('\0')) {
        if c.is_ascii_hexdigit() || c == '-' {
            run.push(c);
            continue;
        }
        text.push_str(if run.len() >= 16 { "IDENTITY" } else { &run });
        run.clear();
        text.push(c);
    }
    text.trim_end_matches('\0').to_owned()
}
