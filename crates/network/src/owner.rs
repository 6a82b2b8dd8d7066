//! Network namespaces that belong to a container's root instead of the host's.
//!
//! Who may configure a network namespace, bind its low ports and mount its sysfs is decided by the user namespace in which it was made.

use std::fmt::Write as _;
use std::fs::File;
use std::os::fd::OwnedFd;

use linux::clone::{CloneArgs, Cloned, clone3, exit_now};
use linux::{Errno, credentials, namespace};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use thiserror::Error;

/// One range of ids, and where it lies on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    /// The first id inside.
    pub inside: u32,
    /// The first id on the host.
    pub outside: u32,
    /// How many.
    pub size: u32,
}

/// The users and groups of a user namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Users.
    pub uids: Vec<IdRange>,
    /// Groups.
    pub gids: Vec<IdRange>,
}

/// Why there is no user namespace.
#[derive(Debug, Error)]
pub enum OwnerError {
    /// The kernel makes none.
    #[error("cannot create a user namespace: {0}")]
    Create(#[source] Errno),
    /// It does not take the mapping.
    #[error("cannot map the ids of a user namespace ({file}): {source}")]
    Map {
        /// Which of its files.
        file: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// Its descriptor cannot be had.
    #[error("cannot open a new namespace: {0}")]
    Open(#[source] std::io::Error),
}

/// A network namespace and the user namespace that it belongs to. No process stays in them.
#[derive(Debug)]
pub(crate) struct Owned {
    pub(crate) network: OwnedFd,
    pub(crate) user: OwnedFd,
}

impl Owner {
    /// Makes both namespaces.
    pub(crate) fn make(&self) -> Result<Owned, OwnerError> {
        let args = CloneArgs { namespaces: namespace::USER | namespace::NETWORK, ..CloneArgs::default() };
        match clone3(&args).map_err(OwnerError::Create)? {
            Cloned::Child => {
                // Nothing but system calls: other threads of the parent may have held any lock.
                let _the_parent_kills_it = credentials::set_parent_death_signal(Signal::KILL.as_raw());
                let minute = rustix::thread::Timespec { tv_sec: 60, tv_nsec: 0 };
                let _until_killed = rustix::thread::nanosleep(&minute);
                exit_now(0)
            }
            Cloned::Parent(child) => {
                let made = self.map_and_open(child.pid);
                let _it_may_have_ended = kill_process(child.pid, Signal::KILL);
                while let Err(Errno::INTR) = waitpid(Some(child.pid), WaitOptions::empty()) {}
                made
            }
        }
    }

    fn map_and_open(&self, pid: Pid) -> Result<Owned, OwnerError> {
        let folder = format!("/proc/{}", pid.as_raw_nonzero());
        for (file, ranges) in [("gid_map", &self.gids), ("uid_map", &self.uids)] {
            let failed = |source| OwnerError::Map { file, source };
            std::fs::write(format!("{folder}/{file}"), text(ranges)).map_err(failed)?;
        }
        let open = |kind: &str| File::open(format!("{folder}/ns/{kind}")).map_err(OwnerError::Open);
        Ok(Owned { network: open("net")?.into(), user: open("user")?.into() })
    }
}

fn text(ranges: &[IdRange]) -> String {
    ranges.iter().fold(String::new(), |mut text, range| {
        let _infallible = writeln!(text, "{} {} {}", range.inside, range.outside, range.size);
        text
    })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use linux::namespace;

    use super::{IdRange, Owner};

    #[test]
    fn a_network_belongs_to_its_users() {
        let ids = vec![IdRange { inside: 0, outside: 300_000, size: 10 }];
        let owned = Owner { uids: ids.clone(), gids: ids }.make().unwrap();
        assert_eq!(namespace::kind_of(owned.network.as_fd()).unwrap(), namespace::NETWORK);
        assert_eq!(namespace::kind_of(owned.user.as_fd()).unwrap(), namespace::USER);
    }
}
