#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use proptest::prelude::*;

use super::*;
use crate::ops::plan::Operation;
use crate::ops::steps::{MakeDirectory, Step};

fn plan(steps: usize) -> Plan {
    let step = |n| Step::from(MakeDirectory { path: format!("/srv/{n}").into(), parents: false });
    Plan {
        operation: Operation::Create,
        pool: "p0".to_owned(),
        what: "create pool `p0`".to_owned(),
        steps: (0..steps).map(step).collect(),
        notes: Vec::new(),
    }
}

fn opened() -> Record {
    Record::Opened(Opened {
        id: "p0-20261121T101500Z".to_owned(),
        boot: "b".to_owned(),
        version: "0".to_owned(),
        plan: plan(3),
    })
}

fn bytes(records: &[Record]) -> Vec<u8> {
    let mut bytes = first_line();
    for record in records {
        bytes.extend(record.line().unwrap());
    }
    bytes
}

fn story() -> Vec<Record> {
    vec![
        opened(),
        Record::Begun(0),
        Record::Done(0),
        Record::Begun(1),
        Record::Failed(1, "EIO".to_owned()),
        Record::Reverting(1),
        Record::Reverted(1),
        Record::Reverting(0),
    ]
}

#[test]
fn progress_follows_the_records() {
    use Progress::{Done, Not, Perhaps, Reverted};
    let all = story();
    for (count, progress) in [
        (1, [Not, Not, Not]),
        (2, [Perhaps, Not, Not]),
        (3, [Done, Not, Not]),
        (5, [Done, Perhaps, Not]),
        (7, [Done, Reverted, Not]),
        (8, [Perhaps, Reverted, Not]),
    ] {
        assert_eq!(Journal::parse(&bytes(&all[..count])).unwrap().progress, progress, "{count} records");
    }
}

#[test]
fn the_reserved_zeros_end_the_journal() {
    let mut reserved = bytes(&story());
    let length = reserved.len();
    reserved.resize(length + 4096, 0);
    assert_eq!(Journal::parse(&reserved).unwrap().length, length);
}

/// A power cut tears the last line anywhere: what it would have said did not happen.
#[test]
fn a_last_line_torn_anywhere_did_not_happen() {
    let before = bytes(&[opened(), Record::Begun(0)]);
    let after = bytes(&[opened(), Record::Begun(0), Record::Done(0)]);
    for length in before.len()..after.len() {
        let mut torn = after[..length].to_vec();
        torn.resize(after.len() + 100, 0);
        let journal = Journal::parse(&torn).unwrap();
        assert_eq!((journal.progress[0], journal.length), (Progress::Perhaps, before.len()), "{length}");
    }
    assert_eq!(Journal::parse(&after).unwrap().progress[0], Progress::Done);
}

#[test]
fn what_is_no_journal_is_named() {
    let good = bytes(&story());
    assert_eq!(Journal::parse(b""), Err(BadJournal::Foreign));
    assert_eq!(Journal::parse(&[0; 4096]), Err(BadJournal::Foreign));
    assert_eq!(Journal::parse(b"#!/bin/sh\n"), Err(BadJournal::Foreign));
    assert_eq!(Journal::parse(b"dmpool-journal 2\n"), Err(BadJournal::Newer(2)));
    assert_eq!(Journal::parse(b"dmpool-journal 0\n"), Err(BadJournal::Foreign));
    let named = |bytes: &[u8], line: usize| match Journal::parse(bytes) {
        Err(BadJournal::Corrupt { line: found, .. }) => assert_eq!(found, line),
        other => panic!("{other:?}"),
    };
    named(&first_line(), 2);
    named(&bytes(&[Record::Begun(0)]), 2);
    named(&bytes(&[opened(), Record::Begun(7)]), 3);
    named(&bytes(&[opened(), opened()]), 3);
    let mut damaged = good.clone();
    let third = good.iter().enumerate().filter(|(_, b)| **b == b'\n').nth(1).unwrap().0 + 3;
    damaged[third] ^= 1;
    named(&damaged, 3);
}

proptest! {
    #[test]
    fn any_damage_is_an_answer_never_a_panic(at in 0_usize..800, byte in any::<u8>(), cut in 0_usize..1200) {
        let mut bytes = bytes(&story());
        if let Some(b) = bytes.get_mut(at) {
            *b = byte;
        }
        bytes.truncate(cut);
        let _ = Journal::parse(&bytes);
    }

    #[test]
    fn a_damaged_record_is_never_believed(flip in 0_u8..8, at in 0_usize..200) {
        let good = bytes(&[opened(), Record::Begun(0), Record::Done(0)]);
        let tail = bytes(&[opened(), Record::Begun(0)]).len();
        let at = tail + at % (good.len() - tail - 1);
        let mut damaged = good;
        damaged[at] ^= 1 << flip;
        if let Ok(journal) = Journal::parse(&damaged) {
            prop_assert_eq!(journal.progress[0], Progress::Perhaps);
        }
    }
}
