//! Hostile images, configurations and neighbours. Each test looks at a canary outside the container's root.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use crate::harness::{self, Bundle};

fn is_empty(path: &Path) -> bool {
    std::fs::read_dir(path).unwrap().next().is_none()
}

/// The canary as a link in a root would name it: both lie in one folder.
fn target_of(canary: &Path, relative: bool) -> std::path::PathBuf {
    if relative { Path::new("../..").join(canary.file_name().unwrap()) } else { canary.to_owned() }
}

fn replace_by_link(bundle: &Bundle, name: &str, target: &Path) {
    let path = bundle.root().join(name);
    if path.is_dir() {
        std::fs::remove_dir_all(&path).unwrap();
    } else if path.exists() {
        std::fs::remove_file(&path).unwrap();
    }
    symlink(target, path).unwrap();
}

/// CVE-2024-21626: the working directory as a descriptor of the runtime.
#[test]
fn no_working_directory_is_outside_the_root() {
    let _leaked = std::fs::File::open("/sys/fs/cgroup").unwrap();
    for number in 3..20 {
        for path in
            [format!("/proc/self/fd/{number}"), format!("/proc/1/fd/{number}"), format!("/proc/self/fd/{number}/../..")]
        {
            let bundle = Bundle::new().edit(|spec| spec["process"]["cwd"] = json!(path));
            match bundle.script("pwd").run() {
                Ok(outcome) => assert!(
                    outcome.output.starts_with("/proc/") || outcome.output == "/\n",
                    "{path}: {}",
                    outcome.output
                ),
                Err(error) => assert!(error.message.contains("chdir to cwd"), "{}", error.message),
            }
        }
    }
}

#[test]
fn an_exec_has_no_working_directory_outside_either() {
    let started = Bundle::new().script("sleep 60").start().unwrap();
    for number in 3..20 {
        let mut process = crate::harness::process("pwd");
        process.cwd = format!("/proc/self/fd/{number}");
        assert!(started.exec(&process).is_err(), "{number}");
    }
    started.kill();
}

/// CVE-2024-21626 again: a program that is a descriptor of the runtime.
#[test]
fn no_program_is_a_descriptor_of_the_runtime() {
    let busybox = std::fs::File::open("/bin/busybox").or_else(|_| std::fs::File::open("/usr/bin/busybox")).unwrap();
    for number in 3..20 {
        let mut bundle = Bundle::new();
        bundle.spec.process.as_mut().unwrap().args =
            vec![format!("/proc/self/fd/{number}"), "echo".to_owned(), "ran".to_owned()];
        match bundle.run() {
            Err(_) => {}
            Ok(outcome) => panic!("{number}: {outcome:?}"),
        }
    }
    drop(busybox);
}

/// CVE-2019-19921 and its kin: `/proc` or `/sys` that is not what it should be.
#[test]
fn proc_and_sys_must_be_ordinary_directories() {
    for name in ["proc", "sys"] {
        for relative in [false, true] {
            let bundle = Bundle::new();
            let canary = harness::canary();
            replace_by_link(&bundle, name, &target_of(canary.path(), relative));
            let error = bundle.refused("true");
            assert!(error.message.contains("must be mounted on ordinary directory"), "{}", error.message);
            assert!(is_empty(canary.path()));
        }
    }
}

/// CVE-2023-27561: a volume over `/proc`.
#[test]
fn nothing_but_a_procfs_is_mounted_on_proc() {
    let bundle = Bundle::new();
    let canary = harness::canary();
    let error = bundle.mount("/proc", "bind", canary.path(), &["rbind"]).refused("true");
    assert!(error.message.contains("not of type proc"), "{}", error.message);
    let error = Bundle::new().mount("/proc", "tmpfs", Path::new("tmpfs"), &[]).refused("true");
    assert!(error.message.contains("not of type proc"), "{}", error.message);
    for below in ["/proc/self/attr", "/proc/sys/kernel", "/proc/1/../self"] {
        let bundle = Bundle::new();
        let canary = harness::canary();
        let error = bundle.mount(below, "bind", canary.path(), &["rbind"]).refused("true");
        assert!(
            error.message.contains("inside /proc") || error.message.contains("no such file"),
            "{below}: {}",
            error.message
        );
    }
}

