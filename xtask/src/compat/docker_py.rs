//! docker-py: its integration tests under pytest.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::report::{Outcome, Verdict};
use super::world::World;
use crate::process::{run, say};

/// What the suite imports.
const PACKAGES: [&str; 7] = [
    "pytest==7.4.2",
    "pytest-timeout==2.1.0",
    "requests>=2.26",
    "urllib3>=1.26",
    "paramiko>=2.4.3",
    "websocket-client",
    "setuptools",
];
/// Tests of what only a swarm or a plugin has.
const LEFT_OUT: [&str; 8] = [
    "api_config_test.py",
    "api_plugin_test.py",
    "api_secret_test.py",
    "api_service_test.py",
    "api_swarm_test.py",
    "models_nodes_test.py",
    "models_services_test.py",
    "models_swarm_test.py",
];
/// The version of the API that docker-py's own makefile asks for.
const API_VERSION: &str = "1.45";

/// The Python of an environment that has the suite's packages; made where it is missing.
pub(super) fn environment(folder: &Path) -> Result<PathBuf> {
    let environment = folder.join("python");
    let python = environment.join("bin/python");
    let mark = environment.join(".ready");
    if !mark.exists() {
        say(&format!("making a Python environment in {}", environment.display()));
        run(Command::new("python3").args(["-m", "venv"]).arg(&environment))?;
        run(Command::new(&python).args(["-m", "pip", "--quiet", "install"]).args(PACKAGES))?;
        std::fs::write(mark, "")?;
    }
    Ok(python)
}

/// Runs the suite and returns everything that it said.
fn say_all(world: &World, checkout: &Path, python: &Path, only: Option<&str>) -> Result<String> {
    let log = world.log("docker-py");
    let mut command = Command::new(python);
    command.args(["-m", "pytest", "-p", "no:cacheprovider", "-q", "--tb=short", "-rA", "--timeout=120"]);
    command.args(LEFT_OUT.iter().map(|file| format!("--ignore=tests/integration/{file}")));
    command.args(only.map(|text| format!("-k={text}"))).arg("tests/integration").current_dir(checkout);
    command.env("DOCKER_HOST", world.address()).env("DOCKER_TEST_API_VERSION", API_VERSION);
    // Without this the last lines, which name each test and why it failed, are cut at 80 characters.
    command.env("CI", "true").env("PYTHONPATH", checkout).env("PYTHONDONTWRITEBYTECODE", "1");
    command.env("HOME", world.home()?);
    // A failed test is no failure of this task.
    let output = File::create(&log)?;
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    command.status().with_context(|| format!("cannot start {command:?}"))?;
    Ok(String::from_utf8_lossy(&std::fs::read(&log)?).into_owned())
}

/// Runs the suite and reads what it says.
pub(super) fn run_suite(world: &World, checkout: &Path, python: &Path, only: Option<&str>) -> Result<Outcome> {
    let text = say_all(world, checkout, python, only)?;
    Ok(Outcome::new("docker-py", world.engine, text.lines().filter_map(verdict).collect()))
}

/// Reads a line of pytest's summary.
fn verdict(line: &str) -> Option<Verdict> {
    let (word, rest) = line.split_once(' ')?;
    let (name, why) = rest.split_once(" - ").unwrap_or((rest, ""));
    let (name, why) = (name.trim_start_matches("tests/integration/").to_owned(), why.to_owned());
    match word {
        "PASSED" | "XPASS" => Some(Verdict::passed(name)),
        "FAILED" | "ERROR" if rest.contains("::") => Some(Verdict::failed(name, why)),
        "SKIPPED" | "XFAIL" => Some(Verdict::skipped(name, why)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::verdict;
    use crate::compat::report::Verdict;

    #[test]
    fn lines_of_the_summary_are_read() {
        let line = "FAILED tests/integration/a_test.py::T::test_x - docker.errors.APIError: 500 - x";
        let failed = Verdict::failed("a_test.py::T::test_x".into(), "docker.errors.APIError: 500 - x".into());
        assert_eq!(verdict(line), Some(failed));
        assert_eq!(verdict("PASSED tests/integration/a::b"), Some(Verdict::passed("a::b".into())));
        assert_eq!(verdict("ERROR    root:x.py:3 something logged"), None);
        assert_eq!(verdict("3 passed in 1s"), None);
    }
}
