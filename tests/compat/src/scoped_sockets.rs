//! Sockets with fewer rights, and the audit log.

use harness::{Engine, EngineOptions, Output, Program};

fn engine_with(sockets: &[&str]) -> Engine {
    let host = harness::Host::new();
    let files = host.files();
    let mut arguments = vec![format!("--audit-log={}", files.join("audit.log").display())];
    arguments.extend(sockets.iter().map(|socket| format!("--socket={}/{socket}", files.display())));
    let engine = Engine::start_in(host, EngineOptions { arguments });
    engine.import_busybox();
    engine
}

fn docker(engine: &Engine, socket: &str, arguments: &[&str]) -> Program {
    let address = format!("unix://{}", engine.host().files().join(socket).display());
    engine.host().program("docker").args(["-H", &address]).args(arguments)
}

#[track_caller]
fn denied(output: Output, what: &str) {
    assert_ne!(output.code, 0, "{output:?}");
    assert!(output.error_text().contains(&format!("{what} is not allowed on this socket")), "{output:?}");
}

#[test]
fn rights_are_by_area_and_verb() {
    let engine = engine_with(&["read.sock,allow=containers:read,allow=system:read"]);
    engine.docker(["run", "-d", "--name", "one", "busybox", "sh", "-c", "echo hello; sleep 1000"]).ok();
    let ask = |arguments: &[&str]| docker(&engine, "read.sock", arguments).run();
    assert_eq!(ask(&["ps", "--format", "{{.Names}}"]).expect_code(0).text(), "one");
    ask(&["version"]).expect_code(0);
    ask(&["info"]).expect_code(0);
    ask(&["logs", "one"]).expect_code(0);
    for (arguments, right) in [
        (&["rm", "-f", "one"][..], "containers:write"),
        (&["stop", "one"], "containers:write"),
        (&["create", "busybox"], "containers:write"),
        (&["exec", "one", "true"], "containers:exec"),
        (&["cp", "one:/etc/hostname", "-"], "containers:exec"),
        (&["images"], "images:read"),
        (&["rmi", "busybox"], "images:write"),
        (&["network", "create", "n"], "networks:write"),
        (&["volume", "ls"], "volumes:read"),
        (&["swarm", "init"], "swarm mode"),
        (&["plugin", "ls"], "the use of plugins"),
    ] {
        denied(ask(arguments), right);
    }
    assert_eq!(engine.docker(["ps", "--format", "{{.Names}}"]).ok(), "one");
    // Everything was written down: what was done, and what was not.
    let log = std::fs::read_to_string(engine.host().files().join("audit.log")).unwrap();
    let entries: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let find = |method: &str, end: &str, status: u16| {
        let fits = |entry: &&serde_json::Value| {
            entry["method"] == method && entry["path"].as_str().unwrap().ends_with(end) && entry["status"] == status
        };
        entries.iter().find(fits).unwrap_or_else(|| panic!("{method} {end} {status} is not in {log}")).clone()
    };
    let refused = find("DELETE", "/containers/one", 403);
    assert_eq!(refused["message"], "containers:write is not allowed on this socket");
    assert!(refused["socket"].as_str().unwrap().ends_with("/read.sock"));
    assert_eq!((&refused["peer"]["uid"], &refused["peer"]["program"]), (&0.into(), &"docker".into()));
    assert!(find("POST", "/start", 204)["socket"].as_str().unwrap().ends_with("/conex.sock"));
    engine.finish();
}

const ALL: &str =
    "ci.sock,allow=containers:*,allow=images:*,allow=networks:*,allow=volumes:*,allow=system:read,label=team=ci";

