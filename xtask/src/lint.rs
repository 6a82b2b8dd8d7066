//! The lints: what a machine can check about the code.

use anyhow::Result;

use crate::process::{cargo, run};
use crate::{packages, tidy};

/// rustfmt, clippy with warnings as errors, cargo-deny (licences, bans, sources), tidy.
pub(crate) fn run_all() -> Result<()> {
    run(cargo().args(["fmt", "--all", "--check"]))?;
    tidy::check()?;
    run(cargo().args(["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    packages::cargo_tool("cargo-deny")?;
    run(cargo().args(["deny", "--log-level", "error", "check", "licenses", "bans", "sources"]))
}
