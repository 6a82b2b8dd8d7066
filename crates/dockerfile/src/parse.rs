//! One logical line to one typed instruction.

use std::time::Duration;

use crate::error::{ParseError, SyntaxError};
use crate::flags::{Flags, Kind};
use crate::heredoc::{Heredoc, parse_heredoc};
use crate::instruction::{
    Add, Argument, CommandLine, Copy, Healthcheck, HealthcheckTest, InlineFile, Instruction, Network, Pair, PairForm,
    Run, Security, Sources,
};
use crate::lines::{self, Escape};
use crate::mount::Mount;
use crate::statement::{Statement, is_blank};
use crate::suggest::suggest;
use crate::words::{parse_json, parse_list, split_blanks, split_quoted};

const NAMES: &[&str] = &[
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// `FROM`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct From {
    pub(crate) base: String,
    pub(crate) name: Option<String>,
    pub(crate) platform: Option<String>,
    /// Its words as written, for the lint rules.
    pub(crate) words: Vec<String>,
}

/// `FROM`, or what stands in a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Line {
    From(From),
    Instruction(Instruction),
}

/// Reads one logical line; gives its keyword as written, too.
pub(crate) fn parse_line(text: &str, heredocs: &[Heredoc], escape: Escape) -> Result<(String, Line), SyntaxError> {
    let statement = Statement::split(text, escape);
    let keyword = statement.keyword.clone();
    let line = match keyword.to_ascii_uppercase().as_str() {
        "FROM" => Line::From(parse_from(&statement)?),
        _ => Line::Instruction(parse_instruction(&statement, text, heredocs, escape)?),
    };
    Ok((keyword, line))
}

/// Reads an `ONBUILD` trigger of an image. Triggers carry no `escape` directive.
pub fn parse_trigger(text: &str) -> Result<Instruction, ParseError> {
    let fault = |error| ParseError::Line { line: 1, error };
    let mut read = lines::read(text)?.lines;
    let line = match (read.pop(), read.is_empty()) {
        (Some(line), true) => line,
        (None, _) => return Err(ParseError::NoInstructions),
        (Some(_), false) => return Err(fault(SyntaxError::TriggerCount)),
    };
    match parse_line(&line.text, &line.heredocs, Escape::Backslash).map_err(fault)?.1 {
        Line::Instruction(instruction) => Ok(instruction),
        Line::From(_) => Err(fault(SyntaxError::OnBuildTrigger("FROM".to_owned()))),
    }
}

fn parse_instruction(
    statement: &Statement,
    text: &str,
    heredocs: &[Heredoc],
    escape: Escape,
) -> Result<Instruction, SyntaxError> {
    let rest = statement.rest.as_str();
    let without_flags = || Flags::parse(&statement.flags, &[]);
    Ok(match statement.keyword.to_ascii_uppercase().as_str() {
        "ADD" => Instruction::Add(parse_add(statement, heredocs)?),
        "COPY" => Instruction::Copy(parse_copy(statement, heredocs)?),
        "RUN" => Instruction::Run(parse_run(statement, heredocs)?),
        "HEALTHCHECK" => Instruction::Healthcheck(parse_healthcheck(statement)?),
        "ONBUILD" => Instruction::OnBuild(parse_onbuild(statement, text, heredocs, escape)?),
        name => {
            without_flags()?;
            match name {
                "ARG" => Instruction::Arg(parse_arguments(rest, escape)?),
                "CMD" => Instruction::Cmd(parse_command(rest)?),
                "ENTRYPOINT" => Instruction::Entrypoint(parse_command(rest)?),
                "ENV" => Instruction::Env(parse_pairs("ENV", rest, escape)?),
                "EXPOSE" => Instruction::Expose(parse_expose(rest)?),
                "LABEL" => Instruction::Label(parse_pairs("LABEL", rest, escape)?),
                "MAINTAINER" => Instruction::Maintainer(exactly_one("MAINTAINER", rest)?),
                "SHELL" => Instruction::Shell(parse_shell(rest)?),
                "STOPSIGNAL" => Instruction::StopSignal(exactly_one("STOPSIGNAL", rest)?),
                "USER" => Instruction::User(exactly_one("USER", rest)?),
                "VOLUME" => Instruction::Volume(parse_volume(rest)?),
                "WORKDIR" => Instruction::Workdir(exactly_one("WORKDIR", rest)?),
                _ => return Err(unknown(&statement.keyword)),
            }
        }
    })
}

