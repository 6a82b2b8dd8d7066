//! `docker run` and its options.

use harness::{Engine, Terminal};

#[test]
fn output_errors_and_exit_codes() {
    let engine = Engine::with_busybox();
    let run = |arguments: &[&str]| engine.docker(["run", "--rm"]).args(arguments).run();

    let output = run(&["busybox", "sh", "-c", "echo out; echo err >&2; exit 7"]).expect_code(7);
    assert_eq!((output.text().as_str(), output.error_text().as_str()), ("out", "err"));

    assert_eq!(run(&["busybox", "true"]).expect_code(0).text(), "");
    let missing = run(&["busybox", "nosuchprogram"]).expect_code(127).error_text();
    assert!(missing.contains("\"nosuchprogram\": executable file not found in $PATH"), "{missing}");
    let denied = run(&["busybox", "/etc/passwd"]).expect_code(126).error_text();
    assert!(denied.contains("permission denied"), "{denied}");
    let image = run(&["--pull=never", "nosuchimage", "true"]).expect_code(125).error_text();
    assert!(image.contains("No such image: nosuchimage:latest"), "{image}");
    let flag = run(&["--memory=1k", "busybox", "true"]).expect_code(125).error_text();
    assert!(flag.contains("Minimum memory limit allowed is 6MB"), "{flag}");
    // The first process of a pid namespace ignores what it does not handle: it takes an init for a signal to end it.
    assert_eq!(run(&["--init", "busybox", "sh", "-c", "kill -TERM $$"]).code, 143);

    assert_eq!(engine.docker(["ps", "-aq"]).ok(), "");
    engine.finish();
}

#[test]
fn standard_input_reaches_the_process_and_its_end_too() {
    let engine = Engine::with_busybox();
    let text = "line one\nline two\n";
    let copied = engine.docker(["run", "--rm", "-i", "busybox", "cat"]).input(text).run().expect_code(0);
    assert_eq!(copied.stdout, text.as_bytes());
    let big = vec![b'x'; 3_000_000];
    let counted = engine.docker(["run", "--rm", "-i", "busybox", "wc", "-c"]).input(big).ok();
    assert_eq!(counted.trim(), "3000000");
    engine.finish();
}

#[test]
fn environment_user_directory_and_entrypoint() {
    let engine = Engine::with_busybox();
    let run = |arguments: &[&str]| engine.docker(["run", "--rm"]).args(arguments).ok();

    let environment = run(&["-e", "A=1", "-e", "B=x y", "--hostname", "box", "busybox", "env"]);
    let lines: Vec<&str> = environment.lines().collect();
    assert_eq!(lines[0], "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    for line in ["HOSTNAME=box", "A=1", "B=x y", "HOME=/root"] {
        assert!(lines.contains(&line), "{line} is missing in {environment}");
    }
    assert_eq!(
        run(&["-u", "daily", "busybox", "id"]),
        "uid=1000(daily) gid=1000(daily) groups=1000(daily),50000(extra)"
    );
    assert_eq!(run(&["-u", "5:7", "busybox", "id"]), "uid=5 gid=7 groups=7");
    assert_eq!(run(&["--group-add", "50000", "-u", "5:7", "busybox", "id", "-G"]), "7 50000");
    assert_eq!(run(&["-w", "/made/here", "busybox", "pwd"]), "/made/here");
    assert_eq!(run(&["--entrypoint", "echo", "busybox", "a", "b"]), "a b");
    let user = engine.docker(["run", "--rm", "-u", "nobodyhere", "busybox", "id"]).fails(125);
    assert!(user.contains("unable to find user nobodyhere: no matching entries in passwd file"), "{user}");
    engine.finish();
}

#[test]
fn a_terminal() {
    let engine = Engine::with_busybox();
    let mut terminal = Terminal::start(engine.docker(["run", "-it", "--rm", "--name", "tty", "busybox", "sh"]));
    terminal.wait_for("/ # ");
    terminal.type_keys("tty; stty size; echo $TERM\n");
    let screen = terminal.wait_for("xterm");
    assert!(screen.contains("/dev/pts/0"), "{screen}");
    terminal.type_keys("stty size\n");
    terminal.wait_for("24 80");
    terminal.resize(30, 100);
    std::thread::sleep(std::time::Duration::from_millis(300));
    terminal.type_keys("stty size\n");
    terminal.wait_for("30 100");
    terminal.type_keys("exit 3\n");
    assert_eq!(terminal.exit_code(), 3);
    engine.finish();
}

