//! Debian packages and cargo tools that building and testing need.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process::{cargo, found, run, say, workspace};

/// A program that must be at the PATH, and the Debian package that brings it.
struct Needed {
    program: &'static str,
    package: &'static str,
}

const FOR_TESTS: &[Needed] = &[
    Needed { program: "busybox", package: "busybox-static" },
    Needed { program: "mkfs.erofs", package: "erofs-utils" },
    Needed { program: "mkfs.ext4", package: "e2fsprogs" },
    Needed { program: "debootstrap", package: "debootstrap" },
    Needed { program: "nft", package: "nftables" },
    Needed { program: "ip", package: "iproute2" },
    Needed { program: "newuidmap", package: "uidmap" },
    Needed { program: "xz", package: "xz-utils" },
    Needed { program: "zstd", package: "zstd" },
    Needed { program: "bzip2", package: "bzip2" },
    Needed { program: "python3", package: "python3" },
    Needed { program: "strace", package: "strace" },
    Needed { program: "git", package: "git" },
    Needed { program: "ssh-agent", package: "openssh-client" },
    Needed { program: "skopeo", package: "skopeo" },
    Needed { program: "docker-registry", package: "docker-registry" },
    Needed { program: "htpasswd", package: "apache2-utils" },
    Needed { program: "curl", package: "curl" },
    Needed { program: "openssl", package: "openssl" },
    Needed { program: "runc", package: "runc" },
    Needed { program: "crun", package: "crun" },
    Needed { program: "containerd", package: "containerd" },
    Needed { program: "dockerd", package: "docker.io" },
    Needed { program: "podman", package: "podman" },
];

const FOR_VM: &[Needed] = &[Needed { program: "qemu-system-x86_64", package: "qemu-system-x86" }];

/// Names under which Debian has had Docker's command line, the newest first.
const DOCKER_CLIENTS: &[&str] = &["docker-cli", "docker.io"];

/// Installs the Debian packages that the tests need and this machine lacks.
pub(crate) fn for_tests() -> Result<()> {
    let mut missing: Vec<&str> = FOR_TESTS.iter().filter(|n| !found(n.program)).map(|n| n.package).collect();
    if !std::path::Path::new("/usr/include/seccomp.h").exists() {
        missing.push("libseccomp-dev");
    }
    let docker_missing = !found("docker");
    if missing.is_empty() && !docker_missing {
        return Ok(());
    }
    update()?;
    if !missing.is_empty() {
        install(&missing)?;
    }
    if docker_missing {
        install_first_of(DOCKER_CLIENTS)?;
    }
    Ok(())
}

/// The Debian release that has Docker's plugins.
const PLUGINS_SUITE: &str = "trixie";

/// Plugins of Docker's command line that tests use: the package, and where its program is found after [`plugins`].
const PLUGINS: &[(&str, &str)] = &[("docker-compose", "compose"), ("docker-buildx", "buildx")];

/// Unpacks Docker Compose to `target/compose` and buildx to `target/buildx`, unless they are there. Their packages are of a later Debian
/// release than this machine's may be, so apt is given lists and folders of its own and nothing is installed.
pub(crate) fn plugins() -> Result<()> {
    PLUGINS.iter().try_for_each(|(package, folder)| plugin(package, &workspace().join("target").join(folder)))
}

fn plugin(name: &str, folder: &Path) -> Result<()> {
    let program = folder.join(name);
    if program.exists() {
        return Ok(());
    }
    say(&format!("unpacking {name} to {}", folder.display()));
    for part in ["lists/partial", "cache/archives/partial", "root"] {
        std::fs::create_dir_all(folder.join(part))?;
    }
    std::fs::write(folder.join("sources.list"), format!("deb {} {PLUGINS_SUITE} main\n", mirror()?))?;
    apt(folder, &["update", "-qq"])?;
    apt(folder, &["download", "-qq", name])?;
    let package = std::fs::read_dir(folder)?.flatten().map(|entry| entry.path());
    let package = package.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "deb"));
    let package = package.context("apt-get downloaded no package")?;
    run(Command::new("dpkg").arg("-x").arg(&package).arg(folder.join("root")))?;
    // Last: until it is there all is done again.
    let unpacked = folder.join("root/usr/libexec/docker/cli-plugins").join(name);
    Ok(std::fs::rename(unpacked, program)?)
}

/// apt-get that sees only what is in `folder`.
fn apt(folder: &Path, arguments: &[&str]) -> Result<()> {
    let places = [("Dir::Etc::SourceList", "sources.list"), ("Dir::State::Lists", "lists"), ("Dir::Cache", "cache")];
    let mut command = Command::new("apt-get");
    for (name, place) in places {
        command.arg("-o").arg(format!("{name}={}", folder.join(place).display()));
    }
    command.args(["-o", "Dir::Etc::SourceParts=-", "-o", "APT::Sandbox::User=root"]);
    run(command.args(arguments).current_dir(folder))
}

/// The Debian mirror that this machine's own apt uses.
pub(crate) fn mirror() -> Result<String> {
    let output = Command::new("apt-cache").arg("policy").output().context("cannot start apt-cache")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mirror = text
        .split_whitespace()
        .find(|word| word.starts_with("http") && word.trim_end_matches('/').ends_with("/debian"));
    Ok(mirror.context("apt-cache policy names no Debian mirror")?.to_owned())
}

/// Installs what booting a virtual machine needs.
pub(crate) fn for_vm() -> Result<()> {
    let missing: Vec<&str> = FOR_VM.iter().filter(|n| !found(n.program)).map(|n| n.package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    update()?;
    install(&missing)
}

/// Installs cargo-nextest, and for the lints cargo-deny, where they are missing.
pub(crate) fn cargo_tool(name: &str) -> Result<()> {
    if found(name) {
        return Ok(());
    }
    say(&format!("installing {name} (once, some minutes)"));
    run(cargo().args(["install", "--quiet", "--locked", name]))
}

fn update() -> Result<()> {
    run(Command::new("apt-get").args(["update", "-qq"]))
}

fn install(packages: &[&str]) -> Result<()> {
    say(&format!("installing Debian packages: {}", packages.join(" ")));
    let _policy = NoServices::declare()?;
    run(Command::new("apt-get")
        .args(["install", "-y", "-qq", "--no-install-recommends"])
        .args(packages)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdout(std::process::Stdio::null()))
}

/// As long as it lives, packages do not start the services that they bring.
struct NoServices(Option<&'static str>);

impl NoServices {
    fn declare() -> Result<Self> {
        const POLICY: &str = "/usr/sbin/policy-rc.d";
        if std::path::Path::new(POLICY).exists() {
            // The machine has a policy of its own.
            return Ok(NoServices(None));
        }
        std::fs::write(POLICY, "#!/bin/sh\nexit 101\n")?;
        std::fs::set_permissions(POLICY, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        Ok(NoServices(Some(POLICY)))
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if let Some(policy) = self.0 {
            // The next installation declares it again anyway.
            let _ = std::fs::remove_file(policy);
        }
    }
}

fn install_first_of(packages: &[&str]) -> Result<()> {
    match packages.iter().any(|package| install(&[package]).is_ok()) {
        true => Ok(()),
        false => bail!("none of these Debian packages can be installed: {}", packages.join(", ")),
    }
}
