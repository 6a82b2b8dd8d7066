//! The news that a cgroup ran out of memory.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::EventfdFlags;
use rustix::fs::inotify;

use crate::controller::{Controller, Version};
use crate::directory::{Directory, FileError};
use crate::group::{Cgroup, Group};

const V1_CONTROL: &str = "memory.oom_control";
const V1_EVENTS: &str = "cgroup.event_control";
const V2_EVENTS: &str = "memory.events";

/// A descriptor that becomes readable when the cgroup runs out of memory, and also when the cgroup is removed.
///
/// It only wakes: [`Cgroup::oom_kills`] tells what happened.
#[derive(Debug)]
pub struct OomWatch {
    fd: OwnedFd,
}

impl Cgroup {
    /// How many processes of the cgroup the kernel has killed for lack of memory; zero without a memory controller.
    pub fn oom_kills(&self) -> Result<u64, FileError> {
        let Some(group) = self.group_for(Controller::Memory) else { return Ok(0) };
        let file = oom_file(group.version);
        let content = group.directory.read_if_exists(file)?.unwrap_or_default();
        Ok(keyed_number(&content, "oom_kill").unwrap_or(0))
    }

    /// Watches for lack of memory; `None` without a memory controller.
    pub fn watch_oom(&self) -> Result<Option<OomWatch>, FileError> {
        let Some(group) = self.group_for(Controller::Memory) else { return Ok(None) };
        OomWatch::new(group).map(Some)
    }
}

impl OomWatch {
    fn new(group: &Group) -> Result<Self, FileError> {
        let file = oom_file(group.version);
        let fd = match group.version {
            Version::V1 => register_v1(&group.directory),
            Version::V2 => register_v2(&group.directory),
        };
        let fd = fd.map_err(|errno| group.directory.read_error(file, errno.into()))?;
        Ok(Self { fd })
    }

    /// Takes what made the descriptor readable, so that it waits for the next time.
    pub fn drain(&self) {
        let mut buffer = [0; 4096];
        // Not readable is the end that is wanted.
        while rustix::io::read(&self.fd, &mut buffer).is_ok_and(|length| length > 0) {}
    }
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn oom_file(version: Version) -> &'static str {
    match version {
        Version::V1 => V1_CONTROL,
        Version::V2 => V2_EVENTS,
    }
}

/// v1: an eventfd that the kernel is told of by `<eventfd> <fd of memory.oom_control>`.
fn register_v1(directory: &Directory) -> rustix::io::Result<OwnedFd> {
    use std::os::fd::AsRawFd;
    let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let control = directory.open_for_read(V1_CONTROL)?;
    let events = directory.open_for_write(V1_EVENTS)?;
    let line = format!("{} {}", event.as_raw_fd(), control.as_raw_fd());
    crate::directory::write_once(events.as_fd(), &line)?;
    Ok(event)
}

/// v2: inotify, because unlike a poll of the file it makes a descriptor that any event loop takes.
fn register_v2(directory: &Directory) -> rustix::io::Result<OwnedFd> {
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    inotify::add_watch(&watch, directory.path().join(V2_EVENTS), inotify::WatchFlags::MODIFY)?;
    Ok(watch)
}

/// The number behind a key, where each line is a key and a number.
pub(crate) fn keyed_number(content: &str, key: &str) -> Option<u64> {
    content.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim_ascii().parse().ok())
}
