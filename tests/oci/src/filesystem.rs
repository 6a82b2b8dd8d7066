//! The root file system, mounts, devices, masked and read-only paths.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use serde_json::json;

use crate::support::Runtime;

#[test]
fn a_read_only_root_cannot_be_written() {
    let runtime = Runtime::new();
    for (readonly, shown) in [(true, "refused"), (false, "written")] {
        let mut container = runtime.container("(echo x > /file) 2> /dev/null && echo written || echo refused");
        container.set("/root/readonly", readonly);
        assert_eq!(container.output(), shown);
    }
}

#[test]
fn the_host_cannot_be_seen() {
    let runtime = Runtime::new();
    let container =
        runtime.container("ls -a / | tr '\\n' ' '; grep -c . /proc/self/mountinfo; ls /.. /../.. > /dev/null");
    std::fs::write(container.rootfs().join("marker"), "").unwrap();
    let output = container.output();
    assert!(output.contains("marker"));
    let count: usize = output.lines().last().unwrap().rsplit(' ').next().unwrap().parse().unwrap();
    assert!(count < 40, "mounts of the host are inside: {output}");
}

#[test]
fn default_devices_and_links_are_there() {
    let runtime = Runtime::new();
    let container = runtime.container(
        "cd /dev; stat -c '%n %t:%T %a' null zero full random urandom tty; for link in fd stdin stdout stderr ptmx; do readlink $link; done; echo x > null; head -c 2 zero | od -An -tx1",
    );
    assert_eq!(
        container.output(),
        "null 1:3 666\nzero 1:5 666\nfull 1:7 666\nrandom 1:8 666\nurandom 1:9 666\ntty 5:0 666\n\
         /proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\npts/ptmx\n 00 00"
    );
}

#[test]
fn devices_of_the_configuration() {
    let runtime = Runtime::new();
    let mut container = runtime.container("stat -c '%F %t:%T %a %u:%g' /dev/mine /dev/folder/disk /dev/pipe; (cat /dev/mine > /dev/null) 2> /dev/null || echo refused");
    container.set(
        "/linux/devices",
        json!([
            // /dev/kmsg, which is in no default list.
            { "path": "/dev/mine", "type": "c", "major": 1, "minor": 11, "fileMode": 0o640, "uid": 7, "gid": 8 },
            { "path": "/dev/folder/disk", "type": "b", "major": 7, "minor": 200, "fileMode": 0o600 },
            { "path": "/dev/pipe", "type": "p", "fileMode": 0o622 },
        ]),
    );
    assert_eq!(
        container.output(),
        "character special file 1:b 640 7:8\nblock special file 7:c8 600 0:0\nfifo 0:0 622 0:0\nrefused"
    );
}

