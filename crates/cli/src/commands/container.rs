//! Containers: listing them and changing their state.

use api_client::{CommitOptions, ListOptions, RemoveOptions, StopOptions, WaitCondition};
use clap::ArgMatches;
use docker_api::Filters;
use docker_api::container::{Port, Summary, UpdateRequest};

use super::image::split_tag;
use super::{After, Entry, complain, confirmed, each, exactly, operands, print};
use crate::context::Context;
use crate::error::{Failure, Outcome};
use crate::flags::Takes::{Many, One, Switch, SwitchOn};
use crate::flags::{Flag, flag, many, on, one, short};
use crate::output::list::{Listing, Row};
use crate::output::units;
use crate::run::body;

const PS_FLAGS: &[Flag] = &[
    short('a', "all", Switch, "Show stopped containers too"),
    short('f', "filter", Many, "Show only what this describes"),
    flag("format", One, "table, json, or a Go template"),
    short('n', "last", One, "Show the n last created containers"),
    short('l', "latest", Switch, "Show the last created container"),
    flag("no-trunc", Switch, "Do not shorten"),
    short('q', "quiet", Switch, "Show IDs only"),
    short('s', "size", Switch, "Show file sizes"),
];

pub(super) const PS: Entry =
    Entry { name: "ps", about: "List containers", operands: "", after: After::Options, flags: &[PS_FLAGS], run: ps };