#[test]
fn with_a_label_nothing_else_is_there() {
    let engine = engine_with(&[ALL]);
    engine.docker(["run", "-d", "--name", "other", "busybox", "sleep", "1000"]).ok();
    engine.docker(["network", "create", "others"]).ok();
    engine.docker(["volume", "create", "theirs"]).ok();
    let ask = |arguments: &[&str]| docker(&engine, "ci.sock", arguments).run();
    ask(&["run", "-d", "--name", "mine", "--label", "team=other", "busybox", "sleep", "1000"]).expect_code(0);
    ask(&["network", "create", "ours"]).expect_code(0);
    ask(&["volume", "create", "our"]).expect_code(0);
    assert_eq!(ask(&["ps", "-a", "--format", "{{.Names}} {{.Labels}}"]).text(), "mine team=ci");
    assert_eq!(ask(&["network", "ls", "--format", "{{.Name}}"]).text(), "ours");
    assert_eq!(ask(&["volume", "ls", "-q"]).text(), "our");
    ask(&["exec", "mine", "true"]).expect_code(0);
    assert_eq!(ask(&["info", "--format", "{{.Containers}} {{.ContainersRunning}}"]).text(), "1 1", "not the other one");
    let other = engine.docker(["inspect", "--format", "{{.Id}}", "other"]).ok();
    for name in ["other", &other, &other[..12], "others", "theirs", "nothing"] {
        let refused = ask(&["inspect", name]).expect_code(1);
        assert_eq!(
            refused.error_text().to_lowercase(),
            format!("error: no such object: {name}"),
            "as if it were not there"
        );
    }
    for name in ["other", &other, &other[..12]] {
        for arguments in [&["logs", name][..], &["rm", "-f", name], &["exec", name, "true"], &["stop", name]] {
            let refused = ask(arguments);
            assert!(refused.error_text().to_lowercase().contains("no such"), "{refused:?}");
        }
    }
    for arguments in [
        &["run", "--rm", "--network", "others", "busybox", "true"][..],
        &["run", "--rm", "--network", "container:other", "busybox", "true"],
        &["run", "--rm", "--pid", "container:other", "busybox", "true"],
        &["run", "--rm", "--ipc", "container:other", "busybox", "true"],
        &["run", "--rm", "--volumes-from", "other", "busybox", "true"],
        &["run", "--rm", "--link", "other", "busybox", "true"],
        &["run", "--rm", "-v", "theirs:/v", "busybox", "true"],
        &["run", "--rm", "--mount", "type=volume,source=theirs,target=/v", "busybox", "true"],
        &["network", "connect", "others", "mine"],
        &["network", "connect", "ours", "other"],
        &["network", "rm", "others"],
        &["volume", "rm", "theirs"],
        &["volume", "inspect", "theirs"],
        &["commit", "other", "stolen"],
        &["rmi", "-f", "busybox"],
        &["tag", "busybox", "alpine"],
        &["import", "http://127.0.0.1:1/x", "alpine"],
        &["image", "prune", "-af"],
        &["system", "df"],
    ] {
        let refused = ask(arguments);
        assert_ne!(refused.code, 0, "{refused:?}");
    }
    // A name that the client's own container gives up must not begin to mean another's id.
    ask(&["run", "--rm", "-v", "our:/v", "--network", "ours", "busybox", "touch", "/v/x"]).expect_code(0);
    ask(&["container", "prune", "-f"]).expect_code(0);
    ask(&["volume", "prune", "-af"]).expect_code(0);
    ask(&["rm", "-f", "mine"]).expect_code(0);
    ask(&["network", "prune", "-f"]).expect_code(0);
    assert_eq!(engine.docker(["ps", "--format", "{{.Names}}"]).ok(), "other");
    assert_eq!(engine.docker(["volume", "ls", "-q"]).ok(), "theirs");
    assert!(engine.docker(["network", "ls", "--format", "{{.Name}}"]).ok().contains("others"));
    engine.docker(["rm", "-f", "other"]).ok();
    engine.docker(["network", "rm", "others"]).ok();
    engine.docker(["volume", "rm", "theirs"]).ok();
    engine.finish();
}

#[test]
fn no_container_reaches_out() {
    let engine = engine_with(&["ci.sock,allow=containers:*,allow=volumes:*,allow=networks:*"]);
    let run = |options: &[&str]| {
        docker(&engine, "ci.sock", &[&["run", "--rm"][..], options, &["busybox", "true"]].concat()).run()
    };
    run(&["--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--tmpfs", "/t", "-v", "/v"]).expect_code(0);
    for (options, what) in [
        (&["--privileged"][..], "privileged mode"),
        (&["-v", "/etc:/x"], "a mount of a path of the host"),
        (&["--mount", "type=bind,source=/etc,target=/x"], "a mount of a path of the host"),
        (
            &[
                "--mount",
                "type=volume,source=named,target=/x,volume-opt=type=none,volume-opt=o=bind,volume-opt=device=/etc",
            ],
            "a mount of a path of the host",
        ),
        (&["--network", "host"], "the host's network"),
        (&["--pid", "host"], "the host's PID namespace"),
        (&["--ipc", "host"], "the host's IPC namespace"),
        (&["--uts", "host"], "the host's UTS namespace"),
        (&["--userns", "host"], "the host's user namespace"),
        (&["--cgroupns", "host"], "the host's cgroup namespace"),
        (&["--cap-add", "SYS_ADMIN"], "an additional capability"),
        (&["--security-opt", "seccomp=unconfined"], "a security option"),
        (&["--security-opt", "systempaths=unconfined"], "a choice of masked paths"),
        (&["--security-opt", "apparmor=unconfined"], "a security option"),
        (&["--device", "/dev/null"], "a device"),
        (&["--device-cgroup-rule", "b *:* rwm"], "a device"),
        (&["--gpus", "all"], "a device"),
        (&["--cgroup-parent", "/x"], "a cgroup parent"),
        (&["--runtime", "/bin/true"], "another runtime"),
        (&["--sysctl", "net.ipv4.ip_forward=1"], "a sysctl"),
        (&["--oom-score-adj", "-5"], "a lower OOM score"),
        (
            &["--log-driver", "syslog", "--log-opt", "syslog-address=udp://127.0.0.1"],
            "a log driver that sends elsewhere",
        ),
    ] {
        denied(run(options), what);
    }
    let ask = |arguments: &[&str]| docker(&engine, "ci.sock", arguments).run();
    let bind = ["--opt", "type=none", "--opt", "o=bind", "--opt", "device=/etc"];
    denied(ask(&[&["volume", "create"][..], &bind].concat()), "a volume with another driver or options");
    denied(
        ask(&["network", "create", "-d", "macvlan", "-o", "parent=lo", "n"]),
        "a network with another driver, options or a configuration",
    );
    engine.docker(["run", "-d", "--name", "one", "busybox", "sleep", "1000"]).ok();
    denied(ask(&["exec", "--privileged", "one", "true"]), "privileged mode");
    engine.docker(["rm", "-f", "one"]).ok();
    engine.finish();
}
