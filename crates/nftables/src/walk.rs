//! What the kernel's rules, whoever made them, do with a packet that somebody thinks of.
//!
//! Rules are read back as the kernel's expressions and followed. What cannot be told, because the packet leaves it open or because the
//! expression is not known here, makes a condition uncertain and never true or false.

use std::collections::HashMap;
use std::net::IpAddr;

use netlink::request::{DUMP, Request};
use netlink::{Attribute, Reply, RequestError};

use crate::encode::{interface_bytes, octets};
use crate::inspect::{ChainState, Kernel, comment};
use crate::ruleset::{Family, Hook, Policy, Protocol};
use crate::transaction::{NEW_RULE, header, message};

const GET_RULE: u16 = 7;
const HEADER_BYTES: usize = 4;
/// Jumps within jumps are limited by the kernel as well.
const DEEPEST: usize = 16;

/// The first packet of a connection; `None` is what nobody knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The interface that it came in by.
    pub incoming: Option<String>,
    /// The interface that it leaves by.
    pub outgoing: Option<String>,
    /// IPv4 or IPv6.
    pub version: Family,
    /// The sender.
    pub source: Option<IpAddr>,
    /// The receiver.
    pub destination: Option<IpAddr>,
    /// The protocol.
    pub protocol: Protocol,
    /// The port that it is for.
    pub port: u16,
    /// Whether its destination was translated.
    pub translated: bool,
}

/// What becomes of a packet at a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Every chain lets it by.
    Passes,
    /// It ends at this rule, or this chain's policy.
    Ends(String),
    /// That depends on what these rules find.
    Depends(Vec<String>),
}

/// What a rule or a chain says.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Said {
    Nothing,
    Accept,
    Drop(String),
    Return,
    Call(String),
    /// On in another chain, without a way back.
    Leave(String),
}

#[derive(Clone, Debug)]
enum Condition {
    Holds,
    Fails,
    Uncertain,
}

struct ReadRule {
    chain: String,
    family: u8,
    table: String,
    name: String,
    reply: Reply,
}

impl Kernel {
    /// What becomes of a packet in all chains at a hook but those of tables called `ours`.
    pub fn fate(&mut self, hook: Hook, packet: &Packet, ours: &str) -> Result<Fate, RequestError> {
        let chains = self.chains()?;
        let sees = |chain: &&ChainState| {
            let of_version = chain.family == Family::Inet || chain.family == packet.version;
            of_version && chain.table != ours && chain.base.is_some_and(|(at, _)| at == hook)
        };
        let mut open = Vec::new();
        for chain in chains.iter().filter(sees) {
            let rules = self.all_rules(chain.family, &chain.table)?;
            let mut walk = Walk { packet, rules: &rules, open: Vec::new() };
            let said = walk.chain(&chain.name, 0);
            let place = format!("{} {} {}", chain.family, chain.table, chain.name);
            let policy_drops = chain.base.is_some_and(|(_, policy)| policy == Policy::Drop);
            let ended = match said {
                Said::Drop(by) => Some(by),
                Said::Nothing | Said::Return if policy_drops => Some(format!("policy drop of chain {place}")),
                _ => None,
            };
            match ended {
                Some(by) if walk.open.is_empty() => return Ok(Fate::Ends(by)),
                ended => open.extend(walk.open.into_iter().chain(ended)),
            }
        }
        Ok(if open.is_empty() { Fate::Passes } else { Fate::Depends(open) })
    }

    fn all_rules(&mut self, family: Family, table: &str) -> Result<Vec<ReadRule>, RequestError> {
        let purpose = format!("list rules of table {family} {table}");
        let mut request = Request::new(message(GET_RULE), DUMP, &header(family.number(), 0), purpose);
        request.text(1, table);
        let rules = self.replies(&request)?.into_iter().filter(|reply| reply.kind == message(NEW_RULE));
        Ok(rules.filter_map(|reply| ReadRule::of(reply, table)).collect())
    }
}