#[test]
fn detach_and_attach_again() {
    let engine = Engine::with_busybox();
    let mut terminal = Terminal::start(engine.docker(["run", "-it", "--name", "one", "busybox", "sh"]));
    terminal.wait_for("/ # ");
    terminal.type_keys("\u{10}\u{11}");
    assert_eq!(terminal.exit_code(), 0);
    assert_eq!(engine.docker(["inspect", "-f", "{{.State.Status}}", "one"]).ok(), "running");
    let mut again = Terminal::start(engine.docker(["attach", "--detach-keys", "ctrl-x,x", "one"]));
    again.type_keys("echo $((6*7))\n");
    again.wait_for("42");
    again.type_keys("\u{18}x");
    again.wait_for("read escape sequence");
    assert_eq!(again.exit_code(), 1, "docker's attach takes leaving for a failure");
    let mut last = Terminal::start(engine.docker(["attach", "one"]));
    last.type_keys("exit 5\n");
    assert_eq!(last.exit_code(), 5);
    engine.finish();
}

#[test]
fn files_that_the_engine_makes() {
    let engine = Engine::with_busybox();
    let run = |arguments: &[&str]| engine.docker(["run", "--rm"]).args(arguments).ok();
    let hosts = run(&["--hostname", "web", "--add-host", "db:10.1.2.3", "busybox", "cat", "/etc/hosts"]);
    assert!(hosts.contains("127.0.0.1\tlocalhost") && hosts.contains("10.1.2.3\tdb"), "{hosts}");
    assert!(hosts.lines().any(|line| line.ends_with("\tweb")), "{hosts}");
    assert_eq!(run(&["--hostname", "web", "busybox", "cat", "/etc/hostname"]), "web");
    assert_eq!(run(&["--hostname", "web", "--domainname", "lan", "busybox", "hostname", "-f"]), "web.lan");
    let resolver = run(&[
        "--dns",
        "10.9.8.7",
        "--dns-search",
        "lan",
        "--dns-option",
        "ndots:2",
        "busybox",
        "cat",
        "/etc/resolv.conf",
    ]);
    for line in ["nameserver 10.9.8.7", "search lan", "options ndots:2"] {
        assert!(resolver.contains(line), "{resolver}");
    }
    engine.finish();
}

#[test]
fn file_systems_and_kernel_settings() {
    let engine = Engine::with_busybox();
    let run = |arguments: &[&str]| engine.docker(["run", "--rm"]).args(arguments).run();
    let read_only =
        run(&["--read-only", "--tmpfs", "/scratch:size=1m", "busybox", "sh", "-c", "touch /scratch/a && touch /b"]);
    assert!(read_only.expect_code(1).error_text().contains("Read-only file system"));
    let size = run(&["--tmpfs", "/scratch:size=64k", "busybox", "df", "-k", "/scratch"]).expect_code(0).text();
    assert!(size.contains("64"), "{size}");
    let shm = run(&["--shm-size", "16m", "busybox", "df", "-m", "/dev/shm"]).expect_code(0).text();
    assert!(shm.contains("16"), "{shm}");
    let sysctl = run(&["--sysctl", "net.ipv4.ip_forward=1", "busybox", "cat", "/proc/sys/net/ipv4/ip_forward"]);
    assert_eq!(sysctl.expect_code(0).text(), "1");
    let limit = run(&["--ulimit", "nofile=123:456", "busybox", "sh", "-c", "ulimit -Sn; ulimit -Hn"]);
    assert_eq!(limit.expect_code(0).text(), "123\n456");
    let init = run(&["--init", "busybox", "sh", "-c", "cat /proc/1/comm"]).expect_code(0).text();
    assert_ne!(init, "sh");
    let plain = run(&["busybox", "cat", "/proc/1/comm"]).expect_code(0).text();
    assert_eq!(plain, "cat");
    engine.finish();
}

#[test]
fn options_that_are_not_there_yet_are_refused_by_name() {
    let engine = Engine::with_busybox();
    let cases: &[(&[&str], &str)] = &[
        (&["--gpus", "all"], "gpu"),
        (&["--log-driver", "splunk"], "splunk"),
        (&["--storage-opt", "size=1g"], "project quotas"),
        (&["--network", "nosuchnetwork"], "nosuchnetwork"),
    ];
    for (arguments, word) in cases {
        let output = engine.docker(["run", "--rm"]).args(*arguments).args(["busybox", "true"]).run();
        let error = output.expect_code(125).error_text().to_lowercase();
        assert!(error.contains(&word.to_lowercase()), "{arguments:?}: {error}");
    }
    assert_eq!(engine.docker(["ps", "-aq"]).ok(), "", "a refused container is not created");
    engine.finish();
}
