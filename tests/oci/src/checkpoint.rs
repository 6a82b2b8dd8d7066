//! Checkpoint and restore, by the program criu: `CONEX_CRIU` names it, or `./x test` has unpacked it.

use std::io::Read;
use std::path::Path;
use std::process::Stdio;

use harness::{Output, Program, unpacked};

use crate::support::{Container, Runtime, eventually};

/// Counts up for ever, in a file of its root.
const COUNTING: &str = "i=0; while :; do i=$((i+1)); echo $i > /new; mv /new /count; sleep 0.02; done";

/// A call that finds criu.
fn with_criu(program: Program) -> Program {
    let criu = unpacked("CONEX_CRIU", "criu/criu");
    let path = std::env::var("PATH").unwrap_or_default();
    program.env("PATH", format!("{}:{path}", criu.parent().unwrap().display()))
}

/// `checkpoint` to the folder `images` of the bundle, or `restore` from it.
fn call(container: &Container<'_>, verb: &str, options: &[&str]) -> Program {
    let images = container.bundle.join("images").display().to_string();
    let program = with_criu(container.runtime.command([verb, "--image-path", &images]).args(options));
    program.arg(&container.id)
}

#[track_caller]
fn checkpoint(container: &Container<'_>, options: &[&str]) -> Output {
    call(container, "checkpoint", options).run().expect_code(0)
}

/// `restore --detach`, with streams that a container may keep.
#[track_caller]
fn restore(container: &Container<'_>) {
    let bundle = container.bundle.display().to_string();
    let mut command = call(container, "restore", &["--detach", "--bundle", &bundle]).into_command();
    let errors = std::fs::File::create(container.bundle.join("restore-errors")).unwrap();
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors).status().unwrap();
    let told = || std::fs::read_to_string(container.bundle.join("restore-errors")).unwrap();
    let log = || std::fs::read_to_string(container.bundle.join("images/restore.log")).unwrap_or_default();
    assert!(status.success(), "{}\n{}", told(), log());
}

