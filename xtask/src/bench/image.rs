//! Images for the benches, as archives that every engine loads.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::process::run;

/// The small image's name in every engine.
pub(crate) const SMALL: &str = "bench:small";
/// The large image's name in every engine.
pub(crate) const LARGE: &str = "bench:large";

/// Makes a root folder with a static busybox in it.
pub(crate) fn write_root(root: &Path) -> Result<()> {
    for folder in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
        fs::create_dir_all(root.join(folder))?;
    }
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
    fs::copy(busybox.context("busybox-static is not installed: ./x setup")?, root.join("bin/busybox"))?;
    for applet in ["true", "sh", "sleep"] {
        symlink("busybox", root.join("bin").join(applet))?;
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/:/bin/sh\n")?;
    Ok(fs::write(root.join("etc/group"), "root:x:0:\n")?)
}

/// Writes an archive with one image of one layer: the contents of `root` without what only a running system has.
pub(crate) fn write_archive(root: &Path, name: &str, archive: &Path) -> Result<u64> {
    let work = archive.with_extension("parts");
    fs::create_dir_all(&work)?;
    let layer = work.join("layer.tar");
    let excluded =
        ["./proc/*", "./sys/*", "./dev/*", "./run/*", "./tmp/*", "./state"].map(|path| format!("--exclude={path}"));
    run(Command::new("tar")
        .args(["--numeric-owner", "--anchored", "-C"])
        .arg(root)
        .args(excluded)
        .arg("-cf")
        .arg(&layer)
        .arg("."))?;
    let size = fs::metadata(&layer)?.len();
    let config = json!({
        "architecture": architecture(), "os": "linux", "created": "2024-01-01T00:00:00Z",
        "config": {"Env": ["PATH=/bin:/usr/bin"], "Cmd": ["/bin/sh"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", sha256(&layer)?)]},
        "history": [{"created": "2024-01-01T00:00:00Z", "created_by": "bench"}],
    });
    fs::write(work.join("config.json"), config.to_string())?;
    let config_name = format!("{}.json", sha256(&work.join("config.json"))?);
    fs::rename(work.join("config.json"), work.join(&config_name))?;
    let manifest = json!([{"Config": config_name, "RepoTags": [name], "Layers": ["layer.tar"]}]);
    fs::write(work.join("manifest.json"), manifest.to_string())?;
    run(Command::new("tar").arg("-C").arg(&work).arg("-cf").arg(archive).args([
        "manifest.json",
        &config_name,
        "layer.tar",
    ]))?;
    fs::remove_dir_all(&work)?;
    Ok(size)
}

/// What images call this machine's processor.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The hash of a file, in hexadecimal digits.
pub(crate) fn sha256(file: &Path) -> Result<String> {
    let output = Command::new("sha256sum").arg(file).output().context("cannot start sha256sum")?;
    if !output.status.success() {
        bail!("sha256sum {}: {}", file.display(), output.status);
    }
    let text = String::from_utf8(output.stdout)?;
    Ok(text.split_whitespace().next().context("sha256sum said nothing")?.to_owned())
}

/// Writes the bundle that runc and crun run: the same root, and `command` as its process.
pub(crate) fn write_bundle(bundle: &Path, default_spec: &str, command: &[&str]) -> Result<PathBuf> {
    fs::create_dir_all(bundle.join("rootfs"))?;
    write_root(&bundle.join("rootfs"))?;
    let mut spec: serde_json::Value = serde_json::from_str(default_spec).context("the default specification")?;
    spec["process"]["terminal"] = false.into();
    spec["process"]["args"] = command.into();
    fs::write(bundle.join("config.json"), spec.to_string())?;
    Ok(bundle.to_owned())
}
