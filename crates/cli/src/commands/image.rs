//! Images: listing, removing, moving in and out.

use std::fs::File;
use std::io::{self, IsTerminal, Read};

use api_client::{Client, ImageListOptions, ImagePruneOptions, ImportOptions, Upload};
use clap::ArgMatches;
use docker_api::image::{DeleteItem, Pins, Summary};

use super::container::{filters, reclaimed};
use super::{After, Entry, complain, confirmed, exactly, operands, print};
use crate::context::Context;
use crate::error::{Failure, Outcome, describe};
use crate::flags::Takes::{Many, One, Switch, SwitchOn};
use crate::flags::{Flag, flag, many, on, one, short};
use crate::output::list::{Listing, Row, Style};
use crate::output::progress::{self, Mode};
use crate::output::units;

const LIST_FLAGS: &[Flag] = &[
    short('a', "all", Switch, "Show intermediate images too"),
    flag("digests", Switch, "Show digests"),
    short('f', "filter", Many, "Show only what this describes"),
    flag("format", One, "table, json, or a Go template"),
    flag("no-trunc", Switch, "Do not shorten"),
    short('q', "quiet", Switch, "Show IDs only"),
    flag("tree", Switch, "Show platforms, attestations and containers below each image, and what it takes"),
];

pub(super) const IMAGES: Entry = Entry {
    name: "images",
    about: "List images",
    operands: "[REPOSITORY[:TAG]]",
    after: After::Options,
    flags: &[LIST_FLAGS],
    run: images,
};

