//! A container's life.

use std::io::Write;
use std::net::Shutdown;
use std::time::{Duration, Instant};

use engine::Engine;
use engine::model::{
    ContainerName, ContainerQuery, ContainerSpec, CreateRequest, ErrorKind, EventQuery, IpcMode, LogQuery, NetworkMode,
    RemoveOptions, Resources, RestartPolicy, Signal, Status, StopOptions, WaitCondition,
};

use crate::world::{read_frames, shell, with_world};

#[test]
fn output_and_exit_code_come_back() {
    with_world(async |world| {
        let (code, output) = world.run(shell("echo out; echo $FROM; echo err >&2; exit 7")).await;
        assert_eq!(code, 7);
        let mut lines: Vec<&str> = output.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["err", "image", "out"]);
    });
}

#[test]
fn input_reaches_the_process_and_ends() {
    with_world(async |world| {
        let spec = ContainerSpec { open_stdin: true, stdin_once: true, ..shell("cat; echo end") };
        let id = world.create(spec).await;
        let mut client = world.attach(&id, b"early ").await;
        world.engine.start_container(&id).await.unwrap();
        client.write_all(b"late\n").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_frames(client).await, "early late\nend\n");
        assert_eq!(world.wait(&id).await, 0);
    });
}

#[test]
fn a_program_that_is_not_there_leaves_a_created_container() {
    with_world(async |world| {
        let spec = ContainerSpec { command: Some(vec!["nonesuch".into()]), ..shell("") };
        let id = world.create(spec).await;
        let error = world.engine.start_container(&id).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidParameter);
        assert!(error.message().contains("executable file not found in $PATH"), "{error}");
        let state = world.engine.container(&id).unwrap().state.clone();
        assert_eq!((state.status, state.exit_code), (Status::Created, 127));
    });
}

#[test]
fn rm_containers_go_by_themselves_and_free_their_name() {
    with_world(async |world| {
        for _ in 0..3 {
            let spec = ContainerSpec { auto_remove: true, ..shell("exit 4") };
            let name = Some(ContainerName::parse("same").unwrap());
            let id = world.engine.create_container(CreateRequest { name, platform: None, spec }).await.unwrap().id;
            let waiter = world.engine.wait_container(id.as_str(), WaitCondition::Removed).await.unwrap();
            world.engine.start_container("same").await.unwrap();
            assert_eq!(waiter.result().await.unwrap().exit_code, 4);
            assert_eq!(world.engine.container("same").unwrap_err().kind(), ErrorKind::NotFound);
        }
    });
}

#[test]
fn stop_waits_for_its_grace_and_no_longer() {
    with_world(async |world| {
        let deaf = world.start(shell("trap '' TERM; while true; do sleep 0.05; done")).await;
        let begin = Instant::now();
        world.engine.stop_container(&deaf, StopOptions { timeout_seconds: Some(1), signal: None }).await.unwrap();
        assert!((Duration::from_secs(1)..Duration::from_secs(5)).contains(&begin.elapsed()));
        assert_eq!(world.engine.container(&deaf).unwrap().state.exit_code, 137);
        let polite = world.start(shell("trap 'exit 3' TERM; while true; do sleep 0.05; done")).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        world.engine.stop_container(&polite, StopOptions::default()).await.unwrap();
        assert_eq!(world.engine.container(&polite).unwrap().state.exit_code, 3);
        let again = world.engine.stop_container(&polite, StopOptions::default()).await.unwrap_err();
        assert_eq!(again.kind(), ErrorKind::NotModified);
    });
}

#[test]
fn events_come_in_dockers_order() {
    with_world(async |world| {
        let since = Some(jiff::Timestamp::UNIX_EPOCH);
        let spec = ContainerSpec { network: NetworkMode::Bridge, ..shell("sleep 100") };
        let id = world.start(spec).await;
        world.engine.stop_container(&id, StopOptions { timeout_seconds: Some(0), signal: None }).await.unwrap();
        world.engine.remove_container(&id, RemoveOptions::default()).await.unwrap();
        let query = EventQuery { since, until: Some(jiff::Timestamp::now()), ..EventQuery::default() };
        let mut events = world.engine.events(query).unwrap();
        let mut actions = Vec::new();
        while let Some(event) = events.next().await {
            if event.kind != engine::model::EventKind::Image {
                actions.push(event.action.clone());
            }
        }
        assert_eq!(actions, ["create", "connect", "start", "kill", "kill", "disconnect", "stop", "die", "destroy"]);
    });
}

#[test]
fn pause_freezes_and_refuses() {
    with_world(async |world| {
        let id = world.start(shell("while true; do echo x; sleep 0.02; done")).await;
        world.engine.pause_container(&id).await.unwrap();
        assert_eq!(world.engine.container(&id).unwrap().state.status, Status::Paused);
        let again = world.engine.pause_container(&id).await.unwrap_err();
        assert!(again.message().ends_with("is already paused"), "{again}");
        assert!(world.engine.start_container(&id).await.unwrap_err().message().contains("try unpause"));
        world.engine.unpause_container(&id).await.unwrap();
        assert!(world.engine.unpause_container(&id).await.unwrap_err().message().ends_with("is not paused"));
        world.engine.pause_container(&id).await.unwrap();
        world.engine.kill_container(&id, None).await.unwrap();
        assert_eq!(world.wait(&id).await, 137);
    });
}

