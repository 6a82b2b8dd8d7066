//! Rulesets as values, and the netlink transaction that installs them.
//!
//! ```text
//! Table { chains, sets } ──Display──▶ what `nft list` would print     (logs, tests)
//!        │
//!        └─Transaction::replace──▶ one batch of messages ──commit──▶ kernel: all of it or nothing
//! ```
//!
//! A table is always installed whole: deleted and made again in one transaction, so that no packet sees half a ruleset and
//! no rule of an earlier version stays behind. Only the expressions that Conex needs exist.

mod encode;
mod inspect;
mod ruleset;
mod text;
mod transaction;
mod walk;

pub use inspect::{ChainState, Kernel, RuleState};
pub use ruleset::{
    Base, Chain, ChainKind, Data, Element, Family, Field, Hook, Interface, Keyed, Match, Nat, Polarity, Policy,
    Protocol, Rule, Set, Side, State, Statement, Table, Verdict,
};
pub use transaction::{Transaction, TransactionError};
pub use walk::{Fate, Packet};
