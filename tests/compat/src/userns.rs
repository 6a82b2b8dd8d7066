//! `--userns-remap` and `--userns`: root in the container is not root outside.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use harness::{Engine, EngineOptions, Host};

/// The host's user who is root in containers.
const ROOT: u32 = 210_000;

fn engine(arguments: &[&str]) -> Engine {
    engine_in(Host::new(), arguments)
}

fn engine_in(host: Host, arguments: &[&str]) -> Engine {
    let arguments = arguments.iter().map(|word| (*word).to_owned()).collect();
    host.own("/etc");
    for file in ["/etc/subuid", "/etc/subgid"] {
        let text = format!("dockremap:{ROOT}:65536\nother:400000:65536\ncontainers:1000000:140000\n");
        std::fs::write(file, text).expect("a file of our own");
    }
    let engine = Engine::start_in(host, EngineOptions { arguments });
    engine.import_busybox();
    engine
}

/// A status line's numbers of a container's first process.
fn status(engine: &Engine, name: &str, field: &str) -> String {
    let pid = pid(engine, name);
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("the field is there");
    line.split_whitespace().next().expect("a number").to_owned()
}

fn pid(engine: &Engine, name: &str) -> String {
    engine.docker(["inspect", "-f", "{{.State.Pid}}", name]).ok()
}

/// A folder of the host with a file that only root may read.
fn canary(engine: &Engine) -> String {
    let folder = engine.host().files();
    let file = folder.join("canary");
    std::fs::write(&file, "secret").expect("a new file");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("it is ours");
    folder.display().to_string()
}

#[test]
fn root_in_the_container_is_not_root_outside() {
    let mut engine = engine(&["--userns-remap=default"]);
    let options = engine.docker(["info", "-f", "{{.SecurityOptions}}"]).ok();
    assert!(options.contains("name=userns"), "{options}");

    let folder = canary(&engine);
    let bind = format!("{folder}:/host");
    let script = "touch /made /data/made; mkdir /owned; chown 5:6 /owned; exec sleep 1000";
    let run = [
        "run",
        "-d",
        "--name",
        "one",
        "--memory",
        "64m",
        "-v",
        &bind,
        "-v",
        "data:/data",
        "busybox",
        "sh",
        "-c",
        script,
    ];
    engine.docker(run).ok();
    let exec = |words: &[&str]| engine.docker(["exec", "one"]).args(words);
    assert_eq!(status(&engine, "one", "Uid:"), ROOT.to_string());
    let map = exec(&["cat", "/proc/self/uid_map"]).ok();
    assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", &ROOT.to_string(), "65536"]);

    // Owners, from inside and from outside.
    let owners =
        exec(&["stat", "-c", "%u:%g", "/", "/bin/busybox", "/made", "/owned", "/data", "/data/made", "/etc/hosts"]);
    assert_eq!(owners.ok().split_whitespace().collect::<Vec<_>>(), ["0:0", "0:0", "0:0", "5:6", "0:0", "0:0", "0:0"]);
    let outside = |path: &str| {
        let metadata = std::fs::metadata(format!("/proc/{}/root{path}", pid(&engine, "one"))).expect("it is there");
        (metadata.uid(), metadata.gid())
    };
    for path in ["/", "/bin/busybox", "/made", "/data/made"] {
        assert_eq!(outside(path), (ROOT, ROOT), "{path}");
    }
    assert_eq!(outside("/owned"), (ROOT + 5, ROOT + 6));

    // The host's root-only file, device nodes and kernel stay out of reach.
    for script in [
        "cat /host/canary",
        "echo x >> /host/canary",
        "touch /host/new",
        "mknod /disk b 8 0",
        "hostname x; mount -t tmpfs t /mnt",
    ] {
        assert_ne!(exec(&["sh", "-c", script]).run().code, 0, "{script}");
    }
    assert_eq!(std::fs::read_to_string(format!("{folder}/canary")).expect("it is ours"), "secret");

    // Its network is its own, and so is its cgroup below the engine's.
    let reach = "ping -c 1 -W 5 $(ip route | sed -n 's/default via \\([^ ]*\\).*/\\1/p') && nc -l -p 80 & sleep 0.1; ls /sys/class/net";
    assert!(exec(&["sh", "-c", reach]).ok().contains("eth0"));
    let limit = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes || cat /sys/fs/cgroup/memory.max";
    assert_eq!(exec(&["sh", "-c", limit]).ok(), (64 << 20).to_string());
    let stats = engine.docker(["stats", "--no-stream", "--format", "{{.MemUsage}}", "one"]).ok();
    assert!(stats.ends_with("/ 64MiB") && !stats.starts_with("0B"), "{stats}");

    engine.kill();
    engine.launch();
    let exec = |words: &[&str]| engine.docker(["exec", "one"]).args(words);
    assert_eq!(exec(&["id", "-u"]).ok(), "0");
    engine.docker(["restart", "-t", "0", "one"]).ok();
    assert_eq!(exec(&["stat", "-c", "%u", "/owned"]).ok(), "5");
    engine.finish();
}

