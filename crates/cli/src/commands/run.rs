//! `run`, `create`, `start`, `attach`: containers with the user joined to them.

use std::io::{self, IsTerminal};

use api_client::{AttachOptions, Client, Hijacked, RemoveOptions, Wait, WaitCondition};
use clap::ArgMatches;
use docker_api::container::CreateRequest;

use super::{After, Entry, complain, each, exactly, operands, print};
use crate::context::Context;
use crate::error::{Failure, Outcome, describe};
use crate::flags::Takes::{One, Switch, SwitchOn};
use crate::flags::{Flag, flag, on, one, short};
use crate::run::body::{self, Streams};
use crate::run::options;
use crate::session::{self, Framing, Input, Signals, WINDOW_CHANGED, Watcher};
use crate::terminal;

/// The exit code of `run` where the engine, not the container, failed.
const ENGINE_FAILED: u8 = 125;

pub(super) const RUN: Entry = Entry {
    name: "run",
    about: "Create and run a new container from an image",
    operands: "IMAGE [COMMAND] [ARG...]",
    after: After::Verbatim,
    flags: &[options::RUN_ONLY, options::CREATE],
    run: |context, matches| run(context, matches).map_err(with_run_hint),
};

pub(super) const CREATE: Entry = Entry {
    name: "create",
    about: "Create a new container",
    operands: "IMAGE [COMMAND] [ARG...]",
    after: After::Verbatim,
    flags: &[options::CREATE],
    run: |context, matches| {
        let (id, _) = create(context.client()?, matches)?;
        print(&format!("{id}\n"))?;
        Ok(0)
    },
};

const START_FLAGS: &[Flag] = &[
    short('a', "attach", Switch, "Join the output and pass signals on"),
    short('i', "interactive", Switch, "Join the input"),
    flag("detach-keys", One, "The key sequence that detaches from the container"),
];

pub(super) const START: Entry = Entry {
    name: "start",
    about: "Start one or more stopped containers",
    operands: "CONTAINER [CONTAINER...]",
    after: After::Options,
    flags: &[START_FLAGS],
    run: start,
};

const ATTACH_FLAGS: &[Flag] = &[
    flag("detach-keys", One, "The key sequence that detaches from the container"),
    flag("no-stdin", Switch, "Leave the input alone"),
    flag("sig-proxy", SwitchOn, "Pass signals that this command receives on to the process"),
];

pub(super) const ATTACH: Entry = Entry {
    name: "attach",
    about: "Join the streams of a running container",
    operands: "CONTAINER",
    after: After::Options,
    flags: &[ATTACH_FLAGS],
    run: attach,
};

fn with_run_hint(failure: Failure) -> Failure {
    if failure.message.is_empty() {
        return failure;
    }
    let message = format!("conex: {}\n\nRun 'conex run --help' for more information", failure.message);
    let code = if failure.code == 1 { ENGINE_FAILED } else { failure.code };
    Failure { message, code }
}

fn run(context: &Context, matches: &ArgMatches) -> Outcome {
    let streams = body::streams(matches).map_err(Failure::usage)?;
    check_terminal(matches, streams)?;
    let client = context.client()?;
    let (id, request) = create(client, matches)?;
    let removed = request.host_config.as_ref().is_some_and(|host| host.auto_remove);
    if !streams.stdin && !streams.stdout && !streams.stderr {
        client.container_start(&id).map_err(|error| start_failure(client, &id, &error, removed))?;
        print(&format!("{id}\n"))?;
        return Ok(0);
    }
    let joined =
        Joined { streams, tty: request.config.tty, keys: detach_keys(matches), proxy: on(matches, "sig-proxy") };
    let condition = if removed { WaitCondition::Removed } else { WaitCondition::NextExit };
    joined.start_and_follow(client, &id, condition, removed)
}

/// `-t` needs a terminal where the input is joined.
fn check_terminal(matches: &ArgMatches, streams: Streams) -> Result<(), Failure> {
    if on(matches, "tty") && streams.stdin && !io::stdin().is_terminal() {
        return Err(Failure::usage("the input device is not a TTY"));
    }
    Ok(())
}

fn detach_keys(matches: &ArgMatches) -> String {
    one(matches, "detach-keys").unwrap_or_default().to_owned()
}

