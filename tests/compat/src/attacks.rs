//! Published attacks that come with an image or over the API. Each test looks at a canary outside of the container, and where the
//! image's files matter, on every way in which layers are kept.
//!
//! Those on the runtime alone are with it: `runtime`'s integration tests list them all. Of the others:
//!
//! | attack | test |
//! |---|---|
//! | CVE-2014-6407, CVE-2014-9356, CVE-2025-62518, CVE-2026-17106, CVE-2026-33056 | `snapshots attacks::`, on every store |
//! | documents and layers that never end | `images hostile::`, `archive` unit tests |
//! | CVE-2019-14271 | `copies_load_nothing_of_the_containers` |
//! | CVE-2020-15257, CVE-2025-9074 | `a_shared_network_shows_no_socket_of_ours` |
//! | CVE-2021-41091, CVE-2021-41103, CVE-2024-25621 | `nobody_runs_a_containers_programs_on_the_host` |
//! | CVE-2022-23648 | `volumes_are_filled_from_the_image_alone` |
//! | CVE-2022-31030, CVE-2025-64329 | `floods_and_crowds_leave_nothing` |
//! | CVE-2024-9676, CVE-2026-47262 | `files_of_users_are_read_with_suspicion` |
//! | CVE-2024-40635, CVE-2026-46680 | `no_text_becomes_root_by_mistake` |
//! | requests that never end | `a_body_without_end_is_refused` |

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use harness::{Engine, EngineOptions, Output, busybox_tar};

use crate::peers::{descriptors, monitor_of};

/// A user and a group that nobody is.
const NOBODY: u32 = 65534;

/// Runs a test on the store that this kernel prefers, and on unpacked directories.
pub(crate) fn on_both_stores(test: fn(Engine)) {
    for storage in ["auto", "directories"] {
        let arguments = vec!["--storage-backend".to_owned(), storage.to_owned()];
        // A host is a thread's.
        let outcome = std::thread::spawn(move || test(Engine::start_with(EngineOptions { arguments }))).join();
        if let Err(panic) = outcome {
            eprintln!("on storage {storage}:");
            std::panic::resume_unwind(panic);
        }
    }
}

/// Imports the image `hostile`: busybox, changed.
fn import(engine: &Engine, changes: &[&str], change: impl FnOnce(&Path)) {
    let folder = tempfile::tempdir().unwrap();
    let tar =
        |arguments: &[&str]| engine.host().program("tar").args(["-C", folder.path().to_str().unwrap()]).args(arguments);
    tar(&["-xf", "-"]).input(busybox_tar()).ok();
    change(folder.path());
    let image = tar(&["--numeric-owner", "--sparse", "-cf", "-", "."]).run().expect_code(0).stdout;
    let changes = changes.iter().flat_map(|change| ["--change", change]);
    engine.docker(["import"]).args(changes).args(["-", "hostile"]).input(image).ok();
}

fn replace_by_link(root: &Path, name: &str, target: &Path) {
    let path = root.join(name);
    if path.is_dir() {
        std::fs::remove_dir_all(&path).unwrap();
    } else if path.exists() {
        std::fs::remove_file(&path).unwrap();
    }
    symlink(target, path).unwrap();
}

fn run(engine: &Engine, arguments: &[&str]) -> Output {
    engine.docker(["run", "--rm"]).args(arguments).run()
}

/// A folder of the host with a file that no container may read or change.
fn canary(engine: &Engine) -> PathBuf {
    let folder = engine.host().files().join("canary");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("secret"), "secret of the host").unwrap();
    folder
}

fn assert_untouched(canary: &Path) {
    assert_eq!(std::fs::read_dir(canary).unwrap().count(), 1, "something was made in the canary's folder");
    assert_eq!(std::fs::read_to_string(canary.join("secret")).unwrap(), "secret of the host");
}

