//! The words of a command line, in Go's forms: `--name value`, `--name=value`, `-name`, and switches with an optional value.

use std::collections::VecDeque;
use std::ffi::OsString;

/// The command line makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct UsageError(String);

impl UsageError {
    pub(crate) fn new(message: impl Into<String>) -> UsageError {
        UsageError(message.into())
    }
}

/// What is left of a command line.
#[derive(Debug)]
pub(crate) struct Arguments {
    words: VecDeque<OsString>,
    /// The option that was returned last, and the value that came with it after `=`.
    option: String,
    attached: Option<String>,
    only_positional: bool,
}

impl Arguments {
    pub(crate) fn new(words: Vec<OsString>) -> Arguments {
        Arguments { words: words.into(), option: String::new(), attached: None, only_positional: false }
    }

    /// The next option (as `--name` or `-n`) or argument.
    ///
    /// Options may come before and after arguments. `-name` is `--name`, as Go's flag package has it, for engines rely on that.
    pub(crate) fn next(&mut self) -> Result<Option<String>, UsageError> {
        if let Some(value) = self.attached.take() {
            return Err(UsageError::new(format!("option {} takes no value, but has {value:?}", self.option)));
        }
        let Some(word) = self.words.pop_front() else { return Ok(None) };
        let word = text(word)?;
        if self.only_positional || word == "-" || !word.starts_with('-') {
            return Ok(Some(word));
        }
        if word == "--" {
            self.only_positional = true;
            return self.next();
        }
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (word.as_str(), None),
        };
        let bare = name.trim_start_matches('-');
        self.option = if bare.chars().count() == 1 { format!("-{bare}") } else { format!("--{bare}") };
        self.attached = value;
        Ok(Some(self.option.clone()))
    }

    /// The value of the option returned last.
    pub(crate) fn value(&mut self) -> Result<String, UsageError> {
        if let Some(value) = self.attached.take() {
            return Ok(value);
        }
        match self.words.pop_front() {
            Some(word) => text(word),
            None => Err(UsageError::new(format!("option {} needs a value", self.option))),
        }
    }

    /// The number that is the value of the option returned last.
    pub(crate) fn number<T: std::str::FromStr>(&mut self) -> Result<T, UsageError> {
        let option = self.option.clone();
        let value = self.value()?;
        value
            .parse()
            .map_err(|_| UsageError::new(format!("invalid value {value:?} for option {option}: not a number in range")))
    }

    /// Whether the switch returned last is on: `--name`, `--name=true`, `--name=false`.
    pub(crate) fn switch(&mut self) -> Result<bool, UsageError> {
        match self.attached.take().as_deref() {
            None | Some("true" | "1" | "t" | "T" | "TRUE" | "True") => Ok(true),
            Some("false" | "0" | "f" | "F" | "FALSE" | "False") => Ok(false),
            Some(other) => Err(UsageError::new(format!("invalid value {other:?} for switch {}", self.option))),
        }
    }

    /// All words that are left, as they are: another program's command line.
    pub(crate) fn rest(&mut self) -> Result<Vec<String>, UsageError> {
        let mut rest: Vec<String> = self.words.drain(..).map(text).collect::<Result<_, _>>()?;
        if !self.only_positional && rest.first().is_some_and(|word| word == "--") {
            rest.remove(0);
        }
        Ok(rest)
    }

    /// The error for an option that the command does not have.
    pub(crate) fn unknown(&self, option: &str) -> UsageError {
        UsageError::new(format!("flag provided but not defined: {option}"))
    }
}

fn text(word: OsString) -> Result<String, UsageError> {
    word.into_string().map_err(|word| UsageError::new(format!("argument {} is not UTF-8", word.display())))
}

/// Collects the one argument of a command.
pub(crate) fn only_id(found: &mut Option<String>, argument: &str) -> Result<(), UsageError> {
    match found.replace(argument.to_owned()) {
        None => Ok(()),
        Some(_) => Err(UsageError::new(format!("unexpected argument {argument:?}: one container id is expected"))),
    }
}

/// The id that must have been among the arguments.
pub(crate) fn required_id(found: Option<String>) -> Result<String, UsageError> {
    found.ok_or_else(|| UsageError::new("a container id is required"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(words: &[&str]) -> Arguments {
        Arguments::new(words.iter().map(OsString::from).collect())
    }

    #[test]
    fn options_come_in_gos_forms() {
        for words in [["--bundle", "/b"].as_slice(), &["--bundle=/b"], &["-bundle", "/b"], &["-bundle=/b"]] {
            let mut arguments = arguments(words);
            assert_eq!(arguments.next().unwrap().as_deref(), Some("--bundle"), "{words:?}");
            assert_eq!(arguments.value().unwrap(), "/b");
            assert_eq!(arguments.next().unwrap(), None);
        }
    }

    #[test]
    fn switches_may_have_a_value() {
        let mut arguments = arguments(&["--detach", "--keep=false", "-d=maybe"]);
        for expected in [Ok(true), Ok(false)] {
            arguments.next().unwrap();
            assert_eq!(arguments.switch(), expected);
        }
        arguments.next().unwrap();
        assert!(arguments.switch().is_err());
    }

    #[test]
    fn a_value_that_nobody_takes_is_an_error() {
        let mut arguments = arguments(&["--help=x", "id"]);
        arguments.next().unwrap();
        assert!(arguments.next().is_err());
    }

    #[test]
    fn the_rest_is_left_alone() {
        let mut arguments = arguments(&["id", "--", "ls", "-l", "--", "x"]);
        arguments.next().unwrap();
        assert_eq!(arguments.rest().unwrap(), ["ls", "-l", "--", "x"]);
    }
}
