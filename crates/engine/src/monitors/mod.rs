//! The processes that own containers: started ahead of need, spoken to over a socket, found again after a restart.

mod connection;
mod pool;

pub(crate) use connection::{Connection, Incoming, MonitorError};
pub(crate) use pool::{Launched, Pool};
