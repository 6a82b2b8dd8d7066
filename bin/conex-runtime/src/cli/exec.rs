//! `exec`.

use std::os::fd::AsFd;
use std::process::ExitCode;

use cgroups::SubCgroup;
use oci::runtime::{ConsoleSize, LinuxCapabilities, Process, Status};
use runtime::{ExecRequest, Executed, Identity, Keyring, Stdio};

use super::arguments::{Arguments, UsageError, required_id};
use super::console::send_to_socket;
use super::container::{find, write_pid_file};
use super::foreground::{Signals, Watched, stay};
use super::{CommandError, Global};

/// The options of `exec`.
#[derive(Debug, Default)]
struct ExecOptions {
    id: String,
    command: Vec<String>,
    process_file: Option<String>,
    console_socket: Option<String>,
    pidfd_socket: Option<String>,
    pid_file: Option<String>,
    cwd: Option<String>,
    env: Vec<String>,
    terminal: Option<bool>,
    user: Option<String>,
    additional_gids: Vec<u32>,
    detach: bool,
    process_label: Option<String>,
    apparmor: Option<String>,
    no_new_privileges: bool,
    capabilities: Vec<String>,
    preserve_fds: u32,
    sub_cgroups: Vec<String>,
    ignore_paused: bool,
}

impl ExecOptions {
    fn parse(mut arguments: Arguments) -> Result<ExecOptions, UsageError> {
        let mut options = ExecOptions::default();
        let mut id = None;
        while let Some(word) = arguments.next()? {
            match word.as_str() {
                "--process" | "-p" => options.process_file = Some(arguments.value()?),
                "--console-socket" => options.console_socket = Some(arguments.value()?),
                "--pidfd-socket" => options.pidfd_socket = Some(arguments.value()?),
                "--pid-file" => options.pid_file = Some(arguments.value()?),
                "--cwd" | "-c" => options.cwd = Some(arguments.value()?),
                "--env" | "-e" => options.env.push(arguments.value()?),
                "--tty" | "-t" => options.terminal = Some(arguments.switch()?),
                "--user" | "-u" => options.user = Some(arguments.value()?),
                "--additional-gids" | "-g" => options.additional_gids.push(arguments.number()?),
                "--detach" | "-d" => options.detach = arguments.switch()?,
                "--process-label" => options.process_label = Some(arguments.value()?),
                "--apparmor" => options.apparmor = Some(arguments.value()?),
                "--no-new-privs" => options.no_new_privileges = arguments.switch()?,
                "--cap" => options.capabilities.push(arguments.value()?),
                "--preserve-fds" => options.preserve_fds = arguments.number()?,
                "--cgroup" => options.sub_cgroups.push(arguments.value()?),
                "--ignore-paused" => options.ignore_paused = arguments.switch()?,
                option if option.starts_with('-') => return Err(arguments.unknown(option)),
                argument if id.is_none() => id = Some(argument.to_owned()),
                argument => {
                    // From the program on, all words are its own.
                    options.command = vec![argument.to_owned()];
                    options.command.extend(arguments.rest()?);
                }
            }
        }
        options.id = required_id(id)?;
        if options.process_file.is_none() && options.command.is_empty() {
            return Err(UsageError::new("process args cannot be empty"));
        }
        Ok(options)
    }

    /// The process that the options mean, on top of the container's own.
    fn process(&self, base: Process) -> Result<Process, CommandError> {
        if let Some(path) = &self.process_file {
            let text = std::fs::read(path).map_err(CommandError::file(format!("cannot read {path}")))?;
            return serde_json::from_slice(&text)
                .map_err(|source| CommandError::Json { subject: path.clone(), source });
        }
        let mut process = Process { args: self.command.clone(), terminal: false, console_size: None, ..base };
        process.terminal = self.terminal.unwrap_or(false);
        process.env.extend(self.env.iter().cloned());
        if let Some(cwd) = &self.cwd {
            process.cwd.clone_from(cwd);
        }
        if let Some(user) = &self.user {
            (process.user.uid, process.user.gid) = parse_user(user)?;
        }
        process.user.additional_gids.extend(&self.additional_gids);
        process.no_new_privileges |= self.no_new_privileges;
        if let Some(label) = &self.process_label {
            process.selinux_label.clone_from(label);
        }
        if let Some(profile) = &self.apparmor {
            process.apparmor_profile.clone_from(profile);
        }
        self.add_capabilities(&mut process);
        Ok(process)
    }

    /// What `--cap` adds is usable at once, and never inherited over a later execve: inheritable stays as it was.
    fn add_capabilities(&self, process: &mut Process) {
        if self.capabilities.is_empty() {
            return;
        }
        let sets = process.capabilities.get_or_insert_with(LinuxCapabilities::default);
        for set in [&mut sets.bounding, &mut sets.effective, &mut sets.permitted] {
            set.extend(self.capabilities.iter().cloned());
        }
    }
}

