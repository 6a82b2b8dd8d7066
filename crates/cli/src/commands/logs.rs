//! `logs`: what a container has printed.

use std::io::Read;

use api_client::LogsOptions;
use clap::ArgMatches;

use super::{After, Entry, exactly};
use crate::context::Context;
use crate::error::Outcome;
use crate::flags::Takes::{One, Switch};
use crate::flags::{Flag, flag, on, one, short};
use crate::output::units;
use crate::session::{Framing, Output};

const FLAGS: &[Flag] = &[
    flag("details", Switch, "Show the attributes of lines"),
    short('f', "follow", Switch, "Go on as long as the container runs"),
    flag("since", One, "Begin at this time (2013-01-02T13:23:37Z, or 42m for 42 minutes ago)"),
    short('n', "tail", One, "The number of lines from the end, or all"),
    short('t', "timestamps", Switch, "Show when each line came"),
    flag("until", One, "End at this time"),
];

pub(super) const LOGS: Entry = Entry {
    name: "logs",
    about: "Show what a container has printed",
    operands: "CONTAINER",
    after: After::Options,
    flags: &[FLAGS],
    run: logs,
};

fn logs(context: &Context, matches: &ArgMatches) -> Outcome {
    let [name] = exactly(matches)?;
    let client = context.client()?;
    let container = client.container_inspect(&name)?;
    let moment = |name: &str| units::moment(one(matches, name).unwrap_or_default(), jiff::Timestamp::now());
    let options = LogsOptions {
        stdout: true,
        stderr: true,
        follow: on(matches, "follow"),
        timestamps: on(matches, "timestamps"),
        details: on(matches, "details"),
        since: moment("since"),
        until: moment("until"),
        tail: one(matches, "tail").unwrap_or("all").to_owned(),
    };
    let mut body = client.container_logs(&container.id, &options)?;
    let mut output = Output::new(if container.config.tty { Framing::Raw } else { Framing::Multiplexed });
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match body.read(&mut buffer)? {
            0 => return Ok(0),
            count => output.write(&buffer[..count])?,
        }
    }
}
