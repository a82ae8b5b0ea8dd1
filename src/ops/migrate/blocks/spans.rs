//! Where a volume differs from the one it is a snapshot of, and what of that is written: pure, and of streams, so that no
//! volume's mapping is ever whole in memory.

use std::ops::Range;

use anyhow::Result;

/// How much is read and written at once.
pub(super) const PIECE: u64 = 4 << 20;

/// A part of a volume that lies in one piece in the data, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// Where it begins in the volume.
    pub at: u64,
    /// Where it begins in the data.
    pub from: u64,
    /// How long it is.
    pub length: u64,
    /// When its blocks were given to a volume, in the pool's time: with where they are, that tells them from all others.
    pub time: u32,
}

/// Extents of one volume, in their order.
pub(super) struct Stream<I> {
    rest: I,
    head: Option<Extent>,
}

type Found<T> = Result<T>;

impl<I: Iterator<Item = Found<Extent>>> Stream<I> {
    pub(super) fn of(rest: I) -> Found<Self> {
        let mut stream = Self { rest, head: None };
        stream.next()?;
        Ok(stream)
    }

    fn next(&mut self) -> Found<()> {
        self.head = self.rest.next().transpose()?;
        Ok(())
    }

    /// Takes that many bytes of the first extent away.
    fn cut(&mut self, length: u64) -> Found<()> {
        match self.head {
            Some(head) if head.length > length => {
                let (at, from) = (head.at + length, head.from + length);
                self.head = Some(Extent { at, from, length: head.length - length, ..head });
                Ok(())
            }
            Some(_) => self.next(),
            None => Ok(()),
        }
    }

    /// Takes what lies before a place away, and returns the first extent behind it.
    fn after(&mut self, place: u64) -> Found<Option<Extent>> {
        while let Some(head) = self.head.filter(|head| head.at < place) {
            self.cut(place - head.at)?;
        }
        Ok(self.head)
    }
}

/// The ranges that two volumes do not map alike.
pub(super) struct Differences<C, P> {
    child: Stream<C>,
    parent: Stream<P>,
}

impl<C: Iterator<Item = Found<Extent>>, P: Iterator<Item = Found<Extent>>> Differences<C, P> {
    pub(super) fn of(child: C, parent: P) -> Found<Self> {
        Ok(Self { child: Stream::of(child)?, parent: Stream::of(parent)? })
    }

    fn step(&mut self) -> Found<Option<Range<u64>>> {
        loop {
            let (at, length, differs) = match (self.child.head, self.parent.head) {
                (None, None) => return Ok(None),
                (Some(child), Some(parent)) if child.at == parent.at => {
                    let length = child.length.min(parent.length);
                    self.child.cut(length)?;
                    self.parent.cut(length)?;
                    (child.at, length, (child.from, child.time) != (parent.from, parent.time))
                }
                (Some(child), parent) if parent.is_none_or(|parent| child.at < parent.at) => {
                    let length = parent.map_or(child.length, |parent| child.length.min(parent.at - child.at));
                    self.child.cut(length)?;
                    (child.at, length, true)
                }
                (child, Some(parent)) => {
                    let length = child.map_or(parent.length, |child| parent.length.min(child.at - parent.at));
                    self.parent.cut(length)?;
                    (parent.at, length, true)
                }
                (Some(_), None) => return Ok(None),
            };
            if differs {
                return Ok(Some(at..at.saturating_add(length)));
            }
        }
    }
}

impl<C: Iterator<Item = Found<Extent>>, P: Iterator<Item = Found<Extent>>> Iterator for Differences<C, P> {
    type Item = Found<Range<u64>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}

/// Ranges in their order made whole blocks, those that touch each other joined.
pub(super) struct Whole<R> {
    ranges: R,
    block: u64,
    waiting: Option<Range<u64>>,
}

impl<R> Whole<R> {
    pub(super) const fn of(ranges: R, block: u64) -> Self {
        Self { ranges, block, waiting: None }
    }
}

impl<R: Iterator<Item = Found<Range<u64>>>> Iterator for Whole<R> {
    type Item = Found<Range<u64>>;

    fn next(&mut self) -> Option<Self::Item> {
        for range in self.ranges.by_ref() {
            let range = match range {
                Ok(range) => range,
                Err(bad) => return Some(Err(bad)),
            };
            let begin = range.start / self.block * self.block;
            let end = range.end.div_ceil(self.block).saturating_mul(self.block);
            match &mut self.waiting {
                Some(waiting) if begin <= waiting.end => waiting.end = waiting.end.max(end),
                waiting => {
                    if let Some(before) = waiting.replace(begin..end) {
                        return Some(Ok(before));
                    }
                }
            }
        }
        self.waiting.take().map(Ok)
    }
}

/// The ranges of two, in their order. They may overlap: [`Whole`] joins them.
pub(super) struct Either<A: Iterator, B: Iterator> {
    one: std::iter::Peekable<A>,
    other: std::iter::Peekable<B>,
}

impl<A: Iterator<Item = Found<Range<u64>>>, B: Iterator<Item = Found<Range<u64>>>> Either<A, B> {
    pub(super) fn of(one: A, other: B) -> Self {
        Self { one: one.peekable(), other: other.peekable() }
    }
}

