//! Inside the peers' root: a hidden task that the benches start, which moves into that root and becomes a daemon of theirs or the
//! agent that runs their commands.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, anyhow, bail};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive, mount_change, unmount,
};
use rustix::process::{chdir, pivot_root};

use super::measure::{Times, run_at_once};
use super::world::loopback_up;

/// The hidden task's name.
pub(crate) const TASK: &str = "bench-inside";

/// Where the state folder appears inside.
pub(crate) const STATE: &str = "/state";

/// Said first where the starter's network is to be kept.
const SAME_NETWORK: &str = "--same-network";

/// `bench-inside [--same-network] ROOT STATE agent`, or with `PROGRAM ARGUMENT…` for `agent`.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let (network, arguments) = match arguments {
        [first, rest @ ..] if first == SAME_NETWORK => (Network::Same, rest),
        all => (Network::Own, all),
    };
    let [root, state, program, rest @ ..] = arguments else { bail!("{TASK} takes ROOT STATE PROGRAM") };
    enter(Path::new(root), Path::new(state), network)?;
    if program == "agent" {
        return serve();
    }
    Err(Command::new(program).args(rest).exec()).with_context(|| format!("cannot start {program}"))
}

/// Whose network is seen inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Network {
    /// One of its own.
    Own,
    /// The starter's.
    Same,
}

/// Leaves for a new mount namespace whose root is `root`, and for a network namespace.
///
/// By pivot_root, not chroot: runc pivots as well, and in a mere chroot its `exec` would then see the host's files.
fn enter(root: &Path, state: &Path, network: Network) -> Result<()> {
    linux::namespace::unshare(linux::namespace::MOUNT)?;
    if network == Network::Own {
        linux::namespace::unshare(linux::namespace::NETWORK)?;
        loopback_up()?;
    }
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    mount_bind(root, root)?;
    for folder in ["proc", "sys", "dev"] {
        mount_bind_recursive(Path::new("/").join(folder), root.join(folder))?;
    }
    // crun refuses, and runc misjudges, a hybrid hierarchy; without its unified part it is plain version 1.
    let _ = unmount(root.join("sys/fs/cgroup/unified"), UnmountFlags::DETACH);
    mount("tmpfs", root.join("run"), "tmpfs", MountFlags::empty(), None)?;
    let inside = root.join(&STATE[1..]);
    std::fs::create_dir_all(&inside)?;
    mount_bind(state, &inside)?;
    chdir(root)?;
    pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    mount_change("/", MountPropagationFlags::SHARED | MountPropagationFlags::REC)?;
    Ok(chdir("/")?)
}

/// The agent: a line of JSON with commands to run at once, a line of JSON with their times, until the input ends.
fn serve() -> Result<()> {
    for line in std::io::stdin().lines() {
        let commands: Vec<Vec<String>> = serde_json::from_str(&line?)?;
        let answer: Result<Times, String> = run_at_once(&commands).map_err(|error| format!("{error:#}"));
        let mut output = std::io::stdout();
        writeln!(output, "{}", serde_json::to_string(&answer)?)?;
        output.flush()?;
    }
    Ok(())
}

/// The agent as the bench holds it.
#[derive(Debug)]
pub(crate) struct Agent {
    process: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Agent {
    /// Starts an agent in the peers' root.
    pub(crate) fn start(root: &Path, state: &Path) -> Result<Self> {
        let mut process = command(root, state, ["agent"])?.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let input = process.stdin.take();
        let output = BufReader::new(process.stdout.take().context("the agent has no output")?);
        Ok(Self { process, input, output })
    }

    /// Runs commands there, all at once.
    pub(crate) fn run_at_once(&mut self, commands: &[Vec<String>]) -> Result<Times> {
        let input = self.input.as_mut().context("the agent has ended")?;
        writeln!(input, "{}", serde_json::to_string(commands)?)?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        let answer: Result<Times, String> = serde_json::from_str(&line).context("the agent ended")?;
        answer.map_err(|error| anyhow!(error))
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Ends it.
    pub(crate) fn end(&mut self) -> Result<()> {
        self.input = None;
        self.process.wait()?;
        Ok(())
    }
}

/// This program again, to do something in the peers' root.
pub(crate) fn command<'a>(root: &Path, state: &Path, what: impl IntoIterator<Item = &'a str>) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(TASK).arg(root).arg(state).args(what);
    Ok(command)
}

/// As [`command`], in the network of this process.
pub(crate) fn command_in_this_network<'a>(
    root: &Path,
    state: &Path,
    what: impl IntoIterator<Item = &'a str>,
) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args([TASK, SAME_NETWORK]).arg(root).arg(state).args(what);
    Ok(command)
}
