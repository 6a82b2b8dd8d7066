//! Bind mounts, tmpfs, volumes.

use harness::Engine;

#[test]
fn bind_mounts() {
    let engine = Engine::with_busybox();
    let folder = engine.host().files().join("shared");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("a"), "from the host").unwrap();
    let bind = format!("{}:/data", folder.display());
    let run = |arguments: &[&str]| engine.docker(["run", "--rm"]).args(arguments).run();
    assert_eq!(run(&["-v", &bind, "busybox", "cat", "/data/a"]).text(), "from the host");
    run(&["-v", &bind, "busybox", "sh", "-c", "echo back > /data/b"]).expect_code(0);
    assert_eq!(std::fs::read_to_string(folder.join("b")).unwrap(), "back\n");
    let read_only = run(&["-v", &format!("{bind}:ro"), "busybox", "touch", "/data/c"]).expect_code(1);
    assert!(read_only.error_text().contains("Read-only file system"));
    let mount = format!("type=bind,source={},target=/data,readonly", folder.display());
    run(&["--mount", &mount, "busybox", "touch", "/data/c"]).expect_code(1);
    let missing = run(&["--mount", "type=bind,source=/nosuchfolder,target=/data", "busybox", "true"]).expect_code(125);
    assert!(missing.error_text().contains("bind source path does not exist: /nosuchfolder"));
    let file = format!("{}:/etc/motd", folder.join("a").display());
    assert_eq!(run(&["-v", &file, "busybox", "cat", "/etc/motd"]).text(), "from the host");
    engine.finish();
}

#[test]
fn what_the_host_mounted_read_only_stays_so() {
    let engine = Engine::with_busybox();
    let folder = engine.host().files().join("protected");
    std::fs::create_dir_all(folder.join("sub")).unwrap();
    let host = |arguments: &[&str]| engine.host().program("mount").args(arguments).ok();
    let path = folder.to_str().unwrap();
    host(&["--bind", path, path]);
    host(&["-o", "remount,bind,ro", path]);
    let mounts = [
        format!("type=bind,source={path},target=/data"),
        format!("type=bind,source={path}/sub,target=/data"),
        format!("type=bind,source={path},target=/data,bind-propagation=rslave"),
        format!("type=bind,source={path},target=/data,bind-recursive=disabled"),
    ];
    for mount in &mounts {
        let write = engine.docker(["run", "--rm", "--mount", mount, "busybox", "touch", "/data/file"]).fails(1);
        assert!(write.contains("Read-only file system"), "{mount}: {write}");
    }
    engine.host().program("umount").arg(path).ok();
    engine.finish();
}

#[test]
fn named_and_anonymous_volumes() {
    let engine = Engine::with_busybox();
    let docker = |arguments: &[&str]| engine.docker(arguments).run().expect_code(0).text();
    docker(&["run", "--rm", "-v", "data:/data", "busybox", "sh", "-c", "echo kept > /data/file"]);
    assert_eq!(docker(&["run", "--rm", "-v", "data:/data", "busybox", "cat", "/data/file"]), "kept");
    assert_eq!(docker(&["volume", "ls", "-q"]), "data");
    assert_eq!(docker(&["run", "--rm", "-v", "copied:/etc", "busybox", "cat", "/etc/hostname"]).len(), 12);
    assert_eq!(
        docker(&["run", "--rm", "-v", "copied:/x", "busybox", "cat", "/x/group"]).lines().count(),
        4,
        "copied up"
    );
    docker(&["run", "--rm", "-v", "/anonymous", "busybox", "touch", "/anonymous/a"]);
    assert_eq!(docker(&["volume", "ls", "-q"]).lines().count(), 2, "--rm removes anonymous volumes");

    docker(&["create", "--name", "one", "-v", "data:/data", "busybox"]);
    let used = engine.docker(["volume", "rm", "data"]).fails(1);
    assert!(used.contains("volume is in use"), "{used}");
    docker(&["rm", "one"]);
    docker(&["volume", "rm", "data"]);
    let gone = engine.docker(["volume", "inspect", "data"]).fails(1);
    assert!(gone.contains("get data: no such volume"), "{gone}");
    docker(&["volume", "create", "--label", "a=b", "labelled"]);
    assert_eq!(docker(&["volume", "ls", "-q", "--filter", "label=a=b"]), "labelled");
    docker(&[
        "run",
        "--rm",
        "--volumes-from",
        &docker(&["create", "-v", "copied:/c", "busybox"]),
        "busybox",
        "ls",
        "/c/group",
    ]);
    engine.finish();
}
