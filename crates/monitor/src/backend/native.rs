//! The monitor itself runs the container, with the runtime library.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use cgroups::{Cgroup, OomWatch};
use monitor_protocol as wire;
use monitor_protocol::{Exec, Failure, FailureKind, Launch, Rootfs, Stats};
use oci::runtime::{ConsoleSize, LinuxNamespaceType, LinuxResources, Process, Spec};
use runtime::{
    CgroupAccess, CgroupManager, CreateRequest, ExecRequest, Identity, Keyring, Pivot, Running, SeccompFilter, Stdio,
};
use rustix::fs::{Mode, OFlags};
use rustix::process::Signal;

use super::{Started, Surroundings, stats};
use crate::failure;
use crate::stdio::ProcessEnds;

/// A container that runs in this kernel, made by the library.
#[derive(Debug)]
pub(crate) struct Container {
    running: Running,
    seccomp: Option<SeccompFilter>,
    /// The root where it is a folder; an overlay's is held by `running`.
    folder: Option<PathBuf>,
    processes: Processes,
    /// Open from the first time that somebody asks for numbers.
    reader: Option<stats::Reader>,
    oom: Option<OomWatch>,
    oom_kills: u64,
}

/// What becomes of the container's other processes when the first one ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Processes {
    /// The kernel ends them: they are in a pid namespace of their own.
    EndWithInit,
    /// They go on.
    Outlive,
}

impl Container {
    /// Makes the container and starts it.
    pub(crate) fn launch(launch: &mut Launch, around: Surroundings<'_>) -> Result<(Container, Started), Failure> {
        refuse_late_hooks(&launch.spec)?;
        let process = launch.spec.process.as_mut().ok_or_else(|| failure::invalid("the container has no process"))?;
        set_console_size(process, &around.ends);
        let seccomp = launch.seccomp.take().map(filter);
        let mut running = runtime::create_and_start(CreateRequest {
            id: &launch.id,
            spec: &launch.spec,
            bundle: &launch.container_dir,
            rootfs: rootfs(&launch.rootfs),
            stdio: stdio(around.ends),
            network_namespace: around.network_namespace,
            user_namespace: around.user_namespace,
            seccomp: seccomp.clone(),
            identity: identity(&launch.identity),
            cgroup: match launch.cgroup_driver {
                wire::CgroupDriver::Files => CgroupManager::Files,
                wire::CgroupDriver::Systemd => CgroupManager::Systemd,
            },
            cgroup_access: CgroupAccess::Required,
            cgroup_host: around.cgroup_host,
            preserve_fds: 0,
            pivot: Pivot::PivotRoot,
            keyring: Keyring::New,
        })
        .map_err(failed)?;
        let started = Started { pid: running.pid.as_raw_nonzero().get(), console: running.console.take() };
        let folder = match &launch.rootfs {
            Rootfs::Directory { path } => Some(path.clone()),
            Rootfs::Overlay { .. } => None,
        };
        let processes = processes(&launch.spec);
        Ok((Container { running, seccomp, folder, processes, reader: None, oom: None, oom_kills: 0 }, started))
    }

    /// Starts another process.
    pub(crate) fn exec(&mut self, exec: &Exec, ends: ProcessEnds) -> Result<Started, Failure> {
        let mut process = exec.process.clone();
        set_console_size(&mut process, &ends);
        let request = ExecRequest {
            process: &process,
            stdio: stdio(ends),
            seccomp: self.seccomp.clone(),
            identity: identity(&exec.identity),
            preserve_fds: 0,
            sub_cgroup: None,
            keyring: Keyring::New,
        };
        let executed = runtime::exec(&self.running, request).map_err(failed)?;
        Ok(Started { pid: executed.pid.as_raw_nonzero().get(), console: executed.console })
    }

    pub(crate) fn kill_init(&mut self, signal: i32) -> Result<(), Failure> {
        self.running.signal(signal).map_err(failed)
    }

    pub(crate) fn kill_all(&mut self, signal: i32) -> Result<(), Failure> {
        self.running.signal_all(signal).map_err(failed)
    }

    pub(crate) fn pause(&mut self) -> Result<(), Failure> {
        self.running.pause().map_err(failed)
    }

    pub(crate) fn resume(&mut self) -> Result<(), Failure> {
        self.running.resume().map_err(failed)
    }

    pub(crate) fn update(&mut self, resources: &LinuxResources) -> Result<(), Failure> {
        // What the host has no place for was the engine's to warn of: it knows the host too.
        self.running.update(resources).map(drop).map_err(failed)
    }

    pub(crate) fn pids(&self) -> Result<Vec<i32>, Failure> {
        self.running.pids().map_err(failed)
    }

    pub(crate) fn stats(&mut self) -> Result<Stats, Failure> {
        let reader = match &mut self.reader {
            Some(reader) => reader,
            none => {
                let no_cgroup = || failure::not_running("the container has no cgroup");
                let cgroup = self.running.cgroup.as_ref().ok_or_else(no_cgroup)?;
                none.insert(stats::open(cgroup, self.running.pid.as_raw_nonzero().get())?)
            }
        };
        stats::read(reader)
    }