/// A suggestion is given in the case of what was written.
fn unknown(name: &str) -> SyntaxError {
    let upper = name.to_ascii_uppercase();
    let hint = suggest(&upper, NAMES.iter().copied()).map(|near| {
        let near = if name == name.to_ascii_lowercase() { near.to_ascii_lowercase() } else { near.to_owned() };
        format!(" (did you mean {near}?)")
    });
    SyntaxError::UnknownInstruction { name: name.to_owned(), hint: hint.unwrap_or_default() }
}

fn exactly_one(name: &'static str, rest: &str) -> Result<String, SyntaxError> {
    if rest.is_empty() { Err(SyntaxError::ExactlyOne(name)) } else { Ok(rest.to_owned()) }
}

fn parse_from(statement: &Statement) -> Result<From, SyntaxError> {
    let words = split_blanks(&statement.rest);
    let name = match words.as_slice() {
        [_] => None,
        [_, keyword, name] if keyword.eq_ignore_ascii_case("as") => Some(stage_name(name)?),
        _ => return Err(SyntaxError::From),
    };
    let flags = Flags::parse(&statement.flags, &[("platform", Kind::Text)])?;
    let platform = flags.text("platform").filter(|platform| !platform.is_empty());
    Ok(From { base: words[0].clone(), name, platform, words })
}

fn stage_name(name: &str) -> Result<String, SyntaxError> {
    let lower = name.to_lowercase();
    let rest_is_fine =
        lower.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.'));
    if lower.starts_with(|c: char| c.is_ascii_lowercase()) && rest_is_fine {
        Ok(lower)
    } else {
        Err(SyntaxError::StageName(name.to_owned()))
    }
}

fn parse_command(rest: &str) -> Result<CommandLine, SyntaxError> {
    Ok(parse_json(rest)?.map_or_else(|| CommandLine::Shell(rest.to_owned()), CommandLine::Exec))
}

fn parse_shell(rest: &str) -> Result<Vec<String>, SyntaxError> {
    match parse_json(rest)? {
        Some(shell) if !shell.is_empty() => Ok(shell),
        None if !rest.is_empty() => Err(SyntaxError::ShellForm),
        _ => Err(SyntaxError::AtLeastOne("SHELL")),
    }
}

fn parse_expose(rest: &str) -> Result<Vec<String>, SyntaxError> {
    let mut ports = split_blanks(rest);
    if ports.is_empty() {
        return Err(SyntaxError::AtLeastOne("EXPOSE"));
    }
    // The history shows them in this order.
    ports.sort();
    Ok(ports)
}

fn parse_volume(rest: &str) -> Result<Vec<String>, SyntaxError> {
    let paths = parse_list(rest)?;
    if paths.is_empty() {
        return Err(SyntaxError::AtLeastOne("VOLUME"));
    }
    let trimmed = |path: &String| match path.trim() {
        "" => Err(SyntaxError::EmptyVolume),
        path => Ok(path.to_owned()),
    };
    paths.iter().map(trimmed).collect()
}

/// `NAME=VALUE …`, or the old form `NAME VALUE WITH SPACES`.
fn parse_pairs(instruction: &'static str, rest: &str, escape: Escape) -> Result<Vec<Pair>, SyntaxError> {
    let words = split_quoted(rest, escape.char());
    let Some(first) = words.first() else { return Err(SyntaxError::AtLeastOne(instruction)) };
    if !first.contains('=') {
        let (name, value) = rest.split_once(is_blank).ok_or(SyntaxError::TwoArguments(instruction))?;
        let value = value.trim_start_matches(is_blank).to_owned();
        return Ok(vec![Pair { name: name.to_owned(), value, form: PairForm::Spaced }]);
    }
    let pair = |word: &String| {
        let (name, value) = word.split_once('=').ok_or_else(|| SyntaxError::NotKeyValue(word.clone()))?;
        if name.is_empty() {
            return Err(SyntaxError::BlankName(instruction));
        }
        Ok(Pair { name: name.to_owned(), value: value.to_owned(), form: PairForm::Assigned })
    };
    words.iter().map(pair).collect()
}

