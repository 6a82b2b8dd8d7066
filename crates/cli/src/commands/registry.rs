//! Registries: pull, push, search, and who the user is there.

use std::io::{self, IsTerminal, Read as _};

use clap::ArgMatches;
use docker_api::AuthConfig;
use oci::Reference;

use super::container::filters;
use super::{After, Entry, complain, exactly, operands, print};
use crate::context::Context;
use crate::credentials::{ConfigFile, Stored, server_name};
use crate::error::{Failure, Outcome};
use crate::flags::Takes::{Many, One, Switch};
use crate::flags::{Flag, flag, on, one, short};
use crate::output::list::{Listing, Row};
use crate::output::progress::{self, Mode};
use crate::output::units;

const PULL_FLAGS: &[Flag] = &[
    short('a', "all-tags", Switch, "Pull every tag of the repository"),
    flag("platform", One, "The image's platform"),
    short('q', "quiet", Switch, "Show nothing but the image's name"),
];

pub(super) const PULL: Entry = Entry {
    name: "pull",
    about: "Download an image from a registry",
    operands: "NAME[:TAG|@DIGEST]",
    after: After::Options,
    flags: &[PULL_FLAGS],
    run: pull,
};

fn pull(context: &Context, matches: &ArgMatches) -> Outcome {
    let [name] = exactly(matches)?;
    let quiet = on(matches, "quiet");
    let wanted = wanted(matches, &name, quiet)?;
    let tag = wanted.digest().map_or_else(|| wanted.tag().unwrap_or_default().to_owned(), ToString::to_string);
    let auth = ConfigFile::load()?.of_image(&name)?;
    let platform = one(matches, "platform").unwrap_or_default();
    let lines = context.client()?.image_pull(&wanted.canonical_name(), &tag, platform, &auth)?;
    progress::show(lines, if quiet { Mode::Silent } else { Mode::Results })?;
    print(&format!("{}\n", wanted.canonical()))?;
    Ok(0)
}

/// What a pull or push is about: one tag, or with `--all-tags` the repository.
fn wanted(matches: &ArgMatches, name: &str, quiet: bool) -> Result<Reference, Failure> {
    let reference = parse(name)?;
    match on(matches, "all-tags") {
        true if !reference.is_name_only() => Err(Failure::usage("tag can't be used with --all-tags/-a")),
        true => Ok(reference),
        false => with_default_tag(reference, quiet),
    }
}

fn parse(name: &str) -> Result<Reference, Failure> {
    Reference::parse(name).map_err(|error| Failure::usage(error.to_string()))
}

/// Says so where a tag is assumed, as Docker does.
fn with_default_tag(reference: Reference, quiet: bool) -> Result<Reference, Failure> {
    if reference.is_name_only() && !quiet {
        print("Using default tag: latest\n")?;
    }
    Ok(reference.with_default_tag())
}

const PUSH_FLAGS: &[Flag] = &[
    short('a', "all-tags", Switch, "Push every tag of the repository"),
    flag("platform", One, "Push only an image of this platform"),
    short('q', "quiet", Switch, "Show nothing but the image's name"),
];

pub(super) const PUSH: Entry = Entry {
    name: "push",
    about: "Upload an image to a registry",
    operands: "NAME[:TAG]",
    after: After::Options,
    flags: &[PUSH_FLAGS],
    run: push,
};

fn push(context: &Context, matches: &ArgMatches) -> Outcome {
    let [name] = exactly(matches)?;
    let quiet = on(matches, "quiet");
    let wanted = wanted(matches, &name, quiet)?;
    let auth = ConfigFile::load()?.of_image(&name)?;
    let platform = platform(matches)?;
    let lines =
        context.client()?.image_push(&wanted.familiar_name(), wanted.tag().unwrap_or_default(), &platform, &auth)?;
    progress::show(lines, if quiet { Mode::Silent } else { Mode::Results })?;
    if quiet {
        print(&format!("{}\n", wanted.canonical()))?;
    }
    Ok(0)
}

/// `--platform` as the JSON that the API wants; nothing stays nothing.
pub(super) fn platform(matches: &ArgMatches) -> Result<String, Failure> {
    let text = one(matches, "platform").unwrap_or_default();
    let parts: Vec<&str> = text.split('/').collect();
    let document = match parts[..] {
        [""] => return Ok(String::new()),
        [os, architecture] => serde_json::json!({ "os": os, "architecture": architecture }),
        [os, architecture, variant] => {
            serde_json::json!({ "os": os, "architecture": architecture, "variant": variant })
        }
        _ => return Err(Failure::usage(format!("invalid platform {text:?}: OS/ARCH[/VARIANT] is expected"))),
    };
    Ok(document.to_string())
}

const SEARCH_FLAGS: &[Flag] = &[
    short('f', "filter", Many, "Show only what this describes (is-official=, stars=)"),
    flag("format", One, "table, json, or a Go template"),
    flag("limit", One, "At most so many results"),
    flag("no-trunc", Switch, "Do not shorten"),
];

pub(super) const SEARCH: Entry = Entry {
    name: "search",
    about: "Search a registry for images",
    operands: "[REGISTRY/]TERM",
    after: After::Options,
    flags: &[SEARCH_FLAGS],
    run: search,
};

const SEARCH_LISTING: Listing = Listing {
    table: "Name Description StarCount IsOfficial",
    quiet: "Name",
    headings: &[
        ("Name", "NAME"),
        ("Description", "DESCRIPTION"),
        ("StarCount", "STARS"),
        ("IsOfficial", "OFFICIAL"),
        ("IsAutomated", "AUTOMATED"),
    ],
};

