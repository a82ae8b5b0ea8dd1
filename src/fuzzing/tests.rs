#![allow(clippy::unwrap_used, reason = "tests")]

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};

use super::*;

fn project() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The seeds of a parser, each with its file's name.
fn seeds(parser: &Parser) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = project().join("fuzz/seeds").join(parser.name);
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

#[test]
fn every_seed_is_read_without_harm() {
    let mut wrong = Vec::new();
    for parser in &PARSERS {
        let seeds = seeds(parser);
        let mut takes_one = false;
        for (path, bytes) in seeds {
            match std::panic::catch_unwind(|| (parser.check)(&bytes)) {
                Ok(taken) => takes_one |= taken,
                Err(_) => wrong.push(path),
            }
        }
        assert!(takes_one, "{} takes none of its seeds", parser.name);
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// Bytes that show themselves as a person can read them, and write them into a file.
#[derive(Clone)]
struct Input(Vec<u8>);

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.0.escape_ascii())
    }
}

/// One piece of damage: a byte, a cut, a repetition, or bytes from nowhere.
#[derive(Clone, Debug)]
enum Damage {
    Byte(Index, u8),
    Cut(Index),
    Without(Index, usize),
    Again(Index, usize),
    Put(Index, Vec<u8>),
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Damage::Byte(at, byte)),
        any::<Index>().prop_map(Damage::Cut),
        (any::<Index>(), 1_usize..40).prop_map(|(at, length)| Damage::Without(at, length)),
        (any::<Index>(), 1_usize..400).prop_map(|(at, length)| Damage::Again(at, length)),
        (any::<Index>(), prop::collection::vec(any::<u8>(), 1..12)).prop_map(|(at, bytes)| Damage::Put(at, bytes)),
    ]
}

fn damaged(mut bytes: Vec<u8>, all: &[Damage]) -> Vec<u8> {
    for damage in all {
        let place = |at: &Index| at.index(bytes.len() + 1);
        let range = |at: &Index, length: usize| place(at)..bytes.len().min(place(at) + length);
        match damage {
            Damage::Byte(at, byte) => {
                let at = place(at);
                bytes.get_mut(at).into_iter().for_each(|slot| *slot = *byte);
            }
            Damage::Cut(at) => bytes.truncate(place(at)),
            Damage::Without(at, length) => drop(bytes.drain(range(at, *length))),
            Damage::Again(at, length) => {
                let piece = bytes.get(range(at, *length)).unwrap().to_vec();
                let at = place(at);
                bytes.splice(at..at, piece);
            }
            Damage::Put(at, put) => {
                let at = place(at);
                bytes.splice(at..at, put.iter().copied());
            }
        }
    }
    bytes
}

#[test]
fn a_damaged_seed_is_read_without_harm() {
    let mut wrong = Vec::new();
    for parser in &PARSERS {
        let seeds: Vec<Vec<u8>> = seeds(parser).into_iter().map(|(_, bytes)| bytes).collect();
        let inputs = (prop::sample::select(seeds), prop::collection::vec(damage(), 1..6))
            .prop_map(|(seed, all)| Input(damaged(seed, &all)));
        let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::default() });
        let result = runner.run(&inputs, |input| {
            let _ = (parser.check)(&input.0);
            Ok(())
        });
        wrong.extend(result.err().map(|error| format!("{}: {error}", parser.name)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Every file below `src` that has a function which reads bytes or text, by what such functions are called.
fn files_with_parsers() -> Vec<String> {
    let src = project().join("src");
    let mut found = Vec::new();
    let mut folders = vec![src.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(&src).unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                folders.push(path);
            } else if !name.ends_with("tests.rs") && !name.starts_with("fuzzing/") && has_parser(&path) {
                found.push(name);
            }
        }
    }
    found.sort();
    found
}

fn has_parser(path: &Path) -> bool {
    let text = fs::read_to_string(path).unwrap();
    let code = text.split("#[cfg(test)]").next().unwrap();
    code.lines().filter_map(|line| line.split_once("fn ")).any(|(_, signature)| {
        let reads = signature.contains("&str") || signature.contains("&[u8]");
        reads && ["parse", "from_str", "from_json", "decode"].iter().any(|name| signature.starts_with(name))
    })
}

#[test]
fn no_parser_is_forgotten() {
    let known: Vec<&str> = PARSERS.iter().flat_map(|parser| parser.files).copied().collect();
    for file in files_with_parsers() {
        assert!(known.contains(&file.as_str()), "src/{file} has a parser that is not in PARSERS (src/fuzzing/mod.rs)");
    }
    for file in known {
        assert!(project().join("src").join(file).exists(), "src/{file} is in PARSERS and is no more");
    }
    assert!(PARSERS.is_sorted_by_key(|parser| parser.name));
}

#[test]
fn every_folder_of_seeds_belongs_to_a_parser() {
    for entry in fs::read_dir(project().join("fuzz/seeds")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(!path.is_dir() || PARSERS.iter().any(|parser| parser.name == name), "nobody reads {}", path.display());
    }
}
