#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::fs;

use proptest::prelude::*;

use super::super::family::Member;
use super::super::spans::Differences;
use super::*;

fn id(number: u32) -> VolumeId {
    VolumeId::new(number).unwrap()
}

fn prepared(number: u32, parent: Option<u32>, created: u32, snapshotted: u32) -> Prepared {
    Prepared {
        id: id(number),
        parent: parent.map(id),
        transaction_id: u64::from(number),
        created,
        snapshotted,
        first: 0,
        extents: 0,
        end: 0,
        is_whole: true,
    }
}

fn record(volumes: Vec<Prepared>) -> Record {
    let size = Bytes::new(1 << 30);
    Record {
        format: FORMAT,
        old: "/d inode 7".to_owned(),
        old_block: BlockSize::DEFAULT,
        time: 5,
        transaction_id: 9,
        uuid: PoolUuid::from_random(7),
        data: size,
        metadata: size,
        block: BlockSize::DEFAULT,
        seal: 0,
        volumes,
        own: None,
        begun: None,
        whole: None,
        taken: None,
    }
}

fn family(members: &[(u32, Option<u32>)]) -> Family {
    let member =
        |(number, parent): &(u32, Option<u32>)| Member { id: id(*number), parent: parent.map(id), record: None };
    Family { members: members.iter().map(member).collect(), missing: Vec::new() }
}

fn times(of: &[(u32, u32, u32)]) -> BTreeMap<u64, Times> {
    let times = |(number, created, snapshotted): &(u32, u32, u32)| {
        let number = u64::from(*number);
        (number, Times { transaction_id: number, created: *created, snapshotted: *snapshotted })
    };
    of.iter().map(times).collect()
}

#[test]
fn a_volume_stays_when_it_and_all_that_it_comes_from_are_the_same() {
    let line = || vec![prepared(1, None, 0, 3), prepared(2, Some(1), 1, 1), prepared(3, Some(2), 2, 4)];
    let kept = |volumes: Vec<Prepared>, members: &[(u32, Option<u32>)], of: &[(u32, u32, u32)]| {
        let kept = record(volumes).kept(9, &family(members), &times(of));
        kept.into_iter().map(VolumeId::get).collect::<Vec<_>>()
    };
    let members = [(1, None), (2, Some(1)), (3, Some(2))];
    let now = [(1, 0, 3), (2, 1, 6), (3, 2, 4)];
    assert_eq!(kept(line(), &members, &now), [1, 2, 3], "shared again since is the same");
    assert_eq!(kept(line(), &[(1, None), (3, Some(1))], &now), [1], "its parent is another one");
    assert_eq!(kept(line(), &members, &[(1, 0, 3), (2, 7, 7), (3, 2, 4)]), [1], "its parent was made anew");
    assert_eq!(kept(line(), &members, &[(1, 0, 2), (2, 1, 1), (3, 2, 4)]), [0_u32; 0], "time does not go back");
    let mut other = line();
    other[2].transaction_id = 99;
    assert_eq!(kept(other, &members, &now), [1, 2], "another one with its id");
    let mut wrong = line();
    wrong[1].is_whole = false;
    assert_eq!(kept(wrong, &members, &now), [1], "its copy was not what it says");
    assert_eq!(record(line()).kept(2, &family(&members), &times(&now)).len(), 2, "no more was copied");
}

