//! The architecture holds: imports point down, rooms stay small, and one operation never knows another.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};

/// What each room may import from the crate, beside itself. Which rooms there are is read from the folder, so that a new
/// one must be given its place here.
const MAY_SEE: &[(&str, &[&str])] = &[
    ("main", &["cli"]),
    ("lib", &[]),
    ("cli", &["ops", "report", "pool", "units", "error", "kernel::fs"]),
    ("ops", &["kernel", "metadata", "engine", "pool", "units", "error", "process"]),
    // Values of any room; that it does no I/O is the next test's business.
    ("report", &["ops", "engine", "pool", "units", "error", "process"]),
    ("kernel", &["pool", "units", "error", "process"]),
    ("metadata", &["pool", "units", "error", "process"]),
    ("engine", &["pool", "units", "error", "process"]),
    ("pool", &["units", "error"]),
    ("units", &[]),
    ("error", &["units"]),
    // Every parser there is, for the tests and for libFuzzer; in no program that users get.
    ("fuzzing", &["cli", "ops", "report", "kernel", "metadata", "engine", "pool", "units"]),
    ("process", &["error"]),
];

/// The longest a file may be without its tests; longer wants a second room.
const LONGEST: usize = 500;

struct Source {
    path: PathBuf,
    /// The room: the first folder below src, or the file's own name.
    room: String,
    text: String,
}

fn sources() -> Vec<Source> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut folders = vec![src.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let relative = path.strip_prefix(&src).unwrap().to_owned();
                let first = relative.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
                let room = first.trim_end_matches(".rs").to_owned();
                found.push(Source { text: fs::read_to_string(&path).unwrap(), path: relative, room });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(found.len() > 50, "only {} files found", found.len());
    found
}

impl Source {
    /// The file without its tests, which stand last.
    fn code(&self) -> &str {
        self.text.split("#[cfg(test)]").next().unwrap()
    }

    fn is_tests(&self) -> bool {
        self.path.to_string_lossy().ends_with("tests.rs")
    }

    /// Every path below `crate::`, as written: `kernel::dm`, in braces too.
    fn imports(&self) -> Vec<String> {
        let mut found = Vec::new();
        for piece in self.code().split("crate::").skip(1) {
            let end = piece.find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':').unwrap_or(piece.len());
            let (base, rest) = piece.split_at(end);
            match rest.strip_prefix('{') {
                Some(list) if base.is_empty() || base.ends_with("::") => {
                    let names = list.split('}').next().unwrap().split(',').map(str::trim);
                    found.extend(names.filter(|name| !name.is_empty()).map(|name| format!("{base}{name}")));
                }
                _ => found.push(base.trim_end_matches(':').to_owned()),
            }
        }
        found.retain(|path| !path.is_empty());
        found
    }
}

#[test]
fn imports_point_down() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|s| !s.is_tests()) {
        let Some((_, allowed)) = MAY_SEE.iter().find(|(room, _)| *room == source.room) else {
            wrong.push(format!("{}: the room `{}` has no place in MAY_SEE", source.path.display(), source.room));
            continue;
        };
        for import in source.imports() {
            let own = import.split("::").next() == Some(source.room.as_str());
            let seen = allowed.iter().any(|a| import == *a || import.starts_with(&format!("{a}::")));
            if !own && !seen {
                wrong.push(format!("{} imports crate::{import}", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn one_operation_never_imports_another() {
    const OPERATIONS: [&str; 8] = ["activate", "create", "deactivate", "destroy", "grow", "migrate", "resume", "thin"];
    // A pool that Docker is carried to is one that `create` makes and `destroy` takes away, step for step; who ends a migration writes down that it has ended.
    const MAY: [(&str, &str); 3] = [("migrate", "create"), ("migrate", "destroy"), ("resume", "migrate")];
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|s| s.room == "ops") {
        let path = source.path.to_string_lossy().into_owned();
        let Some(own) = OPERATIONS.iter().find(|o| path.starts_with(&format!("ops/{o}"))) else { continue };
        for import in source.imports() {
            let other = OPERATIONS.iter().find(|o| import.starts_with(&format!("ops::{o}")) && o != &own);
            let other = other.filter(|other| !MAY.contains(&(*own, **other)));
            wrong.extend(other.map(|_| format!("{path} imports crate::{import}")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn report_and_pool_do_no_io() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|s| ["report", "pool", "units", "error"].contains(&s.room.as_str())) {
        for word in ["std::fs", "std::process", "std::net", "std::env", "libc::", "nix::"] {
            // The device number's own encoding is the C library's, and no call.
            let encoding = source.path.ends_with("devno.rs") && word == "libc::";
            if source.code().contains(word) && !encoding {
                wrong.push(format!("{} speaks of {word}", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn other_programs_are_run_through_one_door() {
    let users: Vec<_> =
        sources().iter().filter(|s| s.code().contains("Command::new")).map(|s| s.path.clone()).collect();
    assert_eq!(users, [PathBuf::from("process.rs")]);
}

#[test]
fn files_stay_small() {
    let long: Vec<_> = sources()
        .iter()
        .map(|s| (s.code().lines().count(), s.path.clone()))
        .filter(|(lines, _)| *lines > LONGEST)
        .map(|(lines, path)| format!("{} has {lines} lines", path.display()))
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}

/// `unsafe` is denied for the whole workspace; a module that allows it says so at its head.
#[test]
fn unsafe_is_allowed_in_the_kernel_room_alone() {
    let allowed: Vec<_> = sources().into_iter().filter(|s| s.text.contains("unsafe_code")).map(|s| s.path).collect();
    assert_eq!(allowed, [PathBuf::from("kernel/raw.rs")]);
}
