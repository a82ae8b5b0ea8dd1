//! Numbers as people read them.
//!
//! Two families, never mixed in one value: Docker's decimal sizes exactly as `docker info` prints them, and binary
//! sizes (`96.0 GiB`) for everything else. A bare `G` is never printed.

use crate::units::Bytes;

/// Whether Docker puts a space between the number and its unit.
///
/// `10.74 GB` up to Docker 17.03, `10.74GB` from 17.05 on (the vendored go-units changed in between).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spacing {
    /// `10.74 GB`.
    Space,
    /// `10.74GB`.
    None,
}

/// The units of go-units' `HumanSize`, each 1000 times the one before. 2^64 bytes are 18.45 EB, so the two beyond
/// cannot be reached.
const DECIMAL_UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];

/// Returns a size as go-units' `HumanSize` prints it: powers of 1000, four significant digits (`%.4g`), trailing
/// zeros dropped.
///
/// The division is done in floating point and step by step, because Go does so and the digits must be the same.
pub fn docker_size(size: Bytes, spacing: Spacing) -> String {
    let (value, unit) = decimal(size);
    let space = match spacing {
        Spacing::Space => " ",
        Spacing::None => "",
    };
    format!("{}{space}{unit}", significant_digits(value, 4))
}

/// Returns a size as `docker images` prints it from Docker 17.05 on (go-units' `HumanSizeWithPrecision`): as [`docker_size`], with
/// three significant digits.
pub fn docker_image_size(size: Bytes) -> String {
    let (value, unit) = decimal(size);
    format!("{}{unit}", significant_digits(value, 3))
}

#[expect(clippy::cast_precision_loss, reason = "Go converts the same integer to the same float64")]
fn decimal(size: Bytes) -> (f64, &'static str) {
    let mut value = size.get() as f64;
    let mut unit = DECIMAL_UNITS[0];
    for next in DECIMAL_UNITS.iter().skip(1) {
        if value < 1000.0 {
            break;
        }
        value /= 1000.0;
        unit = next;
    }
    (value, unit)
}

/// Returns what C and Go print for `%.Ng` of a value from 0 up to, but not including, 1000.
fn significant_digits(value: f64, count: usize) -> String {
    // One digit, a point, the others, the exponent after rounding: 999.96 is 1.000e3.
    let scientific = format!("{value:.0$e}", count - 1);
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent = exponent.parse::<usize>().unwrap_or(0);
    if exponent >= count {
        return format!("{}e+{exponent:02}", mantissa.trim_end_matches('0').trim_end_matches('.'));
    }
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    let (whole, fraction) = digits.split_at_checked(exponent + 1).unwrap_or((&digits, ""));
    match fraction.trim_end_matches('0') {
        "" => whole.to_owned(),
        fraction => format!("{whole}.{fraction}"),
    }
}

/// Returns how long ago something was, in Docker's words (go-units' `HumanDuration`): `About an hour`, `3 weeks`.
pub fn docker_duration(seconds: u64) -> String {
    let minutes = seconds / 60;
    // Rounded, and all that is longer is counted in whole ones of these.
    let hours = (seconds + 1800) / 3600;
    match (seconds, minutes, hours) {
        (0, ..) => "Less than a second".to_owned(),
        (1, ..) => "1 second".to_owned(),
        (2..60, ..) => format!("{seconds} seconds"),
        (_, 1, _) => "About a minute".to_owned(),
        (_, 2..60, _) => format!("{minutes} minutes"),
        (_, _, 1) => "About an hour".to_owned(),
        (_, _, 2..48) => format!("{hours} hours"),
        (_, _, 48..336) => format!("{} days", hours / 24),
        (_, _, 336..1440) => format!("{} weeks", hours / 24 / 7),
        (_, _, 1440..17520) => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", seconds / 3600 / 24 / 365),
    }
}

/// Returns a share in percent with one decimal, rounded towards zero, so that only what is full reads `100.0%`.
/// Nothing when there is no whole.
pub fn percent(part: u64, whole: u64) -> Option<String> {
    let tenths = (u128::from(part) * 1000).checked_div(u128::from(whole))?;
    Some(format!("{}.{}%", tenths / 10, tenths % 10))
}

