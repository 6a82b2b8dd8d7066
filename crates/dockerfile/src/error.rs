//! What may be wrong with a Dockerfile, in BuildKit's words.

use crate::expand::ExpandError;

/// A Dockerfile that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Nothing in it.
    #[error("the Dockerfile cannot be empty")]
    Empty,
    /// Comments alone.
    #[error("file with no instructions")]
    NoInstructions,
    /// No `FROM`.
    #[error("dockerfile contains no stages to build")]
    NoStages,
    /// One instruction is wrong.
    #[error("dockerfile parse error on line {line}: {error}")]
    Line {
        /// Where it begins; the first line is 1.
        line: usize,
        /// What is wrong.
        error: SyntaxError,
    },
}

/// What is wrong with one instruction.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SyntaxError {
    /// Not an instruction.
    #[error("unknown instruction: {name}{hint}")]
    UnknownInstruction {
        /// As written.
        name: String,
        /// What was meant, perhaps.
        hint: String,
    },
    /// Something before the first `FROM` that is not `ARG`.
    #[error("no build stage in current context")]
    NoStage,
    /// A directive twice.
    #[error("only one {0} parser directive can be used")]
    RepeatedDirective(&'static str),
    /// An escape character that cannot be one.
    #[error("invalid escape token '{0}' does not match ` or \\")]
    Escape(String),
    /// A line without end.
    #[error("dockerfile line greater than max allowed size of {0}")]
    LongLine(usize),
    /// A heredoc whose end never came.
    #[error("unterminated heredoc")]
    Heredoc,
    /// A word cannot be read.
    #[error(transparent)]
    Expand(#[from] ExpandError),
    /// A list with something else than strings.
    #[error("when using JSON array syntax, arrays must be comprised of strings only")]
    NotStrings,
    /// Nothing given.
    #[error("{0} requires at least one argument")]
    AtLeastOne(&'static str),
    /// Nothing given, or more than one.
    #[error("{0} requires exactly one argument")]
    ExactlyOne(&'static str),
    /// `COPY x`.
    #[error("{0} requires at least two arguments, but only one was provided. Destination could not be determined")]
    NoDestination(&'static str),
    /// `COPY x <<EOF`.
    #[error("{0} cannot accept a heredoc as a destination")]
    HeredocDestination(&'static str),
    /// `ENV =x`.
    #[error("{0} names can not be blank")]
    BlankName(&'static str),
    /// `ENV x`.
    #[error("{0} must have two arguments")]
    TwoArguments(&'static str),
    /// `ENV a=b c`.
    #[error("Syntax error - can't find = in {0:?}. Must be of the form: name=value")]
    NotKeyValue(String),
    /// `FROM a b`.
    #[error("FROM requires either one or three arguments")]
    From,
    /// A stage name with strange letters.
    #[error("invalid name for build stage: {0:?}, name can't start with a number or contain symbols")]
    StageName(String),
    /// `SHELL sh -c`.
    #[error("SHELL requires the arguments to be in JSON form")]
    ShellForm,
    /// `VOLUME ""`.
    #[error("VOLUME specified can not be an empty string")]
    EmptyVolume,
    /// `ONBUILD ONBUILD`.
    #[error("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")]
    ChainedOnBuild,
    /// `ONBUILD FROM`.
    #[error("{0} isn't allowed as an ONBUILD trigger")]
    OnBuildTrigger(String),
    /// A trigger that is no single instruction.
    #[error("onbuild trigger should be a single expression")]
    TriggerCount,
    /// `HEALTHCHECK NONE x`.
    #[error("HEALTHCHECK NONE takes no arguments")]
    HealthcheckNone,
    /// `HEALTHCHECK CMD`.
    #[error("Missing command after HEALTHCHECK CMD")]
    HealthcheckCommand,
    /// `HEALTHCHECK x`.
    #[error("Unknown type {0:?} in HEALTHCHECK (try CMD)")]
    HealthcheckType(String),
    /// An interval that is none.
    #[error("time: invalid duration {0:?}")]
    Duration(String),
    /// An interval of less than a millisecond.
    #[error("Interval {0:?} cannot be less than 1ms")]
    ShortInterval(&'static str),
    /// Retries that are no number.
    #[error("strconv.ParseInt: parsing {0:?}: invalid syntax")]
    Retries(String),
    /// Negative retries.
    #[error("--retries cannot be negative ({0})")]
    NegativeRetries(i64),
    /// A word with dashes that is no option.
    #[error("arg should start with -- : {0}")]
    NotAFlag(String),
    /// An option that this instruction does not have.
    #[error("unknown flag: --{name}{hint}")]
    UnknownFlag {
        /// Without dashes.
        name: String,
        /// What was meant, perhaps.
        hint: String,
    },
    /// An option twice.
    #[error("duplicate flag specified: --{0}")]
    RepeatedFlag(String),
    /// An option without its value.
    #[error("missing a value on flag: --{0}")]
    FlagWithoutValue(String),
    /// Neither true nor false.
    #[error("expecting boolean value for flag --{name}, not: {value}")]
    NotBoolean {
        /// The option.
        name: String,
        /// Its value.
        value: String,
    },
    /// `RUN --network=x`.
    #[error("invalid network mode {0:?}")]
    Network(String),
    /// `RUN --security=x`.
    #[error("security {0:?} is not valid")]
    Security(String),
    /// `RUN --mount=…`.
    #[error(transparent)]
    Mount(#[from] crate::mount::MountError),
}
