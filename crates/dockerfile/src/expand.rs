//! Quotes, escapes and variables in one word or line: a little of what a shell does.

use std::collections::BTreeSet;

use crate::environment::Environment;
use crate::pattern::{Anchor, Greed, Pattern, PatternError};

/// What happens to quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quotes {
    /// They group, and disappear.
    Removed,
    /// They group, and stay.
    Kept,
    /// They are letters like others (contents of heredocs).
    Ordinary,
}

/// What happens to the escape character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Escapes {
    /// It disappears.
    Removed,
    /// It stays.
    Kept,
}

/// What an unset variable becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unset {
    /// Nothing.
    Empty,
    /// It stays as it was written.
    Kept,
}

/// How to expand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expander {
    /// `\` or a backtick.
    pub escape: char,
    /// What happens to quotes.
    pub quotes: Quotes,
    /// What happens to escapes.
    pub escapes: Escapes,
    /// What happens to unset variables.
    pub unset: Unset,
}

/// What came out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expanded {
    /// The whole.
    pub text: String,
    /// The same, split at blanks that were neither quoted nor escaped; after variables were replaced.
    pub words: Vec<String>,
    /// Variables that were set.
    pub used: BTreeSet<String>,
    /// Variables that were not.
    pub unset: BTreeSet<String>,
}

/// A word that cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("failed to process {word:?}: {fault}")]
pub struct ExpandError {
    /// The word.
    pub word: String,
    /// What is wrong with it.
    pub fault: ExpandFault,
}

/// What is wrong with a word.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpandFault {
    /// Something opened is not closed.
    #[error("unexpected end of statement while looking for matching {0}")]
    Unclosed(&'static str),
    /// `${x`.
    #[error("syntax error: missing '}}'")]
    MissingBrace,
    /// `${x/a`.
    #[error("syntax error: missing '/' in ${{}}")]
    MissingSlash,
    /// `${}`.
    #[error("syntax error: bad substitution")]
    BadSubstitution,
    /// `${x=y}`.
    #[error("unsupported modifier ({0}) in substitution")]
    Modifier(String),
    /// `${x?message}`.
    #[error("{name}: {message}")]
    Required {
        /// The variable.
        name: String,
        /// What the Dockerfile says about it.
        message: String,
    },
    /// `${x#\a}`.
    #[error("invalid pattern ({pattern}) in substitution: {error}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        error: PatternError,
    },
    /// `${a:-${b:-${c…`.
    #[error("substitutions are nested too deeply")]
    Depth,
}

/// A substitution in a substitution in … so many times is a mistake or an attack.
const DEPTH_MAX: usize = 64;

impl Expander {
    /// Removes quotes and escapes, and takes unset variables for empty ones: what most instructions want.
    pub fn new(escape: char) -> Expander {
        Expander { escape, quotes: Quotes::Removed, escapes: Escapes::Removed, unset: Unset::Empty }
    }

    /// Only variables, for the contents of heredocs.
    pub fn raw() -> Expander {
        Expander { escape: '\\', quotes: Quotes::Ordinary, escapes: Escapes::Removed, unset: Unset::Empty }
    }

    /// Expands `word`.
    pub fn expand(&self, word: &str, environment: &Environment) -> Result<Expanded, ExpandError> {
        let mut scan =
            Scan { options: *self, environment, rest: word.chars().peekable(), depth: 0, out: Expanded::default() };
        match scan.until(None, self.escapes) {
            Ok((text, words)) => Ok(Expanded { text, words, ..scan.out }),
            Err(fault) => Err(ExpandError { word: word.to_owned(), fault }),
        }
    }
}

/// Words as they grow.
#[derive(Debug, Default)]
struct Words {
    done: Vec<String>,
    current: String,
}

impl Words {
    fn add(&mut self, c: char) {
        if !c.is_whitespace() {
            self.current.push(c);
        } else if !self.current.is_empty() {
            self.done.push(std::mem::take(&mut self.current));
        }
    }

    fn finish(mut self) -> Vec<String> {
        if !self.current.is_empty() {
            self.done.push(self.current);
        }
        self.done
    }
}

struct Scan<'a> {
    options: Expander,
    environment: &'a Environment,
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    depth: usize,
    out: Expanded,
}

type Piece = Result<String, ExpandFault>;

