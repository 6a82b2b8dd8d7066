//! Networks.

use super::container::filters;
use super::{After, Entry, print};
use crate::flags::Takes::{Many, One, Switch};
use crate::flags::{Flag, flag, on, short};
use crate::output::list::{Listing, Row};
use crate::output::units;

const FLAGS: &[Flag] = &[
    short('f', "filter", Many, "Show only what this describes"),
    flag("format", One, "table, json, or a Go template"),
    flag("no-trunc", Switch, "Do not shorten"),
    short('q', "quiet", Switch, "Show IDs only"),
];

const LISTING: Listing = Listing {
    table: "ID Name Driver Scope",
    quiet: "ID",
    headings: &[
        ("ID", "NETWORK ID"),
        ("Name", "NAME"),
        ("Driver", "DRIVER"),
        ("Scope", "SCOPE"),
        ("IPv6", "IPV6"),
        ("Internal", "INTERNAL"),
        ("Labels", "LABELS"),
        ("CreatedAt", "CREATED AT"),
    ],
};

pub(super) const LS: Entry = Entry {
    name: "ls",
    about: "List networks",
    operands: "",
    after: After::Options,
    flags: &[FLAGS],
    run: |context, matches| {
        let mut list = context.client()?.network_list(&filters(matches)?)?;
        list.sort_by(|a, b| a.name.cmp(&b.name));
        let rows: Vec<Row> = list
            .iter()
            .map(|network| {
                Row::default()
                    .with("ID", if on(matches, "no-trunc") { &network.id } else { units::short_id(&network.id) })
                    .with("Name", network.name.as_str())
                    .with("Driver", network.driver.as_str())
                    .with("Scope", network.scope.as_str())
                    .with("IPv6", network.enable_ipv6.to_string())
                    .with("Internal", network.internal.to_string())
                    .with("CreatedAt", network.created.as_str())
                    .with_labels(network.labels.iter().flatten())
            })
            .collect();
        print(&LISTING.render(context.style(matches), &rows)?)?;
        Ok(0)
    },
};
