//! The configuration's seccomp filter: compiling it, and handing its listener over.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use linux::scm;
use oci::runtime::{ContainerProcessState, LinuxSeccomp, State};
use rustix::process::{Pid, PidfdGetfdFlags, pidfd_getfd};

use crate::error::{Context, Error, Result, Stage};
use crate::request::SeccompFilter;

/// Compiles a configuration's filter.
pub(crate) fn compile(configured: &LinuxSeccomp) -> Result<SeccompFilter> {
    let filter =
        seccomp::compile(configured).map_err(|error| Error::new(Stage::Seccomp, format!("seccomp: {error}")))?;
    if filter.has_listener && configured.listener_path.is_empty() {
        return Err(Error::new(Stage::Seccomp, "seccomp: SCMP_ACT_NOTIFY is used but no listenerPath is given"));
    }
    Ok(SeccompFilter { program: filter.program, flags: filter.flags })
}

/// Takes the listener out of init, where it is descriptor `number`, and sends it with the container's state to the socket that the
/// configuration names.
pub(crate) fn hand_over(
    pid: Pid,
    pidfd: &OwnedFd,
    number: i32,
    configured: &LinuxSeccomp,
    state: &State,
) -> Result<()> {
    let failed = |what: &str| format!("{what} {}", configured.listener_path);
    let listener: OwnedFd = pidfd_getfd(pidfd, number, PidfdGetfdFlags::empty())
        .context(Stage::Seccomp, || "cannot take the seccomp listener")?;
    let socket = UnixStream::connect(&configured.listener_path)
        .context(Stage::Seccomp, || failed("cannot connect to the seccomp agent at"))?;
    let message = ContainerProcessState {
        oci_version: state.oci_version.clone(),
        fds: vec!["seccompFd".to_owned()],
        pid: pid.as_raw_nonzero().get(),
        metadata: configured.listener_metadata.clone(),
        state: state.clone(),
    };
    let bytes = serde_json::to_vec(&message)
        .map_err(|error| Error::new(Stage::Seccomp, format!("cannot write the state: {error}")))?;
    let mut sent = scm::send_fds(socket.as_fd(), &bytes, &[listener.as_fd()])
        .context(Stage::Seccomp, || failed("cannot send to"))?;
    while sent < bytes.len() {
        sent +=
            scm::send_fds(socket.as_fd(), &bytes[sent..], &[]).context(Stage::Seccomp, || failed("cannot send to"))?;
    }
    Ok(())
}