#[test]
fn extents_are_read_as_they_were_written() {
    let home = tempfile::tempdir().unwrap();
    let extent = |at: u64, time| Extent { at, from: at * 3, length: 65536, time };
    let all: Vec<Extent> = (0..2500).map(|number| extent(number * 65536, u32::try_from(number).unwrap())).collect();
    let mut bytes: Vec<u8> = all.iter().flat_map(line).collect();
    let mut volumes = vec![prepared(1, None, 0, 3), prepared(2, Some(1), 1, 1)];
    (volumes[0].extents, volumes[1].first, volumes[1].extents) = (1100, 1100, 1400);
    let mut whole = record(volumes);
    let halves = all.split_at(1100);
    for (volume, extents) in whole.volumes.iter().zip([halves.0, halves.1]) {
        whole.seal = with_volume(whole.seal, volume);
        whole.seal = extents.iter().fold(whole.seal, |sum, extent| crc32c::crc32c_append(sum, &line(extent)));
    }
    whole.write(home.path()).unwrap();
    assert_eq!(Record::read(home.path()).unwrap(), Some(whole.clone()));
    fs::write(home.path().join(EXTENTS), &bytes).unwrap();
    let opened = Opened::open(home.path(), whole.clone()).unwrap();
    let read = |number| opened.extents(id(number)).unwrap().map(Result::unwrap).collect::<Vec<_>>();
    assert_eq!((read(1), read(2)), (halves.0.to_vec(), halves.1.to_vec()));
    assert_eq!(read(3), []);
    bytes[40_000] ^= 1;
    fs::write(home.path().join(EXTENTS), &bytes).unwrap();
    assert!(Opened::open(home.path(), whole.clone()).unwrap_err().to_string().contains("not what was written"));
    bytes.truncate(40_000);
    fs::write(home.path().join(EXTENTS), &bytes).unwrap();
    assert!(Opened::open(home.path(), whole).is_err());
    Record::remove(home.path()).unwrap();
    assert_eq!(Record::read(home.path()).unwrap(), None);
}

#[test]
fn what_was_taken_and_not_written_to_is_given_back() {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(folder(home.path())).unwrap();
    let [metadata, data] = files(home.path());
    [&metadata, &data].iter().for_each(|path| fs::write(path, "a").unwrap());
    let mut taken = record(vec![prepared(1, None, 0, 3), prepared(2, Some(1), 1, 1)]);
    (taken.seal, taken.taken, taken.whole) = (7, Some(9), Some(Traces::of_files(files(home.path())).unwrap()));
    let read = || Record::read(home.path()).unwrap();
    let traces = || Traces::of_files(files(home.path())).unwrap();
    for other in [Mark { seal: 9, whole: 0 }, Mark { seal: 7, whole: 1 }] {
        assert!(!give_back(home.path(), taken.clone(), other.id(), traces()).unwrap());
        assert_eq!(read(), None);
    }
    let mark = Mark { seal: 7, whole: 2 }.id();
    fs::write(&metadata, "the kernel's").unwrap();
    assert!(give_back(home.path(), taken.clone(), mark, traces()).unwrap());
    let given = Record { taken: None, whole: Some(Traces::of_files(files(home.path())).unwrap()), ..taken.clone() };
    assert_eq!(read(), Some(given));
    fs::write(&data, "somebody's").unwrap();
    assert!(give_back(home.path(), taken.clone(), mark, traces()).unwrap());
    assert_eq!(read(), Some(Record { taken: None, whole: None, ..taken }), "to be compared again");
}

#[test]
fn of_what_never_came_to_its_end_only_what_is_whole_stays() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join(EXTENTS), "").unwrap();
    let mut begun = record(vec![prepared(1, None, 0, 3), prepared(2, Some(1), 1, 1)]);
    begun.seal = begun.volumes.iter().fold(0, with_volume);
    let (family, times) = (family(&[(1, None), (2, Some(1))]), times(&[(1, 0, 3), (2, 1, 1)]));
    let kept = |of: Option<u32>| {
        let opened = Opened::open(home.path(), Record { begun: of, ..begun.clone() }).unwrap();
        let before = opened.before(&family, &times).unwrap()?;
        Some((before.kept.len(), before.mark.whole))
    };
    assert_eq!([kept(None), kept(Some(1)), kept(Some(0))], [Some((2, 2)), Some((1, 1)), None]);
    begun.write_empty(home.path()).unwrap();
    let empty = Record::read(home.path()).unwrap().unwrap();
    assert!(empty.volumes.is_empty() && Opened::open(home.path(), empty).is_ok());
}

/// By the place, the block and its time.
type Maps = BTreeMap<u64, (u64, u32)>;

/// A pool as the kernel has it: what each volume maps, by its places, and what each block holds. Written so that it does what
/// drivers/md/dm-thin.c does, and nothing of what is tested.
#[derive(Clone, Default)]
struct Pool {
    time: u32,
    volumes: BTreeMap<u32, (Times, Maps)>,
    data: BTreeMap<u64, u64>,
    writes: u64,
    transaction: u64,
}

#[derive(Clone, Debug)]
enum Event {
    Make(u32),
    Snapshot(u32, u32),
    Delete(u32),
    Write(u32, u64),
    Discard(u32, u64),
}

