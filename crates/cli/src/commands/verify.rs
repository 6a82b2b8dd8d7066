//! `conex image verify`: whether everything is still as it was stored.

use std::collections::BTreeMap;

use clap::ArgMatches;
use docker_api::image::Check;

use super::{After, Entry, print};
use crate::context::Context;
use crate::credentials::ConfigFile;
use crate::error::Outcome;
use crate::flags::Takes::Switch;
use crate::flags::{Flag, flag, on, short};
use crate::output::units;

const FLAGS: &[Flag] = &[
    flag("repair", Switch, "Make again what can be made from what is whole, and fetch the rest from where it came"),
    short('q', "quiet", Switch, "Show only what is damaged"),
];

pub(super) const VERIFY: Entry = Entry {
    name: "verify",
    about: "Hash every image and layer against its name",
    operands: "",
    after: After::Options,
    flags: &[FLAGS],
    run: verify,
};

/// Exits with 1 if anything is damaged.
fn verify(context: &Context, matches: &ArgMatches) -> Outcome {
    let (mut whole, mut repaired, mut damaged) = (0, 0, 0);
    let repair = on(matches, "repair");
    // Only for repairs does anybody have to know who asks.
    let auths = if repair { ConfigFile::load()?.everybody()? } else { BTreeMap::new() };
    for check in context.client()?.image_verify(repair, &auths)? {
        let check = check?;
        match check.verdict.as_str() {
            "whole" => whole += 1,
            "repaired" => repaired += 1,
            _ => damaged += 1,
        }
        if on(matches, "json") {
            print(&format!("{}\n", serde_json::to_string(&check)?))?;
        } else if check.verdict == "damaged" || !on(matches, "quiet") && check.verdict != "whole" {
            print(&line(&check))?;
        }
    }
    if !on(matches, "json") && !on(matches, "quiet") {
        print(&format!("{whole} whole, {repaired} repaired, {damaged} damaged\n"))?;
        if damaged > 0 && !repair {
            print("With --repair what is damaged is made or fetched again, where that is possible.\n")?;
        } else if damaged > 0 {
            print("Load what is damaged again: its layers are replaced.\n")?;
        }
    }
    Ok(u8::from(damaged > 0))
}

fn line(check: &Check) -> String {
    let id = units::short_id(&check.id);
    format!("{} {} {id} ({}): {}\n", check.verdict, check.kind, check.images.join(", "), check.reason)
}