/// Returns a time as people plan with it: in hours below two days, else in days; whole ones, never more than there is.
pub fn duration(seconds: u64) -> String {
    let (count, unit) = match seconds {
        0..60 => return "less than a minute".to_owned(),
        60..7_200 => (seconds / 60, "minute"),
        7_200..172_800 => (seconds / 3_600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GO_PRINTS: &str = include_str!("../../tests/fixtures/human-size/sizes.txt");

    #[test]
    fn docker_sizes_are_those_of_the_fixture() {
        let mut compared = 0;
        for line in GO_PRINTS.lines().filter(|l| !l.starts_with('#')) {
            let (bytes, text) = line.split_once(' ').unwrap();
            assert_eq!(docker_size(Bytes::new(bytes.parse().unwrap()), Spacing::None), text, "{bytes}");
            compared += 1;
        }
        assert!(compared > 1000, "the fixture has {compared} lines");
    }

    #[test]
    fn images_have_three_digits() {
        for (bytes, text) in [
            (0, "0B"),
            (1_240_000, "1.24MB"),
            (77_824_768, "77.8MB"),
            (4_096, "4.1kB"),
            (13_300, "13.3kB"),
            (999, "999B"),
            (1_000_000_000, "1GB"),
            (999_700, "1e+03kB"),
        ] {
            assert_eq!(docker_image_size(Bytes::new(bytes)), text, "{bytes}");
        }
    }

    #[test]
    fn durations_are_dockers() {
        let (minute, hour, day) = (60, 3600, 86400);
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (minute, "About a minute"),
            (2 * minute - 1, "About a minute"),
            (2 * minute, "2 minutes"),
            (59 * minute + 59, "59 minutes"),
            (hour, "About an hour"),
            (hour + 30 * minute - 1, "About an hour"),
            (hour + 30 * minute, "2 hours"),
            (47 * hour + 29 * minute, "47 hours"),
            (47 * hour + 30 * minute, "2 days"),
            (14 * day - hour, "13 days"),
            (14 * day, "2 weeks"),
            (60 * day - hour, "8 weeks"),
            (60 * day, "2 months"),
            (729 * day, "24 months"),
            (730 * day, "2 years"),
            (1000 * day, "2 years"),
        ] {
            assert_eq!(docker_duration(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn times_are_told_in_the_unit_that_plans_are_made_in() {
        for (seconds, text) in [
            (59, "less than a minute"),
            (119, "1 minute"),
            (7_199, "119 minutes"),
            (7_200, "2 hours"),
            (172_799, "47 hours"),
            (172_800, "2 days"),
            (34 * 86_400 + 5, "34 days"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn docker_sizes_as_docker_info_was_seen_to_print_them() {
        for (bytes, spaced, plain) in [
            (0, "0 B", "0B"),
            (65_536, "65.54 kB", "65.54kB"),
            (10_737_418_240, "10.74 GB", "10.74GB"),
            (107_374_182_400, "107.4 GB", "107.4GB"),
            (2_147_483_648, "2.147 GB", "2.147GB"),
            (102_000_000_000, "102 GB", "102GB"),
            (999_960_000, "1000 MB", "1000MB"),
            (1000, "1 kB", "1kB"),
            (999, "999 B", "999B"),
            (u64::MAX, "18.45 EB", "18.45EB"),
        ] {
            assert_eq!(docker_size(Bytes::new(bytes), Spacing::Space), spaced);
            assert_eq!(docker_size(Bytes::new(bytes), Spacing::None), plain);
        }
    }

    #[test]
    fn binary_sizes() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (1, "1 byte"),
            (1023, "1023 bytes"),
            (1024, "1.0 KiB"),
            (65_536, "64.0 KiB"),
            (103_079_215_104, "96.0 GiB"),
            (2 << 40, "2048.0 GiB"),
            (10 << 40, "10.0 TiB"),
            ((1 << 30) - 1, "1024.0 MiB"),
            (u64::MAX, "16777216.0 TiB"),
        ] {
            assert_eq!(Bytes::new(bytes).human(), text);
        }
        assert_eq!(Bytes::new(103_079_215_104).exact(), "96.0 GiB (103079215104 bytes)");
        assert_eq!(Bytes::new(12).exact(), "12 bytes");
    }

    #[test]
    fn only_what_is_full_is_a_hundred_percent() {
        assert_eq!(percent(9_999, 10_000).as_deref(), Some("99.9%"));
        assert_eq!(percent(10_000, 10_000).as_deref(), Some("100.0%"));
        assert_eq!(percent(0, 7).as_deref(), Some("0.0%"));
        assert_eq!(percent(u64::MAX, u64::MAX).as_deref(), Some("100.0%"));
        assert_eq!(percent(5, 0), None);
    }

    proptest! {
        #[test]
        fn a_docker_size_has_four_digits_and_is_within_half_of_the_last(bytes in any::<u64>()) {
            let text = docker_size(Bytes::new(bytes), Spacing::Space);
            let (number, unit) = text.split_once(' ').unwrap();
            let power = DECIMAL_UNITS.iter().position(|u| *u == unit).unwrap();
            prop_assert!(number.chars().filter(char::is_ascii_digit).count() <= 4);
            prop_assert!(!number.contains('.') || !number.ends_with('0'));
            let scale = 1000_f64.powi(i32::try_from(power).unwrap());
            let printed = number.parse::<f64>().unwrap() * scale;
            #[allow(clippy::cast_precision_loss, reason = "compared with a tolerance")]
            let meant = bytes as f64;
            prop_assert!((printed - meant).abs() <= meant * 0.000_500_1, "{} for {}", text, bytes);
        }

        #[test]
        fn more_bytes_never_read_as_fewer(a in any::<u64>(), b in any::<u64>()) {
            let tenths = |bytes: u64| {
                let text = Bytes::new(bytes).human();
                let (number, unit) = text.split_once(' ').unwrap();
                let shift = match unit { "TiB" => 40, "GiB" => 30, "MiB" => 20, "KiB" => 10, _ => 0 };
                let digits: u128 = number.replace('.', "").parse().unwrap();
                if shift == 0 { digits * 10 } else { digits << shift }
            };
            let (low, high) = (a.min(b), a.max(b));
            prop_assert!(tenths(low) <= tenths(high));
        }
    }
}
