//! `*`, `?`, `[a-z]` and `**` in paths: sources of COPY, and `.dockerignore`.

/// A pattern with an unclosed class or a lone backslash at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("syntax error in pattern")]
pub struct BadPattern;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Letter(char),
    /// Any one but `/`.
    One,
    /// Any run without `/`.
    Run,
    /// Nothing, or anything that ends with `/`.
    Directories,
    /// Anything.
    Rest,
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

/// A pattern for a path without leading slash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wildcard {
    tokens: Vec<Token>,
    /// The path itself, when nothing in the pattern is special.
    literal: Option<String>,
}

impl Wildcard {
    /// Go's `path.Match`: `*`, `?`, classes, `\` before a letter.
    pub fn path(pattern: &str) -> Result<Wildcard, BadPattern> {
        Wildcard::parse(pattern, false)
    }

    /// The same with `**` for any number of directories.
    pub fn deep(pattern: &str) -> Result<Wildcard, BadPattern> {
        Wildcard::parse(pattern, true)
    }

    /// Whether a source of COPY is a pattern at all.
    pub fn is_pattern(text: &str) -> bool {
        let mut letters = text.chars();
        while let Some(c) = letters.next() {
            match c {
                '*' | '?' | '[' => return true,
                '\\' => {
                    letters.next();
                }
                _ => {}
            }
        }
        false
    }

    fn parse(pattern: &str, deep: bool) -> Result<Wildcard, BadPattern> {
        let letters: Vec<char> = pattern.chars().collect();
        let mut tokens = Vec::new();
        let mut rest = letters.as_slice();
        while let Some((&c, after)) = rest.split_first() {
            rest = after;
            match c {
                '*' if deep && rest.first() == Some(&'*') => {
                    rest = rest[1..].strip_prefix(&['/']).unwrap_or(&rest[1..]);
                    tokens.push(if rest.is_empty() { Token::Rest } else { Token::Directories });
                }
                '*' => tokens.push(Token::Run),
                '?' => tokens.push(Token::One),
                '[' => {
                    let class;
                    (class, rest) = parse_class(rest)?;
                    tokens.push(class);
                }
                '\\' => {
                    tokens.push(Token::Letter(*rest.first().ok_or(BadPattern)?));
                    rest = &rest[1..];
                }
                c => tokens.push(Token::Letter(c)),
            }
        }
        // As Docker has it: `**x` alone means every name that ends so, `**x*` means whole names.
        let plain_end = tokens.iter().skip(1).all(|token| matches!(token, Token::Letter(_)));
        if tokens.first() == Some(&Token::Directories)
            && !pattern.starts_with("**/")
            && plain_end
            && !pattern.contains('\\')
        {
            tokens[0] = Token::Rest;
        }
        let literal = tokens.iter().map(|token| match token {
            Token::Letter(c) => Some(*c),
            _ => None,
        });
        Ok(Wildcard { literal: literal.collect(), tokens })
    }

    /// Whether the whole path matches.
    pub fn matches(&self, path: &str) -> bool {
        if let Some(literal) = &self.literal {
            return literal == path;
        }
        let letters: Vec<char> = path.chars().collect();
        // One row of truth per token, from the last: which ends of the path the tokens from there match.
        let mut row: Vec<bool> = vec![false; letters.len() + 1];
        row[letters.len()] = true;
        for token in self.tokens.iter().rev() {
            row = token.row(&letters, &row);
        }
        row[0]
    }

    /// The directories in which all matches are: the part before anything special.
    pub fn fixed_directory(&self) -> String {
        let fixed: String = self
            .tokens
            .iter()
            .map_while(|token| match token {
                Token::Letter(c) => Some(*c),
                _ => None,
            })
            .collect();
        fixed.rsplit_once('/').map(|(directory, _)| directory.to_owned()).unwrap_or_default()
    }
}

