//! The rules of `docker build --check`: what is allowed and still better not done.

use std::collections::BTreeSet;

use oci::image::Platform;

use crate::arguments::{self, Given, is_for_commands, platform_name};
use crate::clean::clean_path;
use crate::environment::Environment;
use crate::expand::{Expanded, Expander};
use crate::ignore::Ignore;
use crate::instruction::{CommandLine, HealthcheckTest, Instruction, Pair, PairForm, Seen};
use crate::lines::LineRange;
use crate::ports::parse_ports;
use crate::stages::{Dockerfile, Stage, Step};
use crate::suggest::suggest;

/// A rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// Its name.
    pub name: &'static str,
    /// What it asks for.
    pub description: &'static str,
    /// Whether it counts only when it is asked for.
    pub experimental: bool,
}

const fn rule(name: &'static str, description: &'static str) -> Rule {
    Rule { name, description, experimental: false }
}

const STAGE_NAME_CASING: Rule = rule("StageNameCasing", "Stage names should be lowercase");
const FROM_AS_CASING: Rule = rule("FromAsCasing", "The 'as' keyword should match the case of the 'from' keyword");
const NO_EMPTY_CONTINUATION: Rule =
    rule("NoEmptyContinuation", "Empty continuation lines will become errors in a future release");
const CONSISTENT_INSTRUCTION_CASING: Rule = rule(
    "ConsistentInstructionCasing",
    "All commands within the Dockerfile should use the same casing (either upper or lower)",
);
const DUPLICATE_STAGE_NAME: Rule = rule("DuplicateStageName", "Stage names should be unique");
const RESERVED_STAGE_NAME: Rule = rule("ReservedStageName", "Reserved words should not be used as stage names");
const JSON_ARGS_RECOMMENDED: Rule = rule(
    "JSONArgsRecommended",
    "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
);
const MAINTAINER_DEPRECATED: Rule = rule(
    "MaintainerDeprecated",
    "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
);
const UNDEFINED_ARG_IN_FROM: Rule = rule("UndefinedArgInFrom", "FROM command must use declared ARGs");
const WORKDIR_RELATIVE_PATH: Rule = rule(
    "WorkdirRelativePath",
    "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base image changes",
);
const UNDEFINED_VAR: Rule = rule("UndefinedVar", "Variables should be defined before their use");
const MULTIPLE_INSTRUCTIONS: Rule = rule(
    "MultipleInstructionsDisallowed",
    "Multiple instructions of the same type should not be used in the same stage",
);
const LEGACY_KEY_VALUE: Rule =
    rule("LegacyKeyValueFormat", "Legacy key/value format with whitespace separator should not be used");
const INVALID_BASE_IMAGE_PLATFORM: Rule =
    rule("InvalidBaseImagePlatform", "Base image platform does not match expected target platform");
const REDUNDANT_TARGET_PLATFORM: Rule = rule(
    "RedundantTargetPlatform",
    "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
);
const SECRETS_IN_ARG_OR_ENV: Rule =
    rule("SecretsUsedInArgOrEnv", "Sensitive data should not be used in the ARG or ENV commands");
const INVALID_DEFAULT_ARG: Rule =
    rule("InvalidDefaultArgInFrom", "Default value for global ARG results in an empty or invalid base image name");
const CONSTANT_PLATFORM: Rule =
    rule("FromPlatformFlagConstDisallowed", "FROM --platform flag should not use a constant value");
const COPY_IGNORED_FILE: Rule = rule("CopyIgnoredFile", "Attempting to Copy file that is excluded by .dockerignore");
const EXPOSE_PROTO_CASING: Rule = rule("ExposeProtoCasing", "Protocol in EXPOSE instruction should be lowercase");
const EXPOSE_INVALID_FORMAT: Rule = rule(
    "ExposeInvalidFormat",
    "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a future release",
);
const DEFINITION_DESCRIPTION: Rule = Rule {
    name: "InvalidDefinitionDescription",
    description: "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is not \
                  intended to be a description comment, add an empty line or comment between the instruction and the comment.",
    experimental: true,
};