/// CVE-2026-41579: an image whose `/dev` leads away.
#[test]
fn dev_is_not_made_through_a_link() {
    for with_mount in [true, false] {
        for relative in [true, false] {
            let mut bundle = Bundle::new();
            let canary = harness::canary();
            std::fs::write(canary.path().join("ptmx"), "").unwrap();
            replace_by_link(&bundle, "dev", &target_of(canary.path(), relative));
            if !with_mount {
                bundle = bundle.edit(|spec| {
                    spec["mounts"]
                        .as_array_mut()
                        .unwrap()
                        .retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
                });
            }
            bundle.refused("true");
            let left: Vec<_> =
                std::fs::read_dir(canary.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            assert_eq!(left, ["ptmx"]);
            assert!(canary.path().join("ptmx").is_file());
        }
    }
}

/// CVE-2025-31133: a null device that is none, and paths masked with it.
#[test]
fn masking_needs_the_real_null_device() {
    let own_dev = |spec: &mut serde_json::Value| {
        spec["mounts"]
            .as_array_mut()
            .unwrap()
            .retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    };
    let table: [fn(&Path); 2] = [
        |path| symlink("/proc/sys/kernel/core_pattern", path).unwrap(),
        |path| std::fs::write(path, "not a device").unwrap(),
    ];
    for make in table {
        let bundle = Bundle::new().edit(own_dev);
        make(&bundle.root().join("dev/null"));
        bundle.refused("true");
    }
    // Bound from elsewhere, the runtime makes no devices in it, and masks with nothing else than the null device.
    let bundle = Bundle::new().edit(own_dev);
    let canary = harness::canary();
    std::fs::write(canary.path().join("null"), "").unwrap();
    let error = bundle.mount("/dev", "bind", canary.path(), &["rbind"]).refused("true");
    assert!(error.message.contains("is not the null device"), "{}", error.message);
}

/// CVE-2025-52565: a console that leads away.
#[test]
fn the_console_is_bound_by_descriptor() {
    let core_pattern = || std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    let before = core_pattern();
    let mut bundle = Bundle::new().edit(|spec| {
        spec["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/dev");
        spec["linux"]["maskedPaths"] = json!([]);
    });
    symlink("/proc/sys/kernel/core_pattern", bundle.root().join("dev/console")).unwrap();
    bundle = bundle.script("cat /proc/self/mountinfo");
    bundle.spec.process.as_mut().unwrap().terminal = true;
    match runtime::create_and_start(bundle.request(runtime::Stdio::Terminal)) {
        Err(_) => {}
        Ok(mut running) => {
            let mut output = Vec::new();
            let mut master = std::fs::File::from(running.console.take().unwrap());
            let _ends_with_an_error = std::io::Read::read_to_end(&mut master, &mut output);
            let output = String::from_utf8_lossy(&output).into_owned();
            assert!(!output.contains("core_pattern"), "{output}");
            crate::harness::exit_code(&running.pidfd);
            running.destroy().unwrap();
        }
    }
    assert_eq!(core_pattern(), before);
}

struct StopsOnDrop<'a>(&'a AtomicBool);

impl Drop for StopsOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// CVE-2021-30465 and CVE-2024-45310: a mount's destination that is swapped for a link while the container is made.
#[test]
fn a_swapped_destination_leads_nowhere_outside() {
    let first = Bundle::new();
    let volume = first.folder.path().join("volume");
    let canary = harness::canary();
    std::fs::create_dir_all(volume.join("real")).unwrap();
    symlink(canary.path(), volume.join("link")).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Also when an assertion fails: the scope waits for the thread.
        let _stops = StopsOnDrop(&stop);
        scope.spawn(|| {
            use rustix::fs::{CWD, RenameFlags, renameat_with};
            while !stop.load(Ordering::Relaxed) {
                let (real, link) = (volume.join("real"), volume.join("link"));
                let _missing_for_a_moment = renameat_with(CWD, &real, CWD, &link, RenameFlags::EXCHANGE);
            }
        });
        for _ in 0..40 {
            let bundle = Bundle::new().mount("/volume", "bind", &volume, &["rbind"]).mount(
                "/volume/real/below/deep",
                "tmpfs",
                Path::new("tmpfs"),
                &[],
            );
            match bundle.script("cat /proc/self/mountinfo").run() {
                Err(_) => {}
                Ok(outcome) => {
                    for line in outcome.output.lines().filter(|line| line.contains("/below")) {
                        let place = line.split(' ').nth(4).unwrap();
                        assert!(
                            place.starts_with("/volume/") || place.starts_with(canary.path().to_str().unwrap()),
                            "{line}"
                        );
                    }
                }
            }
            assert!(is_empty(canary.path()));
        }
    });
}

