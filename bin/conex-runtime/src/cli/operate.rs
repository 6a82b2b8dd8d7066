//! `start`, `kill`, `delete`, `pause` and `resume`.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use oci::runtime::Status;
use runtime::{Kind, StateDirectory};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;

use super::arguments::{Arguments, UsageError, only_id, required_id};
use super::container::{Found, find, id_alone, parse_id};
use super::notify::NotifyListener;
use super::{CommandError, Global};

/// How long a killed process may take to end.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// `start`: lets a created container run its program.
pub(super) fn start(global: &Global, arguments: Arguments) -> Result<ExitCode, CommandError> {
    let found = find(global, &id_alone(arguments)?)?;
    let listener = NotifyListener::open(&found.directory)?;
    let Some(listener) = listener else {
        found.directory.start()?;
        return Ok(ExitCode::SUCCESS);
    };
    // Taken before the start: afterwards the program may have ended already.
    let running = found.saved.running()?;
    found.directory.start()?;
    listener.wait(&running.pidfd, found.saved.pid)?;
    Ok(ExitCode::SUCCESS)
}

/// `kill`: sends a signal.
pub(super) fn kill(global: &Global, mut arguments: Arguments) -> Result<ExitCode, CommandError> {
    let (mut words, mut all) = (Vec::new(), false);
    while let Some(word) = arguments.next()? {
        match word.as_str() {
            "--all" | "-a" => all = arguments.switch()?,
            "--signal" | "-s" => words.insert(words.len().min(1), arguments.value()?),
            // A signal may be given as its number with a dash by who is used to kill(1).
            option if option.starts_with('-') => return Err(arguments.unknown(option).into()),
            _ => words.push(word),
        }
    }
    let mut words = words.into_iter();
    let id = required_id(words.next())?;
    let signal = parse_signal(words.next().as_deref().unwrap_or("SIGTERM"))?;
    if let Some(extra) = words.next() {
        return Err(UsageError::new(format!("unexpected argument {extra:?}")).into());
    }
    let found = find(global, &id)?;
    match (all, found.status) {
        (true, Status::Stopped) => {
            // What a container without a pid namespace of its own leaves behind is still there to be signalled.
            if let Some(cgroup) = found.saved.cgroup() {
                cgroup.signal_all(signal).map_err(|error| CommandError::Refused(error.to_string()))?;
            }
        }
        (_, Status::Stopped) => return Err(CommandError::Refused("container not running".to_owned())),
        (true, _) => found.saved.running()?.signal_all(signal)?,
        (false, _) => {
            let running = found.saved.running()?;
            running.signal(signal)?;
            if found.status == Status::Paused && signal == Signal::KILL.as_raw() {
                // A frozen process dies only once it is thawed.
                running.resume()?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A signal by number, or by name with or without `SIG`.
fn parse_signal(text: &str) -> Result<i32, UsageError> {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM",
        "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF",
        "WINCH", "IO", "PWR", "SYS",
    ];
    let wrong = || UsageError::new(format!("unknown signal {text:?}"));
    if let Ok(number) = text.parse::<i32>() {
        return if (0..=linux::signal::COUNT).contains(&number) { Ok(number) } else { Err(wrong()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let aliased = match name {
        "IOT" => "ABRT",
        "CLD" => "CHLD",
        "POLL" => "IO",
        other => other,
    };
    if let Some(index) = NAMES.iter().position(|known| *known == aliased) {
        return Ok(index as i32 + 1);
    }
    real_time_signal(name).ok_or_else(wrong)
}

fn real_time_signal(name: &str) -> Option<i32> {
    const FIRST: i32 = 34;
    let offset = |rest: &str| if rest.is_empty() { Some(0) } else { rest.get(1..)?.parse::<i32>().ok() };
    let number = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(rest), _) if rest.is_empty() || rest.starts_with('+') => FIRST + offset(rest)?,
        (_, Some(rest)) if rest.is_empty() || rest.starts_with('-') => linux::signal::COUNT - offset(rest)?,
        _ => return None,
    };
    (FIRST..=linux::signal::COUNT).contains(&number).then_some(number)
}

/// `delete`: removes what is left of a stopped container; with `--force` also of one that runs.
pub(super) fn delete(global: &Global, mut arguments: Arguments) -> Result<ExitCode, CommandError> {
    let (mut id, mut force) = (None, false);
    while let Some(word) = arguments.next()? {
        match word.as_str() {
            "--force" | "-f" => force = arguments.switch()?,
            option if option.starts_with('-') => return Err(arguments.unknown(option).into()),
            argument => only_id(&mut id, argument)?,
        }
    }
    let id = required_id(id)?;
    match find(global, &id) {
        Ok(found) => remove(global, &found, &id, force).map(|()| ExitCode::SUCCESS),
        Err(CommandError::Runtime(error)) if error.kind == Kind::NotFound => {
            // A directory without a state is what an interrupted `create` leaves.
            let removed = StateDirectory::find(&global.root, &parse_id(&id)?).and_then(|directory| directory.remove());
            if force || removed.is_ok() { Ok(ExitCode::SUCCESS) } else { Err(CommandError::Runtime(error)) }
        }
        Err(error) => Err(error),
    }
}

/// Removes a container; one that is not stopped only by force.
pub(super) fn remove(global: &Global, found: &Found, id: &str, force: bool) -> Result<(), CommandError> {
    match found.status {
        Status::Stopped => {}
        // Nothing of the user's runs yet: init only waits.
        Status::Created => end(found)?,
        _ if force => end(found)?,
        status => {
            let word = super::container::status_word(status);
            return Err(CommandError::Refused(format!("cannot delete container {id} that is not stopped: {word}")));
        }
    }
    super::create::tell(global, found.directory.delete(&found.saved)?);
    Ok(())
}

/// Kills a container and waits until it is gone.
fn end(found: &Found) -> Result<(), CommandError> {
    let running = match found.saved.running() {
        Ok(running) => running,
        Err(error) if error.kind == Kind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let signalled = running.signal(Signal::KILL.as_raw());
    if found.status == Status::Paused {
        running.resume()?;
    }
    match signalled {
        Err(error) if error.kind != Kind::NotFound => return Err(error.into()),
        _ => {}
    }
    let deadline = Instant::now() + KILL_TIMEOUT;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let limit = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        match poll(&mut [PollFd::new(&running.pidfd, PollFlags::IN)], Some(&limit)) {
            Err(linux::Errno::INTR) => {}
            Ok(0) => return Err(CommandError::Refused("container init still running".to_owned())),
            other => return other.map(drop).map_err(CommandError::system("poll")),
        }
    }
}

/// `pause`: freezes all processes.
pub(super) fn pause(global: &Global, arguments: Arguments) -> Result<ExitCode, CommandError> {
    let found = find(global, &id_alone(arguments)?)?;
    match found.status {
        Status::Running | Status::Created => found.saved.running()?.pause()?,
        _ => return Err(CommandError::Refused("container not running".to_owned())),
    }
    Ok(ExitCode::SUCCESS)
}

/// `resume`: lets them go on.
pub(super) fn resume(global: &Global, arguments: Arguments) -> Result<ExitCode, CommandError> {
    let found = find(global, &id_alone(arguments)?)?;
    match found.status {
        Status::Paused => found.saved.running()?.resume()?,
        _ => return Err(CommandError::Refused("container not paused".to_owned())),
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_known_by_all_their_names() {
        let table = [
            ("9", 9),
            ("KILL", 9),
            ("SIGKILL", 9),
            ("sigterm", 15),
            ("SIGCLD", 17),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("0", 0),
        ];
        for (text, number) in table {
            assert_eq!(parse_signal(text), Ok(number), "{text}");
        }
        for text in ["", "SIG", "65", "-1", "NOSUCH", "RTMIN+99", "RTMIN3"] {
            assert!(parse_signal(text).is_err(), "{text}");
        }
    }
}
