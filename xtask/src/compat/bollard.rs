//! bollard: its integration tests under cargo.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::report::{Outcome, Verdict};
use super::world::World;
use crate::process::{cargo, run};

/// Builds the tests.
pub(super) fn build(checkout: &Path, folder: &Path) -> Result<()> {
    run(test_command(checkout, folder).args(["--no-run", "--quiet"]))
}

fn test_command(checkout: &Path, folder: &Path) -> Command {
    let mut command = cargo();
    command.args(["test", "--tests", "--no-fail-fast"]).current_dir(checkout);
    // Debug information doubles the time of the build and is of no use here.
    command.env("CARGO_TARGET_DIR", folder.join("bollard")).env("CARGO_PROFILE_DEV_DEBUG", "0");
    command
}

/// Runs the suite, one test after the other as its own makers do, and reads what it says.
pub(super) fn run_suite(world: &World, checkout: &Path, only: Option<&str>) -> Result<Outcome> {
    let log = world.log("bollard");
    let mut command = test_command(checkout, &world.folder);
    command.env("DOCKER_HOST", world.address()).env("REGISTRY_PASSWORD", "none").env("CARGO_NET_OFFLINE", "true");
    command.args(only).args(["--", "--test-threads=1"]);
    let output = File::create(&log)?;
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    // A failed test is no failure of this task.
    command.status().with_context(|| format!("cannot start {command:?}"))?;
    let text = String::from_utf8_lossy(&std::fs::read(&log)?).into_owned();
    Ok(Outcome::new("bollard", world.engine, verdicts(&text)))
}

/// Reads the harness's lines, and for each failure what the test said last.
fn verdicts(text: &str) -> Vec<Verdict> {
    let read = |line: &str| {
        let (name, word) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
        // What the tests themselves print may stand between.
        let name = name.split_whitespace().next()?.to_owned();
        match word {
            "ok" => Some(Verdict::passed(name)),
            "FAILED" => Some(Verdict::failed(name.clone(), reason(text, &name))),
            _ if word.starts_with("ignored") => Some(Verdict::skipped(name, word.to_owned())),
            _ => None,
        }
    };
    // Its unit tests ask no engine.
    text.lines().filter_map(read).filter(|verdict| !verdict.name.contains("::")).collect()
}

fn reason(text: &str, name: &str) -> String {
    let mut lines = text.lines().skip_while(|line| *line != format!("---- {name} stdout ----"));
    let panicked = lines.by_ref().skip(1).find(|line| line.contains("panicked at"));
    let message = lines.next().unwrap_or_default();
    format!("{} {message}", panicked.and_then(|line| line.split("panicked at ").nth(1)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::verdicts;
    use crate::compat::report::Verdict;

    #[test]
    fn the_harness_is_read() {
        let text = "test a ... ok\ntest b ... FAILED\ntest c::unit ... ok\n\n---- b stdout ----\n\nthread 'b' panicked at tests/x.rs:1:2:\nno such image\n";
        let failed = Verdict::failed("b".into(), "tests/x.rs:1:2: no such image".into());
        assert_eq!(verdicts(text), [Verdict::passed("a".into()), failed]);
    }
}
