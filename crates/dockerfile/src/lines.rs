//! From text to logical lines: parser directives, continuation, comments, heredocs.

use crate::error::{ParseError, SyntaxError};
use crate::heredoc::{Heredoc, heredocs_of, without_leading_tabs};
use crate::statement::Statement;

/// The longest line that Docker reads.
const LINE_BYTES_MAX: usize = 64 * 1024 - 1;

/// Lines of the file, both included; the first is 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LineRange {
    /// The first.
    pub first: usize,
    /// The last.
    pub last: usize,
}

/// The character that escapes others and continues lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Escape {
    /// `\`
    #[default]
    Backslash,
    /// A backtick, for Windows' paths.
    Backtick,
}

impl Escape {
    /// The character.
    pub fn char(self) -> char {
        match self {
            Escape::Backslash => '\\',
            Escape::Backtick => '`',
        }
    }
}

/// What the first comment lines ask of the parser.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Directives {
    /// `# syntax=`: which image reads the file.
    pub syntax: Option<String>,
    /// `# escape=`.
    pub escape: Escape,
    /// `# check=`: which lint rules count.
    pub check: Option<String>,
}

/// One instruction's text with what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogicalLine {
    pub(crate) text: String,
    pub(crate) lines: LineRange,
    /// The comments right above it.
    pub(crate) comments: Vec<String>,
    pub(crate) heredocs: Vec<Heredoc>,
    /// The last line of a continuation that had an empty line in it.
    pub(crate) empty_continuation: Option<usize>,
}

/// A file as logical lines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Lines {
    pub(crate) directives: Directives,
    pub(crate) lines: Vec<LogicalLine>,
}

/// Reads all of `text`.
pub(crate) fn read(text: &str) -> Result<Lines, ParseError> {
    let mut reader = Reader::new(text.strip_prefix('\u{feff}').unwrap_or(text));
    while let Some(line) = reader.next_line()? {
        reader.first_of_logical(line)?;
    }
    Ok(reader.result)
}

