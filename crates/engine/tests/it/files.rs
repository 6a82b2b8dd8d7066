//! Volumes, binds, and a container's files from outside.

use std::io::Read;

use engine::model::{Bind, Change, ChangeKind, ContainerSpec, ErrorKind, VolumeName, VolumeRequest};

use crate::world::{shell, with_world};

fn bind(text: &str, script: &str) -> ContainerSpec {
    ContainerSpec { binds: vec![Bind::parse(text).unwrap()], ..shell(script) }
}

#[test]
fn named_volumes_keep_their_files_and_start_with_the_images() {
    with_world(async |world| {
        let (code, output) = world.run(bind("data:/etc", "cat /etc/passwd | head -n 1; echo kept > /etc/mine")).await;
        assert!(code == 0 && output.starts_with("root:"), "{output}");
        let (_, output) = world.run(bind("data:/v:ro", "cat /v/mine; touch /v/no")).await;
        assert!(output.starts_with("kept\n") && output.contains("Read-only file system"), "{output}");
        let request = VolumeRequest { name: Some(VolumeName::parse("data").unwrap()), ..VolumeRequest::default() };
        assert_eq!(world.engine.create_volume(request).await.unwrap().name.as_str(), "data");
        let id = world.create(bind("data:/v", "true")).await;
        let refused = world.engine.remove_volume("data", false).await.unwrap_err();
        assert!(refused.kind() == ErrorKind::Conflict && refused.message().contains(&id), "{refused}");
    });
}

#[test]
fn anonymous_volumes_go_with_their_container() {
    with_world(async |world| {
        let spec = ContainerSpec { volumes: ["/v".to_owned()].into(), auto_remove: true, ..shell("touch /v/x") };
        let id = world.create(spec).await;
        assert_eq!(world.engine.volumes(&Default::default()).unwrap().len(), 1);
        let waiter = world.engine.wait_container(&id, engine::model::WaitCondition::Removed).await.unwrap();
        world.engine.start_container(&id).await.unwrap();
        assert_eq!(waiter.result().await.unwrap().exit_code, 0);
        for _ in 0..100 {
            if world.engine.volumes(&Default::default()).unwrap().is_empty() {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        panic!("the volume is left");
    });
}

#[test]
fn changes_and_export_show_running_and_stopped_containers() {
    with_world(async |world| {
        let id = world.start(shell("echo new > /made; while true; do sleep 1; done")).await;
        let made = [Change { path: "/made".into(), kind: ChangeKind::Added }];
        for _ in 0..100 {
            if !world.engine.container_changes(&id).await.unwrap().is_empty() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        assert_eq!(world.engine.container_changes(&id).await.unwrap(), made);
        assert!(export(world, &id).await.contains("made"));
        world.engine.kill_container(&id, None).await.unwrap();
        assert_eq!(world.engine.container_changes(&id).await.unwrap(), made);
        assert!(export(world, &id).await.contains("made"));
    });
}

/// The names in an export, one a line, by GNU tar.
async fn export(world: &crate::world::World, id: &str) -> String {
    let mut stream = world.engine.export_container(id).await.unwrap();
    let mut tar = tempfile::tempfile().unwrap();
    while let Some(piece) = stream.recv().await {
        std::io::Write::write_all(&mut tar, &piece.unwrap()).unwrap();
    }
    std::io::Seek::rewind(&mut tar).unwrap();
    let mut child =
        std::process::Command::new("tar").arg("-t").stdin(tar).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut names = String::new();
    child.stdout.take().unwrap().read_to_string(&mut names).unwrap();
    assert!(child.wait().unwrap().success());
    names
}