const HEADINGS: &[(&str, &str)] = &[
    ("ID", "CONTAINER ID"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("RunningFor", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("State", "STATE"),
    ("Status", "STATUS"),
    ("Ports", "PORTS"),
    ("Names", "NAMES"),
    ("Size", "SIZE"),
    ("Labels", "LABELS"),
    ("Mounts", "MOUNTS"),
    ("LocalVolumes", "LOCAL VOLUMES"),
    ("Networks", "NETWORKS"),
    ("Platform", "PLATFORM"),
];

const LISTING: Listing =
    Listing { table: "ID Image Command RunningFor Status Ports Names", quiet: "ID", headings: HEADINGS };
const LISTING_WITH_SIZE: Listing =
    Listing { table: "ID Image Command RunningFor Status Ports Names Size", quiet: "ID", headings: HEADINGS };

fn ps(context: &Context, matches: &ArgMatches) -> Outcome {
    let limit = match on(matches, "latest") {
        true => Some(1),
        false => parse_number(matches, "last")?.filter(|count| *count >= 0),
    };
    let size = on(matches, "size") || one(matches, "format").is_some_and(|format| format.contains(".Size"));
    let all = on(matches, "all") || limit.is_some();
    let list = context.client()?.container_list(&ListOptions { all, size, limit, filters: filters(matches)? })?;
    let shorten = !on(matches, "no-trunc");
    let rows: Vec<Row> = list.iter().map(|container| row(container, shorten)).collect();
    let listing = if on(matches, "size") { LISTING_WITH_SIZE } else { LISTING };
    print(&listing.render(context.style(matches), &rows)?)?;
    Ok(0)
}

fn row(container: &Summary, shorten: bool) -> Row {
    let cut = |text: &str, width: usize| if shorten { units::ellipsis(text, width) } else { text.to_owned() };
    let created = jiff::Timestamp::from_second(container.created).unwrap_or_default();
    let mounts: Vec<String> = container
        .mounts
        .iter()
        .map(|m| if m.name.is_empty() { &m.source } else { &m.name })
        .map(|name| cut(name, 15))
        .collect();
    let volumes = container.mounts.iter().filter(|mount| mount.driver == "local").count();
    let networks: Vec<&str> =
        container.network_settings.iter().flat_map(|settings| settings.networks.keys()).map(String::as_str).collect();
    let names: Vec<&str> = container.names.iter().map(|name| name.trim_start_matches('/')).collect();
    Row::default()
        .with("ID", if shorten { units::short_id(&container.id) } else { &container.id })
        .with("Image", short_image(&container.image, shorten))
        .with("Command", format!("\"{}\"", cut(&container.command, 20)))
        .with("RunningFor", units::ago(created, jiff::Timestamp::now()))
        .with("CreatedAt", units::local_time(created))
        .with("State", container.state.as_str())
        .with("Status", container.status.as_str())
        .with("Ports", ports(&container.ports))
        .with("Names", names.join(","))
        .with("Size", sizes(container))
        .with("Mounts", mounts.join(","))
        .with("LocalVolumes", volumes.to_string())
        .with("Networks", networks.join(","))
        .with("Platform", "")
        .with_labels(container.labels.iter().flatten())
}

/// An image that is only known by its ID is shown by twelve digits.
fn short_image(image: &str, shorten: bool) -> &str {
    let is_id = image.starts_with("sha256:") || (image.len() == 64 && image.bytes().all(|b| b.is_ascii_hexdigit()));
    if shorten && is_id { units::short_id(image) } else { image }
}

fn ports(ports: &[Port]) -> String {
    let text = |port: &Port| match port.public_port {
        0 => format!("{}/{}", port.private_port, port.r#type),
        public => {
            let ip = if port.ip.contains(':') { format!("[{}]", port.ip) } else { port.ip.clone() };
            format!("{ip}:{public}->{}/{}", port.private_port, port.r#type)
        }
    };
    ports.iter().map(text).collect::<Vec<_>>().join(", ")
}

fn sizes(container: &Summary) -> String {
    let own = units::size(container.size_rw.max(0) as u64);
    match container.size_root_fs {
        0 => own,
        root => format!("{own} (virtual {})", units::size(root.max(0) as u64)),
    }
}

/// `--filter name=value`, as often as it is given.
pub(super) fn filters(matches: &ArgMatches) -> Result<Filters, Failure> {
    let mut filters = Filters::default();
    for argument in many(matches, "filter") {
        filters.add_argument(&argument).map_err(|error| Failure::usage(error.to_string()))?;
    }
    Ok(filters)
}

fn parse_number(matches: &ArgMatches, name: &str) -> Result<Option<i64>, Failure> {
    let parse =
        |text: &str| text.parse().map_err(|_| Failure::usage(format!("invalid argument {text:?} for --{name}")));
    one(matches, name).map(parse).transpose()
}

const STOP_FLAGS: &[Flag] = &[
    short('s', "signal", One, "The signal to stop with"),
    short('t', "timeout", One, "Seconds to wait before SIGKILL"),
    flag("time", One, "The same, under its old name"),
];

fn stop_options(matches: &ArgMatches) -> Result<StopOptions, Failure> {
    let timeout = parse_number(matches, "timeout")?.or(parse_number(matches, "time")?);
    Ok(StopOptions { signal: one(matches, "signal").unwrap_or_default().to_owned(), timeout })
}

pub(super) const STOP: Entry = Entry {
    name: "stop",
    about: "Stop one or more running containers",
    operands: "CONTAINER [CONTAINER...]",
    after: After::Options,
    flags: &[STOP_FLAGS],
    run: |context, matches| {
        let (client, options) = (context.client()?, stop_options(matches)?);
        each(&operands(matches, 1)?, |name| client.container_stop(name, &options).map(|()| name.to_owned()))
    },
};

pub(super) const RESTART: Entry = Entry {
    name: "restart",
    about: "Restart one or more containers",
    operands: "CONTAINER [CONTAINER...]",
    after: After::Options,
    flags: &[STOP_FLAGS],
    run: |context, matches| {
        let (client, options) = (context.client()?, stop_options(matches)?);
        each(&operands(matches, 1)?, |name| client.container_restart(name, &options).map(|()| name.to_owned()))
    },
};

pub(super) const KILL: Entry = Entry {
    name: "kill",
    about: "Send a signal to one or more running containers",
    operands: "CONTAINER [CONTAINER...]",
    after: After::Options,
    flags: &[&[short('s', "signal", One, "The signal; KILL unless said otherwise")]],
    run: |context, matches| {
        let client = context.client()?;
        let signal = one(matches, "signal").unwrap_or("KILL");
        each(&operands(matches, 1)?, |name| client.container_kill(name, signal).map(|()| name.to_owned()))
    },
};

pub(super) const PAUSE: Entry = Entry {
    name: "pause",
    about: "Pause all processes of one or more containers",
    operands: "CONTAINER [CONTAINER...]",
    after: After::Options,
    flags: &[],
    run: |context, matches| {
        let client = context.client()?;
        each(&operands(matches, 1)?, |name| client.container_pause(name).map(|()| name.to_owned()))
    },
};

pub(super) const UNPAUSE: Entry = Entry {
    name: "unpause",
    about: "Let the processes of one or more containers go on",
    operands: "CONTAINER [CONTAINER...]",
    after: After::Options,
    flags: &[],
    run: |context, matches| {
        let client = context.client()?;
        each(&operands(matches, 1)?, |name| client.container_unpause(name).map(|()| name.to_owned()))
    },
};

pub(super) const WAIT: Entry = Entry {
    name: "wait",
    about: "Wait until one or more containers stop, then print their exit codes",
    operands: "CONTAINER [CONTAINER...]",
    after: After::Options,
    flags: &[],
    run: |context, matches| {
        let client = context.client()?;
        each(&operands(matches, 1)?, |name| {
            let answer = client.container_wait(name, WaitCondition::NotRunning)?.finish()?;
            Ok(answer.status_code.to_string())
        })
    },
};

pub(super) const RENAME: Entry = Entry {
    name: "rename",
    about: "Rename a container",
    operands: "CONTAINER NEW_NAME",
    after: After::Options,
    flags: &[],
    run: |context, matches| {
        let [name, new_name] = exactly(matches)?;
        context.client()?.container_rename(&name, &new_name)?;
        Ok(0)
    },
};

const RM_FLAGS: &[Flag] = &[
    short('f', "force", Switch, "Remove running containers too (they get SIGKILL)"),
    short('l', "link", Switch, "Remove a link"),
    short('v', "volumes", Switch, "Remove their anonymous volumes too"),
];

pub(super) const RM: Entry = Entry {
    name: "rm",
    about: "Remove one or more containers",
    operands: "CONTAINER [CONTAINER...]",
    after: After::Options,
    flags: &[RM_FLAGS],
    run: |context, matches| {
        let client = context.client()?;
        let force = on(matches, "force");
        let options = RemoveOptions { volumes: on(matches, "volumes"), links: on(matches, "link"), force };
        each(&operands(matches, 1)?, |name| match client.container_remove(name, options) {
            // What is gone is what was wanted.
            Err(error) if force && error.is_not_found() => {
                complain(&crate::error::describe(&error));
                Ok(String::new())
            }
            result => result.map(|()| name.to_owned()),
        })
    },
};

const PRUNE_FLAGS: &[Flag] = &[
    short('f', "force", Switch, "Do not ask"),
    flag("filter", Many, "Remove only what this describes (until=, label=)"),
];

pub(super) const PRUNE: Entry = Entry {
    name: "prune",
    about: "Remove all stopped containers",
    operands: "",
    after: After::Options,
    flags: &[PRUNE_FLAGS],
    run: |context, matches| {
        let question = "WARNING! This will remove all stopped containers.\nAre you sure you want to continue?";
        if !on(matches, "force") && !confirmed(question)? {
            return Ok(0);
        }
        let report = context.client()?.container_prune(&filters(matches)?)?;
        let deleted = report.containers_deleted.unwrap_or_default();
        print(&reclaimed("Deleted Containers:", &deleted, report.space_reclaimed))?;
        Ok(0)
    },
};

/// What a prune did, as Docker prints it.
pub(super) fn reclaimed(title: &str, deleted: &[String], bytes: u64) -> String {
    let list = match deleted {
        [] => String::new(),
        names => format!("{title}\n{}\n\n", names.join("\n")),
    };
    format!("{list}Total reclaimed space: {}\n", units::size(bytes))
}

pub(super) const TOP: Entry = Entry {
    name: "top",
    about: "Show the processes of a container",
    operands: "CONTAINER [ps OPTIONS]",
    after: After::Verbatim,
    flags: &[],
    run: |context, matches| {
        let words = operands(matches, 1)?;
        let top = context.client()?.container_top(&words[0], &words[1..].join(" "))?;
        let lines: Vec<String> = [top.titles].into_iter().chain(top.processes).map(|cells| cells.join("\t")).collect();
        print(&crate::output::table::align_wide(&lines.join("\n")))?;
        Ok(0)
    },
};

pub(super) const DIFF: Entry = Entry {
    name: "diff",
    about: "Show what a container has changed in its file system",
    operands: "CONTAINER",
    after: After::Options,
    flags: &[],
    run: |context, matches| {
        let [name] = exactly(matches)?;
        let changes = context.client()?.container_changes(&name)?;
        let letter = |kind| match kind {
            0 => 'C',
            1 => 'A',
            _ => 'D',
        };
        let lines: String = changes.iter().map(|change| format!("{} {}\n", letter(change.kind), change.path)).collect();
        print(&lines)?;
        Ok(0)
    },
};

pub(super) const EXPORT: Entry = Entry {
    name: "export",
    about: "Write a container's file system as a tar",
    operands: "CONTAINER",
    after: After::Options,
    flags: &[&[short('o', "output", One, "Write to a file instead of standard output")]],
    run: |context, matches| {
        let [name] = exactly(matches)?;
        let body = context.client()?.container_export(&name)?;
        super::image::copy_out(body, one(matches, "output"))?;
        Ok(0)
    },
};

pub(super) const PORT: Entry = Entry {
    name: "port",
    about: "List where a container's ports are published",
    operands: "CONTAINER [PRIVATE_PORT[/PROTOCOL]]",
    after: After::Options,
    flags: &[],
    run: port,
};

fn port(context: &Context, matches: &ArgMatches) -> Outcome {
    let words = operands(matches, 1)?;
    let container = context.client()?.container_inspect(&words[0])?;
    let wanted = words.get(1).map(|port| if port.contains('/') { port.clone() } else { format!("{port}/tcp") });
    let mut lines = String::new();
    for (port, bindings) in container.network_settings.ports.unwrap_or_default() {
        let bindings = bindings.unwrap_or_default();
        let shown = wanted.as_ref().is_none_or(|wanted| *wanted == port);
        for binding in bindings.iter().filter(|_| shown) {
            let ip =
                if binding.host_ip.contains(':') { format!("[{}]", binding.host_ip) } else { binding.host_ip.clone() };
            let place = format!("{ip}:{}\n", binding.host_port);
            lines += &if wanted.is_some() { place } else { format!("{port} -> {place}") };
        }
    }
    if let (true, Some(port)) = (lines.is_empty(), wanted) {
        return Err(Failure::usage(format!("no public port '{port}' published for {}", words[0])));
    }
    print(&lines)?;
    Ok(0)
}

const UPDATE_FLAGS: &[Flag] = &[
    flag("blkio-weight", One, "Relative weight of block I/O, 10 to 1000"),
    flag("cpu-period", One, "The period of the CPU quota, in microseconds"),
    flag("cpu-quota", One, "The CPU time per period, in microseconds"),
    short('c', "cpu-shares", One, "Relative weight of CPU time"),
    flag("cpus", One, "The number of CPUs"),
    flag("cpuset-cpus", One, "The CPUs to run on"),
    flag("cpuset-mems", One, "The memory nodes to use"),
    short('m', "memory", One, "The memory limit"),
    flag("memory-reservation", One, "The soft memory limit"),
    flag("memory-swap", One, "The limit of memory and swap together; -1 for no limit"),
    flag("pids-limit", One, "The limit of processes; -1 for no limit"),
    flag("restart", One, "What to do when the container exits"),
];

pub(super) const UPDATE: Entry = Entry {
    name: "update",
    about: "Change the limits of one or more containers",
    operands: "CONTAINER [CONTAINER...]",
    after: After::Options,
    flags: &[UPDATE_FLAGS],
    run: |context, matches| {
        let request = update_request(matches).map_err(Failure::usage)?;
        let client = context.client()?;
        each(&operands(matches, 1)?, |name| {
            let answer = client.container_update(name, &request)?;
            answer.warnings.unwrap_or_default().iter().for_each(|warning| complain(warning));
            Ok(name.to_owned())
        })
    },
};

const COMMIT_FLAGS: &[Flag] = &[
    short('a', "author", One, "Who made the image"),
    short('c', "change", Many, "Apply a Dockerfile instruction to the image"),
    short('m', "message", One, "A message for the image's history"),
    short('p', "pause", SwitchOn, "Freeze the container meanwhile"),
    flag("no-pause", Switch, "Let the container go on meanwhile"),
];

pub(super) const COMMIT: Entry = Entry {
    name: "commit",
    about: "Make an image of a container's changes",
    operands: "CONTAINER [REPOSITORY[:TAG]]",
    after: After::Options,
    flags: &[COMMIT_FLAGS],
    run: |context, matches| {
        let words = operands(matches, 1)?;
        let (repository, tag) = split_tag(words.get(1).map_or("", String::as_str));
        let options = CommitOptions {
            repository: repository.to_owned(),
            tag: tag.to_owned(),
            author: one(matches, "author").unwrap_or_default().to_owned(),
            message: one(matches, "message").unwrap_or_default().to_owned(),
            changes: many(matches, "change"),
            pause: on(matches, "pause") && !on(matches, "no-pause"),
        };
        let answer = context.client()?.container_commit(&words[0], &options)?;
        print(&format!("{}\n", answer.id))?;
        Ok(0)
    },
};

fn update_request(matches: &ArgMatches) -> Result<UpdateRequest, String> {
    let number = |name: &str| {
        let wrong = |text: &str| format!("invalid argument {text:?} for \"--{name}\" flag: it takes a number");
        one(matches, name).map_or(Ok(0), |text| text.parse::<i64>().map_err(|_| wrong(text)))
    };
    let size = |name: &str| match one(matches, name) {
        Some("-1") => Ok(-1),
        _ => Ok::<i64, String>(body::size(matches, name)?.unwrap_or(0)),
    };
    let weight = number("blkio-weight")?;
    Ok(UpdateRequest {
        blkio_weight: u16::try_from(weight).map_err(|_| format!("invalid block I/O weight: {weight}"))?,
        cpu_period: number("cpu-period")?,
        cpu_quota: number("cpu-quota")?,
        cpu_shares: number("cpu-shares")?,
        nano_cpus: one(matches, "cpus").map(body::nano_cpus).transpose()?.unwrap_or(0),
        cpuset_cpus: one(matches, "cpuset-cpus").unwrap_or_default().to_owned(),
        cpuset_mems: one(matches, "cpuset-mems").unwrap_or_default().to_owned(),
        memory: size("memory")?,
        memory_reservation: size("memory-reservation")?,
        memory_swap: size("memory-swap")?,
        pids_limit: one(matches, "pids-limit").map(|_| number("pids-limit")).transpose()?,
        restart_policy: one(matches, "restart").map(body::restart_policy).transpose()?.unwrap_or_default(),
        ..UpdateRequest::default()
    })
}
