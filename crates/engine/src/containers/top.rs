//! `top`: what `ps` would say, read from /proc.
//!
//! Docker runs the host's `ps` and keeps the lines of the container's processes. The default columns are made here without a process;
//! for other arguments the host's `ps` is run, if it has one.

use std::collections::HashMap;
use std::fs;
use std::process::{Command, Stdio};

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use monitor_protocol::{Request, Response};

use super::actor::limited;
use crate::engine::{Engine, blocking};
use crate::model::{EngineError, ProcessTable};

/// Clock ticks a second on every Linux that Rust runs on.
const TICKS: u64 = 100;
/// More output than this is no table of one host's processes.
const MAX_OUTPUT: usize = 64 << 20;

impl Engine {
    /// Its processes; `ps_args` as `ps` takes them, `-ef` when empty.
    pub async fn container_top(&self, reference: &str, ps_args: &str) -> Result<ProcessTable, EngineError> {
        let handle = self.inner.index.find(reference)?;
        let live = handle.running()?;
        let response = limited(live.connection.request(Request::Top, Vec::new())).await?;
        let Response::Pids(pids) = response else {
            return Err(EngineError::unavailable("the container's monitor gave a wrong answer"));
        };
        let arguments = ps_args.to_owned();
        let table = blocking(move || match arguments.trim() {
            "" | "-ef" => Ok(full_format(&pids)),
            arguments => host_ps(arguments, &pids),
        })
        .await?;
        self.tell_container(&handle.record(), "top", &[]);
        Ok(table)
    }
}

/// What `ps -ef` prints.
fn full_format(pids: &[i32]) -> ProcessTable {
    let users = users();
    let boot = boot_time();
    let now = Timestamp::now();
    let titles = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"].map(str::to_owned).to_vec();
    let processes = pids.iter().filter_map(|pid| row(*pid, &users, boot, now)).collect();
    ProcessTable { titles, processes }
}

/// One process; none when it has ended meanwhile.
fn row(pid: i32, users: &HashMap<u32, String>, boot: i64, now: Timestamp) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (head, tail) = stat.rsplit_once(')')?;
    let name = head.split_once('(')?.1;
    let fields: Vec<&str> = tail.split_ascii_whitespace().collect();
    let number = |index: usize| fields.get(index).and_then(|field| field.parse::<i64>().ok()).unwrap_or(0);
    // Counted from the state, which is field 3 of proc(5).
    let (parent, terminal, ticks, start) = (number(1), number(4), number(11) + number(12), number(19));
    let started = boot + start / TICKS as i64;
    let age = now.as_second().saturating_sub(started).max(1);
    let seconds = ticks / TICKS as i64;
    Some(vec![
        user_of(pid, users),
        pid.to_string(),
        parent.to_string(),
        (seconds * 100 / age).to_string(),
        start_text(started, now),
        terminal_text(terminal),
        format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60),
        command_line(pid, name),
    ])
}

fn user_of(pid: i32, users: &HashMap<u32, String>) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    let uid = line.and_then(|rest| rest.split_ascii_whitespace().nth(1)?.parse().ok()).unwrap_or(0);
    users.get(&uid).cloned().unwrap_or_else(|| uid.to_string())
}

/// The hour within a day, the day within a year, else the year; what `ps` calls STIME.
fn start_text(started: i64, now: Timestamp) -> String {
    let zone = TimeZone::system();
    let moment = |second| Timestamp::from_second(second).unwrap_or(Timestamp::UNIX_EPOCH).to_zoned(zone.clone());
    let (start, now): (Zoned, Zoned) = (moment(started), now.to_zoned(zone.clone()));
    if start.date() == now.date() {
        start.strftime("%H:%M").to_string()
    } else if start.year() == now.year() {
        start.strftime("%b%d").to_string()
    } else {
        start.strftime("%Y").to_string()
    }
}

