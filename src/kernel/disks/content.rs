//! What is at the beginning of devices and here and there on them, and whether somebody has claimed them. Every device is asked by a child of its own:
//! one that hangs takes nobody with it.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::kernel::{DevNo, ask, block};
use crate::pool::disk::Samples;
use crate::pool::label::{AREA, SLOT_BYTES, SLOTS};

/// The beginning of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Whether the kernel would give it to nobody else: an open with `O_EXCL` says EBUSY.
    pub claimed: bool,
    /// What is in its first MiB; nothing when that is all zeros.
    pub bytes: Option<HeadBytes>,
    /// The 4096 bytes behind it, where a pool has its metadata or its data; nothing when they are all zeros.
    pub behind: Option<Vec<u8>>,
    /// What samples of the whole device said; of one that somebody has, only what is at its beginning.
    pub samples: Samples,
}

/// What in the first MiB is looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadBytes {
    /// The first 4096 bytes.
    pub first: Vec<u8>,
    /// The two slots of a label, each as long as the device has it.
    pub slots: [Vec<u8>; 2],
}

/// Reads the beginnings of devices, all at once, past the page cache. What it returns is in their order.
///
/// No disk together with a partition of it: whether they are claimed is asked by claiming them, and one claims the other.
///
/// # Errors
/// Of each: in words, that it was not answered within the limit, or what reading said.
pub fn heads(devices: &[DevNo], limit: Duration) -> Vec<Result<Head, String>> {
    let question = |devno: &DevNo| head(*devno, limit).map_err(|e| format!("{:#}", e.root_cause()));
    let mut each: Vec<_> = devices.iter().map(|devno| move || question(devno)).collect();
    let mut questions: Vec<&mut dyn FnMut() -> _> = each.iter_mut().map(|one| one as _).collect();
    let answers = ask::all_within(limit, &mut questions);
    answers.into_iter().map(|answer| answer.and_then(|head| head)).collect()
}

/// How often, and how long apart, a claim is looked for: another who only looks has it for an instant.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_millis(25);

/// Samples are read in so many rounds over the device.
const STRIDE: usize = 16;

/// Samples are read for half of the time that there is to answer.
fn head(devno: DevNo, limit: Duration) -> Result<Head> {
    let began = Instant::now();
    // An open of its own, closed at once: who hangs in the read below must not keep the device from everybody.
    let mut claimed = block::is_claimed(devno)?;
    for _ in 1..TRIES {
        if !claimed {
            break;
        }
        std::thread::sleep(PAUSE);
        claimed = block::is_claimed(devno)?;
    }
    let file = block::open_direct(devno)?;
    let size = block::size_of(&file)?;
    let (mut samples, mut area) = (Samples::default(), Vec::new());
    let places = Samples::places(size);
    let (first, rest) = places.split_at(places.len().min(1));
    let (between, last) = rest.split_at(rest.len().saturating_sub(1));
    // Here and there at first, so that what a slow disk gives until then is of all of it.
    let between = (0..STRIDE).flat_map(|from| between.iter().skip(from).step_by(STRIDE));
    for (number, place) in first.iter().chain(last).chain(between).enumerate() {
        if number > 0 && claimed || number > 1 && began.elapsed() > limit / 2 {
            samples.leave(place);
            continue;
        }
        let bytes = block::read_direct(&file, place.start, usize::try_from(place.end - place.start)?)?;
        samples.add(place.start, &bytes);
        if place.start == 0 {
            area = bytes;
        }
    }
    let behind = area.split_off(area.len().min(usize::try_from(AREA.get())?));
    let behind = behind.get(..SLOT_BYTES).filter(|bytes| !is_zeros(bytes)).map(<[u8]>::to_vec);
    if is_zeros(&area) {
        return Ok(Head { claimed, bytes: None, behind, samples });
    }
    let part = |from: u64| {
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        let rest = area.get(from..).unwrap_or_default();
        rest.get(..SLOT_BYTES).unwrap_or(rest).to_vec()
    };
    let slots = SLOTS.map(|slot| part(slot.get()));
    Ok(Head { claimed, bytes: Some(HeadBytes { first: part(0), slots }), behind, samples })
}

fn is_zeros(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}
