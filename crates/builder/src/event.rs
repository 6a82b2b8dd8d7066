//! What a build tells while it works.

use oci::Digest;

/// Which step of a build: stages, copies, commands and what the builder does by itself are counted together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepId(pub u32);

/// A step as a reader wants to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// Of which stage, by its place in the Dockerfile; none for what the builder does by itself.
    pub stage: Option<usize>,
    /// `[2/3] RUN make`, with the stage's name where there are several.
    pub title: String,
    /// The instruction as it is written.
    pub text: String,
    /// Its number among all instructions, from 1, and how many there are. Steps that nobody wrote have none.
    pub number: Option<(usize, usize)>,
    /// The steps that it begins with.
    pub inputs: Vec<StepId>,
    /// Whether it makes something; the others only change the configuration.
    pub makes_files: bool,
}

/// What happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A step begins.
    Begin(StepId, Description),
    /// Its result was there already.
    Cached(StepId),
    /// It has to run, because of this.
    Because(StepId, Vec<String>),
    /// A container runs.
    Running(StepId, String),
    /// What a command writes.
    Output(StepId, Output, Vec<u8>),
    /// The container is gone.
    Removed(StepId, String),
    /// How far a part of the step is.
    Progress(StepId, Progress),
    /// How large the layer is that it made, or that was there already, in bytes.
    Size(StepId, u64),
    /// The state that the step left, by the digest of its configuration.
    State(StepId, Digest),
    /// The step is over, well or with an error.
    End(StepId, Option<String>),
    /// Something that is better known.
    Warning(String),
    /// A lint rule is broken.
    Lint(LintWarning),
}

/// Where a command writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Its standard output.
    Stdout,
    /// Its standard error.
    Stderr,
}

/// How far something is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// What.
    pub name: String,
    /// Bytes so far.
    pub current: u64,
    /// Bytes in all, where that is known.
    pub total: Option<u64>,
    /// Whether it is over.
    pub done: bool,
}

/// A broken lint rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LintWarning {
    /// The rule's name.
    pub rule: String,
    /// What the rule asks for.
    pub description: String,
    /// What is wrong.
    pub message: String,
    /// The lines it is about, from 1.
    pub lines: Option<(usize, usize)>,
    /// Where to read more, in BuildKit's documentation.
    pub file: String,
}

/// Takes events from whichever thread.
pub type Sink<'a> = &'a (dyn Fn(Event) + Sync);