/// CVE-2025-24965: the files that the engine puts into every container, where the image has links at their places.
///
/// Fails where the runtime makes the places of mounts without `RESOLVE_IN_ROOT`.
#[test]
fn files_of_the_engine_stay_inside() {
    on_both_stores(|engine| {
        let canary = canary(&engine);
        for target in [canary.clone(), Path::new("../../../../../../..").join(canary.strip_prefix("/").unwrap())] {
            import(&engine, &[], |root| {
                for name in ["hosts", "hostname", "resolv.conf"] {
                    replace_by_link(root, &format!("etc/{name}"), &target.join(name));
                }
                replace_by_link(root, "var/tmp", &target);
            });
            let output =
                run(&engine, &["-h", "inside", "--tmpfs", "/var/tmp/below", "hostile", "cat", "/etc/hostname"]);
            assert_eq!(output.expect_code(0).text(), "inside");
            assert_untouched(&canary);
        }
        engine.finish();
    });
}

/// CVE-2019-19921, CVE-2023-27561 and CVE-2026-41579 through an image: `/proc`, `/sys` and `/dev` that lead elsewhere, or have a volume on them.
///
/// Fails without `mounts::must_be_ordinary` and `mounts::check_proc` of the runtime.
#[test]
fn file_systems_of_the_kernel_are_where_they_belong() {
    on_both_stores(|engine| {
        let canary = canary(&engine);
        for name in ["proc", "sys", "dev"] {
            for target in [canary.as_path(), Path::new("/tmp")] {
                import(&engine, &[], |root| replace_by_link(root, name, target));
                run(&engine, &["hostile", "true"]).expect_code(125);
                assert_untouched(&canary);
            }
        }
        import(&engine, &["VOLUME /proc"], |_| {});
        run(&engine, &["hostile", "true"]).expect_code(125);
        run(&engine, &["-v", "named:/proc", "hostile", "true"]).expect_code(125);
        run(&engine, &["-v", "named:/proc/sys/kernel", "hostile", "true"]).expect_code(125);
        engine.finish();
    });
}

/// CVE-2022-23648: a volume of an image whose path leads out, and from where it is filled.
///
/// Fails where `copy_up` looks for the target by its path alone.
#[test]
fn volumes_are_filled_from_the_image_alone() {
    on_both_stores(|engine| {
        let canary = canary(&engine);
        let climbing = format!("VOLUME /../../../../../../../..{}", canary.display());
        import(&engine, &[&climbing, "VOLUME /absolute", "VOLUME /relative/sub"], |root| {
            symlink(&canary, root.join("absolute")).unwrap();
            let up = Path::new("../../../../../../..").join(canary.parent().unwrap().strip_prefix("/").unwrap());
            symlink(up, root.join("relative")).unwrap();
        });
        let find = "find / -xdev -name secret; find /absolute /relative -name secret";
        // Not with --rm, which takes the volumes along.
        let found = engine.docker(["run", "hostile", "sh", "-c", find]).run();
        assert!(!found.text().contains("secret"), "{found:?}");
        let volumes: Vec<_> = std::fs::read_dir(engine.root_folder().join("volumes")).unwrap().flatten().collect();
        assert_eq!(volumes.len(), 3, "{found:?}");
        for volume in volumes {
            let content = std::fs::read_dir(volume.path().join("_data")).unwrap();
            assert_eq!(content.count(), 0, "a volume was filled");
        }
        assert_untouched(&canary);
        engine.finish();
    });
}

