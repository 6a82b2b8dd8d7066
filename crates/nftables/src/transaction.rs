//! Changes to the kernel's rules: all of a transaction at once, or nothing.

use netlink::request::{APPEND, CREATE, EXCLUSIVE, Request};
use netlink::{Family as SocketFamily, OpenError, RequestError, Socket};
use thiserror::Error;

use crate::encode::{
    Edge, KernelElement, UNNAMED_SET, comment_bytes, elements, expressions, field_lengths, interface_bytes, key_type,
    target_type, unnamed_sets,
};
use crate::ruleset::{Base, Chain, ChainKind, Family, Field, Hook, Keyed, Policy, Rule, Set, Table};

const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;
const SUBSYSTEM: u16 = 10;

pub(crate) const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
pub(crate) const NEW_CHAIN: u16 = 3;
pub(crate) const NEW_RULE: u16 = 6;
const DELETE_RULE: u16 = 8;
const NEW_SET: u16 = 9;
const NEW_ELEMENTS: u16 = 12;
const DELETE_ELEMENTS: u16 = 14;

const SET_ANONYMOUS: u32 = 1;
const SET_CONSTANT: u32 = 2;
const SET_INTERVAL: u32 = 4;
const SET_MAP: u32 = 8;
const SET_CONCATENATION: u32 = 0x80;
const ELEMENT_INTERVAL_END: u32 = 1;

/// Why a change was not made.
#[derive(Debug, Error)]
pub enum TransactionError {
    /// There is no socket.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The kernel refused, and nothing of the transaction happened.
    #[error("nftables: {0}")]
    Refused(#[from] RequestError),
}

/// The fixed part of every netfilter message: `struct nfgenmsg`.
pub(crate) fn header(family: u8, resource: u16) -> [u8; 4] {
    let resource = resource.to_be_bytes();
    [family, 0, resource[0], resource[1]]
}

/// The message type of nf_tables' message `kind`.
pub(crate) fn message(kind: u16) -> u16 {
    (SUBSYSTEM << 8) | kind
}

/// Changes that happen together.
#[derive(Debug)]
pub struct Transaction {
    requests: Vec<Request>,
    unnamed_sets: u32,
}

impl Default for Transaction {
    fn default() -> Self {
        Self::new()
    }
}

impl Transaction {
    /// A transaction that changes nothing yet.
    pub fn new() -> Self {
        let begin = Request::new(NFNL_MSG_BATCH_BEGIN, 0, &header(0, SUBSYSTEM), "begin a transaction");
        Self { requests: vec![begin], unnamed_sets: 0 }
    }

    /// Puts `table` in the place of what is there under its name, if anything.
    pub fn replace(&mut self, table: &Table) -> &mut Self {
        self.delete(table.family, &table.name).make(table, CREATE)
    }

    /// Makes `table`, of which there is none of its name; if there is, the transaction fails. Cheaper than [`Transaction::replace`]: the
    /// kernel has nothing to take apart, for which closing the socket would wait.
    pub fn create(&mut self, table: &Table) -> &mut Self {
        self.make(table, CREATE | EXCLUSIVE)
    }

    fn make(&mut self, table: &Table, flags: u16) -> &mut Self {
        self.table(NEW_TABLE, flags, table.family, &table.name, "create");
        for set in &table.sets {
            self.set(table, set);
        }
        // Chains before rules: a rule may jump to any of them.
        for chain in &table.chains {
            self.chain(table, chain);
        }
        for chain in &table.chains {
            for rule in &chain.rules {
                self.rule(Position::Last, table.family, &table.name, &chain.name, rule);
            }
        }
        self
    }

    /// Takes a table away; it is no error if there is none.
    pub fn delete(&mut self, family: Family, name: &str) -> &mut Self {
        // Made first: deleting what is not there fails, and "destroy" is newer than the kernels we run on.
        self.table(NEW_TABLE, CREATE, family, name, "create");
        self.table(DELETE_TABLE, 0, family, name, "delete")
    }

    fn table(&mut self, kind: u16, flags: u16, family: Family, name: &str, verb: &str) -> &mut Self {
        let mut request = self.request(kind, flags, family, format!("{verb} table {family} {name}"));
        request.text(1, name);
        self.push(request)
    }