fn parse_arguments(rest: &str, escape: Escape) -> Result<Vec<Argument>, SyntaxError> {
    let words = split_quoted(rest, escape.char());
    if words.is_empty() {
        return Err(SyntaxError::AtLeastOne("ARG"));
    }
    let argument = |word: &String| match word.split_once('=') {
        Some(("", _)) => Err(SyntaxError::BlankName("ARG")),
        Some((name, default)) => Ok(Argument { name: name.to_owned(), default: Some(default.to_owned()) }),
        None => Ok(Argument { name: word.clone(), default: None }),
    };
    words.iter().map(argument).collect()
}

fn parse_sources(
    instruction: &'static str,
    statement: &Statement,
    heredocs: &[Heredoc],
) -> Result<Sources, SyntaxError> {
    let mut words = parse_list(&statement.rest)?;
    if words.len() < 2 {
        return Err(SyntaxError::NoDestination(instruction));
    }
    let destination = words.pop().unwrap_or_default();
    if matches!(parse_heredoc(&destination), Ok(Some(_))) {
        return Err(SyntaxError::HeredocDestination(instruction));
    }
    let mut sources = Sources { paths: Vec::new(), files: Vec::new(), destination };
    for word in words {
        match parse_heredoc(&word) {
            Ok(Some(announced)) => {
                let filled = heredocs.iter().rfind(|heredoc| heredoc.name == announced.name);
                let content = filled.map(Heredoc::text).unwrap_or_default();
                sources.files.push(InlineFile { name: announced.name, content, expand: announced.expand });
            }
            _ => sources.paths.push(word),
        }
    }
    Ok(sources)
}

fn parse_add(statement: &Statement, heredocs: &[Heredoc]) -> Result<Add, SyntaxError> {
    let known = [
        ("chown", Kind::Text),
        ("chmod", Kind::Text),
        ("link", Kind::Boolean),
        ("keep-git-dir", Kind::Boolean),
        ("checksum", Kind::Text),
        ("unpack", Kind::Boolean),
        ("exclude", Kind::List),
    ];
    let sources = parse_sources("ADD", statement, heredocs)?;
    let flags = Flags::parse(&statement.flags, &known)?;
    Ok(Add {
        sources,
        chown: present(flags.text("chown")),
        chmod: present(flags.text("chmod")),
        link: flags.boolean("link").unwrap_or(false),
        keep_git_dir: flags.boolean("keep-git-dir"),
        checksum: present(flags.text("checksum")),
        unpack: flags.boolean("unpack"),
        exclude: flags.list("exclude"),
    })
}

fn parse_copy(statement: &Statement, heredocs: &[Heredoc]) -> Result<Copy, SyntaxError> {
    let known = [
        ("chown", Kind::Text),
        ("from", Kind::Text),
        ("chmod", Kind::Text),
        ("link", Kind::Boolean),
        ("exclude", Kind::List),
        ("parents", Kind::Boolean),
    ];
    let sources = parse_sources("COPY", statement, heredocs)?;
    let flags = Flags::parse(&statement.flags, &known)?;
    Ok(Copy {
        sources,
        from: present(flags.text("from")),
        chown: present(flags.text("chown")),
        chmod: present(flags.text("chmod")),
        link: flags.boolean("link").unwrap_or(false),
        parents: flags.boolean("parents").unwrap_or(false),
        exclude: flags.list("exclude"),
    })
}

