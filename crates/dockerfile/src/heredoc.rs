//! `<<NAME`: contents inside the Dockerfile.

use crate::environment::Environment;
use crate::expand::{Escapes, ExpandError, Expander, Quotes, Unset};

/// One heredoc.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// The word that ends it, without quotes.
    pub name: String,
    /// Whether variables in it are replaced: not when the word was quoted.
    pub expand: bool,
    /// `<<-`: leading tabs are dropped.
    pub chomp: bool,
    /// What is in it, as written.
    pub content: String,
}

/// The heredocs that a line announces, still empty.
pub(crate) fn heredocs_of(line: &str) -> Result<Vec<Heredoc>, ExpandError> {
    let splitter = Expander { escape: '\\', quotes: Quotes::Kept, escapes: Escapes::Kept, unset: Unset::Kept };
    let words = splitter.expand(line, &Environment::default()).map(|expanded| expanded.words).unwrap_or_default();
    let mut heredocs = Vec::new();
    for word in words {
        heredocs.extend(parse_heredoc(&word)?);
    }
    Ok(heredocs)
}

/// `[digits]<<[-]word`, and nothing else.
pub(crate) fn parse_heredoc(word: &str) -> Result<Option<Heredoc>, ExpandError> {
    let after_digits = word.trim_start_matches(|c: char| c.is_ascii_digit());
    let Some(rest) = after_digits.strip_prefix("<<") else { return Ok(None) };
    let (chomp, rest) = match rest.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let rest = rest.trim_start();
    if rest.is_empty() || rest.contains('<') {
        return Ok(None);
    }
    let plain = Expander { escape: '\\', quotes: Quotes::Removed, escapes: Escapes::Removed, unset: Unset::Kept };
    let quoted = Expander { quotes: Quotes::Kept, ..plain };
    let (words, raw) =
        (plain.expand(rest, &Environment::default())?.words, quoted.expand(rest, &Environment::default())?.words);
    match (words.as_slice(), raw.as_slice()) {
        ([name], [raw]) => Ok(Some(Heredoc {
            name: name.clone(),
            expand: quote_count(name) == quote_count(raw),
            chomp,
            content: String::new(),
        })),
        _ => Ok(None),
    }
}

fn quote_count(word: &str) -> usize {
    word.chars().filter(|c| matches!(c, '\'' | '"')).count()
}

pub(crate) fn without_leading_tabs(text: &str) -> String {
    text.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
}
