//! Rules as the kernel's expressions: a small machine with registers, which compares, looks up and decides.

use std::net::IpAddr;

use netlink::Request;

use crate::ruleset::{
    Data, Family, Field, Interface, Keyed, Match, Nat, Polarity, Protocol, Rule, Side, State, Statement, Verdict,
};

const NFTA_LIST_ELEM: u16 = 1;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_VERDICT_CHAIN: u16 = 2;

/// The verdict register, and the first of 16 bytes for values.
const VERDICT_REGISTER: u32 = 0;
const REGISTER: u32 = 1;
/// The second register of four bytes; the first is the beginning of [`REGISTER`].
const SECOND_WORD: u32 = 9;

const META_INCOMING_NAME: u32 = 6;
const META_OUTGOING_NAME: u32 = 7;
const META_VERSION: u32 = 15;
const META_PROTOCOL: u32 = 16;
const META_INCOMING_GROUP: u32 = 21;
const META_OUTGOING_GROUP: u32 = 22;
const CT_STATE: u32 = 0;
const CT_STATUS: u32 = 2;
const CT_STATUS_DNAT: u32 = 1 << 5;
const FIB_RESULT_ADDRESS_TYPE: u32 = 3;
const FIB_RESULT_INTERFACE: u32 = 1;
const FIB_SOURCE: u32 = 1;
const FIB_INCOMING_INTERFACE: u32 = 1 << 3;
const FIB_PRESENT: u32 = 1 << 5;
const FIB_DESTINATION: u32 = 1 << 1;
const ADDRESS_TYPE_LOCAL: u32 = 2;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
const IPV4_SOURCE: u32 = 12;
const IPV4_DESTINATION: u32 = 16;
const IPV6_SOURCE: u32 = 8;
const IPV6_DESTINATION: u32 = 24;
const DESTINATION_PORT: u32 = 2;
const NAT_DESTINATION: u32 = 1;
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;
const INTERFACE_NAME_BYTES: usize = 16;

/// `NFTA_RULE_USERDATA`'s record for a comment.
const USERDATA_COMMENT: u8 = 0;

impl Family {
    /// Its number.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Inet => 1,
            Self::Ip => NFPROTO_IPV4,
            Self::Ip6 => NFPROTO_IPV6,
        }
    }

    /// That of an address.
    pub(crate) fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::Ip } else { Self::Ip6 }
    }

    /// The family of this number, if it is one we know.
    pub(crate) fn of_number(number: u8) -> Option<Self> {
        [Self::Inet, Self::Ip, Self::Ip6].into_iter().find(|family| family.number() == number)
    }
}

impl Protocol {
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

impl State {
    fn bit(self) -> u32 {
        match self {
            Self::Invalid => 1,
            Self::Established => 2,
            Self::Related => 4,
            Self::New => 8,
        }
    }
}

impl Field {
    /// nft's number for the type, which it needs to print the set again.
    fn type_number(self) -> u32 {
        match self {
            Self::Source | Self::Destination => 7,
            Self::Source6 | Self::Destination6 => 8,
            Self::IncomingGroup | Self::OutgoingGroup => 35,
            Self::Protocol => 12,
            Self::DestinationPort => 13,
            Self::IncomingInterface | Self::OutgoingInterface => 41,
        }
    }

    /// Its bytes, rounded up to whole registers of four.
    fn padded_bytes(self) -> u32 {
        self.bytes().next_multiple_of(4)
    }

