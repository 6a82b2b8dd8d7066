//! Running other programs and saying what is done.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How long a daemon may take to answer, or to end.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The folder of the workspace.
pub(crate) fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("xtask is a folder of the workspace").to_path_buf()
}

/// The cargo that runs this task, or the one at the PATH.
pub(crate) fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Runs a command to its end, with this process's streams, and fails where it fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {command:?}"))?;
    if !status.success() {
        bail!("{command:?}: {status}");
    }
    Ok(())
}

/// Whether a program is at the PATH.
pub(crate) fn found(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Prints one line for the developer on standard error.
pub(crate) fn say(text: &str) {
    // Nobody to tell where standard error is closed.
    let _ = writeln!(std::io::stderr(), "{}", text.trim_end());
}

/// Copies a program into a root, and the libraries that it is linked with to where it looks for them.
pub(crate) fn copy_with_libraries(root: &Path, from: &Path, to: &str) -> Result<()> {
    fs::copy(from, root.join(to)).with_context(|| format!("cannot copy {}", from.display()))?;
    let output = Command::new("ldd").arg(from).output()?;
    for line in String::from_utf8(output.stdout)?.lines() {
        let library = line.split_whitespace().find(|word| word.starts_with('/'));
        let Some(library) = library.map(Path::new) else { continue };
        let place = root.join(library.strip_prefix("/")?);
        if !place.exists() {
            fs::create_dir_all(place.parent().context("a library is in a folder")?)?;
            fs::copy(library, place)?;
        }
    }
    Ok(())
}

/// Ends a daemon, and waits for it.
pub(crate) fn end_daemon(daemon: &mut Child) -> Result<()> {
    if let Some(pid) = Pid::from_raw(daemon.id() as i32) {
        let _ = kill_process(pid, Signal::TERM);
    }
    let deadline = Instant::now() + PATIENCE;
    while daemon.try_wait()?.is_none() {
        if Instant::now() > deadline {
            daemon.kill()?;
            daemon.wait()?;
            bail!("a daemon did not end in {PATIENCE:?} and was killed");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
