//! Times: read as RFC 3339 with any offset, written in GMT with a fixed number of decimals.

use std::fmt;

use jiff::{SignedDuration, Timestamp, civil::DateTime, tz::TimeZone};

/// A moment as date and time of day in GMT, in the years 0000 to 9999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Gmt(DateTime);

impl Gmt {
    /// Reads an RFC 3339 time, or says what is wrong with it. Decimals past the ninth are cut; a
    /// leap second counts as the second before it.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        const MALFORMED: &str = "is not an RFC 3339 time";
        const IMPOSSIBLE: &str = "is a time that does not exist";

        let (date_time, rest) = text.as_bytes().split_first_chunk::<19>().ok_or(MALFORMED)?;
        let [date @ .., b'T' | b't', h1, h2, b':', m1, m2, b':', s1, s2] = date_time else {
            return Err(MALFORMED);
        };
        let (year, month, day) = parse_date(date).ok_or(MALFORMED)?;
        let hour = two_digits(*h1, *h2).ok_or(MALFORMED)?;
        let minute = two_digits(*m1, *m2).ok_or(MALFORMED)?;
        let second = two_digits(*s1, *s2).ok_or(MALFORMED)?;
        let (nanosecond, rest) = parse_fraction(rest).ok_or(MALFORMED)?;
        if rest.is_empty() {
            return Err("has no offset");
        }
        let offset = parse_offset(rest).ok_or(MALFORMED)?;

        let is_leap = second == 60;
        let local = DateTime::new(
            year,
            month,
            day,
            hour,
            minute,
            if is_leap { 59 } else { second },
            nanosecond,
        )
        .map_err(|_| IMPOSSIBLE)?;
        let gmt = local
            .checked_sub(offset)
            .ok()
            .filter(|gmt| gmt.year() >= 0)
            .ok_or("is outside the years 0000 to 9999 in GMT")?;
        if is_leap && (gmt.hour(), gmt.minute()) != (23, 59) {
            return Err(IMPOSSIBLE);
        }
        Ok(Self(gmt))
    }

    /// The moment as a timestamp; the last day of the year 9999 is past its range and becomes the
    /// latest that there is.
    pub fn timestamp(self) -> Timestamp {
        TimeZone::UTC.to_timestamp(self.0).unwrap_or(Timestamp::MAX)
    }

    /// Writes it as `2019-01-22T11:29:38.258Z`.
    pub(crate) fn write_millis(self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.subsec_nanosecond() / 1_000_000;
        self.write_to_the_second(f)?;
        write!(f, ".{millis:03}Z")
    }

    /// Writes it as `2021-04-13T08:58:50.232224Z`.
    pub(crate) fn write_micros(self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.subsec_nanosecond() / 1_000;
        self.write_to_the_second(f)?;
        write!(f, ".{micros:06}Z")
    }

    fn write_to_the_second(self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(t) = self;
        write!(
            f,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
            t.year(),
            t.month(),
            t.day(),
            t.hour(),
            t.minute(),
            t.second()
        )
    }
}

/// Whether the text is a plain date that exists, such as `2019-12-31`.
pub(crate) fn is_date(text: &str) -> bool {
    parse_date(text.as_bytes())
        .is_some_and(|(year, month, day)| jiff::civil::Date::new(year, month, day).is_ok())
}

fn parse_date(text: &[u8]) -> Option<(i16, i8, i8)> {
    let &[y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = text else {
        return None;
    };
    let year = i16::from(two_digits(y1, y2)?) * 100 + i16::from(two_digits(y3, y4)?);
    Some((year, two_digits(m1, m2)?, two_digits(d1, d2)?))
}

/// Nanoseconds, and what follows them.
fn parse_fraction(text: &[u8]) -> Option<(i32, &[u8])> {
    let [b'.', decimals @ ..] = text else {
        return Some((0, text));
    };
    let count = decimals.iter().take_while(|c| c.is_ascii_digit()).count();
    let (decimals, rest) = decimals.split_at(count);
    if decimals.is_empty() {
        return None;
    }
    let nanoseconds = decimals
        .iter()
        .chain(std::iter::repeat(&b'0'))
        .take(9)
        .fold(0, |n, digit| n * 10 + i32::from(digit - b'0'));
    Some((nanoseconds, rest))
}

fn parse_offset(text: &[u8]) -> Option<SignedDuration> {
    let &[sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] = text else {
        return matches!(text, b"Z" | b"z").then_some(SignedDuration::ZERO);
    };
    let (hours, minutes) = (two_digits(h1, h2)?, two_digits(m1, m2)?);
    if hours > 23 || minutes > 59 {
        return None;
    }
    let offset = SignedDuration::from_mins(i64::from(hours) * 60 + i64::from(minutes));
    Some(if sign == b'-' { -offset } else { offset })
}

fn two_digits(tens: u8, ones: u8) -> Option<i8> {
    let digit = |c: u8| c.is_ascii_digit().then(|| (c - b'0').cast_signed());
    Some(digit(tens)? * 10 + digit(ones)?)
}
