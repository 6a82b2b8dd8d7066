//! Attacks on the runtime's own program; those on what it does are with its library's tests.

use serde_json::json;

use crate::support::{CAPABILITIES, Runtime, conex_runtime};

/// What a container may try: to write to every program that is not its own, at once and once it no longer runs.
const OVERWRITE: &str = "while :; do for p in /proc/[0-9]*; do case $p in /proc/1|/proc/$$) continue;; esac; \
    case $(readlink $p/exe) in /bin/busybox|'') continue;; esac; \
    { \
    for n in 1 2 3 4 5 6 7 8 9 10; do echo overwritten >> /proc/self/fd/9; sleep 0.2; done; echo tried >> /tmp/tried; } 9< $p/exe; \
    done; done 2>/dev/null";

/// CVE-2019-5736: a container that runs `/proc/self/exe`, or opens it through a process that joins, has the file of the runtime.
///
/// Fails without `runtime::protect_self`.
#[test]
fn a_container_cannot_write_to_the_runtimes_program() {
    // A copy: what an attack that succeeds may write to.
    let runtime = Runtime::new();
    let program = runtime.host.scratch().join("runtime-under-attack");
    std::fs::copy(conex_runtime(), &program).unwrap();
    let before = std::fs::read(&program).unwrap();
    let runtime = runtime.with_program(program.clone());
    let mut container = runtime.container(OVERWRITE);
    let capabilities: Vec<&str> = CAPABILITIES.into_iter().chain(["CAP_SYS_PTRACE"]).collect();
    for set in ["bounding", "effective", "permitted"] {
        container.set(&format!("/process/capabilities/{set}"), json!(capabilities));
    }
    std::os::unix::fs::symlink("/proc/self/exe", container.rootfs().join("link")).unwrap();
    let script = container.rootfs().join("script");
    std::fs::write(&script, "#!/proc/self/exe\n").unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    container.start();
    container.command_then(&["exec"], &["/script"]).run();
    // The link leads to the runtime, which runs in there as an init of containers. When it has ended, nobody runs the program any more:
    // what runs cannot be written to.
    container.command_then(&["exec"], &["/link", "init", "--", "/bin/sleep", "1"]).run();
    crate::support::eventually("the container has tried", || container.rootfs().join("tmp/tried").exists());
    drop(container);
    for entrypoint in ["/script", "/link"] {
        let mut container = runtime.container("");
        std::os::unix::fs::symlink("/proc/self/exe", container.rootfs().join("link")).unwrap();
        std::fs::copy(&program, container.rootfs().join("unused")).unwrap();
        let script = container.rootfs().join("script");
        std::fs::write(&script, "#!/proc/self/exe\n").unwrap();
        std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        container.set("/process/args", json!([entrypoint, "init", "--", "/bin/sh", "-c", "echo x >> /proc/1/exe"]));
        container.run();
    }
    assert!(std::fs::read(&program).unwrap() == before, "the program was written to");
}
