//! The tests of what this machine's kernel may lack, or must not be told: cgroup v2 alone, all of v1's hierarchies, AppArmor, systemd, an
//! older kernel, an emulator of another processor.
//!
//! A Debian cloud kernel boots in QEMU, without KVM, from an initramfs that holds the programs, the end-to-end tests and what they
//! need of this machine's user space. Two machines boot from the same one, each with another form of cgroups. In each, tests run
//! first on their own, and then under systemd, which the machine's first process becomes. The last line of the console is the result.
//!
//! ```text
//! target/vm/kernel/      the unpacked kernel package
//! target/vm/root/        what becomes the initramfs
//! target/vm/initramfs
//! target/vm/NAME.log     what machine NAME wrote on its console
//! ```

mod kernel;
mod root;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::packages;
use crate::process::{cargo, say, workspace};
use crate::programs::{self, Profile};

/// The programs whose tests run inside, by their package.
const SUITES: &[Suite] = &[
    Suite { package: CGROUPS, folder: "crates/cgroups" },
    Suite { package: RUNTIME, folder: "tests/oci" },
    Suite { package: ENGINE, folder: "tests/compat" },
];
const CGROUPS: &str = "cgroups";
const RUNTIME: &str = "oci-conformance";
const ENGINE: &str = "compat";

/// One test program.
struct Suite {
    package: &'static str,
    /// Where the package is, by which cargo's messages tell it.
    folder: &'static str,
}

/// A machine to boot.
struct Machine {
    name: &'static str,
    /// Words for its kernel.
    options: &'static str,
    /// The lines that mount its cgroups.
    cgroups: &'static str,
    plain: &'static [Tests],
    systemd: &'static [Tests],
}

/// A package, and parts of the names of those of its tests that run; none stands for all.
type Tests = (&'static str, &'static [&'static str]);

/// When tests run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Before there is an init system.
    Plain,
    /// Under systemd.
    Systemd,
}

impl Machine {
    fn tests(&self, stage: Stage) -> &'static [Tests] {
        match stage {
            Stage::Plain => self.plain,
            Stage::Systemd => self.systemd,
        }
    }
}

/// The runtime's own tests come first: it is small and fast even without KVM. Through the engine, which is not, only what proves that
/// its limits arrive.
const MACHINES: &[Machine] = &[
    Machine {
        name: "v2",
        options: "cgroup_no_v1=all",
        cgroups: "mount -t cgroup2 cgroup2 /sys/fs/cgroup\n",
        plain: &[
            (CGROUPS, &[]),
            (
                RUNTIME,
                &[
                    "resources::",
                    "commands::",
                    "exec::",
                    "lifecycle::",
                    "process::",
                    "namespaces::",
                    "apparmor::",
                    "rootless::a_delegated",
                ],
            ),
            (
                ENGINE,
                &[
                    "limits::memory",
                    "lifecycle::pause_and_unpause",
                    "security::apparmor",
                    "quotas::a_size",
                    "build_foreign::",
                ],
            ),
        ],
        systemd: &[(RUNTIME, &["systemd::"])],
    },
    Machine {
        name: "v1",
        options: "systemd.unified_cgroup_hierarchy=0",
        cgroups: r"mount -t tmpfs -o mode=755 cgroup /sys/fs/cgroup
for controllers in cpu,cpuacct cpuset memory devices freezer blkio pids hugetlb perf_event net_cls,net_prio rdma misc; do
    mkdir /sys/fs/cgroup/$controllers
    mount -t cgroup -o $controllers cgroup /sys/fs/cgroup/$controllers || echo cannot mount $controllers
done
mkdir /sys/fs/cgroup/systemd /sys/fs/cgroup/unified
mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd
mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified
",
        plain: &[(CGROUPS, &[]), (RUNTIME, &["resources::", "exec::"])],
        systemd: &[(RUNTIME, &["systemd::"])],
    },
];

/// Longer than the whole run takes on a busy machine.
const TIME_LIMIT: Duration = Duration::from_secs(600);

const EXIT_MARK: &str = "CONEX-VM-EXIT:";

/// Who sees the console while the tests run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Console {
    /// The developer.
    Shown,
    /// Nobody, unless a test fails.
    Kept,
}