impl Scan<'_> {
    /// Expands up to `stop`, which is consumed, or to the end.
    fn until(&mut self, stop: Option<char>, escapes: Escapes) -> Result<(String, Vec<String>), ExpandFault> {
        let outer = std::mem::replace(&mut self.options.escapes, escapes);
        let result = self.scan(stop);
        self.options.escapes = outer;
        result
    }

    fn scan(&mut self, stop: Option<char>) -> Result<(String, Vec<String>), ExpandFault> {
        let (mut text, mut words) = (String::new(), Words::default());
        while let Some(&c) = self.rest.peek() {
            if Some(c) == stop {
                self.rest.next();
                return Ok((text, words.finish()));
            }
            match c {
                '$' => {
                    let value = self.dollar()?;
                    value.chars().for_each(|c| words.add(c));
                    text.push_str(&value);
                }
                '<' => self.angle(&mut text, &mut words.current),
                '\'' | '"' if self.options.quotes != Quotes::Ordinary => {
                    let quoted = if c == '"' { self.double_quoted()? } else { self.single_quoted()? };
                    words.current.push_str(&quoted);
                    text.push_str(&quoted);
                }
                _ => self.plain(&mut text, &mut words),
            }
        }
        match stop {
            None => Ok((text, words.finish())),
            Some('/') => Err(ExpandFault::MissingSlash),
            Some(_) => Err(ExpandFault::MissingBrace),
        }
    }

    fn plain(&mut self, text: &mut String, words: &mut Words) {
        let Some(c) = self.rest.next() else { return };
        if c != self.options.escape {
            text.push(c);
            return words.add(c);
        }
        if self.options.escapes == Escapes::Kept {
            text.push(c);
            words.current.push(c);
        }
        // At the very end it escapes nothing and disappears.
        if let Some(escaped) = self.rest.next() {
            text.push(escaped);
            words.current.push(escaped);
        }
    }

    /// `<<` may be followed by blanks that belong to the word of the heredoc.
    fn angle(&mut self, text: &mut String, word: &mut String) {
        let mut piece = String::from(self.rest.next().unwrap_or('<'));
        if self.rest.peek() == Some(&'<') {
            piece.extend(self.rest.next());
            while let Some(blank) = self.rest.next_if(|c| matches!(c, '\t' | '\r' | ' ')) {
                piece.push(blank);
            }
        }
        text.push_str(&piece);
        word.push_str(&piece);
    }

    fn keep_quote(&mut self, text: &mut String) {
        let quote = self.rest.next();
        if self.options.quotes == Quotes::Kept {
            text.extend(quote);
        }
    }

    fn single_quoted(&mut self) -> Piece {
        let mut text = String::new();
        self.keep_quote(&mut text);
        loop {
            match self.rest.peek() {
                None => return Err(ExpandFault::Unclosed("single-quote")),
                Some('\'') => {
                    self.keep_quote(&mut text);
                    return Ok(text);
                }
                Some(_) => text.extend(self.rest.next()),
            }
        }
    }

    fn double_quoted(&mut self) -> Piece {
        let mut text = String::new();
        self.keep_quote(&mut text);
        loop {
            match self.rest.peek() {
                None => return Err(ExpandFault::Unclosed("double-quote")),
                Some('"') => {
                    self.keep_quote(&mut text);
                    return Ok(text);
                }
                Some('$') => text.push_str(&self.dollar()?),
                Some(&c) if c == self.options.escape => self.escaped_in_quotes(&mut text),
                Some(_) => text.extend(self.rest.next()),
            }
        }
    }

    /// Between double quotes only `"`, `$` and the escape character itself are escaped; before others it stays.
    fn escaped_in_quotes(&mut self, text: &mut String) {
        let escape = self.rest.next();
        if self.options.escapes == Escapes::Kept {
            text.extend(escape);
        }
        match self.rest.peek() {
            None => {}
            Some(&c) if c == '"' || c == '$' || c == self.options.escape => text.extend(self.rest.next()),
            Some(_) => text.extend(escape),
        }
    }

    fn dollar(&mut self) -> Piece {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(ExpandFault::Depth);
        }
        self.rest.next();
        let value = if self.rest.peek() == Some(&'{') { self.braced() } else { self.bare() };
        self.depth -= 1;
        value
    }

    fn bare(&mut self) -> Piece {
        let name = self.name();
        if name.is_empty() {
            return Ok("$".to_owned());
        }
        Ok(match self.get(&name) {
            Some(value) => value,
            None if self.options.unset == Unset::Kept => format!("${name}"),
            None => String::new(),
        })
    }

    fn braced(&mut self) -> Piece {
        self.rest.next();
        match self.rest.peek() {
            None => return Err(ExpandFault::MissingBrace),
            Some('{' | '}' | ':') => return Err(ExpandFault::BadSubstitution),
            Some(_) => {}
        }
        let name = self.name();
        match self.rest.next() {
            Some('}') => Ok(match self.get(&name) {
                Some(value) => value,
                None if self.options.unset == Unset::Kept => format!("${{{name}}}"),
                None => String::new(),
            }),
            Some(':') => {
                let modifier = self.rest.next().unwrap_or(char::REPLACEMENT_CHARACTER);
                self.modified(&name, ":", modifier)
            }
            Some('/') => self.replaced(&name),
            Some(modifier) => self.modified(&name, "", modifier),
            None => Err(ExpandFault::Modifier(char::REPLACEMENT_CHARACTER.to_string())),
        }
    }

    fn modified(&mut self, name: &str, colon: &str, modifier: char) -> Piece {
        let written = format!("{colon}{modifier}");
        let trims = matches!(modifier, '#' | '%');
        let known = if trims { colon.is_empty() } else { matches!(modifier, '-' | '+' | '?') };
        if !known {
            return Err(ExpandFault::Modifier(written));
        }
        let escapes = if trims { Escapes::Kept } else { Escapes::Removed };
        let word = self.until(Some('}'), escapes)?.0;
        let value = self.get(name);
        if value.is_none() && self.options.unset == Unset::Kept {
            return Ok(format!("${{{name}{written}{word}}}"));
        }
        let is_set = value.is_some();
        let present = value.clone().filter(|value| colon.is_empty() || !value.is_empty());
        match (modifier, present) {
            ('-', present) => Ok(present.unwrap_or(word)),
            ('+', present) => Ok(present.map(|_| word).unwrap_or_default()),
            ('?', Some(value)) => Ok(value),
            ('?', None) => Err(required(name, word, is_set)),
            _ => trimmed(&word, modifier, value.unwrap_or_default()),
        }
    }

    fn replaced(&mut self, name: &str) -> Piece {
        let all = self.rest.next_if_eq(&'/').is_some();
        let pattern = self.until(Some('/'), Escapes::Kept)?.0;
        let replacement = self.until(Some('}'), Escapes::Kept)?.0;
        let Some(value) = self.get(name) else {
            let kept = self.options.unset == Unset::Kept;
            return Ok(if kept { format!("${{{name}/{pattern}/{replacement}}}") } else { String::new() });
        };
        let parsed = parse_pattern(&pattern, Greed::Greedy)?;
        Ok(if all { parsed.replace_all(&value, &replacement) } else { parsed.replace_first(&value, &replacement) })
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        match self.rest.peek() {
            Some(c) if c.is_numeric() => {
                while let Some(c) = self.rest.next_if(|c| c.is_numeric()) {
                    name.push(c);
                }
                return name;
            }
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => {
                name.extend(self.rest.next());
                return name;
            }
            _ => {}
        }
        while let Some(c) = self.rest.next_if(|c| c.is_alphanumeric() || *c == '_') {
            name.push(c);
        }
        name
    }

    fn get(&mut self, name: &str) -> Option<String> {
        let value = self.environment.get(name).map(str::to_owned);
        let seen = if value.is_some() { &mut self.out.used } else { &mut self.out.unset };
        seen.insert(name.to_owned());
        value
    }
}

