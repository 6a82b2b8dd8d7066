//! Networks.

use std::net::IpAddr;

use clap::ArgMatches;
use docker_api::network::{
    ConfigReference, ConnectRequest, CreateRequest, DisconnectRequest, EndpointIpamConfig, EndpointSettings, Ipam,
    IpamConfig,
};

use super::container::filters;
use super::{After, Entry, complain, confirmed, each, exactly, operands, print};
use crate::error::Failure;
use crate::flags::Takes::{Many, One, Switch};
use crate::flags::{Flag, flag, many, on, one, short};
use crate::output::list::{Listing, Row};
use crate::output::units;
use crate::run::body::pairs;

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

const CREATE_FLAGS: &[Flag] = &[
    flag("attachable", Switch, "Allow containers to be attached by hand"),
    flag("aux-address", Many, "An address that is somebody else's (name=address)"),
    flag("config-from", One, "The network to take the configuration from"),
    flag("config-only", Switch, "Create a configuration only"),
    short('d', "driver", One, "The driver (bridge)"),
    flag("gateway", Many, "The gateway of a subnet"),
    flag("ingress", Switch, "Create the routing mesh of a swarm"),
    flag("internal", Switch, "Cut the network off from everything outside"),
    flag("ip-range", Many, "The part of a subnet that addresses are handed out from"),
    flag("ipam-driver", One, "The driver of the address management"),
    flag("ipam-opt", Many, "An option of the address management"),
    flag("ipv4", One, "Whether the network has IPv4 (true or false)"),
    flag("ipv6", Switch, "Give the network IPv6"),
    flag("label", Many, "Set a label"),
    short('o', "opt", Many, "Set an option of the driver"),
    flag("scope", One, "The scope of the network"),
    flag("subnet", Many, "A subnet, such as 10.1.0.0/24"),
];

pub(super) const CREATE: Entry = Entry {
    name: "create",
    about: "Create a network",
    operands: "NETWORK",
    after: After::Options,
    flags: &[CREATE_FLAGS],
    run: |context, matches| {
        let [name] = exactly(matches)?;
        let made = context.client()?.network_create(&request(name, matches)?)?;
        if !made.warning.is_empty() {
            complain(&format!("WARNING: {}", made.warning));
        }
        print(&format!("{}\n", made.id))?;
        Ok(0)
    },
};

fn request(name: String, matches: &ArgMatches) -> Result<CreateRequest, Failure> {
    let enable_ipv4 = match one(matches, "ipv4") {
        None => None,
        Some("true" | "1") => Some(true),
        Some("false" | "0") => Some(false),
        Some(other) => return Err(Failure::usage(format!("invalid value {other:?} for --ipv4: true or false"))),
    };
    let ipam = Ipam {
        driver: one(matches, "ipam-driver").unwrap_or("default").to_owned(),
        options: Some(pairs(many(matches, "ipam-opt"), '=')),
        config: Some(pools(matches)?),
    };
    Ok(CreateRequest {
        driver: one(matches, "driver").unwrap_or("bridge").to_owned(),
        scope: one(matches, "scope").unwrap_or_default().to_owned(),
        enable_ipv4,
        enable_ipv6: on(matches, "ipv6").then_some(true),
        ipam: Some(ipam),
        internal: on(matches, "internal"),
        attachable: on(matches, "attachable"),
        ingress: on(matches, "ingress"),
        config_only: on(matches, "config-only"),
        config_from: one(matches, "config-from").map(|network| ConfigReference { network: network.to_owned() }),
        options: Some(pairs(many(matches, "opt"), '=')),
        labels: Some(pairs(many(matches, "label"), '=')),
        name,
        check_duplicate: None,
    })
}

/// Ranges, gateways and auxiliary addresses beside the subnet that each lies in.
fn pools(matches: &ArgMatches) -> Result<Vec<IpamConfig>, Failure> {
    let mut pools: Vec<IpamConfig> = Vec::new();
    for subnet in many(matches, "subnet") {
        pools.push(IpamConfig { subnet, ..IpamConfig::default() });
    }
    for range in many(matches, "ip-range") {
        let first = range.split('/').next().unwrap_or_default().to_owned();
        pool_of(&mut pools, &first)?.ip_range = range;
    }
    for gateway in many(matches, "gateway") {
        pool_of(&mut pools, &gateway)?.gateway.clone_from(&gateway);
    }
    for (name, address) in pairs(many(matches, "aux-address"), '=') {
        pool_of(&mut pools, &address)?.aux_address.insert(name, address);
    }
    Ok(pools)
}

/// The pool that an address lies in. With one of its family there is no question: what does not fit is the engine's to say.
fn pool_of<'a>(pools: &'a mut [IpamConfig], address: &str) -> Result<&'a mut IpamConfig, Failure> {
    let same_family = |pool: &IpamConfig| pool.subnet.contains(':') == address.contains(':');
    let fitting = pools.iter().position(|pool| same_family(pool) && lies_in(address, &pool.subnet));
    let index = fitting.or_else(|| pools.iter().position(same_family));
    index
        .map(|index| &mut pools[index])
        .ok_or_else(|| Failure::usage("every ip-range or gateway must have a corresponding subnet"))
}

