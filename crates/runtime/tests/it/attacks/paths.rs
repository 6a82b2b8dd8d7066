//! Paths of an image that lead out of it: links, descriptors, files that are not what they should be.

use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::json;

use super::{is_empty, keep_the_images_dev, replace_by_link, target_of};
use crate::harness::{self, Bundle};

/// CVE-2024-21626: the working directory as a descriptor of the runtime.
///
/// Fails where the directory is entered by its path, without `check_working_directory`.
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

/// CVE-2024-21626 for a further process. Fails as the one before.
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
///
/// Fails without `finish::keep_only`.
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
///
/// Fails without `mounts::must_be_ordinary`.
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
///
/// Fails without `mounts::check_proc`.
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
    // An image's own way into procfs is the same procfs.
    let bundle = Bundle::new();
    symlink("/proc", bundle.root().join("alias")).unwrap();
    let error = bundle.mount("/alias/sys/kernel", "tmpfs", Path::new("tmpfs"), &[]).refused("true");
    assert!(error.message.contains("inside /proc"), "{}", error.message);
}

/// CVE-2026-41579: an image whose `/dev` leads away.
///
/// Fails where `devices::open_dev` follows links out of the root.
#[test]
fn dev_is_not_made_through_a_link() {
    for with_mount in [true, false] {
        for relative in [true, false] {
            let mut bundle = Bundle::new();
            let canary = harness::canary();
            std::fs::write(canary.path().join("ptmx"), "").unwrap();
            replace_by_link(&bundle, "dev", &target_of(canary.path(), relative));
            if !with_mount {
                bundle = bundle.edit(keep_the_images_dev);
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
///
/// Fails without the look at the device in `devices::open_null`.
#[test]
fn masking_needs_the_real_null_device() {
    let table: [fn(&Path); 2] = [
        |path| symlink("/proc/sys/kernel/core_pattern", path).unwrap(),
        |path| std::fs::write(path, "not a device").unwrap(),
    ];
    for make in table {
        let bundle = Bundle::new().edit(keep_the_images_dev);
        make(&bundle.root().join("dev/null"));
        bundle.refused("true");
    }
    // Bound from elsewhere, the runtime makes no devices in it, and masks with nothing else than the null device.
    let bundle = Bundle::new().edit(keep_the_images_dev);
    let canary = harness::canary();
    std::fs::write(canary.path().join("null"), "").unwrap();
    let error = bundle.mount("/dev", "bind", canary.path(), &["rbind"]).refused("true");
    assert!(error.message.contains("is not the null device"), "{}", error.message);
}

/// CVE-2025-52565: a console that leads away.
///
/// Fails where `devices::bind_console` follows links.
#[test]
fn the_console_is_bound_by_descriptor() {
    for target in ["/proc/sys/kernel/core_pattern", "../proc/sys/kernel/core_pattern"] {
        let mut bundle = Bundle::new().edit(|spec| {
            spec["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/dev");
            spec["linux"]["maskedPaths"] = json!([]);
        });
        symlink(target, bundle.root().join("dev/console")).unwrap();
        bundle = bundle.script("cat /proc/self/mountinfo");
        bundle.spec.process.as_mut().unwrap().terminal = true;
        let mut running = runtime::create_and_start(bundle.request(runtime::Stdio::Terminal)).unwrap();
        let mut output = Vec::new();
        let mut master = std::fs::File::from(running.console.take().unwrap());
        let _ends_with_an_error = std::io::Read::read_to_end(&mut master, &mut output);
        harness::exit_code(&running.pidfd);
        running.destroy().unwrap();
        let output = String::from_utf8_lossy(&output);
        assert!(output.contains(" /dev/console ") && !output.contains("core_pattern"), "{output}");
    }
}

/// CVE-2025-52565 again: a terminal is made in a devpts, never in what an image has in its place.
///
/// Fails without the look at the file system in `init::new_terminal`.
#[test]
fn terminals_come_from_a_devpts_only() {
    type Make = fn(&Path);
    let table: [Make; 3] = [
        |path| std::fs::write(path, "").unwrap(),
        |path| symlink("/proc/sys/kernel/core_pattern", path).unwrap(),
        |path| symlink("/dev/zero", path).unwrap(),
    ];
    for make in table {
        let mut bundle = Bundle::new().edit(keep_the_images_dev).script("true");
        std::fs::create_dir_all(bundle.root().join("dev/pts")).unwrap();
        make(&bundle.root().join("dev/pts/ptmx"));
        bundle.spec.process.as_mut().unwrap().terminal = true;
        match runtime::create_and_start(bundle.request(runtime::Stdio::Terminal)) {
            Err(error) => assert!(error.message.contains("/dev/pts"), "{}", error.message),
            Ok(running) => {
                running.signal(9).unwrap();
                harness::exit_code(&running.pidfd);
                running.destroy().unwrap();
                panic!("a terminal came from somewhere");
            }
        }
    }
}

/// CVE-2025-24965: files that are put into an image go where its links lead inside of it.
///
/// Fails without `RESOLVE_IN_ROOT`.
#[test]
fn files_bound_over_links_stay_inside() {
    for relative in [false, true] {
        let bundle = Bundle::new();
        let canary = harness::canary();
        let source = bundle.folder.path().join("hosts");
        std::fs::write(&source, "bound").unwrap();
        let target = target_of(canary.path(), relative);
        symlink(target.join("made"), bundle.root().join("etc/hosts")).unwrap();
        let output = bundle.mount("/etc/hosts", "bind", &source, &["bind"]).output("cat /etc/hosts");
        assert_eq!(output, "bound");
        assert!(is_empty(canary.path()));
    }
}
