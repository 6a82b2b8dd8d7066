//! The Dockerfile instructions that `import --change` and `commit --change` accept.
//!
//! [`Change::parse_all`] is pure: it turns text into instructions whose words are still unexpanded, because `$NAME` means
//! the environment at the moment when the change is applied. [`Change::apply`] does that.

use std::time::Duration;

use oci::image::{ContainerConfig, Healthcheck};

mod words;

use words::{Environment, split_words};

/// One instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// `CMD`
    Cmd(Command),
    /// `ENTRYPOINT`
    Entrypoint(Command),
    /// `ENV`
    Env(Vec<(String, String)>),
    /// `EXPOSE`
    Expose(Vec<String>),
    /// `LABEL`
    Label(Vec<(String, String)>),
    /// `USER`
    User(String),
    /// `VOLUME`
    Volume(Vec<String>),
    /// `WORKDIR`
    Workdir(String),
    /// `STOPSIGNAL`
    StopSignal(String),
    /// `HEALTHCHECK`
    Healthcheck(HealthcheckChange),
    /// `ONBUILD`
    OnBuild(String),
    /// `SHELL`
    Shell(Vec<String>),
}

/// A command as a list of arguments, or as a line for a shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// `["a", "b"]`
    Exec(Vec<String>),
    /// Anything else.
    Shell(String),
}

/// A health check as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HealthcheckChange {
    /// `HEALTHCHECK NONE`
    Disabled,
    /// `HEALTHCHECK [options] CMD …`
    Test {
        /// What to run.
        command: Command,
        /// The options that were given.
        options: HealthcheckOptions,
    },
}

/// The options of a health check; `None` inherits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HealthcheckOptions {
    /// `--interval`
    pub interval: Option<Duration>,
    /// `--timeout`
    pub timeout: Option<Duration>,
    /// `--start-period`
    pub start_period: Option<Duration>,
    /// `--start-interval`
    pub start_interval: Option<Duration>,
    /// `--retries`
    pub retries: Option<u32>,
}

