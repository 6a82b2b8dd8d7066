//! Every command: its name, its options, what it does. One file a kind of object.

mod build;
mod container;
mod context;
mod copy;
mod exec;
mod image;
mod image_copy;
mod inspect;
mod logs;
mod manifest;
mod network;
mod ports;
mod registry;
mod run;
mod shell;
mod stats;
mod system;
mod tree;
mod verify;
mod volume;
mod why;

use std::io::{self, Write};

use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::context::{Context, GLOBAL};
use crate::error::{Failure, Outcome};
use crate::flags::{Flag, Takes, command, everywhere, flag, with_flags};

/// One command.
pub(crate) struct Entry {
    /// Its name at the top level, or in its group.
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    /// Its operands as Docker's usage line names them: `CONTAINER [COMMAND] [ARG...]`.
    pub(crate) operands: &'static str,
    pub(crate) after: After,
    pub(crate) flags: &'static [&'static [Flag]],
    pub(crate) run: fn(&Context, &ArgMatches) -> Outcome,
}

/// What words behind the first operand are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    /// Options still, or further operands.
    Options,
    /// The command line of a container, left alone.
    Verbatim,
}

/// Which commands get their options: making all of them takes longer than most commands run.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Detail<'a> {
    All,
    /// Those whose name is among these words.
    Named(&'a [String]),
}

/// Commands of the top level.
const TOP: &[&Entry] = &[
    &run::RUN,
    &exec::EXEC,
    &container::PS,
    &image::IMAGES,
    &run::ATTACH,
    &build::BUILD,
    &container::COMMIT,
    &copy::CP,
    &run::CREATE,
    &system::EVENTS,
    &container::DIFF,
    &container::EXPORT,
    &image::HISTORY,
    &image::IMPORT,
    &system::INFO,
    &inspect::INSPECT,
    &container::KILL,
    &image::LOAD,
    &registry::LOGIN,
    &registry::LOGOUT,
    &logs::LOGS,
    &container::PAUSE,
    &container::PORT,
    &registry::PULL,
    &registry::PUSH,
    &container::RENAME,
    &container::RESTART,
    &container::RM,
    &image::RMI,
    &image::SAVE,
    &registry::SEARCH,
    &run::START,
    &stats::STATS,
    &container::STOP,
    &image::TAG,
    &container::TOP,
    &container::UNPAUSE,
    &container::UPDATE,
    &system::VERSION,
    &container::WAIT,
    &why::WHY,
    &shell::COMPLETION,
    &shell::MAN,
];

