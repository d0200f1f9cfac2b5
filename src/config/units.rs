//! Numbers with units, as people write them: `20GiB`, `0.2`, `5m`.

use std::time::Duration;

/// Bytes in each unit that a size may carry. Those with an `i` are powers of 1024, the others of 1000.
const BYTE_UNITS: [(&str, u64); 13] = [
    ("", 1),
    ("B", 1),
    ("kB", 1000),
    ("KB", 1000),
    ("MB", 1000 * 1000),
    ("GB", 1000 * 1000 * 1000),
    ("TB", 1000 * 1000 * 1000 * 1000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("PB", 1000 * 1000 * 1000 * 1000 * 1000),
    ("PiB", 1 << 50),
];

/// The longest time that a setting may name, in seconds: 30 days.
const SECONDS_MAX: f64 = 30.0 * 86400.0;

/// Reads a size in bytes. `Err` says what is wrong, in words that follow the quoted value.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = (&text[..digits], text[digits..].trim_start());
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let all_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) || fraction.len() > 9 {
        return Err("is not a size; write a number and a unit, such as 512MiB or 20GiB".into());
    }
    let Some((_, factor)) = BYTE_UNITS.iter().find(|(known, _)| *known == unit) else {
        return Err(format!("has the unit \"{unit}\"; known are B, kB, MB, GB, TB, PB, KiB, MiB, GiB, TiB, PiB"));
    };
    let too_large = || "is more than this machine can count".to_owned();
    let whole: u64 = whole.parse().map_err(|_| too_large())?;
    let parts = 10u128.pow(fraction.len() as u32);
    let fraction: u128 = if fraction.is_empty() { 0 } else { fraction.parse().map_err(|_| too_large())? };
    let bytes = (u128::from(whole) * parts + fraction) * u128::from(*factor) / parts;
    // Offsets are signed in Linux.
    if bytes > i64::MAX as u128 { Err(too_large()) } else { Ok(bytes as u64) }
}

/// Writes a size so that [`parse_bytes`] gives the same number back: the largest binary unit that divides it.
pub fn exact_bytes(bytes: u64) -> String {
    for (unit, shift) in [("PiB", 50), ("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        if bytes != 0 && bytes.is_multiple_of(1 << shift) {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    format!("{bytes}B")
}

/// Writes a size for people: three digits and a binary unit, `1.46 GiB`.
pub fn human_bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB", "TiB"] {
        if value < 1023.5 {
            let digits = if unit == "B" || value >= 99.95 { 0 } else { usize::from(value < 9.995) + 1 };
            return format!("{value:.digits$} {unit}");
        }
        value /= 1024.0;
    }
    format!("{value:.1} PiB")
}

/// Checks a number of seconds, fractions allowed: 0 to 30 days, to the millisecond.
pub fn seconds(number: f64) -> Result<Duration, String> {
    if !(0.0..=SECONDS_MAX).contains(&number) {
        return Err("is not a number of seconds between 0 and 2592000 (30 days)".into());
    }
    Ok(Duration::from_millis((number * 1000.0).round() as u64))
}

/// Reads seconds from text, without a unit.
pub fn parse_seconds(text: &str) -> Result<Duration, String> {
    let number = text.trim().parse().map_err(|_| "is not a number of seconds; write 2 or 0.5".to_owned())?;
    seconds(number)
}

/// Writes seconds as the config file takes them: `2`, `0.2`.
pub fn plain_seconds(time: Duration) -> String {
    format!("{}", time.as_millis() as f64 / 1000.0)
}

/// Writes a duration for people: `0.4 s`, `12 s`, `3 min 20 s`, `2 h 5 min`, `4 d`.
pub fn human_duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..10 => format!("{:.1} s", time.as_secs_f64()),
        10..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..172_800 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d", seconds / 86400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_exactly_or_refused() {
        assert_eq!(parse_bytes("20GiB"), Ok(20 << 30));
        assert_eq!(parse_bytes("1.5 MB"), Ok(1_500_000));
        assert_eq!(parse_bytes("0"), Ok(0));
        assert_eq!(parse_bytes("8191PiB"), Ok(8191 << 50));
        for bad in
            ["", "GiB", "-1", "1e9", "20 gib", "1..5", "20GiBs", "8192PiB", "99999999999999999999", "1.0000000001"]
        {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        for bytes in [0, 1, 1023, 1 << 10, 5 << 20, (5 << 20) + 1, 20 << 30, 7 << 50] {
            assert_eq!(parse_bytes(&exact_bytes(bytes)), Ok(bytes));
        }
        assert_eq!(plain_seconds(parse_seconds("0.2").unwrap()), "0.2");
        assert_eq!(plain_seconds(parse_seconds("2").unwrap()), "2");
        for bad in ["", "2s", "-1", "NaN", "inf", "1e300"] {
            assert!(parse_seconds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn people_see_three_digits() {
        let shown: Vec<String> = [0, 1023, 1024, 1536, 104_857_600, 1_610_612_736].map(human_bytes).to_vec();
        assert_eq!(shown, ["0 B", "1023 B", "1.00 KiB", "1.50 KiB", "100 MiB", "1.50 GiB"]);
        let times = [0.44, 12.0, 200.0, 7500.0, 345_600.0].map(|s| human_duration(Duration::from_secs_f64(s)));
        assert_eq!(times, ["0.4 s", "12 s", "3 min 20 s", "2 h 5 min", "4 d"]);
    }
}
