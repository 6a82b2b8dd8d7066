//! Instructions as values.

use std::time::Duration;

use crate::environment::Environment;
use crate::expand::{ExpandError, Expanded, Expander};
use crate::lines::Escape;
use crate::mount::{Mount, MountError};

/// One instruction but `FROM`, which begins a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instruction {
    /// `ADD`
    Add(Add),
    /// `ARG`
    Arg(Vec<Argument>),
    /// `CMD`
    Cmd(CommandLine),
    /// `COPY`
    Copy(Copy),
    /// `ENTRYPOINT`
    Entrypoint(CommandLine),
    /// `ENV`
    Env(Vec<Pair>),
    /// `EXPOSE`: words with variables; [`parse_ports`](crate::parse_ports) reads them.
    Expose(Vec<String>),
    /// `HEALTHCHECK`
    Healthcheck(Healthcheck),
    /// `LABEL`
    Label(Vec<Pair>),
    /// `MAINTAINER`
    Maintainer(String),
    /// `ONBUILD`: the trigger as text.
    OnBuild(String),
    /// `RUN`
    Run(Run),
    /// `SHELL`
    Shell(Vec<String>),
    /// `STOPSIGNAL`
    StopSignal(String),
    /// `USER`
    User(String),
    /// `VOLUME`
    Volume(Vec<String>),
    /// `WORKDIR`
    Workdir(String),
}

/// A command as a list of arguments, or as a line for a shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandLine {
    /// `["a", "b"]`
    Exec(Vec<String>),
    /// Anything else.
    Shell(String),
}

/// `NAME=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The name.
    pub name: String,
    /// The value.
    pub value: String,
    /// How it was written.
    pub form: PairForm,
}

/// How a pair was written.
#[derive(Debug, Clone, std::marker::Copy, PartialEq, Eq)]
pub enum PairForm {
    /// `NAME=VALUE`
    Assigned,
    /// `NAME VALUE`, the old way.
    Spaced,
}

/// `ARG NAME` or `ARG NAME=DEFAULT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Argument {
    /// The name.
    pub name: String,
    /// The default, unexpanded.
    pub default: Option<String>,
}

/// What ADD and COPY take, and where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources {
    /// Names and patterns in the context, URLs, repositories.
    pub paths: Vec<String>,
    /// Heredocs.
    pub files: Vec<InlineFile>,
    /// Where they go.
    pub destination: String,
}

/// A file written in the Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InlineFile {
    /// Its name.
    pub name: String,
    /// Its contents.
    pub content: String,
    /// Whether variables in it are replaced.
    pub expand: bool,
}

/// `ADD`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Add {
    /// From what to where.
    pub sources: Sources,
    /// `--chown`
    pub chown: Option<String>,
    /// `--chmod`
    pub chmod: Option<String>,
    /// `--link`
    pub link: bool,
    /// `--keep-git-dir`
    pub keep_git_dir: Option<bool>,
    /// `--checksum`
    pub checksum: Option<String>,
    /// `--unpack`
    pub unpack: Option<bool>,
    /// `--exclude`
    pub exclude: Vec<String>,
}

/// `COPY`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// From what to where.
    pub sources: Sources,
    /// `--from`: a stage, its number, an image or a named context.
    pub from: Option<String>,
    /// `--chown`
    pub chown: Option<String>,
    /// `--chmod`
    pub chmod: Option<String>,
    /// `--link`
    pub link: bool,
    /// `--parents`
    pub parents: bool,
    /// `--exclude`
    pub exclude: Vec<String>,
}

/// `RUN`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// What to run.
    pub command: CommandLine,
    /// Heredocs in it.
    pub heredocs: Vec<crate::Heredoc>,
    /// `--mount`, unexpanded; [`Run::mounts`] reads them.
    pub mounts: Vec<String>,
    /// `--network`
    pub network: Network,
    /// `--security`
    pub security: Security,
    /// `--device`
    pub devices: Vec<String>,
    /// The options that were given, for faces that do not allow them.
    pub flags: Vec<&'static str>,
}

/// `RUN --network`.
#[derive(Debug, Clone, std::marker::Copy, PartialEq, Eq, Default)]
pub enum Network {
    /// What the build uses.
    #[default]
    Default,
    /// None.
    None,
    /// The host's.
    Host,
}

/// `RUN --security`.
#[derive(Debug, Clone, std::marker::Copy, PartialEq, Eq, Default)]
pub enum Security {
    /// As containers are.
    #[default]
    Sandbox,
    /// Privileged.
    Insecure,
}

/// `HEALTHCHECK`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Healthcheck {
    /// What to run.
    pub test: HealthcheckTest,
    /// `--interval`; zero inherits.
    pub interval: Duration,
    /// `--timeout`; zero inherits.
    pub timeout: Duration,
    /// `--start-period`; zero inherits.
    pub start_period: Duration,
    /// `--start-interval`; zero inherits.
    pub start_interval: Duration,
    /// `--retries`; zero inherits.
    pub retries: u32,
}

/// What a health check runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HealthcheckTest {
    /// `NONE`: not even what the base image runs.
    None,
    /// `CMD …`
    Command(CommandLine),
}

impl CommandLine {
    /// The arguments to execute: a line is given to `shell`.
    pub fn arguments(&self, shell: &[String]) -> Vec<String> {
        match self {
            CommandLine::Exec(arguments) => arguments.clone(),
            CommandLine::Shell(line) if line.is_empty() => shell.to_vec(),
            CommandLine::Shell(line) => shell.iter().chain([line]).cloned().collect(),
        }
    }
}