const HEADINGS: &[(&str, &str)] = &[
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("Digest", "DIGEST"),
    ("ID", "IMAGE ID"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("Size", "SIZE"),
    ("VirtualSize", "SIZE"),
    ("SharedSize", "SHARED SIZE"),
    ("UniqueSize", "UNIQUE SIZE"),
    ("Containers", "CONTAINERS"),
    ("LastUsed", "LAST USED"),
    ("Pins", "PINS"),
];

const LISTING: Listing = Listing { table: "Repository Tag ID CreatedSince Size", quiet: "ID", headings: HEADINGS };
const LISTING_WITH_DIGESTS: Listing =
    Listing { table: "Repository Tag Digest ID CreatedSince Size", quiet: "ID", headings: HEADINGS };

fn images(context: &Context, matches: &ArgMatches) -> Outcome {
    let mut filters = filters(matches)?;
    if let Some(reference) = operands(matches, 0)?.first() {
        filters.add("reference", reference);
    }
    if on(matches, "tree") {
        return super::tree::tree(context, matches, filters);
    }
    // Working out what images share takes the engine some time, so it is asked for only where it is shown.
    let shows_shares = match context.style(matches) {
        Style::Format(format) => format == "json" || format.contains("SharedSize") || format.contains("UniqueSize"),
        _ => false,
    };
    let options = ImageListOptions { all: on(matches, "all"), shared_size: shows_shares, manifests: false, filters };
    let list = context.client()?.image_list(&options)?;
    let rows: Vec<Row> = list.iter().flat_map(|image| rows(image, matches)).collect();
    let listing = if on(matches, "digests") { LISTING_WITH_DIGESTS } else { LISTING };
    print(&listing.render(context.style(matches), &rows)?)?;
    Ok(0)
}

/// One row a tag; an image without tags has one row with `<none>`.
fn rows(image: &Summary, matches: &ArgMatches) -> Vec<Row> {
    let none = || "<none>".to_owned();
    let digest_of = |repository: &str| {
        let prefix = format!("{repository}@");
        image.repo_digests.iter().find_map(|digest| digest.strip_prefix(&prefix)).map_or_else(none, str::to_owned)
    };
    let tags: Vec<(String, String, String)> = match image.repo_tags.as_slice() {
        [] => vec![(none(), none(), none())],
        tags => tags
            .iter()
            .filter_map(|tag| tag.rsplit_once(':'))
            .map(|(repository, tag)| (repository.to_owned(), tag.to_owned(), digest_of(repository)))
            .collect(),
    };
    let created = jiff::Timestamp::from_second(image.created).unwrap_or_default();
    let id = if on(matches, "no-trunc") { &image.id } else { units::short_id(&image.id) };
    let share = |bytes: i64| if bytes < 0 { "N/A".to_owned() } else { units::size(bytes as u64) };
    let last_used = match jiff::Timestamp::from_second(image.last_used) {
        Ok(time) if image.last_used > 0 => units::ago(time, jiff::Timestamp::now()),
        _ => "N/A".to_owned(),
    };
    let count = |number: i64| if number < 0 { "N/A".to_owned() } else { number.to_string() };
    let row = |(repository, tag, digest): (String, String, String)| {
        Row::default()
            .with("Repository", repository)
            .with("Tag", tag)
            .with("Digest", digest)
            .with("ID", id)
            .with("CreatedSince", units::ago(created, jiff::Timestamp::now()))
            .with("CreatedAt", units::local_time(created))
            .with("Size", units::size(image.size.max(0) as u64))
            .with("VirtualSize", units::size(image.size.max(0) as u64))
            .with("SharedSize", share(image.shared_size))
            .with("UniqueSize", share(if image.shared_size < 0 { -1 } else { image.size - image.shared_size }))
            .with("Containers", count(image.containers))
            .with("LastUsed", last_used.as_str())
            .with("Pins", image.pins.join(", "))
    };
    tags.into_iter().map(row).collect()
}

const HISTORY_FLAGS: &[Flag] = &[
    flag("format", One, "table, json, or a Go template"),
    short('H', "human", SwitchOn, "Sizes and dates for people"),
    flag("no-trunc", Switch, "Do not shorten"),
    flag("platform", One, "The platform that the image must be for"),
    short('q', "quiet", Switch, "Show IDs only"),
];

pub(super) const HISTORY: Entry = Entry {
    name: "history",
    about: "Show how an image was made",
    operands: "IMAGE",
    after: After::Options,
    flags: &[HISTORY_FLAGS],
    run: history,
};

const HISTORY_LISTING: Listing = Listing {
    table: "ID CreatedSince CreatedBy Size Comment",
    quiet: "ID",
    headings: &[
        ("ID", "IMAGE"),
        ("CreatedSince", "CREATED"),
        ("CreatedAt", "CREATED AT"),
        ("CreatedBy", "CREATED BY"),
        ("Size", "SIZE"),
        ("Comment", "COMMENT"),
    ],
};

fn history(context: &Context, matches: &ArgMatches) -> Outcome {
    let [name] = exactly(matches)?;
    let (human, full) = (on(matches, "human"), on(matches, "no-trunc"));
    let platform = super::registry::platform(matches)?;
    let history = context.client()?.image_history(&name, &platform)?;
    let rows: Vec<Row> = history
        .iter()
        .map(|item| {
            let created = jiff::Timestamp::from_second(item.created).unwrap_or_default();
            let bytes = item.size.max(0) as u64;
            let by = item.created_by.replace('\t', " ");
            Row::default()
                .with("ID", if full { &item.id } else { units::short_id(&item.id) })
                .with(
                    "CreatedSince",
                    if human { units::ago(created, jiff::Timestamp::now()) } else { created.to_string() },
                )
                .with("CreatedAt", created.to_string())
                .with("CreatedBy", if full { by } else { units::ellipsis(&by, 45) })
                .with("Size", if human { units::size(bytes) } else { bytes.to_string() })
                .with("Comment", item.comment.as_str())
        })
        .collect();
    print(&HISTORY_LISTING.render(context.style(matches), &rows)?)?;
    Ok(0)
}

pub(super) const TAG: Entry = Entry {
    name: "tag",
    about: "Give an image a further name",
    operands: "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
    after: After::Options,
    flags: &[],
    run: |context, matches| {
        let [source, target] = exactly(matches)?;
        let (repository, tag) = split_tag(&target);
        context.client()?.image_tag(&source, repository, tag)?;
        Ok(0)
    },
};

/// The repository, and the tag if there is one.
pub(super) fn split_tag(name: &str) -> (&str, &str) {
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, tag),
        _ => (name, ""),
    }
}

const RM_FLAGS: &[Flag] = &[
    short('f', "force", Switch, "Remove it although it is used"),
    flag("no-prune", Switch, "Keep parents without a name"),
];

