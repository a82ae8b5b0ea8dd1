//! Every command of README and docs that needs no Docker, run as it is written.

use std::fs;
use std::path::Path;

use lab::guest::boot;
use lab::guest::disk::{Kind, Mounted};
use lab::guest::run::Cmd;
use lab::guest::sys::settle;

#[path = "../support/docs.rs"]
mod text;

use text::Needs;

/// Takes away what the documents' commands leave when one of them fails.
struct Leftovers;

impl Drop for Leftovers {
    fn drop(&mut self) {
        let _ = Cmd::new("umount").arg("/mnt/web").run();
        let _ = Cmd::new("dmpool").args(["destroy", "p0", "--yes", "--with-volumes"]).run();
        for folder in ["/srv/pools", "/var/lib/prometheus"] {
            let _ = fs::remove_dir_all(folder);
        }
        for file in ["/tmp/web1.json", "/var/lib/dmpool/history.json"] {
            let _ = fs::remove_file(file);
        }
    }
}

#[test]
fn the_commands_in_the_docs_do_what_they_say() {
    // The guide's machine has a disk that is larger than a guest's root.
    let disk = boot::scratch_disks().pop().unwrap();
    let _srv = Mounted::format(Kind::Xfs, &disk, Path::new("/srv")).unwrap();
    let _leftovers = Leftovers;
    let blocks: Vec<_> = text::embedded().into_iter().filter(|b| b.needs() == Some(Needs::Plain)).collect();
    assert!(!blocks.is_empty());
    for block in blocks {
        for command in block.commands() {
            let ran = Cmd::new("sh").args(["-c", &command.line]).run();
            println!("  {}:{}: {} ... {:?}", block.file.display(), block.line, command.line, ran.end);
            assert_eq!(ran.code(), Some(command.exit), "{}:{}: {ran}", block.file.display(), block.line);
            // udev's probes hold a device for a moment; between two commands that are typed they are long over.
            settle();
        }
    }
}