#[test]
fn the_cgroup_is_below_the_configured_parent() {
    let engine = engine(&["--userns-remap=other"]);
    let parent = format!("/{}/pods", engine.host().name());
    engine
        .docker([
            "run",
            "-d",
            "--name",
            "one",
            "--cgroup-parent",
            &parent,
            "--pids-limit",
            "50",
            "busybox",
            "sleep",
            "1000",
        ])
        .ok();
    let cgroups = std::fs::read_to_string(format!("/proc/{}/cgroup", pid(&engine, "one"))).expect("it runs");
    let id = engine.docker(["inspect", "-f", "{{.Id}}", "one"]).ok();
    let pids = cgroups.lines().find(|line| line.contains(":pids:") || line.starts_with("0::")).expect("a hierarchy");
    assert!(pids.ends_with(&format!("{parent}/{id}")), "{cgroups}");
    assert_eq!(status(&engine, "one", "Uid:"), "400000");
    engine.docker(["rm", "-f", "one"]).ok();
    remove_cgroups(&parent);
    engine.finish();
}

/// A parent of the user's own choice stays, as with Docker; its last child goes a moment after the container.
fn remove_cgroups(parent: &str) {
    let hierarchies = std::fs::read_dir("/sys/fs/cgroup").expect("cgroups are mounted").flatten();
    for folder in hierarchies.map(|hierarchy| format!("{}{parent}", hierarchy.path().display())) {
        for _ in 0..500 {
            match std::fs::remove_dir(&folder) {
                Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => {
                    std::thread::sleep(std::time::Duration::from_millis(10));
                }
                _ => break,
            }
        }
    }
}

#[test]
fn files_serve_containers_with_and_without_a_user_namespace() {
    let engine = engine(&["--userns-remap=default"]);
    let run = |words: &[&str]| engine.docker(["run", "--rm", "-v", "data:/data"]).args(words);
    assert_eq!(run(&["busybox", "sh", "-c", "echo hello > /data/file; chown 1000:1000 /data/file; id -u"]).ok(), "0");
    let look = ["busybox", "sh", "-c", "stat -c %u:%g /data /data/file; cat /proc/self/uid_map"];
    let host = run(&["--userns=host"]).args(look).ok();
    assert!(host.starts_with("0:0\n1000:1000\n") && host.contains("4294967295"), "{host}");
    // Docker's command line does not know the word.
    let private = engine.conex(["run", "--rm", "-v", "data:/data", "--userns=private"]).args(look).ok();
    assert!(private.starts_with("0:0\n1000:1000\n") && private.contains(&ROOT.to_string()), "{private}");
    run(&["--userns=host", "--privileged", "--network=host", "busybox", "true"]).ok();

    // What was changed belongs to the image's users, whoever takes it out.
    engine.docker(["run", "--name", "one", "busybox", "sh", "-c", "touch /made; chown 7:8 /made"]).ok();
    let tar = engine.docker(["export", "one"]).run().expect_code(0).stdout;
    let list = engine.host().program("tar").args(["--numeric-owner", "-tvf", "-"]).input(tar).ok();
    let made = list.lines().find(|line| line.ends_with(" made")).expect("it is in the tar");
    assert!(made.contains(" 7/8 "), "{made}");
    assert_eq!(engine.docker(["diff", "one"]).ok(), "A /made");
    engine.docker(["volume", "rm", "data"]).ok();
    engine.finish();
}