impl<A: Iterator<Item = Found<Range<u64>>>, B: Iterator<Item = Found<Range<u64>>>> Iterator for Either<A, B> {
    type Item = Found<Range<u64>>;

    fn next(&mut self) -> Option<Self::Item> {
        match (self.one.peek(), self.other.peek()) {
            (Some(Ok(one)), Some(Ok(other))) if other.start < one.start => self.other.next(),
            (None | Some(Ok(_)), Some(Err(_))) | (None, _) => self.other.next(),
            _ => self.one.next(),
        }
    }
}

/// Where some bytes of a piece come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// Where in the piece.
    pub to: u64,
    /// Where in the data.
    pub from: u64,
    /// How long.
    pub length: u64,
}

/// What is done with a part of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// It holds these bytes, and zeros between them; no longer than [`PIECE`].
    Data {
        /// Where it begins in the volume.
        at: u64,
        /// How long it is.
        length: u64,
        /// What is not zeros, in its order.
        segments: Vec<Segment>,
    },
    /// Whole blocks in which nothing is mapped.
    Nothing(Range<u64>),
}

/// What is to be done with whole blocks so that they hold what the volume does.
pub(super) struct Works<R, I> {
    ranges: R,
    volume: Stream<I>,
    block: u64,
    /// What is left of the range.
    left: Range<u64>,
    /// Where a block ends that is longer than a piece, and of which the beginning was handed out.
    within: Option<u64>,
}

impl<R: Iterator<Item = Found<Range<u64>>>, I: Iterator<Item = Found<Extent>>> Works<R, I> {
    /// The ranges are whole blocks; `volume` is what the volume maps.
    pub(super) fn of(ranges: R, volume: I, block: u64) -> Found<Self> {
        Ok(Self { ranges, volume: Stream::of(volume)?, block, left: 0..0, within: None })
    }

    fn step(&mut self) -> Found<Option<Work>> {
        if let Some(end) = self.within {
            return self.part(end).map(Some);
        }
        if self.left.is_empty() {
            match self.ranges.next().transpose()? {
                Some(range) => self.left = range,
                None => return Ok(None),
            }
        }
        let begin = self.left.start;
        let next = self.volume.after(begin)?.map_or(u64::MAX, |extent| extent.at);
        let mapped = next / self.block * self.block;
        if mapped > begin {
            self.left.start = mapped.min(self.left.end);
            return Ok(Some(Work::Nothing(begin..self.left.start)));
        }
        if self.block > PIECE {
            return self.part(begin.saturating_add(self.block)).map(Some);
        }
        let limit = begin.saturating_add(PIECE / self.block * self.block).min(self.left.end);
        let mut segments = Vec::new();
        while self.left.start < limit {
            let block = self.left.start..self.left.start.saturating_add(self.block);
            if self.volume.after(block.start)?.is_none_or(|extent| extent.at >= block.end) {
                break;
            }
            self.take(begin, block.end, &mut segments)?;
            self.left.start = block.end;
        }
        Ok(Some(Work::Data { at: begin, length: self.left.start - begin, segments }))
    }

    /// Hands out a part of a block that ends there.
    fn part(&mut self, end: u64) -> Found<Work> {
        let at = self.left.start;
        let stop = at.saturating_add(PIECE).min(end);
        let mut segments = Vec::new();
        self.volume.after(at)?;
        self.take(at, stop, &mut segments)?;
        self.left.start = stop;
        self.within = (stop < end).then_some(end);
        Ok(Work::Data { at, length: stop - at, segments })
    }

    /// Takes what the volume maps up to `end` for the piece that begins at `at`.
    fn take(&mut self, at: u64, end: u64, segments: &mut Vec<Segment>) -> Found<()> {
        while let Some(head) = self.volume.head.filter(|head| head.at < end) {
            let length = head.length.min(end - head.at);
            let to = head.at - at;
            match segments.last_mut() {
                Some(last) if last.to + last.length == to && last.from + last.length == head.from => {
                    last.length += length;
                }
                _ => segments.push(Segment { to, from: head.from, length }),
            }
            self.volume.cut(length)?;
        }
        Ok(())
    }
}

impl<R: Iterator<Item = Found<Range<u64>>>, I: Iterator<Item = Found<Extent>>> Iterator for Works<R, I> {
    type Item = Found<Work>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}

/// Returns how many bytes are written into a volume.
pub(super) fn written(works: impl Iterator<Item = Found<Work>>) -> Found<u64> {
    sum(works, |_| 0)
}

/// Returns how many bytes of new blocks of that length a volume takes for itself at most. Blocks of another length than a power
/// of two are not always given back (see `fill`).
pub(super) fn taken(works: impl Iterator<Item = Found<Work>>, block: u64) -> Found<u64> {
    sum(works, |range| if block.is_power_of_two() { 0 } else { range.end - range.start })
}

fn sum(works: impl Iterator<Item = Found<Work>>, of_nothing: impl Fn(Range<u64>) -> u64) -> Found<u64> {
    let mut sum = 0_u64;
    let mut block_of = |bytes: u64| sum = sum.saturating_add(bytes);
    for work in works {
        match work? {
            Work::Data { length, .. } => block_of(length),
            Work::Nothing(range) => block_of(of_nothing(range)),
        }
    }
    Ok(sum)
}

#[cfg(test)]
#[path = "spans_tests.rs"]
mod tests;
