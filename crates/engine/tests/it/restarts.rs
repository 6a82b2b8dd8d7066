//! What survives the daemon.

use engine::model::{ContainerSpec, ErrorKind, ExecSpec, ExecState, Status};

use crate::world::{shell, with_world};

#[test]
fn containers_outlive_the_engine_and_are_taken_up_again() {
    with_world(async |world| {
        let runs = world.start(shell("while true; do sleep 0.05; done")).await;
        let ends = world.start(shell("sleep 0.3; exit 9")).await;
        let goes = world.start(ContainerSpec { auto_remove: true, ..shell("sleep 0.3") }).await;
        let created = world.create(shell("true")).await;
        let command = ["sh", "-c", "sleep 0.3; exit 4"].map(str::to_owned).to_vec();
        let exec = world.engine.create_exec(&runs, ExecSpec { command, ..ExecSpec::default() }).await.unwrap();
        world.engine.start_exec_detached(&exec, None).await.unwrap();
        let pid = world.engine.container(&runs).unwrap().state.pid;
        world.engine.shutdown().await;
        tokio::time::sleep(std::time::Duration::from_millis(700)).await;
        world.reopen().await;
        let state = |id: &str| world.engine.container(id).unwrap().state.clone();
        assert_eq!((state(&runs).status, state(&runs).pid), (Status::Running, pid));
        assert_eq!((state(&ends).status, state(&ends).exit_code), (Status::Exited, 9));
        assert_eq!(world.engine.container(&goes).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(state(&created).status, Status::Created);
        assert!(matches!(world.engine.exec(&exec).unwrap().state, ExecState::Exited { code: 4, .. }));
        world.engine.kill_container(&runs, None).await.unwrap();
        assert_eq!(world.wait(&runs).await, 137);
        world.engine.start_container(&ends).await.unwrap();
        assert_eq!(world.wait(&ends).await, 9);
    });
}
