//! Running the configuration's hooks: the container's state on standard input, a time limit, and an error that says why.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use oci::runtime::{Hook, State};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::MemfdFlags;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::error::{Error, Result, Stage};

/// How much of a hook's output goes into an error.
const MAX_OUTPUT_BYTES: u64 = 4096;

/// The six points of a container's life at which hooks run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Point {
    Prestart,
    CreateRuntime,
    CreateContainer,
    StartContainer,
    Poststart,
    Poststop,
}

impl Point {
    fn name(self) -> &'static str {
        match self {
            Point::Prestart => "prestart",
            Point::CreateRuntime => "createRuntime",
            Point::CreateContainer => "createContainer",
            Point::StartContainer => "startContainer",
            Point::Poststart => "poststart",
            Point::Poststop => "poststop",
        }
    }
}

/// Names of all points, for `features`.
pub(crate) const POINT_NAMES: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// Runs hooks in their order; the first failure ends it.
pub(crate) fn run(point: Point, hooks: &[Hook], state: &State) -> Result<()> {
    if hooks.is_empty() {
        return Ok(());
    }
    let state = serde_json::to_vec(state)
        .map_err(|error| Error::new(Stage::Hook, format!("cannot write the state: {error}")))?;
    for (index, hook) in hooks.iter().enumerate() {
        run_one(hook, &state).map_err(|cause| {
            Error::new(Stage::Hook, format!("error running {} hook #{index}: {cause}", point.name()))
        })?;
    }
    Ok(())
}

/// Runs all hooks whatever they return; the first failure is returned.
pub(crate) fn run_all(point: Point, hooks: &[Hook], state: &State) -> Option<Error> {
    let failures = hooks.iter().filter_map(|hook| run(point, std::slice::from_ref(hook), state).err());
    failures.fold(None, |first, error| first.or(Some(error)))
}

/// A hook failed.
#[derive(Debug, thiserror::Error)]
enum HookError {
    #[error("fork/exec {path}: {source}")]
    Start { path: String, source: std::io::Error },
    #[error("cannot watch the hook: {0}")]
    Watch(#[from] std::io::Error),
    #[error("hook timed out after {0} s")]
    TimedOut(i64),
    #[error("{status}, output: {output}")]
    Failed { status: ExitStatus, output: String },
}

fn run_one(hook: &Hook, state: &[u8]) -> std::result::Result<(), HookError> {
    let mut input = memory_file("conex-hook-state")?;
    input.write_all(state)?;
    input.seek(SeekFrom::Start(0))?;
    let mut output = memory_file("conex-hook-output")?;
    let mut child = command(hook, input, &output)?
        .spawn()
        .map_err(|source| HookError::Start { path: hook.path.clone(), source })?;
    let status = wait(&mut child, hook.timeout)?;
    if status.success() {
        return Ok(());
    }
    output.seek(SeekFrom::Start(0))?;
    let mut text = Vec::new();
    output.take(MAX_OUTPUT_BYTES).read_to_end(&mut text)?;
    Err(HookError::Failed { status, output: String::from_utf8_lossy(&text).trim_end().to_owned() })
}

fn command(hook: &Hook, input: File, output: &File) -> std::io::Result<Command> {
    let mut command = Command::new(&hook.path);
    if let Some((zeroth, rest)) = hook.args.split_first() {
        command.arg0(zeroth).args(rest);
    }
    let pairs = hook.env.iter().filter_map(|pair| pair.split_once('='));
    command.env_clear().envs(pairs).stdin(input).stdout(output.try_clone()?).stderr(Stdio::from(output.try_clone()?));
    Ok(command)
}

/// A file in memory: the hook reads and writes at its own pace, and nothing blocks.
fn memory_file(name: &str) -> std::io::Result<File> {
    Ok(File::from(rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC)?))
}

fn wait(child: &mut Child, timeout_s: Option<i64>) -> std::result::Result<ExitStatus, HookError> {
    if let Some(timeout_s) = timeout_s
        && !ends_within(child, timeout_s)?
    {
        child.kill()?;
        child.wait()?;
        return Err(HookError::TimedOut(timeout_s));
    }
    Ok(child.wait()?)
}

fn ends_within(child: &Child, timeout_s: i64) -> std::io::Result<bool> {
    let Some(pid) = Pid::from_raw(child.id() as i32) else { return Ok(true) };
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    let limit = Duration::from_secs(timeout_s.max(0) as u64);
    let limit = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: 0 };
    loop {
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit)) {
            Err(linux::Errno::INTR) => {}
            other => return Ok(other? > 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci::runtime::Status;

    fn state() -> State {
        State {
            oci_version: "1.3.0".to_owned(),
            id: "hooked".to_owned(),
            status: Status::Creating,
            pid: Some(1),
            bundle: "/b".to_owned(),
            annotations: Default::default(),
        }
    }

    fn shell(script: &str, timeout: Option<i64>) -> Hook {
        let args = ["sh", "-c", script].map(str::to_owned).to_vec();
        Hook { path: "/bin/sh".to_owned(), args, env: vec!["KEY=value".to_owned()], timeout }
    }

    #[test]
    fn the_state_comes_on_standard_input() {
        let script = r#"test "$KEY" = value && test -z "$HOME" && grep -q '"id":"hooked"'"#;
        run(Point::Poststart, &[shell(script, None)], &state()).unwrap();
    }

    #[test]
    fn the_first_failure_ends_it_and_is_told() {
        let error = run(Point::Prestart, &[shell("echo why; exit 3", None), shell("kill -9 $PPID", None)], &state());
        let message = error.unwrap_err().message;
        assert!(message.starts_with("error running prestart hook #0: ") && message.contains("why"), "{message}");
    }

    #[test]
    fn a_slow_hook_is_killed() {
        let error = run(Point::Prestart, &[shell("sleep 30", Some(1))], &state()).unwrap_err();
        assert!(error.message.contains("timed out after 1 s"), "{}", error.message);
    }
}
