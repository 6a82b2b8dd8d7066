//! Contexts: which engine commands talk to, by a name. The store is Docker's.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use clap::ArgMatches;
use serde_json::json;

use super::{After, Entry, complain, operands, print};
use crate::context::Context;
use crate::contexts::{self, DEFAULT, StoredContext};
use crate::error::{Failure, Outcome};
use crate::flags::Takes::{Many, One, Switch};
use crate::flags::{Flag, flag, many, on, one, short};
use crate::output::json::Json;
use crate::output::list::{Listing, Row};

const ENDPOINT_FLAGS: &[Flag] = &[
    flag("description", One, "What it is"),
    flag("docker", Many, "Where it is: host=ADDRESS,ca=FILE,cert=FILE,key=FILE,skip-tls-verify=BOOL or from=CONTEXT"),
];

pub(super) const CREATE: Entry = Entry {
    name: "create",
    about: "Create a context",
    operands: "CONTEXT",
    after: After::Options,
    flags: &[ENDPOINT_FLAGS, &[flag("from", One, "Copy this context")]],
    run: create,
};

pub(super) const UPDATE: Entry = Entry {
    name: "update",
    about: "Change a context",
    operands: "CONTEXT",
    after: After::Options,
    flags: &[ENDPOINT_FLAGS],
    run: update,
};

pub(super) const LS: Entry = Entry {
    name: "ls",
    about: "List contexts",
    operands: "",
    after: After::Options,
    flags: &[&[flag("format", One, "table, json, or a Go template"), short('q', "quiet", Switch, "Show names only")]],
    run: list,
};

pub(super) const USE: Entry = Entry {
    name: "use",
    about: "Choose the context of all commands",
    operands: "CONTEXT",
    after: After::Options,
    flags: &[],
    run: choose,
};

pub(super) const SHOW: Entry = Entry {
    name: "show",
    about: "Print the name of the current context",
    operands: "",
    after: After::Options,
    flags: &[],
    run: |context, _| {
        print(&format!("{}\n", context.name()))?;
        Ok(0)
    },
};

pub(super) const INSPECT: Entry = Entry {
    name: "inspect",
    about: "Show everything about one or more contexts",
    operands: "[CONTEXT] [CONTEXT...]",
    after: After::Options,
    flags: &[&[short('f', "format", One, "json, or a Go template")]],
    run: inspect,
};

pub(super) const RM: Entry = Entry {
    name: "rm",
    about: "Remove one or more contexts",
    operands: "CONTEXT [CONTEXT...]",
    after: After::Options,
    flags: &[&[short('f', "force", Switch, "Remove the current context too")]],
    run: remove,
};

pub(super) const EXPORT: Entry = Entry {
    name: "export",
    about: "Write a context to a file",
    operands: "CONTEXT [FILE|-]",
    after: After::Options,
    flags: &[],
    run: export,
};

pub(super) const IMPORT: Entry = Entry {
    name: "import",
    about: "Read a context from a file",
    operands: "CONTEXT FILE|-",
    after: After::Options,
    flags: &[],
    run: import,
};

/// `--docker` as pairs.
fn endpoint(matches: &ArgMatches) -> Result<BTreeMap<String, String>, Failure> {
    const KEYS: [&str; 6] = ["host", "ca", "cert", "key", "skip-tls-verify", "from"];
    let mut pairs = BTreeMap::new();
    for part in many(matches, "docker").iter().flat_map(|text| text.split(',')) {
        let (key, value) = part
            .split_once('=')
            .ok_or_else(|| Failure::usage(format!("unable to parse {part:?}: key=value is expected")))?;
        if !KEYS.contains(&key) {
            return Err(Failure::usage(format!("unrecognized config key: {key}")));
        }
        pairs.insert(key.to_owned(), value.to_owned());
    }
    Ok(pairs)
}

fn certificates(pairs: &BTreeMap<String, String>) -> Result<BTreeMap<String, Vec<u8>>, Failure> {
    let mut found = BTreeMap::new();
    for (key, file) in [("ca", "ca.pem"), ("cert", "cert.pem"), ("key", "key.pem")] {
        if let Some(path) = pairs.get(key) {
            let failed = |error: io::Error| Failure::usage(format!("unable to read {path}: {error}"));
            found.insert(file.to_owned(), std::fs::read(path).map_err(failed)?);
        }
    }
    Ok(found)
}