#[test]
fn names_are_unique_and_can_change() {
    with_world(async |world| {
        let named = |name: &str| CreateRequest {
            name: Some(ContainerName::parse(name).unwrap()),
            platform: None,
            spec: shell("true"),
        };
        let first = world.engine.create_container(named("one")).await.unwrap().id;
        let error = world.engine.create_container(named("one")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert!(error.message().contains(&format!("\"/one\" is already in use by container \"{first}\"")), "{error}");
        world.engine.rename_container("one", ContainerName::parse("two").unwrap()).await.unwrap();
        world.engine.create_container(named("one")).await.unwrap();
        assert_eq!(world.engine.container("two").unwrap().id, first);
        assert_eq!(world.engine.container(&first.as_str()[..10]).unwrap().id, first);
    });
}

#[test]
fn a_restart_policy_brings_it_back_and_gives_up() {
    with_world(async |world| {
        let spec = ContainerSpec { restart: RestartPolicy::OnFailure { maximum_retries: 2 }, ..shell("exit 3") };
        let id = world.start(spec).await;
        for _ in 0..200 {
            let view = world.engine.container(&id).unwrap();
            if view.state.status == Status::Exited && view.restart_count == 2 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{:?}", world.engine.container(&id).unwrap().state);
    });
}

#[test]
fn containers_reach_each_other_over_the_bridge() {
    with_world(async |world| {
        let spec = ContainerSpec { network: NetworkMode::Bridge, ..shell("nc -l -p 9 -e cat") };
        let server = world.start(spec).await;
        let address = world.engine.container(&server).unwrap().networks.endpoints["bridge"].ipv4.unwrap();
        let client = ContainerSpec {
            network: NetworkMode::Bridge,
            ..shell(&format!(
                "for i in 1 2 3 4 5 6 7 8 9; do echo hi | nc -w 2 {address} 9 && exit 0; sleep 0.2; done; exit 1"
            ))
        };
        let (code, output) = world.run(client).await;
        assert_eq!((code, output.lines().last()), (0, Some("hi")), "{output}");
        world.engine.kill_container(&server, None).await.ok();
    });
}

#[test]
fn memory_limits_kill() {
    with_world(async |world| {
        let resources = Resources { memory_bytes: 16 << 20, memory_swap_bytes: 16 << 20, ..Resources::default() };
        let spec = ContainerSpec {
            resources,
            ..shell("x=$(yes 0123456789012345678901234567890123456789 | head -c 60000000); echo $x | wc -c")
        };
        let id = world.start(spec).await;
        assert_ne!(world.wait(&id).await, 0);
        assert!(world.engine.container(&id).unwrap().state.oom_killed);
    });
}

#[test]
fn logs_can_be_read_after_the_end() {
    with_world(async |world| {
        let id = world.start(shell("for i in 1 2 3 4 5; do echo line $i; done; echo no >&2")).await;
        world.wait(&id).await;
        let query = LogQuery {
            stdout: true,
            stderr: false,
            follow: true,
            since: None,
            until: None,
            timestamps: false,
            tail: Some(3),
            details: false,
        };
        let mut stream = world.engine.container_logs(&id, query).await.unwrap();
        let mut text = String::new();
        while let Some(entry) = stream.entries.recv().await {
            text.push_str(std::str::from_utf8(&entry.unwrap().payload).unwrap());
        }
        assert_eq!(text, "line 4\nline 5\n");
    });
}

#[test]
fn many_containers_run_at_once() {
    with_world(async |world| {
        let mut runs = Vec::new();
        for _ in 0..20 {
            let spec = ContainerSpec { auto_remove: true, ..shell("exit 5") };
            let id = world.create(spec).await;
            runs.push(world.engine.wait_container(&id, WaitCondition::Removed).await.unwrap());
            let engine = Engine::clone(&world.engine);
            tokio::spawn(async move { engine.start_container(&id).await.unwrap() });
        }
        for run in runs {
            assert_eq!(run.result().await.unwrap().exit_code, 5);
        }
        assert!(
            world.engine.containers(&ContainerQuery { all: true, ..ContainerQuery::default() }).unwrap().is_empty()
        );
    });
}

#[test]
fn signals_are_delivered() {
    with_world(async |world| {
        let id = world.start(shell("trap 'exit 42' USR1; while true; do sleep 0.05; done")).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        world.engine.kill_container(&id, Some(Signal::parse("USR1").unwrap())).await.unwrap();
        assert_eq!(world.wait(&id).await, 42);
        let error = world.engine.kill_container(&id, None).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Conflict && error.message().ends_with("is not running"), "{error}");
    });
}

#[test]
fn shared_memory_is_shared_by_who_asks_for_it() {
    with_world(async |world| {
        let donor = ContainerSpec {
            ipc: IpcMode::Shareable,
            ..shell("echo hi > /dev/shm/word; while true; do sleep 0.05; done")
        };
        let donor = world.start(donor).await;
        let joins = |id: &str| ContainerSpec {
            ipc: IpcMode::Container(id.to_owned()),
            ..shell("for i in 1 2 3 4 5 6 7 8 9; do cat /dev/shm/word && exit 0; sleep 0.2; done; exit 1")
        };
        let (code, output) = world.run(joins(&donor)).await;
        assert_eq!((code, output.lines().last()), (0, Some("hi")), "{output}");
        let private = world.start(shell("sleep 100")).await;
        let joiner = world.create(joins(&private)).await;
        let refused = world.engine.start_container(&joiner).await.unwrap_err();
        assert!(refused.message().contains("non-shareable IPC"), "{refused}");
        world.engine.kill_container(&donor, None).await.unwrap();
        assert_eq!(std::fs::read_dir(world.folder.join("run/shm")).unwrap().count(), 0, "the mount is left");
    });
}