fn lies_in(address: &str, subnet: &str) -> bool {
    let bits = |text: &str| match text.parse() {
        Ok(IpAddr::V4(address)) => Some((u128::from(address.to_bits()) << 96, 32)),
        Ok(IpAddr::V6(address)) => Some((address.to_bits(), 128)),
        Err(_) => None,
    };
    let parsed = subnet.split_once('/').and_then(|(first, prefix)| Some((bits(first)?, prefix.parse::<u32>().ok()?)));
    let (Some(((first, most), prefix)), Some((address, _))) = (parsed, bits(address)) else { return false };
    prefix <= most && (first ^ address).checked_shr(128 - prefix).unwrap_or(0) == 0
}

pub(super) const RM: Entry = Entry {
    name: "rm",
    about: "Remove one or more networks",
    operands: "NETWORK [NETWORK...]",
    after: After::Options,
    flags: &[&[short('f', "force", Switch, "Do not complain about missing networks")]],
    run: |context, matches| {
        let client = context.client()?;
        let force = on(matches, "force");
        each(&operands(matches, 1)?, |name| match client.network_remove(name) {
            Err(error) if force && error.is_not_found() => Ok(String::new()),
            result => result.map(|()| name.to_owned()),
        })
    },
};

const CONNECT_FLAGS: &[Flag] = &[
    flag("alias", Many, "A further name on the network"),
    flag("driver-opt", Many, "Set an option of the driver"),
    flag("gw-priority", One, "Which network the default route leads by: the highest"),
    flag("ip", One, "The IPv4 address"),
    flag("ip6", One, "The IPv6 address"),
    flag("link", Many, "A name of another container (container:alias)"),
    flag("link-local-ip", Many, "A link-local address"),
];

pub(super) const CONNECT: Entry = Entry {
    name: "connect",
    about: "Connect a container to a network",
    operands: "NETWORK CONTAINER",
    after: After::Options,
    flags: &[CONNECT_FLAGS],
    run: |context, matches| {
        let [network, container] = exactly(matches)?;
        let list = |name: &str| Some(many(matches, name)).filter(|list| !list.is_empty());
        let text = |name: &str| one(matches, name).unwrap_or_default().to_owned();
        let priority = one(matches, "gw-priority").map(|text| {
            text.parse().map_err(|_| Failure::usage(format!("invalid value {text:?} for --gw-priority: not a number")))
        });
        let endpoint = EndpointSettings {
            ipam_config: Some(EndpointIpamConfig {
                ipv4_address: text("ip"),
                ipv6_address: text("ip6"),
                link_local_ips: many(matches, "link-local-ip"),
            }),
            links: list("link"),
            aliases: list("alias"),
            driver_opts: list("driver-opt").map(|options| pairs(options, '=')),
            gw_priority: priority.transpose()?,
            ..EndpointSettings::default()
        };
        let request = ConnectRequest { container, endpoint_config: Some(endpoint) };
        context.client()?.network_connect(&network, &request)?;
        Ok(0)
    },
};

pub(super) const DISCONNECT: Entry = Entry {
    name: "disconnect",
    about: "Disconnect a container from a network",
    operands: "NETWORK CONTAINER",
    after: After::Options,
    flags: &[&[short('f', "force", Switch, "Disconnect whatever state the container is in")]],
    run: |context, matches| {
        let [network, container] = exactly(matches)?;
        let request = DisconnectRequest { container, force: on(matches, "force") };
        context.client()?.network_disconnect(&network, &request)?;
        Ok(0)
    },
};

pub(super) const PRUNE: Entry = Entry {
    name: "prune",
    about: "Remove networks that no container is in",
    operands: "",
    after: After::Options,
    flags: &[&[
        short('f', "force", Switch, "Do not ask"),
        flag("filter", Many, "Remove only what this describes (label=, until=)"),
    ]],
    run: |context, matches| {
        let question = "WARNING! This will remove all custom networks not used by at least one container.\nAre you sure you want to continue?";
        if !on(matches, "force") && !confirmed(question)? {
            return Ok(0);
        }
        let deleted = context.client()?.network_prune(&filters(matches)?)?.networks_deleted.unwrap_or_default();
        if !deleted.is_empty() {
            print(&format!("Deleted Networks:\n{}\n\n", deleted.join("\n")))?;
        }
        Ok(0)
    },
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_find_their_subnet() {
        let pool = |subnet: &str| IpamConfig { subnet: subnet.to_owned(), ..IpamConfig::default() };
        let mut pools = [pool("10.1.0.0/24"), pool("10.2.0.0/24"), pool("fd00::/64")];
        for (address, subnet) in [("10.2.0.7", "10.2.0.0/24"), ("10.9.0.1", "10.1.0.0/24"), ("fd00::1", "fd00::/64")] {
            assert_eq!(pool_of(&mut pools, address).unwrap().subnet, subnet, "{address}");
        }
        assert!(pool_of(&mut [], "10.0.0.1").is_err());
        assert!(lies_in("10.0.0.1", "0.0.0.0/0") && !lies_in("10.0.0.1", "10.0.0.0/40"));
    }
}
