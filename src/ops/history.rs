//! What was seen of pools at earlier times: one file, written by `metrics` alone, replaced whole.
//!
//! JSON, so that people can look into it: `format`, and for each pool its identity and its points, each six numbers.
//! It holds 121 points of each of at most 100 pools, so it stays below a mebibyte.

use std::time::{Duration, SystemTime};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::kernel::fs;
use crate::ops::State;
use crate::pool::growth::{self, Forecast, Moment, Point};
use crate::pool::{Identity, PoolReport};
use crate::units::Bytes;

/// The history's format. A file with a higher number is left alone.
const FORMAT: u64 = 1;
/// The most pools that are remembered: those seen last.
const MOST_POOLS: usize = 100;
/// More than any history that dmpool writes has.
const MAX_FILE: Bytes = Bytes::new(4 << 20);

/// The points of every pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    pools: Vec<Remembered>,
}

/// One pool's points.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Remembered {
    #[serde(flatten)]
    identity: Identity,
    /// Its dm uuid, when it has one: another one is another pool.
    uuid: Option<String>,
    #[serde(with = "rows")]
    points: Vec<Point>,
}

#[derive(Serialize)]
struct Document<'a> {
    format: u64,
    pools: &'a [Remembered],
}

/// Why the file on disk cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// A newer dmpool wrote it, or it cannot be read now: it is left alone.
    LeftAlone(String),
    /// It is damaged: it is begun anew.
    Damaged(String),
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::LeftAlone(why) | Self::Damaged(why) => f.write_str(why),
        }
    }
}

/// Returns the moment that the clock shows; that of 1970 when it shows an earlier one.
pub fn now() -> Moment {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Moment(since.as_secs())
}

/// Reads the history; an empty one when there is none. What is wrong with the file is told beside it.
pub fn read(state: &State) -> (History, Option<Trouble>) {
    match fs::read_limited(&state.history, MAX_FILE) {
        Ok(None) => (History::default(), None),
        Ok(Some(bytes)) => match parse(&bytes) {
            Ok(history) => (history, None),
            Err(trouble) => (History::default(), Some(trouble)),
        },
        Err(e) => (History::default(), Some(Trouble::LeftAlone(format!("{e:#}")))),
    }
}

/// Replaces the file: after a power cut it has the old history or the new one.
///
/// # Errors
/// What the kernel said; the file then is as it was.
pub fn write(state: &State, history: &History) -> anyhow::Result<()> {
    let mut text = serde_json::to_vec(&Document { format: FORMAT, pools: &history.pools })
        .context("writing the history as JSON")?;
    text.push(b'\n');
    if let Some(folder) = state.history.parent() {
        fs::make_dir_durably(folder, 0o700)?;
    }
    fs::write_replace(&state.history, &text, 0o600)
}

impl History {
    /// Returns how fast a pool fills and when it is full.
    pub fn forecast(&self, identity: &Identity, pool: &PoolReport, now: Moment) -> Forecast {
        let points = self.of(identity, pool).map_or(&[][..], |found| &found.points);
        growth::forecast(points, pool, now)
    }

    /// Adds what is seen of pools now, and forgets those that nothing was seen of for 30 days.
    pub fn record(&mut self, seen: &[(&Identity, &PoolReport)], now: Moment) {
        for (identity, pool) in seen {
            let Some(point) = Point::of(pool, now) else { continue };
            let mut points = self.of(identity, pool).map(|found| found.points.clone()).unwrap_or_default();
            growth::record(&mut points, point);
            self.pools.retain(|p| p.identity != **identity);
            self.pools.push(Remembered { identity: (*identity).clone(), uuid: pool.uuid.clone(), points });
        }
        self.pools.retain(|p| !p.points.is_empty() && !growth::is_forgotten(&p.points, now));
        let last = |p: &Remembered| p.points.last().map(|point| point.at);
        self.pools.sort_by(|a, b| last(b).cmp(&last(a)).then_with(|| a.identity.cmp(&b.identity)));
        self.pools.truncate(MOST_POOLS);
    }