/// CVE-2024-40635, CVE-2026-46680 and CVE-2026-30892: texts that overflow to user 0, or that an image gives that meaning.
///
/// Fails where `users::parse_half` of the runtime wraps numbers or takes anything for a name.
#[test]
fn no_text_becomes_root_by_mistake() {
    let engine = Engine::start();
    let evil = ["4294967296", "4294967295", "2147483648", "-1", "+0", "0x0", " 0", "1e0", "00000000000000000000x"];
    import(&engine, &["USER 4294967296"], |root| {
        let lines: String = evil.iter().map(|name| format!("{name}:x:0:0::/:/bin/sh\n")).collect();
        std::fs::write(root.join("etc/passwd"), format!("root:x:0:0::/:\ndaily:x:1000:1000::/:\n{lines}")).unwrap();
        std::fs::write(
            root.join("etc/group"),
            "root:x:0:\ndaily:x:1000:\n".to_owned() + &lines.replace(":/:/bin/sh", ""),
        )
        .unwrap();
    });
    run(&engine, &["hostile", "true"]).expect_code(125);
    engine.docker(["run", "-d", "--name", "one", "-u", "daily", "hostile", "sleep", "1000"]).ok();
    for text in evil {
        run(&engine, &["-u", text, "hostile", "id"]).expect_code(125);
        run(&engine, &["-u", &format!("1:{text}"), "hostile", "id"]).expect_code(125);
        let exec = engine.docker(["exec", "-u", text, "one", "id"]).run();
        assert_ne!(exec.code, 0, "{exec:?}");
    }
    for (text, expected) in
        [("1", "1 0"), ("1:", "1 0"), (":1", "0 1"), ("1:1", "1 1"), ("daily", "1000 1000"), ("daily:7", "1000 7")]
    {
        let id = "echo $(id -u) $(id -g)";
        assert_eq!(run(&engine, &["-u", text, "hostile", "sh", "-c", id]).text(), expected, "{text}");
        assert_eq!(engine.docker(["exec", "-u", text, "one", "sh", "-c", id]).ok(), expected, "{text}");
    }
    engine.finish();
}

/// CVE-2024-9676 and CVE-2026-47262: files of users that lead to the host's, never end or take all memory.
///
/// Fails without the limit of `users::each_line` in the runtime.
#[test]
fn files_of_users_are_read_with_suspicion() {
    on_both_stores(|engine| {
        let host = engine.host().files().join("passwd");
        std::fs::write(&host, "hosts-own:x:0:0::/:/bin/sh\n").unwrap();
        import(&engine, &[], |root| replace_by_link(root, "etc/passwd", &host));
        let linked = run(&engine, &["-u", "hosts-own", "hostile", "true"]).expect_code(125);
        assert!(linked.error_text().contains("unable to find user hosts-own"), "{linked:?}");
        import(&engine, &[], |root| {
            std::fs::remove_file(root.join("etc/group")).unwrap();
            engine.host().program("mkfifo").arg(root.join("etc/group")).ok();
        });
        run(&engine, &["-u", "daily", "hostile", "true"]).expect_code(125);
        import(&engine, &[], |root| {
            std::fs::File::create(root.join("etc/group")).unwrap().set_len(3 << 30).unwrap();
        });
        let endless = run(&engine, &["-u", "daily", "hostile", "true"]).expect_code(125);
        assert!(endless.error_text().contains("too large"), "{endless:?}");
        engine.finish();
    });
}

/// CVE-2022-36109 and its kin: groups of the image that shut somebody out, for the first process and for others.
///
/// Fails where the runtime does not look up the groups of a user.
#[test]
fn groups_shut_out_whom_they_shut_out() {
    let engine = Engine::with_busybox();
    let make = "echo secret > /tmp/file; chown 0:50000 /tmp/file; chmod 604 /tmp/file";
    engine.docker(["run", "-d", "--name", "one", "busybox", "sh", "-c", &format!("{make}; sleep 1000")]).ok();
    engine
        .docker(["exec", "one", "sh", "-c", "until [ -e /tmp/file ] && [ $(stat -c %a /tmp/file) = 604 ]; do :; done"])
        .ok();
    let denied = engine.docker(["exec", "-u", "daily", "one", "cat", "/tmp/file"]).run();
    assert!(denied.error_text().contains("Permission denied"), "{denied:?}");
    assert_eq!(engine.docker(["exec", "-u", "nobody", "one", "cat", "/tmp/file"]).ok(), "secret");
    assert_eq!(run(&engine, &["-u", "daily", "busybox", "id", "-G"]).text(), "1000 50000");
    engine.finish();
}

