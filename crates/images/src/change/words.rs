//! Words of a Dockerfile line: quotes, backslashes and `$NAME`.

use super::ChangeError;

/// Splits at blanks that are neither quoted nor escaped, and leaves quotes and backslashes where they are.
pub(super) fn split_words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut current = String::new();
    let mut quote = None;
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match (c, quote) {
            (c, None) if c.is_whitespace() => {
                if !current.is_empty() {
                    words.push(std::mem::take(&mut current));
                }
                continue;
            }
            ('\'' | '"', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            _ => {}
        }
        current.push(c);
        if c == '\\' && quote != Some('\'') {
            current.extend(characters.next());
        }
    }
    if !current.is_empty() {
        words.push(current);
    }
    words
}

/// The variables that `$NAME` may mean.
#[derive(Debug)]
pub(super) struct Environment {
    variables: Vec<(String, String)>,
}

impl Environment {
    /// Reads `NAME=VALUE` entries.
    pub(super) fn of(entries: &[String]) -> Environment {
        let pair = |entry: &String| entry.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
        Environment { variables: entries.iter().filter_map(pair).collect() }
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.variables.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Removes quotes and escapes from `word` and replaces its variables.
    pub(super) fn expand(&self, word: &str) -> Result<String, ChangeError> {
        let mut expansion = Expansion { environment: self, rest: word.chars().collect(), at: 0 };
        expansion.until(None).map_err(|reason| ChangeError::Word { word: word.to_owned(), reason })
    }
}

/// One pass over one word.
struct Expansion<'a> {
    environment: &'a Environment,
    rest: Vec<char>,
    at: usize,
}

impl Expansion<'_> {
    fn next(&mut self) -> Option<char> {
        let c = self.rest.get(self.at).copied();
        self.at += usize::from(c.is_some());
        c
    }

    fn peek(&self) -> Option<char> {
        self.rest.get(self.at).copied()
    }

    /// Expands up to `end`, which is consumed, or to the end of the word.
    fn until(&mut self, end: Option<char>) -> Result<String, &'static str> {
        let mut text = String::new();
        while let Some(c) = self.next() {
            match c {
                c if Some(c) == end => return Ok(text),
                '\'' => self.single_quoted(&mut text)?,
                '"' => self.double_quoted(&mut text)?,
                '$' => self.variable(&mut text)?,
                '\\' => text.extend(self.next()),
                c => text.push(c),
            }
        }
        if end.is_some() { Err("missing '}'") } else { Ok(text) }
    }

    fn single_quoted(&mut self, text: &mut String) -> Result<(), &'static str> {
        loop {
            match self.next() {
                None => return Err("unexpected end of statement while looking for matching single-quote"),
                Some('\'') => return Ok(()),
                Some(c) => text.push(c),
            }
        }
    }

    fn double_quoted(&mut self, text: &mut String) -> Result<(), &'static str> {
        loop {
            match self.next() {
                None => return Err("unexpected end of statement while looking for matching double-quote"),
                Some('"') => return Ok(()),
                Some('$') => self.variable(text)?,
                Some('\\') => match self.next() {
                    Some(c @ ('"' | '$' | '\\')) => text.push(c),
                    Some(c) => text.extend(['\\', c]),
                    None => text.push('\\'),
                },
                Some(c) => text.push(c),
            }
        }
    }

    fn variable(&mut self, text: &mut String) -> Result<(), &'static str> {
        if self.peek() == Some('{') {
            self.at += 1;
            return self.braced_variable(text);
        }
        let name = self.name();
        if name.is_empty() {
            text.push('$');
        } else {
            text.push_str(self.environment.get(&name).unwrap_or_default());
        }
        Ok(())
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(c) = self.peek().filter(|c| c.is_ascii_alphanumeric() || *c == '_') {
            let is_positional = name.is_empty() && c.is_ascii_digit();
            name.push(c);
            self.at += 1;
            if is_positional {
                break;
            }
        }
        name
    }

    fn braced_variable(&mut self, text: &mut String) -> Result<(), &'static str> {
        let name = self.name();
        if name.is_empty() {
            return Err("syntax error: bad substitution");
        }
        let value = self.environment.get(&name).map(str::to_owned);
        match self.next() {
            Some('}') => text.push_str(&value.unwrap_or_default()),
            Some(':') => self.alternative(value.filter(|value| !value.is_empty()), text)?,
            Some('-' | '+' | '?') => {
                self.at -= 1;
                self.alternative(value, text)?;
            }
            None => return Err("missing '}'"),
            Some(_) => return Err("unsupported modifier in substitution"),
        }
        Ok(())
    }

    fn alternative(&mut self, value: Option<String>, text: &mut String) -> Result<(), &'static str> {
        let operator = self.next();
        let other = self.until(Some('}'))?;
        match (operator, value) {
            (Some('-'), value) => text.push_str(&value.unwrap_or(other)),
            (Some('+'), Some(_)) => text.push_str(&other),
            (Some('+'), None) => {}
            (Some('?'), Some(value)) => text.push_str(&value),
            (Some('?'), None) => return Err("a required variable is not set"),
            _ => return Err("unsupported modifier in substitution"),
        }
        Ok(())
    }
}