    fn bytes(self) -> u32 {
        match self {
            Self::Source | Self::Destination | Self::IncomingGroup | Self::OutgoingGroup => 4,
            Self::Protocol => 1,
            Self::DestinationPort => 2,
            Self::Source6 | Self::Destination6 | Self::IncomingInterface | Self::OutgoingInterface => 16,
        }
    }
}

/// The type number and length of a key of these fields.
pub(crate) fn key_type(fields: &[Field]) -> (u32, u32) {
    if let [field] = fields {
        return (field.type_number(), field.bytes());
    }
    let number = fields.iter().fold(0, |number, field| (number << 6) | field.type_number());
    (number, fields.iter().map(|field| field.padded_bytes()).sum())
}

/// The lengths of a key's fields, which the kernel must know where one of several is an interval.
pub(crate) fn field_lengths(fields: &[Field]) -> impl Iterator<Item = u32> {
    fields.iter().map(|field| field.bytes())
}

/// The type number and length of address and port together.
pub(crate) fn target_type(family: Family) -> (u32, u32) {
    key_type(&[if family == Family::Ip6 { Field::Destination6 } else { Field::Destination }, Field::DestinationPort])
}

/// The bytes of an element's key.
pub(crate) fn key_bytes(element: &[Data]) -> Vec<u8> {
    let one = |data: &Data| match data {
        Data::Address(address) => octets(*address),
        Data::Protocol(protocol) => vec![protocol.number()],
        Data::Port(port) => port.to_be_bytes().to_vec(),
        Data::Interface(name) => interface_bytes(name),
        Data::Group(number) => number.to_ne_bytes().to_vec(),
    };
    if let [data] = element {
        return one(data);
    }
    let mut bytes = Vec::new();
    for data in element {
        bytes.extend(one(data));
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

/// The bytes of an address.
pub(crate) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The bytes of a map's value.
pub(crate) fn target_bytes(address: IpAddr, port: u16) -> Vec<u8> {
    let mut bytes = octets(address);
    bytes.extend_from_slice(&port.to_be_bytes());
    bytes.extend_from_slice(&[0; 2]);
    bytes
}

/// An element as the kernel takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KernelElement {
    pub(crate) key: Vec<u8>,
    /// Of maps only.
    pub(crate) value: Option<Vec<u8>>,
    /// The last key of an interval of several fields.
    pub(crate) last: Option<Vec<u8>>,
    pub(crate) edge: Edge,
}

/// Which edge of an interval an element is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Edge {
    /// The first value, or the only one.
    Start,
    /// The first value behind the interval.
    End,
}

impl KernelElement {
    pub(crate) fn plain(key: Vec<u8>) -> Self {
        Self { key, value: None, last: None, edge: Edge::Start }
    }
}

/// The elements of a set or map.
pub(crate) fn elements(keyed: &Keyed) -> Vec<KernelElement> {
    match keyed {
        Keyed::Set(elements) => elements.iter().map(|element| KernelElement::plain(key_bytes(element))).collect(),
        Keyed::Subnets(subnets) => subnets.iter().flat_map(|(first, prefix)| interval(*first, *prefix)).collect(),
        Keyed::Places(places) => places.iter().map(|(name, first, prefix)| place(name, *first, *prefix)).collect(),
        Keyed::Targets(_, targets) => targets
            .iter()
            .map(|(element, address, port)| KernelElement {
                value: Some(target_bytes(*address, *port)),
                ..KernelElement::plain(key_bytes(element))
            })
            .collect(),
    }
}

/// A subnet as the kernel keeps intervals: where it starts, and where it has ended, unless that is beyond the last address.
fn interval(first: IpAddr, prefix: u8) -> impl Iterator<Item = KernelElement> {
    let mut behind = last_of(first, prefix);
    // One more than the last address, carried from byte to byte.
    let carried_out = behind.iter_mut().rev().all(|byte| {
        *byte = byte.wrapping_add(1);
        *byte == 0
    });
    let end = (!carried_out).then(|| KernelElement { edge: Edge::End, ..KernelElement::plain(behind) });
    std::iter::once(KernelElement::plain(octets(first))).chain(end)
}

/// An interface and a subnet together: from the subnet's first address to its last.
fn place(name: &str, first: IpAddr, prefix: u8) -> KernelElement {
    let with = |address: Vec<u8>| [interface_bytes(name), address].concat();
    KernelElement { last: Some(with(last_of(first, prefix))), ..KernelElement::plain(with(octets(first))) }
}

/// The last address of a subnet.
fn last_of(first: IpAddr, prefix: u8) -> Vec<u8> {
    let mask = mask_bytes(prefix, octets(first).len());
    octets(first).iter().zip(mask).map(|(byte, mask)| byte | !mask).collect()
}

/// A mask of this many leading bits.
fn mask_bytes(prefix: u8, length: usize) -> Vec<u8> {
    let bits = |index: usize| u32::from(prefix).saturating_sub(index as u32 * 8).min(8);
    (0..length).map(|index| (0xff00_u32 >> bits(index)) as u8).collect()
}

/// An interface name as the kernel compares it: zeros to the end.
pub(crate) fn interface_bytes(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(INTERFACE_NAME_BYTES, 0);
    bytes
}

/// The comment as nft keeps it with a rule.
pub(crate) fn comment_bytes(comment: &str) -> Vec<u8> {
    let text = &comment.as_bytes()[..comment.len().min(usize::from(u8::MAX) - 1)];
    let mut bytes = vec![USERDATA_COMMENT, text.len() as u8 + 1];
    bytes.extend_from_slice(text);
    bytes.push(0);
    bytes
}

/// The comment in a rule's user data.
pub(crate) fn comment_of(mut userdata: &[u8]) -> Option<String> {
    while let [kind, length, rest @ ..] = userdata {
        let value = rest.get(..usize::from(*length))?;
        if *kind == USERDATA_COMMENT {
            let text = value.strip_suffix(&[0]).unwrap_or(value);
            return String::from_utf8(text.to_vec()).ok();
        }
        userdata = &rest[value.len()..];
    }
    None
}

/// The names of unnamed sets that a rule's conditions need, in order; made in the same transaction.
pub(crate) fn unnamed_sets(rule: &Rule) -> Vec<&[String]> {
    let names = |statement| match statement {
        &Statement::Match(Match::Interface(_, _, ref names)) if names.len() != 1 => Some(names.as_slice()),
        _ => None,
    };
    rule.statements.iter().filter_map(names).collect()
}

/// Writes the expressions of a rule. `unnamed` are the numbers given to its unnamed sets.
pub(crate) fn expressions(rule: &Rule, family: Family, unnamed: &[u32], list: &mut Request) {
    let mut writer = Writer { list, family, unnamed: unnamed.iter().copied() };
    for statement in &rule.statements {
        writer.statement(statement);
    }
}

/// The register behind an address in the first.
fn behind_address(family: Family) -> u32 {
    if family == Family::Ip6 { REGISTER + 1 } else { SECOND_WORD }
}

/// The name under which the kernel numbers an unnamed set.
pub(crate) const UNNAMED_SET: &str = "__set%d";

struct Writer<'a, I> {
    list: &'a mut Request,
    family: Family,
    unnamed: I,
}

