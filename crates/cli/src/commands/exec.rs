//! `exec`: a further process in a running container.

use std::io::{self, IsTerminal};

use api_client::Client;
use clap::ArgMatches;
use docker_api::container::Words;
use docker_api::exec::{CreateRequest, StartRequest};

use super::{After, Entry, operands};
use crate::context::Context;
use crate::error::{Failure, Outcome};
use crate::flags::Takes::{Many, One, Switch};
use crate::flags::{Flag, flag, many, on, one, short};
use crate::session::{self, Framing, Input, Signals, WINDOW_CHANGED, Watcher};
use crate::terminal;

const FLAGS: &[Flag] = &[
    short('d', "detach", Switch, "Run the command in the background"),
    flag("detach-keys", One, "The key sequence that detaches from the process"),
    short('e', "env", Many, "Set an environment variable"),
    flag("env-file", Many, "Read environment variables from a file"),
    short('i', "interactive", Switch, "Keep standard input open"),
    flag("privileged", Switch, "Give the process nearly all that the host can"),
    short('t', "tty", Switch, "Allocate a terminal"),
    short('u', "user", One, "The user (name|uid[:group|gid])"),
    short('w', "workdir", One, "The working directory"),
];

pub(super) const EXEC: Entry = Entry {
    name: "exec",
    about: "Run a command in a running container",
    operands: "CONTAINER COMMAND [ARG...]",
    after: After::Verbatim,
    flags: &[FLAGS],
    run,
};

fn run(context: &Context, matches: &ArgMatches) -> Outcome {
    let words = operands(matches, 2)?;
    let request = request(matches, &words[1..])?;
    let client = context.client()?;
    let id = client.exec_create(&words[0], &request)?;
    let start = StartRequest { detach: request.detach, tty: request.tty, console_size: request.console_size };
    if request.detach {
        client.exec_start_detached(&id, &start)?;
        return Ok(0);
    }
    follow(client, &id, &start, request.attach_stdin)
}

fn request(matches: &ArgMatches, words: &[String]) -> Result<CreateRequest, Failure> {
    let text = |name: &str| one(matches, name).unwrap_or_default().to_owned();
    let (tty, interactive, detach) = (on(matches, "tty"), on(matches, "interactive"), on(matches, "detach"));
    if tty && interactive && !detach && !io::stdin().is_terminal() {
        return Err(Failure::usage("the input device is not a TTY"));
    }
    let size = terminal::size().filter(|_| tty);
    Ok(CreateRequest {
        user: text("user"),
        privileged: on(matches, "privileged"),
        tty,
        console_size: size.map(|(rows, columns)| [rows.into(), columns.into()]),
        attach_stdin: interactive && !detach,
        attach_stdout: !detach,
        attach_stderr: !detach,
        detach_keys: text("detach-keys"),
        env: Some(
            crate::run::body::environment(&many(matches, "env-file"), many(matches, "env")).map_err(Failure::usage)?,
        ),
        working_dir: text("workdir"),
        cmd: Some(Words(words.to_vec())),
        detach,
    })
}

fn follow(client: &Client, id: &str, start: &StartRequest, stdin: bool) -> Outcome {
    let stream = client.exec_start(id, start)?;
    let framing = if start.tty { Framing::Raw } else { Framing::Multiplexed };
    let input = if stdin { Input::Forwarded } else { Input::Untouched };
    let signals = Signals::take(false)?;
    let mut watcher = ExecWatcher { client, id, tty: start.tty };
    let raw = session::raw_mode(framing, input);
    let copied = session::run(stream, framing, input, &signals, &mut watcher);
    drop(raw);
    copied?;
    let process = client.exec_inspect(id)?;
    Ok(process.exit_code.unwrap_or(0) as u8)
}

struct ExecWatcher<'a> {
    client: &'a Client,
    id: &'a str,
    tty: bool,
}

impl Watcher for ExecWatcher<'_> {
    fn signal(&mut self, signal: i32) {
        if let (true, WINDOW_CHANGED, Some((rows, columns))) = (self.tty, signal, terminal::size()) {
            // The process may have ended already.
            let _ = self.client.exec_resize(self.id, rows, columns);
        }
    }
}