/// How far a container has counted.
fn count(rootfs: &Path) -> u64 {
    let text = std::fs::read_to_string(rootfs.join("count")).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

/// A container that counts, and has begun to.
fn counting(runtime: &Runtime) -> Container<'_> {
    let mut container = runtime.container(COUNTING);
    container.set("/root/readonly", false);
    container.write();
    let bundle = container.bundle.display().to_string();
    let mut command = runtime.command(["run", "--detach", "--bundle", &bundle, &container.id]).into_command();
    // A file of the host's as a stream would be outside of every image.
    assert!(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
    eventually("it counts", || count(&container.rootfs()) > 5);
    container
}

#[test]
fn a_container_goes_on_from_where_it_was() {
    let runtime = Runtime::new();
    let container = counting(&runtime);
    let mounts = mounts_of(&container);
    checkpoint(&container, &[]);
    assert_eq!(container.status(), "gone", "a container in images is no container any more");
    let stopped_at = count(&container.rootfs());
    restore(&container);
    assert_eq!(container.status(), "running");
    eventually("it counts on", || count(&container.rootfs()) > stopped_at + 5);
    assert!(count(&container.rootfs()) < stopped_at * 100, "it did not begin anew");
    assert_eq!(mounts_of(&container), mounts, "the same mounts, and none of the host's");
    let output = container.command_then(&["exec"], &["/bin/sh", "-c", "echo $$; cat /proc/1/comm"]).run().text();
    assert!(output.ends_with("\nsh"), "{output}");
    container.command_then(&["kill"], &["KILL"]).ok();
    container.wait_for("stopped");
}

/// What is mounted where in a container, without the numbers that change.
fn mounts_of(container: &Container<'_>) -> Vec<String> {
    let text = std::fs::read_to_string(format!("/proc/{}/mountinfo", container.pid())).unwrap();
    let mut lines: Vec<String> =
        text.lines().map(|line| line.split(' ').skip(3).collect::<Vec<_>>().join(" ")).collect();
    lines.sort();
    lines
}

#[test]
fn it_runs_on_where_that_is_asked_for_and_a_first_image_holds_the_memory() {
    let runtime = Runtime::new();
    let container = counting(&runtime);
    let first = container.bundle.join("first").display().to_string();
    let pre_dump = with_criu(container.command(&["checkpoint", "--pre-dump", "--image-path", &first])).run();
    assert_eq!(container.status(), "running");
    let mut options = vec!["--leave-running"];
    if pre_dump.code == 0 {
        options.extend(["--parent-path", "../first"]);
    } else {
        // A kernel without CONFIG_MEM_SOFT_DIRTY.
        assert!(pre_dump.error_text().contains("criu failed: Tracking memory is not available"), "{pre_dump:?}");
    }
    checkpoint(&container, &options);
    assert_eq!(container.status(), "running");
    let before = count(&container.rootfs());
    eventually("it runs on", || count(&container.rootfs()) > before);
    checkpoint(&container, &[]);
    restore(&container);
    assert_eq!(container.status(), "running");
}

#[test]
fn pipes_of_the_engine_and_its_network_are_joined_again() {
    let runtime = Runtime::new();
    let network = runtime.host.scratch().join("netns");
    std::fs::write(&network, "").unwrap();
    runtime.host.program("unshare").arg(format!("--net={}", network.display())).arg("true").ok();
    let mut container = runtime.container("i=0; while :; do i=$((i+1)); echo line $i; sleep 0.02; done");
    container.spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|one| one["type"] != "network");
    container.add("/linux/namespaces", serde_json::json!({ "type": "network", "path": network }));
    container.write();
    let bundle = container.bundle.display().to_string();
    let run = runtime.command(["run", "--detach", "--bundle", &bundle, &container.id]);
    let mut lines = piped(run);
    assert_eq!(next_line(&mut lines), "line 1");
    checkpoint(&container, &[]);
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
    let last: u64 = rest.lines().last().unwrap_or("line 1").trim_start_matches("line ").parse().unwrap();
    let mut lines = piped(call(&container, "restore", &["--detach", "--bundle", &bundle]));
    assert_eq!(next_line(&mut lines), format!("line {}", last + 1), "no line is lost, none comes twice");
    let inode = |path: &str| std::fs::read_link(path).unwrap();
    let joined = inode(&format!("/proc/{}/ns/net", container.pid()));
    let wanted = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(&network).unwrap());
    assert_eq!(joined.display().to_string(), format!("net:[{wanted}]"));
    container.command_then(&["kill"], &["KILL"]).ok();
    container.wait_for("stopped");
}

/// Starts a detached container whose output is a pipe of ours.
fn piped(program: Program) -> std::io::BufReader<std::io::PipeReader> {
    let (reader, writer) = std::io::pipe().unwrap();
    let mut command = program.into_command();
    let status = command.stdin(Stdio::null()).stdout(writer.try_clone().unwrap()).stderr(writer).status().unwrap();
    drop(command);
    let mut reader = std::io::BufReader::new(reader);
    if !status.success() {
        let mut told = String::new();
        reader.read_to_string(&mut told).unwrap();
        panic!("{told}");
    }
    reader
}

fn next_line(lines: &mut impl std::io::BufRead) -> String {
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

#[test]
fn what_cannot_be_done_is_said() {
    let runtime = Runtime::new();
    let mut container = counting(&runtime);
    let images = container.bundle.join("images").display().to_string();
    let without = container.command(&["checkpoint", "--image-path", &images]).env("PATH", "/nowhere").run();
    assert!(without.code != 0 && without.error_text().contains("needs the program criu"), "{}", without.error_text());
    assert_eq!(container.status(), "running", "a refused checkpoint leaves the container alone");
    for option in ["--lazy-pages", "--page-server=x"] {
        let refused = call(&container, "checkpoint", &[option]).run();
        assert!(refused.code != 0 && refused.error_text().contains("is not supported"), "{}", refused.error_text());
    }
    checkpoint(&container, &[]);
    container.set("/hooks/createRuntime", serde_json::json!([{ "path": "/bin/true" }]));
    container.write();
    let bundle = container.bundle.display().to_string();
    let refused = call(&container, "restore", &["--detach", "--bundle", &bundle]).run();
    assert!(refused.error_text().contains("prestart or createRuntime hooks"), "{}", refused.error_text());
    assert_eq!(container.status(), "gone", "what failed leaves nothing");
}
