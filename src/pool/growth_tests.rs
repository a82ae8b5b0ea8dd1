#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use proptest::prelude::*;

use super::*;
use crate::pool::Carrier;
use crate::report::samples::docker_pool;
use crate::units::{BlockSize, Sectors};

const NOW: u64 = 1_800_000_000;
const HOUR: u64 = 3600;
const G: u64 = 1 << 30;

/// A pool with blocks of 1 GiB: so many used of so many, so much free on the file system under its loop file.
fn pool(used: u64, total: u64, host_free: Option<u64>) -> PoolReport {
    let line = format!("0 100/1000 {used}/{total} - rw discard_passdown queue_if_no_space");
    let mut pool = docker_pool(&line, host_free.unwrap_or_default());
    if let Some(table) = &mut pool.table {
        table.block_size = BlockSize::new(Sectors::new(2_097_152)).unwrap();
    }
    match &mut pool.data.carrier {
        Carrier::Loop { file, .. } if host_free.is_some() => {
            (file.size, file.allocated) = (Some(Bytes::new(total * G)), Some(Bytes::new(used * G)));
        }
        other => *other = Carrier::Unknown,
    }
    pool
}

fn point(at: u64, used: u64, total: u64) -> Point {
    Point::of(&pool(used, total, None), Moment(at)).unwrap()
}

/// Points each hour over so many hours until an hour ago, with what `used` says of the hours that have passed.
fn hourly(hours: u64, used: impl Fn(u64) -> u64) -> Vec<Point> {
    let mut points = Vec::new();
    for hour in 0..hours {
        record(&mut points, point(NOW - (hours - hour) * HOUR, used(hour), 100));
    }
    points
}

fn said(points: &[Point], pool: &PoolReport) -> (Option<i64>, Full) {
    let forecast = forecast(points, pool, Moment(NOW));
    (forecast.data.map(|rate| rate.get() / i64::try_from(G).unwrap()), forecast.full)
}

const fn full_in(days: u64) -> Full {
    Full::In { limit: Limit::Pool, seconds: days * DAY }
}

#[test]
fn steady_growth_is_told_exactly() {
    // One block a day for ten days, ten are used now: 90 are left.
    let points = hourly(240, |hour| hour / 24);
    let (rate, Full::In { limit: Limit::Pool, seconds }) = said(&points, &pool(10, 100, None)) else { panic!() };
    assert_eq!(rate, Some(1));
    assert!((89 * DAY..=91 * DAY).contains(&seconds), "{seconds}");
}

#[test]
fn too_little_says_nothing() {
    for hours in [0, 1, 5, 18] {
        assert_eq!(said(&hourly(hours, |hour| hour), &pool(24, 100, None)), (None, Full::Unknown), "{hours}");
    }
    let two_far_apart = [point(NOW - 20 * DAY, 1, 100), point(NOW - 10 * DAY, 5, 100)];
    assert_eq!(said(&two_far_apart, &pool(24, 100, None)), (None, Full::Unknown));
    assert!(said(&hourly(30, |hour| hour), &pool(30, 100, None)).0.is_some());
}

#[test]
fn what_does_not_grow_never_fills() {
    assert_eq!(said(&hourly(200, |_| 7), &pool(7, 100, None)), (Some(0), Full::NotFilling));
    let (rate, full) = said(&hourly(240, |hour| 90 - hour / 3), &pool(10, 100, None));
    assert!(rate.unwrap() < 0);
    assert_eq!(full, Full::NotFilling);
}

#[test]
fn one_that_is_full_is_full_now_also_without_a_history() {
    assert_eq!(said(&[], &pool(100, 100, None)).1, full_in(0));
    let host = said(&[], &pool(10, 100, Some(0))).1;
    assert_eq!(host, Full::In { limit: Limit::HostFileSystem, seconds: 0 });
}

#[test]
fn one_image_or_one_prune_is_no_trend() {
    // 20 GiB came at once, a day ago.
    assert_eq!(said(&hourly(240, |hour| if hour < 216 { 10 } else { 30 }), &pool(30, 100, None)).0, Some(0));
    // Two a day for a month; two days ago all but ten went.
    let pruned = hourly(720, |hour| if hour < 672 { 20 + hour / 12 } else { 10 + (hour - 672) / 12 });
    assert_eq!(said(&pruned, &pool(14, 100, None)).0, Some(2));
}

#[test]
fn what_has_begun_to_grow_this_week_is_not_hidden_by_a_quiet_month() {
    let points = hourly(720, |hour| if hour < 600 { 10 } else { 10 + (hour - 600) / 6 });
    let rate = said(&points, &pool(30, 100, None)).0;
    assert!(rate.is_some_and(|rate| (3..=4).contains(&rate)), "{rate:?}");
}

#[test]
fn a_grow_changes_what_is_left_and_not_the_rate() {
    let mut points = hourly(240, |hour| hour / 24);
    record(&mut points, point(NOW - 60, 10, 200));
    let (rate, Full::In { seconds, .. }) = said(&points, &pool(10, 200, None)) else { panic!() };
    assert_eq!(rate, Some(1));
    assert!((188 * DAY..=191 * DAY).contains(&seconds), "{seconds}");
}

