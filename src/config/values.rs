//! The values of a drive's keys, checked one by one, before they are put together.

use super::keys::{self, Form, Key, RemoteType};
use super::{units, words};
use crate::error::{Error, Kind, Result};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A file, and the line in it, from 1.
    Line(Arc<PathBuf>, usize),
    /// What the command line calls it: `-o`, `REMOTE`.
    Option(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Line(file, line) => write!(f, "{}:{line}", words::path(file)),
            Origin::Option(name) => f.write_str(name),
        }
    }
}

impl Origin {
    /// An error of the settings at this place.
    pub fn refuse(&self, why: impl fmt::Display) -> Error {
        Error::new(Kind::Config, format!("{self}: {why}"))
    }
}

/// One value, of the form that its key asks for.
#[derive(Clone, PartialEq)]
pub enum Value {
    Text(String),
    Bytes(u64),
    Time(Duration),
    Count(u64),
    Switch(bool),
    List(Vec<String>),
}

/// A value and where it stands.
#[derive(Clone, PartialEq)]
pub struct Given {
    pub value: Value,
    pub origin: Origin,
}

/// The values that were given for one drive, by key.
#[derive(Clone, Default)]
pub struct Values(BTreeMap<&'static str, Given>);

impl Values {
    /// Notes a text value without a look at its form; for what the program itself takes apart.
    pub fn set_text(&mut self, key: &'static str, text: impl Into<String>, origin: &Origin) {
        self.0.insert(key, Given { value: Value::Text(text.into()), origin: origin.clone() });
    }

    /// Notes a switch.
    pub fn set_switch(&mut self, key: &'static str, on: bool, origin: &Origin) {
        self.0.insert(key, Given { value: Value::Switch(on), origin: origin.clone() });
    }

    /// Notes a checked value.
    pub fn set(&mut self, key: &'static Key, value: Value, origin: Origin) {
        self.0.insert(key.name, Given { value, origin });
    }

    /// Takes everything of `other`, which wins.
    pub fn overlay(&mut self, other: &Values) {
        self.0.extend(other.0.iter().map(|(key, given)| (*key, given.clone())));
    }

    /// The value of `key` and its place.
    pub fn get(&self, key: &str) -> Option<&Given> {
        self.0.get(key)
    }

    /// The text of `key`.
    pub fn text(&self, key: &str) -> Option<&str> {
        match &self.0.get(key)?.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// All, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Given)> {
        self.0.iter().map(|(key, given)| (*key, given))
    }
}

/// Finds the key `name` for a drive of type `remote` (`None`: not known yet), or says what is allowed.
pub fn known_key(name: &str, remote: Option<RemoteType>, origin: &Origin) -> Result<&'static Key> {
    let fits = |key: &&Key| remote.is_none_or(|remote| key.is_for(remote));
    let Some(key) = keys::find(name) else {
        let names: Vec<&str> = keys::KEYS.iter().filter(fits).map(|key| key.name).collect();
        return Err(origin.refuse(format!("unknown key \"{}\"{}", words::escape(name), words::hint(name, &names))));
    };
    if !fits(&key) {
        let types: Vec<&str> = key.types.iter().map(|t| t.word()).collect();
        let remote = remote.map_or("this", RemoteType::word);
        return Err(origin.refuse(format!("the key \"{name}\" is for type {}, not for {remote}", types.join(" and "))));
    }
    Ok(key)
}

/// Reads a value from text, as the command line gives it; a list is separated by `;`.
pub fn from_text(key: &Key, text: &str, origin: &Origin) -> Result<Value> {
    let refuse = |why: &str| wrong(key, text, why, origin);
    Ok(match key.form {
        Form::Text | Form::Secret | Form::Path | Form::Word(_) => text_value(key, text, origin)?,
        Form::Bytes => Value::Bytes(units::parse_bytes(text).map_err(|why| refuse(&why))?),
        Form::Seconds => Value::Time(units::parse_seconds(text).map_err(|why| refuse(&why))?),
        Form::Count(..) => {
            let number = text.trim().parse().map_err(|_| refuse(&format!("is not a {}", key.form.describe())))?;
            count_value(key, number, origin)?
        }
        Form::Switch => match text {
            "true" | "yes" | "on" | "1" => Value::Switch(true),
            "false" | "no" | "off" | "0" => Value::Switch(false),
            _ => return Err(refuse("is not true or false")),
        },
        Form::List => Value::List(text.split(';').filter(|part| !part.is_empty()).map(String::from).collect()),
    })
}

/// Checks a text for a key of the form text, secret, path or word.
pub fn text_value(key: &Key, text: &str, origin: &Origin) -> Result<Value> {
    if text.contains(['\0', '\n', '\r']) {
        return Err(origin.refuse(format!("the value of \"{}\" has a line break in it", key.name)));
    }
    // An empty password is one; an empty path or bucket is a slip.
    if text.is_empty() && !matches!(key.form, Form::Secret) && key.name != "prefix" {
        return Err(origin.refuse(format!("the value of \"{}\" is empty; give one or leave the key out", key.name)));
    }
    if let Form::Word(allowed) = key.form
        && !allowed.contains(&text)
    {
        return Err(wrong(key, text, &format!("is not known{}", words::hint(text, allowed)), origin));
    }
    Ok(Value::Text(text.to_owned()))
}

/// Checks a whole number against the bounds of its key.
pub fn count_value(key: &Key, number: u64, origin: &Origin) -> Result<Value> {
    match key.form {
        Form::Count(low, high) if !(low..=high).contains(&number) => {
            Err(wrong(key, &number.to_string(), &format!("is not a {}", key.form.describe()), origin))
        }
        _ => Ok(Value::Count(number)),
    }
}

/// The error for a value that cannot be used; a secret is not shown.
pub fn wrong(key: &Key, shown: &str, why: &str, origin: &Origin) -> Error {
    match key.form {
        Form::Secret => origin.refuse(format!("the value of \"{}\" {why}", key.name)),
        _ => origin.refuse(format!("{} = \"{}\" {why}", key.name, words::escape(shown))),
    }
}