/// A rule that is broken.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Warning {
    /// Where.
    pub lines: LineRange,
    /// Which.
    pub rule: Rule,
    /// How.
    pub message: String,
}

/// What is known of a base image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BaseImage {
    /// The variables that its configuration sets.
    pub environment: Environment,
    /// What it is for.
    pub platform: Option<Platform>,
    /// Whether its configuration sets a shell.
    pub has_shell: bool,
}

/// What the rules need to know besides the Dockerfile.
pub struct Facts<'a> {
    /// What the user gave with `--build-arg`.
    pub given: &'a Given,
    /// Where the build runs.
    pub build: &'a Platform,
    /// What it is for.
    pub target: &'a Platform,
    /// `--target`.
    pub target_stage: Option<&'a str>,
    /// The context's `.dockerignore`.
    pub ignore: Option<&'a Ignore>,
    /// A base image by its name; rules about variables are not checked where it is unknown.
    pub base: &'a dyn Fn(&str) -> Option<BaseImage>,
}

impl std::fmt::Debug for Facts<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Facts").field("given", &self.given).finish_non_exhaustive()
    }
}

/// Which rules count: `# check=`, or the build argument `BUILDKIT_DOCKERFILE_CHECK`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    skip_all: bool,
    skip: BTreeSet<String>,
    experimental_all: bool,
    experimental: BTreeSet<String>,
    /// Whether a broken rule ends the build.
    pub error: bool,
}

/// An option that does not exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChoiceError {
    /// No `=`.
    #[error("invalid check option {0:?}")]
    Option(String),
    /// `error=` neither true nor false.
    #[error("failed to parse check option {0:?}: invalid syntax")]
    Boolean(String),
}

impl Choice {
    /// Reads `skip=A,B;error=true;experimental=all`.
    pub fn parse(text: &str) -> Result<Choice, ChoiceError> {
        let mut choice = Choice::default();
        for option in text.split(';').map(str::trim).filter(|option| !option.is_empty()) {
            let (name, value) = option.split_once('=').ok_or_else(|| ChoiceError::Option(option.to_owned()))?;
            let names = || value.split(',').map(|name| name.trim().to_owned()).collect();
            match (name.trim(), value.trim()) {
                ("skip", "all") => choice.skip_all = true,
                ("skip", _) => choice.skip = names(),
                ("experimental", "all") => choice.experimental_all = true,
                ("experimental", _) => choice.experimental = names(),
                ("error", "true" | "1" | "t" | "T" | "TRUE" | "True") => choice.error = true,
                ("error", "false" | "0" | "f" | "F" | "FALSE" | "False") => choice.error = false,
                ("error", _) => return Err(ChoiceError::Boolean(option.to_owned())),
                _ => return Err(ChoiceError::Option(option.to_owned())),
            }
        }
        Ok(choice)
    }

    fn counts(&self, rule: Rule) -> bool {
        if rule.experimental {
            self.experimental_all || self.experimental.contains(rule.name)
        } else {
            !self.skip_all && !self.skip.contains(rule.name)
        }
    }
}

/// Checks all rules; the warnings come in the order of their lines.
pub fn lint(dockerfile: &Dockerfile, facts: &Facts<'_>, choice: &Choice) -> Vec<Warning> {
    let mut linter = Linter { dockerfile, facts, choice, warnings: Vec::new() };
    linter.names_and_casing();
    linter.descriptions();
    linter.base_images();
    linter.stages();
    linter.warnings.sort();
    linter.warnings
}

struct Linter<'a> {
    dockerfile: &'a Dockerfile,
    facts: &'a Facts<'a>,
    choice: &'a Choice,
    warnings: Vec<Warning>,
}

/// What a stage has seen so far.
#[derive(Debug, Clone, Default)]
struct StageState {
    environment: Environment,
    /// Whether all variables are known.
    known: bool,
    declared: BTreeSet<String>,
    has_shell: bool,
    workdir: bool,
    cmd: Option<LineRange>,
    entrypoint: Option<LineRange>,
    healthcheck: Option<LineRange>,
}