/// Creates the container; an image that is not here is asked of the engine's registries once.
fn create(client: &Client, matches: &ArgMatches) -> Result<(String, CreateRequest), Failure> {
    let words = operands(matches, 1)?;
    let mut request = body::create_request(matches, &words[0], &words[1..]).map_err(Failure::usage)?;
    if let (Some((rows, columns)), Some(host)) = (terminal::size(), request.host_config.as_mut()) {
        host.console_size = [rows.into(), columns.into()];
    }
    let cidfile = one(matches, "cidfile");
    if let Some(file) = cidfile.filter(|file| std::path::Path::new(file).exists()) {
        return Err(Failure::usage(format!(
            "container ID file found, make sure the other container isn't running or delete {file}"
        )));
    }
    let platform = one(matches, "platform").unwrap_or_default();
    let name = one(matches, "name").unwrap_or_default();
    let pull = one(matches, "pull").unwrap_or("missing");
    if !["missing", "always", "never"].contains(&pull) {
        return Err(Failure::usage(format!(
            "invalid pull option: '{pull}': must be one of \"always\", \"missing\" or \"never\""
        )));
    }
    if pull == "always" {
        fetch(client, &words[0], platform, on(matches, "quiet"))?;
    }
    let mut answer = client.container_create(name, platform, &request);
    if pull == "missing" && answer.as_ref().is_err_and(is_missing_image) {
        complain(&format!("Unable to find image '{}' locally", with_tag(&words[0])));
        fetch(client, &words[0], platform, on(matches, "quiet"))?;
        answer = client.container_create(name, platform, &request);
    }
    let answer = answer?;
    answer.warnings.iter().for_each(|warning| complain(&format!("WARNING: {warning}")));
    if let Some(file) = cidfile {
        std::fs::write(file, &answer.id).map_err(|error| Failure::usage(format!("cannot write {file}: {error}")))?;
    }
    Ok((answer.id, request))
}

fn is_missing_image(error: &api_client::Error) -> bool {
    error.is_not_found() && error.to_string().contains("No such image")
}

fn with_tag(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains(':') || image.contains('@') { image.to_owned() } else { format!("{image}:latest") }
}

/// Asks the engine to fetch an image.
fn fetch(client: &Client, image: &str, platform: &str, quiet: bool) -> Result<(), Failure> {
    let full = with_tag(image);
    let (repository, tag) = full.rsplit_once(['@', ':']).unwrap_or((&full, ""));
    let auth = crate::credentials::ConfigFile::load()?.of_image(image)?;
    let lines = client.image_pull(repository, tag, platform, &auth)?;
    crate::output::progress::show(
        lines,
        if quiet { crate::output::progress::Mode::Silent } else { crate::output::progress::Mode::Errors },
    )
}

/// What a failed start means: the container goes with `--rm`, and the exit code says what kind of failure it was.
fn start_failure(client: &Client, id: &str, error: &api_client::Error, removed: bool) -> Failure {
    if removed {
        // The engine removes it by itself where it can.
        let _ = client.container_remove(id, RemoveOptions { volumes: true, force: true, ..RemoveOptions::default() });
    }
    Failure { message: describe(error), code: exit_code_of(&error.to_string()) }
}

/// Docker's rule: by the words of the runtime.
fn exit_code_of(message: &str) -> u8 {
    let has = |words: &[&str]| words.iter().any(|word| message.contains(word));
    match () {
        () if has(&["executable file not found", "no such file or directory", "system cannot find the file"]) => 127,
        () if has(&["permission denied", "is a directory", "exec format error"]) => 126,
        () => ENGINE_FAILED,
    }
}

fn start(context: &Context, matches: &ArgMatches) -> Outcome {
    let names = operands(matches, 1)?;
    let client = context.client()?;
    let (attach, interactive) = (on(matches, "attach"), on(matches, "interactive"));
    if !attach && !interactive {
        return each(&names, |name| client.container_start(name).map(|()| name.to_owned()));
    }
    let [name] = names.as_slice() else {
        return Err(Failure::usage("you cannot start and attach multiple containers at once"));
    };
    let container = client.container_inspect(name)?;
    let streams = Streams { stdin: interactive && container.config.open_stdin, stdout: true, stderr: true };
    let joined = Joined { streams, tty: container.config.tty, keys: detach_keys(matches), proxy: true };
    let removed = container.host_config.auto_remove;
    let condition = if removed { WaitCondition::Removed } else { WaitCondition::NextExit };
    joined.start_and_follow(client, &container.id, condition, removed)
}