fn required(name: &str, word: String, is_set: bool) -> ExpandFault {
    let standard = if is_set { "is not allowed to be empty" } else { "is not allowed to be unset" };
    let message = if word.is_empty() { standard.to_owned() } else { word };
    ExpandFault::Required { name: name.to_owned(), message }
}

/// `#p` takes the shortest beginning away, `##p` the longest; `%` the same from the end.
fn trimmed(word: &str, modifier: char, value: String) -> Piece {
    let (greed, pattern) = match word.strip_prefix(modifier) {
        Some(pattern) => (Greed::Greedy, pattern),
        None => (Greed::Lazy, word),
    };
    let pattern = parse_pattern(pattern, greed)?;
    let anchor = if modifier == '#' { Anchor::Start } else { Anchor::End };
    Ok(pattern.trim(&value, anchor))
}

fn parse_pattern(pattern: &str, greed: Greed) -> Result<Pattern, ExpandFault> {
    Pattern::parse(pattern, greed).map_err(|error| ExpandFault::Pattern { pattern: pattern.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment() -> Environment {
        let mut environment = Environment::default();
        for (name, value) in
            [("A", "one"), ("EMPTY", ""), ("PATH", "/usr/local/bin:/usr/bin"), ("S", "a b"), ("É", "e")]
        {
            environment.set(name, value);
        }
        environment
    }

    fn check(word: &str, expected: &str) {
        let got = Expander::new('\\').expand(word, &environment());
        assert_eq!(got.map(|expanded| expanded.text).as_deref(), Ok(expected), "{word}");
    }

    #[test]
    fn variables_quotes_and_escapes() {
        check("$A-${A}", "one-one");
        check("$NOPE.$", ".$");
        check("'$A'\"$A\"\\$A", "$Aone$A");
        check(r#""a\"b\n\\c""#, r#"a"b\n\c"#);
        check("a\\ b\\", "a b");
        check("$É $1x $@", "e x ");
        check("<<EOF < x", "<<EOF < x");
    }

    #[test]
    fn every_modifier() {
        let cases = [
            ("${A:-x}", "one"),
            ("${EMPTY:-x}", "x"),
            ("${EMPTY-x}", ""),
            ("${NO-x}", "x"),
            ("${A:+x}", "x"),
            ("${EMPTY:+x}", ""),
            ("${EMPTY+x}", "x"),
            ("${NO+x}", ""),
            ("${A:?m}", "one"),
            ("${EMPTY?m}", ""),
            ("${PATH#*/}", "usr/local/bin:/usr/bin"),
            ("${PATH##*/}", "bin"),
            ("${PATH%/*}", "/usr/local/bin:/usr"),
            ("${PATH%%:*}", "/usr/local/bin"),
            ("${PATH/usr/opt}", "/opt/local/bin:/usr/bin"),
            ("${PATH//usr/opt}", "/opt/local/bin:/opt/bin"),
            ("${PATH//\\//-}", "-usr-local-bin:-usr-bin"),
            ("${A#o?e}", ""),
            ("${A/#/x}", "one"),
            ("${NO:-${A:-y}}", "one"),
            ("${NO:-'a}b'}", "a}b"),
        ];
        for (word, expected) in cases {
            check(word, expected);
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let cases = [
            ("'a", "unexpected end of statement while looking for matching single-quote"),
            ("\"a", "unexpected end of statement while looking for matching double-quote"),
            ("${A", "unsupported modifier (\u{fffd}) in substitution"),
            ("${", "syntax error: missing '}'"),
            ("${}", "syntax error: bad substitution"),
            ("${A:-x", "syntax error: missing '}'"),
            ("${A=x}", "unsupported modifier (=) in substitution"),
            ("${A:#x}", "unsupported modifier (:#) in substitution"),
            ("${NO?}", "NO: is not allowed to be unset"),
            ("${EMPTY:?}", "EMPTY: is not allowed to be empty"),
            ("${NO:?set it}", "NO: set it"),
            ("${A/x}", "syntax error: missing '/' in ${}"),
            ("${A#\\o}", "invalid pattern (\\o) in substitution: invalid escape '\\o'"),
        ];
        for (word, fault) in cases {
            let error = Expander::new('\\').expand(word, &environment()).unwrap_err();
            assert_eq!(error.fault.to_string(), fault, "{word}");
        }
        let nested = "${A:+".repeat(500) + &"}".repeat(500);
        let error = Expander::new('\\').expand(&nested, &environment()).unwrap_err();
        assert_eq!(error.fault, ExpandFault::Depth);
    }

    #[test]
    fn words_are_split_after_expansion() {
        let expanded = Expander::new('\\').expand("x $S 'c d' e\\ f", &environment()).unwrap();
        assert_eq!(expanded.words, ["x", "a", "b", "c d", "e f"]);
        assert_eq!(expanded.used.into_iter().collect::<Vec<_>>(), ["S"]);
    }

    #[test]
    fn a_backtick_may_escape() {
        assert_eq!(Expander::new('`').expand("C:\\x`$A", &environment()).unwrap().text, "C:\\x$A");
    }

    proptest::proptest! {
        #[test]
        fn no_word_makes_it_panic(word in "[$\\{\\}:\\-+?#%/'\"\\\\A-C*<> ]{0,40}") {
            let _ = Expander::new('\\').expand(&word, &environment());
        }

        #[test]
        fn plain_text_stays(word in "[a-z0-9./:_-]{0,40}") {
            proptest::prop_assert_eq!(Expander::new('\\').expand(&word, &environment()).unwrap().text, word);
        }
    }
}
