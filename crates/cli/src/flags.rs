//! Options as Docker's command line has them: `--flag`, `--flag=false`, `-e A=B -e C=D`.

use clap::{Arg, ArgAction, ArgMatches, Command};

/// What an option takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Takes {
    /// Nothing, or `=true` and `=false` as Go's flags do; false when absent.
    Switch,
    /// The same, true when absent.
    SwitchOn,
    /// One value; the last one counts.
    One,
    /// A value each time it is given.
    Many,
}

/// One option of a command.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flag {
    pub(crate) name: &'static str,
    pub(crate) short: Option<char>,
    pub(crate) takes: Takes,
    pub(crate) help: &'static str,
}

/// An option without a short form.
pub(crate) const fn flag(name: &'static str, takes: Takes, help: &'static str) -> Flag {
    Flag { name, short: None, takes, help }
}

/// An option with a short form.
pub(crate) const fn short(short: char, name: &'static str, takes: Takes, help: &'static str) -> Flag {
    Flag { name, short: Some(short), takes, help }
}

/// A command whose only built-in option is `--help`: Docker uses `-h` for host names.
pub(crate) fn command(name: &'static str) -> Command {
    let help = Arg::new("help").long("help").action(ArgAction::Help).help("Print usage");
    Command::new(name).disable_help_flag(true).disable_help_subcommand(true).arg(help)
}

/// Adds options to a command.
pub(crate) fn with_flags(command: Command, flags: &[Flag]) -> Command {
    flags.iter().fold(command, |command, flag| command.arg(argument(flag)))
}

/// An option that may stand before and behind the command's name.
pub(crate) fn everywhere(flag: &Flag) -> Arg {
    argument(flag).global(true)
}

/// Other names under which Docker still takes options.
const ALIASES: &[(&str, &str)] = &[("net", "network"), ("net-alias", "network-alias"), ("dns-opt", "dns-option")];

fn argument(flag: &Flag) -> Arg {
    let aliases = ALIASES.iter().filter(|(_, name)| *name == flag.name).map(|(alias, _)| *alias);
    let arg = Arg::new(flag.name).long(flag.name).help(flag.help).aliases(aliases.collect::<Vec<_>>());
    let arg = match flag.short {
        Some(short) => arg.short(short),
        None => arg,
    };
    match flag.takes {
        Takes::Switch => switch(arg, "false"),
        Takes::SwitchOn => switch(arg, "true"),
        Takes::One => arg.num_args(1).allow_hyphen_values(true).overrides_with(flag.name),
        Takes::Many => arg.num_args(1).allow_hyphen_values(true).action(ArgAction::Append),
    }
}

fn switch(arg: Arg, default: &'static str) -> Arg {
    arg.num_args(0..=1)
        .require_equals(true)
        .default_missing_value("true")
        .default_value(default)
        .hide_default_value(true)
        .hide_possible_values(true)
        .value_parser(parse_bool)
        .action(ArgAction::Set)
        .value_name("BOOL")
}

/// Go's `strconv.ParseBool`.
fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        other => Err(format!("strconv.ParseBool: parsing {other:?}: invalid syntax")),
    }
}

/// Whether a switch is on.
pub(crate) fn on(matches: &ArgMatches, name: &str) -> bool {
    matches.get_one(name).copied().unwrap_or(false)
}

/// The value of an option, if given.
pub(crate) fn one<'a>(matches: &'a ArgMatches, name: &str) -> Option<&'a str> {
    matches.get_one::<String>(name).map(String::as_str)
}

/// All values of an option, in order.
pub(crate) fn many(matches: &ArgMatches, name: &str) -> Vec<String> {
    matches.get_many::<String>(name).into_iter().flatten().cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAGS: &[Flag] = &[
        short('i', "interactive", Takes::Switch, ""),
        short('t', "tty", Takes::Switch, ""),
        short('e', "env", Takes::Many, ""),
        flag("sig-proxy", Takes::SwitchOn, ""),
        short('m', "memory", Takes::One, ""),
    ];

    fn parse(arguments: &[&str]) -> ArgMatches {
        let command = with_flags(command("x").no_binary_name(true), FLAGS);
        command.try_get_matches_from(arguments).unwrap()
    }

    #[test]
    fn switches_cluster_and_take_values_after_an_equals_sign() {
        let matches = parse(&["-it", "--sig-proxy=false", "-eA=B", "-e", "C=-D"]);
        assert!(on(&matches, "interactive") && on(&matches, "tty") && !on(&matches, "sig-proxy"));
        assert_eq!(many(&matches, "env"), ["A=B", "C=-D"]);
        assert!(!on(&parse(&["--tty=false"]), "tty"));
        assert!(on(&parse(&[]), "sig-proxy"));
    }

    #[test]
    fn the_last_value_counts() {
        assert_eq!(one(&parse(&["-m", "1g", "--memory=2g"]), "memory"), Some("2g"));
    }
}