#[test]
fn namespaces_are_shared_within_one_user_namespace() {
    let engine = engine(&["--userns-remap=default"]);
    engine.docker(["run", "-d", "--name", "one", "--ipc", "shareable", "busybox", "sleep", "1000"]).ok();
    let run = |words: &[&str]| engine.docker(["run", "--rm"]).args(words);
    let own = engine.docker(["exec", "one", "readlink", "/proc/self/ns/net"]).ok();
    let all = [
        "--network=container:one",
        "--pid=container:one",
        "--ipc=container:one",
        "busybox",
        "readlink",
        "/proc/1/ns/net",
    ];
    assert_eq!(run(&all).ok(), own);
    run(&["--network=none", "--cap-add=NET_ADMIN", "busybox", "ip", "link", "set", "lo", "down"]).ok();
    for (options, message) in [
        (&["--privileged"][..], "privileged mode is incompatible with user namespaces"),
        (&["--network=host"], "cannot share the host's network namespace when user namespaces are enabled"),
        (&["--pid=host"], "cannot share the host PID namespace when user namespaces are enabled"),
        (&["--pid=container:one"], "must share its network too"),
    ] {
        let error = run(options).args(["busybox", "true"]).fails(125);
        assert!(error.contains(message), "{options:?}: {error}");
    }
    engine.finish();
}

#[test]
fn a_user_without_ranges_is_named() {
    let host = Host::new();
    let run = host.scratch().join("run").display().to_string();
    let root = host.scratch().join("root").display().to_string();
    let error = host.conex().args(["daemon", "--userns-remap=nosuchuser", "--root", &root, "--run", &run]).fails(1);
    assert!(error.contains("no subuid ranges found for user \"nosuchuser\" in /etc/subuid"), "{error}");
}

#[test]
fn copies_keep_the_containers_owners() {
    let engine = engine(&["--userns-remap=default"]);
    let script = "mkdir /d; echo x > /d/f; chown 5:6 /d/f; exec sleep 1000";
    engine.docker(["run", "-d", "--name", "one", "-v", "data:/data", "busybox", "sh", "-c", script]).ok();
    engine.docker(["exec", "one", "sh", "-c", "until [ -s /d/f ]; do sleep 0.1; done"]).ok();
    let host = engine.host();
    let owner = |tar: Vec<u8>, name: &str| {
        let list = host.program("tar").args(["--numeric-owner", "-tvf", "-"]).input(tar).ok();
        let line = list.lines().find(|line| line.ends_with(&format!(" {name}"))).expect("it is in the tar").to_owned();
        line.split_whitespace().nth(1).expect("an owner").to_owned()
    };
    // Out of the running container, in both ways.
    let copied = |path: &str| engine.docker(["cp", path, "-"]).run().expect_code(0).stdout;
    assert_eq!(owner(copied("one:/d"), "d/f"), "5/6");
    assert_eq!(owner(engine.docker(["export", "one"]).run().expect_code(0).stdout, "d/f"), "5/6");

    // And into it: files of a user's, files of nobody in particular, and into a volume.
    std::fs::write(host.files().join("in"), "in").expect("a new file");
    let packed = |owner: &str| {
        let words = [&format!("--owner={owner}"), &format!("--group={owner}"), "--numeric-owner", "-cf", "-", "in"];
        host.program("tar").arg("-C").arg(host.files()).args(words).run().expect_code(0).stdout
    };
    engine.docker(["cp", "-", "one:/d"]).input(packed("7")).ok();
    let file = host.files().join("in").display().to_string();
    for target in ["one:/made", "one:/data/made"] {
        engine.docker(["cp", &file, target]).ok();
    }
    let stat = engine.docker(["exec", "one", "stat", "-c", "%u:%g", "/d/in", "/made", "/data/made"]).ok();
    assert_eq!(stat.split_whitespace().collect::<Vec<_>>(), ["7:7", "0:0", "0:0"]);
    let refused = engine.docker(["cp", "-", "one:/d"]).input(packed("70000")).fails(1);
    assert!(refused.contains("is nobody in the container's user namespace"), "{refused}");

    // Stopped, its files are the same.
    engine.docker(["kill", "one"]).ok();
    assert_eq!(owner(copied("one:/d"), "d/f"), "5/6");
    assert_eq!(owner(copied("one:/d"), "d/in"), "7/7");
    engine.docker(["cp", "-", "one:/data"]).input(packed("9")).ok();
    assert_eq!(owner(copied("one:/data"), "data/in"), "9/9");
    engine.docker(["rm", "one"]).ok();
    engine.docker(["volume", "rm", "data"]).ok();
    engine.finish();
}

