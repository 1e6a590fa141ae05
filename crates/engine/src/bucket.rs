//! Hours, days, ISO weeks and months in UTC, as the tiers of the retention count them.
//!
//! Invariant: buckets of a tier are numbered without gaps, so that "the last twelve weeks" is a
//! difference of numbers, across New Year as anywhere else. Dates are computed with the algorithms
//! of <https://howardhinnant.github.io/date_algorithms.html>; leap seconds do not exist, as in every
//! Unix time.

use std::fmt;

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
/// Days of a year before each of its months, in a year without a leap day.
const DAYS_BEFORE: [i64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];

/// A tier of the retention: the newest snapshot of each of its buckets stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// Hours.
    Hourly,
    /// Days.
    Daily,
    /// Weeks as ISO 8601 has them: from Monday on.
    Weekly,
    /// Months.
    Monthly,
}

impl Tier {
    /// All tiers, finest first.
    pub const ALL: [Self; 4] = [Self::Hourly, Self::Daily, Self::Weekly, Self::Monthly];
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hourly => "hourly",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
        })
    }
}

/// One hour, day, week or month in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bucket {
    /// The tier.
    pub tier: Tier,
    /// Hours, days, weeks or months since an arbitrary one; the next bucket has the next number.
    pub number: i64,
}

impl Bucket {
    /// The bucket of a time in milliseconds since the Unix epoch.
    #[must_use]
    pub fn of(tier: Tier, timestamp_ms: i64) -> Self {
        let day = timestamp_ms.div_euclid(DAY_MS);
        let number = match tier {
            Tier::Hourly => timestamp_ms.div_euclid(HOUR_MS),
            Tier::Daily => day,
            // The epoch began on a Thursday.
            Tier::Weekly => (day + 3).div_euclid(7),
            Tier::Monthly => {
                let (year, month, _) = date(day);
                year * 12 + month - 1
            }
        };
        Self { tier, number }
    }

    /// When it begins, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn start_ms(&self) -> i64 {
        match self.tier {
            Tier::Hourly => self.number * HOUR_MS,
            Tier::Daily => self.number * DAY_MS,
            Tier::Weekly => (self.number * 7 - 3) * DAY_MS,
            Tier::Monthly => {
                let (year, month) = (self.number.div_euclid(12), self.number.rem_euclid(12));
                let is_leap = first_day(year + 1) - first_day(year) == 366;
                let leap_day = i64::from(is_leap && month > 1);
                (first_day(year) + DAYS_BEFORE[month as usize] + leap_day) * DAY_MS
            }
        }
    }
}

impl fmt::Display for Bucket {
    /// `2026-11-23T10`, `2026-11-23`, `2026-W48` or `2026-11`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.tier {
            Tier::Hourly => {
                let (year, month, day) = date(self.number.div_euclid(24));
                let hour = self.number.rem_euclid(24);
                write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}")
            }
            Tier::Daily => {
                let (year, month, day) = date(self.number);
                write!(f, "{year:04}-{month:02}-{day:02}")
            }
            Tier::Weekly => {
                // A week belongs to the year of its Thursday.
                let thursday = self.number * 7;
                let (year, _, _) = date(thursday);
                let week = (thursday - first_day(year)) / 7 + 1;
                write!(f, "{year:04}-W{week:02}")
            }
            Tier::Monthly => {
                let (year, month) = (self.number.div_euclid(12), self.number.rem_euclid(12) + 1);
                write!(f, "{year:04}-{month:02}")
            }
        }
    }
}

/// Year, month and day of a day since the Unix epoch.
fn date(day: i64) -> (i64, i64, i64) {
    // Years begin in March, so that the leap day is their last; eras have 400 of them.
    let day = day + 719_468;
    let (era, day) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

/// The first of January, in days since the Unix epoch.
fn first_day(year: i64) -> i64 {
    let before = year - 1;
    let leap_days = before.div_euclid(4) - before.div_euclid(100) + before.div_euclid(400);
    365 * before + leap_days - 719_162
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use jiff::tz::TimeZone;
    use proptest::prelude::*;

    use super::*;

    fn texts(time: &str) -> [String; 4] {
        let time: Timestamp = time.parse().unwrap();
        Tier::ALL.map(|tier| Bucket::of(tier, time.as_millisecond()).to_string())
    }

    #[test]
    fn c07_weeks_at_new_year_belong_to_the_year_of_their_thursday() {
        let week = |time: &str| texts(time)[2].clone();
        assert_eq!(week("2026-12-31T23:59:59.999Z"), "2026-W53");
        assert_eq!(week("2027-01-03T23:59:59.999Z"), "2026-W53");
        assert_eq!(week("2027-01-04T00:00:00Z"), "2027-W01");
        assert_eq!(week("2024-12-30T00:00:00Z"), "2025-W01");
        assert_eq!(week("2024-12-29T23:00:00Z"), "2024-W52");
    }

    #[test]
    fn a_time_has_its_hour_day_week_and_month() {
        let expected = ["2026-11-23T10", "2026-11-23", "2026-W48", "2026-11"];
        assert_eq!(texts("2026-11-23T10:59:59.999Z"), expected);
        assert_eq!(texts("1969-12-31T23:00:00Z")[..2], ["1969-12-31T23", "1969-12-31"]);
        assert_eq!(texts("2028-02-29T00:00:00Z")[1], "2028-02-29");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn buckets_are_those_of_another_calendar(ms in -60_000_000_000_000i64..250_000_000_000_000) {
            let time = Timestamp::from_millisecond(ms).unwrap().to_zoned(TimeZone::UTC);
            let week = time.date().iso_week_date();
            let expected = [
                time.strftime("%Y-%m-%dT%H").to_string(),
                time.strftime("%Y-%m-%d").to_string(),
                format!("{:04}-W{:02}", week.year(), week.week()),
                time.strftime("%Y-%m").to_string(),
            ];
            prop_assert_eq!(Tier::ALL.map(|tier| Bucket::of(tier, ms).to_string()), expected);
        }

        #[test]
        fn a_bucket_begins_when_the_one_before_ends(
            ms in -60_000_000_000_000i64..250_000_000_000_000,
        ) {
            for tier in Tier::ALL {
                let bucket = Bucket::of(tier, ms);
                let start = bucket.start_ms();
                prop_assert!(start <= ms);
                prop_assert_eq!(Bucket::of(tier, start), bucket);
                prop_assert_eq!(Bucket::of(tier, start - 1).number, bucket.number - 1);
            }
        }

        #[test]
        fn buckets_follow_one_another(ms in -60_000_000_000_000i64..250_000_000_000_000) {
            let length = [HOUR_MS, DAY_MS, 7 * DAY_MS, 31 * DAY_MS];
            for (tier, length) in Tier::ALL.into_iter().zip(length) {
                let (number, next) = (Bucket::of(tier, ms).number, Bucket::of(tier, ms + length).number);
                prop_assert!(next == number + 1 || tier == Tier::Monthly && next == number + 2);
            }
        }
    }
}
