//! Maps what Linux allows in a name to what a provider allows, and back. Pure text: no I/O, no knowledge of any tree.
//!
//! The scheme is rclone's (its `lib/encoder`), so a drive used with both shows the same names in both:
//! * a character that the provider refuses becomes its full-width form (`:` becomes `：`), a control character its picture
//!   (U+2400 and on), a blank at the end `␠`, a full stop at the end, or at the start, `．`;
//! * a byte that is not UTF-8 becomes `‛XX` in capital hexadecimal;
//! * a name that holds one of those stand-ins already gets the quote `‛` (U+201B) before it; `‛` itself is doubled.
//!
//! Added here: providers without symbolic links keep them as `NAME.rclonelink`, so a plain file whose own name ends that way
//! is written with a full-width stop, `NAME．rclonelink`.

use super::NameRules;
use crate::error::{Error, Kind, Result};

/// What a symbolic link's name ends with on a provider without links (rclone's `--links`).
pub const LINK_SUFFIX: &str = ".rclonelink";

const QUOTE: char = '‛';
const LINK_REST: &str = "rclonelink";

/// The provider's name for the Linux name `name` (1 to 255 bytes, neither `/` nor NUL).
///
/// [`decode`] gives `name` back, always. [`Kind::NameTooLong`]: the mapped name is over `rules.name_bytes_max`.
/// [`Kind::NameRefused`]: the provider refuses the quote character itself, and `name` needs it.
pub fn encode(name: &[u8], rules: &NameRules) -> Result<String> {
    let mut out = String::with_capacity(name.len());
    let mut left = name.len();
    for chunk in name.utf8_chunks() {
        left -= chunk.valid().len() + chunk.invalid().len();
        for (at, c) in chunk.valid().char_indices() {
            let rest = &chunk.valid()[at + c.len_utf8()..];
            let whole = left == 0 && chunk.invalid().is_empty();
            encode_char(c, spot(rest, out.is_empty(), whole), rules, &mut out);
        }
        for byte in chunk.invalid() {
            push_byte(*byte, &mut out);
        }
    }
    check(name, out, rules)
}

/// The Linux name that the provider's name `name` stands for.
///
/// For a name that [`encode`] did not make (another program's), `encode(decode(name))` may differ from `name`: the caller
/// compares, and keeps the provider's name beside the shown one where they differ. The result never holds `/` or NUL, and is
/// never `.` or `..`; it may be over 255 bytes.
pub fn decode(name: &str, rules: &NameRules) -> Vec<u8> {
    match name {
        "." => return "．".into(),
        ".." => return "．．".into(),
        _ => {}
    }
    let mut out = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some(c) = rest.chars().next() {
        let start = rest.len() == name.len();
        let after = &rest[c.len_utf8()..];
        rest = match (c == QUOTE).then(|| quoted(after, start, rules)).flatten() {
            Some((Quoted::Char(c), rest)) => {
                push_char(c, &mut out);
                rest
            }
            Some((Quoted::Byte(byte), rest)) => {
                out.push(byte);
                rest
            }
            None => {
                let spot = spot(after, start, true);
                let plain = refused(rules).chain(positional(spot, rules)).find(|plain| stand_in(*plain) == Some(c));
                push_char(plain.unwrap_or(c), &mut out);
                after
            }
        };
    }
    out
}

/// The provider's name for a symbolic link whose mapped name is `name`, on a provider without links.
pub fn link_name(name: &str) -> String {
    format!("{name}{LINK_SUFFIX}")
}

/// Whether a provider's name is that of a symbolic link kept as a file.
pub fn is_link_name(name: &str) -> bool {
    strip_link(name).is_some()
}

/// The mapped name of the symbolic link that is kept as the file `name`; `None` for other files.
pub fn strip_link(name: &str) -> Option<&str> {
    name.strip_suffix(LINK_SUFFIX).filter(|stem| !stem.is_empty())
}

/// Where in its name a character stands, as far as that makes it special.
#[derive(Clone, Copy)]
struct Spot {
    first: bool,
    end: End,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Last,
    /// The character before `rclonelink`, not at the start.
    BeforeLink,
    Other,
}

fn spot(rest: &str, first: bool, whole: bool) -> Spot {
    let end = match whole {
        true if rest.is_empty() => End::Last,
        true if rest == LINK_REST && !first => End::BeforeLink,
        _ => End::Other,
    };
    Spot { first, end }
}