    fn chain(&mut self, table: &Table, chain: &Chain) {
        let mut request = self.request(NEW_CHAIN, CREATE, table.family, format!("create chain {}", chain.name));
        request.text(1, &table.name).text(3, &chain.name);
        if let Some(base) = &chain.base {
            describe_base(&mut request, base);
        }
        self.push(request);
    }

    fn set(&mut self, table: &Table, set: &Set) {
        let (key_number, key_bytes) = key_type(&set.key);
        let mut request = self.request(NEW_SET, CREATE, table.family, format!("create set {}", set.name));
        request.text(1, &table.name).text(2, &set.name);
        let flags = match set.elements {
            Keyed::Set(_) => 0,
            Keyed::Subnets(_) => SET_INTERVAL,
            Keyed::Places(_) => SET_INTERVAL | SET_CONCATENATION,
            Keyed::Targets(..) => SET_MAP,
        };
        request.network_number(3, flags).network_number(4, key_number).network_number(5, key_bytes);
        if let Keyed::Targets(family, _) = &set.elements {
            let (number, bytes) = target_type(*family);
            request.network_number(6, number).network_number(7, bytes);
        }
        if matches!(set.elements, Keyed::Places(_)) {
            request.nest(9, |description| describe_fields(description, &set.key));
        }
        let number = self.next_set_number();
        request.network_number(10, number);
        describe_byte_order(&mut request, &set.key);
        self.push(request);
        self.change_elements(NEW_ELEMENTS, CREATE, table.family, &table.name, &set.name, &elements(&set.elements));
    }

    fn next_set_number(&mut self) -> u32 {
        self.unnamed_sets += 1;
        self.unnamed_sets
    }

    /// Adds elements to a set or map that is there.
    pub fn add_elements(&mut self, family: Family, table: &str, set: &str, keyed: &Keyed) -> &mut Self {
        self.change_elements(NEW_ELEMENTS, CREATE, family, table, set, &elements(keyed));
        self
    }

    /// Takes elements out of a set or map.
    pub fn remove_elements(&mut self, family: Family, table: &str, set: &str, keyed: &Keyed) -> &mut Self {
        self.change_elements(DELETE_ELEMENTS, 0, family, table, set, &elements(keyed));
        self
    }

    fn change_elements(
        &mut self,
        kind: u16,
        flags: u16,
        family: Family,
        table: &str,
        set: &str,
        elements: &[KernelElement],
    ) {
        // One message each for as many as its length field, of 16 bits, has room for.
        const ELEMENTS_PER_MESSAGE: usize = 512;
        for chunk in elements.chunks(ELEMENTS_PER_MESSAGE) {
            let mut request = self.request(kind, flags, family, format!("change elements of set {set}"));
            request
                .text(1, table)
                .text(2, set)
                .nest(3, |list| chunk.iter().for_each(|element| describe_element(list, element)));
            self.push(request);
        }
    }

    /// Puts a rule before all others of a chain that is there.
    pub fn insert_rule(&mut self, family: Family, table: &str, chain: &str, rule: &Rule) -> &mut Self {
        self.rule(Position::First, family, table, chain, rule);
        self
    }

    /// Puts a rule behind all others of a chain that is there.
    pub fn append_rule(&mut self, family: Family, table: &str, chain: &str, rule: &Rule) -> &mut Self {
        self.rule(Position::Last, family, table, chain, rule);
        self
    }

    /// Takes away the rule that has this handle.
    pub fn delete_rule(&mut self, family: Family, table: &str, chain: &str, handle: u64) -> &mut Self {
        let mut request = self.request(DELETE_RULE, 0, family, format!("delete rule {handle} of chain {chain}"));
        request.text(1, table).text(2, chain).attribute(3, &handle.to_be_bytes());
        self.push(request)
    }

    fn rule(&mut self, position: Position, family: Family, table: &str, chain: &str, rule: &Rule) {
        let unnamed: Vec<u32> =
            unnamed_sets(rule).into_iter().map(|names| self.unnamed_set(family, table, names)).collect();
        let flags = if position == Position::Last { CREATE | APPEND } else { CREATE };
        let mut request = self.request(NEW_RULE, flags, family, format!("add rule \"{rule}\" to chain {chain}"));
        request.text(1, table).text(2, chain).nest(4, |list| expressions(rule, family, &unnamed, list));
        if let Some(comment) = &rule.comment {
            request.attribute(7, &comment_bytes(comment));
        }
        self.push(request);
    }

