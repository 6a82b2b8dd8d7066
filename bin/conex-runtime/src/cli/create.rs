//! `create` and `run`.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use oci::runtime::Spec;
use runtime::{CreateRequest, Identity, Keyring, Pivot, Rootfs, Running, Saved, StateDirectory, Stdio};

use super::arguments::{Arguments, UsageError, only_id, required_id};
use super::console::send_to_socket;
use super::container::{parse_id, write_pid_file};
use super::foreground::{Signals, Watched, stay};
use super::notify::{self, NotifyListener};
use super::{CommandError, Global};

/// The largest configuration that is read.
const MAX_CONFIG_BYTES: u64 = 64 * 1024 * 1024;

/// The options of `create` and `run`.
#[derive(Debug)]
pub(super) struct CreateOptions {
    id: String,
    bundle: PathBuf,
    console_socket: Option<String>,
    pidfd_socket: Option<String>,
    pid_file: Option<String>,
    pivot: Pivot,
    keyring: Keyring,
    preserve_fds: u32,
    detach: bool,
    keep: bool,
    subreaper: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Command {
    Create,
    Run,
}

impl CreateOptions {
    fn parse(mut arguments: Arguments, command: Command) -> Result<CreateOptions, UsageError> {
        let mut options = CreateOptions {
            id: String::new(),
            bundle: PathBuf::from("."),
            console_socket: None,
            pidfd_socket: None,
            pid_file: None,
            pivot: Pivot::PivotRoot,
            keyring: Keyring::New,
            preserve_fds: 0,
            detach: command == Command::Create,
            keep: command == Command::Create,
            subreaper: command == Command::Run,
        };
        let mut id = None;
        while let Some(word) = arguments.next()? {
            match word.as_str() {
                "--bundle" | "-b" => options.bundle = arguments.value()?.into(),
                "--console-socket" => options.console_socket = Some(arguments.value()?),
                "--pidfd-socket" => options.pidfd_socket = Some(arguments.value()?),
                "--pid-file" => options.pid_file = Some(arguments.value()?),
                "--no-pivot" => options.pivot = if arguments.switch()? { Pivot::MoveMount } else { Pivot::PivotRoot },
                "--no-new-keyring" => {
                    options.keyring = if arguments.switch()? { Keyring::Inherit } else { Keyring::New }
                }
                "--preserve-fds" => options.preserve_fds = arguments.number()?,
                "--detach" | "-d" if command == Command::Run => options.detach = arguments.switch()?,
                "--keep" if command == Command::Run => options.keep = arguments.switch()?,
                "--no-subreaper" if command == Command::Run => options.subreaper = !arguments.switch()?,
                option if option.starts_with('-') => return Err(arguments.unknown(option)),
                argument => only_id(&mut id, argument)?,
            }
        }
        options.id = required_id(id)?;
        Ok(options)
    }
}

/// `create`: leaves init waiting for `start`.
pub(super) fn create(global: &Global, arguments: Arguments) -> Result<ExitCode, CommandError> {
    let options = CreateOptions::parse(arguments, Command::Create)?;
    runtime::protect_self()?;
    let mut bundle = Bundle::load(&options)?;
    let directory = StateDirectory::claim(&global.root, &parse_id(&options.id)?)?;
    let created = notify::prepare(&directory, &mut bundle.spec);
    let created = created.and_then(|()| create_in(global, &options, &bundle, &directory));
    if created.is_err() {
        let _the_first_error_is_told = directory.remove();
    }
    created.map(|()| ExitCode::SUCCESS)
}

fn create_in(
    global: &Global,
    options: &CreateOptions,
    bundle: &Bundle,
    directory: &StateDirectory,
) -> Result<(), CommandError> {
    let listener = directory.listen()?;
    let request = bundle.request(global, options);
    let mut running = runtime::create_with_listener(request, listener).map_err(starting("conex-runtime create"))?;
    let saved = publish(global, options, bundle, directory, &mut running);
    if saved.is_err() {
        end(&running);
    }
    saved.map(drop)
}

/// `run`: creates, starts, and unless detached stays until the end.
pub(super) fn run(global: &Global, arguments: Arguments) -> Result<ExitCode, CommandError> {
    let options = CreateOptions::parse(arguments, Command::Run)?;
    runtime::protect_self()?;
    let mut bundle = Bundle::load(&options)?;
    let directory = StateDirectory::claim(&global.root, &parse_id(&options.id)?)?;
    let signals = if options.detach { None } else { Some(Signals::take()?) };
    if options.subreaper && !options.detach {
        linux::credentials::become_subreaper().map_err(CommandError::system("prctl"))?;
    }
    let started = notify::prepare(&directory, &mut bundle.spec).and_then(|()| {
        let listener = NotifyListener::open(&directory)?;
        run_in(global, &options, &bundle, &directory).map(|(running, saved)| (running, saved, listener))
    });
    let (mut running, saved, mut listener) = match started {
        Ok(started) => started,
        Err(error) => {
            let _the_first_error_is_told = directory.remove();
            return Err(error);
        }
    };
    let Some(signals) = signals else {
        if let Some(listener) = listener {
            listener.wait(&running.pidfd, saved.pid)?;
        }
        return Ok(ExitCode::SUCCESS);
    };
    let console = if options.console_socket.is_some() { None } else { running.console.take() };
    let watched = Watched { pid: running.pid, pidfd: &running.pidfd, console, notify: listener.take() };
    let code = stay(watched, &signals)?;
    if !options.keep {
        tell(global, directory.delete(&saved)?);
    }
    Ok(code)
}

fn run_in(
    global: &Global,
    options: &CreateOptions,
    bundle: &Bundle,
    directory: &StateDirectory,
) -> Result<(Running, Saved), CommandError> {
    let request = bundle.request(global, options);
    if bundle.spec.hooks.is_none() {
        let mut running = runtime::create_and_start(request).map_err(starting("conex-runtime run"))?;
        let saved = publish(global, options, bundle, directory, &mut running).inspect_err(|_| end(&running))?;
        return Ok((running, saved));
    }
    // Hooks may ask for the container's state, so it is on disk before they can.
    let mut created = runtime::create(request).map_err(starting("conex-runtime run"))?;
    let console = created.take_console();
    let saved = Saved::of(created.container(), &bundle.spec, &bundle.path, &bundle.rootfs);
    if let Err(error) = directory.save(&saved) {
        let _the_first_error_is_told = created.abandon();
        return Err(error.into());
    }
    let mut running = created.start().map_err(starting("conex-runtime run"))?;
    running.console = console;
    let published = publish(global, options, bundle, directory, &mut running);
    let saved = published.and_then(|saved| Ok(directory.run_poststart(&saved).map(|()| saved)?));
    match saved {
        Ok(saved) => Ok((running, saved)),
        Err(error) => {
            end(&running);
            Err(error)
        }
    }
}

/// Tells what went wrong without consequence.
pub(super) fn tell(global: &Global, warning: Option<runtime::Error>) {
    if let Some(warning) = warning {
        global.log.warn(&warning.to_string());
        eprintln!("warning: {warning}");
    }
}

/// Ends a container that was started and cannot be kept.
fn end(running: &Running) {
    let _the_first_error_is_told = running.signal(rustix::process::Signal::KILL.as_raw());
    let _the_first_error_is_told = super::foreground::exit_code(&running.pidfd);
    let _the_first_error_is_told = running.destroy();
}

fn starting(command: &'static str) -> impl FnOnce(runtime::Error) -> CommandError {
    move |source| CommandError::Start { command, source }
}

/// Puts everything that others want to find in its place.
fn publish(
    global: &Global,
    options: &CreateOptions,
    bundle: &Bundle,
    directory: &StateDirectory,
    running: &mut Running,
) -> Result<Saved, CommandError> {
    running.warnings.iter().for_each(|warning| global.log.warn(warning));
    if let (Some(path), Some(console)) = (&options.console_socket, &running.console) {
        send_to_socket(path, console.as_fd(), "/dev/ptmx")?;
        running.console = None;
    }
    let saved = Saved::of(running, &bundle.spec, &bundle.path, &bundle.rootfs);
    directory.save(&saved)?;
    if let Some(path) = &options.pidfd_socket {
        send_to_socket(path, running.pidfd.as_fd(), "pidfd")?;
    }
    if let Some(path) = &options.pid_file {
        write_pid_file(path, saved.pid)?;
    }
    global.log.debug(&format!("container {} has pid {}", saved.id, saved.pid));
    Ok(saved)
}

/// A directory with a configuration and a root.
#[derive(Debug)]
struct Bundle {
    path: PathBuf,
    rootfs: PathBuf,
    spec: Spec,
    /// Descriptors that systemd handed over, to pass on.
    listen_fds: u32,
}

impl Bundle {
    fn load(options: &CreateOptions) -> Result<Bundle, CommandError> {
        let subject = || options.bundle.display().to_string();
        let path = options.bundle.canonicalize().map_err(CommandError::file(subject()))?;
        let mut spec = read_config(&path.join("config.json"))?;
        let Some(root) = &spec.root else { return Err(CommandError::Refused("root must be specified".to_owned())) };
        let rootfs = path.join(&root.path);
        let rootfs =
            rootfs.canonicalize().map_err(CommandError::file(format!("invalid rootfs {}", rootfs.display())))?;
        let listen_fds = handed_over_sockets();
        check_terminal(spec.process.as_ref().is_some_and(|process| process.terminal), options)?;
        if let Some(process) = spec.process.as_mut().filter(|_| listen_fds > 0) {
            process.env.push(format!("LISTEN_FDS={listen_fds}"));
            process.env.push("LISTEN_PID=1".to_owned());
        }
        check_version(&spec.oci_version)?;
        Ok(Bundle { path, rootfs, spec, listen_fds })
    }

