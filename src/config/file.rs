//! Reads the config file: TOML, one `[drive.NAME]` table a drive.

use super::keys::{Form, Key, RemoteType};
use super::values::{Origin, Value, Values, count_value, known_key, text_value, wrong};
use super::{units, words};
use crate::error::{Error, Kind, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

/// The largest config file that is read, bytes: a wrong path must not fill the memory.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The longest name of a drive, bytes: it becomes a directory's name with something behind it.
const DRIVE_NAME_BYTES_MAX: usize = 64;

/// A config file whose outline is sound. A slip in one drive does not keep the others from being mounted: its error waits
/// until that drive is asked for.
pub struct ConfigFile {
    path: PathBuf,
    drives: Vec<Section>,
}

struct Section {
    name: String,
    origin: Origin,
    values: Result<Values>,
}

impl ConfigFile {
    /// Reads `path`. `Config`: absent, unreadable, not UTF-8, broken TOML, or an outline of another kind; with the line.
    pub fn read(path: &Path) -> Result<ConfigFile> {
        ConfigFile::parse(path, &read_text(path)?)
    }

    /// Takes the content of `path`.
    pub fn parse(path: &Path, text: &str) -> Result<ConfigFile> {
        let reader = Reader { path: Arc::new(path.to_owned()), text };
        // The parser's own display quotes the line, which may hold a password.
        let root = DeTable::parse(text).map_err(|e| {
            let origin = reader.line(e.span().map_or(0, |span| span.start));
            origin.refuse(format!("not TOML: {}", e.message().replace('\n', ", ")))
        })?;
        let mut drives = Vec::new();
        for (key, value) in root.get_ref() {
            let origin = reader.origin(key);
            if key.get_ref() != "drive" {
                let key = words::escape(key.get_ref());
                return Err(origin.refuse(format!("unknown table or key \"{key}\"; drives are [drive.NAME]")));
            }
            let DeValue::Table(tables) = value.get_ref() else {
                return Err(origin.refuse("\"drive\" is not a table; drives are [drive.NAME]"));
            };
            for (name, value) in tables {
                drives.push(reader.section(name, value)?);
            }
        }
        Ok(ConfigFile { path: path.to_owned(), drives })
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The drives, sorted by name.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.drives.iter().map(|drive| drive.name.as_str())
    }

    /// The values of the drive `name`, each checked by itself; `None`: no such drive. `Config`: a key or value is wrong.
    pub fn values(&self, name: &str) -> Option<Result<(Values, Origin)>> {
        let drive = self.drives.iter().find(|drive| drive.name == name)?;
        Some(drive.values.clone().map(|values| (values, drive.origin.clone())))
    }
}

/// One reading of one file.
struct Reader<'a> {
    path: Arc<PathBuf>,
    text: &'a str,
}

