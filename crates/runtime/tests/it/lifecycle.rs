//! Creating, starting, ending.

use std::io::Read;

use oci::runtime::Status;
use runtime::{Kind, Saved, Stage, StateDirectory};

use crate::harness::{Bundle, exit_code, pipes};

#[test]
fn a_program_runs_and_its_exit_code_comes_back() {
    let outcome = Bundle::new().script("echo hello; exit 7").run().unwrap();
    assert_eq!((outcome.code, outcome.output.as_str()), (7, "hello\n"));
    let outcome = Bundle::new().script("kill -9 $$").run().unwrap();
    assert_eq!(outcome.code, 0, "a signal from inside does not kill init: {}", outcome.output);
}

#[test]
fn nothing_runs_before_the_start() {
    let mut bundle = Bundle::new().script("echo started");
    let (mut output, stdio) = pipes();
    let created = runtime::create(bundle.request(stdio)).unwrap();
    let flags = rustix::event::PollFlags::IN;
    let limit = rustix::event::Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
    let mut fds = [rustix::event::PollFd::new(&output, flags)];
    assert_eq!(rustix::event::poll(&mut fds, Some(&limit)).unwrap(), 0);
    let running = created.start().unwrap();
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    assert_eq!(text, "started\n");
    assert_eq!(exit_code(&running.pidfd), 0);
    running.destroy().unwrap();
}

#[test]
fn a_created_container_is_given_up() {
    let mut bundle = Bundle::new();
    let created = runtime::create(bundle.request(pipes().1)).unwrap();
    created.abandon().unwrap();
    assert!(!std::path::Path::new("/sys/fs/cgroup/memory").join(&bundle.id).exists());
}

#[test]
fn what_cannot_run_is_told_in_docker_s_words() {
    let failed = |args: &[&str]| {
        let args: Vec<_> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let mut bundle = Bundle::new();
        std::fs::write(bundle.root().join("bin/text"), "no program").unwrap();
        std::fs::write(bundle.root().join("bin/script"), "#!/no/such/interpreter\n").unwrap();
        std::fs::write(bundle.root().join("bin/garbage"), [0u8; 64]).unwrap();
        for name in ["script", "garbage"] {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(bundle.root().join("bin").join(name), mode).unwrap();
        }
        bundle.spec.process.as_mut().unwrap().args = args;
        let error = bundle.run().unwrap_err();
        assert_eq!(error.stage, Stage::Exec);
        (error.kind, error.message)
    };
    let check = |args: &[&str], kind: Kind, message: &str| assert_eq!(failed(args), (kind, message.to_owned()));
    check(&["x"], Kind::NotFound, "exec: \"x\": executable file not found in $PATH");
    check(&[""], Kind::NotFound, "exec: \"\": executable file not found in $PATH");
    check(&["/x"], Kind::NotFound, "exec: \"/x\": stat /x: no such file or directory");
    check(&["/etc/passwd"], Kind::PermissionDenied, "exec: \"/etc/passwd\": permission denied");
    check(&["/bin/text"], Kind::PermissionDenied, "exec: \"/bin/text\": permission denied");
    check(&["/etc"], Kind::IsDirectory, "exec: \"/etc\": is a directory");
    check(&["/bin/script"], Kind::NotFound, "exec /bin/script: no such file or directory");
    check(&["/bin/garbage"], Kind::PermissionDenied, "exec /bin/garbage: exec format error");
}

#[test]
fn a_failed_start_leaves_no_cgroup_and_no_process() {
    let mut bundle = Bundle::new();
    bundle.spec.process.as_mut().unwrap().args = vec!["/x".to_owned()];
    bundle.run().unwrap_err();
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup").unwrap() {
        assert!(!hierarchy.unwrap().path().join(&bundle.id).exists());
    }
}

#[test]
fn limits_pause_and_update_reach_the_cgroup() {
    let mut bundle =
        Bundle::new().edit(|spec| spec["linux"]["resources"] = serde_json::json!({ "pids": { "limit": 33 } }));
    bundle = bundle.script("sleep 60 & sleep 60 & wait");
    let started = bundle.start().unwrap();
    assert_eq!(
        started.shell("cat /sys/fs/cgroup/pids/pids.max || cat /sys/fs/cgroup/pids.max").unwrap().output,
        "33\n"
    );
    let resources = serde_json::from_value(serde_json::json!({ "pids": { "limit": 44 } })).unwrap();
    started.running.update(&resources).unwrap();
    assert_eq!(started.running.stats().unwrap().pids.limit, Some(44));
    assert!(started.running.pids().unwrap().len() >= 2);
    started.running.pause().unwrap();
    assert!(started.running.is_paused().unwrap());
    started.running.resume().unwrap();
    assert!(!started.running.is_paused().unwrap());
    started.kill();
}

#[test]
fn the_state_of_the_command_line_survives_its_processes() {
    let mut bundle = Bundle::new().script("sleep 60");
    let root = bundle.folder.path().join("state");
    let id = oci::ContainerId::parse("one").unwrap();
    let directory = StateDirectory::claim(&root, &id).unwrap();
    let listener = directory.listen().unwrap();
    let spec = bundle.spec.clone();
    let running = runtime::create_with_listener(bundle.request(pipes().1), listener).unwrap();
    directory.save(&Saved::of(&running, &spec, &root, &root)).unwrap();

    let found = StateDirectory::find(&root, &id).unwrap();
    let saved = found.load().unwrap();
    assert_eq!(found.status(&saved).unwrap(), Status::Created);
    found.start().unwrap();
    assert_eq!(found.status(&saved).unwrap(), Status::Running);
    assert_eq!(found.start().unwrap_err().message, "cannot start an already running container");
    saved.running().unwrap().pause().unwrap();
    assert_eq!(found.status(&saved).unwrap(), Status::Paused);
    saved.running().unwrap().resume().unwrap();
    saved.running().unwrap().signal(9).unwrap();
    exit_code(&running.pidfd);
    assert_eq!(found.status(&saved).unwrap(), Status::Stopped);
    assert_eq!(saved.running().unwrap_err().kind, Kind::NotFound);
    found.delete(&saved).unwrap();
    assert!(!root.join("one").exists());
}

#[test]
fn an_error_after_the_start_reaches_who_started() {
    let mut bundle = Bundle::new().edit(|spec| {
        spec["hooks"] = serde_json::json!({ "startContainer": [{ "path": "/bin/false" }] });
    });
    let created = runtime::create(bundle.request(pipes().1)).unwrap();
    let error = created.start().unwrap_err();
    assert_eq!(error.stage, Stage::Hook);
    assert!(error.message.starts_with("error running startContainer hook #0"), "{}", error.message);
}

#[test]
fn a_container_without_a_process_is_created_and_cannot_be_started() {
    let mut bundle = Bundle::new();
    bundle.spec.process = None;
    let created = runtime::create(bundle.request(pipes().1)).unwrap();
    assert_eq!(created.start().unwrap_err().message, "the configuration has no process to start");
}
