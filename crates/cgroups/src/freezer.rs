//! Freezing and thawing.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};

use crate::controller::{Controller, Version};
use crate::directory::{Directory, FileError};
use crate::group::Cgroup;

const V1_STATE: &str = "freezer.state";
const V2_STATE: &str = "cgroup.freeze";
const V2_EVENTS: &str = "cgroup.events";
/// v1's freezer cannot keep up with a fork bomb: it is asked again and again.
const V1_ROUNDS_MAX: usize = 1000;
const V1_THAW_EVERY: usize = 50;
const V1_THAW_PAUSE: Duration = Duration::from_millis(10);
const V2_TIMEOUT: Duration = Duration::from_secs(10);

/// Whether a cgroup's processes run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FreezerState {
    /// They run.
    Thawed,
    /// Some of them already stand still.
    Freezing,
    /// They stand still.
    Frozen,
}

/// Why a cgroup cannot be frozen or thawed.
#[derive(Debug, thiserror::Error)]
pub enum FreezeError {
    /// The machine's freezer is not mounted, or the kernel is older than 5.2.
    #[error("the freezer cgroup controller is not available")]
    Unavailable,
    /// The kernel does not get all processes to stand still; they were thawed again.
    #[error("the processes of the cgroup do not freeze")]
    Timeout,
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
}

impl Cgroup {
    /// Stops all processes of the cgroup and returns when they stand still.
    pub fn freeze(&self) -> Result<(), FreezeError> {
        let frozen = match self.freezer()? {
            (Version::V1, directory) => freeze_v1(directory),
            (Version::V2, directory) => freeze_v2(directory),
        };
        if frozen.is_err() {
            // The error that is reported is the first one.
            let _ = self.write_thawed();
        }
        frozen
    }

    /// Lets all processes of the cgroup run again.
    pub fn thaw(&self) -> Result<(), FreezeError> {
        self.freezer()?;
        Ok(self.write_thawed()?)
    }

    /// Whether the cgroup's processes run.
    pub fn freezer_state(&self) -> Result<FreezerState, FreezeError> {
        let (version, directory) = self.freezer()?;
        Ok(match version {
            Version::V1 => read_v1(directory)?,
            Version::V2 => read_v2(directory)?,
        })
    }

    /// Thaws where there is a freezer, and is content where there is none.
    pub(crate) fn write_thawed(&self) -> Result<(), FileError> {
        let written = match self.freezer() {
            Ok((Version::V1, directory)) => directory.write(V1_STATE, "THAWED"),
            Ok((Version::V2, directory)) => directory.write(V2_STATE, "0"),
            Err(_) => return Ok(()),
        };
        match written {
            // A cgroup that was removed holds nobody.
            Err(error) if !error.is_missing() => Err(error),
            _ => Ok(()),
        }
    }

    fn freezer(&self) -> Result<(Version, &Directory), FreezeError> {
        let group = self.group_for(Controller::Freezer).ok_or(FreezeError::Unavailable)?;
        Ok((group.version, &group.directory))
    }
}

fn freeze_v1(directory: &Directory) -> Result<(), FreezeError> {
    for round in 1..=V1_ROUNDS_MAX {
        // The numbers are runc's: an occasional thaw lets newcomers finish what they do and be caught.
        if round % V1_THAW_EVERY == 0 {
            directory.write(V1_STATE, "THAWED")?;
            std::thread::sleep(V1_THAW_PAUSE);
        }
        directory.write(V1_STATE, "FROZEN")?;
        if round % (V1_THAW_EVERY / 2) == 0 {
            std::thread::sleep(Duration::from_micros(10));
        }
        if read_v1(directory)? == FreezerState::Frozen {
            return Ok(());
        }
    }
    Err(FreezeError::Timeout)
}

fn freeze_v2(directory: &Directory) -> Result<(), FreezeError> {
    // Opened before the write, so that no event is missed.
    let events = directory.open_for_read(V2_EVENTS).map_err(|errno| directory.read_error(V2_EVENTS, errno.into()))?;
    match directory.write(V2_STATE, "1") {
        Err(error) if error.is_missing() => return Err(FreezeError::Unavailable),
        other => other?,
    }
    let deadline = Instant::now() + V2_TIMEOUT;
    while read_v2(directory)? != FreezerState::Frozen {
        let Some(left) = deadline.checked_duration_since(Instant::now()) else { return Err(FreezeError::Timeout) };
        wait_for_event(&events, left.min(Duration::from_millis(100)));
    }
    Ok(())
}

/// Waits until `cgroup.events` changes; a missed event costs only the timeout.
fn wait_for_event(events: &impl AsFd, timeout: Duration) {
    let timeout = rustix::event::Timespec { tv_sec: 0, tv_nsec: i64::from(timeout.subsec_nanos()) };
    let _ = rustix::event::poll(&mut [PollFd::new(events, PollFlags::PRI)], Some(&timeout));
}

fn read_v1(directory: &Directory) -> Result<FreezerState, FileError> {
    let content = directory.read(V1_STATE)?;
    match content.trim_ascii() {
        "THAWED" => Ok(FreezerState::Thawed),
        "FREEZING" => Ok(FreezerState::Freezing),
        "FROZEN" => Ok(FreezerState::Frozen),
        _ => Err(directory.content_error(V1_STATE, content)),
    }
}

fn read_v2(directory: &Directory) -> Result<FreezerState, FileError> {
    match directory.read_if_exists(V2_STATE)?.as_deref().map(str::trim_ascii) {
        None | Some("0") => return Ok(FreezerState::Thawed),
        Some(_) => {}
    }
    let events = directory.read(V2_EVENTS)?;
    let is_frozen = events.lines().any(|line| line == "frozen 1");
    Ok(if is_frozen { FreezerState::Frozen } else { FreezerState::Freezing })
}