impl Linter<'_> {
    fn warn(&mut self, rule: Rule, lines: LineRange, message: String) {
        if self.choice.counts(rule) {
            self.warnings.push(Warning { lines, rule, message });
        }
    }

    fn names_and_casing(&mut self) {
        for &line in &self.dockerfile.empty_continuations {
            self.warn(
                NO_EMPTY_CONTINUATION,
                LineRange { first: line, last: line },
                "Empty continuation line".to_owned(),
            );
        }
        let mut names = BTreeSet::new();
        for stage in &self.dockerfile.stages {
            if let [_, keyword, name] = stage.words.as_slice() {
                self.casing_of_from(stage, keyword, name);
            }
            let Some(name) = &stage.name else { continue };
            if matches!(name.as_str(), "context" | "scratch") {
                let message = format!("Stage name should not use the same name as reserved stage {name:?}");
                self.warn(RESERVED_STAGE_NAME, stage.lines, message);
            }
            if !names.insert(name) {
                let message = format!("Duplicate stage name {name:?}, stage names should be unique");
                self.warn(DUPLICATE_STAGE_NAME, stage.lines, message);
            }
        }
        self.instruction_casing();
    }

    fn casing_of_from(&mut self, stage: &Stage, keyword: &str, name: &str) {
        if name != name.to_lowercase() {
            self.warn(STAGE_NAME_CASING, stage.lines, format!("Stage name '{name}' should be lowercase"));
        }
        let from = &stage.keyword;
        let differs = match (is_lower(from), is_upper(from)) {
            (true, _) => !is_lower(keyword),
            (_, true) => !is_upper(keyword),
            _ => false,
        };
        if differs {
            self.warn(FROM_AS_CASING, stage.lines, format!("'{keyword}' and '{from}' keywords' casing do not match"));
        }
    }

    fn instruction_casing(&mut self) {
        let of_stage = |stage: &Stage| {
            let from = std::iter::once((stage.keyword.clone(), stage.lines));
            from.chain(stage.steps.iter().map(|step| (step.keyword.clone(), step.lines))).collect::<Vec<_>>()
        };
        let keywords: Vec<(String, LineRange)> = self.dockerfile.stages.iter().flat_map(of_stage).collect();
        let lower = keywords.iter().filter(|(keyword, _)| is_lower(keyword)).count();
        let upper = keywords.iter().filter(|(keyword, _)| is_upper(keyword)).count();
        for (keyword, lines) in keywords {
            let (fits, casing) =
                if lower > upper { (is_lower(&keyword), "lowercase") } else { (is_upper(&keyword), "uppercase") };
            if !fits {
                let message = format!("Command '{keyword}' should match the case of the command majority ({casing})");
                self.warn(CONSISTENT_INSTRUCTION_CASING, lines, message);
            }
        }
    }

    /// The comment right above an argument or a stage describes it, and begins with its name.
    fn descriptions(&mut self) {
        for (lines, names, comments) in &self.dockerfile.argument_lines {
            self.description("ARG", names, comments, *lines);
        }
        for stage in &self.dockerfile.stages {
            let names: Vec<String> = stage.name.iter().cloned().collect();
            self.description("FROM", &names, &stage.comments, stage.lines);
            for step in &stage.steps {
                if let Instruction::Arg(arguments) = &step.instruction {
                    let names: Vec<String> = arguments.iter().map(|argument| argument.name.clone()).collect();
                    self.description("ARG", &names, &step.comments, step.lines);
                }
            }
        }
    }

    fn description(&mut self, instruction: &str, names: &[String], comments: &[String], lines: LineRange) {
        let (Some(comment), Some(first)) = (comments.last(), names.first()) else { return };
        let described = comment.split(' ').next().unwrap_or_default();
        if names.iter().any(|name| name == described) {
            return;
        }
        let example = if names.len() > 1 { "<arg_key>" } else { first };
        let message = format!("Comment for {instruction} should follow the format: `# {example} <description>`");
        self.warn(DEFINITION_DESCRIPTION, lines, message);
    }

    fn predefined(&self) -> Environment {
        arguments::predefined(self.facts.build, self.facts.target, self.facts.target_stage, self.facts.given)
    }

    fn base_images(&mut self) {
        let Ok(global) = arguments::global(self.dockerfile, self.facts.given, self.predefined()) else { return };
        let defaults = arguments::global(self.dockerfile, &Given::new(), self.predefined()).ok();
        let mut known: BTreeSet<&str> = global.names().collect();
        known.extend(self.dockerfile.arguments.iter().map(|argument| argument.name.as_str()));
        let expander = Expander::new(self.dockerfile.directives.escape.char());
        for stage in &self.dockerfile.stages {
            if let Ok(base) = expander.expand(&stage.base, &global) {
                self.undefined_in_from(stage, &base, &known);
            }
            let by_default = defaults.as_ref().and_then(|defaults| expander.expand(&stage.base, defaults).ok());
            if by_default.is_some_and(|base| oci::Reference::parse(&base.text).is_err()) {
                let message =
                    format!("Default value for ARG {} results in empty or invalid base image name", stage.base);
                self.warn(INVALID_DEFAULT_ARG, stage.lines, message);
            }
            let platform = stage.platform.as_ref().and_then(|text| Some((text, expander.expand(text, &global).ok()?)));
            if let Some((text, platform)) = platform {
                self.undefined_in_from(stage, &platform, &known);
                self.platform_flag(stage, text, &platform, &global);
            }
        }
    }

    fn undefined_in_from(&mut self, stage: &Stage, expanded: &Expanded, known: &BTreeSet<&str>) {
        for name in expanded.unset.iter().filter(|name| !known.contains(name.as_str())) {
            let hint = suggest(name, known.iter().copied());
            let hint = hint.map(|near| format!(" (did you mean {near}?)")).unwrap_or_default();
            self.warn(UNDEFINED_ARG_IN_FROM, stage.lines, format!("FROM argument '{name}' is not declared{hint}"));
        }
    }

    fn platform_flag(&mut self, stage: &Stage, text: &str, expanded: &Expanded, global: &Environment) {
        let is_target =
            expanded.used.len() == 1 && expanded.used.contains("TARGETPLATFORM") && expanded.unset.is_empty();
        if is_target && global.get("TARGETPLATFORM") == Some(&expanded.text) {
            let message =
                format!("Setting platform to predefined {text} in FROM is redundant as this is the default behavior");
            self.warn(REDUNDANT_TARGET_PLATFORM, stage.lines, message);
        }
        let constant = expanded.used.is_empty() && expanded.unset.is_empty();
        let name = stage.name.as_deref().unwrap_or_default();
        let named_after = expanded.text.split('/').take(2).any(|part| !part.is_empty() && name.contains(part));
        if constant && !named_after {
            let message = format!("FROM --platform flag should not use constant value {:?}", expanded.text);
            self.warn(CONSTANT_PLATFORM, stage.lines, message);
        }
    }

    fn stages(&mut self) {
        let Ok(global) = arguments::global(self.dockerfile, self.facts.given, self.predefined()) else { return };
        let mut ends: Vec<StageState> = Vec::new();
        for stage in &self.dockerfile.stages {
            let mut state = self.beginning(stage, &global, &ends);
            for step in &stage.steps {
                self.step(step, &mut state, &global);
            }
            ends.push(state);
        }
    }

    fn beginning(&mut self, stage: &Stage, global: &Environment, ends: &[StageState]) -> StageState {
        let expander = Expander::new(self.dockerfile.directives.escape.char());
        let Ok(base) = expander.expand(&stage.base, global) else { return StageState::default() };
        let earlier = &self.dockerfile.stages[..ends.len()];
        if let Some(index) = earlier.iter().rposition(|other| other.name.as_deref() == Some(&base.text.to_lowercase()))
        {
            let end = ends[index].clone();
            return StageState { cmd: None, entrypoint: None, healthcheck: None, ..end };
        }
        if base.text == "scratch" {
            return StageState { known: true, ..StageState::default() };
        }
        let Some(image) = (self.facts.base)(&base.text) else { return StageState::default() };
        if let (Some(actual), None) = (&image.platform, &stage.platform) {
            let target = self.facts.target;
            if (&actual.os, &actual.architecture) != (&target.os, &target.architecture) {
                let message = format!(
                    "Base image {} was pulled with platform {:?}, expected {:?} for current build",
                    stage.base,
                    platform_name(actual),
                    platform_name(target)
                );
                self.warn(INVALID_BASE_IMAGE_PLATFORM, stage.lines, message);
            }
        }
        StageState { environment: image.environment, has_shell: image.has_shell, known: true, ..StageState::default() }
    }

    fn step(&mut self, step: &Step, state: &mut StageState, global: &Environment) {
        let mut seen = Seen::default();
        let escape = self.dockerfile.directives.escape;
        let Ok(instruction) = step.instruction.expand(escape, &state.environment, &mut seen) else { return };
        match &instruction {
            Instruction::Env(pairs) => self.pairs("ENV", pairs, step, state),
            Instruction::Label(pairs) => self.legacy(pairs, step),
            Instruction::Arg(arguments) => {
                for argument in arguments {
                    self.secret("ARG", &argument.name, step.lines);
                    let given = self.facts.given;
                    let value = arguments::declared(argument, escape, given, global, &state.environment, &mut seen);
                    if let (Ok(Some(value)), true) = (value, is_for_commands(&argument.name)) {
                        state.environment.set(&argument.name, &value);
                    }
                    state.declared.insert(argument.name.clone());
                }
            }
            Instruction::Maintainer(_) => {
                self.warn(
                    MAINTAINER_DEPRECATED,
                    step.lines,
                    "Maintainer instruction is deprecated in favor of using label".to_owned(),
                );
            }
            Instruction::Cmd(command) => {
                let before = state.cmd.replace(step.lines);
                self.command(step, command, before, state.has_shell);
            }
            Instruction::Entrypoint(command) => {
                let before = state.entrypoint.replace(step.lines);
                self.command(step, command, before, state.has_shell);
            }
            Instruction::Healthcheck(check) => {
                let before = state.healthcheck.replace(step.lines);
                self.once(step, before);
                debug_assert!(matches!(check.test, HealthcheckTest::None | HealthcheckTest::Command(_)));
            }
            Instruction::Shell(_) => state.has_shell = true,
            Instruction::Workdir(path) => {
                if !state.workdir && !path.starts_with('/') {
                    let message =
                        format!("Relative workdir {path:?} can have unexpected results if the base image changes");
                    self.warn(WORKDIR_RELATIVE_PATH, step.lines, message);
                }
                state.workdir = true;
            }
            Instruction::Expose(ports) => self.ports(ports, step),
            Instruction::Copy(copy) if copy.from.is_none() => self.sources("Copy", &copy.sources.paths, step),
            Instruction::Add(add) => self.sources("Add", &add.sources.paths, step),
            _ => {}
        }
        if state.known {
            self.undefined(step, &seen, state);
        }
    }

    fn undefined(&mut self, step: &Step, seen: &Seen, state: &StageState) {
        let unset = seen.unset.iter().filter(|name| !state.declared.contains(*name) && is_for_commands(name));
        for name in unset {
            let hint = suggest(name, state.environment.names());
            let hint = hint.map(|near| format!(" (did you mean ${near}?)")).unwrap_or_default();
            self.warn(UNDEFINED_VAR, step.lines, format!("Usage of undefined variable '${name}'{hint}"));
        }
    }

    fn pairs(&mut self, instruction: &str, pairs: &[Pair], step: &Step, state: &mut StageState) {
        self.legacy(pairs, step);
        for pair in pairs {
            self.secret(instruction, &pair.name, step.lines);
            state.environment.set(&pair.name, &pair.value);
        }
    }

    fn legacy(&mut self, pairs: &[Pair], step: &Step) {
        if pairs.iter().any(|pair| pair.form == PairForm::Spaced) {
            let name = &step.keyword;
            let message = format!("\"{name} key=value\" should be used instead of legacy \"{name} key value\" format");
            self.warn(LEGACY_KEY_VALUE, step.lines, message);
        }
    }

    fn secret(&mut self, instruction: &str, name: &str, lines: LineRange) {
        const SECRET: &[&str] =
            &["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"];
        let words: Vec<String> = name.split('_').map(str::to_ascii_lowercase).collect();
        let has = |list: &[&str]| words.iter().any(|word| list.contains(&word.as_str()));
        if has(SECRET) && !has(&["public", "file", "version"]) {
            let message = format!("Do not use ARG or ENV instructions for sensitive data ({instruction} {name:?})");
            self.warn(SECRETS_IN_ARG_OR_ENV, lines, message);
        }
    }

    fn command(&mut self, step: &Step, command: &CommandLine, before: Option<LineRange>, has_shell: bool) {
        self.once(step, before);
        if matches!(command, CommandLine::Shell(_)) && !has_shell {
            let name = &step.keyword;
            let message =
                format!("JSON arguments recommended for {name} to prevent unintended behavior related to OS signals");
            self.warn(JSON_ARGS_RECOMMENDED, step.lines, message);
        }
    }

    /// The one before is named, as it is the one without effect.
    fn once(&mut self, step: &Step, before: Option<LineRange>) {
        let Some(lines) = before else { return };
        let name = &step.keyword;
        let message = format!(
            "Multiple {name} instructions should not be used in the same stage because only the last one will be used"
        );
        self.warn(MULTIPLE_INSTRUCTIONS, lines, message);
    }

    fn ports(&mut self, ports: &[String], step: &Step) {
        for port in ports {
            let Ok((_, form)) = parse_ports(port) else { continue };
            if form.upper_case {
                let message = format!("Defined protocol '{port}' in EXPOSE instruction should be lowercase");
                self.warn(EXPOSE_PROTO_CASING, step.lines, message);
            }
            if form.mapping {
                let message =
                    format!("EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'");
                self.warn(EXPOSE_INVALID_FORMAT, step.lines, message);
            }
        }
    }

    /// With exceptions it cannot be told beforehand what of a directory is there.
    fn sources(&mut self, verb: &str, paths: &[String], step: &Step) {
        let Some(ignore) = self.facts.ignore.filter(|ignore| !ignore.has_exceptions()) else { return };
        for path in paths.iter().filter(|path| !path.contains("://")) {
            let clean = clean_path(path);
            let ignored = match clean.as_str() {
                "." | "/" => ignore.ignores_root(),
                path => ignore.matches(path),
            };
            if ignored {
                let message = format!("Attempting to {verb} file {clean:?} that is excluded by .dockerignore");
                self.warn(COPY_IGNORED_FILE, step.lines, message);
            }
        }
    }
}

