//! The commands of README and docs that need Docker, in the order in which they stand there.

use std::collections::BTreeMap;
use std::time::Duration;

use lab::guest::run::Cmd;

use crate::host::{Disk, Host};
use crate::support::Bench;
use texts::{Block, Needs};

#[path = "../support/docs.rs"]
mod texts;

#[test]
fn docker_commands_of_the_docs_do_what_is_written() {
    let mut files: BTreeMap<_, Vec<Block>> = BTreeMap::new();
    for block in texts::blocks().into_iter().filter(|block| block.needs() == Some(Needs::Docker)) {
        files.entry(block.file.clone()).or_default().push(block);
    }
    assert!(files.len() >= 2, "README and the guide have such blocks: {:?}", files.keys());
    for blocks in files.values() {
        let _host = Host::new(Bench::new(), Disk::Large, &["dm.basesize=1G"]);
        for block in blocks {
            for command in block.commands() {
                let ran = Cmd::new("sh").args(["-c", &command.line]).limit(Duration::from_secs(120)).run();
                println!("{}:{}: {ran}", block.file.display(), block.line);
                assert_eq!(ran.code(), Some(command.exit), "{}:{}: {ran}", block.file.display(), block.line);
            }
        }
    }
}
