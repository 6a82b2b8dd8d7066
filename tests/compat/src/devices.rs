//! Devices that vendors describe (CDI), and GPUs.

use std::path::PathBuf;

use harness::{Engine, EngineOptions};

/// A vendor's device: the host's /dev/loop-control under another name, a file, a variable and a hook.
fn describe(engine: &Engine) {
    let files = engine.host().files();
    std::fs::write(files.join("firmware"), "firmware of the toy\n").unwrap();
    let hooked = files.join("hooked");
    let text = format!(
        r#"
cdiVersion: "0.6.0"
kind: example.com/toy
containerEdits:
  mounts:
  - hostPath: {firmware}
    containerPath: /lib/toy/firmware
    options: [ro, nosuid, nodev, bind]
devices:
- name: one
  containerEdits:
    env: [TOY=one]
    deviceNodes:
    - path: /dev/toy
      hostPath: /dev/loop-control
      permissions: r
    hooks:
    - hookName: createRuntime
      path: /bin/touch
      args: [touch, {hooked}]
"#,
        firmware = files.join("firmware").display(),
        hooked = hooked.display()
    );
    std::fs::write(files.join("cdi/toy.yaml"), text).unwrap();
}

/// An engine with `busybox`, and the folder, still empty, in which devices are described to it.
fn described_engine() -> (Engine, PathBuf) {
    let host = harness::Host::new();
    let folder = host.files().join("cdi");
    std::fs::create_dir(&folder).unwrap();
    let arguments = vec!["--cdi-spec-dir".into(), folder.display().to_string()];
    let engine = Engine::start_in(host, EngineOptions { arguments });
    engine.import_busybox();
    (engine, folder)
}

#[test]
fn described_devices_come_with_their_files_variables_and_hooks() {
    let (engine, folder) = described_engine();
    let dirs = engine.docker(["info", "--format", "{{json .CDISpecDirs}}"]).ok();
    assert_eq!(dirs, format!("[{:?}]", folder.display().to_string()));
    let run = |program: &str, device: &[&str], script: &str| {
        let program = if program == "docker" { engine.docker(["run", "--rm"]) } else { engine.conex(["run", "--rm"]) };
        program.args(device).args(["busybox", "sh", "-c", script]).run()
    };
    // Not there yet.
    let early = run("docker", &["--device", "example.com/toy=one"], "true").expect_code(125).error_text();
    assert!(early.contains("CDI device injection failed: unresolvable CDI devices example.com/toy=one"), "{early}");
    describe(&engine);
    let script = ": < /dev/toy && echo open; echo $TOY; cat /lib/toy/firmware; (echo x > /dev/toy) 2>&1; (echo x > /lib/toy/firmware) 2>&1";
    for program in ["docker", "conex"] {
        let seen = run(program, &["--device", "example.com/toy=one"], script).text();
        assert!(seen.starts_with("open\none\nfirmware of the toy\n"), "{program}: {seen}");
        assert!(
            seen.contains("Operation not permitted") && seen.contains("Read-only file system"),
            "{program}: {seen}"
        );
    }
    assert!(engine.host().files().join("hooked").exists());
    let other = run("docker", &["--device", "example.com/toy=two"], "true").expect_code(125).error_text();
    assert!(other.contains("unresolvable CDI devices example.com/toy=two"), "{other}");
    let shown = engine.docker(["create", "--name", "one", "--device", "example.com/toy=one", "busybox"]).run();
    assert_eq!(shown.code, 0);
    let requests = engine.docker(["inspect", "--format", "{{json .HostConfig.DeviceRequests}}", "one"]).ok();
    assert!(
        requests.contains(r#""Driver":"cdi""#) && requests.contains(r#""DeviceIDs":["example.com/toy=one"]"#),
        "{requests}"
    );
    engine.finish();
}

#[test]
fn gpus_are_those_that_are_described() {
    let (engine, folder) = described_engine();
    let run = |gpus: &str| {
        engine.docker(["run", "--rm", "--gpus", gpus, "busybox", "sh", "-c", "echo $GPU; ls /dev/gpu*"]).run()
    };
    let refused = run("all").expect_code(125).error_text();
    assert!(refused.contains("could not select device driver \"\" with capabilities: [[gpu]]"), "{refused}");
    let device = |name: &str, node: &str| {
        format!(
            r#"{{"name":"{name}","containerEdits":{{"env":["GPU={name}"],"deviceNodes":[{{"path":"/dev/gpu{node}","hostPath":"/dev/null"}}]}}}}"#
        )
    };
    let devices = [device("0", "0"), device("1", "1"), device("all", "x")].join(",");
    let text = format!(r#"{{"cdiVersion":"0.5.0","kind":"nvidia.com/gpu","devices":[{devices}]}}"#);
    std::fs::write(folder.join("nvidia.json"), text).unwrap();
    assert_eq!(run("all").text(), "all\n/dev/gpux");
    assert_eq!(run("2").text(), "1\n/dev/gpu0\n/dev/gpu1");
    assert_eq!(run("device=1").text(), "1\n/dev/gpu1");
    engine.finish();
}

#[test]
fn rates_of_devices_are_limited() {
    let engine = Engine::with_busybox();
    let device = ["/dev/vda", "/dev/sda", "/dev/nvme0n1"].into_iter().find(|path| std::path::Path::new(path).exists());
    let device = device.expect("this machine has a disk");
    let show = "cd /sys/fs/cgroup/blkio 2>/dev/null && cat blkio.throttle.read_iops_device blkio.throttle.write_bps_device blkio.throttle.write_iops_device || cat /sys/fs/cgroup/io.max";
    let [read, bytes, write] = [format!("{device}:11"), format!("{device}:1mb"), format!("{device}:12")];
    let options = ["--device-read-iops", &read, "--device-write-bps", &bytes, "--device-write-iops", &write];
    let shown = engine.docker(["run", "--rm"]).args(options).args(["busybox", "sh", "-c", show]).ok();
    for number in ["11", "1048576", "12"] {
        assert!(shown.contains(number), "{number} is not in {shown}");
    }
    // A rule alone: the container makes the node.
    let script = "mknod /tmp/full c 1 7 && (echo x > /tmp/full) 2>&1";
    let ruled =
        engine.docker(["run", "--rm", "--device-cgroup-rule", "c 1:7 rmw", "busybox", "sh", "-c", script]).run();
    assert!(ruled.text().contains("No space left"), "{ruled:?}");
    engine.finish();
}
