//! What README and docs say, held against the program where that needs no kernel.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

#[path = "support/docs.rs"]
mod support;

use dmpool::error;
use dmpool::pool::{Key, Severity};
use support::{Block, Needs};

/// Blocks that hold no commands.
const NO_COMMANDS: [&str; 5] = ["text", "json", "toml", "ini", "rust"];

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Says what is wrong with a block, if something is.
fn fault(block: &Block) -> Option<&'static str> {
    if NO_COMMANDS.contains(&block.info.as_str()) {
        return None;
    }
    match (&block.not_run, block.needs()) {
        (Some(reason), _) if reason.split_whitespace().count() < 3 => Some("its mark gives no reason"),
        (Some(_), _) => None,
        (None, None) => Some("it is neither ```console nor marked `<!-- not run: REASON -->`"),
        (None, Some(_)) if block.commands().is_empty() => Some("it has no line that begins with `# `"),
        (None, Some(_)) => None,
    }
}

#[test]
fn every_command_in_the_docs_is_run_or_says_why_not() {
    let blocks = support::blocks();
    let faults: Vec<String> = blocks
        .iter()
        .filter_map(|block| fault(block).map(|what| format!("{}:{}: {what}", block.file.display(), block.line)))
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    for block in blocks.iter().filter(|block| block.needs().is_some()) {
        let known = support::EMBEDDED.iter().any(|(file, _)| Path::new(file) == block.file);
        assert!(known, "{} has commands to run and is not in EMBEDDED", block.file.display());
    }
    for needs in [Needs::Plain, Needs::Docker] {
        assert!(blocks.iter().any(|block| block.needs() == Some(needs)), "no block is run that needs {needs:?}");
    }
}

#[test]
fn no_text_is_left_out() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut there = vec!["README.md".to_owned()];
    let mut folders = vec![project.join("docs")];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                there.push(path.strip_prefix(project).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    // The lab writes it, and it has nothing to run.
    there.retain(|file| file != "docs/proof.md");
    there.sort();
    let known: Vec<_> = support::TEXTS.iter().map(|(file, _)| (*file).to_owned()).collect();
    assert_eq!(there, known, "the texts in tests/support/docs.rs, which guests run, are not those of the project");
}

#[test]
fn a_block_that_is_not_marked_is_found() {
    let text = "\
```console
# dmpool list
no thin pools on this machine
# dmpool status p9
dmpool: no such pool: `p9`
(exit 3)
```
<!-- not run: needs a disk of its own -->
```sh
mkfs /dev/sdb
```
```sh
rm -rf /
```
<!-- not run: x -->
```console docker
# docker ps
```
````text
```sh
quoted
```
````
";
    let blocks = support::parse(Path::new("t.md"), text);
    let faults: Vec<_> = blocks.iter().map(fault).collect();
    let commands: Vec<_> = blocks[0].commands().into_iter().map(|c| (c.line, c.exit)).collect();
    assert_eq!(commands, [("dmpool list".to_owned(), 0), ("dmpool status p9".to_owned(), 3)]);
    assert_eq!(blocks.len(), 5);
    assert_eq!((faults[0], faults[1], faults[4]), (None, None, None));
    assert!(faults[2].unwrap().contains("neither") && faults[3].unwrap().contains("no reason"));
}

/// Returns the rows of a table of `docs/exit-codes.md`: the code and its meaning, of the table under that heading.
fn codes_under(heading: &str) -> BTreeMap<u8, String> {
    read("docs/exit-codes.md")
        .split("\n## ")
        .find(|section| section.starts_with(heading))
        .unwrap_or_else(|| panic!("docs/exit-codes.md has no `## {heading}`"))
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix('|')?.split('|').map(str::trim);
            Some((cells.next()?.parse().ok()?, cells.next()?.to_owned()))
        })
        .collect()
}

#[test]
fn the_exit_codes_are_the_programs() {
    let written = codes_under("The codes");
    let constants = read("src/error.rs");
    for (code, name) in [
        (error::EXIT_DONE, "EXIT_DONE"),
        (error::EXIT_FAILED, "EXIT_FAILED"),
        (error::EXIT_USAGE, "EXIT_USAGE"),
        (error::EXIT_REFUSED, "EXIT_REFUSED"),
        (error::EXIT_PARTIAL, "EXIT_PARTIAL"),
        (error::EXIT_DAMAGED, "EXIT_DAMAGED"),
    ] {
        let before = constants.split(&format!("pub const {name}:")).next().unwrap();
        let comment = before.trim_end().rsplit('\n').next().unwrap().trim_start_matches("/// ").trim_end_matches('.');
        let meaning = written.get(&code).unwrap_or_else(|| panic!("docs/exit-codes.md does not have {code} ({name})"));
        assert_eq!(meaning.trim_end_matches('.'), comment, "{name}");
    }
    assert_eq!(written.len(), 6, "docs/exit-codes.md has a code that the program has not: {written:?}");
}

/// `health` has codes of its own, and keys that the guide explains.
#[test]
fn the_codes_and_keys_of_health_are_the_programs() {
    let written = codes_under("health");
    assert_eq!(written.len(), Severity::ALL.len());
    for severity in Severity::ALL {
        let word = if severity == Severity::Info { "OK" } else { severity.word() };
        let meaning = written.get(&severity.exit_code()).unwrap();
        assert!(meaning.starts_with(&format!("{word}: ")), "{meaning}");
    }
    let guide = read("docs/guide.md");
    let section = guide.split("\n## health\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let named: Vec<&str> = section
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .filter(|line| !line.starts_with('-'))
        .flat_map(|line| line.split(" | ").next().unwrap().split(", "))
        .map(|word| word.trim_matches('`').trim_end_matches('`'))
        .collect();
    let keys: Vec<&str> = Key::ALL.iter().map(|key| key.word()).collect();
    assert_eq!(named, keys, "the guide's table on the left, the program's keys on the right");
}

/// `disks` has a key for each reason, and the guide explains them all.
#[test]
fn the_reasons_of_disks_are_the_programs() {
    let guide = read("docs/guide.md");
    let section = guide.split("\n## disks\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    let mut named: Vec<&str> =
        rows.flat_map(|row| row.split(" | ").next().unwrap().split(", ")).map(|word| word.trim_matches('`')).collect();
    let source = read("src/pool/disk/unfit.rs");
    let function = source.split("fn key(").nth(1).unwrap().split("\n    }\n").next().unwrap();
    let mut keys: Vec<&str> =
        function.lines().filter_map(|line| line.split_once("=> \"")?.1.split('"').next()).collect();
    named.sort_unstable();
    keys.sort_unstable();
    assert!(keys.len() > 20);
    assert_eq!(named, keys, "the guide's table on the left, the program's keys on the right");
}

#[test]
fn links_between_the_docs_lead_somewhere() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = vec!["README.md".to_owned(), "CHANGELOG.md".to_owned()];
    let docs = fs::read_dir(project.join("docs")).unwrap().flatten().map(|e| e.file_name().into_string().unwrap());
    files.extend(docs.filter(|name| name.ends_with(".md")).map(|name| format!("docs/{name}")));
    let mut followed = 0;
    for file in files {
        let text = read(&file);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap();
            if target.is_empty() || target.starts_with("https:") {
                continue;
            }
            let folder = Path::new(&file).parent().unwrap();
            assert!(project.join(folder).join(target).exists(), "{file} links to {target}, which is not there");
            followed += 1;
        }
    }
    assert!(followed > 5, "only {followed} links");
}
