//! The OCI runtime's command line: global options, the choice of a command, and how errors are told.

mod arguments;
mod checkpoint;
mod console;
mod container;
mod create;
mod events;
mod exec;
mod foreground;
mod inspect;
mod log;
mod notify;
mod operate;
mod spec;
mod time;
mod update;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use arguments::{Arguments, UsageError};
use log::{Log, LogFormat};
use runtime::{CgroupAccess, CgroupManager};

const USAGE: &str = "\
conex-runtime runs containers by the OCI runtime specification

usage: conex-runtime [global options] command [options] [arguments]

commands:
  create start run exec state kill delete list ps pause resume update events features spec checkpoint restore
  monitor init    for the engine

global options:
  --root DIR             where the state of containers is kept
  --log FILE             where errors and warnings go too
  --log-format FORMAT    text (default) or json
  --debug                more of them
  --systemd-cgroup       let systemd make the cgroups
  --rootless BOOL|auto   do without a cgroup where none may be made (auto: for other users than root)
  --version, -v          print the version
  --help, -h             print this
";

/// What `exec` returns when the program did not run.
const EXEC_FAILED: u8 = 255;

/// What the options before the command say.
#[derive(Debug)]
pub(super) struct Global {
    root: PathBuf,
    log: Log,
    cgroups: CgroupManager,
    cgroup_access: CgroupAccess,
}

