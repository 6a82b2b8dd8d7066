//! Moments as Go's `RFC3339Nano` writes them: UTC, and no zeros at the end of the fraction.

use monitor_protocol::UnixNanos;

const NANOS: i64 = 1_000_000_000;

/// Writes moments, remembering the last second: most entries of a busy log share it.
#[derive(Debug, Default)]
pub(crate) struct Stamp {
    second: i64,
    /// `2026-11-21T22:08:02`, empty before the first use; then the fraction and the `Z`.
    text: Vec<u8>,
}

/// The length of `2026-11-21T22:08:02`.
const WHOLE: usize = 19;

impl Stamp {
    /// The text of a moment.
    pub(crate) fn text(&mut self, moment: UnixNanos) -> &[u8] {
        let (second, nanos) = (moment.0.div_euclid(NANOS), moment.0.rem_euclid(NANOS));
        if self.text.is_empty() || second != self.second {
            self.text = whole_seconds(second).into_bytes();
            self.second = second;
        }
        self.text.truncate(WHOLE);
        write_fraction(nanos, &mut self.text);
        self.text.push(b'Z');
        &self.text
    }
}

fn write_fraction(mut nanos: i64, out: &mut Vec<u8>) {
    if nanos == 0 {
        return;
    }
    let mut digits = [0u8; 9];
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (nanos % 10) as u8;
        nanos /= 10;
    }
    let significant = digits.iter().rposition(|digit| *digit != b'0').map_or(0, |last| last + 1);
    out.push(b'.');
    out.extend_from_slice(&digits[..significant]);
}

fn whole_seconds(second: i64) -> String {
    let (day, in_day) = (second.div_euclid(86_400), second.rem_euclid(86_400));
    let (year, month, date) = civil_date(day);
    let (hour, minute, second) = (in_day / 3600, in_day / 60 % 60, in_day % 60);
    format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}")
}

/// Year, month and day of a day counted from 1970-01-01 (Howard Hinnant's `civil_from_days`).
fn civil_date(day: i64) -> (i64, i64, i64) {
    let shifted = day + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day_of_year - (153 * shifted_month + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_go_moments() {
        let table = [
            (0, "1970-01-01T00:00:00Z"),
            (1_000, "1970-01-01T00:00:00.000001Z"),
            (951_782_400 * NANOS + 120_000_000, "2000-02-29T00:00:00.12Z"),
            (1_795_298_882 * NANOS + 123_456_789, "2026-11-21T22:08:02.123456789Z"),
            (1_795_298_882 * NANOS + 100_000_000, "2026-11-21T22:08:02.1Z"),
            (4_102_444_799 * NANOS + 999_999_999, "2099-12-31T23:59:59.999999999Z"),
            (-1, "1969-12-31T23:59:59.999999999Z"),
        ];
        let mut stamp = Stamp::default();
        for (nanos, expected) in table {
            assert_eq!(std::str::from_utf8(stamp.text(UnixNanos(nanos))).unwrap(), expected);
        }
    }
}
