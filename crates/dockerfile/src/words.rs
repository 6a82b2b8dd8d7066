//! How the rest of an instruction's line becomes words: JSON lists, blanks, quotes.

use crate::error::SyntaxError;
use crate::statement::is_blank;

/// A list of strings in JSON; `None` when the text is not JSON at all, an error when the list holds something else.
pub(crate) fn parse_json(text: &str) -> Result<Option<Vec<String>>, SyntaxError> {
    if !text.trim_start().starts_with('[') {
        return Ok(None);
    }
    let Ok(list) = serde_json::from_str::<Vec<serde_json::Value>>(text) else { return Ok(None) };
    let string = |value| match value {
        serde_json::Value::String(text) => Ok(text),
        _ => Err(SyntaxError::NotStrings),
    };
    list.into_iter().map(string).collect::<Result<_, _>>().map(Some)
}

/// Words between blanks.
pub(crate) fn split_blanks(text: &str) -> Vec<String> {
    text.split(is_blank).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// A JSON list, or words between blanks.
pub(crate) fn parse_list(text: &str) -> Result<Vec<String>, SyntaxError> {
    Ok(parse_json(text)?.unwrap_or_else(|| split_blanks(text)))
}

/// Splits at blanks that are neither quoted nor escaped; quotes and escapes stay where they are.
pub(crate) fn split_quoted(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let (mut word, mut quote, mut quoted) = (String::new(), None, false);
    let mut letters = text.chars();
    while let Some(c) = letters.next() {
        match quote {
            None if c.is_whitespace() => {
                if quoted || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                quoted = false;
                continue;
            }
            None if matches!(c, '\'' | '"') => (quote, quoted) = (Some(c), true),
            Some(open) if c == open => quote = None,
            _ => {}
        }
        if c == escape && quote != Some('\'') {
            // At the end of the line it escapes nothing.
            if let Some(escaped) = letters.next() {
                word.extend([c, escaped]);
            }
            continue;
        }
        word.push(c);
    }
    if quoted || !word.is_empty() {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_hold_words_together() {
        assert_eq!(split_quoted(r#"a='b c' d="e \" f" g\ h i\"#, '\\'), ["a='b c'", r#"d="e \" f""#, "g\\ h", "i"]);
        assert_eq!(split_quoted("'' x", '\\'), ["''", "x"]);
    }

    #[test]
    fn json_or_not() {
        assert_eq!(parse_json(r#" ["a", "b"]"#).unwrap().unwrap(), ["a", "b"]);
        assert_eq!(parse_json(r#"["a", 1]"#), Err(SyntaxError::NotStrings));
        assert_eq!(parse_json(r#"["a",]"#), Ok(None));
        assert_eq!(parse_json(r#"["a"] x"#), Ok(None));
        assert_eq!(parse_json("[a]"), Ok(None));
    }
}
