//! Debian packages and cargo tools that building and testing need.

use std::path::{Path, PathBuf};
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
    Needed { program: "mkfs.btrfs", package: "btrfs-progs" },
    Needed { program: "debootstrap", package: "debootstrap" },
    Needed { program: "nft", package: "nftables" },
    Needed { program: "iperf3", package: "iperf3" },
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

const FOR_VM: &[Needed] = &[
    Needed { program: "qemu-system-x86_64", package: "qemu-system-x86" },
    Needed { program: "systemctl", package: "systemd" },
    Needed { program: "apparmor_parser", package: "apparmor" },
];

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

/// Installs what the root of the peers is made with.
pub(crate) fn for_peers() -> Result<()> {
    if found("debootstrap") {
        return Ok(());
    }
    update()?;
    install(&["debootstrap"])
}

/// The Debian release that has the programs which this machine's may lack or have too old.
const LATER_SUITE: &str = "trixie";

/// Plugins of Docker's command line that tests use: the package, and the folder below `target` in which its program is.
const PLUGINS: &[(&str, &str)] = &[("docker-compose", "compose"), ("docker-buildx", "buildx")];

/// Unpacks the plugins that are not there yet.
pub(crate) fn plugins() -> Result<()> {
    for (package, folder) in PLUGINS {
        let Some(later) = Later::begin(folder, package)? else { continue };
        later.unpack(package)?;
        // A program of its own, without libraries.
        later.finish(&later.folder.join("root/usr/libexec/docker/cli-plugins").join(package))?;
    }
    Ok(())
}

