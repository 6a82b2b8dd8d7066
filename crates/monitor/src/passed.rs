//! The descriptors that came with a request.

use std::os::fd::OwnedFd;

use monitor_protocol::{Attach, Failure, FdIndex};

use crate::failure;

/// Descriptors, each to be taken once.
#[derive(Debug)]
pub(crate) struct PassedFds(Vec<Option<OwnedFd>>);

impl PassedFds {
    pub(crate) fn new(fds: Vec<OwnedFd>) -> PassedFds {
        PassedFds(fds.into_iter().map(Some).collect())
    }

    /// The descriptor at a place.
    pub(crate) fn take(&mut self, index: FdIndex) -> Result<OwnedFd, Failure> {
        let slot = self.0.get_mut(usize::from(index.0));
        slot.and_then(Option::take).ok_or_else(|| failure::invalid(format!("there is no descriptor {}", index.0)))
    }

    /// The sockets of clients, each with what it wants.
    pub(crate) fn take_clients(&mut self, attaches: Vec<Attach>) -> Result<Vec<(Attach, OwnedFd)>, Failure> {
        attaches.into_iter().map(|attach| self.take(attach.socket).map(|socket| (attach, socket))).collect()
    }
}