impl ReadRule {
    fn of(reply: Reply, table: &str) -> Option<Self> {
        let of_kind = |kind| reply.attributes(HEADER_BYTES).find(|attribute| attribute.kind == kind);
        let (found, chain) = (of_kind(1)?.text()?.to_owned(), of_kind(2)?.text()?.to_owned());
        let family = *reply.payload.first()?;
        let note = comment(&reply).map(|comment| format!(" \"{comment}\"")).unwrap_or_default();
        let name = format!(
            "rule {} of chain {} {found} {chain}{note}",
            of_kind(3)?.network_long()?,
            Family::of_number(family)?
        );
        (found == table).then_some(Self { chain, family, table: found, name, reply })
    }
}

struct Walk<'a> {
    packet: &'a Packet,
    rules: &'a [ReadRule],
    /// Rules that may end the packet's way.
    open: Vec<String>,
}

impl Walk<'_> {
    fn chain(&mut self, name: &str, depth: usize) -> Said {
        if depth > DEEPEST {
            return Said::Nothing;
        }
        for rule in self.rules.iter().filter(|rule| rule.chain == name) {
            let (condition, said) = Evaluation::of(self.packet, rule);
            let certain = matches!(condition, Condition::Holds);
            match (condition, said) {
                (Condition::Fails, _) | (_, Said::Nothing) => {}
                (_, Said::Call(chain)) => {
                    let before = self.open.len();
                    match self.chain(&chain, depth + 1) {
                        Said::Nothing | Said::Return => {}
                        ended if certain => return ended,
                        Said::Drop(by) => self.open.push(by),
                        // That it may be let by changes only what later rules do: those then are uncertain too.
                        _ if self.open.len() == before => self.open.push(rule.name.clone()),
                        _ => {}
                    }
                }
                (_, Said::Leave(chain)) if certain => {
                    return match self.chain(&chain, depth + 1) {
                        // Behind a chain that was left for good comes the policy.
                        Said::Return => Said::Nothing,
                        said => said,
                    };
                }
                (Condition::Holds, said) => return said,
                (Condition::Uncertain, Said::Drop(by)) => self.open.push(by),
                (Condition::Uncertain, _) => self.open.push(rule.name.clone()),
            }
        }
        Said::Nothing
    }
}

/// The registers while a rule is followed, in words of four bytes.
struct Evaluation<'a> {
    packet: &'a Packet,
    registers: HashMap<u32, Vec<u8>>,
    condition: Condition,
}

impl<'a> Evaluation<'a> {
    /// Whether a rule's conditions hold, and what it says then.
    fn of(packet: &'a Packet, rule: &ReadRule) -> (Condition, Said) {
        debug_assert!(!rule.table.is_empty() && rule.family > 0);
        let mut evaluation = Self { packet, registers: HashMap::new(), condition: Condition::Holds };
        let expressions = rule.reply.attributes(HEADER_BYTES).find(|attribute| attribute.kind == 4);
        let mut said = Said::Nothing;
        for element in expressions.iter().flat_map(Attribute::nested) {
            let part = |kind| element.nested().find(|attribute| attribute.kind == kind);
            let Some(name) = part(1).and_then(|name| name.text()) else { continue };
            if let Some(found) = evaluation.expression(name, part(2), &rule.name) {
                said = found;
            }
            if matches!(evaluation.condition, Condition::Fails) {
                return (Condition::Fails, Said::Nothing);
            }
        }
        (evaluation.condition, said)
    }

    /// Follows one expression; returns the verdict, if it is one.
    fn expression(&mut self, name: &str, data: Option<Attribute<'_>>, rule: &str) -> Option<Said> {
        let part = |kind| data.as_ref().and_then(|data| data.nested().find(|attribute| attribute.kind == kind));
        let number = |kind| part(kind).and_then(|attribute| attribute.network_number()).unwrap_or_default();
        match name {
            "meta" => self.load(number(1), self.meta(number(2))),
            "payload" => self.load(number(1), self.payload(number(2), number(3), number(4))),
            "ct" => self.load(number(1), self.connection(number(2))),
            "cmp" => self.compare(number(1), number(2), value_of(part(3))),
            "bitwise" => {
                let mask = value_of(part(4)).unwrap_or_default();
                let masked = self.read(number(1)).map(|bytes| bytes.iter().zip(mask).map(|(a, b)| a & b).collect());
                self.load(number(2), masked);
            }
            "immediate" if number(1) == 0 => return verdict(part(2), rule),
            "immediate" => self.load(number(1), value_of(part(2))),
            "reject" => return Some(Said::Drop(rule.to_owned())),
            "target" => {
                let ends = matches!(part(1).and_then(|name| name.text()), Some("REJECT" | "DROP"));
                return ends.then(|| Said::Drop(rule.to_owned()));
            }
            // They change nothing of the packet's way.
            "counter" | "log" | "notrack" | "quota" | "objref" | "nat" | "masq" | "redir" => {}
            // Sets and maps are not read, and the rest is not known: any of them may decide.
            "lookup" if part(3).is_some() && number(3) == 0 => {
                self.condition = Condition::Uncertain;
                return Some(Said::Drop(rule.to_owned()));
            }
            _ => self.condition = Condition::Uncertain,
        }
        None
    }