impl Reader<'_> {
    fn section(&self, name: &Spanned<DeString>, value: &Spanned<DeValue>) -> Result<Section> {
        let origin = self.origin(name);
        let DeValue::Table(table) = value.get_ref() else {
            let name = words::escape(name.get_ref());
            return Err(origin.refuse(format!("\"drive.{name}\" is not a table; drives are [drive.NAME]")));
        };
        let name = name.get_ref().to_string();
        check_name(&name).map_err(|why| origin.refuse(why))?;
        let values = self.read_drive(table, &origin).map_err(|error| error_in(error, &name));
        Ok(Section { name, origin, values })
    }

    fn read_drive(&self, table: &DeTable, origin: &Origin) -> Result<Values> {
        let remote = self.type_of(table, origin)?;
        let mut values = Values::default();
        self.read_table("", table, remote, &mut values)?;
        Ok(values)
    }

    /// The type comes first: which other keys there may be depends on it.
    fn type_of(&self, table: &DeTable, origin: &Origin) -> Result<RemoteType> {
        let words: Vec<&str> = RemoteType::ALL.map(RemoteType::word).to_vec();
        let Some((_, value)) = table.iter().find(|(key, _)| key.get_ref() == "type") else {
            return Err(origin.refuse(format!("the key \"type\" is missing; one of {}", words.join(", "))));
        };
        let key = known_key("type", None, origin)?;
        let value = self.read_value(key, value)?;
        let word = if let Value::Text(word) = &value { word.as_str() } else { "" };
        built_type(word).map_err(|why| origin.refuse(why))
    }

    fn read_table(&self, above: &str, table: &DeTable, remote: RemoteType, into: &mut Values) -> Result<()> {
        for (name, value) in table {
            let path =
                if above.is_empty() { name.get_ref().to_string() } else { format!("{above}.{}", name.get_ref()) };
            let origin = self.origin(name);
            match value.get_ref() {
                // No key has more than one dot.
                DeValue::Table(inner) if above.is_empty() && super::keys::find(&path).is_none() => {
                    self.read_table(&path, inner, remote, into)?;
                }
                _ => {
                    let key = known_key(&path, Some(remote), &origin)?;
                    let value = self.read_value(key, value)?;
                    into.set(key, value, origin);
                }
            }
        }
        Ok(())
    }

    fn read_value(&self, key: &Key, value: &Spanned<DeValue>) -> Result<Value> {
        let origin = self.origin(value);
        match (key.form, value.get_ref()) {
            (Form::Text | Form::Secret | Form::Path | Form::Word(_), DeValue::String(text)) => {
                text_value(key, text, &origin)
            }
            (Form::Bytes, DeValue::Integer(number)) => units::parse_bytes(&number.to_string())
                .map(Value::Bytes)
                .map_err(|why| wrong(key, &number.to_string(), &why, &origin)),
            (Form::Bytes, DeValue::String(text)) => {
                units::parse_bytes(text).map(Value::Bytes).map_err(|why| wrong(key, text, &why, &origin))
            }
            (Form::Seconds, DeValue::Integer(number)) => units::parse_seconds(&number.to_string())
                .map(Value::Time)
                .map_err(|why| wrong(key, &number.to_string(), &why, &origin)),
            (Form::Seconds, DeValue::Float(number)) => {
                let text = number.as_str();
                units::parse_seconds(text).map(Value::Time).map_err(|why| wrong(key, text, &why, &origin))
            }
            (Form::Count(..), DeValue::Integer(number)) => {
                let parsed = number.to_string().parse();
                let refuse = |_| wrong(key, &number.to_string(), &format!("is not a {}", key.form.describe()), &origin);
                count_value(key, parsed.map_err(refuse)?, &origin)
            }
            (Form::Switch, DeValue::Boolean(on)) => Ok(Value::Switch(*on)),
            (Form::List, DeValue::Array(items)) => {
                let text = |item: &Spanned<DeValue>| match item.get_ref() {
                    DeValue::String(text) => Ok(text.to_string()),
                    _ => Err(self.origin(item).refuse(format!("\"{}\" is a list of texts", key.name))),
                };
                Ok(Value::List(items.iter().map(text).collect::<Result<_>>()?))
            }
            (form, other) => {
                let found = kind_of(other);
                Err(origin.refuse(format!("the value of \"{}\" is {found}; wanted: {}", key.name, form.describe())))
            }
        }
    }

    fn origin<T>(&self, at: &Spanned<T>) -> Origin {
        self.line(at.span().start)
    }

    /// The line of the byte `at`, from 1.
    fn line(&self, at: usize) -> Origin {
        let above = self.text.as_bytes().iter().take(at).filter(|b| **b == b'\n').count();
        Origin::Line(self.path.clone(), above + 1)
    }
}

/// The type that `word` names, if this version has it.
pub fn built_type(word: &str) -> std::result::Result<RemoteType, String> {
    let built = RemoteType::BUILT.map(RemoteType::word).join(", ");
    match RemoteType::from_word(word) {
        Some(remote) if remote.is_built() => Ok(remote),
        Some(_) => Err(format!("type \"{word}\" is not in this version of fourwheel; it has {built}")),
        None => Err(format!("unknown type \"{}\"; this version has {built}", words::escape(word))),
    }
}

/// Whether `name` can name a drive: it becomes a directory's name and stands before a colon on the command line.
pub fn check_name(name: &str) -> std::result::Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) || !name.chars().all(plain) {
        return Err(format!(
            "\"{}\" cannot name a drive; use letters, digits, \"-\", \"_\" and \".\", a letter or digit first",
            words::escape(name)
        ));
    }
    if name.len() > DRIVE_NAME_BYTES_MAX {
        return Err(format!("\"{name}\" is too long for the name of a drive; at most {DRIVE_NAME_BYTES_MAX} letters"));
    }
    Ok(())
}

fn error_in(error: Error, drive: &str) -> Error {
    // `file:line: ` stays in front, where editors look for it.
    match error.message().split_once(": ") {
        Some((at, why)) => Error::new(error.kind, format!("{at}: drive \"{drive}\": {why}")),
        None => error,
    }
}

fn kind_of(value: &DeValue) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// Reads a small text file of settings. `Config`, with the path and what to do.
#[allow(clippy::disallowed_methods, reason = "settings, read once at start")]
pub fn read_text(path: &Path) -> Result<String> {
    use std::io::Read;
    let refuse = |why: String| Error::new(Kind::Config, format!("{}: {why}", words::path(path)));
    let file = std::fs::File::open(path).map_err(|e| refuse(format!("cannot be opened: {e}")))?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|e| refuse(format!("cannot be read: {e}")))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(refuse(format!("is larger than {}; not a config file", units::exact_bytes(FILE_BYTES_MAX))));
    }
    String::from_utf8(bytes).map_err(|e| {
        let line = e.as_bytes()[..e.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n').count() + 1;
        Error::new(Kind::Config, format!("{}:{line}: not UTF-8", words::path(path)))
    })
}