pub(super) const RMI: Entry = Entry {
    name: "rmi",
    about: "Remove one or more images",
    operands: "IMAGE [IMAGE...]",
    after: After::Options,
    flags: &[RM_FLAGS],
    run: |context, matches| {
        let client = context.client()?;
        let (force, prune) = (on(matches, "force"), !on(matches, "no-prune"));
        let mut code = 0;
        for name in operands(matches, 1)? {
            match client.image_remove(&name, force, prune) {
                Ok(items) => print(&items.iter().map(removed).collect::<String>())?,
                Err(error) => {
                    code = u8::from(!(force && error.is_not_found()));
                    complain(&describe(&error));
                }
            }
        }
        Ok(code)
    },
};

fn removed(item: &DeleteItem) -> String {
    match item.deleted.as_str() {
        "" => format!("Untagged: {}\n", item.untagged),
        deleted => format!("Deleted: {deleted}\n"),
    }
}

const PRUNE_FLAGS: &[Flag] = &[
    short('a', "all", Switch, "Remove all images that no container uses, not just those without a name"),
    flag(
        "budget",
        One,
        "Remove what was used longest ago until the disk is no fuller than this (80%), or images and build cache take no more (20GB)",
    ),
    flag("dry-run", Switch, "Only show what would be removed"),
    short('f', "force", Switch, "Do not ask"),
    flag("filter", Many, "Remove only what this describes (until=, unused-for=, label=, label!=)"),
];

pub(super) const PRUNE: Entry = Entry {
    name: "prune",
    about: "Remove unused images",
    operands: "",
    after: After::Options,
    flags: &[PRUNE_FLAGS],
    run: prune,
};

fn prune(context: &Context, matches: &ArgMatches) -> Outcome {
    let (all, budget) = (on(matches, "all"), one(matches, "budget"));
    let which = match (budget, all) {
        (Some(_), _) => "images that no container uses and build cache, as far as the budget asks for it",
        (None, true) => "all images without at least one container associated to them",
        (None, false) => "all dangling images",
    };
    let options = ImagePruneOptions { dry_run: on(matches, "dry-run"), budget: budget.map(str::to_owned) };
    let question = format!("WARNING! This will remove {which}.\nAre you sure you want to continue?");
    if !options.dry_run && !on(matches, "force") && !confirmed(&question)? {
        return Ok(0);
    }
    let mut filters = filters(matches)?;
    if budget.is_none() {
        filters.add("dangling", if all { "false" } else { "true" });
    }
    let report = context.client()?.image_prune_as(&filters, &options)?;
    let images = report.images_deleted.unwrap_or_default();
    let steps = report.caches_deleted.iter().map(|step| format!("build cache: {}", units::short_id(step)));
    let lines: Vec<String> =
        steps.chain(images.iter().map(|item| removed(item).to_lowercase().trim_end().to_owned())).collect();
    if options.dry_run {
        let list: String = lines.iter().map(|line| format!("{line}\n")).collect();
        print(&format!(
            "Would be deleted:\n{list}\nSpace that would be reclaimed: {}\n",
            units::size(report.space_reclaimed)
        ))?;
    } else {
        print(&reclaimed("Deleted Images:", &lines, report.space_reclaimed))?;
    }
    Ok(0)
}

pub(super) const PIN: Entry = Entry {
    name: "pin",
    about: "Keep images from going by themselves: a name pins whatever it names, an ID that image",
    operands: "IMAGE [IMAGE...]",
    after: After::Options,
    flags: &[],
    run: |context, matches| pins(context, matches, Client::image_pin, "pinned by", ""),
};

pub(super) const UNPIN: Entry = Entry {
    name: "unpin",
    about: "Let images go by themselves again",
    operands: "IMAGE [IMAGE...]",
    after: After::Options,
    flags: &[],
    run: |context, matches| pins(context, matches, Client::image_unpin, "still pinned by", "unpinned"),
};

/// Changes pins, and says of each image what pins it then; `nothing` where nothing does.
fn pins(
    context: &Context,
    matches: &ArgMatches,
    change: fn(&Client, &str) -> Result<Pins, api_client::Error>,
    by: &str,
    nothing: &str,
) -> Outcome {
    let client = context.client()?;
    super::each(&operands(matches, 1)?, |name| {
        let left = change(client, name)?.pins;
        Ok(if left.is_empty() { format!("{name}: {nothing}") } else { format!("{name}: {by} {}", left.join(", ")) })
    })
}

const LOAD_FLAGS: &[Flag] = &[
    short('i', "input", One, "Read a file instead of standard input"),
    flag("platform", One, "Load only this platform"),
    short('q', "quiet", Switch, "Do not show progress"),
];