    fn request<'a>(&'a self, global: &Global, options: &'a CreateOptions) -> CreateRequest<'a> {
        let terminal = self.spec.process.as_ref().is_some_and(|process| process.terminal);
        CreateRequest {
            id: &options.id,
            spec: &self.spec,
            bundle: &self.path,
            rootfs: Rootfs::Directory { path: self.rootfs.clone() },
            stdio: if terminal { Stdio::Terminal } else { Stdio::Inherit },
            network_namespace: None,
            user_namespace: None,
            seccomp: None,
            identity: Identity::Numbers,
            cgroup: global.cgroups,
            cgroup_access: global.cgroup_access,
            cgroup_host: None,
            preserve_fds: options.preserve_fds + self.listen_fds,
            pivot: options.pivot,
            keyring: options.keyring,
        }
    }
}

/// How many sockets systemd has handed to this very process: its variables are inherited by those they are not meant for.
fn handed_over_sockets() -> u32 {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    match number("LISTEN_PID") {
        Some(pid) if pid == std::process::id() => number("LISTEN_FDS").unwrap_or(0),
        _ => 0,
    }
}

/// Reads a bundle's configuration.
pub(super) fn read_config(path: &Path) -> Result<Spec, CommandError> {
    let subject = || format!("cannot read {}", path.display());
    let size = std::fs::metadata(path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => {
            CommandError::Refused(format!("JSON specification file {} not found", path.display()))
        }
        _ => CommandError::File { subject: subject(), source },
    })?;
    if !size.is_file() || size.len() > MAX_CONFIG_BYTES {
        return Err(CommandError::Refused(format!(
            "{} is not a file of at most {MAX_CONFIG_BYTES} bytes",
            path.display()
        )));
    }
    let text = std::fs::read(path).map_err(CommandError::file(subject()))?;
    serde_json::from_slice(&text).map_err(|source| CommandError::Json { subject: path.display().to_string(), source })
}