/// The characters that are mapped wherever they stand.
fn refused(rules: &NameRules) -> impl Iterator<Item = char> + '_ {
    let control = (1u8..0x20).chain([0x7F]).filter(|_| rules.no_control).map(char::from);
    rules.forbidden.chars().filter(|c| !matches!(c, '/' | '\0')).chain(control)
}

/// The characters that are mapped at `spot` alone.
fn positional(spot: Spot, rules: &NameRules) -> impl Iterator<Item = char> {
    let start: &[char] = if spot.first && rules.no_leading_dot { &['.'] } else { &[] };
    let end: &[char] = match spot.end {
        End::Last if rules.no_trailing_dot_space => &['.', ' '],
        End::BeforeLink if !rules.any_bytes => &['.'],
        _ => &[],
    };
    start.iter().chain(end).copied()
}

/// What a refused character is written as; `None` outside ASCII, where the bytes are written instead.
fn stand_in(c: char) -> Option<char> {
    match c {
        '\0'..='\x20' => char::from_u32(0x2400 + c as u32),
        '\x7F' => Some('\u{2421}'),
        '!'..='~' => char::from_u32(0xFEE0 + c as u32),
        _ => None,
    }
}

/// Whether the literal `c` at `spot` would be read as a stand-in, so that it needs the quote.
fn is_stand_in(c: char, spot: Spot, rules: &NameRules) -> bool {
    // rclone maps NUL and `/` on every provider, so their stand-ins are quoted on every provider.
    matches!(c, '␀' | '／') || refused(rules).chain(positional(spot, rules)).any(|plain| stand_in(plain) == Some(c))
}

fn encode_char(c: char, spot: Spot, rules: &NameRules, out: &mut String) {
    if c == QUOTE {
        out.extend([QUOTE, QUOTE]);
    } else if refused(rules).chain(positional(spot, rules)).any(|plain| plain == c) {
        match stand_in(c) {
            Some(stand_in) => out.push(stand_in),
            None => c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| push_byte(byte, out)),
        }
    } else {
        if is_stand_in(c, spot, rules) {
            out.push(QUOTE);
        }
        out.push(c);
    }
}

fn push_byte(byte: u8, out: &mut String) {
    out.push_str(&format!("{QUOTE}{byte:02X}"));
}

enum Quoted {
    Char(char),
    Byte(u8),
}

/// Reads what follows a quote; `None` where the quote stands for itself (in another program's name).
fn quoted<'a>(after: &'a str, start: bool, rules: &NameRules) -> Option<(Quoted, &'a str)> {
    let c = after.chars().next()?;
    let rest = &after[c.len_utf8()..];
    if c == QUOTE || is_stand_in(c, spot(rest, start, true), rules) {
        return Some((Quoted::Char(c), rest));
    }
    let pair = after.get(..2).filter(|pair| pair.bytes().all(|b| matches!(b, b'0'..=b'9' | b'A'..=b'F')))?;
    let byte = u8::from_str_radix(pair, 16).ok().filter(|byte| *byte >= 0x80)?;
    Some((Quoted::Byte(byte), &after[2..]))
}

/// Adds `c`, or its picture where Linux refuses it.
fn push_char(c: char, out: &mut Vec<u8>) {
    let c = if matches!(c, '/' | '\0') { stand_in(c).unwrap_or(c) } else { c };
    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}

