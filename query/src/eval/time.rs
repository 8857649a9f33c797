//! Functions of time: seconds since the epoch to parts of the date, in UTC.

/// The function of this name, from seconds since the epoch.
pub(super) fn function(name: &str) -> Option<fn(f64) -> f64> {
    Some(match name {
        "minute" => |t| f64::from(part(t, 60, 3600)),
        "hour" => |t| f64::from(part(t, 3600, 86_400)),
        "day_of_week" => |t| date(t).weekday,
        "day_of_month" => |t| date(t).day,
        "day_of_year" => |t| date(t).day_of_year,
        "days_in_month" => |t| date(t).days_in_month,
        "month" => |t| date(t).month,
        "year" => |t| date(t).year,
        _ => return None,
    })
}

/// Before this second, in seconds since the epoch, Go's dates wrap around.
const GO_FIRST_SECOND: i128 = -9_223_372_028_741_760_000;

/// Whole seconds. Floats that are no 64-bit integers become the smallest one,
/// as Go's conversion gives on common machines; Go takes that for 2^63.
#[allow(clippy::cast_possible_truncation, reason = "checked")]
fn whole_seconds(time_s: f64) -> i128 {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    let seconds =
        if (-LIMIT..LIMIT).contains(&time_s) { time_s as i128 } else { i128::from(i64::MIN) };
    if seconds < GO_FIRST_SECOND { seconds + (1 << 64) } else { seconds }
}

fn part(time_s: f64, unit: i128, whole: i128) -> i32 {
    let rest = whole_seconds(time_s).rem_euclid(whole) / unit;
    i32::try_from(rest).expect("less than 60")
}

struct Date {
    year: f64,
    month: f64,
    day: f64,
    weekday: f64,
    day_of_year: f64,
    days_in_month: f64,
}

/// The proleptic Gregorian date (Hinnant, "chrono-compatible low-level date
/// algorithms").
#[allow(clippy::cast_precision_loss, reason = "parts of dates are small; years round as in Go")]
fn date(time_s: f64) -> Date {
    let days = whole_seconds(time_s).div_euclid(86_400);
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let from_march = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * from_march + 2) / 153;
    let day = from_march - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i128::from(month <= 2);
    let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    let february = if leap { 29 } else { 28 };
    let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let place = usize::try_from(month - 1).expect("months start at 1");
    let before: i128 = lengths[..place].iter().sum();
    Date {
        year: year as f64,
        month: month as f64,
        day: day as f64,
        weekday: (days + 4).rem_euclid(7) as f64,
        day_of_year: (before + day) as f64,
        days_in_month: lengths[place] as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{Datelike as _, Timelike as _};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn dates_are_those_of_the_calendar(seconds in -60_000_000_000i64..60_000_000_000) {
            let then = chrono::DateTime::from_timestamp(seconds, 0).expect("in range");
            #[allow(clippy::cast_precision_loss)]
            let call = |name| function(name).expect("known")(seconds as f64);
            prop_assert_eq!(call("year"), f64::from(then.year()));
            prop_assert_eq!(call("month"), f64::from(then.month()));
            prop_assert_eq!(call("day_of_month"), f64::from(then.day()));
            prop_assert_eq!(call("day_of_year"), f64::from(then.ordinal()));
            prop_assert_eq!(call("day_of_week"), f64::from(then.weekday().num_days_from_sunday()));
            prop_assert_eq!(call("hour"), f64::from(then.hour()));
            prop_assert_eq!(call("minute"), f64::from(then.minute()));
        }
    }

    #[test]
    fn what_is_no_date_is_the_date_that_go_gives() {
        for v in [f64::NAN, f64::INFINITY, -1e300] {
            let call = |name| function(name).expect("known")(v);
            assert_eq!(call("year"), 292_277_026_596.0);
            assert_eq!((call("month"), call("day_of_month")), (12.0, 4.0));
            assert_eq!((call("hour"), call("minute"), call("day_of_week")), (15.0, 30.0, 0.0));
        }
        assert_eq!(function("year").expect("known")(9.2e18), 291_536_396_232.0);
    }

    #[test]
    fn floats_without_a_date_do_not_panic() {
        for name in ["year", "month", "day_of_year", "hour", "days_in_month"] {
            for v in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 9.3e18, -9.3e18, 1e300] {
                let _ = function(name).expect("known")(v);
            }
        }
    }
}
