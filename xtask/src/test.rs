//! Every test and every lint, in one command.

use anyhow::Result;

use crate::process::{cargo, run};
use crate::programs::{self, Profile};
use crate::{lint, packages};

/// Runs the tests whose names match one of the filters, or, without filters, all tests and the lints.
pub(crate) fn run_all(filters: &[String]) -> Result<()> {
    packages::for_tests()?;
    packages::plugins()?;
    packages::cargo_tool("cargo-nextest")?;
    let programs = programs::build(Profile::Debug)?;
    let mut nextest = cargo();
    nextest.args(["nextest", "run", "--workspace"]).args(filters).env("CONEX_PROGRAMS", &programs);
    if !filters.is_empty() {
        return run(&mut nextest);
    }
    nextest.arg("--no-fail-fast");
    lint::run_all()?;
    run(&mut nextest)
}