struct Reader<'a> {
    rest: std::str::SplitInclusive<'a, char>,
    /// The number of the line read last.
    number: usize,
    directives_over: bool,
    /// What `# escape=` said.
    escape_given: Option<String>,
    comments: Vec<String>,
    result: Lines,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str) -> Self {
        Reader {
            rest: text.split_inclusive('\n'),
            number: 0,
            directives_over: false,
            escape_given: None,
            comments: Vec::new(),
            result: Lines::default(),
        }
    }

    fn next_line(&mut self) -> Result<Option<&'a str>, ParseError> {
        let Some(line) = self.rest.next() else { return Ok(None) };
        self.number += 1;
        if line.len() > LINE_BYTES_MAX {
            return Err(self.error(self.number, SyntaxError::LongLine(LINE_BYTES_MAX)));
        }
        Ok(Some(line))
    }

    fn error(&self, line: usize, error: SyntaxError) -> ParseError {
        ParseError::Line { line, error }
    }

    fn first_of_logical(&mut self, line: &'a str) -> Result<(), ParseError> {
        let line = without_newline(line).trim_start();
        if self.directive(line).map_err(|error| self.error(self.number, error))? {
            return Ok(());
        }
        if let Some(comment) = line.strip_prefix('#') {
            match comment.trim() {
                "" => self.comments.clear(),
                comment => self.comments.push(comment.to_owned()),
            }
            return Ok(());
        }
        let first = self.number;
        let (text, empty_continuation) = self.continued(line)?;
        if text.is_empty() && self.number == first {
            return Ok(());
        }
        let fault = |error| ParseError::Line { line: first, error };
        let heredocs = self.heredocs(&text, first)?;
        if text.trim().is_empty() {
            // Nothing but continuations.
            return Err(fault(SyntaxError::UnknownInstruction { name: String::new(), hint: String::new() }));
        }
        let lines = LineRange { first, last: self.number };
        let comments = std::mem::take(&mut self.comments);
        self.result.lines.push(LogicalLine { text, lines, comments, heredocs, empty_continuation });
        Ok(())
    }

    /// Joins the line with those that continue it; comments and empty lines between them do not end it.
    fn continued(&mut self, line: &str) -> Result<(String, Option<usize>), ParseError> {
        let escape = self.result.directives.escape.char();
        let (mut text, mut empty) = (String::new(), false);
        let (piece, mut goes_on) = without_continuation(line, escape);
        text.push_str(piece);
        while goes_on {
            let Some(line) = self.next_line()? else { break };
            if line.trim_start().starts_with('#') {
                continue;
            }
            let line = without_newline(line);
            if line.trim_start().is_empty() {
                empty = true;
                continue;
            }
            let piece;
            (piece, goes_on) = without_continuation(line, escape);
            text.push_str(piece);
        }
        Ok((text, empty.then_some(self.number)))
    }

    fn heredocs(&mut self, text: &str, first: usize) -> Result<Vec<Heredoc>, ParseError> {
        let escape = self.result.directives.escape;
        if !text.contains("<<") || !Statement::split(text, escape).takes_heredocs(escape) {
            return Ok(Vec::new());
        }
        let mut heredocs = heredocs_of(text).map_err(|error| self.error(first, error.into()))?;
        for heredoc in &mut heredocs {
            self.fill(heredoc, first)?;
        }
        Ok(heredocs)
    }

    fn fill(&mut self, heredoc: &mut Heredoc, first: usize) -> Result<(), ParseError> {
        while let Some(line) = self.next_line()? {
            let end = without_newline(line);
            let end = if heredoc.chomp { end.trim_start_matches('\t') } else { end };
            if end == heredoc.name {
                return Ok(());
            }
            heredoc.content.push_str(line);
        }
        Err(self.error(first, SyntaxError::Heredoc))
    }

    /// Takes the line for a directive if it is one; the first line that is none ends them.
    fn directive(&mut self, line: &str) -> Result<bool, SyntaxError> {
        if self.directives_over {
            return Ok(false);
        }
        let Some((name, value)) = line.strip_prefix('#').and_then(parse_directive) else {
            self.directives_over = true;
            return Ok(false);
        };
        let directives = &mut self.result.directives;
        match name.as_str() {
            "syntax" => set_once(&mut directives.syntax, "syntax", value.split(' ').next().unwrap_or(value))?,
            "check" => set_once(&mut directives.check, "check", value)?,
            "escape" => {
                set_once(&mut self.escape_given, "escape", value)?;
                directives.escape = match value {
                    "\\" => Escape::Backslash,
                    "`" => Escape::Backtick,
                    other => return Err(SyntaxError::Escape(other.to_owned())),
                }
            }
            _ => {
                self.directives_over = true;
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn set_once(directive: &mut Option<String>, name: &'static str, value: &str) -> Result<(), SyntaxError> {
    match directive.replace(value.to_owned()) {
        None => Ok(()),
        Some(_) => Err(SyntaxError::RepeatedDirective(name)),
    }
}

/// `name = value`, the name in lower case.
pub(crate) fn parse_directive(comment: &str) -> Option<(String, &str)> {
    let (name, value) = comment.trim_start().split_once('=')?;
    let (name, value) = (name.trim_end(), value.trim());
    let named = name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(|c| c.is_ascii_alphanumeric());
    (named && !value.is_empty()).then(|| (name.to_ascii_lowercase(), value))
}

fn without_newline(line: &str) -> &str {
    line.trim_end_matches(['\r', '\n'])
}

/// The line without the escape character that continues it, and whether there was one. Two of them continue nothing.
fn without_continuation(line: &str, escape: char) -> (&str, bool) {
    let trimmed = line.trim_end_matches([' ', '\t']);
    match trimmed.strip_suffix(escape) {
        Some(before) if !before.ends_with(escape) => (before, true),
        _ => (line, false),
    }
}

impl Heredoc {
    /// The contents as they are used: without leading tabs where `<<-` asks for it.
    pub fn text(&self) -> String {
        if self.chomp { without_leading_tabs(&self.content) } else { self.content.clone() }
    }
}
