//! An instruction's name, its options, and the rest of its line.

use crate::lines::Escape;
use crate::words::parse_json;

/// A logical line in its three parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Statement {
    /// As written: `FROM`, `from`.
    pub(crate) keyword: String,
    /// `--name=value`, quotes removed.
    pub(crate) flags: Vec<String>,
    pub(crate) rest: String,
}

impl Statement {
    pub(crate) fn split(line: &str, escape: Escape) -> Statement {
        let line = line.trim();
        let (keyword, arguments) = line.split_once(is_blank).unwrap_or((line, ""));
        let arguments = arguments.trim_start_matches(is_blank);
        let (flags, rest) = split_flags(arguments, escape.char());
        Statement { keyword: keyword.to_owned(), flags, rest: rest.trim().to_owned() }
    }

    /// Only ADD, COPY and RUN, and these as triggers; not in JSON form.
    pub(crate) fn takes_heredocs(&self, escape: Escape) -> bool {
        match self.keyword.to_ascii_lowercase().as_str() {
            "add" | "copy" | "run" => !matches!(parse_json(&self.rest), Ok(Some(_))),
            "onbuild" => {
                let trigger = Statement::split(&self.rest, escape);
                !trigger.keyword.eq_ignore_ascii_case("onbuild") && trigger.takes_heredocs(escape)
            }
            _ => false,
        }
    }
}

/// What separates words; a newline cannot be there.
pub(crate) fn is_blank(c: char) -> bool {
    matches!(c, '\t' | '\u{b}' | '\u{c}' | '\r' | ' ')
}

/// The words at the beginning that start with `--`; `--` alone ends them.
fn split_flags(line: &str, escape: char) -> (Vec<String>, &str) {
    let mut flags = Vec::new();
    let mut rest = line;
    loop {
        rest = rest.trim_start();
        if !rest.starts_with("--") {
            return (flags, rest);
        }
        let (word, after) = flag_word(rest, escape);
        rest = after;
        if word == "--" {
            return (flags, rest);
        }
        flags.push(word);
    }
}

/// One word without its quotes and escapes, and what follows it.
fn flag_word(text: &str, escape: char) -> (String, &str) {
    let mut word = String::new();
    let mut quote = None;
    let mut letters = text.char_indices();
    while let Some((at, c)) = letters.next() {
        match quote {
            None if c.is_whitespace() => return (word, &text[at..]),
            None if matches!(c, '\'' | '"') => quote = Some(c),
            Some(open) if c == open => quote = None,
            _ if c == escape => word.extend(letters.next().map(|(_, c)| c)),
            _ => word.push(c),
        }
    }
    (word, "")
}
