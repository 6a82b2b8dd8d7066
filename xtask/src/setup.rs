//! The newcomer's first command.

use std::process::Command;

use anyhow::Result;

use crate::process::{run, say};
use crate::programs::{self, Profile};

/// Builds what users run, and runs a first container with it, in an engine of its own that is gone afterwards.
fn run_first_container(programs: &std::path::Path) -> Result<()> {
    let scratch = crate::process::workspace().join("target/first-run");
    let conex = programs.join("conex");
    let host = format!("unix://{}/run/conex.sock", scratch.display());
    let mut daemon = Command::new(&conex)
        .args(["daemon", "--name", "conexfirst"])
        .arg("--root")
        .arg(scratch.join("root"))
        .arg("--run")
        .arg(scratch.join("run"))
        .args(["-H", &host])
        .spawn()?;
    let hello = wait_until_ready(&conex, &host)
        .and_then(|()| run(Command::new(&conex).args(["-H", &host, "run", "--rm", "hello"])));
    run(Command::new("kill").arg(daemon.id().to_string()))?;
    daemon.wait()?;
    std::fs::remove_dir_all(&scratch)?;
    hello
}

/// Installs, builds, runs.
pub(crate) fn run_all() -> Result<()> {
    let programs = programs::build(Profile::Release)?;
    run_first_container(&programs)?;
    say(&format!("conex is built: {}/conex (put that folder on your PATH)", programs.display()));
    Ok(())
}

fn wait_until_ready(conex: &std::path::Path, host: &str) -> Result<()> {
    for _ in 0..100 {
        let answer = Command::new(conex).args(["-H", host, "version"]).output()?;
        if answer.status.success() {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    anyhow::bail!("the engine did not answer at {host} within five seconds")
}
