//! `conex why`: how a container's last run ended, and who asked for that.

use clap::ArgMatches;

use docker_api::container::Why;

use super::{After, Entry, each, operands};
use crate::context::Context;
use crate::error::Outcome;
use crate::flags::on;

pub(super) const WHY: Entry = Entry {
    name: "why",
    about: "Say why a container stopped: exit, signal, memory, health, and who asked",
    operands: "CONTAINER [CONTAINER...]",
    after: After::Options,
    flags: &[],
    run: why,
};

fn why(context: &Context, matches: &ArgMatches) -> Outcome {
    let client = context.client()?;
    each(&operands(matches, 1)?, |container| {
        let why = client.container_why(container)?;
        Ok(if on(matches, "json") { document(&why) } else { why.sentences.join("\n") })
    })
}

fn document(why: &Why) -> String {
    serde_json::to_string(why).expect("it is made of numbers and strings")
}