/// `uid[:gid]` in plain decimal: what is no number is refused, never 0.
fn parse_user(text: &str) -> Result<(u32, u32), CommandError> {
    let id = |part: &str| {
        let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let id = part.parse::<u32>().ok().filter(|id| digits && *id <= i32::MAX as u32);
        id.ok_or_else(|| CommandError::Refused(format!("invalid user {text:?}: uid[:gid] in decimal is expected")))
    };
    match text.split_once(':') {
        None => Ok((id(text)?, 0)),
        Some((uid, gid)) => Ok((id(uid)?, id(gid)?)),
    }
}

/// `exec`: runs a process in a container.
pub(super) fn exec(global: &Global, arguments: Arguments) -> Result<ExitCode, CommandError> {
    let options = ExecOptions::parse(arguments)?;
    let found = find(global, &options.id)?;
    match found.status {
        // Of a created container everything stands but its program.
        Status::Running | Status::Created => {}
        Status::Paused if options.ignore_paused => {}
        Status::Paused => {
            return Err(CommandError::Refused(
                "cannot exec in a paused container (use --ignore-paused to override)".to_owned(),
            ));
        }
        Status::Stopped => return Err(CommandError::Refused("cannot exec in a stopped container".to_owned())),
        _ => return Err(CommandError::Refused("cannot exec in a container that is not running".to_owned())),
    }
    let sub_cgroup = match options.sub_cgroups.as_slice() {
        [] => None,
        some => Some(SubCgroup::parse(some).map_err(|error| CommandError::Refused(error.to_string()))?),
    };
    runtime::protect_self()?;
    let mut process = options.process(found.saved.process())?;
    check_terminal(&process, &options)?;
    process.console_size = process.console_size.or_else(|| own_size(&process, &options));
    let signals = if options.detach { None } else { Some(Signals::take()?) };
    let container = found.saved.running()?;
    let seccomp = container.compile_seccomp(&found.saved.spec)?;
    let request = ExecRequest {
        process: &process,
        stdio: if process.terminal { Stdio::Terminal } else { Stdio::Inherit },
        seccomp,
        identity: Identity::Numbers,
        preserve_fds: options.preserve_fds,
        sub_cgroup: sub_cgroup.as_ref(),
        keyring: Keyring::Inherit,
    };
    let executed =
        runtime::exec(&container, request).map_err(|source| CommandError::Start { command: "exec", source })?;
    finish(global, &options, executed, signals)
}

fn finish(
    global: &Global,
    options: &ExecOptions,
    mut executed: Executed,
    signals: Option<Signals>,
) -> Result<ExitCode, CommandError> {
    executed.warnings.iter().for_each(|warning| global.log.warn(warning));
    if let (Some(path), Some(console)) = (&options.console_socket, &executed.console) {
        send_to_socket(path, console.as_fd(), "/dev/ptmx")?;
        executed.console = None;
    }
    if let Some(path) = &options.pidfd_socket {
        send_to_socket(path, executed.pidfd.as_fd(), "pidfd")?;
    }
    if let Some(path) = &options.pid_file {
        write_pid_file(path, executed.pid.as_raw_nonzero().get())?;
    }
    match signals {
        None => Ok(ExitCode::SUCCESS),
        Some(signals) => {
            let Executed { pid, pidfd, console, .. } = executed;
            stay(Watched { pid, pidfd: &pidfd, console, notify: None }, &signals)
        }
    }
}

fn check_terminal(process: &Process, options: &ExecOptions) -> Result<(), CommandError> {
    if process.terminal && options.detach && options.console_socket.is_none() {
        return Err(CommandError::Refused(
            "cannot allocate tty if the runtime will detach without setting console socket".to_owned(),
        ));
    }
    if !process.terminal && options.console_socket.is_some() {
        return Err(CommandError::Refused(
            "cannot use console socket if the runtime will not detach or allocate tty".to_owned(),
        ));
    }
    Ok(())
}

fn own_size(process: &Process, options: &ExecOptions) -> Option<ConsoleSize> {
    if !process.terminal || options.detach {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(rustix::stdio::stdin()).ok()?;
    Some(ConsoleSize { height: u32::from(size.ws_row), width: u32::from(size.ws_col) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> ExecOptions {
        ExecOptions::parse(Arguments::new(words.iter().map(Into::into).collect())).unwrap()
    }

    #[test]
    fn the_programs_options_are_its_own() {
        let options = parse(&["-t", "id", "--user", "1:2", "ls", "-l", "--user"]);
        assert_eq!((options.id.as_str(), options.user.as_deref()), ("id", Some("1:2")));
        assert_eq!(options.command, ["ls", "-l", "--user"]);
    }

    #[test]
    fn only_decimal_numbers_are_users() {
        assert_eq!(parse_user("1").unwrap(), (1, 0));
        assert_eq!(parse_user("1:1").unwrap(), (1, 1));
        for text in ["", "1:", ":1", "name", "name:1", "-1", "+1", "0x0", " 0", "4294967295", "4294967296", "1:2:3"] {
            assert!(parse_user(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn added_capabilities_are_not_inheritable() {
        let process = parse(&["--cap", "CAP_KILL", "id", "x"]).process(Process::default()).unwrap();
        let sets = process.capabilities.unwrap();
        assert_eq!(
            (sets.effective.len(), sets.bounding.len(), sets.inheritable.len(), sets.ambient.len()),
            (1, 1, 0, 0)
        );
    }
}
