//! Asked to end, and killed, in the middle.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use lab::guest::inventory::{Except, Field, Inventory, Kind as Type};
use lab::guest::menagerie::{Menagerie, names};
use lab::guest::run::Cmd;
use lab::guest::sys::dmsetup;

use super::Source;
use crate::rescue_devicemapper::{LEFT, assert_nothing_left};

pub(super) fn in_the_middle(source: &Source<'_>, made: &Menagerie) {
    let odd = &made.container(names::ODD).unwrap().id;
    let (image, volume) = (names::WEB_IMAGE, names::FORGOTTEN_VOLUME);
    let all = format!("{odd}:/odd");
    let lines: [&[&str]; 4] = [
        &["rescue", "export", odd],
        &["rescue", "cp", &all, "-"],
        &["rescue", "save", image],
        &["volumes", "save", volume, "-o", "-"],
    ];
    for signal in ["-KILL", "-INT"] {
        for line in lines {
            // Nobody reads what it writes, so it stands still.
            let mut child = source.command(line).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
            child.stdout.as_mut().unwrap().read_exact(&mut [0; 512]).unwrap();
            end(signal, child);
            source.assert_still(&line.join(" "));
        }
        files_are_whole_or_not_there(source, signal, odd);
        restore_leaves_nothing(source, made, signal);
    }
    the_next_command_sweeps(source, &all);
    let kept = source.out.join("kept");
    source.run(&["rescue", "cp", &format!("{odd}:/bin/busybox"), kept.to_str().unwrap()]).whole();
    fs::remove_file(kept).unwrap();
    assert_nothing_left(&source.root);
}

fn end(signal: &str, mut child: Child) {
    Cmd::new("kill").args([signal, &child.id().to_string()]).run().checked().unwrap();
    assert!(!child.wait().unwrap().success());
}

/// Whatever it was about to make, and whichever command comes next.
fn the_next_command_sweeps(source: &Source<'_>, all: &str) {
    let next: [&[&str]; 4] =
        [&["rescue", "ps"], &["rescue", "images"], &["rescue", "export", "web"], &["volumes", "list"]];
    for (number, next) in next.into_iter().cycle().take(16).enumerate() {
        let mut cp = source.command(&["rescue", "cp", all, "-"]);
        let mut child = cp.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(20 * number as u64));
        child.kill().unwrap();
        child.wait().unwrap();
        dmsetup(["create", LEFT, "--table", "0 8 error"]).run().checked().unwrap();
        source.run(next).whole();
        assert_nothing_left(&source.root);
    }
}

/// What `export -o` was to replace stays; `cp` leaves whole files.
fn files_are_whole_or_not_there(source: &Source<'_>, signal: &str, odd: &str) {
    let dir = source.out.join("half");
    fs::create_dir(&dir).unwrap();
    let file = dir.join("old.tar");
    fs::write(&file, "what was there").unwrap();
    let line = ["rescue", "export", odd, "-o", file.to_str().unwrap()];
    let child = source.command(&line).stderr(Stdio::null()).spawn().unwrap();
    wait_for(&dir, 2);
    end(signal, child);
    assert_eq!(fs::read_to_string(&file).unwrap(), "what was there");
    assert!(signal == "-KILL" || fs::read_dir(&dir).unwrap().count() == 1);
    source.assert_still("export -o");
    fs::remove_dir_all(&dir).unwrap();
}

fn wait_for(dir: &Path, count: usize) {
    let until = Instant::now() + Duration::from_secs(30);
    while fs::read_dir(dir).map_or(0, Iterator::count) < count {
        assert!(Instant::now() < until, "nothing appears in {}", dir.display());
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The archive comes through a pipe that stops in its middle.
fn restore_leaves_nothing(source: &Source<'_>, made: &Menagerie, signal: &str) {
    let root = source.out.join("other-root");
    fs::create_dir_all(root.join("volumes")).unwrap();
    let archive = source.run(&["volumes", "save", names::FORGOTTEN_VOLUME, "-o", "-"]).whole().stdout;
    let to = Source::live(&root, &source.out);
    let mut child =
        to.command(&["volumes", "restore", "-"]).stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    child.stdin.as_mut().unwrap().write_all(&archive[..archive.len() / 2]).unwrap();
    wait_for(&root, 2);
    // A pipe that says no more keeps nobody.
    let stdin = child.stdin.take();
    end(signal, child);
    drop(stdin);
    assert!(!root.join("volumes").join(names::FORGOTTEN_VOLUME).exists());
    let file = source.out.join("whole.tar");
    fs::write(&file, &archive).unwrap();
    to.run(&["volumes", "restore", file.to_str().unwrap()]).whole();
    let names: Vec<_> = fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["volumes"]);
    let kept = made.volume(names::FORGOTTEN_VOLUME).unwrap().contents.as_ref().unwrap();
    let found = Inventory::of(&root.join("volumes").join(names::FORGOTTEN_VOLUME).join("_data")).unwrap();
    kept.assert_is(&found, &Except::nothing().field(Field::DirectorySize).kind(Type::Socket));
    fs::remove_file(file).unwrap();
    fs::remove_dir_all(&root).unwrap();
}
