//! Words for messages: escaped, and with a guess at what was meant.

use std::path::Path;

/// The text without control characters, which could steer a terminal: they are shown as escapes.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        // Besides control characters: marks that turn the direction of the text around, and invisible ones.
        if c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
        {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// A path for a message.
pub fn path(path: &Path) -> String {
    escape(&path.to_string_lossy())
}

/// `1 file`, `2 files`.
pub fn count(number: u64, one: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {one}s") }
}

/// `; did you mean "x"?` where one of `known` is near, else `; allowed: …` with all of them; empty for no known words.
pub fn hint(word: &str, known: &[&str]) -> String {
    if known.is_empty() {
        return String::new();
    }
    let near = |a: &&&str| strsim::damerau_levenshtein(&word.to_lowercase(), a);
    // One slip in three letters.
    match known.iter().min_by_key(near) {
        Some(best) if near(&best) <= (best.len().max(word.chars().count()) / 3).max(1) => {
            format!("; did you mean \"{best}\"?")
        }
        _ => format!("; allowed: {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_gets_a_guess_and_nonsense_the_list() {
        assert_eq!(hint("wedbav", &["webdav", "s3"]), "; did you mean \"webdav\"?");
        assert_eq!(hint("quux", &["webdav", "s3"]), "; allowed: webdav, s3");
        assert_eq!(hint("Cache.max_bytes", &["cache.max_bytes"]), "; did you mean \"cache.max_bytes\"?");
    }

    #[test]
    fn a_terminal_sees_no_escape() {
        assert_eq!(escape("a\x1b[2J\u{202e}b\né"), "a\\u{1b}[2J\\u{202e}b\\né");
    }
}
