//! The kernel of the virtual machines: Debian's for clouds, with the modules that engines need.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::process::{run, say};

/// Kernel modules that an engine and its tests need; what they depend on is found.
const MODULES: &[&str] = &[
    "overlay",
    "erofs",
    "loop",
    "veth",
    "bridge",
    "nf_tables",
    "nft_chain_nat",
    "nft_masq",
    "nft_ct",
    "nft_nat",
    "nft_fib_inet",
    "nf_nat",
    "nf_conntrack",
    // Disks with project quotas.
    "ext4",
    "quota_v2",
    // Programs for other processors.
    "binfmt_misc",
    // systemd asks for it by name.
    "autofs4",
];

/// An unpacked kernel package.
pub(super) struct Kernel {
    /// What is booted.
    pub(super) image: PathBuf,
    modules: PathBuf,
}

/// Fetches and unpacks the kernel that Debian's package of cloud kernels stands for.
pub(super) fn fetch(folder: &Path) -> Result<Kernel> {
    let unpacked = folder.join("kernel");
    if !unpacked.exists() {
        let depends = Command::new("apt-cache").args(["depends", "linux-image-cloud-amd64"]).output()?;
        let text = String::from_utf8(depends.stdout)?;
        let package = text.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
        let package = package.context("apt knows no kernel for linux-image-cloud-amd64")?;
        say(&format!("fetching {package}"));
        run(Command::new("apt-get").args(["-qq", "download", package]).current_dir(folder).stderr(Stdio::null()))?;
        let archive = find(folder, |name| name.starts_with(package) && name.ends_with(".deb"))?;
        let fresh = folder.join("kernel.new");
        run(Command::new("dpkg").arg("-x").arg(archive).arg(&fresh))?;
        // Last: until it is there all is done again.
        fs::rename(fresh, &unpacked)?;
    }
    let image = find(&unpacked.join("boot"), |name| name.starts_with("vmlinuz"))?;
    let modules = find(&unpacked.join("lib/modules"), |_| true)?;
    Ok(Kernel { image, modules })
}

fn find(folder: &Path, wanted: impl Fn(&str) -> bool) -> Result<PathBuf> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let entry = entry?;
        if wanted(&entry.file_name().to_string_lossy()) {
            return Ok(entry.path());
        }
    }
    bail!("{} holds nothing that fits", folder.display())
}

/// Copies the modules in the order in which they can be loaded.
pub(super) fn copy_modules(kernel: &Kernel, to: &Path) -> Result<()> {
    let mut all = Vec::new();
    collect(&kernel.modules.join("kernel"), &mut all)?;
    let mut order = Vec::new();
    let mut seen = BTreeSet::new();
    for name in MODULES {
        add_module(name, &all, &mut seen, &mut order)?;
    }
    let mut names = String::new();
    for path in order {
        let file = path.file_name().context("a module has a name")?;
        fs::copy(&path, to.join(file))?;
        names += &format!("{}\n", file.to_string_lossy());
    }
    fs::write(to.join("order"), names)?;
    Ok(())
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        match path.is_dir() {
            true => collect(&path, found)?,
            false => found.push(path),
        }
    }
    Ok(())
}

fn add_module(name: &str, all: &[PathBuf], seen: &mut BTreeSet<String>, order: &mut Vec<PathBuf>) -> Result<()> {
    if !seen.insert(name.to_owned()) {
        return Ok(());
    }
    let named = |path: &&PathBuf| path.file_stem().is_some_and(|stem| stem.to_string_lossy().replace('-', "_") == name);
    // What is not a module is built in.
    let Some(path) = all.iter().find(named) else { return Ok(()) };
    for dependency in dependencies(&fs::read(path)?) {
        add_module(&dependency, all, seen, order)?;
    }
    order.push(path.clone());
    Ok(())
}

/// The `depends=` field of a module's information section.
fn dependencies(module: &[u8]) -> Vec<String> {
    const FIELD: &[u8] = b"\0depends=";
    let Some(at) = module.windows(FIELD.len()).position(|window| window == FIELD) else { return Vec::new() };
    let value = module[at + FIELD.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    let names = String::from_utf8_lossy(value).replace('-', "_");
    names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_modules_dependencies_are_read() {
        let module = b"license=GPL\0depends=nf-tables,nf_nat\0retpoline=Y\0";
        assert_eq!(dependencies(module), ["nf_tables", "nf_nat"]);
        assert!(dependencies(b"x\0depends=\0").is_empty());
    }
}