fn is_lower(text: &str) -> bool {
    text == text.to_lowercase()
}

fn is_upper(text: &str) -> bool {
    text == text.to_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, ignore: &str, choice: &str) -> Vec<String> {
        let host =
            Platform { os: "linux".into(), architecture: "amd64".into(), variant: String::new(), ..Platform::host() };
        let other = Platform { architecture: "arm64".into(), ..host.clone() };
        let base = |name: &str| {
            let environment = Environment::of(&["PATH=/bin".into()]);
            let platform = Some(if name == "arm" { other.clone() } else { host.clone() });
            (name != "unknown").then_some(BaseImage { environment, platform, has_shell: false })
        };
        let ignore = Ignore::parse(ignore).unwrap();
        let facts = Facts {
            given: &Given::new(),
            build: &host,
            target: &host,
            target_stage: None,
            ignore: Some(&ignore),
            base: &base,
        };
        let dockerfile = crate::parse(text).unwrap();
        let warnings = lint(&dockerfile, &facts, &Choice::parse(choice).unwrap());
        warnings.into_iter().map(|w| format!("{}:{}: {}", w.lines.first, w.rule.name, w.message)).collect()
    }

    #[test]
    fn every_rule() {
        let cases: &[(&str, &str)] = &[
            ("FROM a AS Bb", "1:StageNameCasing: Stage name 'Bb' should be lowercase"),
            ("FROM a as b", "1:FromAsCasing: 'as' and 'FROM' keywords' casing do not match"),
            ("FROM a\nRUN x \\\n\n y", "4:NoEmptyContinuation: Empty continuation line"),
            (
                "FROM a\nrun x\nRUN y",
                "2:ConsistentInstructionCasing: Command 'run' should match the case of the command majority (uppercase)",
            ),
            (
                "FROM a AS b\nFROM a AS b",
                "2:DuplicateStageName: Duplicate stage name \"b\", stage names should be unique",
            ),
            (
                "FROM a AS context",
                "1:ReservedStageName: Stage name should not use the same name as reserved stage \"context\"",
            ),
            (
                "FROM a\nCMD x",
                "2:JSONArgsRecommended: JSON arguments recommended for CMD to prevent unintended behavior related to OS signals",
            ),
            (
                "FROM a\nMAINTAINER x",
                "2:MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label",
            ),
            (
                "ARG VERSION=1\nFROM a:${VERSON}x",
                "2:UndefinedArgInFrom: FROM argument 'VERSON' is not declared (did you mean VERSION?)",
            ),
            (
                "FROM a\nWORKDIR x\nWORKDIR y",
                "2:WorkdirRelativePath: Relative workdir \"x\" can have unexpected results if the base image changes",
            ),
            ("FROM a\nUSER $PATHS", "2:UndefinedVar: Usage of undefined variable '$PATHS' (did you mean $PATH?)"),
            (
                "FROM a\nCMD [\"x\"]\nCMD [\"y\"]",
                "2:MultipleInstructionsDisallowed: Multiple CMD instructions should not be used in the same stage because only the \
                 last one will be used",
            ),
            (
                "FROM a\nENV a b",
                "2:LegacyKeyValueFormat: \"ENV key=value\" should be used instead of legacy \"ENV key value\" format",
            ),
            (
                "FROM arm",
                "1:InvalidBaseImagePlatform: Base image arm was pulled with platform \"linux/arm64\", expected \"linux/amd64\" for \
                 current build",
            ),
            (
                "FROM --platform=$TARGETPLATFORM a",
                "1:RedundantTargetPlatform: Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the \
                 default behavior",
            ),
            (
                "FROM a\nARG DB_PASSWORD",
                "2:SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ARG \"DB_PASSWORD\")",
            ),
            (
                "ARG T\nFROM a:$T",
                "2:InvalidDefaultArgInFrom: Default value for ARG a:$T results in empty or invalid base image name",
            ),
            (
                "FROM --platform=linux/amd64 a",
                "1:FromPlatformFlagConstDisallowed: FROM --platform flag should not use constant value \"linux/amd64\"",
            ),
            (
                "FROM a\nCOPY secret/x /",
                "2:CopyIgnoredFile: Attempting to Copy file \"secret/x\" that is excluded by .dockerignore",
            ),
            (
                "FROM a\nEXPOSE 80/TCP",
                "2:ExposeProtoCasing: Defined protocol '80/TCP' in EXPOSE instruction should be lowercase",
            ),
            (
                "FROM a\nEXPOSE 1:80",
                "2:ExposeInvalidFormat: EXPOSE instruction should not define an IP address or host-port mapping, found '1:80'",
            ),
            (
                "# bla\nARG X=1\nFROM a",
                "2:InvalidDefinitionDescription: Comment for ARG should follow the format: `# X <description>`",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(check(text, "secret", "experimental=all"), [*expected], "{text}");
        }
    }

    #[test]
    fn a_good_file_gives_no_warning() {
        let text = "# V which version\nARG V=1\nFROM --platform=$BUILDPLATFORM a:$V AS b\nARG V\nENV X=$V Y=$PATH\nWORKDIR /x\n\
                    COPY $X /\nENTRYPOINT [\"x\"]\nCMD [\"y\"]\nFROM b\nUSER $X\nARG PUBLIC_KEY\nFROM unknown\nUSER $ANY";
        assert_eq!(check(text, "", "experimental=all"), [""; 0]);
    }

    #[test]
    fn rules_can_be_chosen() {
        let text = "FROM a\nMAINTAINER x\nCMD x";
        assert_eq!(check(text, "", "skip=JSONArgsRecommended").len(), 1);
        assert_eq!(check(text, "", "skip=all"), [""; 0]);
        assert!(Choice::parse("error=true;skip=A, B").unwrap().error);
        assert!(Choice::parse("bla").is_err() && Choice::parse("x=y").is_err());
    }
}