fn attach(context: &Context, matches: &ArgMatches) -> Outcome {
    let [name] = exactly(matches)?;
    let client = context.client()?;
    let container = client.container_inspect(&name)?;
    if !container.state.running {
        return Err(Failure::usage("You cannot attach to a stopped container, start it first"));
    }
    if container.state.paused {
        return Err(Failure::usage("You cannot attach to a paused container, unpause it first"));
    }
    let stdin = container.config.open_stdin && !on(matches, "no-stdin");
    if container.config.tty && stdin && !io::stdin().is_terminal() {
        return Err(Failure::usage("the input device is not a TTY"));
    }
    let streams = Streams { stdin, stdout: true, stderr: true };
    let joined =
        Joined { streams, tty: container.config.tty, keys: detach_keys(matches), proxy: on(matches, "sig-proxy") };
    let condition = if container.host_config.auto_remove { WaitCondition::Removed } else { WaitCondition::NextExit };
    let stream = joined.attach(client, &container.id)?;
    let wait = client.container_wait(&container.id, condition)?;
    match joined.follow(client, &container.id, stream, wait)? {
        Ended::Exited(code) => Ok(code),
        // Docker's `attach` takes leaving for a failure, its `run` and `start` do not.
        Ended::Detached => Err(Failure::usage("read escape sequence")),
    }
}

/// How a session ended.
enum Ended {
    /// The user left; the process goes on.
    Detached,
    /// The process is gone, with this exit code.
    Exited(u8),
}

/// How the user is joined to a container.
struct Joined {
    streams: Streams,
    tty: bool,
    keys: String,
    proxy: bool,
}

impl Joined {
    /// Attaches and waits before the start, so that no output and no exit is missed.
    fn start_and_follow(&self, client: &Client, id: &str, condition: WaitCondition, removed: bool) -> Outcome {
        let stream = self.attach(client, id)?;
        let wait = client.container_wait(id, condition)?;
        client.container_start(id).map_err(|error| start_failure(client, id, &error, removed))?;
        match self.follow(client, id, stream, wait)? {
            Ended::Exited(code) => Ok(code),
            Ended::Detached => Ok(0),
        }
    }

    fn attach(&self, client: &Client, id: &str) -> Result<Hijacked, Failure> {
        let Streams { stdin, stdout, stderr } = self.streams;
        let options =
            AttachOptions { stdin, stdout, stderr, stream: true, logs: false, detach_keys: self.keys.clone() };
        Ok(client.container_attach(id, &options)?)
    }

    /// Copies until the stream ends, then asks for the process's exit code.
    fn follow(&self, client: &Client, id: &str, stream: Hijacked, wait: Wait) -> Result<Ended, Failure> {
        let framing = if self.tty { Framing::Raw } else { Framing::Multiplexed };
        let input = if self.streams.stdin { Input::Forwarded } else { Input::Untouched };
        let signals = Signals::take(self.proxy && !self.tty)?;
        let mut watcher = ContainerWatcher { client, id, tty: self.tty };
        watcher.resize();
        let raw = session::raw_mode(framing, input);
        let copied = session::run(stream, framing, input, &signals, &mut watcher);
        drop(raw);
        copied?;
        if self.tty && self.streams.stdin && still_runs(client, id) {
            return Ok(Ended::Detached);
        }
        exit_code(wait).map(Ended::Exited)
    }
}

/// Whether the stream ended because the user detached.
fn still_runs(client: &Client, id: &str) -> bool {
    client.container_inspect(id).is_ok_and(|container| container.state.running)
}

fn exit_code(wait: Wait) -> Outcome {
    let answer = wait.finish()?;
    if let Some(error) = answer.error.filter(|error| !error.message.is_empty()) {
        return Err(Failure { message: error.message, code: ENGINE_FAILED });
    }
    Ok(answer.status_code as u8)
}

struct ContainerWatcher<'a> {
    client: &'a Client,
    id: &'a str,
    tty: bool,
}

impl ContainerWatcher<'_> {
    fn resize(&self) {
        if let (true, Some((rows, columns))) = (self.tty, terminal::size()) {
            // The process may have ended already.
            let _ = self.client.container_resize(self.id, rows, columns);
        }
    }
}

impl Watcher for ContainerWatcher<'_> {
    fn signal(&mut self, signal: i32) {
        match signal {
            WINDOW_CHANGED => self.resize(),
            // The process may have ended already.
            _ => drop(self.client.container_kill(self.id, &signal.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_follow_the_runtimes_words() {
        assert_eq!(exit_code_of("exec: \"x\": executable file not found in $PATH: unknown"), 127);
        assert_eq!(exit_code_of("exec: \"/etc\": is a directory: permission denied"), 126);
        assert_eq!(exit_code_of("no space left on device"), 125);
    }

    #[test]
    fn images_get_the_latest_tag() {
        assert_eq!(with_tag("busybox"), "busybox:latest");
        assert_eq!(with_tag("host:5000/a"), "host:5000/a:latest");
        assert_eq!(with_tag("a:b"), "a:b");
    }
}
