//! Go's `path.Match`, because the `reference` filter is defined by it.

/// A pattern with an unclosed class or a lone backslash at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("syntax error in pattern")]
pub(crate) struct BadPattern;

/// Says whether the whole of `name` matches `pattern`.
///
/// `*` matches any run without `/`, `?` any one character but `/`, `[a-z]` and `[^a-z]` a class, `\c` the character itself.
pub(crate) fn path_match(pattern: &str, name: &str) -> Result<bool, BadPattern> {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    check_syntax(&pattern)?;
    Ok(matches_from(&pattern, &name))
}

fn check_syntax(mut pattern: &[char]) -> Result<(), BadPattern> {
    while !pattern.is_empty() {
        pattern = match pattern[0] {
            '[' => parse_class(pattern, '\0')?.1,
            '\\' => pattern.get(2..).ok_or(BadPattern)?,
            _ => &pattern[1..],
        };
    }
    Ok(())
}

/// Matches greedily with one point of return, so that the time is the product of the two lengths at worst.
fn matches_from(pattern: &[char], name: &[char]) -> bool {
    let (mut rest, mut text) = (pattern, name);
    let mut star: Option<(&[char], &[char])> = None;
    loop {
        if rest.first() == Some(&'*') {
            rest = &rest[1..];
            star = Some((rest, text));
            continue;
        }
        match step(rest, text) {
            Step::Done => return true,
            Step::Advance(next) => (rest, text) = (next, &text[1..]),
            Step::Stuck => match star {
                Some((after, from)) if from.first().is_some_and(|&c| c != '/') => {
                    star = Some((after, &from[1..]));
                    (rest, text) = (after, &from[1..]);
                }
                _ => return false,
            },
        }
    }
}

enum Step<'a> {
    Done,
    Advance(&'a [char]),
    Stuck,
}

fn step<'a>(pattern: &'a [char], text: &[char]) -> Step<'a> {
    let (Some(&expected), Some(&actual)) = (pattern.first(), text.first()) else {
        return if pattern.is_empty() && text.is_empty() { Step::Done } else { Step::Stuck };
    };
    let (matched, rest) = match expected {
        '?' => (actual != '/', &pattern[1..]),
        '[' => parse_class(pattern, actual).expect("the syntax was checked"),
        '\\' => (pattern[1] == actual, &pattern[2..]),
        literal => (literal == actual, &pattern[1..]),
    };
    if matched { Step::Advance(rest) } else { Step::Stuck }
}

/// Reads one class, says whether `c` is in it, and gives what follows it.
fn parse_class(pattern: &[char], c: char) -> Result<(bool, &[char]), BadPattern> {
    let mut rest = &pattern[1..];
    let negated = rest.first() == Some(&'^');
    if negated {
        rest = &rest[1..];
    }
    let mut matched = false;
    let mut ranges = 0;
    while !(ranges > 0 && rest.first() == Some(&']')) {
        let (low, after) = class_character(rest)?;
        let (high, after) = match after.first() {
            Some('-') => class_character(&after[1..])?,
            _ => (low, after),
        };
        matched |= (low..=high).contains(&c);
        rest = after;
        ranges += 1;
    }
    Ok((matched != negated, &rest[1..]))
}

fn class_character(rest: &[char]) -> Result<(char, &[char]), BadPattern> {
    match rest.first() {
        None | Some('-' | ']') => Err(BadPattern),
        Some('\\') => rest.get(1).map(|&c| (c, &rest[2..])).ok_or(BadPattern),
        Some(&c) => Ok((c, &rest[1..])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of Go's own `path/match_test.go`, in our words.
    #[test]
    fn matches_as_go_does() {
        let cases: &[(&str, &str, Result<bool, BadPattern>)] = &[
            ("abc", "abc", Ok(true)),
            ("*", "abc", Ok(true)),
            ("*c", "abc", Ok(true)),
            ("a*", "a", Ok(true)),
            ("a*", "ab/c", Ok(false)),
            ("a*/b", "abc/b", Ok(true)),
            ("a*/b", "a/c/b", Ok(false)),
            ("a*b*c*d*e*/f", "axbxcxdxe/f", Ok(true)),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/f", Ok(true)),
            ("a*b*c*d*e*/f", "axbxcxdxe/xxx/f", Ok(false)),
            ("a*b?c*x", "abxbbxdbxebxczzx", Ok(true)),
            ("a*b?c*x", "abxbbxdbxebxczzy", Ok(false)),
            ("ab[c]", "abc", Ok(true)),
            ("ab[b-d]", "abc", Ok(true)),
            ("ab[e-g]", "abc", Ok(false)),
            ("ab[^c]", "abc", Ok(false)),
            ("ab[^e-g]", "abc", Ok(true)),
            ("a\\*b", "a*b", Ok(true)),
            ("a\\*b", "ab", Ok(false)),
            ("a?b", "a/b", Ok(false)),
            ("[\\]a]", "]", Ok(true)),
            ("[", "a", Err(BadPattern)),
            ("[^", "a", Err(BadPattern)),
            ("[]a]", "]", Err(BadPattern)),
            ("[-]", "-", Err(BadPattern)),
            ("[a-]", "a", Err(BadPattern)),
            ("a[", "ab", Err(BadPattern)),
            ("a\\", "a", Err(BadPattern)),
            ("*x", "xxx", Ok(true)),
            ("", "", Ok(true)),
            ("", "x", Ok(false)),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(path_match(pattern, name), *expected, "{pattern} against {name}");
        }
    }

    #[test]
    fn takes_no_exponential_time() {
        assert_eq!(path_match(&"a*".repeat(60), &"a".repeat(5_000)), Ok(true));
        assert_eq!(path_match(&format!("{}b", "a*".repeat(60)), &"a".repeat(5_000)), Ok(false));
    }
}
