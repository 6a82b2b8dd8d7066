//! Further processes in a container.

use runtime::{ExecRequest, Identity, Keyring, Kind, Stdio};

use crate::harness::{Bundle, Outcome, process};

fn in_container(script: &str) -> Outcome {
    let started = Bundle::new().script("sleep 60").start().unwrap();
    let outcome = started.shell(script).unwrap();
    started.kill();
    outcome
}

#[test]
fn it_is_in_the_containers_namespaces_and_cgroup() {
    let started = Bundle::new().script("sleep 60").start().unwrap();
    let list =
        "for kind in mnt pid uts ipc net cgroup; do readlink /proc/self/ns/$kind; done; cat /proc/self/cgroup | sort";
    let inside = started.shell(list).unwrap().output;
    let pid = started.running.pid.as_raw_nonzero();
    let mut expected = String::new();
    for kind in ["mnt", "pid", "uts", "ipc", "net", "cgroup"] {
        let link = std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
        expected.push_str(&format!("{}\n", link.display()));
    }
    assert!(inside.starts_with(&expected), "{inside}\n{expected}");
    assert!(inside.lines().skip(6).all(|line| line.ends_with(":/") || line == "0::/.."), "{inside}");
    started.kill();
}

#[test]
fn its_streams_are_all_that_is_open() {
    let outcome = in_container(
        "for fd in /proc/self/fd/*; do readlink $fd; done | grep -v /proc | wc -l; pwd; echo $HOME; grep CapInh /proc/self/status",
    );
    assert_eq!(outcome.output, "3\n/\n/root\nCapInh:\t0000000000000000\n");
}

#[test]
fn exit_codes_and_errors_come_back() {
    assert_eq!(in_container("exit 9").code, 9);
    let started = Bundle::new().script("sleep 60").start().unwrap();
    let mut missing = process("true");
    missing.args = vec!["nosuch".to_owned()];
    let error = started.exec(&missing).unwrap_err();
    assert_eq!(
        (error.kind, error.message.as_str()),
        (Kind::NotFound, "exec: \"nosuch\": executable file not found in $PATH")
    );
    started.kill();
}

#[test]
fn a_container_that_has_ended_is_told() {
    let started = Bundle::new().script("sleep 60").start().unwrap();
    started.running.signal(9).unwrap();
    crate::harness::exit_code(&started.running.pidfd);
    assert_eq!(started.shell("true").unwrap_err().kind, Kind::NotFound);
    started.running.destroy().unwrap();
}

#[test]
fn the_creator_stays_in_its_own_pid_namespace() {
    let started = Bundle::new().script("sleep 60").start().unwrap();
    started.shell("true").unwrap();
    let for_children = std::fs::read_link("/proc/self/ns/pid_for_children").unwrap();
    assert_eq!(for_children, std::fs::read_link("/proc/self/ns/pid").unwrap());
    started.kill();
}

#[test]
fn it_gets_a_terminal_of_the_container() {
    let started = Bundle::new().script("sleep 60").start().unwrap();
    let process = process("tty");
    let request = ExecRequest {
        process: &process,
        stdio: Stdio::Terminal,
        seccomp: None,
        identity: Identity::Lookup { groups: vec![] },
        preserve_fds: 0,
        sub_cgroup: None,
        keyring: Keyring::Inherit,
    };
    let executed = runtime::exec(&started.running, request).unwrap();
    let mut master = std::fs::File::from(executed.console.unwrap());
    let mut bytes = [0; 64];
    let count = std::io::Read::read(&mut master, &mut bytes).unwrap();
    assert_eq!(&bytes[..count], b"/dev/pts/0\r\n");
    crate::harness::exit_code(&executed.pidfd);
    started.kill();
}