fn create(_: &Context, matches: &ArgMatches) -> Outcome {
    let name = operands(matches, 1)?.remove(0);
    contexts::check_name(&name)?;
    if contexts::load(&name).is_ok() {
        return Err(Failure::usage(format!("context {name:?} already exists")));
    }
    let pairs = endpoint(matches)?;
    let description = one(matches, "description").unwrap_or_default();
    let from = one(matches, "from").map(str::to_owned).or_else(|| pairs.get("from").cloned());
    let (mut context, mut files) = match from.as_deref() {
        None => (StoredContext::new(&name, description, "", false), BTreeMap::new()),
        Some(DEFAULT) => (StoredContext::new(&name, description, &Context::usual_address(), false), BTreeMap::new()),
        Some(other) => (StoredContext { name: name.clone(), ..contexts::load(other)? }, stored_files(other)),
    };
    context.describe(description);
    apply(&mut context, &pairs)?;
    files.extend(certificates(&pairs)?);
    if context.endpoint().is_none_or(|endpoint| endpoint.host.is_empty()) {
        return Err(Failure::usage("docker endpoint configuration is required"));
    }
    contexts::save(&context, &files)?;
    print(&format!("{name}\n"))?;
    complain(&format!("Successfully created context {name:?}"));
    Ok(0)
}

fn stored_files(name: &str) -> BTreeMap<String, Vec<u8>> {
    let folder = contexts::tls_folder(name);
    let read = |file: &str| Some((file.to_owned(), std::fs::read(folder.join(file)).ok()?));
    ["ca.pem", "cert.pem", "key.pem"].into_iter().filter_map(read).collect()
}

fn apply(context: &mut StoredContext, pairs: &BTreeMap<String, String>) -> Result<(), Failure> {
    if let Some(host) = pairs.get("host") {
        api_client::Host::parse(host).map_err(|error| Failure::usage(error.to_string()))?;
        host.clone_into(&mut context.endpoint_mut().host);
    }
    if let Some(text) = pairs.get("skip-tls-verify") {
        let wrong = |_| Failure::usage(format!("skip-tls-verify: {text:?} is neither true nor false"));
        context.endpoint_mut().skip_tls_verify = text.parse().map_err(wrong)?;
    }
    Ok(())
}

fn update(_: &Context, matches: &ArgMatches) -> Outcome {
    let name = operands(matches, 1)?.remove(0);
    contexts::check_name(&name)?;
    let mut context = contexts::load(&name)?;
    let pairs = endpoint(matches)?;
    context.describe(one(matches, "description").unwrap_or_default());
    apply(&mut context, &pairs)?;
    contexts::save(&context, &certificates(&pairs)?)?;
    print(&format!("{name}\n"))?;
    complain(&format!("Successfully updated context {name:?}"));
    Ok(0)
}

const LISTING: Listing = Listing {
    table: "Name Description DockerEndpoint Error",
    quiet: "Name",
    headings: &[
        ("Name", "NAME"),
        ("Description", "DESCRIPTION"),
        ("DockerEndpoint", "DOCKER ENDPOINT"),
        ("Current", "CURRENT"),
        ("Error", "ERROR"),
    ],
};

fn list(context: &Context, matches: &ArgMatches) -> Outcome {
    let current = context.name();
    let row = |name: &str, description: &str, host: &str| {
        // The table marks the current one; names alone stay names.
        let mark = if name == current && !on(matches, "quiet") && one(matches, "format").is_none() { " *" } else { "" };
        Row::default()
            .with("Name", format!("{name}{mark}"))
            .with("Description", description)
            .with("DockerEndpoint", host)
            .with("Current", (name == current).to_string())
            .with("Error", "")
    };
    let about = "This machine's engine, or where CONEX_HOST or DOCKER_HOST says";
    let mut rows = vec![row(DEFAULT, about, &Context::usual_address())];
    for stored in contexts::list()? {
        let host = stored.endpoint().map(|endpoint| endpoint.host.clone()).unwrap_or_default();
        rows.push(row(&stored.name, stored.description(), &host));
    }
    print(&LISTING.render(context.style(matches), &rows)?)?;
    Ok(0)
}