/// CVE-2019-5736: the engine's own program, which is every container's init for a moment, or for its life with `--init`.
///
/// Fails where the specification binds init so that it can be written to. (What runs cannot be written to in any case; the attack that
/// waits for its end is `oci-conformance attacks::`.)
#[test]
fn the_engines_program_is_not_to_be_written_to() {
    let engine = Engine::with_busybox();
    // Opened without a byte being written: the program is everybody's.
    let attempt = "grep docker-init /proc/self/mountinfo; true >> /sbin/docker-init; true >> /proc/1/exe; \
                   mv /sbin/docker-init /x; mount -o remount,rw,bind /sbin/docker-init";
    let output = run(&engine, &["--init", "--cap-add", "SYS_PTRACE", "busybox", "sh", "-c", attempt]);
    assert!(output.text().contains(" /sbin/docker-init ro,"), "{output:?}");
    assert_eq!(output.error_text().lines().count(), 4, "{output:?}");
    import(&engine, &[], |root| {
        std::fs::write(root.join("script"), "#!/proc/self/exe\n").unwrap();
        std::fs::set_permissions(root.join("script"), PermissionsExt::from_mode(0o755)).unwrap();
        symlink("/proc/self/exe", root.join("link")).unwrap();
    });
    assert_ne!(run(&engine, &["hostile", "/script"]).code, 0);
    assert_ne!(run(&engine, &["hostile", "/link", "init", "--", "sh", "-c", "true >> /proc/1/exe"]).code, 0);
    engine.finish();
}

