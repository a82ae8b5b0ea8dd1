//! Going through an archive of a root, and looking whether it is one. All of it is hostile.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::contents::{CONTENTS, Contents, Item, LONGEST, SUMS, Sums};
use super::docker_needs::is_of_images;
use crate::engine::docker_objects::DATA;
use crate::error::Failure;
use crate::kernel::folder::FileKind;
use crate::ops::contents::tree::shown;
use crate::ops::volumes_of_docker::{Entries, Entry, LONGEST_PATH, Stop};

/// What a volume was made with, beside its files; Docker reads it whole when it starts.
const OPTIONS: &str = "opts.json";
const LONGEST_OPTIONS: u64 = 16 << 20;

/// Why an archive is not gone through.
#[derive(Debug)]
pub(super) enum Wrong {
    Stop(Stop),
    Told(Failure),
}

impl From<Stop> for Wrong {
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

impl From<String> for Wrong {
    fn from(bad: String) -> Self {
        Self::Stop(Stop::Bad(bad))
    }
}

pub(super) type OnContents<'a> = dyn FnMut(&Contents) -> Result<(), Wrong> + 'a;
pub(super) type OnEntry<'a, R> = dyn FnMut(&Item, &Entry, &mut Entries<R>) -> Result<(), Wrong> + 'a;

/// Goes through an archive from its beginning to its end, and compares its sums.
pub(super) fn walk<R: Read>(
    from: R,
    on_contents: &mut OnContents<'_>,
    on_entry: &mut OnEntry<'_, R>,
) -> Result<Contents, Wrong> {
    let mut entries = Entries::new(from);
    let first = entries.next_entry().map_err(|why| format!("it is no archive of a Docker root: {why}"))?;
    if first.is_none_or(|entry| entry.path != Path::new(CONTENTS)) {
        return Err(format!("it is no archive of a Docker root: it does not begin with {CONTENTS}").into());
    }
    let bytes = entries.whole(LONGEST)?;
    let contents = Contents::parse(&bytes)?;
    on_contents(&contents)?;
    let mut found = BTreeMap::new();
    let mut rest = contents.items.iter();
    let mut part: Option<Part<'_>> = None;
    loop {
        let next =
            entries.next_entry().and_then(|entry| entry.ok_or_else(|| format!("it is cut off: {SUMS} is missing")));
        let entry = next.map_err(|why| part.as_ref().map_or_else(|| why.clone(), |part| part.says(&why)))?;
        let is_end = entry.path == Path::new(SUMS);
        if is_end || !part.as_ref().is_some_and(|part| entry.path.starts_with(&part.place)) {
            let sum = entries.sum_before();
            found.extend(part.map(|part| (place_of(part.item), sum)));
            part = rest.next().map(Part::of);
            if is_end {
                break;
            }
        }
        let Some(part) = &mut part else {
            return Err(format!("its entry `{}` is not where it belongs", shown(&entry.path)).into());
        };
        part.may_have(&entry)?;
        on_entry(part.item, &entry, &mut entries).map_err(|wrong| match wrong {
            Wrong::Stop(Stop::Bad(why)) => part.says(&why).into(),
            wrong => wrong,
        })?;
    }
    let sums = Sums::parse(&entries.whole(LONGEST)?)?;
    if let Some(missing) = part {
        return Err(format!("{} is missing in it", missing.item).into());
    }
    if entries.next_entry()?.is_some() {
        return Err("something follows after its end".to_owned().into());
    }
    if format!("{:x}", Sha256::digest(&bytes)) != sums.contents {
        return Err(format!("the sum of {CONTENTS} is wrong").into());
    }
    let wrong: Vec<_> =
        contents.items.iter().filter(|item| found.get(&place_of(item)) != sums.items.get(&place_of(item))).collect();
    match wrong.split_first() {
        None if found.len() == sums.items.len() => Ok(contents),
        None => Err(format!("{SUMS} has sums of what is not in it").into()),
        Some((first, [])) => Err(format!("{first} is damaged: its checksum is wrong").into()),
        Some((first, more)) => {
            Err(format!("{first} is damaged, and {} more: their checksums are wrong", more.len()).into())
        }
    }
}

fn place_of(item: &Item) -> String {
    item.place().to_string_lossy().into_owned()
}

/// The item that is gone through.
struct Part<'a> {
    item: &'a Item,
    place: PathBuf,
    last: Option<PathBuf>,
    /// The directories that the next entry may be in, the innermost last.
    within: Vec<PathBuf>,
}

impl<'a> Part<'a> {
    fn of(item: &'a Item) -> Self {
        Self { item, place: item.place(), last: None, within: Vec::new() }
    }

    fn says(&self, why: &str) -> String {
        format!("{}: {why}", self.item)
    }

    /// Refuses what a part that was written as one cannot have.
    fn may_have(&mut self, entry: &Entry) -> Result<(), String> {
        let path = shown(&entry.path);
        let wrong = |why: &str| Err(format!("{}: its entry `{path}` {why}", self.item));
        let kind = entry.status.kind;
        // Longer than Docker could name it, and each level of a path is held in memory.
        if entry.path.as_os_str().len() > LONGEST_PATH {
            return Err(format!("{}: a path in it is longer than {LONGEST_PATH} bytes", self.item));
        }
        if let Some(last) = &self.last {
            if entry.path == *last {
                return wrong("is in it twice");
            }
            if entry.path < *last {
                return wrong("is not where it belongs, or in it twice");
            }
            let parent = entry.path.parent().unwrap_or(Path::new(""));
            while self.within.last().is_some_and(|within| within != parent) {
                self.within.pop();
            }
            if self.within.is_empty() {
                return wrong("is in no directory of it");
            }
        } else {
            let is_file = match self.item {
                Item::VolumeDatabase => true,
                Item::Bind { .. } => kind == FileKind::File && entry.original.is_none(),
                _ => false,
            };
            if entry.path != self.place
                || (kind == FileKind::File) != is_file
                || !(is_file || kind == FileKind::Directory)
            {
                return wrong("is not where it belongs");
            }
        }
        let is_plain = matches!(kind, FileKind::File | FileKind::Directory);
        if !self.item.is_users() && !is_plain {
            return wrong("is neither a file nor a directory, which Docker's own files are");
        }
        if entry.original.as_ref().is_some_and(|original| !original.starts_with(&self.place)) {
            return wrong("is a name of a file that is not of it");
        }
        let below = entry.path.strip_prefix(&self.place).unwrap_or(&entry.path);
        match self.item {
            Item::Image if !is_of_images(below) => return wrong("is none that Docker needs in the database of layers"),
            Item::Volume { .. } if below == Path::new(DATA) && kind != FileKind::Directory => {
                return wrong("is no directory, as a volume's files are in");
            }
            Item::Volume { .. }
                if below == Path::new(OPTIONS)
                    && (kind != FileKind::File || entry.original.is_some() || entry.status.size > LONGEST_OPTIONS) =>
            {
                return wrong("is no plain small file, as a volume's options are");
            }
            _ => {}
        }
        if kind == FileKind::Directory {
            self.within.push(entry.path.clone());
        }
        self.last = Some(entry.path.clone());
        Ok(())
    }
}
