//! What the virtual machines boot into: an initramfs with our programs, the tests, and what they need of this machine's user space.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Result;

use super::kernel::{self, Kernel};
use super::{EXIT_MARK, MACHINES, Machine, SUITES, Stage};
use crate::packages;
use crate::process::{copy_with_libraries, run};

/// Programs of this machine that the tests call.
const PROGRAMS: &[&str] = &[
    "docker",
    "ip",
    "nft",
    "tar",
    "mount",
    "umount",
    "kill",
    "setsid",
    "setpriv",
    "busybox",
    "ping",
    "gzip",
    "mkfs.ext4",
    "systemctl",
    "apparmor_parser",
];

/// systemd, and from its version 255 on the program that becomes each service.
const SYSTEMD: &[&str] = &["/usr/lib/systemd/systemd", "/usr/lib/systemd/systemd-executor"];
const SYSTEMD_UNITS: &str = "usr/lib/systemd/system";

/// First program of the initramfs: the root of an initramfs cannot be pivoted away from, so everything moves to a tmpfs.
const INIT: &str = r"#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /newroot
/bin/busybox mount -t tmpfs -o size=90% tmpfs /newroot
for entry in /*; do
    case $entry in /newroot|/proc|/sys|/dev|/init) ;; *) /bin/busybox cp -a $entry /newroot/ ;; esac
done
/bin/busybox mkdir -p /newroot/proc /newroot/sys /newroot/dev /newroot/tmp /newroot/run /newroot/root /newroot/var/lib
exec /bin/busybox switch_root /newroot /second
";

/// The rest of the start, and the tests that run without an init system.
const SECOND: &str = r#"#!/bin/busybox sh
export PATH=/usr/local/bin:/usr/bin:/usr/sbin:/bin:/sbin
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t securityfs securityfs /sys/kernel/security
/bin/busybox mount -t devtmpfs devtmpfs /dev
/bin/busybox mkdir -p /dev/pts /dev/shm
/bin/busybox mount -t devpts -o newinstance,ptmxmode=0666 devpts /dev/pts
/bin/busybox mount -t tmpfs tmpfs /dev/shm
/bin/busybox mount -t tmpfs tmpfs /run
/bin/busybox chmod 1777 /tmp
while read module; do /bin/busybox insmod /modules/$module || echo "cannot load $module"; done < /modules/order
/bin/busybox mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
export CONEX_PROGRAMS=/conex
export CONEX_VM=1
# A disk to limit: the tests only need its number.
/bin/busybox test -e /dev/vda || /bin/busybox mknod /dev/vda b 7 0
for word in $(cat /proc/cmdline); do case $word in conex.machine=*) machine=${word#*=} ;; esac; done
. /machines/$machine/cgroups
code=0
. /machines/$machine/plain
echo $code > /run/code
exec /usr/lib/systemd/systemd --unit=tests.service --log-target=null --show-status=0
"#;

/// The service of systemd's that runs the other tests.
const SERVICE: &str = "\
[Unit]
DefaultDependencies=no
[Service]
Type=oneshot
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
ExecStart=/third
";

/// The tests that run under systemd, and the end.
const THIRD: &str = r#"#!/bin/busybox sh
export PATH=/usr/local/bin:/usr/bin:/usr/sbin:/bin:/sbin
export CONEX_PROGRAMS=/conex
export CONEX_VM=1
for word in $(cat /proc/cmdline); do case $word in conex.machine=*) machine=${word#*=} ;; esac; done
code=$(cat /run/code)
. /machines/$machine/systemd
echo "EXIT_MARK$code"
/bin/busybox poweroff -f
"#;

/// Fills the folder that becomes the initramfs, and packs it.
pub(super) fn pack(
    folder: &Path,
    kernel: &Kernel,
    programs: &Path,
    tests: &[PathBuf],
    filters: &[String],
) -> Result<PathBuf> {
    let root = folder.join("root");
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    for name in ["bin", "conex", "emulation", "etc", "modules", "tests", "usr/bin", "usr/lib/systemd", SYSTEMD_UNITS] {
        fs::create_dir_all(root.join(name))?;
    }
    symlink("bin", root.join("sbin"))?;
    copy_program(&root, Path::new("/bin/busybox"), "bin/busybox")?;
    copy_program(&root, &programs.join("conex"), "conex/conex")?;
    copy_program(&root, &programs.join("conex-runtime"), "conex/conex-runtime")?;
    for (suite, program) in SUITES.iter().zip(tests) {
        copy_program(&root, program, &format!("tests/{}", suite.package))?;
    }
    for name in PROGRAMS {
        if let Some(path) = at_path(name) {
            copy_program(&root, &path, &format!("usr/bin/{name}"))?;
        }
    }
    for (program, name) in packages::emulation_programs() {
        fs::copy(&program, root.join("emulation").join(name))?;
    }
    for path in SYSTEMD.iter().map(Path::new).filter(|path| path.exists()) {
        copy_program(&root, path, &path.display().to_string()[1..])?;
    }
    link_applets(&root)?;
    kernel::copy_modules(kernel, &root.join("modules"))?;
    write_scripts(&root, filters)?;
    // The user is that of the rootless tests, whose own systemd the machine's starts.
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\ntester:x:54321:54321::/tmp:/bin/sh\n")?;
    fs::write(root.join("etc/group"), "root:x:0:\ntester:x:54321:\n")?;
    fs::write(root.join("etc/hosts"), "127.0.0.1 localhost\n")?;
    fs::write(root.join("etc/resolv.conf"), "nameserver 192.0.2.1\n")?;
    let packed = folder.join("initramfs");
    let command = format!("find . | busybox cpio -o -H newc 2>/dev/null > {}", packed.display());
    run(Command::new("sh").args(["-c", &command]).current_dir(root))?;
    Ok(packed)
}

fn write_scripts(root: &Path, filters: &[String]) -> Result<()> {
    write_script(&root.join("init"), INIT)?;
    write_script(&root.join("second"), SECOND)?;
    write_script(&root.join("third"), &THIRD.replace("EXIT_MARK", EXIT_MARK))?;
    fs::write(root.join(SYSTEMD_UNITS).join("tests.service"), SERVICE)?;
    for machine in MACHINES {
        let folder = root.join("machines").join(machine.name);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("cgroups"), machine.cgroups)?;
        fs::write(folder.join("plain"), test_lines(machine, Stage::Plain, filters))?;
        fs::write(folder.join("systemd"), test_lines(machine, Stage::Systemd, filters))?;
    }
    Ok(())
}

/// The lines that run a machine's tests of one stage.
fn test_lines(machine: &Machine, stage: Stage, filters: &[String]) -> String {
    let line = |(package, tests): &(&str, &[&str])| {
        let chosen = if filters.is_empty() { tests.join(" ") } else { filters.join(" ") };
        // Tests wait a good deal.
        format!("/tests/{package} --test-threads=3 {chosen} || code=1\n")
    };
    machine.tests(stage).iter().map(line).collect()
}

fn at_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let extra = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(extra).map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// Copies a program and the libraries it is linked with, at the paths where it looks for them.
fn copy_program(root: &Path, from: &Path, to: &str) -> Result<()> {
    copy_with_libraries(root, from, to)?;
    // Debugging information is most of a program's size, and the machine inside unpacks slowly. Not every file is for strip.
    let _as_it_is = Command::new("strip").arg("--strip-all").arg(root.join(to)).stderr(Stdio::null()).status();
    Ok(())
}

/// Links busybox under the names of its applets where no program of that name was copied.
fn link_applets(root: &Path) -> Result<()> {
    let list = Command::new("busybox").arg("--list").output()?.stdout;
    for applet in String::from_utf8(list)?.lines() {
        if !root.join("usr/bin").join(applet).exists() && !root.join("bin").join(applet).exists() {
            symlink("busybox", root.join("bin").join(applet))?;
        }
    }
    Ok(())
}

fn write_script(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}