impl Token {
    fn row(&self, letters: &[char], next: &[bool]) -> Vec<bool> {
        let mut row = vec![false; next.len()];
        for place in (0..next.len()).rev() {
            let letter = letters.get(place).copied();
            row[place] = match self {
                Token::Letter(c) => letter == Some(*c) && next[place + 1],
                Token::One => letter.is_some_and(|c| c != '/') && next[place + 1],
                Token::Class { negated, ranges } => letter.is_some_and(|c| {
                    ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated && next[place + 1]
                }),
                Token::Run => next[place] || (letter.is_some_and(|c| c != '/') && row[place + 1]),
                Token::Rest => next[place] || (letter.is_some() && row[place + 1]),
                Token::Directories => next[place] || directories_end(letters, next, place),
            };
        }
        row
    }
}

/// Whether the tokens behind match right behind some later `/`.
fn directories_end(letters: &[char], next: &[bool], place: usize) -> bool {
    (place..letters.len()).any(|at| letters[at] == '/' && next[at + 1])
}

fn parse_class(rest: &[char]) -> Result<(Token, &[char]), BadPattern> {
    let (negated, mut rest) = match rest.split_first() {
        Some((&'^', after)) => (true, after),
        _ => (false, rest),
    };
    let mut ranges = Vec::new();
    while ranges.is_empty() || rest.first() != Some(&']') {
        let (low, after) = class_letter(rest)?;
        let (high, after) = match after.first() {
            Some('-') => class_letter(&after[1..])?,
            _ => (low, after),
        };
        ranges.push((low, high));
        rest = after;
    }
    Ok((Token::Class { negated, ranges }, &rest[1..]))
}

fn class_letter(rest: &[char]) -> Result<(char, &[char]), BadPattern> {
    match rest.first() {
        None | Some('-' | ']') => Err(BadPattern),
        Some('\\') => rest.get(1).map(|&c| (c, &rest[2..])).ok_or(BadPattern),
        Some(&c) => Ok((c, &rest[1..])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deep_patterns_match_as_docker_has_it() {
        let cases = [
            ("**", "a/b", true),
            ("**/foo", "foo", true),
            ("**/foo", "a/b/foo", true),
            ("**/foo", "a/xfoo", false),
            ("**foo", "a/xfoo", true),
            ("**fo?", "a/xfoo", false),
            ("a/**", "a/b/c", true),
            ("a/**", "a", false),
            ("a/**/b", "a/b", true),
            ("a/**/b", "a/x/y/b", true),
            ("a/**/b", "a/xb", false),
            ("a**", "ab/c", true),
            ("*.go", "a.go", true),
            ("*.go", "x/a.go", false),
            ("**/*.go", "x/y/a.go", true),
            ("a?c", "a/c", false),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("a\\*b", "a*b", true),
            ("a\\*b", "axb", false),
            ("a.b", "axb", false),
        ];
        for (pattern, path, expected) in cases {
            assert_eq!(Wildcard::deep(pattern).unwrap().matches(path), expected, "{pattern} {path}");
        }
        for pattern in ["[", "[a", "[]a]", "a\\", "[-]"] {
            assert_eq!(Wildcard::deep(pattern), Err(BadPattern), "{pattern}");
        }
    }

    #[test]
    fn plain_patterns_have_no_double_star() {
        assert!(!Wildcard::path("**/b").unwrap().matches("a/x/b"));
        assert!(Wildcard::path("**/b").unwrap().matches("a/b"));
        assert!(Wildcard::is_pattern("a*") && !Wildcard::is_pattern("a\\*"));
        assert_eq!(Wildcard::path("a/b/c*").unwrap().fixed_directory(), "a/b");
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        let path = "a".repeat(2000);
        assert!(!Wildcard::deep(&("**/".repeat(40) + &"*a".repeat(40) + "b")).unwrap().matches(&path));
    }

    proptest::proptest! {
        #[test]
        fn no_pattern_makes_it_panic(pattern in "[a-c/*?\\[\\]^\\\\-]{0,20}", path in "[a-c/]{0,20}") {
            let _ = Wildcard::deep(&pattern).map(|pattern| pattern.matches(&path));
        }

        #[test]
        fn a_path_matches_itself(path in "[a-z./_-]{1,30}") {
            proptest::prop_assert!(Wildcard::deep(&path).unwrap().matches(&path));
        }
    }
}
