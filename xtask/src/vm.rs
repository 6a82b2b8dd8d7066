//! The tests of limits on a machine whose cgroups are all version 2, and whose kernel is older than this one's.
//!
//! A Debian cloud kernel boots in QEMU, without KVM, from an initramfs that holds the programs, the end-to-end tests and what they
//! need of this machine's user space. The tests run inside, on the console; their result is the last line.
//!
//! ```text
//! target/vm/kernel/   the unpacked kernel package
//! target/vm/root/     what becomes the initramfs
//! target/vm/initramfs
//! ```

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::packages;
use crate::process::{cargo, run, say, workspace};
use crate::programs::{self, Profile};

/// The test programs that run inside, by their package, and which of their tests, unless the command line names others.
///
/// The runtime's own tests come first: it is small and fast even without KVM. Through the engine, which is not, only what proves that
/// its limits arrive.
const SUITES: &[Suite] = &[
    Suite { package: "cgroups", folder: "crates/cgroups", tests: &[] },
    Suite {
        package: "oci-conformance",
        folder: "tests/oci",
        tests: &["resources::", "commands::", "exec::", "lifecycle::", "process::", "namespaces::"],
    },
    Suite { package: "compat", folder: "tests/compat", tests: &["limits::memory", "lifecycle::pause_and_unpause"] },
];

/// One test program.
struct Suite {
    package: &'static str,
    /// Where the package is, by which cargo's messages tell it.
    folder: &'static str,
    /// Parts of names; none stands for all tests.
    tests: &'static [&'static str],
}

/// Programs of this machine that the tests call.
const PROGRAMS: &[&str] = &["docker", "ip", "nft", "tar", "kill", "setsid", "busybox", "ping", "gzip"];

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
];

/// Longer than the whole run takes on a busy machine.
const TIME_LIMIT: Duration = Duration::from_secs(600);

const EXIT_MARK: &str = "CONEX-VM-EXIT:";

/// First program of the initramfs: the root of an initramfs cannot be pivoted away from, so everything moves to a tmpfs.
const INIT: &str = r"#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /newroot
/bin/busybox mount -t tmpfs -o size=90% tmpfs /newroot
for entry in bin conex etc lib lib64 modules sbin tests usr second; do
    [ -e /$entry ] && /bin/busybox cp -a /$entry /newroot/
done
/bin/busybox mkdir -p /newroot/proc /newroot/sys /newroot/dev /newroot/tmp /newroot/run /newroot/root /newroot/var/lib
exec /bin/busybox switch_root /newroot /second
";

/// The rest of the start, and the tests.
const SECOND: &str = r#"#!/bin/busybox sh
export PATH=/usr/local/bin:/usr/bin:/usr/sbin:/bin:/sbin
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev
/bin/busybox mkdir -p /dev/pts /dev/shm
/bin/busybox mount -t devpts -o newinstance,ptmxmode=0666 devpts /dev/pts
/bin/busybox mount -t tmpfs tmpfs /dev/shm
/bin/busybox mount -t cgroup2 cgroup2 /sys/fs/cgroup
/bin/busybox chmod 1777 /tmp
while read module; do /bin/busybox insmod /modules/$module || echo "cannot load $module"; done < /modules/order
export CONEX_PROGRAMS=/conex
# A disk to limit: the tests only need its number.
/bin/busybox test -e /dev/vda || /bin/busybox mknod /dev/vda b 7 0
code=0
TESTS
echo "EXIT_MARK$code"
/bin/busybox poweroff -f
"#;

/// Boots the machine and runs the tests; `filters` name tests to run instead of the usual ones.
pub(crate) fn run_tests(filters: &[String]) -> Result<()> {
    packages::for_vm()?;
    let folder = workspace().join("target/vm");
    fs::create_dir_all(&folder)?;
    let kernel = kernel(&folder)?;
    let programs = programs::build(Profile::Debug)?;
    let tests = test_programs()?;
    let initramfs = initramfs(&folder, &kernel, &programs, &tests, filters)?;
    boot(&kernel.image, &initramfs)
}

struct Kernel {
    image: PathBuf,
    modules: PathBuf,
}

