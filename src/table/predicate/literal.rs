//! What stands in a predicate besides names: numbers, dates and times, patterns.
//!
//! Numbers and moments of any precision meet columns that count in units of their own. What decides
//! every comparison is the greatest whole number of units that is not above the literal, and
//! whether it is the literal ([`Floor`]).

use chrono::NaiveDate;

use super::SECOND;

/// The greatest whole number that is not above a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Floor {
    /// At an end of the type where the value lies beyond it, and not exact then.
    pub(super) whole: i128,
    pub(super) exact: bool,
}

impl Floor {
    pub(super) fn of_ratio(value: i128, unit: i128) -> Self {
        Self { whole: value.div_euclid(unit), exact: value % unit == 0 }
    }
}

/// A number as it was written: ±0.d₁d₂d₃… · 10^point.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Number {
    negative: bool,
    /// Neither the first nor the last is a zero.
    digits: String,
    point: i64,
    /// The nearest float64.
    pub(super) float: f64,
}

impl Number {
    /// None if the text is no number: digits, a point, an exponent.
    pub(super) fn parse(text: &str, negative: bool) -> Option<Self> {
        let float: f64 = text.parse().ok()?;
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        if !whole.bytes().chain(fraction.bytes()).all(|digit| digit.is_ascii_digit()) {
            return None;
        }
        // So many zeros that they fill 64 bits do not fit into any text.
        let most = if exponent.starts_with('-') { i64::MIN / 2 } else { i64::MAX / 2 };
        let exponent = exponent.parse().unwrap_or(most);
        let digits = format!("{whole}{fraction}");
        let significant = digits.trim_start_matches('0');
        let zeros = (digits.len() - significant.len()) as i64;
        let point = exponent.clamp(i64::MIN / 2, i64::MAX / 2) + whole.len() as i64 - zeros;
        let digits = significant.trim_end_matches('0').to_owned();
        Some(Self { negative, digits, point, float: if negative { -float } else { float } })
    }

    /// In units of 10^-scale.
    pub(super) fn floor(&self, scale: i8) -> Floor {
        let point = if self.digits.is_empty() { 0 } else { self.point + i64::from(scale) };
        let whole = usize::try_from(point).unwrap_or(0); // so many digits stand before the point
        let exact = self.digits.len() <= whole;
        let magnitude = match self.digits.get(..whole) {
            Some("") => Ok(0),
            Some(digits) => digits.parse(),
            None if whole <= 39 => format!("{:0<whole$}", self.digits).parse(),
            None => "beyond".parse::<i128>(),
        };
        match (magnitude, self.negative) {
            (Ok(magnitude), false) => Floor { whole: magnitude, exact },
            (Ok(magnitude), true) => Floor { whole: -magnitude - i128::from(!exact), exact },
            (Err(_), false) => Floor { whole: i128::MAX, exact: false },
            (Err(_), true) => Floor { whole: i128::MIN, exact: false },
        }
    }
}

/// A date, or a date and a time, with or without an offset from UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    /// Since 1970, by the clock that was written.
    pub(super) nanoseconds: i128,
    /// What that clock is ahead of UTC.
    pub(super) offset: Option<i128>,
}

impl Moment {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (date, rest) = text.split_at_checked(10)?;
        let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = *date.as_bytes() else { return None };
        let year = number(&[y1, y2, y3, y4])?;
        let date = NaiveDate::from_ymd_opt(year as i32, number(&[m1, m2])?, number(&[d1, d2])?)?;
        let days = date.signed_duration_since(NaiveDate::default()).num_days(); // since 1970
        let midnight = i128::from(days) * 86_400 * SECOND;
        if rest.is_empty() {
            return Some(Self { nanoseconds: midnight, offset: None });
        }
        let time = rest.strip_prefix(['T', ' '])?;
        let end = time.find(['Z', '+', '-']).unwrap_or(time.len());
        let (time, zone) = time.split_at(end);
        let offset = if zone.is_empty() { None } else { Some(offset(zone)?) };
        Some(Self { nanoseconds: midnight + clock(time)?, offset })
    }
}

/// The number that a UUID's digits are, written with hyphens or without.
pub(super) fn uuid(text: &str) -> Option<u128> {
    let hyphens = [8, 13, 18, 23];
    let mut digits = 0;
    for (i, byte) in text.bytes().enumerate() {
        if text.len() == 36 && hyphens.contains(&i) {
            (byte == b'-').then_some(())?;
        } else {
            digits = digits << 4 | u128::from(char::from(byte).to_digit(16)?);
        }
    }
    matches!(text.len(), 32 | 36).then_some(digits)
}

/// The nanoseconds since midnight of a text like 12:30, 12:30:15 or 12:30:15.123456789.
pub(super) fn clock(text: &str) -> Option<i128> {
    let (minutes, seconds) = text.split_at_checked(5)?;
    let [h1, h2, b':', m1, m2] = *minutes.as_bytes() else { return None };
    let (hour, minute) = (number(&[h1, h2])?, number(&[m1, m2])?);
    let (mut second, mut nanoseconds) = (0, 0);
    if !seconds.is_empty() {
        let seconds = seconds.strip_prefix(':')?;
        let (whole, fraction) = seconds.split_once('.').unwrap_or((seconds, "0"));
        if whole.len() != 2 || !(1..=9).contains(&fraction.len()) {
            return None;
        }
        second = number(whole.as_bytes())?;
        nanoseconds = number(format!("{fraction:0<9}").as_bytes())?;
    }
    let valid = hour < 24 && minute < 60 && second < 60;
    let seconds = i128::from(hour * 3600 + minute * 60 + second);
    valid.then(|| seconds * SECOND + i128::from(nanoseconds))
}