/// CVE-2025-52881: what the runtime writes to procfs must not land in what a mount put there.
#[test]
fn sysctls_are_set_behind_what_is_mounted_over_them() {
    let bundle = Bundle::new().edit(|spec| spec["linux"]["sysctl"] = json!({ "kernel.msgmax": "4242" }));
    assert_eq!(
        bundle
            .mount("/proc/loadavg", "bind", Path::new("/etc/hostname"), &["bind"])
            .output("cat /proc/sys/kernel/msgmax"),
        "4242"
    );
}

/// CVE-2016-9962: a process that joins is nobody's to look at before it runs its program.
#[test]
fn a_joining_process_is_not_to_be_looked_at() {
    let mut bundle = Bundle::new().edit(|spec| {
        for set in ["bounding", "effective", "permitted"] {
            spec["process"]["capabilities"][set].as_array_mut().unwrap().retain(|name| name != "CAP_SYS_PTRACE");
        }
    });
    let watch = "while :; do for p in /proc/[0-9]*; do case $p in /proc/1|/proc/$$) continue;; esac; \
                 for fd in $p/fd/*; do t=$(readlink $fd) && case $t in /dev/null|pipe:*|socket:*) ;; /bin/*|/) ;; *) echo leak $t >> /tmp/leaks;; esac; \
                 done; done; done 2>/dev/null";
    bundle = bundle.script(watch);
    let started = bundle.start().unwrap();
    for _ in 0..20 {
        started.shell("true").unwrap();
    }
    let leaks = std::fs::read_to_string(bundle.root().join("tmp/leaks")).unwrap_or_default();
    started.kill();
    let outside: Vec<&str> =
        leaks.lines().filter(|line| !line.contains("/proc/") && !line.contains("deleted")).collect();
    assert!(outside.is_empty(), "{outside:?}");
}

/// CVE-2022-0811: what is no single value is refused; CVE-2021-43784: sizes that overflow are errors.
#[test]
fn configurations_of_absurd_size_are_errors() {
    let mapping = json!({ "containerID": 0, "hostID": 100_000, "size": 1 });
    let bundle = Bundle::new().edit(|spec| {
        spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
        spec["linux"]["uidMappings"] = json!(vec![mapping.clone(); 5000]);
        spec["linux"]["gidMappings"] = json!(vec![mapping.clone(); 5000]);
    });
    assert!(bundle.refused("true").message.contains("more than 340"));
    let long = "x/".repeat(50_000);
    Bundle::new().edit(|spec| spec["linux"]["maskedPaths"] = json!([format!("/{long}")])).refused("true");
    Bundle::new().mount(&format!("/{long}"), "tmpfs", Path::new("tmpfs"), &[]).refused("true");
    Bundle::new().edit(|spec| spec["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": "1\nx" })).refused("true");
}

/// CVE-2026-47262, CVE-2024-40635: files of users that never end, block, or lie.
#[test]
fn hostile_user_files_are_errors() {
    use runtime::Identity;
    type Make = fn(&Path);
    let table: [Make; 3] = [
        |path| {
            rustix::fs::mknodat(
                rustix::fs::CWD,
                path,
                rustix::fs::FileType::Fifo,
                rustix::fs::Mode::from_raw_mode(0o644),
                0,
            )
            .unwrap()
        },
        |path| std::fs::File::create(path).unwrap().set_len(5 << 30).unwrap(),
        |path| symlink("/proc/self/fd/0", path).unwrap(),
    ];
    for make in table {
        for file in ["etc/passwd", "etc/group"] {
            let mut bundle = Bundle::new();
            let path = bundle.root().join(file);
            std::fs::remove_file(&path).unwrap();
            make(&path);
            bundle.identity = Identity::Lookup { groups: vec![] };
            bundle.spec.process.as_mut().unwrap().user.username = "alice:secret".to_owned();
            bundle.refused("true");
        }
    }
}