/// The name in the group, other names for it, and the command.
type Member = (&'static str, &'static [&'static str], &'static Entry);

/// Commands about one kind of object.
type Group = (&'static str, &'static str, &'static [Member]);

const GROUPS: &[Group] = &[
    (
        "container",
        "Manage containers",
        &[
            ("attach", &[], &run::ATTACH),
            ("commit", &[], &container::COMMIT),
            ("cp", &[], &copy::CP),
            ("create", &[], &run::CREATE),
            ("diff", &[], &container::DIFF),
            ("exec", &[], &exec::EXEC),
            ("export", &[], &container::EXPORT),
            ("inspect", &[], &inspect::CONTAINER),
            ("kill", &[], &container::KILL),
            ("logs", &[], &logs::LOGS),
            ("ls", &["ps", "list"], &container::PS),
            ("pause", &[], &container::PAUSE),
            ("port", &[], &container::PORT),
            ("prune", &[], &container::PRUNE),
            ("rename", &[], &container::RENAME),
            ("restart", &[], &container::RESTART),
            ("rm", &["remove"], &container::RM),
            ("run", &[], &run::RUN),
            ("start", &[], &run::START),
            ("stats", &[], &stats::STATS),
            ("stop", &[], &container::STOP),
            ("top", &[], &container::TOP),
            ("unpause", &[], &container::UNPAUSE),
            ("update", &[], &container::UPDATE),
            ("wait", &[], &container::WAIT),
            ("why", &[], &why::WHY),
        ],
    ),
    (
        "image",
        "Manage images",
        &[
            ("build", &[], &build::BUILD),
            ("copy", &[], &image_copy::COPY),
            ("history", &[], &image::HISTORY),
            ("import", &[], &image::IMPORT),
            ("inspect", &[], &inspect::IMAGE),
            ("load", &[], &image::LOAD),
            ("ls", &["list"], &image::IMAGES),
            ("pin", &[], &image::PIN),
            ("prune", &[], &image::PRUNE),
            ("pull", &[], &registry::PULL),
            ("push", &[], &registry::PUSH),
            ("rm", &["remove"], &image::RMI),
            ("save", &[], &image::SAVE),
            ("tag", &[], &image::TAG),
            ("unpin", &[], &image::UNPIN),
            ("verify", &[], &verify::VERIFY),
        ],
    ),
    (
        "manifest",
        "Manage manifests and lists of manifests",
        &[
            ("annotate", &[], &manifest::ANNOTATE),
            ("create", &[], &manifest::CREATE),
            ("inspect", &[], &manifest::INSPECT),
            ("push", &[], &manifest::PUSH),
            ("rm", &[], &manifest::RM),
        ],
    ),
    (
        "network",
        "Manage networks",
        &[
            ("connect", &[], &network::CONNECT),
            ("create", &[], &network::CREATE),
            ("disconnect", &[], &network::DISCONNECT),
            ("inspect", &[], &inspect::NETWORK),
            ("ls", &["list"], &network::LS),
            ("prune", &[], &network::PRUNE),
            ("rm", &["remove"], &network::RM),
        ],
    ),
    ("ports", "Look at published ports", &[("explain", &[], &ports::EXPLAIN)]),
    (
        "system",
        "Manage the engine",
        &[
            ("df", &[], &system::DF),
            ("dial-stdio", &[], &shell::DIAL_STDIO),
            ("events", &[], &system::EVENTS),
            ("info", &[], &system::INFO),
            ("prune", &[], &system::PRUNE),
        ],
    ),
    (
        "context",
        "Manage contexts: which engine commands talk to",
        &[
            ("create", &[], &context::CREATE),
            ("export", &[], &context::EXPORT),
            ("import", &[], &context::IMPORT),
            ("inspect", &[], &context::INSPECT),
            ("ls", &["list"], &context::LS),
            ("rm", &["remove"], &context::RM),
            ("show", &[], &context::SHOW),
            ("update", &[], &context::UPDATE),
            ("use", &[], &context::USE),
        ],
    ),
    (
        "volume",
        "Manage volumes",
        &[
            ("clone", &[], &volume::CLONE),
            ("create", &[], &volume::CREATE),
            ("inspect", &[], &inspect::VOLUME),
            ("ls", &["list"], &volume::LS),
            ("prune", &[], &volume::PRUNE),
            ("rm", &["remove"], &volume::RM),
            ("snapshot", &[], &volume::SNAPSHOT),
        ],
    ),
];

/// The whole command line.
pub(crate) fn tree(detail: Detail<'_>) -> Command {
    let root = with_flags(command("conex"), GLOBAL)
        .about("A container engine for Linux")
        .version(env!("CARGO_PKG_VERSION"))
        .disable_version_flag(true)
        .arg(Arg::new("print-version").short('v').long("version").action(ArgAction::Version).help("Print the version"))
        .arg(everywhere(&flag("json", Takes::Switch, "Print results as JSON")))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            command("daemon").about("Run the engine in the foreground (`conex daemon --help` lists its options)"),
        );
    let root = TOP.iter().fold(root, |root, entry| root.subcommand(build(entry, entry.name, &[], detail)));
    GROUPS.iter().fold(root, |root, (name, about, members)| {
        let group = command(name).about(*about).subcommand_required(true).arg_required_else_help(true);
        let add =
            |group: Command, (name, aliases, entry): &Member| group.subcommand(build(entry, name, aliases, detail));
        root.subcommand(members.iter().fold(group, add))
    })
}

fn build(entry: &Entry, name: &'static str, aliases: &'static [&'static str], detail: Detail<'_>) -> Command {
    let bare = command(name).about(entry.about).aliases(aliases);
    let wanted = match detail {
        Detail::All => true,
        Detail::Named(words) => words.iter().any(|word| word == name || aliases.contains(&word.as_str())),
    };
    if !wanted {
        return bare;
    }
    let verbatim = entry.after == After::Verbatim;
    let operands =
        Arg::new("operands").num_args(0..).trailing_var_arg(verbatim).allow_hyphen_values(verbatim).hide(true);
    let usage = format!("conex {name} [OPTIONS] {}", entry.operands);
    let bare = bare.override_usage(usage.trim_end().to_owned());
    entry.flags.iter().fold(bare, |command, flags| with_flags(command, flags)).arg(operands)
}

/// Runs what was asked for.
pub(crate) fn dispatch(matches: &ArgMatches) -> Outcome {
    let context = Context::new(matches)?;
    let (name, inner) = matches.subcommand().expect("clap requires one");
    if let Some(entry) = TOP.iter().find(|entry| entry.name == name) {
        return run_entry(entry, &context, inner);
    }
    let (_, _, members) = GROUPS.iter().find(|(group, ..)| *group == name).expect("clap knows these names only");
    let (name, inner) = inner.subcommand().expect("clap requires one");
    let (_, _, entry) = members.iter().find(|(member, ..)| *member == name).expect("clap knows these names only");
    run_entry(entry, &context, inner)
}

fn run_entry(entry: &Entry, context: &Context, matches: &ArgMatches) -> Outcome {
    if entry.after == After::Verbatim {
        refuse_unknown_flag(matches).map_err(|message| Failure { message, code: usage_code(entry.name) })?;
    }
    (entry.run)(context, matches)
}

/// Behind the image a dash belongs to the container; before it, it is an option that does not exist: no image is called so.
fn refuse_unknown_flag(matches: &ArgMatches) -> Result<(), String> {
    let first = matches.get_many::<String>("operands").and_then(|mut words| words.next());
    match first.and_then(|word| word.strip_prefix('-')) {
        None | Some("") => Ok(()),
        Some(rest) if rest.starts_with('-') => Err(format!("unknown flag: -{rest}")),
        Some(rest) => Err(format!("unknown shorthand flag: '{}' in -{rest}", rest.chars().next().unwrap_or_default())),
    }
}

/// Docker's exit code for a mistake in a command's options.
pub(crate) fn usage_code(command: &str) -> u8 {
    if command == "run" { 125 } else { 1 }
}

/// The operands, which must be at least `min`.
pub(crate) fn operands(matches: &ArgMatches, min: usize) -> Result<Vec<String>, Failure> {
    let words: Vec<String> = matches.get_many::<String>("operands").into_iter().flatten().cloned().collect();
    if words.len() < min {
        let plural = if min == 1 { "" } else { "s" };
        return Err(Failure::usage(format!("this command requires at least {min} argument{plural} (see --help)")));
    }
    Ok(words)
}

/// The operands, which must be exactly as many.
pub(crate) fn exactly<const N: usize>(matches: &ArgMatches) -> Result<[String; N], Failure> {
    let words = operands(matches, N)?;
    words.try_into().map_err(|_| Failure::usage(format!("this command takes {N} arguments and no more (see --help)")))
}

/// Does the same to each name; prints what succeeded, says what did not, goes on.
pub(crate) fn each(names: &[String], act: impl Fn(&str) -> Result<String, api_client::Error>) -> Outcome {
    let mut code = 0;
    for name in names {
        match act(name) {
            Ok(text) if text.is_empty() => {}
            Ok(text) => print(&format!("{text}\n"))?,
            Err(error) => {
                code = 1;
                complain(&crate::error::describe(&error));
            }
        }
    }
    Ok(code)
}

/// Prints to standard output.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Prints one line to standard error.
pub(crate) fn complain(text: &str) {
    // Nobody to tell where standard error is closed.
    let _ = writeln!(io::stderr(), "{text}");
}

/// Asks for a yes before something is lost.
pub(crate) fn confirmed(question: &str) -> Result<bool, Failure> {
    print(&format!("{question} [y/N] "))?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::{many, on};

    fn parse(line: &str) -> ArgMatches {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        tree(Detail::Named(&words)).no_binary_name(true).try_get_matches_from(&words).unwrap()
    }

    #[test]
    fn the_whole_tree_is_well_formed() {
        tree(Detail::All).debug_assert();
    }

    #[test]
    fn words_behind_the_image_belong_to_the_container() {
        let matches = parse("-H unix:///x run --rm -it -e A=B busybox ls -l --json");
        let (name, run) = matches.subcommand().unwrap();
        assert_eq!(name, "run");
        assert_eq!(operands(run, 1).unwrap(), ["busybox", "ls", "-l", "--json"]);
        assert!(on(run, "rm") && on(run, "tty") && !on(run, "json"));
        assert_eq!(many(run, "env"), ["A=B"]);
    }

    #[test]
    fn an_option_that_does_not_exist_is_no_image() {
        let refusal = |line: &str| refuse_unknown_flag(parse(line).subcommand().unwrap().1);
        assert_eq!(refusal("run --no-such busybox"), Err("unknown flag: --no-such".to_owned()));
        assert_eq!(refusal("run -y busybox"), Err("unknown shorthand flag: 'y' in -y".to_owned()));
        assert_eq!(refusal("run busybox --no-such -y"), Ok(()));
    }

    #[test]
    fn options_may_follow_operands_elsewhere() {
        let matches = parse("rm one -f two --json");
        let (_, rm) = matches.subcommand().unwrap();
        assert_eq!(operands(rm, 1).unwrap(), ["one", "two"]);
        assert!(on(rm, "force") && on(rm, "json"));
        assert!(exactly::<1>(rm).is_err());
    }
}