fn present(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

fn parse_run(statement: &Statement, heredocs: &[Heredoc]) -> Result<Run, SyntaxError> {
    let known = [("mount", Kind::List), ("network", Kind::Text), ("security", Kind::Text), ("device", Kind::List)];
    let flags = Flags::parse(&statement.flags, &known)?;
    let network = match flags.text("network").as_deref() {
        None | Some("default") => Network::Default,
        Some("none") => Network::None,
        Some("host") => Network::Host,
        Some(other) => return Err(SyntaxError::Network(other.to_owned())),
    };
    let security = match flags.text("security").as_deref() {
        None | Some("sandbox") => Security::Sandbox,
        Some("insecure") => Security::Insecure,
        Some(other) => return Err(SyntaxError::Security(other.to_owned())),
    };
    let mounts = flags.list("mount");
    for mount in &mounts {
        Mount::parse_unexpanded(mount)?;
    }
    Ok(Run {
        command: parse_command(&statement.rest)?,
        heredocs: heredocs.to_vec(),
        mounts,
        network,
        security,
        devices: flags.list("device"),
        flags: flags.names(),
    })
}

fn parse_onbuild(
    statement: &Statement,
    text: &str,
    heredocs: &[Heredoc],
    escape: Escape,
) -> Result<String, SyntaxError> {
    if statement.rest.is_empty() {
        return Err(SyntaxError::AtLeastOne("ONBUILD"));
    }
    Flags::parse(&statement.flags, &[])?;
    let trigger = Statement::split(&statement.rest, escape);
    match trigger.keyword.to_ascii_uppercase().as_str() {
        "ONBUILD" => return Err(SyntaxError::ChainedOnBuild),
        name @ ("MAINTAINER" | "FROM") => return Err(SyntaxError::OnBuildTrigger(name.to_owned())),
        _ => {}
    }
    let mut trigger = text.trim_start()["ONBUILD".len()..].trim_start().to_owned();
    for heredoc in heredocs {
        trigger.push_str(&format!("\n{}{}", heredoc.content, heredoc.name));
    }
    Ok(trigger)
}

fn parse_healthcheck(statement: &Statement) -> Result<Healthcheck, SyntaxError> {
    let (kind, command) = statement.rest.split_once(char::is_whitespace).unwrap_or((&statement.rest, ""));
    let command = command.trim_start();
    let mut check = Healthcheck {
        test: HealthcheckTest::None,
        interval: Duration::ZERO,
        timeout: Duration::ZERO,
        start_period: Duration::ZERO,
        start_interval: Duration::ZERO,
        retries: 0,
    };
    let known = [
        ("interval", Kind::Text),
        ("timeout", Kind::Text),
        ("start-period", Kind::Text),
        ("start-interval", Kind::Text),
        ("retries", Kind::Text),
    ];
    match kind.to_ascii_uppercase().as_str() {
        "" => return Err(SyntaxError::AtLeastOne("HEALTHCHECK")),
        "NONE" if command.is_empty() => return Ok(check),
        "NONE" => return Err(SyntaxError::HealthcheckNone),
        "CMD" => {}
        other => return Err(SyntaxError::HealthcheckType(other.to_owned())),
    }
    let flags = Flags::parse(&statement.flags, &known)?;
    check.test = match parse_command(command)? {
        CommandLine::Exec(arguments) if arguments.is_empty() => return Err(SyntaxError::HealthcheckCommand),
        CommandLine::Shell(line) if line.is_empty() => return Err(SyntaxError::HealthcheckCommand),
        command => HealthcheckTest::Command(command),
    };
    check.interval = interval(&flags, "interval")?;
    check.timeout = interval(&flags, "timeout")?;
    check.start_period = interval(&flags, "start-period")?;
    check.start_interval = interval(&flags, "start-interval")?;
    check.retries = retries(&flags)?;
    Ok(check)
}

fn interval(flags: &Flags, name: &'static str) -> Result<Duration, SyntaxError> {
    let Some(text) = present(flags.text(name)) else { return Ok(Duration::ZERO) };
    let interval = crate::duration::parse(&text).ok_or(SyntaxError::Duration(text))?;
    if interval.is_zero() || interval >= Duration::from_millis(1) {
        Ok(interval)
    } else {
        Err(SyntaxError::ShortInterval(name))
    }
}

fn retries(flags: &Flags) -> Result<u32, SyntaxError> {
    let Some(text) = present(flags.text("retries")) else { return Ok(0) };
    let number: i32 = text.parse().map_err(|_| SyntaxError::Retries(text))?;
    u32::try_from(number).map_err(|_| SyntaxError::NegativeRetries(i64::from(number)))
}
