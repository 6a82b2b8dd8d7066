//! `conex ports explain`: who reaches a published port, and which rule decides.

use clap::ArgMatches;
use docker_api::network::PortExplanation;

use super::{After, Entry, operands, print};
use crate::context::Context;
use crate::error::Outcome;
use crate::flags::on;

pub(super) const EXPLAIN: Entry = Entry {
    name: "explain",
    about: "Say of each published port who can reach it and which rule decides, the host's own rules included",
    operands: "[CONTAINER]",
    after: After::Options,
    flags: &[],
    run: explain,
};

fn explain(context: &Context, matches: &ArgMatches) -> Outcome {
    let words = operands(matches, 0)?;
    let all = context.client()?.ports_explain(words.first().map(String::as_str))?;
    if on(matches, "json") {
        print(&format!("{}\n", serde_json::to_string(&all)?))?;
    } else {
        print(&table(&all))?;
    }
    Ok(0)
}

/// One line a caller, under a line for each port.
fn table(all: &[PortExplanation]) -> String {
    let mut text = String::new();
    let mut last = None;
    for one in all {
        let port = (&one.container, &one.published, &one.port);
        if last.replace(port) != Some(port) {
            text += &format!("{} -> {} of {}\n", one.published, one.port, one.container);
        }
        let (caller, reached) = (&one.caller, &one.reached);
        text += &format!("  {caller:<16}{reached:<9}{}\n", one.because.join(&format!("\n{:<27}", "")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_port_has_a_line_and_each_caller_one_below() {
        let one = |caller: &str, because: &[&str]| PortExplanation {
            container: "web".to_owned(),
            published: "0.0.0.0:8080".to_owned(),
            port: "80/tcp".to_owned(),
            caller: caller.to_owned(),
            reached: "yes".to_owned(),
            because: because.iter().map(|&rule| rule.to_owned()).collect(),
        };
        let expected = "0.0.0.0:8080 -> 80/tcp of web\n  this host       yes      a\n  containers      yes      b\n                           c\n";
        assert_eq!(table(&[one("this host", &["a"]), one("containers", &["b", "c"])]), expected);
    }
}