/// Why a command ended without success.
#[derive(Debug, thiserror::Error)]
pub(super) enum CommandError {
    /// The command line makes no sense.
    #[error(transparent)]
    Usage(#[from] UsageError),
    /// The runtime failed.
    #[error(transparent)]
    Runtime(#[from] runtime::Error),
    /// A container could not be created.
    #[error("{command} failed: unable to start container process: {source}")]
    Start {
        /// Which command, in runc's words.
        command: &'static str,
        /// Why.
        source: runtime::Error,
    },
    /// A file of the caller's.
    #[error("{subject}: {source}")]
    File {
        /// Which one, and what was tried.
        subject: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A file of the caller's is not what it should be.
    #[error("{subject}: {source}")]
    Json {
        /// Which one.
        subject: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The command is not possible now, or not with these options.
    #[error("{0}")]
    Refused(String),
}

impl CommandError {
    fn file(subject: impl Into<String>) -> impl FnOnce(std::io::Error) -> CommandError {
        let subject = subject.into();
        |source| CommandError::File { subject, source }
    }

    fn system(subject: impl Into<String>) -> impl FnOnce(linux::Errno) -> CommandError {
        let subject = subject.into();
        |errno| CommandError::File { subject, source: errno.into() }
    }
}

/// Tells an error where nobody asked for another place.
pub(super) fn report(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("conex-runtime: {error}");
    ExitCode::FAILURE
}

/// Runs a command line.
pub(super) fn run(arguments: Vec<OsString>) -> ExitCode {
    let mut arguments = Arguments::new(arguments);
    let (global, command) = match parse_global(&mut arguments) {
        Ok(Parsed::Command(global, command)) => (global, command),
        Ok(Parsed::Answered) => return ExitCode::SUCCESS,
        Err(error) => return report(&error),
    };
    match dispatch(&global, &command, arguments) {
        Ok(code) => code,
        Err(error) => {
            global.log.error(&error.to_string());
            eprintln!("{error}");
            // As runc: the codes below are those of programs.
            if command == "exec" { ExitCode::from(EXEC_FAILED) } else { ExitCode::FAILURE }
        }
    }
}

enum Parsed {
    Command(Global, String),
    Answered,
}

fn parse_global(arguments: &mut Arguments) -> Result<Parsed, UsageError> {
    let (mut root, mut log_path, mut format, mut cgroups) = (None, None, LogFormat::Text, CgroupManager::Files);
    let (mut debug, mut cgroup_access) = (false, access_of_user());
    let command = loop {
        match arguments.next()?.as_deref() {
            None => {
                print(USAGE);
                return Ok(Parsed::Answered);
            }
            Some("--root") => root = Some(PathBuf::from(arguments.value()?)),
            Some("--log") => log_path = Some(PathBuf::from(arguments.value()?)),
            Some("--log-format") => format = LogFormat::parse(&arguments.value()?)?,
            Some("--debug") => debug = arguments.switch()?,
            Some("--systemd-cgroup") => {
                cgroups = if arguments.switch()? { CgroupManager::Systemd } else { CgroupManager::Files };
            }
            Some("--rootless") => cgroup_access = rootless(&arguments.value()?)?,
            Some("--version" | "-v") => {
                print(&format!(
                    "conex-runtime version {}\nspec: {}\n",
                    env!("CARGO_PKG_VERSION"),
                    oci::runtime::VERSION
                ));
                return Ok(Parsed::Answered);
            }
            Some("--help" | "-h" | "help") => {
                print(USAGE);
                return Ok(Parsed::Answered);
            }
            Some(option) if option.starts_with('-') => return Err(arguments.unknown(option)),
            Some(command) => break command.to_owned(),
        }
    };
    let root = root.unwrap_or_else(default_root);
    Ok(Parsed::Command(Global { root, log: Log::new(log_path, format, debug), cgroups, cgroup_access }, command))
}

fn rootless(text: &str) -> Result<CgroupAccess, UsageError> {
    match text {
        "auto" => Ok(access_of_user()),
        "true" | "1" | "t" | "T" | "TRUE" | "True" => Ok(CgroupAccess::WherePermitted),
        "false" | "0" | "f" | "F" | "FALSE" | "False" => Ok(CgroupAccess::Required),
        _ => Err(UsageError::new(format!("invalid value {text:?} for --rootless: true, false or auto"))),
    }
}

/// Root of the machine may make any cgroup; root of a user namespace, or nobody in particular, only what was given.
fn access_of_user() -> CgroupAccess {
    let all_ids = |text: String| text.split_ascii_whitespace().eq(["0", "0", "4294967295"]);
    let in_own_namespace = std::fs::read_to_string("/proc/self/uid_map").map_or(true, all_ids);
    if rustix::process::geteuid().is_root() && in_own_namespace {
        CgroupAccess::Required
    } else {
        CgroupAccess::WherePermitted
    }
}

/// Root's containers are in /run; a user's in the user's runtime directory.
fn default_root() -> PathBuf {
    let user_directory = std::env::var_os("XDG_RUNTIME_DIR").filter(|_| !rustix::process::geteuid().is_root());
    PathBuf::from(user_directory.unwrap_or_else(|| "/run".into())).join("conex-runtime")
}

fn dispatch(global: &Global, command: &str, arguments: Arguments) -> Result<ExitCode, CommandError> {
    match command {
        "create" => create::create(global, arguments),
        "run" => create::run(global, arguments),
        "start" => operate::start(global, arguments),
        "exec" => exec::exec(global, arguments),
        "state" => inspect::state(global, arguments),
        "kill" => operate::kill(global, arguments),
        "delete" => operate::delete(global, arguments),
        "pause" => operate::pause(global, arguments),
        "resume" => operate::resume(global, arguments),
        "list" => inspect::list(global, arguments),
        "ps" => inspect::ps(global, arguments),
        "update" => update::update(global, arguments),
        "events" => events::events(global, arguments),
        "checkpoint" => checkpoint::checkpoint(global, arguments),
        "restore" => checkpoint::restore(global, arguments),
        "features" => inspect::features(arguments),
        "spec" => spec::spec(arguments),
        other => Err(UsageError::new(format!("no such command: {other}")).into()),
    }
}

/// Prints what a command was asked for.
#[allow(clippy::print_stdout, reason = "this is the one place where the runtime prints")]
fn print(text: &str) {
    print!("{text}");
}