/// Unpacks CRIU with the libraries that it wants to `target/criu`, unless it is there: Debian 12's knows no kernel of today.
pub(crate) fn criu() -> Result<()> {
    const STARTER: &str = "#!/bin/sh\n\
        root=$(dirname \"$(readlink -f \"$0\")\")/root/usr\n\
        set -- --library-path \"$root/lib/x86_64-linux-gnu\" \"$root/sbin/criu\" \"$@\"\n\
        exec \"$root/lib64/ld-linux-x86-64.so.2\" \"$@\"\n";
    let Some(later) = Later::begin("criu", "criu")? else { return Ok(()) };
    later.unpack("criu")?;
    let starter = later.folder.join("starter");
    std::fs::write(&starter, STARTER)?;
    std::fs::set_permissions(&starter, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    later.finish(&starter)
}

/// The emulator of another processor, and a program for that one: the package, and its program.
const EMULATOR: (&str, &str) = ("qemu-user", "usr/bin/qemu-aarch64");
const EMULATED: (&str, &str) = ("busybox-static", "usr/bin/busybox");

/// Unpacks an emulator of 64-bit ARM and a busybox for that to `target/emulation`, unless they are there. Nothing is installed: the
/// packages would have this machine's kernel know the emulator.
pub(crate) fn emulation() -> Result<()> {
    let [emulator, emulated] = emulation_programs().map(|(program, _)| program);
    if emulated.exists() {
        return Ok(());
    }
    if let Some(later) = Later::begin("emulation", "qemu-aarch64")? {
        later.unpack(EMULATOR.0)?;
        std::fs::rename(later.folder.join("root").join(EMULATOR.1), emulator)?;
    }
    let later = Later { architecture: Some("arm64"), ..Later::at("emulation/arm64", "busybox")? };
    later.apt(&["update", "-qq"])?;
    later.unpack(EMULATED.0)?;
    later.finish(&later.folder.join("root").join(EMULATED.1))
}

/// Where they are, and what they are called in a virtual machine.
pub(crate) fn emulation_programs() -> [(PathBuf, &'static str); 2] {
    let folder = workspace().join("target/emulation");
    [(folder.join("qemu-aarch64"), "qemu-aarch64"), (folder.join("arm64/busybox"), "busybox")]
}

/// Makes `target/compose/debian.tar`, the root of a Debian with a web server and Redis, unless it is there: what Compose runs as a real
/// application.
pub(crate) fn application() -> Result<()> {
    let folder = workspace().join("target/compose");
    let (image, root, part) = (folder.join("debian.tar"), folder.join("debian-root"), folder.join("debian.tar.part"));
    if image.exists() {
        return Ok(());
    }
    say(&format!("making {} (a Debian with lighttpd and Redis); this takes a minute", image.display()));
    for_peers()?;
    std::fs::create_dir_all(&folder)?;
    run(Command::new("debootstrap")
        .args(["--variant=minbase", "--include=lighttpd,redis-server", LATER_SUITE])
        .arg(&root)
        .arg(mirror()?))?;
    let left_out = ["var/cache/apt", "var/lib/apt/lists", "dev/*"].map(|path| format!("--exclude=./{path}"));
    run(Command::new("tar").arg("--numeric-owner").args(left_out).arg("-C").arg(&root).arg("-cf").arg(&part).arg("."))?;
    std::fs::rename(&part, &image)?;
    Ok(std::fs::remove_dir_all(&root)?)
}

/// Programs of a later Debian release than this machine's may be: apt is given lists and folders of its own, and nothing is installed.
struct Later {
    folder: PathBuf,
    program: PathBuf,
    /// Of another processor than this machine's.
    architecture: Option<&'static str>,
}

impl Later {
    /// A folder of that name below `target`; nothing where `program` is in it already.
    fn begin(name: &str, program: &str) -> Result<Option<Self>> {
        let later = Self::at(name, program)?;
        if later.program.exists() {
            return Ok(None);
        }
        later.apt(&["update", "-qq"])?;
        Ok(Some(later))
    }

    /// A folder of that name below `target`, with nothing in it that apt would read of this machine.
    fn at(name: &str, program: &str) -> Result<Self> {
        let folder = workspace().join("target").join(name);
        let program = folder.join(program);
        if program.exists() {
            return Ok(Self { folder, program, architecture: None });
        }
        say(&format!("unpacking {name} to {}", folder.display()));
        for part in ["lists/partial", "cache/archives/partial", "root"] {
            std::fs::create_dir_all(folder.join(part))?;
        }
        std::fs::write(folder.join("sources.list"), format!("deb {} {LATER_SUITE} main\n", mirror()?))?;
        // No package counts as installed, so that all that one needs is fetched.
        std::fs::write(folder.join("status"), "")?;
        Ok(Self { folder, program, architecture: None })
    }

    /// Fetches a package with all that it needs, and unpacks them below `root`.
    fn unpack(&self, package: &str) -> Result<()> {
        self.apt(&["install", "-y", "-qq", "--no-install-recommends", "--download-only", package])?;
        for entry in std::fs::read_dir(self.folder.join("cache/archives"))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "deb") {
                run(Command::new("dpkg").arg("-x").arg(&path).arg(self.folder.join("root")))?;
            }
        }
        Ok(())
    }

    /// Puts the program in its place; until then all is done again.
    fn finish(&self, unpacked: &Path) -> Result<()> {
        Ok(std::fs::rename(unpacked, &self.program)?)
    }

    /// apt-get that sees only what is in the folder.
    fn apt(&self, arguments: &[&str]) -> Result<()> {
        let places = [
            ("Dir::Etc::SourceList", "sources.list"),
            ("Dir::State::Lists", "lists"),
            ("Dir::State::status", "status"),
            ("Dir::Cache", "cache"),
        ];
        let mut command = Command::new("apt-get");
        for (name, place) in places {
            command.arg("-o").arg(format!("{name}={}", self.folder.join(place).display()));
        }
        if let Some(architecture) = self.architecture {
            let only = format!("APT::Architectures::={architecture}");
            command.args(["-o", &format!("APT::Architecture={architecture}"), "-o", &only]);
        }
        command.args(["-o", "Dir::Etc::SourceParts=-", "-o", "APT::Sandbox::User=root"]);
        run(command.args(arguments).stdout(std::process::Stdio::null()))
    }
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

/// Installs what booting a virtual machine needs, and what runs in it.
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