/// Majors 136 to 143 are pseudo-terminals, 4 the consoles.
fn terminal_text(number: i64) -> String {
    let (major, minor) = ((number >> 8) & 0xfff, (number & 0xff) | ((number >> 12) & 0xfff00));
    match major {
        136..=143 => format!("pts/{}", minor + (major - 136) * 256),
        4 if minor < 64 => format!("tty{minor}"),
        4 => format!("ttyS{}", minor - 64),
        _ => "?".into(),
    }
}

fn command_line(pid: i32, name: &str) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<_> =
        bytes.split(|byte| *byte == 0).filter(|word| !word.is_empty()).map(String::from_utf8_lossy).collect();
    if words.is_empty() { format!("[{name}]") } else { words.join(" ") }
}

/// The host's names for users, as its `ps` shows them.
fn users() -> HashMap<u32, String> {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let entries = passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        Some((fields.nth(1)?.parse().ok()?, name.to_owned()))
    });
    entries.collect()
}

fn boot_time() -> i64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok()).unwrap_or(0)
}

/// The host's `ps`, its lines filtered by the column PID.
fn host_ps(arguments: &str, pids: &[i32]) -> Result<ProcessTable, EngineError> {
    let words: Vec<&str> = arguments.split_whitespace().collect();
    let output = Command::new("ps")
        .args(&words)
        .stdin(Stdio::null())
        .env_clear()
        .env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin")
        .output();
    let output = match output {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(EngineError::not_implemented(format!(
                "ps_args \"{arguments}\" need the host's ps, which is not there; -ef does not"
            )));
        }
        result => result.map_err(|error| EngineError::system("cannot run ps", error))?,
    };
    if !output.status.success() || output.stdout.len() > MAX_OUTPUT {
        let message = String::from_utf8_lossy(&output.stderr);
        return Err(EngineError::new(crate::model::ErrorKind::System, format!("ps: {}", message.trim())));
    }
    parse_ps(&String::from_utf8_lossy(&output.stdout), pids)
}

/// Docker's reading of a table: the last column takes the rest of the line.
fn parse_ps(text: &str, pids: &[i32]) -> Result<ProcessTable, EngineError> {
    let mut lines = text.lines();
    let titles: Vec<String> = lines.next().unwrap_or_default().split_whitespace().map(str::to_owned).collect();
    let Some(column) = titles.iter().position(|title| title == "PID") else {
        return Err(EngineError::new(crate::model::ErrorKind::System, "Couldn't find PID field in ps output"));
    };
    let mut processes = Vec::new();
    for line in lines {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let ours = fields.get(column).and_then(|pid| pid.parse().ok()).is_some_and(|pid: i32| pids.contains(&pid));
        if ours && fields.len() >= titles.len() {
            let mut row: Vec<String> = fields[..titles.len() - 1].iter().map(|field| (*field).to_owned()).collect();
            row.push(fields[titles.len() - 1..].join(" "));
            processes.push(row);
        }
    }
    Ok(ProcessTable { titles, processes })
}

#[cfg(test)]
mod tests {
    use super::{full_format, parse_ps, terminal_text};

    #[test]
    fn our_own_process_has_a_row() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let table = full_format(&[pid, i32::MAX]);
        assert_eq!(table.processes.len(), 1);
        let row = &table.processes[0];
        assert_eq!((row.len(), row[1].as_str()), (table.titles.len(), pid.to_string().as_str()));
        assert!(row[7].contains("engine"), "{row:?}");
    }

    #[test]
    fn foreign_tables_are_filtered_by_pid() {
        let text = "  PID USER COMMAND\n    1 root init x\n   12 www  nginx: worker process\n";
        let table = parse_ps(text, &[12]).unwrap();
        assert_eq!(table.processes, [["12", "www", "nginx: worker process"]]);
        assert!(parse_ps("USER\nroot\n", &[1]).is_err());
    }

    #[test]
    fn terminals_have_names() {
        assert_eq!(terminal_text(0), "?");
        assert_eq!(terminal_text(136 << 8 | 3), "pts/3");
        assert_eq!(terminal_text(4 << 8 | 1), "tty1");
    }
}
