//! Building the two programs: `conex` as any program, `conex-runtime` static and small.
//!
//! Both end up in one folder, since `conex` looks for its runtime beside itself:
//!
//! ```text
//! target/conex/debug/{conex,conex-runtime}
//! target/conex/release/{conex,conex-runtime}
//! ```

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::process::{cargo, run};

/// How `conex` is compiled; the runtime is always compiled for size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Quick to build; for tests.
    Debug,
    /// What users run; for benches.
    Release,
}

impl Profile {
    /// Reads `--release` or nothing.
    pub(crate) fn parse(arguments: &[String]) -> Result<Self> {
        match arguments {
            [] => Ok(Self::Debug),
            [flag] if flag == "--release" => Ok(Self::Release),
            other => bail!("build takes --release or nothing, not {other:?}"),
        }
    }

    fn folder(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Release => "release",
        }
    }
}

/// Builds both programs and returns the folder that holds them.
pub(crate) fn build(profile: Profile) -> Result<PathBuf> {
    let target = target_folder();
    let mut conex = cargo();
    conex.args(["build", "--package", "conex"]);
    if profile == Profile::Release {
        conex.arg("--release");
    }
    run(&mut conex)?;
    let runtime = build_runtime(&target)?;
    let together = target.join("conex").join(profile.folder());
    std::fs::create_dir_all(&together)?;
    replace(&target.join(profile.folder()).join("conex"), &together.join("conex"))?;
    replace(&runtime, &together.join("conex-runtime"))?;
    Ok(together)
}

/// Builds the static runtime: it starts in half the time of a dynamic one, and `init` must run in any image.
fn build_runtime(target: &Path) -> Result<PathBuf> {
    let triple = host_triple()?;
    run(cargo()
        .args(["build", "--package", "conex-runtime", "--profile", "small", "--target", &triple])
        .env("RUSTFLAGS", "-C target-feature=+crt-static -C relocation-model=static"))?;
    Ok(target.join(triple).join("small").join("conex-runtime"))
}

fn target_folder() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| crate::process::workspace().join("target"), PathBuf::from)
}

fn host_triple() -> Result<String> {
    let output = std::process::Command::new("rustc").arg("-vV").output().context("cannot start rustc")?;
    let text = String::from_utf8(output.stdout)?;
    let line = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(line.context("rustc -vV names no host")?.to_owned())
}

/// Puts a copy in place in one step: the old file may be running.
fn replace(from: &Path, to: &Path) -> Result<()> {
    let fresh = to.with_extension("new");
    std::fs::copy(from, &fresh).with_context(|| format!("cannot copy {}", from.display()))?;
    std::fs::rename(&fresh, to)?;
    Ok(())
}