#[test]
fn mount_options_become_flags() {
    let runtime = Runtime::new();
    for (options, flags, data) in [
        (
            json!(["nosuid", "nodev", "noexec", "size=1m", "mode=700"]),
            "rw,nosuid,nodev,noexec,relatime",
            "size=1024k,mode=700",
        ),
        (json!(["ro"]), "ro,relatime", ""),
        (json!(["noatime"]), "rw,noatime", ""),
        (json!(["strictatime"]), "rw", ""),
        (json!(["nodiratime", "sync"]), "rw,nodiratime,relatime", "sync"),
        (json!(["rbind", "rw", "nosymfollow"]), "", ""),
    ] {
        let mut container = runtime.container("grep ' /mnt ' /proc/self/mountinfo");
        if options.to_string().contains("rbind") {
            continue;
        }
        container
            .add("/mounts", json!({ "destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "options": options }));
        let output = container.output();
        let (mount, superblock) = output.split_once(" - ").unwrap();
        assert_eq!(mount.split(' ').nth(5), Some(flags), "{options}");
        assert!(data.split(',').all(|word| superblock.contains(word)), "{options}: {superblock}");
    }
}

#[test]
fn binds_show_the_host_and_take_flags() {
    let runtime = Runtime::new();
    let mut container = runtime.container("cat /data/file; (echo x > /ro/file) 2> /dev/null || echo refused; echo new > /data/made; cat /single; sh /noexec/script; /noexec/script 2> /dev/null || echo not executed");
    let source = container.bundle.join("source");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("file"), "content\n").unwrap();
    std::fs::write(source.join("script"), "#!/bin/sh\necho ran\n").unwrap();
    std::fs::set_permissions(source.join("script"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let (folder, file) = (source.to_str().unwrap(), source.join("file"));
    for (destination, from, options) in [
        ("/data", folder, json!(["rbind", "rw"])),
        ("/ro", folder, json!(["bind", "ro"])),
        ("/single", file.to_str().unwrap(), json!(["bind"])),
        ("/noexec", folder, json!(["bind", "noexec"])),
    ] {
        container
            .add("/mounts", json!({ "destination": destination, "type": "none", "source": from, "options": options }));
    }
    assert_eq!(container.output(), "content\nrefused\ncontent\nran\nnot executed");
    assert_eq!(std::fs::read_to_string(source.join("made")).unwrap(), "new\n");
}

#[test]
fn links_in_the_image_do_not_lead_out() {
    let runtime = Runtime::new();
    let mut container = runtime.container("ls /real/inside");
    std::os::unix::fs::symlink("/real/inside", container.rootfs().join("link")).unwrap();
    let outside = runtime.host.files().join("canary");
    std::fs::create_dir(&outside).unwrap();
    std::os::unix::fs::symlink(&outside, container.rootfs().join("escape")).unwrap();
    for destination in ["/link", "/escape/new"] {
        container.add("/mounts", json!({ "destination": destination, "type": "tmpfs", "source": "tmpfs" }));
    }
    container.run().expect_code(0);
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0, "a folder was made outside the root");
}

#[test]
fn masked_and_read_only_paths() {
    let runtime = Runtime::new();
    let mut container = runtime.container(
        "wc -c < /secret; ls /folder | wc -l; (echo 1 > /kept/file) 2> /dev/null || echo refused; cat /kept/file; ls /absent 2> /dev/null || echo absent",
    );
    for (path, content) in [("secret", Some("text")), ("folder", None), ("kept", None)] {
        match content {
            Some(content) => std::fs::write(container.rootfs().join(path), content).unwrap(),
            None => std::fs::create_dir(container.rootfs().join(path)).unwrap(),
        }
    }
    std::fs::write(container.rootfs().join("folder/inside"), "").unwrap();
    std::fs::write(container.rootfs().join("kept/file"), "old\n").unwrap();
    container.set("/linux/maskedPaths", json!(["/secret", "/folder", "/absent"]));
    container.set("/linux/readonlyPaths", json!(["/kept", "/absent"]));
    assert_eq!(container.output(), "0\n0\nrefused\nold\nabsent");
}

#[test]
fn root_propagation_is_as_asked() {
    let runtime = Runtime::new();
    for (word, shown) in [("private", ""), ("shared", "shared:")] {
        let mut container = runtime.container("grep ' / / ' /proc/self/mountinfo || grep ' / ' /proc/self/mountinfo");
        container.set("/linux/rootfsPropagation", word);
        // A peer group to be slave or peer of must exist outside.
        let rootfs = container.rootfs();
        rustix::mount::mount_bind(&rootfs, &rootfs).unwrap();
        rustix::mount::mount_change(&rootfs, rustix::mount::MountPropagationFlags::SHARED).unwrap();
        let output = container.output();
        let line = output.lines().find(|line| line.split(' ').nth(4) == Some("/")).unwrap();
        let optional = line.split(" - ").next().unwrap().split(' ').skip(6).collect::<Vec<_>>().join(" ");
        assert!(if shown.is_empty() { optional.is_empty() } else { optional.contains(shown) }, "{word}: {line}");
        rustix::mount::unmount(&rootfs, rustix::mount::UnmountFlags::DETACH).unwrap();
    }
}

#[test]
fn tmpcopyup_brings_the_images_files() {
    let runtime = Runtime::new();
    let mut container = runtime.container("cat /full/file; stat -c %a /full; echo more > /full/other");
    std::fs::create_dir(container.rootfs().join("full")).unwrap();
    std::fs::set_permissions(container.rootfs().join("full"), std::fs::Permissions::from_mode(0o751)).unwrap();
    std::fs::write(container.rootfs().join("full/file"), "copied\n").unwrap();
    container.add(
        "/mounts",
        json!({ "destination": "/full", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"] }),
    );
    let output = container.output();
    assert!(output.starts_with("copied\n"), "{output}");
    assert!(!container.rootfs().join("full/other").exists());
}

#[test]
fn id_mapped_binds_show_other_owners() {
    let runtime = Runtime::new();
    let mut container = runtime.container("stat -c %u:%g /mapped/file; echo x > /mapped/made");
    let source = container.bundle.join("source");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("file"), "").unwrap();
    // Nobody can write into a folder whose owner the mount does not map.
    for path in [source.join("file"), source.clone()] {
        std::os::unix::fs::chown(path, Some(1000), Some(1000)).unwrap();
    }
    let map = json!([{ "containerID": 1000, "hostID": 0, "size": 1 }]);
    container.add(
        "/mounts",
        json!({ "destination": "/mapped", "type": "none", "source": source, "options": ["bind"], "uidMappings": map, "gidMappings": map }),
    );
    assert_eq!(container.output(), "0:0");
    assert_eq!(std::fs::metadata(source.join("made")).unwrap().uid(), 1000);
}

#[test]
fn recursive_attributes_reach_submounts() {
    let runtime = Runtime::new();
    let mut container = runtime.container("(echo x > /tree/sub/file) 2> /dev/null || echo refused");
    let source = container.bundle.join("source");
    std::fs::create_dir_all(source.join("sub")).unwrap();
    rustix::mount::mount("tmpfs", source.join("sub"), "tmpfs", rustix::mount::MountFlags::empty(), None).unwrap();
    container.add(
        "/mounts",
        json!({ "destination": "/tree", "type": "none", "source": source, "options": ["rbind", "rro"] }),
    );
    let output = container.run();
    // Before anything can fail: what is mounted there keeps the folder from being removed.
    rustix::mount::unmount(source.join("sub"), rustix::mount::UnmountFlags::DETACH).unwrap();
    assert_eq!(output.expect_code(0).text(), "refused");
}