/// Why a change is refused; the messages are Docker's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// The instruction exists, or does not, but cannot be used here.
    #[error("{0} is not a valid change command")]
    NotAllowed(String),
    /// An instruction without its argument.
    #[error("{0} requires at least one argument")]
    ArgumentMissing(&'static str),
    /// An instruction with more than its one argument.
    #[error("{0} requires exactly one argument")]
    OneArgument(&'static str),
    /// `NAME=VALUE` was expected.
    #[error("can't find = in {word:?}. Must be of the form: name=value")]
    NotKeyValue {
        /// What was found.
        word: String,
    },
    /// `ENV NAME` or `LABEL NAME` alone.
    #[error("{0} must have two arguments")]
    TwoArguments(&'static str),
    /// `=VALUE`.
    #[error("{0} names can not be blank")]
    BlankName(&'static str),
    /// A quote or a brace that is never closed, or an unknown `${…}` form.
    #[error("failed to process {word:?}: {reason}")]
    Word {
        /// What was found.
        word: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A port that is none.
    #[error("invalid containerPort: {0}")]
    Port(String),
    /// A protocol other than tcp, udp and sctp.
    #[error("invalid proto: {0}")]
    Protocol(String),
    /// A signal that Linux does not have.
    #[error("invalid signal: {0}")]
    Signal(String),
    /// A health check's option is unknown.
    #[error("unknown flag: {0}")]
    UnknownFlag(String),
    /// A health check's option has no sensible value.
    #[error("invalid value {value:?} for flag {flag} of HEALTHCHECK")]
    FlagValue {
        /// The flag.
        flag: String,
        /// Its value.
        value: String,
    },
    /// Neither `NONE` nor `CMD`.
    #[error("unknown type {0:?} in HEALTHCHECK (try CMD)")]
    HealthcheckType(String),
    /// `HEALTHCHECK NONE` with arguments.
    #[error("HEALTHCHECK NONE takes no arguments")]
    HealthcheckNone,
    /// An instruction that cannot be triggered.
    #[error("{0} isn't allowed as an ONBUILD trigger")]
    OnBuildTrigger(String),
    /// `SHELL` without a list.
    #[error("SHELL requires the arguments to be in JSON form")]
    ShellForm,
    /// `VOLUME ""`.
    #[error("VOLUME specified can not be an empty string")]
    EmptyVolume,
}

impl Change {
    /// Parses the instructions in `text`, one a line; a backslash at the end of a line continues it, `#` starts a comment line.
    pub fn parse_all(text: &str) -> Result<Vec<Change>, ChangeError> {
        logical_lines(text).iter().map(|line| parse_line(line)).collect()
    }

    /// Applies `changes` in their order.
    pub fn apply_all(changes: &[Change], config: &mut ContainerConfig) -> Result<(), ChangeError> {
        let mut command_was_set = false;
        for change in changes {
            // An entry point of one's own makes the inherited arguments meaningless, unless they were given with it.
            if matches!(change, Change::Entrypoint(_)) && !command_was_set {
                config.cmd = None;
            }
            command_was_set |= matches!(change, Change::Cmd(_));
            change.apply(config)?;
        }
        Ok(())
    }

    fn apply(&self, config: &mut ContainerConfig) -> Result<(), ChangeError> {
        let environment = Environment::of(config.env.as_deref().unwrap_or_default());
        let expand = |word: &str| environment.expand(word);
        match self {
            Change::Cmd(command) => config.cmd = Some(command.arguments(config)),
            Change::Entrypoint(command) => config.entrypoint = Some(command.arguments(config)),
            Change::Env(pairs) => {
                for (name, value) in pairs {
                    set_variable(config.env.get_or_insert_default(), &expand(name)?, &expand(value)?);
                }
            }
            Change::Expose(ports) => {
                let words = expand_to_words(&environment, ports)?;
                for port in parse_ports(&words)? {
                    config.exposed_ports.get_or_insert_default().insert(port, Default::default());
                }
            }
            Change::Label(pairs) => {
                for (name, value) in pairs {
                    config.labels.get_or_insert_default().insert(expand(name)?, expand(value)?);
                }
            }
            Change::User(user) => config.user = expand(user)?,
            Change::Volume(paths) => {
                for path in paths {
                    config.volumes.get_or_insert_default().insert(parse_volume(&expand(path)?)?, Default::default());
                }
            }
            Change::Workdir(path) => {
                config.working_dir = joined_directory(&config.working_dir, &expand(path)?);
            }
            Change::StopSignal(signal) => config.stop_signal = parse_signal(&expand(signal)?)?,
            Change::Healthcheck(check) => config.healthcheck = Some(check.resolved()),
            Change::OnBuild(trigger) => config.on_build.get_or_insert_default().push(trigger.clone()),
            Change::Shell(arguments) => config.shell = Some(arguments.clone()),
        }
        Ok(())
    }
}

impl Command {
    fn arguments(&self, config: &ContainerConfig) -> Vec<String> {
        match self {
            Command::Exec(arguments) => arguments.clone(),
            Command::Shell(line) => {
                let mut arguments = config.shell.clone().unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned()]);
                arguments.push(line.clone());
                arguments
            }
        }
    }
}

impl HealthcheckChange {
    fn resolved(&self) -> Healthcheck {
        let HealthcheckChange::Test { command, options } = self else {
            return Healthcheck { test: vec!["NONE".to_owned()], ..Healthcheck::default() };
        };
        let nanoseconds = |duration: Option<Duration>| duration.and_then(crate::time::nanoseconds).unwrap_or_default();
        Healthcheck {
            test: match command {
                Command::Exec(arguments) => {
                    std::iter::once("CMD".to_owned()).chain(arguments.iter().cloned()).collect()
                }
                // Which shell runs it is decided when it runs, by the same configuration.
                Command::Shell(line) => vec!["CMD-SHELL".to_owned(), line.clone()],
            },
            interval: nanoseconds(options.interval),
            timeout: nanoseconds(options.timeout),
            start_period: nanoseconds(options.start_period),
            start_interval: nanoseconds(options.start_interval),
            retries: options.retries.map(i64::from).unwrap_or_default(),
        }
    }
}

/// Joins continued lines and drops comments and empty lines.
fn logical_lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut current = String::new();
    for line in text.lines() {
        if line.trim().is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        match line.trim_end().strip_suffix('\\') {
            Some(continued) => current.push_str(continued),
            None => {
                current.push_str(line);
                lines.push(std::mem::take(&mut current));
            }
        }
    }
    if !current.trim().is_empty() {
        lines.push(current);
    }
    lines
}

fn parse_line(line: &str) -> Result<Change, ChangeError> {
    let line = line.trim();
    let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let rest = rest.trim();
    Ok(match name.to_ascii_uppercase().as_str() {
        "CMD" => Change::Cmd(parse_command(rest)),
        "ENTRYPOINT" => Change::Entrypoint(parse_command(required("ENTRYPOINT", rest)?)),
        "ENV" => Change::Env(parse_pairs("ENV", rest)?),
        "EXPOSE" => Change::Expose(required("EXPOSE", rest)?.split_whitespace().map(str::to_owned).collect()),
        "LABEL" => Change::Label(parse_pairs("LABEL", rest)?),
        "USER" => Change::User(required_single("USER", rest)?),
        "VOLUME" => Change::Volume(parse_list(required("VOLUME", rest)?)),
        "WORKDIR" => Change::Workdir(required_single("WORKDIR", rest)?),
        "STOPSIGNAL" => Change::StopSignal(required_single("STOPSIGNAL", rest)?),
        "HEALTHCHECK" => Change::Healthcheck(parse_healthcheck(required("HEALTHCHECK", rest)?)?),
        "ONBUILD" => Change::OnBuild(parse_trigger(required("ONBUILD", rest)?)?),
        "SHELL" => Change::Shell(parse_json_list(rest).filter(|list| !list.is_empty()).ok_or(ChangeError::ShellForm)?),
        _ => return Err(ChangeError::NotAllowed(name.to_owned())),
    })
}

fn required<'a>(instruction: &'static str, rest: &'a str) -> Result<&'a str, ChangeError> {
    if rest.is_empty() { Err(ChangeError::ArgumentMissing(instruction)) } else { Ok(rest) }
}

/// The rest of the line as one string, as Docker takes it: `WORKDIR /a b` is a directory with a space in its name.
fn required_single(instruction: &'static str, rest: &str) -> Result<String, ChangeError> {
    if rest.is_empty() { Err(ChangeError::OneArgument(instruction)) } else { Ok(rest.to_owned()) }
}

fn parse_json_list(text: &str) -> Option<Vec<String>> {
    text.starts_with('[').then(|| serde_json::from_str(text).ok()).flatten()
}

fn parse_command(text: &str) -> Command {
    parse_json_list(text).map_or_else(|| Command::Shell(text.to_owned()), Command::Exec)
}

fn parse_list(text: &str) -> Vec<String> {
    parse_json_list(text).unwrap_or_else(|| text.split_whitespace().map(str::to_owned).collect())
}

/// `NAME=VALUE …`, or the old form `NAME VALUE WITH SPACES`.
fn parse_pairs(instruction: &'static str, rest: &str) -> Result<Vec<(String, String)>, ChangeError> {
    let words = split_words(required(instruction, rest)?);
    let first = words.first().ok_or(ChangeError::ArgumentMissing(instruction))?;
    if !first.contains('=') {
        let (name, value) = rest.split_once(char::is_whitespace).ok_or(ChangeError::TwoArguments(instruction))?;
        return Ok(vec![(name.to_owned(), value.trim_start().to_owned())]);
    }
    words.iter().map(|word| parse_pair(instruction, word)).collect()
}

fn parse_pair(instruction: &'static str, word: &str) -> Result<(String, String), ChangeError> {
    let (name, value) = word.split_once('=').ok_or_else(|| ChangeError::NotKeyValue { word: word.to_owned() })?;
    if name.is_empty() {
        return Err(ChangeError::BlankName(instruction));
    }
    Ok((name.to_owned(), value.to_owned()))
}

fn parse_healthcheck(rest: &str) -> Result<HealthcheckChange, ChangeError> {
    let mut options = HealthcheckOptions::default();
    let mut rest = rest;
    while let Some(flag_on) = rest.strip_prefix("--") {
        let (flag, after) = flag_on.split_once(char::is_whitespace).unwrap_or((flag_on, ""));
        options.set(flag)?;
        rest = after.trim_start();
    }
    let (kind, command) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    match kind.to_ascii_uppercase().as_str() {
        "NONE" if !command.trim().is_empty() => Err(ChangeError::HealthcheckNone),
        "NONE" => Ok(HealthcheckChange::Disabled),
        "CMD" => {
            let command = parse_command(required("HEALTHCHECK", command.trim())?);
            Ok(HealthcheckChange::Test { command, options })
        }
        _ => Err(ChangeError::HealthcheckType(kind.to_owned())),
    }
}

impl HealthcheckOptions {
    fn set(&mut self, text: &str) -> Result<(), ChangeError> {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        let invalid = || ChangeError::FlagValue { flag: format!("--{name}"), value: value.to_owned() };
        let duration = || crate::time::parse_go_duration(value).ok_or_else(invalid);
        match name {
            "interval" => self.interval = Some(duration()?),
            "timeout" => self.timeout = Some(duration()?),
            "start-period" => self.start_period = Some(duration()?),
            "start-interval" => self.start_interval = Some(duration()?),
            "retries" => self.retries = Some(value.parse().map_err(|_| invalid())?),
            _ => return Err(ChangeError::UnknownFlag(format!("--{name}"))),
        }
        Ok(())
    }
}

fn parse_trigger(rest: &str) -> Result<String, ChangeError> {
    let name = rest.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
    match name.as_str() {
        "ONBUILD" => Err(ChangeError::OnBuildTrigger("Chaining ONBUILD via `ONBUILD ONBUILD`".to_owned())),
        "FROM" | "MAINTAINER" => Err(ChangeError::OnBuildTrigger(name)),
        _ => Ok(rest.to_owned()),
    }
}

/// Replaces `NAME` where it is set already, as the kernel's last-one-wins would be ambiguous.
fn set_variable(environment: &mut Vec<String>, name: &str, value: &str) {
    let entry = format!("{name}={value}");
    let same = |old: &&mut String| old.split_once('=').map_or(old.as_str(), |(old, _)| old) == name;
    match environment.iter_mut().find(same) {
        Some(old) => *old = entry,
        None => environment.push(entry),
    }
}

fn expand_to_words(environment: &Environment, words: &[String]) -> Result<Vec<String>, ChangeError> {
    let mut all = Vec::new();
    for word in words {
        all.extend(environment.expand(word)?.split_whitespace().map(str::to_owned));
    }
    Ok(all)
}

/// Turns `80`, `80/udp` and `8000-8002` into `80/tcp`, `80/udp`, `8000/tcp`…
fn parse_ports(words: &[String]) -> Result<Vec<String>, ChangeError> {
    let mut ports = Vec::new();
    for word in words {
        let (range, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
        let protocol = protocol.to_ascii_lowercase();
        if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
            return Err(ChangeError::Protocol(protocol));
        }
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let port = |text: &str| text.parse::<u16>().map_err(|_| ChangeError::Port(word.clone()));
        let (first, last) = (port(first)?, port(last)?);
        if last < first {
            return Err(ChangeError::Port(word.clone()));
        }
        ports.extend((first..=last).map(|port| format!("{port}/{protocol}")));
    }
    Ok(ports)
}

fn parse_volume(path: &str) -> Result<String, ChangeError> {
    let path = path.trim();
    if path.is_empty() { Err(ChangeError::EmptyVolume) } else { Ok(path.to_owned()) }
}

/// A directory below `current` unless it is absolute, with `.` and `..` resolved and no trailing slash.
fn joined_directory(current: &str, path: &str) -> String {
    let whole = if path.starts_with('/') { path.to_owned() } else { format!("/{current}/{path}") };
    let mut parts: Vec<&str> = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    format!("/{}", parts.join("/"))
}

const SIGNALS: &[&str] = &[
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "IOT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM",
    "TERM", "STKFLT", "CHLD", "CLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF",
    "WINCH", "IO", "POLL", "PWR", "SYS", "UNUSED", "RTMIN", "RTMAX",
];
const LAST_SIGNAL: u32 = 64;

/// Checks a signal's name or number and leaves it as it was written.
fn parse_signal(text: &str) -> Result<String, ChangeError> {
    if is_signal(text) { Ok(text.to_owned()) } else { Err(ChangeError::Signal(text.to_owned())) }
}

/// Whether Linux has a signal of this name or number.
pub fn is_signal(text: &str) -> bool {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let is_real_time = |prefix: &str, sign: &str| {
        name.strip_prefix(prefix)
            .and_then(|rest| rest.strip_prefix(sign))
            .is_some_and(|n| matches!(n.parse(), Ok(1u32..=15)))
    };
    let is_number = matches!(text.parse(), Ok(1..=LAST_SIGNAL));
    is_number || SIGNALS.contains(&name) || is_real_time("RTMIN", "+") || is_real_time("RTMAX", "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(text: &str) -> Result<ContainerConfig, ChangeError> {
        let mut config = ContainerConfig { env: Some(vec!["HOME=/root".to_owned()]), ..ContainerConfig::default() };
        Change::apply_all(&Change::parse_all(text)?, &mut config)?;
        Ok(config)
    }

    fn strings(list: &[&str]) -> Option<Vec<String>> {
        Some(list.iter().map(|&text| text.to_owned()).collect())
    }

    fn keys<T>(map: Option<std::collections::BTreeMap<String, T>>) -> Vec<String> {
        map.unwrap_or_default().into_keys().collect()
    }

    #[test]
    fn commands_have_two_forms() {
        let config = applied("CMD [\"a\", \"b c\"]\nENTRYPOINT exec x $HOME").unwrap();
        assert_eq!(config.cmd, strings(&["a", "b c"]));
        assert_eq!(config.entrypoint, strings(&["/bin/sh", "-c", "exec x $HOME"]));
        let config = applied("SHELL [\"/bin/ash\",\"-ec\"]\nCMD x").unwrap();
        assert_eq!(config.cmd, strings(&["/bin/ash", "-ec", "x"]));
        assert_eq!(config.shell, strings(&["/bin/ash", "-ec"]));
        assert_eq!(
            applied("cmd ['a']").unwrap().cmd,
            strings(&["/bin/sh", "-c", "['a']"]),
            "single quotes are no JSON"
        );
    }

    #[test]
    fn an_entry_point_drops_an_inherited_command_only() {
        let mut config = ContainerConfig { cmd: strings(&["old"]), ..ContainerConfig::default() };
        Change::apply_all(&Change::parse_all("ENTRYPOINT [\"e\"]").unwrap(), &mut config).unwrap();
        assert_eq!(config.cmd, None);
        let config = applied("CMD [\"new\"]\nENTRYPOINT [\"e\"]").unwrap();
        assert_eq!(config.cmd, strings(&["new"]));
    }

    #[test]
    fn variables_are_set_replaced_and_expanded() {
        let config = applied(
            "ENV A=1 B='two words' C=\"$A-${HOME}\"\nENV A 3 and more\nENV D=${X:-none} E=${A:+yes} F=a\\ b G='$A' H=\\$A",
        )
        .unwrap();
        assert_eq!(
            config.env,
            strings(&[
                "HOME=/root",
                "A=3 and more",
                "B=two words",
                "C=-/root",
                "D=none",
                "E=yes",
                "F=a b",
                "G=$A",
                "H=$A"
            ])
        );
    }

    #[test]
    fn ports_volumes_labels_and_the_rest() {
        let config = applied(
            "EXPOSE 80 53/udp 8000-8002/TCP\nVOLUME /a /b\nVOLUME [\"/c d\"]\nLABEL a=1 \"b c\"=\"d e\"\nLABEL x y z\n\
             USER web:www\nWORKDIR /srv\nWORKDIR ../opt/./app/\nSTOPSIGNAL SIGRTMIN+3\nONBUILD RUN make\n# comment\nUSER \\\n web",
        )
        .unwrap();
        assert_eq!(keys(config.exposed_ports), ["53/udp", "80/tcp", "8000/tcp", "8001/tcp", "8002/tcp"]);
        assert_eq!(keys(config.volumes), ["/a", "/b", "/c d"]);
        let labels: Vec<_> = config.labels.unwrap().into_iter().collect();
        let expected = [("a", "1"), ("b c", "d e"), ("x", "y z")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(labels, expected);
        assert_eq!((config.user.as_str(), config.working_dir.as_str()), ("web", "/opt/app"));
        assert_eq!(config.stop_signal, "SIGRTMIN+3");
        assert_eq!(config.on_build, strings(&["RUN make"]));
    }

    #[test]
    fn health_checks() {
        let config =
            applied("HEALTHCHECK --interval=5s --timeout=1m --retries=2 CMD curl -f http://x/ || exit 1").unwrap();
        let check = config.healthcheck.unwrap();
        assert_eq!(check.test, ["CMD-SHELL", "curl -f http://x/ || exit 1"]);
        assert_eq!((check.interval, check.timeout, check.retries), (5_000_000_000, 60_000_000_000, 2));
        assert_eq!(applied("HEALTHCHECK NONE").unwrap().healthcheck.unwrap().test, ["NONE"]);
        assert_eq!(applied("HEALTHCHECK CMD [\"x\"]").unwrap().healthcheck.unwrap().test, ["CMD", "x"]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let cases = [
            ("RUN x", "RUN is not a valid change command"),
            ("FROM x", "FROM is not a valid change command"),
            ("ENV", "ENV requires at least one argument"),
            ("ENV A", "ENV must have two arguments"),
            ("ENV A=1 B", "can't find = in \"B\". Must be of the form: name=value"),
            ("LABEL =x", "LABEL names can not be blank"),
            ("EXPOSE x", "invalid containerPort: x"),
            ("EXPOSE 90-80", "invalid containerPort: 90-80"),
            ("EXPOSE 70000", "invalid containerPort: 70000"),
            ("EXPOSE 80/icmp", "invalid proto: icmp"),
            ("STOPSIGNAL NOPE", "invalid signal: NOPE"),
            ("STOPSIGNAL 65", "invalid signal: 65"),
            ("SHELL sh -c", "SHELL requires the arguments to be in JSON form"),
            ("HEALTHCHECK --nope=1 CMD x", "unknown flag: --nope"),
            ("HEALTHCHECK --retries=x CMD x", "invalid value \"x\" for flag --retries of HEALTHCHECK"),
            ("HEALTHCHECK curl", "unknown type \"curl\" in HEALTHCHECK (try CMD)"),
            ("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
            (
                "ENV A='x",
                "failed to process \"'x\": unexpected end of statement while looking for matching single-quote",
            ),
            ("ENV A=${x", "failed to process \"${x\": missing '}'"),
        ];
        for (text, message) in cases {
            assert_eq!(applied(text).unwrap_err().to_string(), message, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(ENV|EXPOSE|LABEL|HEALTHCHECK|CMD|VOLUME|STOPSIGNAL|WORKDIR) [ -~\\\\\"'${}:=]{0,60}") {
            let _ = applied(&text);
        }
    }
}
