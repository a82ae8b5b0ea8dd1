//! The pools of many machines in one table, from what `list --format json` has printed on each.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::docker_info::UNKNOWN;
use super::failure::printable;
use super::health::WELL_AT_A_GLANCE;
use super::human::percent;
use super::json::{FORMAT, document};
use super::table::{columns, duration_cell};
use crate::units::Bytes;

const HEADINGS: [&str; 11] =
    ["HOST", "SEEN", "NAME", "MAKER", "USER", "SIZE", "DATA", "METADATA", "FULL IN", "MODE", "VERDICT"];

/// One pool of one machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The pool with `hostname` and `time`, as it was printed: what this dmpool does not know is kept.
    whole: Value,
    seen: Pool,
}

/// A document: of one machine, or of many that were merged before, whose pools each say where they are from.
#[derive(Deserialize)]
struct Document {
    format: u64,
    hostname: Option<String>,
    time: Option<String>,
    pools: Option<Vec<Value>>,
    /// What `status --format json` has in the place of `pools`.
    pool: Option<IgnoredAny>,
}

/// What the table shows of a pool, as it stands in the JSON.
#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Pool {
    hostname: String,
    time: Option<String>,
    name: String,
    maker: String,
    user: String,
    docker_root: Option<String>,
    activity: String,
    mode: Option<String>,
    verdict: Verdict,
    data: Space,
    metadata: Space,
    /// An older dmpool did not know it.
    full: Option<Full>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Verdict {
    state: String,
    reason: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Space {
    used: Option<u64>,
    total: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Full {
    state: String,
    seconds: Option<u64>,
}

/// Reads what `list --format json` printed: one document, or several one after the other.
///
/// # Errors
/// In words, why it is no such thing; then nothing of it is used.
pub fn parse(bytes: &[u8]) -> Result<Vec<Row>, String> {
    let mut rows = Vec::new();
    let mut documents = 0;
    for document in serde_json::Deserializer::from_slice(bytes).into_iter::<Document>() {
        let document = document.map_err(|e| format!("it is not what `dmpool list --format json` prints: {e}"))?;
        rows.extend(of_document(document)?);
        documents += 1;
    }
    if documents == 0 { Err("it is empty".to_owned()) } else { Ok(rows) }
}

fn of_document(document: Document) -> Result<Vec<Row>, String> {
    if document.format > u64::from(FORMAT) {
        let format = document.format;
        return Err(format!("its format is {format}, this dmpool knows {FORMAT}: a newer dmpool wrote it"));
    }
    let Some(pools) = document.pools else {
        let what = if document.pool.is_some() {
            "`dmpool status` printed it; `dmpool list` is wanted"
        } else {
            "it has no pools"
        };
        return Err(what.to_owned());
    };
    let row = |mut whole: Value| {
        let named = whole.get("hostname").is_some();
        if let (false, Some(pool), Some(hostname)) = (named, whole.as_object_mut(), &document.hostname) {
            pool.insert("hostname".to_owned(), json!(hostname));
            pool.insert("time".to_owned(), json!(document.time));
        }
        match Pool::deserialize(&whole) {
            Ok(seen) => Ok(Row { whole, seen }),
            Err(e) => Err(format!("one of its pools is not as `dmpool list` prints it: {e}")),
        }
    };
    pools.into_iter().map(row).collect()
}

/// Puts pools in the order in which they need somebody: what is full first, what does not fill later, what is not known
/// last; among these the worst verdict first, then by host and name.
pub fn sort(rows: &mut [Row]) {
    rows.sort_by(|a, b| a.order().cmp(&b.order()));
}

/// Returns the table, each line ended; a sentence when there are no pools.
pub fn text(rows: &[Row]) -> String {
    if rows.is_empty() {
        return "no thin pools in what was given\n".to_owned();
    }
    columns(&HEADINGS, &rows.iter().map(|row| row.seen.cells()).collect::<Vec<_>>())
}

/// Returns the same as one document, which can be merged again.
pub fn json(rows: &[Row]) -> String {
    let pools: Vec<&Value> = rows.iter().map(|row| &row.whole).collect();
    document(&json!({"format": FORMAT, "pools": pools}))
}

impl Row {
    fn order(&self) -> (u8, u64, u8, &str, &str) {
        let (group, seconds) = match &self.seen.full {
            Some(Full { seconds: Some(seconds), .. }) => (0, *seconds),
            Some(full) if full.state == "not_filling" => (1, 0),
            _ => (2, 0),
        };
        let verdict = match self.seen.verdict.state.as_str() {
            "critical" => 0,
            "warning" => 2,
            "ok" => 3,
            _ => 1,
        };
        (group, seconds, verdict, &self.seen.hostname, &self.seen.name)
    }
}

impl Pool {
    fn cells(&self) -> [String; 11] {
        let share = |space: &Space| {
            let share = space.used.zip(space.total).and_then(|(used, total)| percent(used, total));
            share.unwrap_or_else(|| UNKNOWN.to_owned())
        };
        let user = match (&self.docker_root, self.user.as_str()) {
            (Some(root), _) => root.clone(),
            (None, "unknown") => "-".to_owned(),
            (None, user) => user.to_owned(),
        };
        // To the minute: `2026-11-21T04:00`.
        let seen = self.time.as_deref().map_or(UNKNOWN, |time| time.get(..16).unwrap_or(time));
        let maker = match self.maker.as_str() {
            "docker" => "Docker",
            "lvm" => "LVM",
            maker => maker,
        };
        let mode = if self.activity == "active" { self.mode.as_deref().unwrap_or(UNKNOWN) } else { &self.activity };
        let verdict = match &self.verdict.reason {
            Some(reason) => format!("{}: {reason}", self.verdict.state.to_uppercase()),
            None if self.verdict.state == "ok" => WELL_AT_A_GLANCE.to_owned(),
            None => self.verdict.state.to_uppercase(),
        };
        let full = match &self.full {
            Some(Full { seconds: Some(seconds), .. }) => duration_cell(*seconds),
            Some(full) if full.state == "not_filling" => "-".to_owned(),
            _ => UNKNOWN.to_owned(),
        };
        [
            self.hostname.clone(),
            seen.to_owned(),
            self.name.clone(),
            maker.to_owned(),
            user,
            self.data.total.map_or_else(|| UNKNOWN.to_owned(), |total| Bytes::new(total).human()),
            share(&self.data),
            share(&self.metadata),
            full,
            mode.to_owned(),
            verdict,
        ]
        .map(|cell| printable(&cell).replace('\n', " "))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ops::status::Origin;
    use crate::pool::{Forecast, Full as When, Moment};
    use crate::report::json;
    use crate::report::samples::{alone, docker_pool, findings, growing, lvm_pool, mute_pool};

    /// What three machines print: one fills, one has two pools, one has none.
    fn machines() -> [String; 3] {
        let origin = |hostname: &str| Origin { hostname: hostname.to_owned(), time: Moment(1_800_000_000) };
        let full = "180 6211/524288 1638400/1638400 - out_of_data_space discard_passdown error_if_no_space - 1024";
        let well = "180 6211/524288 137985/1638400 - rw discard_passdown queue_if_no_space - 1024";
        let (docker, well, lvm, mute) =
            (docker_pool(full, 1 << 40), docker_pool(well, 1 << 40), lvm_pool(), mute_pool());
        let (of_docker, of_mute) = (findings(&docker), findings(&mute));
        let quiet = Forecast { full: When::NotFilling, ..Forecast::default() };
        let web = [crate::report::status::StatusView { forecast: growing(), ..alone(&well, &[]) }];
        let two = [crate::report::status::StatusView { forecast: quiet, ..alone(&lvm, &[]) }, alone(&mute, &of_mute)];
        let full = [crate::report::status::StatusView {
            forecast: Forecast { full: When::In { limit: crate::pool::Limit::Pool, seconds: 0 }, ..quiet },
            ..alone(&docker, &of_docker)
        }];
        [
            json::list(&two, &origin("db1")),
            json::list(&web, &origin("web1")) + &json::list(&[], &origin("empty")),
            json::list(&full, &origin("web2")),
        ]
    }

    fn merged(texts: &[String]) -> Vec<Row> {
        let mut rows: Vec<Row> = texts.iter().flat_map(|text| parse(text.as_bytes()).unwrap()).collect();
        sort(&mut rows);
        rows
    }

    #[test]
    fn who_is_full_first_stands_first_and_unknown_last() {
        let rows = merged(&machines());
        assert_eq!(
            text(&rows),
            "\
HOST  SEEN              NAME                       MAKER    USER                  SIZE     DATA  METADATA  FULL IN  MODE               VERDICT
web2  2027-01-15T08:00  docker-179:2-1049372-pool  Docker   /var/lib/docker  100.0 GiB   100.0%      1.1%      now  out_of_data_space  CRITICAL: it is full and has been failing writes; acknowledged writes were lost
web1  2027-01-15T08:00  docker-179:2-1049372-pool  Docker   /var/lib/docker  100.0 GiB     8.4%      1.1%  25 days  rw                 OK at a glance
db1   2027-01-15T08:00  docker-thinpool            LVM      -                 47.5 GiB    21.5%      0.9%        -  rw                 OK at a glance
db1   2027-01-15T08:00  mute                       unknown  -                  unknown  unknown   unknown  unknown  inactive           UNKNOWN: it is not active
"
        );
        assert_eq!(text(&[]), "no thin pools in what was given\n");
    }

    #[test]
    fn what_was_merged_can_be_merged_again_and_loses_nothing() {
        let texts = machines();
        let once = merged(&texts);
        let part = json(&merged(&texts[..2]));
        let again = merged(&[part, texts[2].clone()]);
        assert_eq!(again, once);
        assert_eq!(once[0].whole["table"], "0 209715200 thin-pool 7:1 7:0 128 32768 1 skip_block_zeroing");
        let newer = texts[2].replace("\"user\": \"docker\"", "\"user\": \"podman\", \"later\": 7");
        let rows = parse(newer.as_bytes()).unwrap();
        assert_eq!(rows[0].whole["later"], 7, "what a newer dmpool adds is kept");
    }

    #[test]
    fn what_is_no_list_is_said() {
        let [list, _, _] = machines();
        for (text, why) in [
            (String::new(), "it is empty"),
            (" \n".to_owned(), "it is empty"),
            ("ssh: connect to host web3: No route\n".to_owned(), "not what `dmpool list --format json` prints"),
            (list[..list.len() - 9].to_owned(), "EOF"),
            (list.replace("\"format\": 1", "\"format\": 2"), "a newer dmpool wrote it"),
            ("{\"format\": 1}".to_owned(), "it has no pools"),
            ("{\"format\": 1, \"pool\": {}}".to_owned(), "`dmpool list` is wanted"),
            (list.replace("\"hostname\": \"db1\"", "\"hostname\": null"), "missing field `hostname`"),
            (list.replace("\"used\": null", "\"used\": -1"), "one of its pools"),
            ("[]".to_owned(), "not what"),
        ] {
            let error = parse(text.as_bytes()).unwrap_err();
            assert!(error.contains(why), "{why}: {error}");
        }
    }

    #[test]
    fn a_hostile_name_cannot_reach_the_terminal() {
        let [_, _, list] = machines();
        let rows = parse(list.replace("web2", "\\u001b[31mweb\\n").as_bytes()).unwrap();
        assert!(!text(&rows).contains('\u{1b}') && text(&rows).lines().count() == 2, "{}", text(&rows));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..100), cut in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let _ = parse(&bytes);
            let mut list = machines()[2].clone().into_bytes();
            let at = cut.index(list.len());
            list[at] = byte;
            if let Ok(mut rows) = parse(&list) {
                sort(&mut rows);
                text(&rows);
                json(&rows);
            }
        }
    }
}
