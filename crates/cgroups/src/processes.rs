//! Who is in a cgroup, and signals to all of them.

use std::time::Duration;

use rustix::io::Errno;
use rustix::process::Pid;

use crate::controller::{Controller, Version};
use crate::directory::{Directory, FileError};
use crate::group::{Cgroup, PROCS};

const SIGKILL: i32 = 9;
/// How often processes are listed and signalled anew where forks cannot be stopped by freezing.
const KILL_ROUNDS_MAX: usize = 1000;

impl Cgroup {
    /// The processes in the cgroup and below it, as pids of this process's namespace.
    pub fn pids(&self) -> Result<Vec<i32>, FileError> {
        let mut pids = Vec::new();
        if let Some(directory) = self.tracking_directory() {
            collect_pids(directory, &mut pids)?;
        }
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    /// Says whether any process is in the cgroup or below it.
    pub fn is_populated(&self) -> Result<bool, FileError> {
        Ok(!self.pids()?.is_empty())
    }

    /// Sends a signal to every process in the cgroup and below it; none that is forked meanwhile escapes.
    pub fn signal_all(&self, signal: i32) -> Result<(), FileError> {
        if signal == SIGKILL {
            return self.kill_all();
        }
        let is_frozen = self.freeze_for_signal();
        let sent = self.signal_once(signal);
        if is_frozen {
            self.write_thawed()?;
        }
        sent.map(drop)
    }

    /// Kills every process in the cgroup and below it, frozen ones too.
    pub fn kill_all(&self) -> Result<(), FileError> {
        match self.v2_group().map(|group| group.directory.write("cgroup.kill", "1")) {
            // The kernel kills frozen v2 cgroups too, but not those that v1's freezer holds.
            Some(Ok(())) => return self.write_thawed(),
            // `cgroup.kill` came with Linux 5.14.
            Some(Err(error)) if !error.is_missing() => return Err(error),
            Some(Err(_)) | None => {}
        }
        if self.freeze_for_signal() {
            let sent = self.signal_once(SIGKILL);
            self.write_thawed()?;
            return sent.map(drop);
        }
        self.kill_in_rounds()
    }

    /// Kills until nobody is left: what is forked between the listing and the signal is found in the next round.
    fn kill_in_rounds(&self) -> Result<(), FileError> {
        self.write_thawed()?;
        for _ in 0..KILL_ROUNDS_MAX {
            if self.signal_once(SIGKILL)? == 0 {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// A container that was paused before stays paused after an ordinary signal, so it says `false` then.
    fn freeze_for_signal(&self) -> bool {
        !matches!(self.freezer_state(), Ok(crate::FreezerState::Frozen)) && self.freeze().is_ok()
    }

    fn signal_once(&self, signal: i32) -> Result<usize, FileError> {
        let pids = self.pids()?;
        for pid in pids.iter().filter_map(|pid| Pid::from_raw(*pid)) {
            match linux::signal::send(pid, signal) {
                // It ended by itself.
                Ok(()) | Err(Errno::SRCH) => {}
                Err(errno) => {
                    return Err(FileError::Write {
                        path: format!("/proc/{}", pid.as_raw_nonzero()).into(),
                        value: format!("signal {signal}"),
                        source: errno.into(),
                    });
                }
            }
        }
        Ok(pids.len())
    }

    /// The hierarchy to list processes in: any would do, but a container can leave v1's ones it may write to.
    fn tracking_directory(&self) -> Option<&Directory> {
        let preferred = [Controller::Freezer, Controller::Devices, Controller::Pids];
        self.groups()
            .iter()
            .find(|group| {
                group.version == Version::V1
                    && preferred.iter().any(|controller| group.controllers.contains(*controller))
            })
            .or_else(|| self.v2_group())
            .or_else(|| self.groups().first())
            .map(|group| &group.directory)
    }
}

fn collect_pids(directory: &Directory, pids: &mut Vec<i32>) -> Result<(), FileError> {
    match directory.read(PROCS) {
        Ok(content) => pids.extend(content.lines().filter_map(|line| line.parse::<i32>().ok())),
        // A removed cgroup is an empty one; a threaded one lists its processes at the domain above it.
        Err(error) if error.is_missing() || error.errno() == Some(Errno::OPNOTSUPP) => return Ok(()),
        Err(error) => return Err(error),
    }
    for name in directory.children().unwrap_or_default() {
        if let Ok(child) = directory.open_child(&name) {
            collect_pids(&child, pids)?;
        }
    }
    Ok(())
}