    fn of(&self, identity: &Identity, pool: &PoolReport) -> Option<&Remembered> {
        let same = |p: &&Remembered| p.identity == *identity && (p.uuid.is_none() || p.uuid == pool.uuid);
        self.pools.iter().find(same)
    }
}

pub(crate) fn parse(bytes: &[u8]) -> Result<History, Trouble> {
    let damaged = |why: &str| Trouble::Damaged(why.to_owned());
    let mut document: Value =
        serde_json::from_slice(bytes).map_err(|e| Trouble::Damaged(format!("it is no JSON: {e}")))?;
    match document.get("format").and_then(Value::as_u64) {
        Some(FORMAT) => {}
        Some(format) if format > FORMAT => {
            let why = format!("its format is {format}, this dmpool knows {FORMAT}: a newer dmpool wrote it");
            return Err(Trouble::LeftAlone(why));
        }
        _ => return Err(damaged("it has no format number: dmpool did not write it")),
    }
    let pools = document.get_mut("pools").map(Value::take).ok_or_else(|| damaged("it has no pools"))?;
    let pools: Vec<Remembered> = serde_json::from_value(pools).map_err(|e| Trouble::Damaged(e.to_string()))?;
    Ok(History { pools })
}

/// Points as rows of numbers: a tenth of what named fields would need.
mod rows {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::pool::{Moment, Point};
    use crate::units::Bytes;

    #[derive(Serialize, Deserialize)]
    struct Row(Moment, Bytes, Bytes, Bytes, Bytes, Option<Bytes>);

