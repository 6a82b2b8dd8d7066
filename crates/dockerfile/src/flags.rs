//! `--name=value` before an instruction's arguments.

use crate::error::SyntaxError;
use crate::suggest::hint;

/// What an option's value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `--name`, `--name=true`, `--name=false`.
    Boolean,
    /// `--name=value`, once.
    Text,
    /// `--name=value`, as often as one likes.
    List,
}

/// The options that were given.
#[derive(Debug, Default)]
pub(crate) struct Flags {
    given: Vec<(&'static str, String)>,
}

impl Flags {
    /// Checks `words` against what the instruction knows.
    pub(crate) fn parse(words: &[String], known: &[(&'static str, Kind)]) -> Result<Flags, SyntaxError> {
        let mut flags = Flags::default();
        for word in words {
            let Some(flag) = word.strip_prefix("--") else { return Err(SyntaxError::NotAFlag(word.clone())) };
            let (name, value) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (flag, None),
            };
            let Some(&(name, kind)) = known.iter().find(|(known, _)| *known == name) else {
                let hint = hint(name, known.iter().map(|(name, _)| *name));
                return Err(SyntaxError::UnknownFlag { name: name.to_owned(), hint });
            };
            if kind != Kind::List && flags.text(name).is_some() {
                return Err(SyntaxError::RepeatedFlag(name.to_owned()));
            }
            flags.given.push((name, checked_value(name, kind, value)?));
        }
        Ok(flags)
    }

    pub(crate) fn text(&self, name: &str) -> Option<String> {
        self.list(name).into_iter().next()
    }

    pub(crate) fn list(&self, name: &str) -> Vec<String> {
        self.given.iter().filter(|(given, _)| *given == name).map(|(_, value)| value.clone()).collect()
    }

    pub(crate) fn boolean(&self, name: &str) -> Option<bool> {
        self.text(name).map(|value| value == "true")
    }

    /// The names, in the order in which they were given.
    pub(crate) fn names(&self) -> Vec<&'static str> {
        self.given.iter().map(|(name, _)| *name).collect()
    }
}

fn checked_value(name: &str, kind: Kind, value: Option<&str>) -> Result<String, SyntaxError> {
    let missing = || SyntaxError::FlagWithoutValue(name.to_owned());
    if kind != Kind::Boolean {
        return value.map(str::to_owned).ok_or_else(missing);
    }
    match value.map(str::to_ascii_lowercase).as_deref() {
        Some("") => Err(missing()),
        None | Some("true") => Ok("true".to_owned()),
        Some("false") => Ok("false".to_owned()),
        Some(_) => Err(SyntaxError::NotBoolean { name: name.to_owned(), value: value.unwrap_or_default().to_owned() }),
    }
}