impl Pool {
    fn made(&mut self) -> Times {
        self.transaction += 1;
        Times { transaction_id: self.transaction, created: self.time, snapshotted: self.time }
    }

    fn free(&self) -> u64 {
        let used: BTreeSet<u64> =
            self.volumes.values().flat_map(|(_, maps)| maps.values().map(|(at, _)| *at)).collect();
        (0..).find(|block| !used.contains(block)).unwrap()
    }

    fn happens(&mut self, event: &Event) {
        match event {
            Event::Make(id) if !self.volumes.contains_key(id) => {
                let times = self.made();
                self.volumes.insert(*id, (times, BTreeMap::new()));
            }
            Event::Snapshot(id, origin) if !self.volumes.contains_key(id) && self.volumes.contains_key(origin) => {
                self.time += 1;
                let (times, time) = (self.made(), self.time);
                let (of_origin, maps) = self.volumes.get_mut(origin).unwrap();
                of_origin.snapshotted = time;
                let maps = maps.clone();
                self.volumes.insert(*id, (times, maps));
            }
            Event::Delete(id) => drop(self.volumes.remove(id)),
            Event::Write(id, place) if self.volumes.contains_key(id) => {
                self.writes += 1;
                let (times, maps) = &self.volumes[id];
                let (writes, now, free) = (self.writes, self.time, self.free());
                let in_place = maps.get(place).filter(|(_, time)| *time >= times.snapshotted).map(|(block, _)| *block);
                let block = in_place.unwrap_or(free);
                self.data.insert(block, writes);
                if in_place.is_none() {
                    self.volumes.get_mut(id).unwrap().1.insert(*place, (block, now));
                }
            }
            Event::Discard(id, place) => {
                if let Some((_, maps)) = self.volumes.get_mut(id) {
                    maps.remove(place);
                }
            }
            _ => {}
        }
    }
}

fn event() -> impl Strategy<Value = Event> {
    let (id, place) = (0_u32..4, 0_u64..4);
    prop_oneof![
        id.clone().prop_map(Event::Make),
        (id.clone(), id.clone()).prop_map(|(one, other)| Event::Snapshot(one, other)),
        id.clone().prop_map(Event::Delete),
        (id.clone(), place.clone()).prop_map(|(id, place)| Event::Write(id, place)),
        (id.clone(), place.clone()).prop_map(|(id, place)| Event::Write(id, place)),
        (id.clone(), place.clone()).prop_map(|(id, place)| Event::Write(id, place)),
        (id, place).prop_map(|(id, place)| Event::Discard(id, place)),
    ]
}

proptest! {
    /// Mappings are read before, times before these, and blocks after, with anything in between, and each volume at another moment: what is
    /// mapped then to the same block with the same time holds what was read.
    #[test]
    fn what_is_final_stays_as_it_was_read(events in prop::collection::vec(event(), 1..120), moments in [0_usize..120, 0_usize..120, 0_usize..120]) {
        let mut moments = moments;
        moments.sort_unstable();
        let mut pool = Pool::default();
        let mut states = vec![pool.clone()];
        for event in &events {
            pool.happens(event);
            states.push(pool.clone());
        }
        let [times, maps, data] = moments.map(|moment| &states[moment.min(events.len())]);
        for (id, (then, _)) in &times.volumes {
            // Any tree may have been taken for this volume's, as one that is written while it is read.
            for (_, read) in maps.volumes.values() {
                for (place, (block, time)) in read.iter().filter(|(_, (_, time))| is_final(*time, then)) {
                    let Some((now, mapped)) = pool.volumes.get(id) else { continue };
                    let is_it = (now.transaction_id, now.created) == (then.transaction_id, then.created);
                    if is_it && mapped.get(place) == Some(&(*block, *time)) {
                        prop_assert_eq!(data.data[block], pool.data[block], "volume {} at {}", id, place);
                    }
                }
            }
        }
    }
}

#[test]
fn a_block_that_was_given_out_again_is_another_one() {
    let extent = |time| Ok(Extent { at: 0, from: 65536, length: 65536, time });
    let differs = |one, other| Differences::of([extent(one)].into_iter(), [extent(other)].into_iter()).unwrap().count();
    assert_eq!((differs(4, 4), differs(4, 5)), (0, 1));
}
