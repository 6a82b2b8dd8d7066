//! What Docker makes of the Dockerfiles in `tests/compat/dockerfiles`, written down beside them.

use anyhow::{Result, bail};

use crate::process::{cargo, run};
use crate::programs::{self, Profile};
use crate::{bench, packages};

/// Tests that build on Docker, and those that build on Conex.
const ON_DOCKER: &str = "dockerfiles::the_facts_about";
const ON_CONEX: &str = "dockerfiles::";

/// `corpus --record`: records, then compares.
pub(crate) fn run_all(arguments: &[String]) -> Result<()> {
    if arguments != ["--record"] {
        bail!("corpus takes --record; ./x test compares with what is recorded");
    }
    packages::for_tests()?;
    packages::plugins()?;
    packages::cargo_tool("cargo-nextest")?;
    bench::peers::make()?;
    let programs = programs::build(Profile::Debug)?;
    let nextest = |filter: &str| {
        let mut command = cargo();
        command.args(["nextest", "run", "-p", "compat", filter]).env("CONEX_PROGRAMS", &programs);
        command
    };
    run(nextest(ON_DOCKER).env("CONEX_RECORD", "1"))?;
    run(&mut nextest(ON_CONEX))
}