pub(super) const LOAD: Entry = Entry {
    name: "load",
    about: "Load images from a tar",
    operands: "",
    after: After::Options,
    flags: &[LOAD_FLAGS],
    run: |context, matches| {
        let upload = upload(one(matches, "input").unwrap_or("-"), "requested load from stdin, but stdin is empty")?;
        let quiet = on(matches, "quiet") || !io::stderr().is_terminal();
        let platform = super::registry::platform(matches)?;
        progress::show(context.client()?.image_load(upload, quiet, &platform)?, Mode::Results)?;
        Ok(0)
    },
};

const IMPORT_FLAGS: &[Flag] = &[
    short('c', "change", Many, "Apply a Dockerfile instruction to the image"),
    short('m', "message", One, "A message for the image's history"),
    flag("platform", One, "The image's platform"),
];

pub(super) const IMPORT: Entry = Entry {
    name: "import",
    about: "Make an image from a tar of a file system",
    operands: "file|- [REPOSITORY[:TAG]]",
    after: After::Options,
    flags: &[IMPORT_FLAGS],
    run: |context, matches| {
        let words = operands(matches, 1)?;
        let (repository, tag) = split_tag(words.get(1).map_or("", String::as_str));
        let options = ImportOptions {
            repository: repository.to_owned(),
            tag: tag.to_owned(),
            message: one(matches, "message").unwrap_or_default().to_owned(),
            changes: many(matches, "change"),
            platform: one(matches, "platform").unwrap_or_default().to_owned(),
        };
        let upload = upload(&words[0], "requested import from stdin, but stdin is a terminal")?;
        progress::show(context.client()?.image_import(upload, &options)?, Mode::Results)?;
        Ok(0)
    },
};

/// A file, or standard input for `-`, which must not be a terminal.
fn upload(name: &str, refusal: &str) -> Result<Upload, Failure> {
    if name == "-" {
        return match io::stdin().is_terminal() {
            true => Err(Failure::usage(refusal)),
            false => Ok(Upload { source: Box::new(io::stdin()), length: None }),
        };
    }
    let file = File::open(name).map_err(|error| Failure::usage(format!("open {name}: {error}")))?;
    let length = file.metadata().ok().filter(std::fs::Metadata::is_file).map(|metadata| metadata.len());
    Ok(Upload { source: Box::new(file), length })
}

const SAVE_FLAGS: &[Flag] = &[
    short('o', "output", One, "Write to a file instead of standard output"),
    flag("platform", One, "Save only this platform"),
];

pub(super) const SAVE: Entry = Entry {
    name: "save",
    about: "Write one or more images as a tar",
    operands: "IMAGE [IMAGE...]",
    after: After::Options,
    flags: &[SAVE_FLAGS],
    run: |context, matches| {
        let names = operands(matches, 1)?;
        refuse_terminal(one(matches, "output"))?;
        let platform = super::registry::platform(matches)?;
        let body = context.client()?.image_save(&names, &platform)?;
        copy_out(body, one(matches, "output"))?;
        Ok(0)
    },
};

fn refuse_terminal(file: Option<&str>) -> Result<(), Failure> {
    match file.is_none() && io::stdout().is_terminal() {
        true => Err(Failure::usage("cowardly refusing to save to a terminal. Use the -o flag or redirect")),
        false => Ok(()),
    }
}

/// Copies a tar to a file or to standard output; a file appears only when it is whole.
pub(super) fn copy_out(mut body: impl Read, file: Option<&str>) -> Result<(), Failure> {
    refuse_terminal(file)?;
    let Some(name) = file else {
        io::copy(&mut body, &mut io::stdout().lock())?;
        return Ok(());
    };
    let failed = |error: io::Error| Failure::usage(format!("cannot write {name}: {error}"));
    let partial = format!("{name}.partial");
    let result = write_file(&mut body, &partial).and_then(|()| std::fs::rename(&partial, name));
    if result.is_err() {
        // The first error is the one to tell.
        let _ = std::fs::remove_file(&partial);
    }
    result.map_err(failed)
}

fn write_file(body: &mut impl Read, name: &str) -> io::Result<()> {
    let mut file = File::create(name)?;
    io::copy(body, &mut file)?;
    Ok(())
}