impl Run {
    /// The mounts, with their values expanded.
    pub fn mounts(
        &self,
        expand: &mut dyn FnMut(&str) -> Result<String, ExpandError>,
    ) -> Result<Vec<Mount>, MountError> {
        self.mounts.iter().map(|text| Mount::parse(text, expand)).collect()
    }
}

/// What expansion found besides its result.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// Variables that were used and are not set.
    pub unset: std::collections::BTreeSet<String>,
}

impl Instruction {
    /// The instruction with its variables replaced, quotes and escapes removed, by Docker's rules for each: `RUN`, `CMD` and
    /// `ENTRYPOINT` are left to the shell, and so is `HEALTHCHECK`. `ARG` is expanded by [`arguments`](crate::arguments).
    pub fn expand(
        &self,
        escape: Escape,
        environment: &Environment,
        seen: &mut Seen,
    ) -> Result<Instruction, ExpandError> {
        let mut words = WordExpansion { expander: Expander::new(escape.char()), environment, seen };
        Ok(match self {
            Instruction::Add(add) => Instruction::Add(words.add(add)?),
            Instruction::Copy(copy) => Instruction::Copy(words.copy(copy)?),
            Instruction::Env(pairs) => Instruction::Env(words.pairs(pairs)?),
            Instruction::Label(pairs) => Instruction::Label(words.pairs(pairs)?),
            Instruction::Expose(ports) => Instruction::Expose(words.split(ports)?),
            Instruction::StopSignal(signal) => Instruction::StopSignal(words.word(signal)?),
            Instruction::User(user) => Instruction::User(words.word(user)?),
            Instruction::Volume(paths) => Instruction::Volume(words.list(paths)?),
            Instruction::Workdir(path) => Instruction::Workdir(words.word(path)?),
            Instruction::Arg(_)
            | Instruction::Cmd(_)
            | Instruction::Entrypoint(_)
            | Instruction::Healthcheck(_)
            | Instruction::Maintainer(_)
            | Instruction::OnBuild(_)
            | Instruction::Run(_)
            | Instruction::Shell(_) => self.clone(),
        })
    }

    /// The instruction's name in upper case.
    pub fn name(&self) -> &'static str {
        match self {
            Instruction::Add(_) => "ADD",
            Instruction::Arg(_) => "ARG",
            Instruction::Cmd(_) => "CMD",
            Instruction::Copy(_) => "COPY",
            Instruction::Entrypoint(_) => "ENTRYPOINT",
            Instruction::Env(_) => "ENV",
            Instruction::Expose(_) => "EXPOSE",
            Instruction::Healthcheck(_) => "HEALTHCHECK",
            Instruction::Label(_) => "LABEL",
            Instruction::Maintainer(_) => "MAINTAINER",
            Instruction::OnBuild(_) => "ONBUILD",
            Instruction::Run(_) => "RUN",
            Instruction::Shell(_) => "SHELL",
            Instruction::StopSignal(_) => "STOPSIGNAL",
            Instruction::User(_) => "USER",
            Instruction::Volume(_) => "VOLUME",
            Instruction::Workdir(_) => "WORKDIR",
        }
    }
}

/// One instruction's expansion: values are fixed for the whole instruction.
struct WordExpansion<'a> {
    expander: Expander,
    environment: &'a Environment,
    seen: &'a mut Seen,
}

impl WordExpansion<'_> {
    fn expanded(&mut self, expander: Expander, word: &str) -> Result<Expanded, ExpandError> {
        let expanded = expander.expand(word, self.environment)?;
        self.seen.unset.extend(expanded.unset.iter().cloned());
        Ok(expanded)
    }

    fn word(&mut self, word: &str) -> Result<String, ExpandError> {
        Ok(self.expanded(self.expander, word)?.text)
    }

    fn optional(&mut self, word: Option<&String>) -> Result<Option<String>, ExpandError> {
        word.map(|word| self.word(word)).transpose()
    }

    fn list(&mut self, words: &[String]) -> Result<Vec<String>, ExpandError> {
        words.iter().map(|word| self.word(word)).collect()
    }

    /// One word may become several.
    fn split(&mut self, words: &[String]) -> Result<Vec<String>, ExpandError> {
        let mut split = Vec::new();
        for word in words {
            split.extend(self.expanded(self.expander, word)?.words);
        }
        Ok(split)
    }

    fn pairs(&mut self, pairs: &[Pair]) -> Result<Vec<Pair>, ExpandError> {
        let mut expanded = Vec::with_capacity(pairs.len());
        for pair in pairs {
            expanded.push(Pair { name: self.word(&pair.name)?, value: self.word(&pair.value)?, form: pair.form });
        }
        Ok(expanded)
    }

    fn sources(&mut self, sources: &Sources) -> Result<Sources, ExpandError> {
        let mut files = sources.files.clone();
        for file in files.iter_mut().filter(|file| file.expand) {
            file.content = self.expanded(Expander::raw(), &file.content)?.text;
        }
        let destination = self.word(&sources.destination)?;
        Ok(Sources { paths: self.list(&sources.paths)?, files, destination })
    }

    fn add(&mut self, add: &Add) -> Result<Add, ExpandError> {
        Ok(Add {
            sources: self.sources(&add.sources)?,
            chown: self.optional(add.chown.as_ref())?,
            chmod: self.optional(add.chmod.as_ref())?,
            checksum: self.optional(add.checksum.as_ref())?,
            ..add.clone()
        })
    }

    fn copy(&mut self, copy: &Copy) -> Result<Copy, ExpandError> {
        Ok(Copy {
            sources: self.sources(&copy.sources)?,
            chown: self.optional(copy.chown.as_ref())?,
            chmod: self.optional(copy.chmod.as_ref())?,
            ..copy.clone()
        })
    }
}
