//! Dates as servers write them. RFC 1123 is the rule (RFC 4918, 15.7); other forms are in the wild (rclone lists five).

use std::time::UNIX_EPOCH;

/// Nanoseconds since 1970 of a date in RFC 1123, RFC 850, asctime or ISO 8601 form, with zone names or offsets.
/// `None` where it cannot be understood, or lies outside 1677 to 2262.
pub(super) fn parse(text: &str) -> Option<i64> {
    let text = text.trim();
    if let Ok(time) = httpdate::parse_http_date(text) {
        return i64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_nanos()).ok();
    }
    if text.as_bytes().first().is_some_and(u8::is_ascii_digit) && text.contains('T') { iso(text) } else { words(text) }
}

/// `2006-01-02T15:04:05.000Z`, `2006-01-02T15:04:05+09:00`.
fn iso(text: &str) -> Option<i64> {
    let (date, rest) = text.split_once('T')?;
    let (clock, zone) = match rest.find(['Z', '+', '-']) {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let mut parts = date.split('-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    moment(year, month, day, time(clock)?, offset(zone)?)
}

/// Any order of day, month name, year, clock and zone: `Mon, 2 Jan 2006 15:04:05 +0000`, `Mon Jan  2 15:04:05 UTC 2006`.
fn words(text: &str) -> Option<i64> {
    let (mut day, mut month, mut year, mut clock, mut zone) = (None, None, None, None, 0);
    for word in text.split([' ', ',', '\t']).flat_map(|word| {
        // 02-Jan-06 is three words; -0700 is one.
        let many = word.chars().any(|c| c.is_ascii_alphabetic()) && word.contains('-');
        word.split(move |c| many && c == '-')
    }) {
        if word.is_empty() {
            continue;
        } else if word.contains(':') {
            clock = Some(time(word)?);
        } else if let Some(number) = month_number(word) {
            month = Some(number);
        } else if word.starts_with(['+', '-']) {
            zone = offset(word)?;
        } else if let Ok(number) = word.parse::<i64>() {
            match (word.len(), day) {
                (1 | 2, None) => day = Some(number),
                (2, Some(_)) => year = Some(if number < 70 { 2000 + number } else { 1900 + number }),
                (4, _) => year = Some(number),
                _ => return None,
            }
        }
    }
    moment(year?, month?, day?, clock?, zone)
}

fn month_number(word: &str) -> Option<i64> {
    const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    let word = word.get(..3)?.to_ascii_lowercase();
    MONTHS.iter().position(|month| *month == word).map(|at| at as i64 + 1)
}

/// Nanoseconds of the day of `15:04:05` or `15:04:05.25`.
fn time(text: &str) -> Option<i64> {
    let mut parts = text.split(':');
    let (hours, minutes) = (parts.next()?.parse::<i64>().ok()?, parts.next()?.parse::<i64>().ok()?);
    let (seconds, fraction) = match parts.next() {
        Some(text) => text.split_once('.').unwrap_or((text, "")),
        None => ("0", ""),
    };
    let seconds = seconds.parse::<i64>().ok()?;
    if !(0..24).contains(&hours) || !(0..60).contains(&minutes) || !(0..=60).contains(&seconds) {
        return None;
    }
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    Some((hours * 3600 + minutes * 60 + seconds) * 1_000_000_000 + digits.parse::<i64>().ok().filter(|n| *n >= 0)?)
}

/// Seconds east of UTC of `Z`, `+0900` or `-03:30`; 0 where there is none.
fn offset(zone: &str) -> Option<i64> {
    let sign = match zone.chars().next() {
        Some('+') => 1,
        Some('-') => -1,
        _ => return Some(0),
    };
    let digits: String = zone.chars().filter(char::is_ascii_digit).collect();
    if digits.len() != 4 {
        return None;
    }
    let number = digits.parse::<i64>().ok()?;
    Some(sign * (number / 100 * 3600 + number % 100 * 60))
}

fn moment(year: i64, month: i64, day: i64, clock_ns: i64, zone_s: i64) -> Option<i64> {
    if !(1600..3000).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Days since 1970 of a civil date; years begin in March, so that the leap day comes last (Hinnant, days_from_civil).
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted.div_euclid(400);
    let of_era = shifted - era * 400;
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    (days * 86_400 - zone_s).checked_mul(1_000_000_000)?.checked_add(clock_ns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_in_the_wild_gives_the_same_moment() {
        const EXPECTED: i64 = 1_136_214_245_000_000_000;
        for text in [
            "Mon, 02 Jan 2006 15:04:05 GMT",
            "Mon, 2 Jan 2006 15:04:05 GMT",
            "Mon, 02 Jan 2006 15:04:05 +0000",
            "Tue, 03 Jan 2006 00:04:05 +0900",
            "Monday, 02-Jan-06 15:04:05 GMT",
            "Mon Jan  2 15:04:05 2006",
            "Mon Jan  2 15:04:05 UTC 2006",
            "2006-01-02T15:04:05Z",
            "2006-01-02T15:04:05",
            "2006-01-02T11:34:05-03:30",
        ] {
            assert_eq!(parse(text), Some(EXPECTED), "{text}");
        }
        assert_eq!(parse("2006-01-02T15:04:05.25Z"), Some(EXPECTED + 250_000_000));
        assert_eq!(parse("1969-12-31T23:59:59Z"), Some(-1_000_000_000));
        assert_eq!(parse("Thu, 29 Feb 2024 00:00:00 GMT").map(|ns| ns / 1_000_000_000), Some(1_709_164_800));
    }

    #[test]
    fn nonsense_is_no_date() {
        for text in ["", "yesterday", "99:99:99", "2006-13-02T00:00:00Z", "-1", "1 2 3 4 5", "2006-01-02T1:-5:00Z", "T"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
