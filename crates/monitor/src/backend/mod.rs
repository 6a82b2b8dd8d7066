//! Who runs the container: this process with the runtime library, or another OCI runtime as a program.

mod native;
mod program;
mod stats;

pub(crate) use program::{RUN_FLAG, run_program};

use std::os::fd::{BorrowedFd, OwnedFd};

use monitor_protocol::{Exec, ExitMemory, Failure, Isolation, Launch, Stats};
use oci::runtime::LinuxResources;

use crate::stdio::ProcessEnds;

/// A process that was just started.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) pid: i32,
    /// The master of its terminal, if it has one.
    pub(crate) console: Option<OwnedFd>,
}

/// What a launch needs besides its message.
#[derive(Debug)]
pub(crate) struct Surroundings<'a> {
    /// The first process's standard streams.
    pub(crate) ends: ProcessEnds,
    /// The network namespace to join, in place of what the configuration says.
    pub(crate) network_namespace: Option<OwnedFd>,
    /// The user namespace to join.
    pub(crate) user_namespace: Option<OwnedFd>,
    /// The host's cgroup hierarchies, where they are known already.
    pub(crate) cgroup_host: Option<&'a cgroups::Host>,
}

/// A container that runs, or has run and is not cleaned up yet.
#[derive(Debug)]
pub(crate) enum Backend {
    Native(Box<native::Container>),
    Program(Box<program::Container>),
}

impl Backend {
    /// Makes the container and starts its first process.
    pub(crate) fn launch(launch: &mut Launch, around: Surroundings<'_>) -> Result<(Backend, Started), Failure> {
        match launch.isolation.clone() {
            Isolation::Native => {
                let (container, started) = native::Container::launch(launch, around)?;
                Ok((Backend::Native(Box::new(container)), started))
            }
            Isolation::Program { path, args, state_dir, bundle } => {
                let runtime = program::Runtime { path, args, state_dir, bundle };
                let (container, started) = program::Container::launch(runtime, launch, around)?;
                Ok((Backend::Program(Box::new(container)), started))
            }
        }
    }

    /// Starts another process in the container.
    pub(crate) fn exec(&mut self, exec: &Exec, ends: ProcessEnds) -> Result<Started, Failure> {
        match self {
            Backend::Native(container) => container.exec(exec, ends),
            Backend::Program(container) => container.exec(exec, ends),
        }
    }

    /// Sends a signal to the first process.
    pub(crate) fn kill_init(&mut self, signal: i32) -> Result<(), Failure> {
        match self {
            Backend::Native(container) => container.kill_init(signal),
            Backend::Program(container) => container.kill_init(signal),
        }
    }

    /// Sends a signal to every process.
    pub(crate) fn kill_all(&mut self, signal: i32) -> Result<(), Failure> {
        match self {
            Backend::Native(container) => container.kill_all(signal),
            Backend::Program(container) => container.kill_all(signal),
        }
    }

    /// Freezes the container.
    pub(crate) fn pause(&mut self) -> Result<(), Failure> {
        match self {
            Backend::Native(container) => container.pause(),
            Backend::Program(container) => container.pause(),
        }
    }

    /// Lets it go on.
    pub(crate) fn resume(&mut self) -> Result<(), Failure> {
        match self {
            Backend::Native(container) => container.resume(),
            Backend::Program(container) => container.resume(),
        }
    }

    /// Changes its limits.
    pub(crate) fn update(&mut self, resources: &LinuxResources) -> Result<(), Failure> {
        match self {
            Backend::Native(container) => container.update(resources),
            Backend::Program(container) => container.update(resources),
        }
    }

    /// Its processes.
    pub(crate) fn pids(&self) -> Result<Vec<i32>, Failure> {
        match self {
            Backend::Native(container) => container.pids(),
            Backend::Program(container) => container.pids(),
        }
    }

    /// Its numbers.
    pub(crate) fn stats(&mut self) -> Result<Stats, Failure> {
        match self {
            Backend::Native(container) => container.stats(),
            Backend::Program(container) => container.stats(),
        }
    }

    /// Its root file system.
    pub(crate) fn rootfs(&self) -> Result<OwnedFd, Failure> {
        match self {
            Backend::Native(container) => container.rootfs(),
            Backend::Program(container) => container.rootfs(),
        }
    }

    /// What of the start could wait until the daemon had its answer.
    pub(crate) fn watch(&mut self) {
        match self {
            Backend::Native(container) => container.watch(),
            Backend::Program(container) => container.watch(),
        }
    }

    /// Readable when the kernel has killed one of its processes for want of memory.
    pub(crate) fn oom_fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Backend::Native(container) => container.oom_fd(),
            Backend::Program(container) => container.oom_fd(),
        }
    }

    /// What the memory of a container was that the kernel has killed for want of it.
    pub(crate) fn memory_at_exit(&mut self) -> Option<ExitMemory> {
        let (memory, kills) = match self {
            Backend::Native(container) => (container.stats().ok()?.memory, container.oom_kills()),
            Backend::Program(container) => (container.stats().ok()?.memory, container.oom_kills()),
        };
        Some(ExitMemory { limit_bytes: memory.limit_bytes, peak_bytes: memory.max_usage_bytes, kills })
    }

    /// Whether the kernel has killed one of its processes since the last call.
    pub(crate) fn take_oom(&mut self) -> bool {
        match self {
            Backend::Native(container) => container.take_oom(),
            Backend::Program(container) => container.take_oom(),
        }
    }

    /// The first process has ended: ends those that have outlived it.
    pub(crate) fn init_exited(&mut self) {
        match self {
            Backend::Native(container) => container.init_exited(),
            Backend::Program(container) => container.init_exited(),
        }
    }

    /// Gives back all that the container had of the host.
    pub(crate) fn delete(self) -> Result<(), Failure> {
        match self {
            Backend::Native(container) => container.delete(),
            Backend::Program(container) => container.delete(),
        }
    }
}
