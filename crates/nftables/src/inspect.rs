//! What rules the kernel has: ours and others'.

use netlink::request::{DUMP, Request};
use netlink::{Family as SocketFamily, OpenError, Reply, RequestError, Socket};

use crate::encode::comment_of;
use crate::ruleset::{Family, Hook, Policy};
use crate::transaction::{NEW_CHAIN, NEW_RULE, NEW_TABLE, header, message};

const GET_TABLE: u16 = 1;
const GET_CHAIN: u16 = 4;
const GET_RULE: u16 = 7;
const GET_GENERATION: u16 = 16;

const HEADER_BYTES: usize = 4;

/// A chain that the kernel has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainState {
    /// The family of its table.
    pub family: Family,
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// Where it is hooked in, and what it does with undecided packets; `None` for chains that are jumped to.
    pub base: Option<(Hook, Policy)>,
}

/// A rule that the kernel has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleState {
    /// The number that it can be deleted by.
    pub handle: u64,
    /// The note that is kept with it.
    pub comment: Option<String>,
}

/// The rules of this network namespace.
#[derive(Debug)]
pub struct Kernel {
    socket: Socket,
}

impl Kernel {
    /// Opens a view on the rules of the thread's network namespace.
    pub fn open() -> Result<Self, OpenError> {
        Ok(Self { socket: Socket::open(SocketFamily::Netfilter)? })
    }

    /// Whether the kernel has nf_tables: an error says why not.
    pub fn check(&mut self) -> Result<(), RequestError> {
        self.socket.ask(Request::new(message(GET_GENERATION), 0, &header(0, 0), "use nf_tables")).map(drop)
    }

    /// The names of all tables of families that we know.
    pub fn tables(&mut self) -> Result<Vec<(Family, String)>, RequestError> {
        let request = Request::new(message(GET_TABLE), DUMP, &header(0, 0), "list nftables tables");
        let table = |reply: &Reply| Some((family(reply)?, text(reply, 1)?));
        self.list(&request, NEW_TABLE, table)
    }

    /// All chains of families that we know.
    pub fn chains(&mut self) -> Result<Vec<ChainState>, RequestError> {
        let request = Request::new(message(GET_CHAIN), DUMP, &header(0, 0), "list nftables chains");
        self.list(&request, NEW_CHAIN, ChainState::read)
    }

    /// The rules of one chain, first to last.
    pub fn rules(&mut self, family: Family, table: &str, chain: &str) -> Result<Vec<RuleState>, RequestError> {
        let purpose = format!("list rules of chain {family} {table} {chain}");
        let mut request = Request::new(message(GET_RULE), DUMP, &header(family.number(), 0), purpose);
        request.text(1, table).text(2, chain);
        // Kernels before 4.18 ignore the filter; the names are checked again.
        let of_chain = |reply: &Reply| {
            let wanted = text(reply, 1).as_deref() == Some(table) && text(reply, 2).as_deref() == Some(chain);
            wanted.then(|| RuleState::read(reply)).flatten()
        };
        self.list(&request, NEW_RULE, of_chain)
    }

    /// What the kernel sends for a listing.
    pub(crate) fn replies(&mut self, request: &Request) -> Result<Vec<Reply>, RequestError> {
        self.socket.dump(request)
    }

    fn list<T>(
        &mut self,
        request: &Request,
        kind: u16,
        read: impl Fn(&Reply) -> Option<T>,
    ) -> Result<Vec<T>, RequestError> {
        let replies = self.socket.dump(request)?;
        Ok(replies.iter().filter(|reply| reply.kind == message(kind)).filter_map(read).collect())
    }
}

impl ChainState {
    fn read(reply: &Reply) -> Option<Self> {
        let hook = reply.attributes(HEADER_BYTES).find(|attribute| attribute.kind == 4);
        let hook =
            hook.and_then(|hook| Hook::of_number(hook.nested().find(|inner| inner.kind == 1)?.network_number()?));
        let policy = reply.attributes(HEADER_BYTES).find(|attribute| attribute.kind == 5);
        let policy = match policy.and_then(|policy| policy.network_number()) {
            Some(0) => Policy::Drop,
            _ => Policy::Accept,
        };
        Some(Self {
            family: family(reply)?,
            table: text(reply, 1)?,
            name: text(reply, 3)?,
            base: hook.map(|hook| (hook, policy)),
        })
    }
}

impl RuleState {
    fn read(reply: &Reply) -> Option<Self> {
        let of_kind = |kind| reply.attributes(HEADER_BYTES).find(|attribute| attribute.kind == kind);
        Some(Self { handle: of_kind(3)?.network_long()?, comment: comment(reply) })
    }
}

/// The note that is kept with a rule.
pub(crate) fn comment(reply: &Reply) -> Option<String> {
    let userdata = reply.attributes(HEADER_BYTES).find(|attribute| attribute.kind == 7)?;
    comment_of(userdata.value)
}

fn family(reply: &Reply) -> Option<Family> {
    Family::of_number(*reply.payload.first()?)
}

fn text(reply: &Reply, kind: u16) -> Option<String> {
    let attribute = reply.attributes(HEADER_BYTES).find(|attribute| attribute.kind == kind)?;
    attribute.text().map(str::to_owned)
}
