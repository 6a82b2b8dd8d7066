//! `state`, `list`, `ps` and `features`.

use std::process::{Command, ExitCode};

use oci::runtime::Status;
use runtime::{Saved, StateDirectory};
use serde::Serialize;

use super::arguments::{Arguments, UsageError};
use super::container::{find, id_alone, status_word};
use super::{CommandError, Global, print, time};

/// A container as `state` and `list` show it: the specification's fields and those that runc has added.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct View {
    oci_version: String,
    id: String,
    pid: i32,
    status: Status,
    bundle: String,
    rootfs: String,
    created: String,
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    annotations: std::collections::BTreeMap<String, String>,
    owner: String,
}

impl View {
    fn of(saved: &Saved, status: Status) -> View {
        View {
            oci_version: oci::runtime::VERSION.to_owned(),
            id: saved.id.clone(),
            pid: if status == Status::Stopped { 0 } else { saved.pid },
            status,
            bundle: saved.bundle.display().to_string(),
            rootfs: saved.rootfs.display().to_string(),
            created: time::rfc3339_nano(saved.created.0, saved.created.1),
            annotations: saved.spec.annotations.clone(),
            owner: user_name(saved.owner),
        }
    }
}

/// `state`: tells about one container.
pub(super) fn state(global: &Global, arguments: Arguments) -> Result<ExitCode, CommandError> {
    let found = find(global, &id_alone(arguments)?)?;
    print_json(&View::of(&found.saved, found.status))
}

fn print_json(value: &impl Serialize) -> Result<ExitCode, CommandError> {
    let text = serde_json::to_string_pretty(value);
    let text = text.map_err(|source| CommandError::Json { subject: "cannot write JSON".to_owned(), source })?;
    print(&format!("{text}\n"));
    Ok(ExitCode::SUCCESS)
}

/// `list`: tells about all containers.
pub(super) fn list(global: &Global, mut arguments: Arguments) -> Result<ExitCode, CommandError> {
    let (mut format, mut quiet) = ("table".to_owned(), false);
    while let Some(word) = arguments.next()? {
        match word.as_str() {
            "--format" | "-f" => format = arguments.value()?,
            "--quiet" | "-q" => quiet = arguments.switch()?,
            option if option.starts_with('-') => return Err(arguments.unknown(option).into()),
            argument => return Err(UsageError::new(format!("unexpected argument {argument:?}")).into()),
        }
    }
    let mut views = Vec::new();
    for id in StateDirectory::list(&global.root)? {
        // One that is deleted meanwhile is not there any more.
        if let Ok(found) = find(global, id.as_str()) {
            views.push(View::of(&found.saved, found.status));
        }
    }
    if quiet {
        views.iter().for_each(|view| print(&format!("{}\n", view.id)));
        return Ok(ExitCode::SUCCESS);
    }
    match format.as_str() {
        "table" => print(&table(&views)),
        "json" if views.is_empty() => print("null"),
        "json" => {
            let text = serde_json::to_string(&views);
            print(&text.map_err(|source| CommandError::Json { subject: "cannot write JSON".to_owned(), source })?);
        }
        other => return Err(UsageError::new(format!("invalid format option: {other}")).into()),
    }
    Ok(ExitCode::SUCCESS)
}

fn table(views: &[View]) -> String {
    const MARGIN: usize = 3;
    const WIDTH: usize = 12;
    let header = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned);
    let row = |view: &View| {
        let status = status_word(view.status).to_owned();
        [view.id.clone(), view.pid.to_string(), status, view.bundle.clone(), view.created.clone(), view.owner.clone()]
    };
    let rows: Vec<[String; 6]> = std::iter::once(header).chain(views.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len() + MARGIN).max().unwrap_or(0).max(WIDTH);
    let widths: Vec<usize> = (0..5).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        for (cell, width) in row.iter().zip(&widths) {
            text.push_str(&format!("{cell:width$}"));
        }
        text.push_str(&row[5]);
        text.push('\n');
    }
    text
}

/// The name of a user of the host.
fn user_name(uid: u32) -> String {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let matches = |line: &&str| line.split(':').nth(2).is_some_and(|field| field == uid.to_string());
    passwd
        .lines()
        .find(matches)
        .and_then(|line| line.split(':').next())
        .map_or_else(|| format!("#{uid}"), str::to_owned)
}

/// `ps`: tells the processes of a container, by the host's ps(1) or as pids.
pub(super) fn ps(global: &Global, mut arguments: Arguments) -> Result<ExitCode, CommandError> {
    let (mut format, mut id, mut options) = ("table".to_owned(), None, Vec::new());
    while let Some(word) = arguments.next()? {
        match word.as_str() {
            "--format" | "-f" => format = arguments.value()?,
            option if option.starts_with('-') => return Err(arguments.unknown(option).into()),
            argument => {
                id = Some(argument.to_owned());
                // From here on the words are those of ps, unless they are ours.
                options = arguments.rest()?;
                if let Some(at) =
                    options.iter().position(|word| word == "--format" || word == "-f" && options.len() == 2)
                {
                    format =
                        options.get(at + 1).cloned().ok_or_else(|| UsageError::new("option --format needs a value"))?;
                    options.drain(at..=at + 1);
                }
            }
        }
    }
    let found = find(global, &super::arguments::required_id(id)?)?;
    let pids = found.saved.running()?.pids()?;
    match format.as_str() {
        "json" => {
            let text = serde_json::to_string(&pids);
            let text = text.map_err(|source| CommandError::Json { subject: "cannot write JSON".to_owned(), source })?;
            print(&format!("{text}\n"));
        }
        "table" => print(&process_table(&pids, options)?),
        other => return Err(UsageError::new(format!("invalid format option: {other}")).into()),
    }
    Ok(ExitCode::SUCCESS)
}

fn process_table(pids: &[i32], mut options: Vec<String>) -> Result<String, CommandError> {
    if options.is_empty() {
        options.push("-ef".to_owned());
    }
    let output = Command::new("ps").args(&options).output().map_err(CommandError::file("cannot run ps"))?;
    if !output.status.success() {
        return Err(CommandError::Refused(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    let header = lines.next().unwrap_or_default();
    let column = header.split_whitespace().position(|name| name == "PID");
    let column = column.ok_or_else(|| CommandError::Refused("Couldn't find PID field in ps output".to_owned()))?;
    let in_container = |line: &&str| {
        let pid = line.split_whitespace().nth(column).and_then(|field| field.parse().ok());
        pid.is_some_and(|pid: i32| pids.contains(&pid))
    };
    Ok(std::iter::once(header).chain(lines.filter(in_container)).map(|line| format!("{line}\n")).collect())
}

/// `features`: tells what the runtime can do.
pub(super) fn features(mut arguments: Arguments) -> Result<ExitCode, CommandError> {
    match arguments.next()? {
        None => print_json(&runtime::features()),
        Some(word) => Err(UsageError::new(format!("unexpected argument {word:?}")).into()),
    }
}