#[test]
fn a_smaller_pool_of_the_same_name_is_another_one() {
    let mut points = hourly(240, |hour| hour / 24);
    assert_eq!(said(&points, &pool(1, 50, None)), (None, Full::Unknown));
    record(&mut points, point(NOW - 60, 1, 50));
    assert_eq!(points, [point(NOW - 60, 1, 50)]);
}

#[test]
fn a_gap_is_bridged() {
    // Off for two weeks in the middle; it grows while it is on, by one a day.
    let mut points = hourly(720, |hour| hour / 24);
    points.retain(|p| !(NOW - 20 * DAY..NOW - 6 * DAY).contains(&p.at.0));
    assert_eq!(said(&points, &pool(30, 100, None)).0, Some(1));
}

#[test]
fn a_clock_that_is_put_back_drops_what_it_says_was_later() {
    let mut points = hourly(240, |hour| hour / 24);
    let back = NOW - 100 * HOUR;
    assert!(forecast(&points, &pool(6, 100, None), Moment(back)).data.is_some(), "the later ones are not looked at");
    record(&mut points, point(back, 6, 100));
    assert!(points.iter().all(|p| p.at.0 <= back) && points.last().unwrap().at.0 == back);
    assert!(points.len() > 10, "{}", points.len());
    // One that was never set says nothing and takes nothing away.
    let before = points.clone();
    record(&mut points, point(86_400, 6, 100));
    assert_eq!(points, before);
    assert!(!is_forgotten(&points, Moment(86_400)));
}

#[test]
fn the_first_limit_is_the_one_that_is_met_first() {
    // The host's file system loses five a day, the pool fills by one.
    let mut points = Vec::new();
    for day in 0..10 {
        let seen = pool(day, 100, Some((150 - day * 5) * G));
        record(&mut points, Point::of(&seen, Moment(NOW - (10 - day) * DAY)).unwrap());
    }
    let forecast = forecast(&points, &pool(10, 100, Some(100 * G)), Moment(NOW));
    assert_eq!(forecast.full, Full::In { limit: Limit::HostFileSystem, seconds: 20 * DAY });
    // A file that has all its blocks needs nothing more of it.
    let mut preallocated = pool(10, 100, Some(0));
    if let Carrier::Loop { file, .. } = &mut preallocated.data.carrier {
        file.allocated = file.size;
    }
    assert_eq!(said(&[], &preallocated).1, Full::Unknown);
}

#[test]
fn a_moment_is_said_in_utc_and_one_beyond_all_clocks_is_no_panic() {
    assert_eq!(Moment(NOW).to_string(), "2027-01-15T08:00:00Z");
    assert_eq!(Moment(u64::MAX).to_string(), "9999-12-31T23:59:59Z");
}

#[test]
fn rates_are_said_with_their_sign() {
    assert_eq!(BytesPerDay::new(1 << 30).to_string(), "1.0 GiB a day");
    assert_eq!(BytesPerDay::new(-(3 << 20)).to_string(), "-3.0 MiB a day");
}

fn any_point() -> impl Strategy<Value = Point> {
    let most = prop_oneof![0..NOW * 2, any::<u64>()];
    let bytes = any::<u64>;
    (most, bytes(), bytes(), bytes(), bytes(), any::<Option<u64>>()).prop_map(|(at, a, b, c, d, host)| Point {
        at: Moment(at),
        data_used: Bytes::new(a),
        data_total: Bytes::new(b),
        metadata_used: Bytes::new(c),
        metadata_total: Bytes::new(d),
        host_free: host.map(Bytes::new),
    })
}

proptest! {
    /// Whatever a damaged file or a wild clock brings: never a panic, never more than its bound.
    #[test]
    fn points_are_bounded_and_in_order(mut points in prop::collection::vec(any_point(), 0..300), new in any_point(), used in 0_u64..100) {
        let before = points.len();
        forecast(&points, &pool(used, 100, None), new.at);
        record(&mut points, new);
        if new.at.0 >= CLOCK_IS_SET {
            prop_assert!(points.len() <= MOST_POINTS && points.last() == Some(&new));
            prop_assert!(points.windows(2).all(|w| w[0].at < w[1].at && w[0].slot() < w[1].slot()));
        } else {
            prop_assert_eq!(points.len(), before);
        }
    }

    /// A month of points each few minutes is no more than the bound, and a straight line keeps its slope.
    #[test]
    fn a_straight_line_keeps_its_slope(minutes in 3_u64..600, per_day in 0_u64..3, start in 0_u64..5) {
        let used = |at: u64| Bytes::new(start * G + (at - (NOW - KEPT)) * per_day * G / DAY);
        let of = |at: u64| Point { at: Moment(at), data_used: used(at), ..point(at, 0, 100) };
        let mut points = Vec::new();
        let mut at = NOW - KEPT;
        while at < NOW {
            record(&mut points, of(at));
            prop_assert!(points.len() <= MOST_POINTS);
            at += minutes * 60;
        }
        let slope = median_slope(&points.iter().map(|p| (p.at.0, i128::from(p.data_used.get()))).collect::<Vec<_>>()).unwrap();
        let expected = i64::try_from(per_day * G).unwrap();
        prop_assert!((slope - expected).abs() <= expected / 1000 + 2, "{} for {}", slope, expected);
    }
}