impl<I: Iterator<Item = u32>> Writer<'_, I> {
    fn statement(&mut self, statement: &Statement) {
        match statement {
            Statement::Match(condition) => self.condition(condition),
            Statement::Counter => self.expression("counter", |_| {}),
            Statement::Verdict(verdict) => self.verdict(verdict),
            Statement::Masquerade => self.expression("masq", |_| {}),
            Statement::DestinationNat(nat) => self.destination_nat(nat),
            Statement::Duplicate { to, link, .. } => self.duplicate(*to, *link),
        }
    }

    fn condition(&mut self, condition: &Match) {
        match condition {
            Match::Interface(which, polarity, names) => self.interface(*which, *polarity, names),
            Match::Address { side, polarity, network, prefix } => self.address(*side, *polarity, *network, *prefix),
            Match::Version(Family::Ip) => self.version(NFPROTO_IPV4),
            Match::Version(Family::Ip6) => self.version(NFPROTO_IPV6),
            Match::Version(Family::Inet) => {}
            Match::Protocol(protocol) => self.protocol(*protocol),
            Match::DestinationPort(protocol, port) => {
                self.protocol(*protocol);
                self.payload(TRANSPORT_HEADER, DESTINATION_PORT, 2, REGISTER);
                self.compare(Polarity::Is, &port.to_be_bytes());
            }
            Match::State(states) => {
                self.connection(CT_STATE);
                self.any_bit(states.iter().fold(0, |bits, state| bits | state.bit()));
            }
            Match::Translated => {
                self.connection(CT_STATUS);
                self.any_bit(CT_STATUS_DNAT);
            }
            Match::ForThisHost => self.for_this_host(),
            Match::Misplaced => self.misplaced(),
            Match::InSet(fields, polarity, set) => {
                self.load(fields);
                self.look_up(set, 0, *polarity, None);
            }
        }
    }

    fn interface(&mut self, which: Interface, polarity: Polarity, names: &[String]) {
        self.meta(if which == Interface::Incoming { META_INCOMING_NAME } else { META_OUTGOING_NAME }, REGISTER);
        match names {
            [name] => match name.strip_suffix('*') {
                // The kernel compares as many bytes as it is given.
                Some(beginning) => self.compare(polarity, beginning.as_bytes()),
                None => self.compare(polarity, &interface_bytes(name)),
            },
            _ => {
                let number = self.unnamed.next().expect("a set was made for each list of names");
                self.look_up(UNNAMED_SET, number, polarity, None);
            }
        }
    }

    fn address(&mut self, side: Side, polarity: Polarity, network: IpAddr, prefix: u8) {
        let bytes = octets(network);
        self.only(Family::of(network));
        let offset = match (Family::of(network), side) {
            (Family::Ip6, Side::Source) => IPV6_SOURCE,
            (Family::Ip6, Side::Destination) => IPV6_DESTINATION,
            (_, Side::Source) => IPV4_SOURCE,
            (_, Side::Destination) => IPV4_DESTINATION,
        };
        self.payload(NETWORK_HEADER, offset, bytes.len() as u32, REGISTER);
        if usize::from(prefix) < bytes.len() * 8 {
            self.mask(&mask_bytes(prefix, bytes.len()));
        }
        self.compare(polarity, &bytes);
    }

    /// In a table of both families a field of one family's header is there in its packets only.
    fn only(&mut self, family: Family) {
        if self.family == Family::Inet {
            self.version(family.number());
        }
    }

    fn version(&mut self, number: u8) {
        self.meta(META_VERSION, REGISTER);
        self.compare(Polarity::Is, &[number]);
    }

    fn protocol(&mut self, protocol: Protocol) {
        self.meta(META_PROTOCOL, REGISTER);
        self.compare(Polarity::Is, &[protocol.number()]);
    }

    fn any_bit(&mut self, bits: u32) {
        self.mask(&bits.to_ne_bytes());
        self.compare(Polarity::IsNot, &[0; 4]);
    }

    fn for_this_host(&mut self) {
        self.expression("fib", |fib| {
            fib.network_number(3, FIB_DESTINATION)
                .network_number(2, FIB_RESULT_ADDRESS_TYPE)
                .network_number(1, REGISTER);
        });
        self.compare(Polarity::Is, &ADDRESS_TYPE_LOCAL.to_ne_bytes());
    }

    fn misplaced(&mut self) {
        self.expression("fib", |fib| {
            fib.network_number(3, FIB_SOURCE | FIB_INCOMING_INTERFACE | FIB_PRESENT)
                .network_number(2, FIB_RESULT_INTERFACE)
                .network_number(1, REGISTER);
        });
        self.compare(Polarity::Is, &[0; 4]);
    }

    /// Loads the fields one behind the other into the value registers.
    fn load(&mut self, fields: &[Field]) {
        if fields.iter().any(|field| matches!(field, Field::Source | Field::Destination)) {
            self.only(Family::Ip);
        }
        if fields.iter().any(|field| matches!(field, Field::Source6 | Field::Destination6)) {
            self.only(Family::Ip6);
        }
        let mut word = 0;
        for field in fields {
            // A field that starts a whole register is loaded by its number, as nft does.
            let register = if word % 4 == 0 { REGISTER + word / 4 } else { SECOND_WORD - 1 + word };
            match field {
                Field::Source => self.payload(NETWORK_HEADER, IPV4_SOURCE, 4, register),
                Field::Destination => self.payload(NETWORK_HEADER, IPV4_DESTINATION, 4, register),
                Field::Source6 => self.payload(NETWORK_HEADER, IPV6_SOURCE, 16, register),
                Field::Destination6 => self.payload(NETWORK_HEADER, IPV6_DESTINATION, 16, register),
                Field::IncomingGroup => self.meta(META_INCOMING_GROUP, register),
                Field::OutgoingGroup => self.meta(META_OUTGOING_GROUP, register),
                Field::Protocol => self.meta(META_PROTOCOL, register),
                Field::DestinationPort => self.payload(TRANSPORT_HEADER, DESTINATION_PORT, 2, register),
                Field::IncomingInterface => self.meta(META_INCOMING_NAME, register),
                Field::OutgoingInterface => self.meta(META_OUTGOING_NAME, register),
            }
            word += field.padded_bytes() / 4;
        }
    }

    fn verdict(&mut self, verdict: &Verdict) {
        let (code, chain) = match verdict {
            Verdict::Drop => (0, None),
            Verdict::Accept => (1, None),
            Verdict::Jump(chain) => (-3_i32 as u32, Some(chain)),
            Verdict::Goto(chain) => (-4_i32 as u32, Some(chain)),
            Verdict::Return => (-5_i32 as u32, None),
        };
        self.expression("immediate", |immediate| {
            immediate.network_number(1, VERDICT_REGISTER).nest(2, |data| {
                data.nest(NFTA_DATA_VERDICT, |verdict| {
                    verdict.network_number(NFTA_VERDICT_CODE, code);
                    if let Some(chain) = chain {
                        verdict.text(NFTA_VERDICT_CHAIN, chain);
                    }
                });
            });
        });
    }

    fn destination_nat(&mut self, nat: &Nat) {
        let (family, has_port) = match nat {
            Nat::To(address, port) => {
                self.immediate(REGISTER, &octets(*address));
                if let Some(port) = port {
                    self.immediate(behind_address(Family::of(*address)), &port.to_be_bytes());
                }
                (Family::of(*address), port.is_some())
            }
            Nat::Map(family, fields, map) => {
                self.load(fields);
                self.look_up(map, 0, Polarity::Is, Some(REGISTER));
                (*family, true)
            }
        };
        self.expression("nat", |nat| {
            nat.network_number(1, NAT_DESTINATION)
                .network_number(2, family.number().into())
                .network_number(3, REGISTER);
            if has_port {
                nat.network_number(5, behind_address(family));
            }
        });
    }

    fn duplicate(&mut self, to: IpAddr, link: u32) {
        self.immediate(REGISTER, &octets(to));
        self.immediate(behind_address(Family::of(to)), &link.to_ne_bytes());
        self.expression("dup", |dup| {
            dup.network_number(1, REGISTER).network_number(2, behind_address(Family::of(to)));
        });
    }

    fn immediate(&mut self, register: u32, value: &[u8]) {
        self.expression("immediate", |immediate| {
            immediate.network_number(1, register).nest(2, |data| {
                data.attribute(NFTA_DATA_VALUE, value);
            });
        });
    }

    fn meta(&mut self, key: u32, register: u32) {
        self.expression("meta", |meta| {
            meta.network_number(2, key).network_number(1, register);
        });
    }

    fn connection(&mut self, key: u32) {
        self.expression("ct", |ct| {
            ct.network_number(2, key).network_number(1, REGISTER);
        });
    }

    fn payload(&mut self, base: u32, offset: u32, length: u32, register: u32) {
        self.expression("payload", |payload| {
            payload
                .network_number(1, register)
                .network_number(2, base)
                .network_number(3, offset)
                .network_number(4, length);
        });
    }

    fn mask(&mut self, mask: &[u8]) {
        self.expression("bitwise", |bitwise| {
            bitwise.network_number(1, REGISTER).network_number(2, REGISTER).network_number(3, mask.len() as u32);
            bitwise.nest(4, |data| {
                data.attribute(NFTA_DATA_VALUE, mask);
            });
            bitwise.nest(5, |data| {
                data.attribute(NFTA_DATA_VALUE, &vec![0; mask.len()]);
            });
        });
    }

    fn compare(&mut self, polarity: Polarity, value: &[u8]) {
        let operator = if polarity == Polarity::Is { 0 } else { 1 };
        self.expression("cmp", |cmp| {
            cmp.network_number(1, REGISTER).network_number(2, operator).nest(3, |data| {
                data.attribute(NFTA_DATA_VALUE, value);
            });
        });
    }

    fn look_up(&mut self, set: &str, number: u32, polarity: Polarity, into: Option<u32>) {
        self.expression("lookup", |lookup| {
            lookup.text(1, set).network_number(2, REGISTER);
            if let Some(register) = into {
                lookup.network_number(3, register);
            }
            if number != 0 {
                lookup.network_number(4, number);
            }
            if polarity == Polarity::IsNot {
                lookup.network_number(5, 1);
            }
        });
    }

    fn expression(&mut self, name: &str, fill: impl FnOnce(&mut Request)) {
        self.list.nest(NFTA_LIST_ELEM, |element| {
            element.text(NFTA_EXPR_NAME, name).nest(NFTA_EXPR_DATA, fill);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_read_back() {
        assert_eq!(comment_of(&comment_bytes("made by conex")), Some("made by conex".to_owned()));
        let mut with_other_record = vec![1, 2, 9, 9];
        with_other_record.extend(comment_bytes("x"));
        assert_eq!(comment_of(&with_other_record), Some("x".to_owned()));
        assert_eq!(comment_of(&[0, 9, 1]), None);
        assert_eq!(comment_bytes(&"long".repeat(100)).len(), 2 + 255);
    }

    #[test]
    fn keys_of_several_fields_are_padded_to_words() {
        let fields = [Field::Destination, Field::Protocol, Field::DestinationPort];
        assert_eq!(key_type(&fields), ((((7 << 6) | 12) << 6) | 13, 12));
        let element = [Data::Address([10, 0, 0, 1].into()), Data::Protocol(Protocol::Udp), Data::Port(53)];
        assert_eq!(key_bytes(&element), [10, 0, 0, 1, 17, 0, 0, 0, 0, 53, 0, 0]);
        assert_eq!(key_bytes(&[Data::Port(80)]), [0, 80]);
        assert_eq!(target_type(Family::Ip6), ((8 << 6) | 13, 20));
    }

    #[test]
    fn an_interval_ends_behind_its_last_address() {
        let ends = |network: &str, prefix| {
            let elements: Vec<_> = interval(network.parse().unwrap(), prefix).collect();
            elements.get(1).map(|end| end.key.clone())
        };
        assert_eq!(ends("10.255.0.0", 16), Some(vec![11, 0, 0, 0]));
        assert_eq!(ends("10.0.0.4", 30), Some(vec![10, 0, 0, 8]));
        assert_eq!(ends("10.0.0.4", 32), Some(vec![10, 0, 0, 5]));
        assert_eq!(ends("255.255.0.0", 16), None);
        assert_eq!(ends("0.0.0.0", 0), None);
        let mut behind = vec![0; 16];
        behind[..8].copy_from_slice(&[0xfd, 0, 0, 0, 0, 0, 0, 2]);
        assert_eq!(ends("fd00:0:0:1::", 64), Some(behind));
    }
}
