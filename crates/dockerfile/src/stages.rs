//! A whole Dockerfile: arguments for all, then stages.

use crate::error::{ParseError, SyntaxError};
use crate::instruction::{Argument, Instruction};
use crate::lines::{self, Directives, LineRange};
use crate::parse::{Line, parse_line};

/// A Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dockerfile {
    /// What its first lines ask of the parser.
    pub directives: Directives,
    /// `ARG`s before the first `FROM`.
    pub arguments: Vec<Argument>,
    /// The stages; at least one.
    pub stages: Vec<Stage>,
    /// Where continued lines have empty ones between them.
    pub(crate) empty_continuations: Vec<usize>,
    /// Lines of the arguments for all, with the comments above them.
    pub(crate) argument_lines: Vec<(LineRange, Vec<String>, Vec<String>)>,
}

/// `FROM` and what follows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// The image, stage or `scratch` that it begins with; may hold variables.
    pub base: String,
    /// `AS name`, in lower case.
    pub name: Option<String>,
    /// `--platform`; may hold variables.
    pub platform: Option<String>,
    /// The `FROM` line as written.
    pub source: String,
    /// Where it is.
    pub lines: LineRange,
    /// Its instructions.
    pub steps: Vec<Step>,
    pub(crate) keyword: String,
    pub(crate) words: Vec<String>,
    pub(crate) comments: Vec<String>,
}

/// One instruction in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The instruction.
    pub instruction: Instruction,
    /// Its line as written, continued lines joined, without heredocs' contents.
    pub source: String,
    /// Where it is.
    pub lines: LineRange,
    pub(crate) keyword: String,
    pub(crate) comments: Vec<String>,
}

/// Reads a Dockerfile.
pub fn parse(text: &str) -> Result<Dockerfile, ParseError> {
    if text.is_empty() {
        return Err(ParseError::Empty);
    }
    let read = lines::read(text)?;
    if read.lines.is_empty() {
        return Err(ParseError::NoInstructions);
    }
    let escape = read.directives.escape;
    let mut dockerfile = Dockerfile {
        empty_continuations: read.lines.iter().filter_map(|line| line.empty_continuation).collect(),
        directives: read.directives,
        arguments: Vec::new(),
        stages: Vec::new(),
        argument_lines: Vec::new(),
    };
    for line in read.lines {
        let fault = |error| ParseError::Line { line: line.lines.first, error };
        let (keyword, parsed) = parse_line(&line.text, &line.heredocs, escape).map_err(fault)?;
        let source = line.text.trim().to_owned();
        match (parsed, dockerfile.stages.last_mut()) {
            (Line::From(from), _) => dockerfile.stages.push(Stage {
                base: from.base,
                name: from.name,
                platform: from.platform,
                source,
                lines: line.lines,
                steps: Vec::new(),
                keyword,
                words: from.words,
                comments: line.comments,
            }),
            (Line::Instruction(instruction), Some(stage)) => {
                stage.steps.push(Step { instruction, source, lines: line.lines, keyword, comments: line.comments });
            }
            (Line::Instruction(Instruction::Arg(arguments)), None) => {
                let names = arguments.iter().map(|argument| argument.name.clone()).collect();
                dockerfile.argument_lines.push((line.lines, names, line.comments));
                dockerfile.arguments.extend(arguments);
            }
            (Line::Instruction(_), None) => return Err(fault(SyntaxError::NoStage)),
        }
    }
    if dockerfile.stages.is_empty() { Err(ParseError::NoStages) } else { Ok(dockerfile) }
}

#[cfg(test)]
mod tests;
