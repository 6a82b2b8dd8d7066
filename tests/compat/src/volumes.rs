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
    let missing =
        run(&["--pull", "never", "--mount", "type=bind,source=/nosuchfolder,target=/data", "busybox", "true"])
            .expect_code(125);
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

#[test]
fn volumes_of_other_file_systems_are_mounted_while_they_are_used() {
    let mut engine = Engine::with_busybox();
    let folder = engine.host().files().join("elsewhere");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("precious"), "kept").unwrap();
    let device = format!("device={}", folder.display());
    let run = |engine: &Engine, words: &[&str]| engine.docker(["run", "--rm"]).args(words).ok();
    engine.docker(["volume", "create", "-o", "type=none", "-o", "o=bind,ro", "-o", &device, "bound"]).ok();
    assert_eq!(run(&engine, &["-v", "bound:/v", "busybox", "cat", "/v/precious"]), "kept");
    let refused = engine.docker(["run", "--rm", "-v", "bound:/v", "busybox", "touch", "/v/x"]).fails(1);
    assert!(refused.contains("Read-only file system"), "{refused}");

    // Memory that two containers share, over a restart of the engine, and that is gone with the last of them.
    engine.docker(["volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m", "memory"]).ok();
    engine.docker(["run", "-d", "--name", "one", "-v", "memory:/v", "busybox", "sleep", "1000"]).ok();
    engine.docker(["exec", "one", "touch", "/v/shared"]).ok();
    assert_eq!(run(&engine, &["-v", "memory:/v", "busybox", "ls", "/v"]), "shared");
    engine.kill();
    engine.launch();
    assert_eq!(run(&engine, &["-v", "memory:/v", "busybox", "ls", "/v"]), "shared");
    engine.docker(["rm", "-f", "one"]).ok();
    assert_eq!(run(&engine, &["-v", "memory:/v", "busybox", "ls", "/v"]), "");

    // A volume in use by nobody is looked into as well, and what it showed is not removed with it.
    engine.docker(["create", "--name", "still", "-v", "bound:/v", "busybox"]).ok();
    assert!(engine.docker(["cp", "still:/v/precious", "-"]).run().expect_code(0).text().contains("kept"));
    engine.docker(["rm", "still"]).ok();
    engine.docker(["volume", "rm", "bound", "memory"]).ok();
    assert_eq!(std::fs::read_to_string(folder.join("precious")).unwrap(), "kept");

    for (options, message) in [
        (&["-o", "color=red"][..], "invalid option: \"color\""),
        (&["-o", "o=bind"], "missing required option: \"device\""),
    ] {
        let refused = engine.docker(["volume", "create"]).args(options).arg("wrong").fails(1);
        assert!(refused.contains(message), "{refused}");
    }
    engine.finish();
}

#[test]
fn folders_of_volumes_and_images_are_mounted_and_nothing_beside_them() {
    let engine = Engine::with_busybox();
    let run = |words: &[&str]| engine.conex(["run", "--rm"]).args(words).run();
    let fill = "mkdir -p /v/in/side; echo deep > /v/in/side/file; ln -s / /v/out; ln -s in /v/link";
    run(&["-v", "data:/v", "busybox", "sh", "-c", fill]).expect_code(0);
    let mount = |subpath: &str| format!("type=volume,src=data,dst=/m,volume-subpath={subpath}");
    assert_eq!(run(&["--mount", &mount("in/side"), "busybox", "cat", "/m/file"]).expect_code(0).text(), "deep");
    assert_eq!(run(&["--mount", &mount("link/side/file"), "busybox", "cat", "/m"]).expect_code(0).text(), "deep");
    // A link to the root leads to the volume's own root.
    assert_eq!(run(&["--mount", &mount("out"), "busybox", "ls", "/m"]).expect_code(0).text(), "in\nlink\nout");
    for (subpath, message) in [("missing", "it does not exist"), ("../x", "subpath must be a relative path")] {
        let refused = run(&["--mount", &mount(subpath), "busybox", "true"]).expect_code(125).error_text();
        assert!(refused.contains(message), "{refused}");
    }

    let image = "type=image,src=busybox,dst=/image";
    assert_eq!(
        run(&["--mount", image, "busybox", "ls", "/image/bin/busybox"]).expect_code(0).text(),
        "/image/bin/busybox"
    );
    let refused = run(&["--mount", image, "busybox", "touch", "/image/x"]).expect_code(1).error_text();
    assert!(refused.contains("Read-only file system"), "{refused}");
    let part = "type=image,src=busybox,dst=/image,image-subpath=bin";
    assert_eq!(run(&["--mount", part, "busybox", "ls", "/image/busybox"]).expect_code(0).text(), "/image/busybox");
    let missing = run(&["--pull", "never", "--mount", "type=image,src=nosuch,dst=/i", "busybox", "true"])
        .expect_code(125)
        .error_text();
    assert!(missing.contains("No such image: nosuch"), "{missing}");
    let kept = engine.conex(["create", "--mount", part, "busybox"]).ok();
    let shown =
        engine.docker(["inspect", "--format", "{{(index .Mounts 0).Type}} {{(index .Mounts 0).RW}}", &kept]).ok();
    assert_eq!(shown, "image false");
    assert!(engine.conex(["cp", &format!("{kept}:/image/busybox"), "-"]).run().expect_code(0).stdout.len() > 100_000);
    engine.docker(["rm", &kept]).ok();
    engine.docker(["volume", "rm", "data"]).ok();
    engine.finish();
}