fn search(context: &Context, matches: &ArgMatches) -> Outcome {
    let [term] = exactly(matches)?;
    let limit = match one(matches, "limit") {
        None => 25,
        Some(text) => text.parse().map_err(|_| Failure::usage(format!("invalid limit {text:?}")))?,
    };
    let auth = ConfigFile::load()?.of_image(&term)?;
    let found = context.client()?.image_search(&term, limit, &filters(matches)?, &auth)?;
    let mark = |flag: bool| if flag { "[OK]" } else { "" };
    let row = |result: &docker_api::image::SearchResult| {
        let description = result.description.replace(['\n', '\r'], " ");
        Row::default()
            .with("Name", result.name.as_str())
            .with("Description", if on(matches, "no-trunc") { description } else { units::ellipsis(&description, 45) })
            .with("StarCount", result.star_count.to_string())
            .with("IsOfficial", mark(result.is_official))
            .with("IsAutomated", mark(result.is_automated))
    };
    let rows: Vec<Row> = found.iter().map(row).collect();
    print(&SEARCH_LISTING.render(context.style(matches), &rows)?)?;
    Ok(0)
}

const LOGIN_FLAGS: &[Flag] = &[
    short('p', "password", One, "The password or an access token"),
    flag("password-stdin", Switch, "Read the password from standard input"),
    short('u', "username", One, "The name"),
];

pub(super) const LOGIN: Entry = Entry {
    name: "login",
    about: "Log in to a registry",
    operands: "[SERVER]",
    after: After::Options,
    flags: &[LOGIN_FLAGS],
    run: login,
};

fn login(context: &Context, matches: &ArgMatches) -> Outcome {
    let server = server_operand(matches)?;
    let mut file = ConfigFile::load()?;
    let known = file.credentials(&server)?;
    let auth = match (one(matches, "username"), given_password(matches)?) {
        // What is known already is only tried.
        (None, None) if !known.is_anonymous() => known,
        (username, password) => ask(username, password, &known, &server)?,
    };
    let answer = context.client()?.login(&auth)?;
    let auth = match answer.identity_token.as_str() {
        "" => auth,
        token => AuthConfig { identitytoken: token.to_owned(), password: String::new(), ..auth },
    };
    if let Stored::File(path) = file.store(&auth)? {
        complain(&format!(
            "\nWARNING! Your credentials are stored unencrypted in '{}'.\nConfigure a credential helper to remove this warning.\n",
            path.display()
        ));
    }
    print(&format!("{}\n", answer.status))?;
    Ok(0)
}

/// The registry that is meant, as `config.json` calls it.
fn server_operand(matches: &ArgMatches) -> Result<String, Failure> {
    match operands(matches, 0)?.as_slice() {
        [] => Ok(server_name("")),
        [server] => Ok(server_name(crate::credentials::host_of(server))),
        _ => Err(Failure::usage("this command takes at most 1 argument (see --help)")),
    }
}

fn given_password(matches: &ArgMatches) -> Result<Option<String>, Failure> {
    match (one(matches, "password"), on(matches, "password-stdin")) {
        (Some(_), true) => Err(Failure::usage("--password and --password-stdin are mutually exclusive")),
        (Some(password), false) => {
            complain("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
            Ok(Some(password.to_owned()))
        }
        (None, true) if one(matches, "username").is_none() => {
            Err(Failure::usage("Must provide --username with --password-stdin"))
        }
        (None, true) => {
            let mut text = String::new();
            io::stdin().read_to_string(&mut text)?;
            Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()))
        }
        (None, false) => Ok(None),
    }
}

/// Asks for what is missing, which needs a terminal.
fn ask(
    username: Option<&str>,
    password: Option<String>,
    known: &AuthConfig,
    server: &str,
) -> Result<AuthConfig, Failure> {
    let is_complete = username.is_some() && password.is_some();
    if !is_complete && !io::stdin().is_terminal() {
        return Err(Failure::usage("Error: Cannot perform an interactive login from a non TTY device"));
    }
    let username = match username {
        Some(name) => name.to_owned(),
        None => {
            let usual = if known.username.is_empty() { String::new() } else { format!(" ({})", known.username) };
            print(&format!("Username{usual}: "))?;
            let mut line = String::new();
            io::stdin().read_line(&mut line)?;
            let line = line.trim().to_owned();
            if line.is_empty() { known.username.clone() } else { line }
        }
    };
    if username.is_empty() {
        return Err(Failure::usage("Error: Non-null Username Required"));
    }
    let password = match password {
        Some(password) => password,
        None => {
            print("Password: ")?;
            let line = crate::terminal::read_hidden_line()?;
            print("\n")?;
            line
        }
    };
    if password.is_empty() {
        return Err(Failure::usage("Error: Password Required"));
    }
    Ok(AuthConfig { username, password, serveraddress: server.to_owned(), ..AuthConfig::default() })
}

pub(super) const LOGOUT: Entry = Entry {
    name: "logout",
    about: "Log out from a registry",
    operands: "[SERVER]",
    after: After::Options,
    flags: &[],
    run: |_, matches| {
        let server = server_operand(matches)?;
        let text = match ConfigFile::load()?.erase(&server)? {
            true => format!("Removing login credentials for {server}\n"),
            false => format!("Not logged in to {server}\n"),
        };
        print(&text)?;
        Ok(0)
    },
};
