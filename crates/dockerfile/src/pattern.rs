//! Patterns in `${name#pattern}` and its like: `*`, `?`, and `\` before one of them.

/// How much a `*` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Greed {
    /// As much as it can.
    Greedy,
    /// As little as it can.
    Lazy,
}

/// Where a pattern must match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Anchor {
    Start,
    End,
}

/// A pattern that escapes what needs none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid escape '\\{0}'")]
pub struct PatternError(String);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Letter(char),
    One,
    Any,
}

/// A parsed pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern {
    tokens: Vec<Token>,
    greed: Greed,
}

impl Pattern {
    pub(crate) fn parse(text: &str, greed: Greed) -> Result<Pattern, PatternError> {
        let mut tokens = Vec::new();
        let mut rest = text.chars();
        while let Some(c) = rest.next() {
            tokens.push(match c {
                '*' => Token::Any,
                '?' => Token::One,
                '\\' => match rest.next() {
                    // `}` and `/` are escaped for the substitution around the pattern.
                    Some(c @ ('}' | '/' | '*' | '?' | '\\')) => Token::Letter(c),
                    other => return Err(PatternError(other.map(String::from).unwrap_or_default())),
                },
                c => Token::Letter(c),
            });
        }
        Ok(Pattern { tokens, greed })
    }

    /// Takes away what matches at one end.
    pub(crate) fn trim(&self, value: &str, anchor: Anchor) -> String {
        let mut letters: Vec<char> = value.chars().collect();
        match anchor {
            Anchor::Start => match Matches::new(&self.tokens, &letters).end(0, self.greed) {
                Some(end) => letters[end..].iter().collect(),
                None => value.to_owned(),
            },
            // The shortest end is the shortest beginning of the mirror image.
            Anchor::End => {
                letters.reverse();
                let tokens: Vec<Token> = self.tokens.iter().rev().copied().collect();
                match Matches::new(&tokens, &letters).end(0, self.greed) {
                    Some(end) => letters[end..].iter().rev().collect(),
                    None => value.to_owned(),
                }
            }
        }
    }

    pub(crate) fn replace_first(&self, value: &str, replacement: &str) -> String {
        let letters: Vec<char> = value.chars().collect();
        match Matches::new(&self.tokens, &letters).first_from(0, self.greed) {
            None => value.to_owned(),
            Some((start, end)) => {
                let before: String = letters[..start].iter().collect();
                before + replacement + &letters[end..].iter().collect::<String>()
            }
        }
    }

    /// An empty match right behind the one before it does not count, as in Go's regular expressions.
    pub(crate) fn replace_all(&self, value: &str, replacement: &str) -> String {
        let letters: Vec<char> = value.chars().collect();
        let matches = Matches::new(&self.tokens, &letters);
        let (mut text, mut copied, mut from) = (String::new(), 0, 0);
        while let Some((start, end)) = matches.first_from(from, self.greed) {
            text.extend(&letters[copied..start]);
            if end > copied || start == 0 {
                text.push_str(replacement);
            }
            copied = end;
            from = if end > from { end } else { from + 1 };
        }
        text.extend(&letters[copied..]);
        text
    }
}

/// For each token and each place in the text, whether the tokens from there match something that begins there: patterns are tried
/// in the time of the product of both lengths, whatever they are.
struct Matches<'a> {
    tokens: &'a [Token],
    letters: &'a [char],
    table: Vec<bool>,
}

impl<'a> Matches<'a> {
    fn new(tokens: &'a [Token], letters: &'a [char]) -> Self {
        let width = letters.len() + 1;
        let mut table = vec![true; width * (tokens.len() + 1)];
        for token in (0..tokens.len()).rev() {
            for place in (0..width).rev() {
                let next = |row: usize, place: usize| row == tokens.len() || table[row * width + place];
                let letter = letters.get(place);
                let matches = match tokens[token] {
                    Token::Letter(c) => letter == Some(&c) && next(token + 1, place + 1),
                    Token::One => letter.is_some_and(|c| *c != '\n') && next(token + 1, place + 1),
                    Token::Any => {
                        next(token + 1, place)
                            || (letter.is_some_and(|c| *c != '\n') && table[token * width + place + 1])
                    }
                };
                table[token * width + place] = matches;
            }
        }
        Matches { tokens, letters, table }
    }

    fn can(&self, token: usize, place: usize) -> bool {
        self.table[token * (self.letters.len() + 1) + place]
    }

    /// Where the match that begins at `start` ends.
    fn end(&self, start: usize, greed: Greed) -> Option<usize> {
        if !self.can(0, start) {
            return None;
        }
        let mut place = start;
        for token in 0..self.tokens.len() {
            if self.tokens[token] != Token::Any {
                place += 1;
                continue;
            }
            let rest = &self.letters[place..];
            let longest = place + rest.iter().position(|c| *c == '\n').unwrap_or(rest.len());
            let mut places = place..=longest;
            let chosen = match greed {
                Greed::Greedy => places.rfind(|place| self.can(token + 1, *place)),
                Greed::Lazy => places.find(|place| self.can(token + 1, *place)),
            };
            place = chosen?;
        }
        Some(place)
    }

    fn first_from(&self, from: usize, greed: Greed) -> Option<(usize, usize)> {
        (from..=self.letters.len()).find_map(|start| Some((start, self.end(start, greed)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(pattern: &str, value: &str) -> String {
        Pattern::parse(pattern, Greed::Greedy).unwrap().replace_all(value, "x")
    }

    #[test]
    fn replaces_as_go_does() {
        assert_eq!(all("a", "banana"), "bxnxnx");
        assert_eq!(all("*", "abc"), "x");
        assert_eq!(all("", "ab"), "xaxbx");
        assert_eq!(all("?n", "banana"), "bxxa");
        assert_eq!(all("\\*", "a*b"), "axb");
    }

    #[test]
    fn trims_the_shortest_and_the_longest() {
        let trim = |pattern: &str, greed, anchor| Pattern::parse(pattern, greed).unwrap().trim("a.b.c", anchor);
        assert_eq!(trim("*.", Greed::Lazy, Anchor::Start), "b.c");
        assert_eq!(trim("*.", Greed::Greedy, Anchor::Start), "c");
        assert_eq!(trim(".*", Greed::Lazy, Anchor::End), "a.b");
        assert_eq!(trim(".*", Greed::Greedy, Anchor::End), "a");
        assert_eq!(trim("x*", Greed::Greedy, Anchor::Start), "a.b.c");
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        let value = "a".repeat(2000);
        assert_eq!(all(&"*a".repeat(60), &(value.clone() + "b")), "xb");
        assert_eq!(all(&("*a".repeat(60) + "b"), &value), value);
    }
}
