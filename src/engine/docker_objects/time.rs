//! Times as Docker writes them: RFC 3339 with up to nine digits behind the second.

/// A time, in seconds and nanoseconds since the beginning of 1970, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    seconds: i64,
    nanoseconds: u32,
}

/// What Go writes for a time that was never set: the beginning of the year 1.
const NEVER: i64 = -62_135_596_800;
const DAY: i64 = 86_400;

impl Time {
    /// Takes a time of the system's clock.
    pub const fn new(seconds: i64, nanoseconds: u32) -> Self {
        Self { seconds, nanoseconds }
    }

    /// Returns the seconds since the beginning of 1970.
    pub const fn seconds(self) -> i64 {
        self.seconds
    }

    /// Returns how many whole seconds lie between an earlier time and this one; none when it is not earlier.
    pub fn since(self, earlier: Self) -> u64 {
        let whole = self.seconds.saturating_sub(earlier.seconds);
        let whole = whole.saturating_sub(i64::from(self.nanoseconds < earlier.nanoseconds));
        u64::try_from(whole).unwrap_or(0)
    }

    /// Reads a time; nothing for one that Go never set, and for what is no time.
    pub fn parse(text: &str) -> Option<Self> {
        let (date, clock) = text.split_once(['T', 't', ' '])?;
        let mut parts = date.split('-').map(digits);
        let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
        let zone_at = clock.find(['Z', 'z', '+', '-'])?;
        let (clock, zone) = clock.split_at_checked(zone_at)?;
        let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
        let mut parts = clock.split(':').map(digits);
        let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
        let is_date = (1..=9999).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
        if !is_date || hour > 23 || minute > 59 || second > 60 || parts.next().is_some() {
            return None;
        }
        let nanoseconds = match fraction.len() {
            1..=9 => digits(fraction)? * 10_i64.pow(9 - u32::try_from(fraction.len()).ok()?),
            _ => return None,
        };
        let of_day = hour * 3600 + minute * 60 + second;
        let seconds = days(year, month, day) * DAY + of_day - offset(zone)?;
        (seconds != NEVER).then_some(Self { seconds, nanoseconds: u32::try_from(nanoseconds).ok()? })
    }

    /// Returns the time as Docker writes it, in UTC, with all nine digits: `2026-11-21T11:00:34.123456789Z`.
    pub fn with_nanoseconds(self) -> String {
        let day = self.seconds.div_euclid(DAY);
        let of_day = self.seconds.rem_euclid(DAY);
        let (year, month, date) = civil(day);
        let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
        format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}.{:09}Z", self.nanoseconds)
    }
}

fn digits(text: &str) -> Option<i64> {
    (!text.is_empty() && text.len() < 10 && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

/// `Z`, or `+02:00`.
fn offset(zone: &str) -> Option<i64> {
    let sign = match zone.split_at_checked(1)? {
        ("Z" | "z", "") => return Some(0),
        ("+", _) => 1,
        ("-", _) => -1,
        _ => return None,
    };
    let (hours, minutes) = zone.get(1..)?.split_once(':')?;
    let (hours, minutes) = (digits(hours)?, digits(minutes)?);
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

/// How many days lie between the beginning of 1970 and a date of the Gregorian calendar; years begin in March here, so that
/// a leap day is a year's last.
const fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let of_year = (153 * month + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + of_year - 719_468
}

/// The date that many days after the beginning of 1970.
const fn civil(day: i64) -> (i64, i64, i64) {
    let day = day + 719_468;
    let (era, of_era) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let date = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + (month <= 2) as i64, month, date)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_as_docker_writes_them() {
        for (text, seconds, nanoseconds) in [
            ("1970-01-01T00:00:00Z", 0, 0),
            ("2016-04-13T06:18:23.106104892Z", 1_460_528_303, 106_104_892),
            ("2000-02-29T23:59:59.5Z", 951_868_799, 500_000_000),
            ("2014-10-01T20:46:07.263351912+02:00", 1_412_189_167, 263_351_912),
            ("1969-12-31T23:59:59.999Z", -1, 999_000_000),
        ] {
            assert_eq!(Time::parse(text), Some(Time { seconds, nanoseconds }), "{text}");
        }
        assert_eq!(Time::parse("0001-01-01T00:00:00Z"), None, "never set");
        let broken =
            ["", "2016-04-13", "2016-04-13T06:18Z", "2016-13-13T06:18:23Z", "2016-04-13T06:18:23.Z", "-1-1-1T0:0:0Z"];
        for text in broken.into_iter().chain([
            "2016-04-13T06:18:23",
            "2016-04-13T06:18:23+2",
            "2016-04-13T06:18:23.1234567890Z",
        ]) {
            assert_eq!(Time::parse(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_between_two_times_counts_whole_seconds() {
        let (early, late) = (Time::new(10, 5), Time::new(12, 4));
        assert_eq!((late.since(early), early.since(late), early.since(early)), (1, 0, 0));
    }

    proptest! {
        #[test]
        fn a_time_that_is_written_reads_the_same(seconds in NEVER + 1..253_402_300_800_i64, nanoseconds in 0..1_000_000_000_u32) {
            let time = Time { seconds, nanoseconds };
            prop_assert_eq!(Time::parse(&time.with_nanoseconds()), Some(time));
        }
    }
}