/// Versions from 1.0.0-rc on are understood; a newer minor version may hold fields that are ignored, as the specification says.
fn check_version(version: &str) -> Result<(), CommandError> {
    match version.split('.').next() {
        Some("1") => Ok(()),
        _ => Err(CommandError::Refused(format!("ociVersion {version:?} is not supported: 1.x is"))),
    }
}

fn check_terminal(terminal: bool, options: &CreateOptions) -> Result<(), CommandError> {
    match (terminal, &options.console_socket) {
        (true, None) if options.detach => Err(CommandError::Refused(
            "cannot allocate tty if the runtime will detach without setting console socket".to_owned(),
        )),
        (false, Some(_)) => Err(CommandError::Refused(
            "cannot use console socket if the runtime will not detach or allocate tty".to_owned(),
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(command: Command, words: &[&str]) -> Result<CreateOptions, UsageError> {
        CreateOptions::parse(Arguments::new(words.iter().map(Into::into).collect()), command)
    }

    #[test]
    fn options_may_stand_on_both_sides_of_the_id() {
        for words in [["-b", "/b", "id", "--pid-file=/p"], ["id", "--bundle", "/b", "-pid-file=/p"]] {
            let options = parse(Command::Create, &words).unwrap();
            assert_eq!(
                (options.id.as_str(), options.bundle.as_path(), options.pid_file.as_deref()),
                ("id", Path::new("/b"), Some("/p"))
            );
        }
    }

    #[test]
    fn create_has_not_all_options_of_run() {
        assert!(parse(Command::Create, &["--keep", "id"]).is_err());
        assert!(parse(Command::Run, &["--keep", "id"]).unwrap().keep);
        assert!(parse(Command::Run, &["one", "two"]).is_err());
        assert!(parse(Command::Run, &[]).is_err());
    }
}