fn choose(_: &Context, matches: &ArgMatches) -> Outcome {
    let name = operands(matches, 1)?.remove(0);
    if name != DEFAULT {
        contexts::check_name(&name)?;
        contexts::load(&name)?;
    }
    contexts::choose(&name)?;
    print(&format!("{name}\n"))?;
    complain(&format!("Current context is now {name:?}"));
    if name != DEFAULT && std::env::var_os("DOCKER_HOST").is_some_and(|value| !value.is_empty()) {
        complain(&format!(
            "Warning: DOCKER_HOST environment variable overrides the active context. To use {name:?}, either set the global --context flag, or unset DOCKER_HOST environment variable."
        ));
    }
    Ok(0)
}

fn inspect(context: &Context, matches: &ArgMatches) -> Outcome {
    let mut names = operands(matches, 0)?;
    if names.is_empty() {
        names.push(context.name().to_owned());
    }
    let mut documents = Vec::new();
    for name in &names {
        documents.push(if name == DEFAULT {
            let stored = StoredContext::new(DEFAULT, "", &Context::usual_address(), false);
            document(&stored, Path::new("<IN MEMORY>"), Path::new("<IN MEMORY>"))?
        } else {
            let folder = contexts::tls_folder(name);
            document(&contexts::load(name)?, &contexts::meta_folder(name), folder.parent().unwrap_or(&folder))?
        });
    }
    let trees = documents.iter().map(Json::of).collect::<Result<Vec<_>, _>>()?;
    print(&super::inspect::text(&trees, one(matches, "format"))?)?;
    Ok(0)
}

fn document(stored: &StoredContext, meta: &Path, tls: &Path) -> Result<serde_json::Value, Failure> {
    let files: Vec<String> = stored_files(&stored.name).into_keys().collect();
    let material = if files.is_empty() { json!({}) } else { json!({ "docker": files }) };
    let mut document = serde_json::to_value(stored)?;
    document["TLSMaterial"] = material;
    document["Storage"] = json!({ "MetadataPath": meta, "TLSPath": tls });
    Ok(document)
}

fn remove(context: &Context, matches: &ArgMatches) -> Outcome {
    let mut code = 0;
    for name in operands(matches, 1)? {
        match remove_one(context, &name, on(matches, "force")) {
            Ok(()) => print(&format!("{name}\n"))?,
            Err(failure) => {
                complain(&failure.message);
                code = 1;
            }
        }
    }
    Ok(code)
}

fn remove_one(context: &Context, name: &str, force: bool) -> Result<(), Failure> {
    if name == DEFAULT {
        return Err(Failure::usage("context \"default\" cannot be removed"));
    }
    contexts::load(name)?;
    if name == context.name() {
        if !force {
            return Err(Failure::usage(format!("context {name:?} is in use, set -f flag to force remove")));
        }
        contexts::choose(DEFAULT)?;
    }
    contexts::remove(name)
}

fn export(_: &Context, matches: &ArgMatches) -> Outcome {
    let words = operands(matches, 1)?;
    let name = &words[0];
    contexts::check_name(name)?;
    match words.get(1).map(String::as_str) {
        Some("-") => contexts::export(name, &mut io::stdout().lock())?,
        file => {
            let path = file.map_or_else(|| PathBuf::from(format!("{name}.dockercontext")), PathBuf::from);
            let mut options = std::fs::OpenOptions::new();
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            let mut output = options.write(true).create_new(true).open(&path)?;
            contexts::export(name, &mut output)?;
            complain(&format!("Written file {:?}", path.display().to_string()));
        }
    }
    Ok(0)
}

fn import(_: &Context, matches: &ArgMatches) -> Outcome {
    let words = operands(matches, 2)?;
    let name = &words[0];
    contexts::check_name(name)?;
    if contexts::load(name).is_ok() {
        return Err(Failure::usage(format!("context {name:?} already exists")));
    }
    let mut bytes = Vec::new();
    match words[1].as_str() {
        "-" => io::stdin().lock().read_to_end(&mut bytes)?,
        path => std::fs::File::open(path)?.read_to_end(&mut bytes)?,
    };
    contexts::import(name, bytes.as_slice())?;
    print(&format!("{name}\n"))?;
    complain(&format!("Successfully imported context {name:?}"));
    Ok(0)
}
