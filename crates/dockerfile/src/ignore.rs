//! `.dockerignore`: which files of a context stay at home.

use crate::clean::clean_path;
use crate::wildcard::{BadPattern, Wildcard};

/// The patterns of a `.dockerignore`, in order: the last one that matches a file, or a directory above it, decides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ignore {
    patterns: Vec<Pattern>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern {
    text: String,
    wildcard: Wildcard,
    /// `!`: what it matches is not ignored.
    exception: bool,
}

/// A line that is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IgnoreError {
    /// `!` alone.
    #[error("illegal exclusion pattern: \"!\"")]
    Exception,
    /// A class or an escape without end.
    #[error("invalid pattern {0:?}: syntax error in pattern")]
    Pattern(String),
}

impl Ignore {
    /// Reads a `.dockerignore`.
    pub fn parse(text: &str) -> Result<Ignore, IgnoreError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let lines = text.lines().filter(|line| !line.starts_with('#')).map(str::trim).filter(|line| !line.is_empty());
        Ignore::of(lines)
    }

    /// Takes patterns as they stand in a `.dockerignore`, or after `--exclude`.
    pub fn of<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Result<Ignore, IgnoreError> {
        patterns.into_iter().map(Pattern::parse).collect::<Result<_, _>>().map(|patterns| Ignore { patterns })
    }

    /// Adds a pattern after all others.
    pub fn push(&mut self, pattern: &str) -> Result<(), IgnoreError> {
        self.patterns.push(Pattern::parse(pattern)?);
        Ok(())
    }

    /// Nothing is ignored.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// The patterns in their plain form, one for each line: as clients match them that know no leading slash.
    pub fn plain_patterns(&self) -> Vec<String> {
        let plain =
            |pattern: &Pattern| if pattern.exception { format!("!{}", pattern.text) } else { pattern.text.clone() };
        self.patterns.iter().map(plain).collect()
    }

    /// Whether some pattern begins with `!`.
    pub fn has_exceptions(&self) -> bool {
        self.patterns.iter().any(|pattern| pattern.exception)
    }

    /// Whether a file, given by its path in the context without leading slash, is ignored: itself, or with a directory above it.
    pub fn matches(&self, path: &str) -> bool {
        let path = path.trim_matches('/');
        let parents = path.match_indices('/').map(|(at, _)| &path[..at]);
        let names: Vec<&str> = parents.chain([path]).collect();
        let mut ignored = false;
        for pattern in self.patterns.iter().filter(|_| !path.is_empty()) {
            if pattern.exception == ignored && names.iter().any(|name| pattern.wildcard.matches(name)) {
                ignored = !pattern.exception;
            }
        }
        ignored
    }

    /// Whether nothing below an ignored directory can be an exception.
    pub fn ignores_all_below(&self, directory: &str) -> bool {
        let below = format!("{}/", directory.trim_matches('/'));
        let may_reach =
            |pattern: &Pattern| Wildcard::is_pattern(&pattern.text) || format!("{}/", pattern.text).starts_with(&below);
        !self.patterns.iter().any(|pattern| pattern.exception && may_reach(pattern))
    }

    /// Whether everything at the top of the context is ignored.
    pub(crate) fn ignores_root(&self) -> bool {
        self.patterns.iter().any(|pattern| !pattern.exception && matches!(pattern.text.as_str(), "*" | "**" | "**/*"))
    }
}

impl Pattern {
    /// `/a` and `a` are the same; blanks around do not count.
    fn parse(text: &str) -> Result<Pattern, IgnoreError> {
        let text = text.trim();
        let (exception, text) = match text.strip_prefix('!') {
            Some(rest) => (true, rest.trim()),
            None => (false, text),
        };
        if text.is_empty() {
            return Err(IgnoreError::Exception);
        }
        let clean = clean_path(text);
        let clean = if clean.len() > 1 { clean.strip_prefix('/').unwrap_or(&clean) } else { &clean };
        let wildcard = Wildcard::deep(clean).map_err(|BadPattern| IgnoreError::Pattern(text.to_owned()))?;
        Ok(Pattern { text: clean.to_owned(), wildcard, exception })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ignored(text: &str) -> Vec<&'static str> {
        let files =
            ["Dockerfile", "README.md", "a/b/c.txt", "a/d.md", "docs/README.md", "node_modules/x/y.js", "src/x.go"];
        let ignore = Ignore::parse(text).unwrap();
        files.into_iter().filter(|file| ignore.matches(file)).collect()
    }

    #[test]
    fn the_last_match_decides() {
        assert_eq!(ignored("# x\n\n*.md\n"), ["README.md"]);
        assert_eq!(ignored("**/*.md\n!README.md"), ["a/d.md", "docs/README.md"]);
        assert_eq!(ignored("!README.md\n**/*.md"), ["README.md", "a/d.md", "docs/README.md"]);
        assert_eq!(ignored("/a/\nnode_modules"), ["a/b/c.txt", "a/d.md", "node_modules/x/y.js"]);
        assert_eq!(
            ignored("*\n!src"),
            ["Dockerfile", "README.md", "a/b/c.txt", "a/d.md", "docs/README.md", "node_modules/x/y.js"]
        );
        assert_eq!(ignored("a\n!a/b"), ["a/d.md"]);
        assert_eq!(ignored("a/../docs"), ["docs/README.md"]);
        assert_eq!(ignored("."), [""; 0]);
    }

    #[test]
    fn directories_are_skipped_when_no_exception_is_below() {
        let ignore = Ignore::parse("a\nb\n!a/x").unwrap();
        assert!(ignore.ignores_all_below("b") && !ignore.ignores_all_below("a"));
        assert!(!Ignore::parse("a\n!**/x").unwrap().ignores_all_below("a"));
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert_eq!(Ignore::parse("!").unwrap_err(), IgnoreError::Exception);
        assert_eq!(Ignore::parse("a[").unwrap_err().to_string(), "invalid pattern \"a[\": syntax error in pattern");
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[a-c/*?!\\[\\]\\\\#\n -]{0,40}", path in "[a-c/]{0,20}") {
            let _ = Ignore::parse(&text).map(|ignore| ignore.matches(&path));
        }
    }
}
