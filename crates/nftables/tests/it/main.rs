//! Rulesets in the real kernel, compared with what `nft` prints; each test in a network namespace of its own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::process::Command;

use netlink::namespace;
use nftables::{
    Base, Chain, ChainKind, Data, Family, Field, Hook, Interface, Kernel, Keyed, Match, Nat, Polarity, Policy,
    Protocol, Rule, Set, Side, State, Statement, Table, Transaction, Verdict,
};

/// Runs `test` in a new namespace.
fn isolated(test: impl FnOnce() + Send) {
    let namespace = namespace::create().unwrap();
    namespace::within(namespace.as_fd(), test).unwrap();
}

/// What `nft` says about this namespace.
fn nft(arguments: &[&str]) -> String {
    let output = Command::new("nft").args(arguments).output().expect("nft is installed");
    assert!(output.status.success(), "nft {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn install(table: &Table) {
    let mut transaction = Transaction::new();
    transaction.replace(table);
    transaction.commit().unwrap();
}

fn base(kind: ChainKind, hook: Hook, priority: i32) -> Option<Base> {
    Some(Base { kind, hook, priority, policy: Policy::Accept })
}

fn incoming(polarity: Polarity, names: &[&str]) -> Statement {
    Match::Interface(Interface::Incoming, polarity, names.iter().map(|&name| name.to_owned()).collect()).into()
}

fn outgoing(polarity: Polarity, names: &[&str]) -> Statement {
    Match::Interface(Interface::Outgoing, polarity, names.iter().map(|&name| name.to_owned()).collect()).into()
}

fn address(side: Side, polarity: Polarity, network: [u8; 4], prefix: u8) -> Statement {
    Match::Address { side, polarity, network: network.into(), prefix }.into()
}

/// Every statement, condition and kind of set at least once.
fn everything() -> Table {
    let three = vec![Field::Destination, Field::Protocol, Field::DestinationPort];
    let one_of = |port| vec![Data::Address([192, 0, 2, 2].into()), Data::Protocol(Protocol::Tcp), Data::Port(port)];
    let published = Set {
        name: "published".to_owned(),
        key: three.clone(),
        elements: Keyed::Targets(Family::Ip, vec![(one_of(8080), Ipv4Addr::new(172, 17, 0, 2).into(), 80)]),
    };
    let six = |text: &str| text.parse::<IpAddr>().unwrap();
    let published6 = Set {
        name: "published6".to_owned(),
        key: vec![Field::Destination6, Field::Protocol, Field::DestinationPort],
        elements: Keyed::Targets(
            Family::Ip6,
            vec![(
                vec![Data::Address(six("2001:db8::1")), Data::Protocol(Protocol::Udp), Data::Port(53)],
                six("fd00:1::2"),
                5353,
            )],
        ),
    };
    let subnets6 = Set {
        name: "subnets6".to_owned(),
        key: vec![Field::Source6],
        elements: Keyed::Subnets(vec![(six("fd00:1::"), 64)]),
    };
    let groups = Set {
        name: "groups".to_owned(),
        key: vec![Field::IncomingGroup],
        elements: Keyed::Set(vec![vec![Data::Group(70_000)]]),
    };
    let places = |name: &str, field, network: IpAddr, prefix| Set {
        name: name.to_owned(),
        key: vec![Field::IncomingInterface, field],
        elements: Keyed::Places(vec![("eth0".to_owned(), network, prefix)]),
    };
    let bridges = Set {
        name: "bridges".to_owned(),
        key: vec![Field::IncomingInterface],
        elements: Keyed::Set(vec![vec![Data::Interface("conex0".to_owned())]]),
    };
    let subnets = Set {
        name: "subnets".to_owned(),
        key: vec![Field::Source],
        elements: Keyed::Subnets(vec![([10, 1, 0, 0].into(), 16)]),
    };
    let pairs = Set {
        name: "pairs".to_owned(),
        key: vec![Field::IncomingInterface, Field::OutgoingInterface],
        elements: Keyed::Set(Vec::new()),
    };
    let open = Set { name: "open".to_owned(), key: vec![Field::DestinationPort], elements: Keyed::Set(Vec::new()) };
    let prerouting = vec![
        Rule::new([
            address(Side::Destination, Polarity::Is, [172, 17, 0, 0], 16),
            incoming(Polarity::IsNot, &["lo", "conex0"]),
            Statement::Counter,
            Verdict::Drop.into(),
        ]),
        Rule::new([address(Side::Destination, Polarity::IsNot, [172, 20, 0, 0], 14), Verdict::Return.into()]),
        Rule::new([address(Side::Source, Polarity::Is, [10, 0, 0, 1], 32), Verdict::Accept.into()]),
        Rule::new([Match::Misplaced.into(), Verdict::Drop.into()]),
    ];
    let nat = vec![
        Rule::new([
            Match::ForThisHost.into(),
            Statement::DestinationNat(Nat::Map(Family::Ip, three.clone(), "published".to_owned())),
        ]),
        Rule::new([Statement::DestinationNat(Nat::Map(
            Family::Ip6,
            vec![Field::Destination6, Field::Protocol, Field::DestinationPort],
            "published6".to_owned(),
        ))]),
        Rule::new([
            Match::Version(Family::Ip6).into(),
            Match::DestinationPort(Protocol::Tcp, 53).into(),
            Statement::DestinationNat(Nat::To(six("fd00:1::2"), Some(5353))),
        ]),
        Rule::new([
            Match::DestinationPort(Protocol::Udp, 53).into(),
            Statement::DestinationNat(Nat::To([172, 17, 0, 9].into(), Some(5353))),
        ]),
        Rule::new([
            incoming(Polarity::Is, &["eth1"]),
            Statement::DestinationNat(Nat::To([172, 17, 0, 9].into(), None)),
        ]),
    ];
    let forward = vec![
        Rule::new([incoming(Polarity::Is, &["conex0"]), Verdict::Jump("outward".to_owned()).into()])
            .with_comment("hello"),
        Rule::new([outgoing(Polarity::Is, &["conex0"]), Verdict::Goto("inward".to_owned()).into()]),
        Rule::new([outgoing(Polarity::Is, &["veth12*"]), Verdict::Goto("inward".to_owned()).into()]),
    ];
    let inward = vec![
        Rule::new([Match::State(vec![State::Established, State::Related]).into(), Verdict::Accept.into()]),
        Rule::new([Match::Translated.into(), Verdict::Accept.into()]),
        Rule::new([
            Match::InSet(vec![Field::IncomingInterface], Polarity::Is, "bridges".to_owned()).into(),
            Verdict::Accept.into(),
        ]),
        Rule::new([
            Match::InSet(vec![Field::Source], Polarity::Is, "subnets".to_owned()).into(),
            Verdict::Accept.into(),
        ]),
        Rule::new([
            Match::InSet(vec![Field::IncomingInterface, Field::OutgoingInterface], Polarity::Is, "pairs".to_owned())
                .into(),
            Verdict::Accept.into(),
        ]),
        Rule::new([Match::Version(Family::Ip6).into(), Verdict::Drop.into()]),
        Rule::new([Match::Protocol(Protocol::Sctp).into(), Verdict::Drop.into()]),
        Rule::new([
            Match::InSet(vec![Field::DestinationPort], Polarity::IsNot, "open".to_owned()).into(),
            Verdict::Drop.into(),
        ]),
        Rule::new([Match::State(vec![State::Invalid, State::New]).into(), Verdict::Drop.into()]),
        Rule::new([
            Match::InSet(vec![Field::Source6], Polarity::Is, "subnets6".to_owned()).into(),
            Match::InSet(vec![Field::IncomingGroup], Polarity::IsNot, "groups".to_owned()).into(),
            Verdict::Accept.into(),
        ]),
        Rule::new([
            Match::InSet(vec![Field::IncomingInterface, Field::Destination], Polarity::Is, "places".to_owned()).into(),
            Verdict::Accept.into(),
        ]),
        Rule::new([
            Match::InSet(vec![Field::IncomingInterface, Field::Destination6], Polarity::Is, "places6".to_owned())
                .into(),
            Match::Address { side: Side::Source, polarity: Polarity::IsNot, network: six("fe80::"), prefix: 10 }.into(),
            Match::Address { side: Side::Destination, polarity: Polarity::Is, network: six("::1"), prefix: 128 }.into(),
            Verdict::Accept.into(),
        ]),
    ];
    let masquerade = vec![Rule::new([
        address(Side::Source, Polarity::Is, [172, 17, 0, 0], 16),
        outgoing(Polarity::IsNot, &["conex0"]),
        Statement::Masquerade,
    ])];
    let chain = |name: &str, base, rules| Chain { name: name.to_owned(), base, rules };
    Table {
        family: Family::Inet,
        name: "conex".to_owned(),
        sets: vec![
            published,
            bridges,
            subnets,
            pairs,
            open,
            published6,
            subnets6,
            groups,
            places("places", Field::Destination, [10, 1, 0, 0].into(), 16),
            places("places6", Field::Destination6, six("fd00:1::"), 64),
        ],
        chains: vec![
            chain("direct", base(ChainKind::Filter, Hook::Prerouting, -300), prerouting),
            chain("translate", base(ChainKind::Nat, Hook::Prerouting, -100), nat),
            chain("forward", base(ChainKind::Filter, Hook::Forward, 5), forward),
            chain("outward", None, Vec::new()),
            chain("inward", None, inward),
            chain("leaving", base(ChainKind::Nat, Hook::Postrouting, 100), masquerade),
        ],
    }
}

#[test]
fn our_text_is_what_nft_prints() {
    isolated(|| {
        let table = everything();
        install(&table);
        assert_eq!(nft(&["list", "ruleset"]), table.to_string());
    });
}

#[test]
fn nft_reads_our_text_and_prints_it_again() {
    isolated(|| {
        let text = everything().to_string();
        let file = std::env::temp_dir().join(format!("conex-nft-{}", std::process::id()));
        std::fs::write(&file, &text).unwrap();
        nft(&["-f", file.to_str().unwrap()]);
        std::fs::remove_file(&file).unwrap();
        assert_eq!(nft(&["list", "ruleset"]), text);
    });
}

#[test]
fn replacing_leaves_nothing_of_before() {
    isolated(|| {
        install(&everything());
        let small = Table {
            family: Family::Inet,
            name: "conex".to_owned(),
            sets: Vec::new(),
            chains: vec![Chain { name: "only".to_owned(), base: None, rules: Vec::new() }],
        };
        install(&small);
        assert_eq!(nft(&["list", "ruleset"]), small.to_string());
        let mut transaction = Transaction::new();
        transaction.delete(Family::Inet, "conex").delete(Family::Inet, "never-there");
        transaction.commit().unwrap();
        assert_eq!(nft(&["list", "ruleset"]), "");
    });
}

#[test]
fn a_refused_transaction_changes_nothing() {
    isolated(|| {
        let table = everything();
        install(&table);
        let mut broken = table.clone();
        broken.chains[2].rules.push(Rule::new([Verdict::Jump("nowhere".to_owned()).into()]));
        let mut transaction = Transaction::new();
        transaction.replace(&broken);
        let error = transaction.commit().unwrap_err().to_string();
        assert!(error.contains("jump nowhere"), "{error}");
        assert_eq!(nft(&["list", "ruleset"]), table.to_string());
    });
}

#[test]
fn elements_come_and_go() {
    isolated(|| {
        install(&everything());
        let ports = Keyed::Set((1..=2000).map(|port| vec![Data::Port(port)]).collect());
        let mut transaction = Transaction::new();
        transaction.add_elements(Family::Inet, "conex", "open", &ports);
        transaction.commit().unwrap();
        let listed = nft(&["list", "set", "inet", "conex", "open"]);
        assert!(listed.contains("1999") && listed.contains(" 7,"), "{listed}");
        let mut transaction = Transaction::new();
        transaction.remove_elements(Family::Inet, "conex", "open", &ports);
        transaction.commit().unwrap();
        assert_eq!(nft(&["list", "ruleset"]), everything().to_string());
    });
}

#[test]
fn subnets_beside_each_other_come_and_go_one_by_one() {
    isolated(|| {
        install(&everything());
        let next = Keyed::Subnets(vec![([10, 2, 0, 0].into(), 16), ([10, 3, 0, 0].into(), 24)]);
        let mut transaction = Transaction::new();
        transaction.add_elements(Family::Inet, "conex", "subnets", &next);
        transaction.commit().unwrap();
        let listed = nft(&["list", "set", "inet", "conex", "subnets"]);
        assert!(listed.contains("10.2.0.0") && listed.contains("10.3."), "{listed}");
        let mut transaction = Transaction::new();
        transaction.remove_elements(Family::Inet, "conex", "subnets", &next);
        transaction.commit().unwrap();
        assert_eq!(nft(&["list", "ruleset"]), everything().to_string());
    });
}

#[test]
fn tens_of_thousands_of_elements_fit_one_transaction() {
    isolated(|| {
        install(&everything());
        let ports = Keyed::Set((1..=50_000).map(|port| vec![Data::Port(port)]).collect());
        let mut transaction = Transaction::new();
        transaction.add_elements(Family::Inet, "conex", "open", &ports);
        transaction.commit().unwrap();
        assert!(nft(&["list", "set", "inet", "conex", "open"]).contains("50000"));
    });
}

#[test]
fn chains_and_rules_of_others_are_seen_and_single_rules_set_among_them() {
    isolated(|| {
        nft(&[
            "add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }; add rule ip filter FORWARD counter",
        ]);
        let mut kernel = Kernel::open().unwrap();
        kernel.check().unwrap();
        assert_eq!(kernel.tables().unwrap(), [(Family::Ip, "filter".to_owned())]);
        let chains = kernel.chains().unwrap();
        assert_eq!(chains.len(), 1);
        assert_eq!(chains[0].base, Some((Hook::Forward, Policy::Drop)));
        let ours = Rule::new([incoming(Polarity::Is, &["conex0"]), Statement::Counter, Verdict::Accept.into()]);
        let mut transaction = Transaction::new();
        transaction.insert_rule(Family::Ip, "filter", "FORWARD", &ours.clone().with_comment("engine conex"));
        transaction.append_rule(Family::Ip, "filter", "FORWARD", &ours);
        transaction.commit().unwrap();
        let rules = kernel.rules(Family::Ip, "filter", "FORWARD").unwrap();
        let comments: Vec<_> = rules.iter().map(|rule| rule.comment.as_deref()).collect();
        assert_eq!(comments, [Some("engine conex"), None, None]);
        let mut transaction = Transaction::new();
        transaction.delete_rule(Family::Ip, "filter", "FORWARD", rules[0].handle);
        transaction.commit().unwrap();
        assert_eq!(kernel.rules(Family::Ip, "filter", "FORWARD").unwrap().len(), 2);
    });
}

#[test]
fn without_the_privilege_it_fails_and_does_not_hang() {
    isolated(|| {
        let none = rustix::thread::CapabilitySet::empty();
        let sets = rustix::thread::CapabilitySets { effective: none, permitted: none, inheritable: none };
        rustix::thread::set_capabilities(None, sets).unwrap();
        let mut transaction = Transaction::new();
        transaction.replace(&everything());
        let error = transaction.commit().unwrap_err().to_string();
        assert!(error.contains("not permitted"), "{error}");
    });
}

#[test]
fn the_first_refusal_is_the_one_that_is_told() {
    isolated(|| {
        let mut transaction = Transaction::new();
        transaction.delete_rule(Family::Ip, "no-table", "no-chain", 1);
        transaction.replace(&everything());
        let error = transaction.commit().unwrap_err().to_string();
        assert!(error.contains("no-chain"), "{error}");
        assert_eq!(nft(&["list", "ruleset"]), "");
    });
}