/// What a process holds in memory, or has held at most.
pub(crate) fn memory_bytes(pid: u32, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// CVE-2018-20699 and CVE-2022-0811: lists of processors that name a billion of them, and kernel parameters that are not the container's.
///
/// Fails where such lists are expanded (`validate::parse_set`), and without `sysctl::check` of the runtime.
#[test]
fn absurd_values_are_refused_at_no_cost() {
    let engine = Engine::with_busybox();
    let many = ["0-8192"; 9000].join(",");
    for list in ["0-999999999", "0-4294967295", &many] {
        run(&engine, &["--cpuset-cpus", list, "busybox", "true"]).expect_code(125);
        run(&engine, &["--cpuset-mems", list, "busybox", "true"]).expect_code(125);
    }
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    for parameter in [
        "kernel.core_pattern=|/x",
        "kernel.shm_rmid_forced=1+kernel.core_pattern=|/x",
        "net.ipv4.ip_forward=1\nkernel.core_pattern=x",
        "net/../kernel/core_pattern=x",
    ] {
        run(&engine, &["--sysctl", parameter, "busybox", "true"]).expect_code(125);
    }
    assert_eq!(std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap(), pattern);
    let held = memory_bytes(engine.pid(), "VmHWM");
    assert!(held < 96 << 20, "the daemon has held {held} bytes");
    engine.finish();
}

/// CVE-2020-15257 and CVE-2025-9074: a container in the host's network sees the host's abstract sockets and ports, and may connect to
/// them.
///
/// Fails where the engine, a monitor or its pool listens on one.
#[test]
fn a_shared_network_shows_no_socket_of_ours() {
    let engine = Engine::with_busybox();
    engine.docker(["run", "-d", "busybox", "sleep", "1000"]).ok();
    let sockets = run(&engine, &["--network", "host", "busybox", "cat", "/proc/net/unix"]).expect_code(0).text();
    assert!(sockets.lines().count() > 1, "the engine's own are in this network: {sockets}");
    let abstract_ones: Vec<&str> = sockets.lines().filter(|line| line.contains(" @")).collect();
    assert!(abstract_ones.is_empty(), "{abstract_ones:?}");
    let tcp = run(&engine, &["--network", "host", "busybox", "cat", "/proc/net/tcp", "/proc/net/tcp6"]).text();
    let listening: Vec<&str> = tcp.lines().filter(|line| line.split_whitespace().nth(3) == Some("0A")).collect();
    assert!(listening.is_empty(), "{listening:?}");
    engine.finish();
}

/// CVE-2021-41091, CVE-2021-41103 and CVE-2024-25621: a program with the set-user-ID bit in a container's files, run by a user of the host.
///
/// Fails where a folder of layers, containers or volumes may be entered by everybody.
#[test]
fn nobody_runs_a_containers_programs_on_the_host() {
    on_both_stores(|engine| {
        std::fs::set_permissions(engine.host().scratch(), PermissionsExt::from_mode(0o755)).unwrap();
        import(&engine, &[], |root| {
            std::fs::set_permissions(root.join("bin/busybox"), PermissionsExt::from_mode(0o4755)).unwrap();
        });
        let script = "cp -p /bin/busybox /tmp/suid; cp -p /bin/busybox /data/suid; chmod 777 /data; sleep 1000";
        engine.docker(["run", "-d", "--name", "one", "-v", "data:/data", "hostile", "sh", "-c", script]).ok();
        engine.docker(["exec", "one", "sh", "-c", "until [ -u /data/suid ]; do :; done"]).ok();
        let folders = [engine.root_folder(), engine.run_folder()];
        let find = || engine.host().program("find").args(&folders).args(["-perm", "-4000", "-type", "f"]);
        let seen_by_root = find().ok();
        assert!(seen_by_root.lines().count() >= 2, "{seen_by_root}");
        let mut command = find().into_command();
        let seen = command.uid(NOBODY).gid(NOBODY).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&seen.stdout), "");
        // Folders that cannot be listed may be entered by who knows a name.
        for path in seen_by_root.lines() {
            let mut command = engine.host().program("test").args(["-e", path]).into_command();
            assert!(!command.uid(NOBODY).gid(NOBODY).status().unwrap().success(), "{path}");
        }
        engine.finish();
    });
}

/// CVE-2019-14271: libraries of the container that whoever copies its files may load, for the names of users, say.
///
/// They are pipes that nobody writes to: whoever opens one waits, and fails the test.
#[test]
fn copies_load_nothing_of_the_containers() {
    on_both_stores(|engine| {
        import(&engine, &[], |root| {
            let libraries = ["lib/x86_64-linux-gnu", "lib64", "usr/lib/x86_64-linux-gnu", "etc"];
            for folder in libraries {
                std::fs::create_dir_all(root.join(folder)).unwrap();
                for name in ["libnss_files.so.2", "libc.so.6", "ld-linux-x86-64.so.2", "ld.so.preload", "ld.so.cache"] {
                    rustix::fs::mkfifoat(rustix::fs::CWD, root.join(folder).join(name), 0o777.into()).unwrap();
                }
            }
            for name in ["nsswitch.conf", "localtime", "locale.alias"] {
                rustix::fs::mkfifoat(rustix::fs::CWD, root.join("etc").join(name), 0o777.into()).unwrap();
            }
        });
        let file = engine.host().files().join("file");
        std::fs::write(&file, "copied").unwrap();
        let file = file.to_str().unwrap();
        engine.docker(["run", "-d", "--name", "one", "hostile", "sleep", "1000"]).ok();
        for _ in ["running", "stopped"] {
            engine.docker(["cp", "-a", file, "one:/tmp/file"]).ok();
            engine.docker(["cp", "one:/tmp/file", file]).ok();
            let copied = engine.docker(["cp", "-a", "one:/etc", "-"]).run().expect_code(0).stdout;
            assert!(copied.windows(13).any(|name| name == b"nsswitch.conf"));
            engine.docker(["diff", "one"]).ok();
            engine.docker(["export", "-o", "/dev/null", "one"]).run();
            engine.docker(["commit", "one", "committed"]).ok();
            engine.docker(["stop", "-t", "0", "one"]).ok();
        }
        engine.finish();
    });
}