    /// Makes the set behind `{ "a", "b" }` and returns its number in this transaction.
    fn unnamed_set(&mut self, family: Family, table: &str, names: &[String]) -> u32 {
        let number = self.next_set_number();
        let (key_number, key_bytes) = key_type(&[Field::IncomingInterface]);
        let mut request = self.request(NEW_SET, CREATE, family, "create an unnamed set".to_owned());
        request.text(1, table).text(2, UNNAMED_SET);
        request.network_number(3, SET_ANONYMOUS | SET_CONSTANT);
        request.network_number(4, key_number).network_number(5, key_bytes).network_number(10, number);
        describe_byte_order(&mut request, &[Field::IncomingInterface]);
        self.push(request);
        let mut request = self.request(NEW_ELEMENTS, CREATE, family, "fill an unnamed set".to_owned());
        request.text(1, table).text(2, UNNAMED_SET).network_number(4, number);
        request.nest(3, |list| {
            for name in names {
                describe_element(list, &KernelElement::plain(interface_bytes(name)));
            }
        });
        self.push(request);
        number
    }

    fn request(&self, kind: u16, flags: u16, family: Family, purpose: String) -> Request {
        Request::new(message(kind), flags, &header(family.number(), 0), purpose)
    }

    fn push(&mut self, request: Request) -> &mut Self {
        self.requests.push(request);
        self
    }

    /// Makes all changes, or none of them.
    pub fn commit(mut self) -> Result<(), TransactionError> {
        if self.requests.len() == 1 {
            return Ok(());
        }
        self.requests.push(Request::new(NFNL_MSG_BATCH_END, 0, &header(0, SUBSYSTEM), "end a transaction"));
        Ok(Socket::open(SocketFamily::Netfilter)?.transact(&mut self.requests)?)
    }
}

/// Where in its chain a rule goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    First,
    Last,
}

fn describe_base(request: &mut Request, base: &Base) {
    request.nest(4, |hook| {
        hook.network_number(1, base.hook.number()).attribute(2, &base.priority.to_be_bytes());
    });
    request.network_number(5, if base.policy == Policy::Accept { 1 } else { 0 });
    request.text(7, if base.kind == ChainKind::Filter { "filter" } else { "nat" });
}

/// Leaves a note for nft, without which it prints names as nothing and groups wrong: they are in the machine's byte order.
fn describe_byte_order(request: &mut Request, key: &[Field]) {
    const KEY_BYTE_ORDER: u8 = 0;
    const MACHINE_ORDER: u32 = 1;
    use Field::{IncomingGroup, IncomingInterface, OutgoingGroup, OutgoingInterface};
    if let [IncomingInterface | OutgoingInterface | IncomingGroup | OutgoingGroup] = key {
        let mut note = vec![KEY_BYTE_ORDER, 4];
        note.extend_from_slice(&MACHINE_ORDER.to_ne_bytes());
        request.attribute(13, &note);
    }
}

/// Says how long each field of a key is.
fn describe_fields(description: &mut Request, key: &[Field]) {
    description.nest(2, |fields| {
        for bytes in field_lengths(key) {
            fields.nest(1, |field| {
                field.network_number(1, bytes);
            });
        }
    });
}

fn describe_element(list: &mut Request, described: &KernelElement) {
    list.nest(1, |element| {
        element.nest(1, |data| {
            data.attribute(1, &described.key);
        });
        if let Some(last) = &described.last {
            element.nest(10, |data| {
                data.attribute(1, last);
            });
        }
        if let Some(value) = &described.value {
            element.nest(2, |data| {
                data.attribute(1, value);
            });
        }
        if described.edge == Edge::End {
            element.network_number(3, ELEMENT_INTERVAL_END);
        }
    });
}

impl Hook {
    pub(crate) fn number(self) -> u32 {
        match self {
            Self::Prerouting => 0,
            Self::Input => 1,
            Self::Forward => 2,
            Self::Output => 3,
            Self::Postrouting => 4,
        }
    }

    pub(crate) fn of_number(number: u32) -> Option<Self> {
        let all = [Self::Prerouting, Self::Input, Self::Forward, Self::Output, Self::Postrouting];
        all.into_iter().find(|hook| hook.number() == number)
    }
}
