//! Processes added to running containers.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use bytes::Bytes;
use engine::model::{AttachTarget, ErrorKind, ExecSpec, ExecState, StreamFraming};

use crate::world::{World, read_frames, shell, with_world};

fn spec(command: &[&str]) -> ExecSpec {
    let command = command.iter().map(|word| (*word).to_owned()).collect();
    ExecSpec { command, attach_stdin: true, attach_stdout: true, attach_stderr: true, ..ExecSpec::default() }
}

async fn run(world: &World, container: &str, spec: ExecSpec, input: &'static [u8]) -> (String, ExecState) {
    let id = world.engine.create_exec(container, spec).await.unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let pending = world.engine.prepare_exec(&id, StreamFraming::Multiplexed, None).await.unwrap();
    ours.shutdown(std::net::Shutdown::Write).unwrap();
    let _ = pending.start(AttachTarget { socket: OwnedFd::from(theirs), early_input: Bytes::from_static(input) }).await;
    let output = read_frames(ours).await;
    (output, world.engine.exec(&id).unwrap().state)
}

#[test]
fn output_input_and_exit_code_are_there_at_the_end_of_the_stream() {
    with_world(async |world| {
        let id = world.start(shell("sleep 100")).await;
        let command = spec(&["sh", "-c", "cat; echo $X; exit 6"]);
        let (output, state) = run(world, &id, ExecSpec { env: vec!["X=y".into()], ..command }, b"in\n").await;
        assert_eq!(output, "in\ny\n");
        assert!(matches!(state, ExecState::Exited { code: 6, .. }), "{state:?}");
    });
}

#[test]
fn failures_are_told_in_the_stream() {
    with_world(async |world| {
        let id = world.start(shell("sleep 100")).await;
        let (output, state) = run(world, &id, spec(&["nonesuch"]), b"").await;
        assert!(output.contains("OCI runtime exec failed") && output.contains("executable file not found"), "{output}");
        assert!(matches!(state, ExecState::Exited { code: 127, .. }), "{state:?}");
    });
}

#[test]
fn only_running_containers_take_execs() {
    with_world(async |world| {
        let id = world.create(shell("sleep 100")).await;
        let refused = world.engine.create_exec(&id, spec(&["true"])).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Conflict);
        world.engine.start_container(&id).await.unwrap();
        let exec = world.engine.create_exec(&id, spec(&["true"])).await.unwrap();
        world.engine.pause_container(&id).await.unwrap();
        assert!(
            world
                .engine
                .prepare_exec(&exec, StreamFraming::Multiplexed, None)
                .await
                .unwrap_err()
                .message()
                .contains("is paused")
        );
        world.engine.unpause_container(&id).await.unwrap();
        world.engine.start_exec_detached(&exec, None).await.unwrap();
        assert!(world.engine.start_exec_detached(&exec, None).await.unwrap_err().message().contains("has already run"));
    });
}