/// CVE-2022-31030 and CVE-2025-64329: output without end and clients that come and go take no memory, thread or descriptor for good.
///
/// Fails where output is collected before it is passed on.
#[test]
fn floods_and_crowds_leave_nothing() {
    let engine = Engine::with_busybox();
    engine.docker(["run", "-d", "--name", "one", "busybox", "sleep", "1000"]).ok();
    let flood = |bytes: &str| {
        let script = format!("head -c {bytes} /dev/zero");
        engine.docker(["exec", "one", "sh", "-c", &script]).run().expect_code(0).stdout.len()
    };
    let crowd = |count: usize| {
        for _ in 0..count {
            let mut client = engine.docker(["attach", "--sig-proxy=false", "one"]).spawn();
            client.kill().unwrap();
            client.wait().unwrap();
        }
    };
    let processes = [engine.pid(), monitor_of(&engine, "one")];
    assert_eq!(flood("1000000"), 1_000_000);
    crowd(5);
    let before = processes.map(|pid| (memory_bytes(pid, "VmHWM"), descriptors(pid)));
    assert_eq!(flood("100000000"), 100_000_000);
    crowd(40);
    // Connections end a moment after their client.
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    for (pid, (memory, descriptors)) in processes.into_iter().zip(before) {
        let grown = memory_bytes(pid, "VmHWM") - memory;
        assert!(grown < 32 << 20, "the memory of {pid} grew by {grown} bytes");
        while crate::peers::descriptors(pid) > descriptors + 8 {
            assert!(std::time::Instant::now() < end, "descriptors of {pid} are left");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
    engine.finish();
}

/// A body that does not end is refused before it fills the memory.
///
/// Fails where the API reads bodies whole.
#[test]
fn a_body_without_end_is_refused() {
    let engine = Engine::with_busybox();
    let before = memory_bytes(engine.pid(), "VmHWM");
    let mut client = std::os::unix::net::UnixStream::connect(engine.socket()).unwrap();
    client.write_all(b"POST /v1.43/containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
    let chunk = [b"100000\r\n".as_slice(), &vec![b' '; 1 << 20], b"\r\n"].concat();
    // The engine may answer and hang up before it was given everything.
    let refused = (0..256).any(|_| client.write_all(&chunk).is_err());
    let mut answer = String::new();
    let _reset_after_the_answer = client.read_to_string(&mut answer);
    assert!(refused || answer.starts_with("HTTP/1.1 4"), "{answer}");
    let grown = memory_bytes(engine.pid(), "VmHWM") - before;
    assert!(grown < 64 << 20, "the daemon's memory grew by {grown} bytes");
    engine.finish();
}

/// CVE-2020-14386, CVE-2022-0185 and CVE-2026-31431: calls that led to faults of the kernel, by both of the machine's ways to call.
///
/// `socketcall` of 32-bit programs can make any socket, as in Docker: a filter does not see its arguments.
/// Fails without Docker's default profile.
#[cfg(target_arch = "x86_64")]
#[test]
fn calls_that_led_to_faults_are_refused_by_both_ways() {
    const EPERM: u8 = 1;
    const ENOSYS: u8 = 38;
    // Number on x86-64, on i386, arguments, expected.
    let table: [(&str, u32, u32, [u32; 3], u8); 9] = [
        ("socket-unix", 41, 359, [1, 1, 0], 0u8.wrapping_sub(3)),
        ("socket-alg", 41, 359, [38, 5, 0], EPERM),
        ("unshare-user", 272, 310, [0x1000_0000, 0, 0], EPERM),
        ("fsopen", 430, 430, [0, 0, 0], EPERM),
        ("keyctl", 250, 288, [0, 0, 0], EPERM),
        ("bpf", 321, 357, [0, 0, 0], EPERM),
        ("userfaultfd", 323, 374, [0, 0, 0], EPERM),
        ("io-uring-setup", 425, 425, [1, 0, 0], EPERM),
        ("clone3", 435, 435, [0, 0, 0], ENOSYS),
    ];
    let engine = Engine::with_busybox();
    let folder = engine.host().files().join("calls");
    std::fs::create_dir(&folder).unwrap();
    let mut expected = Vec::new();
    for (name, number, number_32, arguments, outcome) in table {
        for (width, program) in [(64, program_64(number, arguments)), (32, program_32(number_32, arguments))] {
            let path = folder.join(format!("{name}-{width}"));
            std::fs::write(&path, program).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
            // Not every kernel runs programs of 32 bits.
            if width == 64 || std::process::Command::new(&path).status().is_ok() {
                expected.push(format!("/calls/{name}-{width} {outcome}"));
            }
        }
    }
    expected.sort_unstable();
    let bind = format!("{}:/calls:ro", folder.display());
    let script = "for call in /calls/*; do $call 2>/dev/null; echo $call $?; done";
    let output = run(&engine, &["-v", &bind, "busybox", "sh", "-c", script]).expect_code(0).text();
    let mut lines: Vec<&str> = output.lines().filter(|line| expected.len() == 18 || line.contains("-64 ")).collect();
    lines.sort_unstable();
    assert_eq!(lines, expected);
    engine.finish();
}

/// A program that makes one system call and exits with its error number, or 256 less what it returned.
#[cfg(target_arch = "x86_64")]
fn program_64(number: u32, arguments: [u32; 3]) -> Vec<u8> {
    let mut code = Vec::new();
    // mov eax, edi, esi, edx; syscall; neg eax; mov edi, eax; mov eax, 60; syscall
    for (register, value) in [0xb8, 0xbf, 0xbe, 0xba].into_iter().zip(std::iter::once(number).chain(arguments)) {
        code.push(register);
        code.extend(value.to_le_bytes());
    }
    code.extend([0x0f, 0x05, 0xf7, 0xd8, 0x89, 0xc7, 0xb8, 60, 0, 0, 0, 0x0f, 0x05]);
    let (base, headers) = (0x40_0000_u64, 64 + 56_u64);
    let size = headers + code.len() as u64;
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
    for word in [base + headers, 64, 0] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend(b"\0\0\0\0\x40\0\x38\0\x01\0\0\0\0\0\0\0\x01\0\0\0\x05\0\0\0");
    for word in [0, base, base, size, size, 0x1000] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend(code);
    elf
}

/// As [`program_64`], by `int 0x80`.
#[cfg(target_arch = "x86_64")]
fn program_32(number: u32, arguments: [u32; 3]) -> Vec<u8> {
    let mut code = Vec::new();
    // mov eax, ebx, ecx, edx; int 0x80; neg eax; mov ebx, eax; mov eax, 1; int 0x80
    for (register, value) in [0xb8, 0xbb, 0xb9, 0xba].into_iter().zip(std::iter::once(number).chain(arguments)) {
        code.push(register);
        code.extend(value.to_le_bytes());
    }
    code.extend([0xcd, 0x80, 0xf7, 0xd8, 0x89, 0xc3, 0xb8, 1, 0, 0, 0, 0xcd, 0x80]);
    let (base, headers) = (0x0804_8000_u32, 52 + 32_u32);
    let size = headers + code.len() as u32;
    let mut elf = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x03\0\x01\0\0\0".to_vec();
    for word in [base + headers, 52, 0, 0] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend(b"\x34\0\x20\0\x01\0\0\0\0\0\0\0");
    for word in [1, 0, base, base, size, size, 5, 0x1000] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend(code);
    elf
}