/// What a clock of the zone is ahead of UTC, in nanoseconds. None where that depends on the date.
pub(super) fn offset(zone: &str) -> Option<i128> {
    if matches!(zone, "Z" | "UTC" | "Etc/UTC" | "GMT") {
        return Some(0);
    }
    let (sign, digits) = match zone.split_at_checked(1)? {
        ("+", digits) => (1, digits),
        ("-", digits) => (-1, digits),
        _ => return None,
    };
    let (hours, minutes) = match *digits.as_bytes() {
        [h1, h2] => ([h1, h2], *b"00"),
        [h1, h2, b':', m1, m2] | [h1, h2, m1, m2] => ([h1, h2], [m1, m2]),
        _ => return None,
    };
    let (hours, minutes) = (number(&hours)?, number(&minutes)?);
    let valid = hours < 24 && minutes < 60;
    valid.then(|| sign * i128::from(hours * 3600 + minutes * 60) * SECOND)
}

/// At most nine digits, and nothing else.
fn number(digits: &[u8]) -> Option<u32> {
    let digit =
        |sum, &digit: &u8| digit.is_ascii_digit().then(|| sum * 10 + u32::from(digit - b'0'));
    digits.iter().try_fold(0, digit)
}

/// The right side of `like`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    parts: Vec<Part>,
    any_case: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// `%`
    Any,
    /// `_`
    One,
    Char(char),
}

/// A pattern that asks for something simpler.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Simple {
    Equals(String),
    StartsWith(String),
    EndsWith(String),
    Contains(String),
}

impl Simple {
    fn text(&self) -> &str {
        let (Self::Equals(text)
        | Self::StartsWith(text)
        | Self::EndsWith(text)
        | Self::Contains(text)) = self;
        text
    }
}

impl Pattern {
    /// None if something else than a wildcard or itself follows the escape.
    pub(super) fn parse(text: &str, escape: Option<char>, any_case: bool) -> Option<Self> {
        let mut parts = vec![];
        let mut chars = text.chars();
        while let Some(char) = chars.next() {
            let part = match char {
                _ if Some(char) == escape => Part::Char(
                    chars
                        .next()
                        .filter(|&next| matches!(next, '%' | '_') || Some(next) == escape)?,
                ),
                '%' if parts.last() == Some(&Part::Any) => continue,
                '%' => Part::Any,
                '_' => Part::One,
                _ => Part::Char(char),
            };
            parts.push(part);
        }
        Some(Self { parts, any_case })
    }

    /// What it asks for in any case, if that can be told of ASCII texts byte by byte.
    pub(super) fn in_any_case(&self) -> Option<Simple> {
        self.shape().filter(|shape| self.any_case && shape.text().is_ascii())
    }

    pub(super) fn simple(&self) -> Option<Simple> {
        self.shape().filter(|_| !self.any_case)
    }

    fn shape(&self) -> Option<Simple> {
        let (start, rest) = match &self.parts[..] {
            [Part::Any, rest @ ..] => (true, rest),
            rest => (false, rest),
        };
        let (end, middle) = match rest {
            [middle @ .., Part::Any] => (true, middle),
            middle => (false, middle),
        };
        let char = |part: &Part| match part {
            Part::Char(char) => Some(*char),
            _ => None,
        };
        let text = middle.iter().map(char).collect::<Option<String>>()?;
        Some(match (start, end) {
            (false, false) => Simple::Equals(text),
            (false, true) => Simple::StartsWith(text),
            (true, false) => Simple::EndsWith(text),
            (true, true) => Simple::Contains(text),
        })
    }

    pub(super) fn any_case(&self) -> bool {
        self.any_case
    }

    /// The longest text that stands in all that fit, in ASCII where any case fits; it may be empty.
    pub(super) fn longest_part(&self) -> String {
        let (mut longest, mut part) = (String::new(), String::new());
        for next in self.parts.iter().chain([&Part::Any]) {
            match *next {
                Part::Char(char) if !self.any_case || char.is_ascii() => part.push(char),
                _ if part.len() > longest.len() => longest = std::mem::take(&mut part),
                _ => part.clear(),
            }
        }
        longest
    }

    /// In time proportional to the product of both lengths at most: when something does not fit, only
    /// what the last `%` stands for needs to be longer.
    pub(super) fn matches(&self, text: &str) -> bool {
        let (mut part, mut chars) = (0, text.chars());
        let mut last_any = None;
        loop {
            let rest = chars.clone();
            match (self.parts.get(part), chars.next()) {
                (Some(Part::Any), _) => {
                    part += 1;
                    chars = rest;
                    last_any = Some((part, chars.clone()));
                }
                (None, None) => return true,
                (Some(Part::One), Some(_)) => part += 1,
                (Some(&Part::Char(a)), Some(b)) if self.same(a, b) => part += 1,
                _ => {
                    let Some((after, from)) = &mut last_any else { return false };
                    if from.next().is_none() {
                        return false;
                    }
                    (part, chars) = (*after, from.clone());
                }
            }
        }
    }

    /// Upper or lower case may tell apart what the other does not: ẞ and ß, Σ and ς.
    fn same(&self, a: char, b: char) -> bool {
        a == b
            || self.any_case
                && if a.is_ascii() && b.is_ascii() {
                    a.eq_ignore_ascii_case(&b) // ten times as fast
                } else {
                    a.to_lowercase().eq(b.to_lowercase()) || a.to_uppercase().eq(b.to_uppercase())
                }
    }
}
