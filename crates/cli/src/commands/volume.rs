//! Volumes.

use clap::ArgMatches;
use docker_api::volume::{CreateRequest, Volume};

use super::container::{filters, reclaimed};
use super::{After, Entry, confirmed, each, operands, print};
use crate::context::Context;
use crate::error::{Failure, Outcome};
use crate::flags::Takes::{Many, One, Switch};
use crate::flags::{Flag, flag, many, on, one, short};
use crate::output::list::{Listing, Row};
use crate::run::body::pairs;

const CREATE_FLAGS: &[Flag] = &[
    short('d', "driver", One, "The volume driver"),
    flag("label", Many, "Set a label"),
    flag("name", One, "The volume's name"),
    short('o', "opt", Many, "Set an option of the driver"),
];

pub(super) const CREATE: Entry = Entry {
    name: "create",
    about: "Create a volume",
    operands: "[VOLUME]",
    after: After::Options,
    flags: &[CREATE_FLAGS],
    run: |context, matches| {
        let name = operands(matches, 0)?.into_iter().next().or_else(|| one(matches, "name").map(str::to_owned));
        let request = CreateRequest {
            driver: one(matches, "driver").unwrap_or("local").to_owned(),
            driver_opts: Some(pairs(many(matches, "opt"), '=')),
            labels: Some(pairs(many(matches, "label"), '=')),
            name: name.unwrap_or_default(),
            ..CreateRequest::default()
        };
        let volume = context.client()?.volume_create(&request)?;
        print(&format!("{}\n", volume.name))?;
        Ok(0)
    },
};

const COPY_FLAGS: &[Flag] = &[flag("label", Many, "Set a label")];

pub(super) const CLONE: Entry = Entry {
    name: "clone",
    about: "Create a volume that begins as another one is and shares its blocks on the disk (xfs, btrfs)",
    operands: "SOURCE VOLUME",
    after: After::Options,
    flags: &[COPY_FLAGS],
    run: |context, matches| copy(context, matches, "clone"),
};

pub(super) const SNAPSHOT: Entry = Entry {
    name: "snapshot",
    about: "Create a volume that stays as another one is: containers can only read it",
    operands: "SOURCE VOLUME",
    after: After::Options,
    flags: &[COPY_FLAGS],
    run: |context, matches| copy(context, matches, "snapshot"),
};

/// Creates a volume from another one, by an option that the docker command line can give as well (`-o clone=SOURCE`).
fn copy(context: &Context, matches: &ArgMatches, option: &str) -> Outcome {
    let names: [String; 2] = operands(matches, 2)?
        .try_into()
        .map_err(|_| Failure::usage(format!("\"conex volume {option}\" requires exactly 2 arguments.")))?;
    let [source, name] = names;
    let client = context.client()?;
    // Creating one that is there is no error, and would leave it as it is.
    if client.volume_inspect(&name).is_ok() {
        return Err(Failure::usage(format!("volume {name} already exists")));
    }
    let request = CreateRequest {
        driver: "local".to_owned(),
        driver_opts: Some([(option.to_owned(), source)].into()),
        labels: Some(pairs(many(matches, "label"), '=')),
        name,
        ..CreateRequest::default()
    };
    print(&format!("{}\n", client.volume_create(&request)?.name))?;
    Ok(0)
}

const LIST_FLAGS: &[Flag] = &[
    short('f', "filter", Many, "Show only what this describes"),
    flag("format", One, "table, json, or a Go template"),
    short('q', "quiet", Switch, "Show names only"),
];

const LISTING: Listing = Listing {
    table: "Driver Name",
    quiet: "Name",
    headings: &[
        ("Driver", "DRIVER"),
        ("Name", "VOLUME NAME"),
        ("Scope", "SCOPE"),
        ("Mountpoint", "MOUNTPOINT"),
        ("Labels", "LABELS"),
        ("Links", "LINKS"),
        ("Size", "SIZE"),
    ],
};

pub(super) const LS: Entry = Entry {
    name: "ls",
    about: "List volumes",
    operands: "",
    after: After::Options,
    flags: &[LIST_FLAGS],
    run: |context, matches| {
        let mut list = context.client()?.volume_list(&filters(matches)?)?.volumes;
        list.sort_by(|a, b| a.name.cmp(&b.name));
        let rows: Vec<Row> = list.iter().map(row).collect();
        print(&LISTING.render(context.style(matches), &rows)?)?;
        Ok(0)
    },
};

fn row(volume: &Volume) -> Row {
    Row::default()
        .with("Driver", volume.driver.as_str())
        .with("Name", volume.name.as_str())
        .with("Scope", volume.scope.as_str())
        .with("Mountpoint", volume.mountpoint.as_str())
        .with("Links", "N/A")
        .with("Size", "N/A")
        .with_labels(volume.labels.iter().flatten())
}

pub(super) const RM: Entry = Entry {
    name: "rm",
    about: "Remove one or more volumes",
    operands: "VOLUME [VOLUME...]",
    after: After::Options,
    flags: &[&[short('f', "force", Switch, "Do not complain about missing volumes")]],
    run: |context, matches| {
        let client = context.client()?;
        each(&operands(matches, 1)?, |name| client.volume_remove(name, on(matches, "force")).map(|()| name.to_owned()))
    },
};

const PRUNE_FLAGS: &[Flag] = &[
    short('a', "all", Switch, "Remove all unused volumes, not just anonymous ones"),
    short('f', "force", Switch, "Do not ask"),
    flag("filter", Many, "Remove only what this describes (label=)"),
];

pub(super) const PRUNE: Entry = Entry {
    name: "prune",
    about: "Remove unused volumes",
    operands: "",
    after: After::Options,
    flags: &[PRUNE_FLAGS],
    run: |context, matches| {
        let all = on(matches, "all");
        let which = if all { "all local volumes" } else { "anonymous local volumes" };
        let question = format!(
            "WARNING! This will remove {which} not used by at least one container.\nAre you sure you want to continue?"
        );
        if !on(matches, "force") && !confirmed(&question)? {
            return Ok(0);
        }
        let mut filters = filters(matches)?;
        if all {
            if filters.contains("all") {
                return Err(Failure::usage("conflicting options: cannot specify both --all and --filter all=1"));
            }
            filters.add("all", "true");
        }
        let report = context.client()?.volume_prune(&filters)?;
        let deleted = report.volumes_deleted.unwrap_or_default();
        print(&reclaimed("Deleted Volumes:", &deleted, report.space_reclaimed))?;
        Ok(0)
    },
};
