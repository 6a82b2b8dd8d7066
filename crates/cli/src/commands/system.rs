//! The engine itself: version, information, events, disk use.

use api_client::EventsOptions;
use clap::ArgMatches;
use docker_api::event::Event;
use docker_api::system::{DiskUsage, Info, KindUsage, StorageBudget, Version};
use serde_json::Value;

use super::container::filters;
use super::{After, Entry, complain, confirmed, print};
use crate::context::Context;
use crate::error::{Failure, Outcome};
use crate::flags::Takes::{Many, One, Switch};
use crate::flags::{Flag, flag, on, one, short};
use crate::output::json::Json;
use crate::output::list::{Listing, Row, Style};
use crate::output::table::align;
use crate::output::template::Formatter;
use crate::output::units;

const FORMAT: &[Flag] = &[short('f', "format", One, "json, or a Go template")];

pub(super) const VERSION: Entry = Entry {
    name: "version",
    about: "Show the versions of this command and of the engine",
    operands: "",
    after: After::Options,
    flags: &[FORMAT],
    run: version,
};

fn version(context: &Context, matches: &ArgMatches) -> Outcome {
    let client = context.client()?;
    let server = client.server_version();
    let own = client_version(&client.version().to_string());
    let trees = match &server {
        Ok(server) => vec![("Client".to_owned(), Json::of(&own)?), ("Server".to_owned(), Json::of(server)?)],
        Err(_) => vec![("Client".to_owned(), Json::of(&own)?), ("Server".to_owned(), Json::Null)],
    };
    match context.style(matches) {
        Style::Format("json") => print(&format!("{}\n", Json::Object(trees).compact()))?,
        Style::Format(template) => print(&format!("{}\n", Formatter::parse(template)?.render(&Json::Object(trees))?))?,
        _ => print(&align(&version_text(&own, server.as_ref().ok())))?,
    }
    match server {
        Ok(_) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

fn client_version(api_version: &str) -> Version {
    Version {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        api_version: api_version.to_owned(),
        os: std::env::consts::OS.to_owned(),
        arch: go_architecture().to_owned(),
        ..Version::default()
    }
}

/// Go's name of this machine's architecture.
fn go_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn version_text(own: &Version, server: Option<&Version>) -> String {
    let mut text = format!(
        "Client: Conex\n Version:\t{}\n API version:\t{}\n OS/Arch:\t{}/{}\n",
        own.version, own.api_version, own.os, own.arch
    );
    if let Some(server) = server {
        text += &format!(
            "\nServer: {}\n Version:\t{}\n API version:\t{} (minimum version {})\n OS/Arch:\t{}/{}\n Kernel version:\t{}\n",
            server.platform.name,
            server.version,
            server.api_version,
            server.min_api_version,
            server.os,
            server.arch,
            server.kernel_version
        );
    }
    text
}

pub(super) const INFO: Entry = Entry {
    name: "info",
    about: "Show what the engine holds and what this host can and cannot do",
    operands: "",
    after: After::Options,
    flags: &[FORMAT],
    run: |context, matches| {
        let info = context.client()?.info()?;
        match context.style(matches) {
            Style::Format("json") => print(&format!("{}\n", Json::of(&info)?.compact()))?,
            Style::Format(template) => print(&format!("{}\n", Formatter::parse(template)?.render(&Json::of(&info)?)?))?,
            _ => print(&info_text(&info))?,
        }
        info.warnings.unwrap_or_default().iter().for_each(|warning| complain(warning));
        Ok(0)
    },
};

fn info_text(info: &Info) -> String {
    let mut lines = vec![
        format!("Containers: {}", info.containers),
        format!(" Running: {}", info.containers_running),
        format!(" Paused: {}", info.containers_paused),
        format!(" Stopped: {}", info.containers_stopped),
        format!("Images: {}", info.images),
        format!("Server Version: {}", info.server_version),
        format!("Storage Driver: {}", info.driver),
    ];
    lines.extend(info.driver_status.iter().map(|[name, value]| format!(" {name}: {value}")));
    let runtimes: Vec<&str> = info.runtimes.keys().map(String::as_str).collect();
    lines.extend([
        format!("Logging Driver: {}", info.logging_driver),
        format!("Cgroup Driver: {}", info.cgroup_driver),
        format!("Cgroup Version: {}", info.cgroup_version),
        format!("Runtimes: {}", runtimes.join(" ")),
        format!("Default Runtime: {}", info.default_runtime),
        "Security Options:".to_owned(),
    ]);
    lines.extend(info.security_options.iter().map(|option| format!(" {}", option.replace("name=", ""))));
    lines.extend([
        format!("Kernel Version: {}", info.kernel_version),
        format!("Operating System: {}", info.operating_system),
        format!("OSType: {}", info.os_type),
        format!("Architecture: {}", info.architecture),
        format!("CPUs: {}", info.ncpu),
        format!("Total Memory: {}", units::binary_size(info.mem_total.max(0) as u64)),
        format!("Name: {}", info.name),
        format!("ID: {}", info.id),
        format!("Root Dir: {}", info.docker_root_dir),
        format!("Live Restore Enabled: {}", info.live_restore_enabled),
    ]);
    lines.join("\n") + "\n"
}

const EVENTS_FLAGS: &[Flag] = &[
    short('f', "filter", Many, "Show only what this describes"),
    flag("format", One, "json, or a Go template"),
    flag("since", One, "Begin at this time"),
    flag("until", One, "End at this time"),
];

pub(super) const EVENTS: Entry = Entry {
    name: "events",
    about: "Show what happens, as it happens",
    operands: "",
    after: After::Options,
    flags: &[EVENTS_FLAGS],
    run: |context, matches| {
        let moment = |name: &str| units::moment(one(matches, name).unwrap_or_default(), jiff::Timestamp::now());
        let options = EventsOptions { since: moment("since"), until: moment("until"), filters: filters(matches)? };
        let formatter = match context.style(matches) {
            Style::Format("json") => Some(Formatter::parse("{{json .}}")?),
            Style::Format(template) => Some(Formatter::parse(template)?),
            _ => None,
        };
        for event in context.client()?.events(&options)? {
            let event = event?;
            let line = match &formatter {
                Some(formatter) => formatter.render(&event_tree(&event)?)?,
                None => event_line(&event),
            };
            print(&format!("{line}\n"))?;
        }
        Ok(0)
    },
};

/// The event with the names that templates use beside those of the wire.
fn event_tree(event: &Event) -> Result<Json, Failure> {
    Ok(Json::of(event)?)
}

fn event_line(event: &Event) -> String {
    let time = jiff::Timestamp::from_nanosecond(event.time_nano.into()).unwrap_or_default();
    let attributes: Vec<String> = event.actor.attributes.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let attributes = if attributes.is_empty() { String::new() } else { format!(" ({})", attributes.join(", ")) };
    format!("{} {} {} {}{attributes}", units::local_stamp(time), event.r#type, event.action, event.actor.id)
}

const DF_FLAGS: &[Flag] =
    &[flag("format", One, "table, json, or a Go template"), short('v', "verbose", Switch, "Show every object")];

pub(super) const DF: Entry = Entry {
    name: "df",
    about: "Show how much disk is used",
    operands: "",
    after: After::Options,
    flags: &[DF_FLAGS],
    run: df,
};

const DF_LISTING: Listing = Listing {
    table: "Type TotalCount Active Size Reclaimable",
    quiet: "Type",
    headings: &[
        ("Type", "TYPE"),
        ("TotalCount", "TOTAL"),
        ("Active", "ACTIVE"),
        ("Size", "SIZE"),
        ("Reclaimable", "RECLAIMABLE"),
    ],
};

fn df(context: &Context, matches: &ArgMatches) -> Outcome {
    let usage = context.client()?.disk_usage()?;
    if on(matches, "verbose") {
        print(&verbose_usage(&usage))?;
        return Ok(0);
    }
    let images = usage.images.iter().flatten().filter(|image| image.containers > 0);
    let used: i64 = images.map(|image| image.size - image.shared_size.max(0)).sum();
    let sums = usage.sums(usage.layers_size - used);
    let rows = [
        df_row("Images", sums.image_usage),
        df_row("Containers", sums.container_usage),
        df_row("Local Volumes", sums.volume_usage),
        df_row("Build Cache", sums.build_cache_usage),
    ];
    let style = context.style(matches);
    print(&DF_LISTING.render(style, &rows)?)?;
    if let (Style::Table, Some(budget)) = (style, &usage.summaries.storage_budget) {
        print(&budget_text(budget))?;
    }
    Ok(0)
}

/// How the storage budget is kept.
fn budget_text(budget: &StorageBudget) -> String {
    let size = |bytes: i64| units::size(bytes.max(0) as u64);
    let limit = if budget.budget.ends_with('%') {
        format!("{} ({})", budget.budget, size(budget.limit))
    } else {
        size(budget.limit)
    };
    let excess = match budget.excess {
        ..=0 => String::new(),
        excess => format!("; {} too much, which may not go: {}", size(excess), budget.kept),
    };
    format!("\nStorage budget: {} of {limit} used{excess}\n", size(budget.used))
}

fn df_row<T: Default>(kind: &str, usage: Option<KindUsage<T>>) -> Row {
    let usage = usage.unwrap_or_default();
    let (size, free) = (usage.total_size.max(0) as u64, usage.reclaimable.max(0) as u64);
    let share = (free * 100).checked_div(size).map_or_else(String::new, |percent| format!(" ({percent}%)"));
    Row::default()
        .with("Type", kind)
        .with("TotalCount", usage.total_count.to_string())
        .with("Active", usage.active_count.to_string())
        .with("Size", units::size(size))
        .with("Reclaimable", format!("{}{share}", units::size(free)))
}

fn verbose_usage(usage: &DiskUsage) -> String {
    let size = |bytes: i64| units::size(bytes.max(0) as u64);
    let mut images = "REPOSITORY\tTAG\tIMAGE ID\tCREATED\tSIZE\tSHARED SIZE\tUNIQUE SIZE\tCONTAINERS\n".to_owned();
    for image in usage.images.iter().flatten() {
        let name = image.repo_tags.first().map_or("<none>:<none>", String::as_str);
        let (repository, tag) = name.rsplit_once(':').unwrap_or((name, "<none>"));
        let created = jiff::Timestamp::from_second(image.created).unwrap_or_default();
        let shared = image.shared_size.max(0);
        let cells = [
            repository,
            tag,
            units::short_id(&image.id),
            &units::ago(created, jiff::Timestamp::now()),
            &size(image.size),
            &size(shared),
            &size(image.size - shared),
            &image.containers.to_string(),
        ];
        images += &(cells.join("\t") + "\n");
    }
    let mut containers = "CONTAINER ID\tIMAGE\tSIZE\tSTATUS\tNAMES\n".to_owned();
    for container in usage.containers.iter().flatten() {
        let names = container.names.join(",").replace('/', "");
        let cells =
            [units::short_id(&container.id), &container.image, &size(container.size_rw), &container.status, &names];
        containers += &(cells.join("\t") + "\n");
    }
    let mut volumes = "VOLUME NAME\tLINKS\tSIZE\n".to_owned();
    for volume in usage.volumes.iter().flatten() {
        let (links, bytes) = volume.usage_data.as_ref().map_or((0, 0), |usage| (usage.ref_count, usage.size));
        volumes += &format!("{}\t{links}\t{}\n", volume.name, size(bytes));
    }
    let mut cache = "CACHE ID\tCACHE TYPE\tSIZE\tCREATED\tLAST USED\tUSAGE\tSHARED\n".to_owned();
    for step in usage.build_cache.iter().flatten() {
        let text = |key: &str| step.get(key).and_then(Value::as_str).unwrap_or_default();
        let number = |key: &str| step.get(key).and_then(Value::as_i64).unwrap_or_default();
        let ago = |key: &str| {
            text(key).parse().map_or_else(|_| String::new(), |time| units::ago(time, jiff::Timestamp::now()))
        };
        let shared = step.get("Shared").and_then(Value::as_bool).unwrap_or_default();
        let cells = [
            units::short_id(text("ID")).to_owned(),
            text("Type").to_owned(),
            size(number("Size")),
            ago("CreatedAt"),
            ago("LastUsedAt"),
            number("UsageCount").to_string(),
            shared.to_string(),
        ];
        cache += &(cells.join("\t") + "\n");
    }
    format!(
        "Images space usage:\n\n{}\nContainers space usage:\n\n{}\nLocal Volumes space usage:\n\n{}\nBuild cache usage: {}\n\n{}",
        align(&images),
        align(&containers),
        align(&volumes),
        size(usage.build_cache.iter().flatten().filter_map(|step| step.get("Size").and_then(Value::as_i64)).sum()),
        align(&cache)
    )
}

const PRUNE_FLAGS: &[Flag] = &[
    short('a', "all", Switch, "Remove all unused images, not just those without a name"),
    short('f', "force", Switch, "Do not ask"),
    flag("filter", Many, "Remove only what this describes (until=, label=, label!=)"),
    flag("volumes", Switch, "Remove unused anonymous volumes too"),
];

pub(super) const PRUNE: Entry = Entry {
    name: "prune",
    about: "Remove unused containers, images and volumes",
    operands: "",
    after: After::Options,
    flags: &[PRUNE_FLAGS],
    run: |context, matches| {
        let (all, volumes) = (on(matches, "all"), on(matches, "volumes"));
        let question = format!(
            "WARNING! This will remove:\n  - all stopped containers\n{}  - {}\n\nAre you sure you want to continue?",
            if volumes { "  - all anonymous volumes not used by at least one container\n" } else { "" },
            if all { "all images without at least one container associated to them" } else { "all dangling images" }
        );
        if !on(matches, "force") && !confirmed(&question)? {
            return Ok(0);
        }
        prune(context, matches, all, volumes)
    },
};

fn prune(context: &Context, matches: &ArgMatches, all: bool, volumes: bool) -> Outcome {
    let client = context.client()?;
    let filters = filters(matches)?;
    let containers = client.container_prune(&filters)?;
    let mut bytes = containers.space_reclaimed;
    let mut lines = section("Deleted Containers:", &containers.containers_deleted.unwrap_or_default());
    if volumes {
        let report = client.volume_prune(&filters)?;
        bytes += report.space_reclaimed;
        lines += &section("Deleted Volumes:", &report.volumes_deleted.unwrap_or_default());
    }
    let mut of_images = filters.clone();
    of_images.add("dangling", if all { "false" } else { "true" });
    let report = client.image_prune(&of_images)?;
    bytes += report.space_reclaimed;
    let images: Vec<String> = report
        .images_deleted
        .unwrap_or_default()
        .into_iter()
        .map(|item| {
            if item.deleted.is_empty() {
                format!("untagged: {}", item.untagged)
            } else {
                format!("deleted: {}", item.deleted)
            }
        })
        .collect();
    lines += &section("Deleted Images:", &images);
    print(&format!("{lines}Total reclaimed space: {}\n", units::size(bytes)))?;
    Ok(0)
}

fn section(title: &str, names: &[String]) -> String {
    if names.is_empty() { String::new() } else { format!("{title}\n{}\n\n", names.join("\n")) }
}