/// Boots the machines; `filters` name tests to run instead of the usual ones.
pub(crate) fn run_tests(filters: &[String]) -> Result<()> {
    packages::for_tests()?;
    prepare(&programs::build(Profile::Debug)?, filters)?.boot_all(Console::Shown)
}

/// Machines that only have to be booted.
pub(crate) struct Prepared {
    folder: PathBuf,
    image: PathBuf,
    initramfs: PathBuf,
}

/// Fetches the kernel, builds the tests and packs what the machines boot from.
pub(crate) fn prepare(programs: &Path, filters: &[String]) -> Result<Prepared> {
    packages::for_vm()?;
    packages::emulation()?;
    let folder = workspace().join("target/vm");
    fs::create_dir_all(&folder)?;
    let kernel = kernel::fetch(&folder)?;
    let initramfs = root::pack(&folder, &kernel, programs, &test_programs()?, filters)?;
    Ok(Prepared { folder, image: kernel.image, initramfs })
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

impl Prepared {
    /// Boots all machines at once: each keeps one processor of this machine busy.
    pub(crate) fn boot_all(&self, console: Console) -> Result<()> {
        std::thread::scope(|scope| {
            let running: Vec<_> =
                MACHINES.iter().map(|machine| scope.spawn(move || self.boot(machine, console))).collect();
            let ended: Vec<_> = running.into_iter().map(|thread| thread.join().expect("it does not panic")).collect();
            ended.into_iter().collect()
        })
    }

    /// Boots a machine and takes the tests' exit code from its console.
    fn boot(&self, machine: &Machine, console: Console) -> Result<()> {
        let (start, name) = (Instant::now(), machine.name);
        let mut qemu = self.command(machine).spawn().context("cannot start timeout(1)")?;
        let output = BufReader::new(qemu.stdout.take().context("it is piped")?);
        let log_path = self.folder.join(format!("{name}.log"));
        let mut log = File::create(&log_path)?;
        let (mut code, mut passed) = (None, 0);
        for line in output.split(b'\n') {
            let line = String::from_utf8_lossy(&line?).trim_end().to_owned();
            writeln!(log, "{line}")?;
            passed += passed_in(&line);
            if let Some((_, digits)) = line.split_once(EXIT_MARK) {
                code = digits.parse::<i32>().ok();
            } else if console == Console::Shown {
                say(&format!("{name}: {line}"));
            }
        }
        qemu.wait()?;
        if code != Some(0) && console == Console::Kept {
            say(&fs::read_to_string(&log_path)?);
        }
        say(&format!("virtual machine {name}: {passed} tests passed in {} s", start.elapsed().as_secs()));
        match code {
            Some(0) => Ok(()),
            Some(code) => bail!("tests inside the virtual machine {name} failed ({code}); see {}", log_path.display()),
            None => bail!("the virtual machine {name} ended before its tests did; see {}", log_path.display()),
        }
    }

    /// The machine's two processors take turns on one thread: on threads of their own the kernel has been seen to lock up.
    fn command(&self, machine: &Machine) -> Command {
        let mut command = Command::new("timeout");
        command
            .args([&TIME_LIMIT.as_secs().to_string(), "qemu-system-x86_64", "-accel", "tcg,thread=single"])
            .args(["-machine", "q35", "-cpu", "max", "-smp", "2", "-m", "2560"])
            .args(["-nographic", "-no-reboot", "-nodefaults", "-serial", "stdio"])
            .arg("-kernel")
            .arg(&self.image)
            .arg("-initrd")
            .arg(&self.initramfs)
            .arg("-append")
            // A busy host may take the emulated timer's first tick for so long that the kernel gives it up.
            .arg(format!(
                "console=ttyS0 quiet panic=-1 reboot=t no_timer_check conex.machine={} {}",
                machine.name, machine.options
            ))
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        command
    }
}

/// The number in `test result: ok. 39 passed; 0 failed; …`.
fn passed_in(line: &str) -> usize {
    let counted = line.strip_prefix("test result: ").and_then(|rest| rest.split(" passed").next());
    counted.and_then(|rest| rest.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::passed_in;

    #[test]
    fn results_are_counted() {
        assert_eq!(passed_in("test result: ok. 39 passed; 0 failed; 0 ignored"), 39);
        assert_eq!(passed_in("test result: FAILED. 7 passed; 2 failed; 0 ignored"), 7);
        assert_eq!(passed_in("test a::b ... ok"), 0);
    }
}
