//! Beside the rules of others.

use std::os::fd::AsFd;
use std::process::Command;

use network::{Attachment, Networks, Remaining, Warning};

use crate::world::{Host, Machine, call_tcp, serve_tcp};

/// What Docker leaves behind on a host with iptables over nf_tables.
const DOCKERS_RULES: &str = "add table ip filter; \
    add chain ip filter DOCKER-USER; add rule ip filter DOCKER-USER counter return; \
    add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }; \
    add rule ip filter FORWARD counter jump DOCKER-USER";

fn reaches_out(networks: &Networks, outside: &Machine, port: u16) -> bool {
    let sandbox = networks.take(Attachment::Bridge).unwrap();
    let _server = serve_tcp(outside.namespace.as_fd(), ([198, 51, 100, 2], port).into());
    let reached = call_tcp(sandbox.namespace.as_fd(), ([198, 51, 100, 2], port).into()).is_ok();
    networks.release(sandbox.endpoint.unwrap());
    reached
}

#[test]
fn dockers_drop_policy_does_not_cut_us_off() {
    let (host, outside) = Host::with_outside();
    host.machine.nft(&[DOCKERS_RULES]);
    let before = host.machine.nft(&["list", "ruleset"]);
    let networks = host.open();
    assert!(reaches_out(&networks, &outside, 80));
    // iptables can still read its own table; it refuses when it meets a rule that it could not have made.
    let listing = host.machine.run(|| Command::new("iptables").args(["-S", "DOCKER-USER"]).output());
    if let Ok(listing) = listing {
        let text = String::from_utf8_lossy(&listing.stdout).into_owned();
        assert!(listing.status.success() && text.contains("-A DOCKER-USER -o conex0"), "{listing:?}");
    }
    drop(networks);
    // A second start does not add the rules a second time.
    let networks = host.open();
    assert_eq!(host.machine.nft(&["list", "chain", "ip", "filter", "DOCKER-USER"]).matches("conex0").count(), 2);
    host.machine.run(|| networks.close(Remaining::Nothing)).unwrap();
    let counters_aside =
        |text: String| text.split_whitespace().filter(|word| word.parse::<u64>().is_err()).collect::<String>();
    assert_eq!(counters_aside(host.machine.nft(&["list", "ruleset"])), counters_aside(before));
}

#[test]
fn a_plain_iptables_drop_policy_is_passed_as_well() {
    let (host, outside) = Host::with_outside();
    host.machine.nft(&[
        "add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }",
    ]);
    let networks = host.open();
    assert!(reaches_out(&networks, &outside, 80));
    // It is our rule that lets it: the foreign policy drops what has none.
    let stopped = networks.take(Attachment::Bridge).unwrap();
    drop(networks);
    host.machine.nft(&["delete rule ip filter FORWARD handle", &handle_of_first_rule(&host)]);
    let _server = serve_tcp(outside.namespace.as_fd(), ([198, 51, 100, 2], 81).into());
    call_tcp(stopped.namespace.as_fd(), ([198, 51, 100, 2], 81).into()).unwrap_err();
}

fn handle_of_first_rule(host: &Host) -> String {
    let listing = host.machine.nft(&["-a", "list", "chain", "ip", "filter", "FORWARD"]);
    let outgoing = listing.lines().find(|line| line.contains("iifname \"conex0\"")).unwrap();
    outgoing.rsplit(' ').next().unwrap().to_owned()
}

#[test]
fn a_chain_that_we_cannot_enter_is_told() {
    let (host, _outside) = Host::with_outside();
    host.machine.nft(&[
        "add table inet custom; add chain inet custom inward { type filter hook forward priority 0; policy drop; }",
    ]);
    let networks = host.open();
    assert!(
        networks.warnings().contains(&Warning::ForeignDrop("inet custom inward".to_owned())),
        "{:?}",
        networks.warnings()
    );
}

/// Waits for something that another thread brings about.
fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !condition() {
        assert!(std::time::Instant::now() < deadline, "{what}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn rules_that_somebody_flushes_come_back() {
    let (host, outside) = Host::with_outside();
    let networks = host.open();
    let rules = host.machine.nft(&["list", "ruleset"]);
    assert!(rules.contains("direct-access"));
    for what in
        [["flush", "ruleset"].as_slice(), &["flush", "table", "inet", "conex"], &["delete", "table", "inet", "conex"]]
    {
        host.machine.nft(what);
        eventually("the rules did not come back", || host.machine.nft(&["list", "ruleset"]) == rules);
    }
    assert!(reaches_out(&networks, &outside, 80));
    host.machine.run(|| networks.close(Remaining::Nothing)).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert_eq!(host.machine.nft(&["list", "ruleset"]), "", "after closing they stay away");
}

#[test]
fn docker_may_come_later() {
    let (host, outside) = Host::with_outside();
    let networks = host.open();
    host.machine.nft(&[DOCKERS_RULES]);
    eventually("no rule for Docker's chain", || {
        host.machine.nft(&["list", "chain", "ip", "filter", "DOCKER-USER"]).matches("conex0").count() == 2
    });
    assert!(reaches_out(&networks, &outside, 80));
}
