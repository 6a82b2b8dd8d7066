//! Every test and every lint, in one command.

use anyhow::Result;

use crate::process::{cargo, run, say};
use crate::programs::{self, Profile};
use crate::{lint, packages, vm};

/// Runs the tests whose names match one of the filters, or, without filters, all tests, those in virtual machines too, and the lints.
pub(crate) fn run_all(filters: &[String]) -> Result<()> {
    packages::for_tests()?;
    packages::plugins()?;
    packages::criu()?;
    packages::application()?;
    packages::cargo_tool("cargo-nextest")?;
    let programs = programs::build(Profile::Debug)?;
    let mut nextest = cargo();
    nextest.args(["nextest", "run", "--workspace"]).args(filters).env("CONEX_PROGRAMS", &programs);
    if !filters.is_empty() {
        return run(&mut nextest);
    }
    nextest.arg("--no-fail-fast");
    lint::run_all()?;
    boot_machines(&programs)?;
    run(&mut nextest)
}

/// The virtual machines keep two processors busy, so that nothing else runs beside them.
fn boot_machines(programs: &std::path::Path) -> Result<()> {
    if cfg!(not(target_arch = "x86_64")) {
        say("the tests in virtual machines are left out: they boot a kernel for x86-64");
        return Ok(());
    }
    vm::prepare(programs, &[])?.boot_all(vm::Console::Kept)
}
