//! The peers: a Debian root with today's Docker, Podman, runc and crun, made once.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::process::{run, say, workspace};

const SUITE: &str = "trixie";
const PACKAGES: &[&str] = &[
    "docker.io",
    "docker-cli",
    "docker-buildx",
    "docker-compose",
    "containerd",
    "podman",
    "crun",
    "runc",
    "netavark",
    "aardvark-dns",
    "iptables",
    "nftables",
    "catatonit",
    "uidmap",
    "procps",
    "xz-utils",
    // Large, and of many small files: with these the root is an image of 2.2 GB and 50,000 files for the bench of loading.
    "golang-go",
    "git",
    "libboost-dev",
    "openjdk-21-jdk-headless",
];
/// Written last: without it the root is not whole.
const MARK: &str = ".peers-ready";

/// Makes the root under `target/peers`, unless it is there.
pub(crate) fn make() -> Result<()> {
    let root = folder();
    if root.join(MARK).exists() {
        return Ok(());
    }
    say(&format!("making {} ({SUITE} with docker, podman, runc, crun); this takes two minutes", root.display()));
    crate::packages::for_peers()?;
    std::fs::create_dir_all(&root)?;
    run(Command::new("debootstrap")
        .args(["--variant=minbase", "--include=ca-certificates", SUITE])
        .arg(&root)
        .arg(crate::packages::mirror()?))?;
    std::fs::copy("/etc/resolv.conf", root.join("etc/resolv.conf"))?;
    copy_if_there(Path::new("/etc/ssl/certs/ca-certificates.crt"), &root.join("etc/ssl/certs/ca-certificates.crt"))?;
    // No package may start its service here.
    let policy = root.join("usr/sbin/policy-rc.d");
    std::fs::write(&policy, "#!/bin/sh\nexit 101\n")?;
    std::fs::set_permissions(&policy, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    install(&root)?;
    Ok(std::fs::write(root.join(MARK), "")?)
}

fn copy_if_there(from: &Path, to: &Path) -> Result<()> {
    if from.exists() {
        std::fs::copy(from, to)?;
    }
    Ok(())
}

fn install(root: &Path) -> Result<()> {
    let script = format!(
        "set -e; for d in proc sys dev; do mount --rbind /$d \"$0/$d\"; done; export DEBIAN_FRONTEND=noninteractive; \
         chroot \"$0\" apt-get update -qq; chroot \"$0\" apt-get install -y -qq --no-install-recommends {}",
        PACKAGES.join(" ")
    );
    run(Command::new("unshare").args(["-m", "--propagation", "private", "sh", "-c", &script]).arg(root))
}

/// The root, if it has been made.
pub(crate) fn ready() -> Option<PathBuf> {
    Some(folder()).filter(|root| root.join(MARK).exists())
}

fn folder() -> PathBuf {
    workspace().join("target/peers")
}