fn check(name: &[u8], out: String, rules: &NameRules) -> Result<String> {
    let length = if rules.any_bytes { name.len() } else { out.len() };
    if length > rules.name_bytes_max {
        let why = format!("name of {length} bytes, the provider takes {}", rules.name_bytes_max);
        return Err(Error::new(Kind::NameTooLong, why));
    }
    if out.contains(QUOTE) && rules.forbidden.contains(QUOTE) {
        return Err(Error::new(Kind::NameRefused, format!("the provider refuses {QUOTE}, which this name needs")));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: NameRules = NameRules {
        forbidden: "",
        no_control: false,
        no_trailing_dot_space: false,
        no_leading_dot: false,
        name_bytes_max: 4096,
        path_bytes_max: 4096,
        any_bytes: false,
    };
    const STRICT: NameRules =
        NameRules { forbidden: "\"*:<>?\\|é", no_control: true, no_trailing_dot_space: true, ..PLAIN };
    const NO_DOT: NameRules = NameRules { no_leading_dot: true, ..PLAIN };
    const FOLDER: NameRules = NameRules { any_bytes: true, ..PLAIN };

    /// Every sequence of up to `length` of `tokens`.
    fn sequences(tokens: &[&[u8]], length: usize, each: &mut impl FnMut(&[u8])) {
        fn go(tokens: &[&[u8]], left: usize, name: &mut Vec<u8>, each: &mut impl FnMut(&[u8])) {
            each(name);
            if left > 0 {
                for token in tokens {
                    name.extend_from_slice(token);
                    go(tokens, left - 1, name, each);
                    name.truncate(name.len() - token.len());
                }
            }
        }
        go(tokens, length, &mut Vec::new(), each);
    }

    fn is_linux(name: &[u8]) -> bool {
        !matches!(name, b"" | b"." | b"..") && !name.contains(&0) && !name.contains(&b'/')
    }

    const TOKENS: &[&[u8]] = &[
        b"a",
        b".",
        b" ",
        b":",
        b"8",
        b"0",
        b"\n",
        b"\x7f",
        b"\xff",
        b"\xe2",
        b"\x80",
        b"\x9b",
        "‛".as_bytes(),
        "：".as_bytes(),
        "．".as_bytes(),
        "␠".as_bytes(),
        "␀".as_bytes(),
        "é".as_bytes(),
        b"rclonelink",
    ];

    #[test]
    fn every_name_comes_back() {
        for (rules, length) in [(PLAIN, 3), (FOLDER, 3), (NO_DOT, 4), (STRICT, 4)] {
            sequences(TOKENS, length, &mut |name| {
                if is_linux(name) {
                    let mapped = encode(name, &rules).unwrap();
                    assert_eq!(decode(&mapped, &rules), name, "{mapped:?}");
                }
            });
        }
    }

    #[test]
    fn no_two_names_share_a_mapping_and_none_is_refused() {
        let mut seen = std::collections::BTreeMap::new();
        sequences(TOKENS, 3, &mut |name| {
            if is_linux(name) {
                let mapped = encode(name, &STRICT).unwrap();
                assert!(!mapped.contains(['"', '*', ':', '<', '>', '?', '\\', '|', 'é']), "{mapped:?}");
                assert!(!mapped.chars().any(char::is_control) && !mapped.ends_with(['.', ' ']), "{mapped:?}");
                assert!(!is_link_name(&mapped), "{mapped:?}");
                let other = seen.insert(mapped, name.to_vec());
                assert!(other.as_deref().is_none_or(|other| other == name));
            }
        });
    }

    #[test]
    fn random_bytes_come_back() {
        let mut seed = 7u64;
        for _ in 0..50_000 {
            let mut name = Vec::new();
            for _ in 0..12 {
                seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                name.push((seed >> 40) as u8);
            }
            name.retain(|b| !matches!(b, 0 | b'/'));
            if is_linux(&name) {
                assert_eq!(decode(&encode(&name, &STRICT).unwrap(), &STRICT), name);
            }
        }
    }

    #[test]
    fn foreign_names_show_as_names_that_linux_takes() {
        for foreign in [".", "..", "a/b", "a\0", "‛", "‛41", "‛8", "‛é", "␀", "／", "：", "x.rclonelink"] {
            let shown = decode(foreign, &STRICT);
            assert!(is_linux(&shown), "{foreign:?}");
            assert_eq!(decode(&encode(&shown, &STRICT).unwrap(), &STRICT), shown);
        }
    }

    #[test]
    fn agrees_with_rclone() {
        // Pairs from rclone's own tests of its encoder.
        assert_eq!(encode(b"a:b?", &STRICT).unwrap(), "a：b？");
        assert_eq!(encode("：".as_bytes(), &STRICT).unwrap(), "‛：");
        assert_eq!(encode(b"\x01 \x7f", &STRICT).unwrap(), "␁ ␡");
        assert_eq!(encode(b"x. ", &STRICT).unwrap(), "x.␠");
        assert_eq!(encode(b"\xbf", &PLAIN).unwrap(), "‛BF");
        assert_eq!(encode(b"x.rclonelink", &PLAIN).unwrap(), "x．rclonelink");
        assert_eq!(encode(b".hidden.x", &NO_DOT).unwrap(), "．hidden.x");
        assert_eq!(encode("．x".as_bytes(), &NO_DOT).unwrap(), "‛．x");
        assert_eq!(encode(b"x.rclonelink", &FOLDER).unwrap(), "x.rclonelink");
    }

    #[test]
    fn lengths_are_those_of_the_provider() {
        let rules = NameRules { name_bytes_max: 6, ..PLAIN };
        assert_eq!(encode(b"\xff\xff", &rules).unwrap_err().kind, Kind::NameTooLong);
        assert!(encode(b"\xff\xff", &NameRules { any_bytes: true, ..rules }).is_ok());
    }
}