    fn load(&mut self, register: u32, value: Option<Vec<u8>>) {
        match value {
            Some(value) => self.registers.insert(word(register), value),
            None => self.registers.remove(&word(register)),
        };
    }

    fn read(&self, register: u32) -> Option<Vec<u8>> {
        self.registers.get(&word(register)).cloned()
    }

    fn compare(&mut self, register: u32, operator: u32, wanted: Option<Vec<u8>>) {
        let (Some(mut found), Some(wanted)) = (self.read(register), wanted) else {
            self.condition = Condition::Uncertain;
            return;
        };
        found.resize(wanted.len(), 0);
        let holds = match operator {
            0 => found == wanted,
            1 => found != wanted,
            2 => found < wanted,
            3 => found <= wanted,
            4 => found > wanted,
            _ => found >= wanted,
        };
        if !holds {
            self.condition = Condition::Fails;
        }
    }

    fn meta(&self, key: u32) -> Option<Vec<u8>> {
        match key {
            6 => self.packet.incoming.as_deref().map(interface_bytes),
            7 => self.packet.outgoing.as_deref().map(interface_bytes),
            15 => Some(vec![self.packet.version.number()]),
            16 => Some(vec![self.packet.protocol.number()]),
            _ => None,
        }
    }

    fn connection(&self, key: u32) -> Option<Vec<u8>> {
        const NEW: u32 = 8;
        const TRANSLATED: u32 = 1 << 5;
        match key {
            0 => Some(NEW.to_ne_bytes().to_vec()),
            2 => Some(if self.packet.translated { TRANSLATED } else { 0 }.to_ne_bytes().to_vec()),
            _ => None,
        }
    }

    fn payload(&self, base: u32, offset: u32, length: u32) -> Option<Vec<u8>> {
        let address = |address: Option<IpAddr>| {
            address.map(octets).map(|bytes| bytes.into_iter().take(length as usize).collect::<Vec<u8>>())
        };
        match (self.packet.version, base, offset) {
            (Family::Ip, 1, 9) | (Family::Ip6, 1, 6) if length == 1 => Some(vec![self.packet.protocol.number()]),
            (Family::Ip, 1, 12) | (Family::Ip6, 1, 8) => address(self.packet.source),
            (Family::Ip, 1, 16) | (Family::Ip6, 1, 24) => address(self.packet.destination),
            (_, 2, 2) if length == 2 => Some(self.packet.port.to_be_bytes().to_vec()),
            _ => None,
        }
    }
}

/// Registers of 16 bytes are counted from 1, those of 4 from 8.
fn word(register: u32) -> u32 {
    match register {
        0..=4 => register.saturating_sub(1) * 4,
        _ => register - 8,
    }
}

fn value_of(data: Option<Attribute<'_>>) -> Option<Vec<u8>> {
    Some(data?.nested().find(|attribute| attribute.kind == 1)?.value.to_vec())
}

fn verdict(data: Option<Attribute<'_>>, rule: &str) -> Option<Said> {
    let verdict = data?.nested().find(|attribute| attribute.kind == 2)?;
    let part = |kind| verdict.nested().find(|attribute| attribute.kind == kind);
    let chain = || part(2).and_then(|chain| chain.text()).unwrap_or_default().to_owned();
    Some(match part(1)?.network_number()?.cast_signed() {
        0 => Said::Drop(rule.to_owned()),
        -3 => Said::Call(chain()),
        -4 => Said::Leave(chain()),
        -5 => Said::Return,
        _ => Said::Accept,
    })
}
