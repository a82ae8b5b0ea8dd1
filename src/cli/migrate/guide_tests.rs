#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use clap::Parser;

use super::*;
use crate::cli::{Cli, Command};
use crate::ops::daemon::vanishing::{Anonymous, Vanishing};
use crate::units::BlockSize;

const G: u64 = 1 << 30;

fn now() -> Now {
    let base = Some(Bytes::new(10 * G));
    let size = Size { data: Bytes::new(100 * G), used: Bytes::new(12 * G), block: BlockSize::DEFAULT, base };
    Now {
        root: "/var/lib/docker".into(),
        name: "docker".to_owned(),
        size: Ok(size),
        grow: Grow::Now,
        by_hand: None,
        vanish: Vec::new(),
    }
}

fn job() -> Vanishing {
    let volume = Anonymous { name: "ab".repeat(32), place: "/x".to_owned() };
    Vanishing { id: "1".to_owned(), name: "job".to_owned(), volumes: vec![volume] }
}

fn choice(name: &str, room: u64, more: &str) -> Choice {
    Choice { name: name.to_owned(), room: Bytes::new(room), more: more.to_owned() }
}

/// What comes of what is typed, and all that is shown.
fn asked(now: &Now, typed: &str) -> (Outcome<Vec<String>>, String) {
    let disks = || Ok(vec![choice("/dev/disk/by-id/a", 500 * G, " (SSD)"), choice("/dev/sdb", 20 * G, "")]);
    let groups = || Ok(vec![choice("vg0", 101 * G, " free")]);
    let taken = ["docker-pool".to_owned()];
    let machine = Machine { now, pools: "/var/lib/dmpool/pools", taken: &taken, disks: &disks, groups: &groups };
    let mut shown = String::new();
    let mut show = |text: &str| shown.push_str(text);
    let mut input = typed.as_bytes();
    let words = words(&machine, &mut Talk { input: &mut input, show: &mut show });
    (words, shown)
}

/// The command line that the answers mean, which must be one.
fn line(now: &Now, typed: &str) -> String {
    let (words, shown) = asked(now, typed);
    let words = words.unwrap_or_else(|failure| panic!("{failure:?}\n{shown}"));
    let cli = Cli::try_parse_from(["dmpool", "migrate"].into_iter().chain(words.iter().map(String::as_str)));
    match cli.unwrap().command {
        Command::Migrate(args) => assert!(args.is_told(), "{words:?}"),
        other => panic!("{other:?}"),
    }
    words.join(" ")
}

#[test]
fn the_defaults_are_what_there_is() {
    assert_eq!(line(&now(), "\n\n\n\n\n"), "--data-size 100G --block-size 64K");
    assert_eq!(
        line(&now(), "4\n\n\n\n\n\n\n"),
        "--name docker-pool2 --dir /var/lib/dmpool/pools --data-size 100G --block-size 64K"
    );
    assert_eq!(line(&now(), "5\n"), "--to-driver overlay2");
    assert_eq!(
        line(&now(), "2\n\n\n\n\ny\n"),
        "--name docker-pool2 --data-device /dev/disk/by-id/a --block-size 64K --prepare"
    );
    let broken = Now { size: Err("reading the superblock: it is zeros".to_owned()), ..now() };
    assert_eq!(line(&broken, "\n"), "--to-driver overlay2");
}

#[test]
fn every_answer_is_a_flag() {
    assert_eq!(line(&now(), "1\n50G\n512K\n20G\n"), "--data-size 50G --block-size 512K --base-size 20G");
    assert_eq!(line(&now(), "2\n2\np0\n1M\n10G\nno\n"), "--name p0 --data-device /dev/sdb --block-size 1M");
    // The metadata would not fit beside it.
    assert_eq!(line(&now(), "3\n\np0\n\n\n\n\n"), "--name p0 --vg vg0 --data-size 90%FREE --block-size 64K");
    let by_hand = Now { by_hand: Some(7), vanish: vec![job()], ..now() };
    assert_eq!(
        line(&by_hand, "5\n\n/root/stop 1\n/root/start\n2\n"),
        "--to-driver overlay2 --stop-command /root/stop 1 --start-command /root/start --without-rm"
    );
    let job = Now { vanish: vec![job()], ..now() };
    assert_eq!(line(&job, "5\n\n"), "--to-driver overlay2 --keep-rm");
}

#[test]
fn a_wrong_answer_is_asked_again() {
    let (words, shown) = asked(&now(), "9\nx\n1\n5G\n50%FREE\nmuch\n50G\n65K\n64K\nlarge\n\n\n");
    assert_eq!(words.unwrap().join(" "), "--data-size 50G --block-size 64K");
    for said in ["`9` is not 1 to 5", "`x` is not", "12.0 GiB are in use", "a size such as 100G", "`much`", "`large`"] {
        assert!(shown.contains(said), "{said}: {shown}");
    }
    let (words, shown) = asked(&now(), "2\n1\ndocker-pool\nno/name\np0\n\n\n\n");
    assert!(words.is_ok() && shown.contains("there is a device `docker-pool` already"), "{shown}");
}

#[test]
fn it_says_first_that_grow_copies_nothing() {
    let (_, shown) = asked(&now(), "");
    assert!(
        shown.starts_with("the pool of the Docker root `/var/lib/docker`: 12.0 GiB of 100.0 GiB in use"),
        "{shown}"
    );
    assert!(shown.contains("nothing stops:  dmpool grow docker SIZE"), "{shown}");
    let says = |grow| asked(&Now { grow, ..now() }, "").1;
    assert!(says(Grow::OnceUp).contains("once Docker is up:  dmpool grow docker SIZE"));
    assert!(!says(Grow::Not).contains("dmpool grow") && says(Grow::Not).contains("dmpool health docker"));
}

#[test]
fn where_the_input_ends_nothing_is_done() {
    for typed in ["", "1", "1\n50G\n", "1\n50G\n64K\n", "2\n"] {
        let failure = asked(&now(), typed).0.unwrap_err();
        assert!(failure.what.contains("the input ended"), "{typed:?}: {failure:?}");
    }
    let job = Now { vanish: vec![job()], ..now() };
    let (words, shown) = asked(&job, "5\n3\n");
    assert!(words.unwrap_err().what.contains("would be gone"));
    assert!(
        shown.contains("gone when Docker stops:\n  job (with its volume at /x)\n")
            && shown.contains("1. save them first"),
        "{shown}"
    );
}

#[test]
fn a_machine_without_such_a_place_is_asked_for_another() {
    let none = || Ok(Vec::new());
    let now = now();
    let machine = Machine { now: &now, pools: "/p", taken: &[], disks: &none, groups: &none };
    let mut shown = String::new();
    let mut show = |text: &str| shown.push_str(text);
    let words = words(&machine, &mut Talk { input: &mut "2\n3\n5\n".as_bytes(), show: &mut show });
    assert_eq!(words.unwrap().join(" "), "--to-driver overlay2");
    assert!(shown.contains("no disk here can carry a pool") && shown.contains("no volume group here"), "{shown}");
}