    pub(super) fn serialize<S: Serializer>(points: &[Point], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(
            points.iter().map(|p| Row(p.at, p.data_used, p.data_total, p.metadata_used, p.metadata_total, p.host_free)),
        )
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Point>, D::Error> {
        let rows = Vec::<Row>::deserialize(from)?;
        let point = |Row(at, data_used, data_total, metadata_used, metadata_total, host_free)| Point {
            at,
            data_used,
            data_total,
            metadata_used,
            metadata_total,
            host_free,
        };
        Ok(rows.into_iter().map(point).collect())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;
    use crate::pool::growth::MOST_POINTS;
    use crate::pool::identities;
    use crate::report::samples::{docker_pool, lvm_pool, mute_pool};

    const NOW: u64 = 1_800_000_000;

    fn state() -> (tempfile::TempDir, State) {
        let dir = tempfile::tempdir().unwrap();
        let state = State::below(dir.path());
        (dir, state)
    }

    fn pool(used: u64) -> PoolReport {
        docker_pool(&format!("1 6211/524288 {used}/1638400 - rw discard_passdown queue_if_no_space - 1024"), 1 << 40)
    }

    fn month(of: impl Fn(u64) -> PoolReport) -> History {
        let mut history = History::default();
        for hour in 0..24 * 30 {
            let pool = of(hour);
            history.record(&[(&pool.identity(), &pool)], Moment(NOW - (24 * 30 - hour) * 3600));
        }
        history
    }

    #[test]
    fn a_history_comes_back_as_it_was_written_and_tells_the_rate() {
        let (_dir, state) = state();
        assert_eq!(read(&state), (History::default(), None));
        // 16 blocks of 64 KiB an hour: 24 MiB a day.
        let history = month(|hour| pool(hour * 16));
        write(&state, &history).unwrap();
        assert_eq!(read(&state), (history.clone(), None));
        let pool = pool(24 * 30 * 16);
        let forecast = history.forecast(&pool.identity(), &pool, Moment(NOW));
        assert_eq!(forecast.data.unwrap().get(), 24 << 20);
        let other = lvm_pool();
        assert_eq!(history.forecast(&other.identity(), &other, Moment(NOW)).data, None);
    }

    #[test]
    fn dockers_pool_is_remembered_by_its_root_and_not_by_its_name() {
        let history = month(|hour| pool(hour * 16));
        let moved = PoolReport { name: "docker-8:1-77-pool".to_owned(), ..pool(24 * 30 * 16) };
        assert!(history.forecast(&moved.identity(), &moved, Moment(NOW)).data.is_some());
        assert_eq!(moved.identity().to_string(), "docker's pool in /var/lib/docker");
        let both = identities(&[&moved, &pool(1)]);
        assert_eq!((both[0].pool.as_deref(), both[1].pool.as_deref()), (None, Some("docker-179:2-1049372-pool")));
    }

    #[test]
    fn another_uuid_is_another_pool() {
        let mut history = month(|_| lvm_pool());
        let again = PoolReport { uuid: Some("LVM-other".to_owned()), ..lvm_pool() };
        assert_eq!(history.forecast(&again.identity(), &again, Moment(NOW)).data, None);
        history.record(&[(&again.identity(), &again)], Moment(NOW));
        assert_eq!(history.pools.len(), 1);
        assert_eq!(history.pools[0].points.len(), 1);
    }

    #[test]
    fn it_never_grows_beyond_its_bound_and_forgets() {
        let (_dir, state) = state();
        let mut history = History::default();
        let pools: Vec<_> = (0..150).map(|n| PoolReport { name: format!("p{n}"), ..lvm_pool() }).collect();
        let names: Vec<_> = pools.iter().map(PoolReport::identity).collect();
        let seen: Vec<_> = names.iter().zip(&pools).collect();
        for sixth in 0..200 {
            history.record(&seen, Moment(NOW + sixth * 6 * 3600));
        }
        assert_eq!(history.pools.len(), MOST_POOLS);
        assert!(history.pools.iter().all(|p| p.points.len() == MOST_POINTS));
        write(&state, &history).unwrap();
        assert!(std::fs::metadata(&state.history).unwrap().len() < 1 << 20);
        let mute = mute_pool();
        history.record(&[(&mute.identity(), &mute)], Moment(NOW + 200 * 6 * 3600 + 31 * 86_400));
        assert_eq!(
            history,
            History::default(),
            "nothing was seen of them for 30 days, and nothing is known of this one"
        );
    }

    #[test]
    fn a_file_that_cannot_be_used_is_named() {
        let (_dir, state) = state();
        write(&state, &month(|hour| pool(hour * 16))).unwrap();
        let good = std::fs::read_to_string(&state.history).unwrap();
        let newer = "its format is 2, this dmpool knows 1: a newer dmpool wrote it";
        for (text, why) in [
            (good.replace("\"format\":1", "\"format\":2"), newer),
            (good[..good.len() / 2].to_owned(), "no JSON"),
            (String::new(), "no JSON"),
            ("{}".to_owned(), "no format number"),
            ("{\"format\":1}".to_owned(), "no pools"),
            (good.replace("1638400,", "-1,").replace("107374182400", "-1"), "invalid value"),
            ("\0".repeat(4096), "no JSON"),
        ] {
            std::fs::write(&state.history, text).unwrap();
            let (history, trouble) = read(&state);
            let trouble = trouble.unwrap();
            assert!(trouble.to_string().contains(why), "{why}: {trouble:?}");
            assert_eq!(matches!(trouble, Trouble::LeftAlone(_)), why == newer);
            assert_eq!(history, History::default());
        }
        std::fs::remove_file(&state.history).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", &state.history).unwrap();
        assert!(matches!(read(&state).1, Some(Trouble::LeftAlone(_))), "what cannot be read may be whole");
        write(&state, &History::default()).unwrap();
        assert!(std::fs::symlink_metadata(&state.history).unwrap().is_file(), "the link itself was replaced");
    }

    static GOOD: LazyLock<Vec<u8>> = LazyLock::new(|| {
        serde_json::to_vec(&Document { format: FORMAT, pools: &month(|_| lvm_pool()).pools }).unwrap()
    });

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in any::<prop::sample::Index>()) {
            let _ = parse(&bytes);
            let mut good = GOOD.clone();
            let at = cut.index(good.len());
            good[at] = good[at].wrapping_add(1);
            if let Ok(history) = parse(&good) {
                let pool = lvm_pool();
                history.forecast(&pool.identity(), &pool, Moment(NOW));
            }
        }
    }
}