/// Fetches and unpacks the kernel that Debian's package of cloud kernels stands for.
fn kernel(folder: &Path) -> Result<Kernel> {
    let unpacked = folder.join("kernel");
    if !unpacked.join("boot").exists() {
        let depends = Command::new("apt-cache").args(["depends", "linux-image-cloud-amd64"]).output()?;
        let text = String::from_utf8(depends.stdout)?;
        let package = text.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
        let package = package.context("apt knows no kernel for linux-image-cloud-amd64")?;
        say(&format!("fetching {package}"));
        run(Command::new("apt-get").args(["-qq", "download", package]).current_dir(folder).stderr(Stdio::null()))?;
        let archive = find(folder, |name| name.starts_with(package) && name.ends_with(".deb"))?;
        run(Command::new("dpkg").arg("-x").arg(archive).arg(&unpacked))?;
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

/// The test programs in the order of [`SUITES`]. All tests are built, with what `./x test` has built already.
fn test_programs() -> Result<Vec<PathBuf>> {
    let output =
        cargo().args(["test", "--workspace", "--no-run", "--message-format=json"]).stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "the tests do not compile");
    let text = String::from_utf8(output.stdout)?;
    let messages: Vec<serde_json::Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let program = |suite: &Suite| {
        let mut of_suite = messages.iter().filter(|message| {
            let package = message["package_id"].as_str().unwrap_or_default();
            // The unit tests beside a library's code are a program too.
            package.contains(&format!("/{}#", suite.folder)) && message["target"]["kind"][0] == "test"
        });
        let executable = of_suite.find_map(|message| message["executable"].as_str().map(PathBuf::from));
        executable.with_context(|| format!("cargo names no test program of {}", suite.package))
    };
    SUITES.iter().map(program).collect()
}

/// The lines that run the tests inside.
fn test_lines(filters: &[String]) -> String {
    let line = |suite: &Suite| {
        let chosen = if filters.is_empty() { suite.tests.join(" ") } else { filters.join(" ") };
        // What it prints of processor and memory is the machine's: two tests at once keep both processors busy.
        format!("/tests/{} --test-threads=2 {chosen} || code=1\n", suite.package)
    };
    SUITES.iter().map(line).collect()
}

/// Fills the folder that becomes the initramfs, and packs it.
fn initramfs(
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
    for name in ["bin", "conex", "etc", "modules", "tests", "usr/bin"] {
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
    link_applets(&root)?;
    copy_modules(kernel, &root.join("modules"))?;
    write_script(&root.join("init"), INIT)?;
    write_script(
        &root.join("second"),
        &SECOND.replace("TESTS\n", &test_lines(filters)).replace("EXIT_MARK", EXIT_MARK),
    )?;
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
    fs::write(root.join("etc/group"), "root:x:0:\n")?;
    fs::write(root.join("etc/hosts"), "127.0.0.1 localhost\n")?;
    fs::write(root.join("etc/resolv.conf"), "nameserver 192.0.2.1\n")?;
    pack(folder, &root)
}

fn pack(folder: &Path, root: &Path) -> Result<PathBuf> {
    let packed = folder.join("initramfs");
    let command = format!("find . | busybox cpio -o -H newc 2>/dev/null > {}", packed.display());
    run(Command::new("sh").args(["-c", &command]).current_dir(root))?;
    Ok(packed)
}

fn at_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let extra = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(extra).map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// Copies a program and the libraries it is linked with, at the paths where it looks for them.
fn copy_program(root: &Path, from: &Path, to: &str) -> Result<()> {
    fs::copy(from, root.join(to)).with_context(|| format!("cannot copy {}", from.display()))?;
    // Debugging information is most of a program's size, and the machine inside unpacks slowly. Not every file is for strip.
    let _as_it_is = Command::new("strip").arg("--strip-all").arg(root.join(to)).stderr(Stdio::null()).status();
    let output = Command::new("ldd").arg(from).output()?;
    for line in String::from_utf8(output.stdout)?.lines() {
        let library = line.split_whitespace().find(|word| word.starts_with('/'));
        let Some(library) = library.map(Path::new) else { continue };
        let place = root.join(library.strip_prefix("/")?);
        if !place.exists() {
            fs::create_dir_all(place.parent().context("a library is in a folder")?)?;
            fs::copy(library, place)?;
        }
    }
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

/// Copies the modules in the order in which they can be loaded.
fn copy_modules(kernel: &Kernel, to: &Path) -> Result<()> {
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

fn write_script(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// Boots, shows the console, and takes the tests' exit code from it.
fn boot(image: &Path, initramfs: &Path) -> Result<()> {
    let start = Instant::now();
    let mut machine = Command::new("timeout")
        .arg(TIME_LIMIT.as_secs().to_string())
        .args([
            "qemu-system-x86_64",
            "-accel",
            "tcg,thread=multi",
            "-machine",
            "q35",
            "-cpu",
            "max",
            "-smp",
            "2",
            "-m",
            "3072",
        ])
        .args(["-nographic", "-no-reboot", "-nodefaults", "-serial", "stdio"])
        .arg("-kernel")
        .arg(image)
        .arg("-initrd")
        .arg(initramfs)
        .args(["-append", "console=ttyS0 quiet panic=-1 reboot=t cgroup_no_v1=all"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let console = BufReader::new(machine.stdout.take().context("it is piped")?);
    let mut code = None;
    for line in console.split(b'\n') {
        let line = String::from_utf8_lossy(&line?).trim_end().to_owned();
        match line.split_once(EXIT_MARK) {
            Some((_, digits)) => code = digits.parse::<i32>().ok(),
            None => say(&format!("vm: {line}")),
        }
    }
    machine.wait()?;
    say(&format!("vm: ran {} seconds", start.elapsed().as_secs()));
    match code {
        Some(0) => Ok(()),
        Some(code) => bail!("the tests inside the virtual machine failed ({code})"),
        None => bail!("the virtual machine ended before its tests did"),
    }
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