#[test]
fn other_runtimes_run_them_too() {
    let host = Host::new();
    // crun refuses a hybrid layout as long as it can see the v2 hierarchy.
    host.lose("/sys/fs/cgroup/unified");
    let engine = engine_in(host, &["--userns-remap=default"]);
    for runtime in ["runc", "crun"] {
        let script = "touch /made /data/made; chown 5:6 /made; id -u; ls /sys/class/net; exec sleep 1000";
        let run =
            ["run", "-d", "--name", runtime, "--runtime", runtime, "-v", "data:/data", "--tmpfs", "/t", "busybox"];
        engine.docker(run).args(["sh", "-c", script]).ok();
        assert_eq!(status(&engine, runtime, "Uid:"), ROOT.to_string(), "{runtime}");
        let exec = |words: &[&str]| engine.docker(["exec", runtime]).args(words);
        exec(&["sh", "-c", "until [ -e /data/made ]; do sleep 0.1; done"]).ok();
        let owners = exec(&["stat", "-c", "%u:%g", "/", "/bin/busybox", "/made", "/data", "/data/made", "/etc/hosts"]);
        let owners = owners.ok();
        assert_eq!(
            owners.split_whitespace().collect::<Vec<_>>(),
            ["0:0", "0:0", "5:6", "0:0", "0:0", "0:0"],
            "{runtime}"
        );
        let logs = engine.docker(["logs", runtime]).ok();
        assert!(logs.starts_with("0\n") && logs.contains("eth0"), "{logs}");
        // Its network is its own.
        engine
            .docker([
                "run",
                "--rm",
                "--runtime",
                runtime,
                "--cap-add=NET_ADMIN",
                "busybox",
                "ip",
                "link",
                "set",
                "lo",
                "down",
            ])
            .ok();
        // What it has made is there for our own runtime, and without a user namespace.
        engine.docker(["cp", &format!("{runtime}:/made"), "-"]).run().expect_code(0);
        let look = ["run", "--rm", "-v", "data:/data", "--userns=host", "busybox", "stat", "-c", "%u:%g", "/data/made"];
        assert_eq!(engine.docker(look).ok(), "0:0");
        engine.docker(["rm", "-f", runtime]).ok();
        let kept = ["run", "--rm", "-v", "data:/data", "busybox", "ls", "/data"];
        assert_eq!(engine.docker(kept).ok(), "made", "the volume's files went with the bundle");
    }
    engine.docker(["volume", "rm", "data"]).ok();
    // crun takes the empty folder in the place of the v2 hierarchy for one.
    let _not_there = std::fs::remove_dir_all(std::path::Path::new("/sys/fs/cgroup/unified").join(engine.host().name()));
    engine.finish();
}

#[test]
fn ids_that_no_other_container_has() {
    for arguments in [&[][..], &["--userns-remap=default"]] {
        let engine = engine(arguments);
        let run = |name: &str, mode: &str| {
            let mode = format!("--userns={mode}");
            engine.conex(["run", "-d", "--name", name, &mode, "-v", "data:/data", "busybox", "sleep", "1000"])
        };
        run("one", "auto").ok();
        run("two", "auto:size=4096").ok();
        run("three", "auto").ok();
        assert_eq!(
            ["one", "two", "three"].map(|name| status(&engine, name, "Uid:")),
            ["1000000", "1065536", "1069632"]
        );
        let map = engine.docker(["exec", "two", "cat", "/proc/self/gid_map"]).ok();
        assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", "1065536", "4096"]);
        assert_eq!(engine.docker(["inspect", "-f", "{{.HostConfig.UsernsMode}}", "two"]).ok(), "auto:size=4096");
        // Files and network are each one's own all the same.
        engine.docker(["exec", "one", "sh", "-c", "echo from one > /data/file"]).ok();
        let look = "stat -c %u:%g /data/file; cat /data/file; ip -4 addr show eth0 | grep -c inet";
        assert_eq!(engine.docker(["exec", "two", "sh", "-c", look]).ok(), "0:0\nfrom one\n1");

        // No 65536 are left; what a container had is free with it.
        let error = run("four", "auto").fails(125);
        assert!(error.contains("are left that no other container has"), "{error}");
        engine.docker(["rm", "-f", "one"]).ok();
        run("four", "auto:size=10").ok();
        assert_eq!(status(&engine, "four", "Uid:"), "1000000");
        engine.docker(["restart", "-t", "0", "four"]).ok();
        assert_eq!(status(&engine, "four", "Uid:"), "1000000");
        for wrong in ["auto:size=0", "auto:size=x", "automatic"] {
            let error = engine.conex(["run", "--rm", &format!("--userns={wrong}"), "busybox", "true"]).fails(125);
            assert!(error.contains(&format!("invalid USER mode: {wrong}")), "{error}");
        }
        engine.docker(["rm", "-f", "two", "three", "four"]).ok();
        engine.docker(["volume", "rm", "data"]).ok();
        engine.finish();
    }
}
