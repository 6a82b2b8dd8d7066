//! `inspect`: everything about objects, as JSON or by a template.

use api_client::{Client, ImageInspectOptions};
use clap::ArgMatches;

use super::{After, Entry, complain, operands, print};
use crate::context::Context;
use crate::error::{Failure, Outcome, describe};
use crate::flags::Takes::{One, Switch};
use crate::flags::{Flag, flag, on, one, short};
use crate::output::json::Json;
use crate::output::template::Formatter;

const FLAGS: &[Flag] = &[
    short('f', "format", One, "json, or a Go template"),
    short('s', "size", Switch, "Show file sizes of containers"),
    flag("type", One, "The kind of object: container, image, network or volume"),
];

pub(super) const INSPECT: Entry = Entry {
    name: "inspect",
    about: "Show everything about objects",
    operands: "NAME|ID [NAME|ID...]",
    after: After::Options,
    flags: &[FLAGS],
    run: |context, matches| match one(matches, "type") {
        None | Some("") => show(context, matches, ANY, "No such object"),
        Some(name) => match KINDS.iter().find(|kind| kind.name == name) {
            Some(kind) => show(context, matches, std::slice::from_ref(kind), "No such object"),
            None => {
                Err(Failure::usage(format!("unknown type: {name:?}: must be one of container, image, network, volume")))
            }
        },
    },
};

const SHORT_FLAGS: &[Flag] =
    &[short('f', "format", One, "json, or a Go template"), short('s', "size", Switch, "Show file sizes of containers")];

const fn of_kind(run: fn(&Context, &ArgMatches) -> Outcome) -> Entry {
    Entry {
        name: "inspect",
        about: "Show everything about objects of this kind",
        operands: "NAME [NAME...]",
        after: After::Options,
        flags: &[SHORT_FLAGS],
        run,
    }
}

pub(super) const CONTAINER: Entry = of_kind(|context, matches| show(context, matches, &KINDS[0..1], ""));

const IMAGE_FLAGS: &[Flag] = &[
    short('f', "format", One, "json, or a Go template"),
    flag("manifests", Switch, "Show the manifests of each platform and of attestations"),
    flag("platform", One, "The platform that the image must be for"),
];

pub(super) const IMAGE: Entry = Entry {
    name: "inspect",
    about: "Show everything about images: configuration, provenance, what pins them",
    operands: "IMAGE [IMAGE...]",
    after: After::Options,
    flags: &[IMAGE_FLAGS],
    run: images,
};

fn images(context: &Context, matches: &ArgMatches) -> Outcome {
    let options =
        ImageInspectOptions { platform: super::registry::platform(matches)?, manifests: on(matches, "manifests") };
    let client = context.client()?;
    let inspect = |name: &str| match client.image_inspect_as(name, &options) {
        Ok(image) => Ok(Some(Json::of(&image)?)),
        Err(error) if error.is_not_found() && options.platform.is_empty() => Ok(None),
        Err(error) => Err(error),
    };
    show_found(matches, &inspect, |name| format!("Error: No such image: {name}"))
}

pub(super) const NETWORK: Entry = of_kind(|context, matches| show(context, matches, &KINDS[2..3], ""));
pub(super) const VOLUME: Entry = of_kind(|context, matches| show(context, matches, &KINDS[3..4], ""));

/// A kind of object and how to ask for one.
struct Kind {
    name: &'static str,
    inspect: fn(&Client, &str, bool) -> Result<Json, api_client::Error>,
}

const ANY: &[Kind] = KINDS;

/// In the order in which Docker looks for a name.
const KINDS: &[Kind] = &[
    Kind {
        name: "container",
        inspect: |client, name, size| Ok(Json::of(&client.container_inspect_sized(name, size)?)?),
    },
    Kind { name: "image", inspect: |client, name, _| Ok(Json::of(&client.image_inspect(name)?)?) },
    Kind { name: "network", inspect: |client, name, _| Ok(Json::of(&client.network_inspect(name)?)?) },
    Kind { name: "volume", inspect: |client, name, _| Ok(Json::of(&client.volume_inspect(name)?)?) },
];

/// Prints what is found; says what is not, and fails at the end.
fn show(context: &Context, matches: &ArgMatches, kinds: &[Kind], missing: &str) -> Outcome {
    let client = context.client()?;
    let size = on(matches, "size");
    show_found(matches, &|name| find(client, kinds, name, size), |name| match missing {
        "" => format!("Error: No such {}: {name}", kinds[0].name),
        missing => format!("Error: {missing}: {name}"),
    })
}

/// How one object is found, if it is there.
type Finder<'a> = &'a dyn Fn(&str) -> Result<Option<Json>, api_client::Error>;

fn show_found(matches: &ArgMatches, find: Finder<'_>, missing: impl Fn(&str) -> String) -> Outcome {
    let mut found = Vec::new();
    let mut complaints = Vec::new();
    for name in operands(matches, 1)? {
        match find(&name) {
            Ok(Some(tree)) => found.push(tree),
            Ok(None) => complaints.push(missing(&name)),
            Err(error) => complaints.push(describe(&error)),
        }
    }
    print(&text(&found, one(matches, "format"))?)?;
    complaints.iter().for_each(|complaint| complain(complaint));
    Ok(u8::from(!complaints.is_empty()))
}

fn find(client: &Client, kinds: &[Kind], name: &str, size: bool) -> Result<Option<Json>, api_client::Error> {
    for kind in kinds {
        match (kind.inspect)(client, name, size) {
            Ok(tree) => return Ok(Some(tree)),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

pub(super) fn text(found: &[Json], format: Option<&str>) -> Result<String, Failure> {
    match format {
        None | Some("") => Ok(Json::Array(found.to_vec()).pretty() + "\n"),
        Some("json") => Ok(Json::Array(found.to_vec()).compact() + "\n"),
        Some(template) => {
            let formatter = Formatter::parse(template)?;
            let lines: Result<Vec<String>, _> = found.iter().map(|tree| Ok(formatter.render(tree)? + "\n")).collect();
            lines.map(|lines| lines.concat()).map_err(|error: crate::output::template::FormatError| error.into())
        }
    }
}
