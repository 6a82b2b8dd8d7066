//! Docker's HTTP API over the engine.
//!
//! A request travels: [`listener`] accepts, [`connection`] speaks HTTP, [`dispatch`] finds the handler, a handler in [`handlers`] maps
//! Docker's JSON to the engine's types ([`map`]), calls the engine and maps what it says back. Attach and exec end the HTTP part of a
//! connection: the naked socket, with the bytes that came too early, goes to the engine, which hands it to the container's monitor.
//!
//! HTTP's status codes and Docker's JSON are known here and nowhere below.

mod audit;
mod body;
mod connection;
mod dispatch;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod gone;
mod handlers;
mod hijack;
mod identity;
mod listener;
mod map;
mod metrics;
mod reply;
mod request;
mod request_line;
mod scope;
mod serve;
mod tap;
mod websocket;

pub use audit::AuditLog;
pub use listener::{Address, AddressError, ListenError, Listener, SocketGroup, TcpSecurity};
pub use scope::{Scope, ScopeError, ScopedSocket};
pub use serve::{Face, Front, ServerOptions, serve};