    pub(crate) fn rootfs(&self) -> Result<OwnedFd, Failure> {
        if let Some(mount) = &self.running.rootfs_mount {
            return mount.try_clone().map_err(|error| failure::other("rootfs", &error));
        }
        let folder = self.folder.as_deref().ok_or_else(|| failure::not_running("the root file system is gone"))?;
        open_folder(folder)
    }

    /// Begins to watch for lack of memory. Not part of the start: the count is right without it, only the news is later.
    pub(crate) fn watch(&mut self) {
        let cgroup = self.running.cgroup.as_ref();
        self.oom = cgroup.and_then(|cgroup| cgroup.watch_oom().ok().flatten());
    }

    pub(crate) fn oom_fd(&self) -> Option<BorrowedFd<'_>> {
        self.oom.as_ref().map(AsFd::as_fd)
    }

    /// How many processes the kernel has killed, as far as that was looked at.
    pub(crate) fn oom_kills(&self) -> u64 {
        self.oom_kills
    }

    pub(crate) fn take_oom(&mut self) -> bool {
        if let Some(watch) = &self.oom {
            watch.drain();
        }
        let kills = self.running.cgroup.as_ref().and_then(|cgroup| Cgroup::oom_kills(cgroup).ok()).unwrap_or(0);
        kills > std::mem::replace(&mut self.oom_kills, kills)
    }

    pub(crate) fn init_exited(&mut self) {
        if self.processes == Processes::Outlive {
            // Removing the cgroup tries again; this is so that they close the pipes.
            let _ = self.running.signal_all(Signal::KILL.as_raw());
        }
    }

    pub(crate) fn delete(self) -> Result<(), Failure> {
        self.running.destroy().map_err(failed)
    }
}

fn open_folder(folder: &Path) -> Result<OwnedFd, Failure> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(folder, flags, Mode::empty()).map_err(|errno| failure::other("rootfs", &errno))
}

/// Hooks after the start and the end are for the runtime's command line, which has a bundle to show them.
fn refuse_late_hooks(spec: &Spec) -> Result<(), Failure> {
    let late = spec.hooks.as_ref().is_some_and(|hooks| !hooks.poststart.is_empty() || !hooks.poststop.is_empty());
    match late {
        true => {
            Err(failure::new(FailureKind::Unsupported, "hook", "poststart and poststop hooks are not supported here"))
        }
        false => Ok(()),
    }
}

fn failed(error: runtime::Error) -> Failure {
    let kind = match error.kind {
        runtime::Kind::NotFound if error.stage == runtime::Stage::Operate => FailureKind::NotRunning,
        runtime::Kind::NotFound => FailureKind::NotFound,
        runtime::Kind::PermissionDenied | runtime::Kind::IsDirectory => FailureKind::PermissionDenied,
        runtime::Kind::Other => FailureKind::Other,
    };
    Failure { kind, stage: format!("{:?}", error.stage).to_lowercase(), message: error.message }
}

fn set_console_size(process: &mut Process, ends: &ProcessEnds) {
    let ProcessEnds::Terminal { size } = ends else {
        process.terminal = false;
        return;
    };
    process.terminal = true;
    if let Some(size) = size {
        process.console_size = Some(ConsoleSize { height: size.height.into(), width: size.width.into() });
    }
}

fn stdio(ends: ProcessEnds) -> Stdio {
    match ends {
        ProcessEnds::Fds(fds) => Stdio::Fds(fds),
        ProcessEnds::Terminal { .. } => Stdio::Terminal,
    }
}

fn filter(program: wire::SeccompProgram) -> SeccompFilter {
    SeccompFilter { program: program.instructions, flags: program.flags.into() }
}

fn identity(identity: &wire::Identity) -> Identity {
    match identity {
        wire::Identity::Numbers => Identity::Numbers,
        wire::Identity::Lookup { groups } => Identity::Lookup { groups: groups.clone() },
    }
}

pub(super) fn rootfs(rootfs: &Rootfs) -> runtime::Rootfs {
    match rootfs {
        Rootfs::Directory { path } => runtime::Rootfs::Directory { path: path.clone() },
        Rootfs::Overlay { lower, upper, work, options } => runtime::Rootfs::Overlay {
            lower: lower.clone(),
            upper: Some(upper.clone()),
            work: Some(work.clone()),
            options: options.clone(),
        },
    }
}

/// A pid namespace that is made for the container ends with its first process; one that is joined or inherited does not.
fn processes(spec: &Spec) -> Processes {
    let namespaces = spec.linux.as_ref().map_or(&[][..], |linux| &linux.namespaces);
    let own = |namespace: &oci::runtime::LinuxNamespace| {
        namespace.kind == LinuxNamespaceType::Pid && namespace.path.is_empty()
    };
    if namespaces.iter().any(own) { Processes::EndWithInit } else { Processes::Outlive }
}
