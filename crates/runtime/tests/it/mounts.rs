//! Mounts and their options, as the container's own mountinfo shows them.

use std::path::Path;

use runtime::Rootfs;
use serde_json::json;

use crate::harness::Bundle;

/// The options of a mount, and after a space the optional fields.
const INFO: &str = "awk -v at=";

fn info(destination: &str) -> String {
    format!(
        "{INFO}{destination} '$5 == at {{ line = $6; for (i = 7; $i != \"-\"; i++) line = line \" \" $i; last = line }} END {{ print last }}' /proc/self/mountinfo"
    )
}

fn source(bundle: &Bundle) -> std::path::PathBuf {
    let path = bundle.folder.path().join("source");
    std::fs::create_dir_all(path.join("sub")).unwrap();
    std::fs::write(path.join("file"), "content").unwrap();
    path
}

#[test]
fn a_bind_has_its_options() {
    let bundle = Bundle::new();
    let path = source(&bundle);
    let bundle = bundle.mount("/mnt/data", "bind", &path, &["rbind", "ro", "nosuid", "nodev", "noexec", "noatime"]);
    let output = bundle
        .output(&format!("cat /mnt/data/file; echo; touch /mnt/data/x 2>/dev/null; echo $?; {}", info("/mnt/data")));
    assert_eq!(output, "content\n1\nro,nosuid,nodev,noexec,noatime");
}

#[test]
fn a_file_is_bound_over_a_file() {
    let bundle = Bundle::new();
    let path = source(&bundle).join("file");
    assert_eq!(bundle.mount("/etc/new/hosts", "bind", &path, &["bind"]).output("cat /etc/new/hosts"), "content");
}

#[test]
fn recursive_attributes_reach_below() {
    let bundle = Bundle::new();
    let path = source(&bundle);
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("tmpfs", path.join("sub"), "tmpfs", flags, None).unwrap();
    let bundle = bundle.mount("/mnt", "bind", &path, &["rbind", "rro", "rnosuid"]);
    let output = bundle.output(&format!("{}; {}", info("/mnt"), info("/mnt/sub")));
    assert_eq!(output, "ro,nosuid,relatime\nro,nosuid,relatime");
    let bundle = Bundle::new();
    let path = source(&bundle);
    rustix::mount::mount("tmpfs", path.join("sub"), "tmpfs", flags, None).unwrap();
    let bundle = bundle.mount("/mnt", "bind", &path, &["rbind", "ro"]);
    let output = bundle.output(&format!("{}; {}", info("/mnt"), info("/mnt/sub")));
    assert_eq!(output, "ro,relatime\nrw,relatime");
}

#[test]
fn propagation_is_set() {
    for (option, expected) in
        [("shared", "shared:"), ("rshared", "shared:"), ("private", ""), ("unbindable", "unbindable")]
    {
        let bundle = Bundle::new();
        let path = source(&bundle);
        let output = bundle.mount("/mnt", "bind", &path, &["rbind", option]).output(&info("/mnt"));
        let fields = output.split_once(' ').map_or("", |(_, fields)| fields);
        assert!(
            if expected.is_empty() { fields.is_empty() } else { fields.starts_with(expected) },
            "{option}: {output}"
        );
    }
}

#[test]
fn propagation_of_the_root_is_set() {
    for (word, expected) in [("shared", "shared:"), ("private", ""), ("unbindable", "unbindable"), ("rslave", "")] {
        let output = Bundle::new().edit(|spec| spec["linux"]["rootfsPropagation"] = json!(word)).output(&info("/"));
        let fields = output.split_once(' ').map_or("", |(_, fields)| fields);
        assert!(
            if expected.is_empty() { !fields.contains("shared") } else { fields.starts_with(expected) },
            "{word}: {output}"
        );
    }
}

#[test]
fn a_tmpfs_takes_data_and_the_mode_of_what_it_covers() {
    let bundle = Bundle::new().mount("/mnt", "tmpfs", Path::new("tmpfs"), &["size=64k", "mode=1750", "ro"]);
    let output = bundle
        .output(&format!("stat -c %a /mnt; {}; grep ' /mnt ' /proc/self/mountinfo | grep -c size=64k", info("/mnt")));
    assert_eq!(output, "1750\nro,relatime\n1");
    let bundle = Bundle::new();
    std::fs::set_permissions(bundle.root().join("tmp"), std::os::unix::fs::PermissionsExt::from_mode(0o1777)).unwrap();
    assert_eq!(bundle.mount("/tmp", "tmpfs", Path::new("tmpfs"), &[]).output("stat -c %a /tmp"), "1777");
}

#[test]
fn a_tmpfs_copies_up() {
    let bundle = Bundle::new();
    std::fs::write(bundle.root().join("home/alice/file"), "copied").unwrap();
    let bundle = bundle.mount("/home", "tmpfs", Path::new("tmpfs"), &["tmpcopyup"]);
    assert_eq!(bundle.output("cat /home/alice/file; touch /home/alice/new && echo ' written'"), "copied written");
}

#[test]
fn a_mount_is_changed_by_remount() {
    let bundle = Bundle::new();
    let path = source(&bundle);
    let bundle =
        bundle.mount("/mnt", "bind", &path, &["bind"]).mount("/mnt", "", Path::new(""), &["remount", "ro", "bind"]);
    assert_eq!(bundle.output(&info("/mnt")), "ro,relatime");
}

#[test]
fn a_bind_is_id_mapped() {
    let bundle = Bundle::new();
    let path = source(&bundle);
    std::os::unix::fs::chown(path.join("file"), Some(5), Some(5)).unwrap();
    let mapping = json!([{ "containerID": 5, "hostID": 1000, "size": 1 }]);
    let bundle = bundle.edit(|spec| {
        spec["mounts"].as_array_mut().unwrap().push(json!({
            "destination": "/mnt", "type": "bind", "source": path, "options": ["rbind", "idmap"], "uidMappings": mapping, "gidMappings": mapping,
        }));
    });
    assert_eq!(bundle.output("stat -c %u:%g /mnt/file"), "1000:1000");
}

#[test]
fn an_unknown_type_and_a_missing_source_are_told() {
    let error = Bundle::new().mount("/mnt", "nosuchfs", Path::new("x"), &[]).refused("true");
    assert!(error.message.contains("error mounting \"x\" to rootfs at \"/mnt\""), "{}", error.message);
    let error = Bundle::new().mount("/mnt", "bind", Path::new("/no/such"), &["rbind"]).refused("true");
    assert!(error.message.contains("no such file or directory"), "{}", error.message);
    let error = Bundle::new().mount("/mnt", "tmpfs", Path::new("tmpfs"), &["nosuchoption=1"]).refused("true");
    assert!(error.message.contains("nosuchoption"), "{}", error.message);
}

#[test]
fn the_root_is_read_only_where_asked_for() {
    let bundle = Bundle::new().edit(|spec| spec["root"]["readonly"] = json!(true));
    assert_eq!(bundle.output("touch /x 2>/dev/null; echo $?; touch /dev/shm/x && echo shm"), "1\nshm");
}

#[test]
fn paths_are_masked_and_read_only() {
    let bundle = Bundle::new().edit(|spec| {
        spec["linux"]["maskedPaths"] = json!(["/etc/passwd", "/home", "/no/such"]);
        spec["linux"]["readonlyPaths"] = json!(["/tmp", "/no/such"]);
    });
    let output = bundle.output("cat /etc/passwd | wc -c; ls /home | wc -l; touch /tmp/x /home/x 2>/dev/null; echo $?; test -w /proc/sys && echo writable");
    assert_eq!(output, "0\n0\n1\nwritable");
}

#[test]
fn devices_are_made() {
    let bundle = Bundle::new().edit(|spec| {
        spec["linux"]["devices"] = json!([
            { "path": "/dev/mine", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 7, "gid": 8 },
            { "path": "/dev/deep/down/block", "type": "b", "major": 7, "minor": 0 },
            { "path": "/tmp/fifo", "type": "p" },
        ]);
    });
    let output = bundle.output(
        "stat -c '%F %t:%T %a %u:%g' /dev/mine /dev/deep/down/block /tmp/fifo /dev/null; readlink /dev/ptmx; readlink /dev/fd",
    );
    let expected = "character special file 1:5 640 7:8\nblock special file 7:0 666 0:0\nfifo 0:0 666 0:0\n\
                    character special file 1:3 666 0:0\npts/ptmx\n/proc/self/fd";
    assert_eq!(output, expected);
}

#[test]
fn an_overlay_is_mounted_where_nobody_sees_it() {
    let mut bundle = Bundle::new();
    let folder = bundle.folder.path().to_owned();
    for name in ["upper", "work", "layer"] {
        std::fs::create_dir(folder.join(name)).unwrap();
    }
    std::fs::write(folder.join("layer/etc-from-layer"), "layer").unwrap();
    bundle.rootfs = Rootfs::Overlay {
        lower: vec![folder.join("layer"), folder.join("rootfs")],
        upper: Some(folder.join("upper")),
        work: Some(folder.join("work")),
        options: vec![],
    };
    let mut bundle = bundle.script("cat /etc-from-layer; echo new > /new; mount -t tmpfs x /tmp 2>/dev/null; sleep 60");
    let started = bundle.start().unwrap();
    // The shell makes the file first and writes into it a moment later.
    while std::fs::read(folder.join("upper/new")).ok().as_deref() != Some(b"new\n") {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    // The layers are in an overlay's line of the table, wherever it is mounted.
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(folder.to_str().unwrap()), "{mounts}");
    // The mount for the creator shows the files, and not what is mounted over them in the container.
    let mount = started.running.rootfs_mount.as_ref().unwrap();
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
    let proc = rustix::fs::openat(mount, "proc", flags, rustix::fs::Mode::empty()).unwrap();
    assert_eq!(rustix::fs::Dir::read_from(&proc).unwrap().count(), 2, "only . and ..");
    rustix::fs::openat(mount, "new", rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty()).unwrap();
    started.kill();
    assert_eq!(std::fs::read_to_string(folder.join("upper/new")).unwrap(), "new\n");
}

#[test]
fn the_cgroup_mount_shows_the_containers_own() {
    let output = Bundle::new().output("ls /sys/fs/cgroup; cat /proc/self/cgroup");
    assert!(output.contains("memory"), "{output}");
    let error = Bundle::new().output("mkdir /sys/fs/cgroup/memory/x 2>&1; true");
    assert!(error.contains("Read-only"), "{error}");
}

#[test]
fn moving_the_root_serves_where_pivoting_is_impossible() {
    let mut bundle = Bundle::new();
    bundle.pivot = runtime::Pivot::MoveMount;
    assert_eq!(bundle.output("ls /; cat /etc/passwd | head -c 4").lines().last(), Some("root"));
}

#[test]
fn mounts_are_listed_in_the_order_of_the_configuration() {
    let bundle = Bundle::new();
    let path = source(&bundle);
    let bundle =
        bundle.mount("/mnt/first", "tmpfs", Path::new("tmpfs"), &[]).mount("/mnt/second", "bind", &path, &["rbind"]);
    assert_eq!(bundle.output("grep -o '/mnt/[a-z]*' /proc/self/mountinfo"), "/mnt/first\n/mnt/second");
}

#[test]
fn a_bind_over_a_link_that_leads_nowhere_goes_where_it_leads() {
    let bundle = Bundle::new();
    let path = source(&bundle).join("file");
    std::os::unix::fs::symlink("../run/resolve/stub.conf", bundle.root().join("etc/resolv.conf")).unwrap();
    assert_eq!(bundle.mount("/etc/resolv.conf", "bind", &path, &["bind"]).output("cat /etc/resolv.conf"), "content");
}

/// Any words that mount(8) knows, against what the kernel shows of the mounts that mount(8) makes of them.
#[test]
fn options_mean_what_they_mean_to_mount() {
    use proptest::prelude::*;
    use proptest::strategy::ValueTree;
    let flags = proptest::sample::select(vec![
        "ro",
        "rw",
        "nosuid",
        "suid",
        "nodev",
        "dev",
        "noexec",
        "exec",
        "nodiratime",
        "diratime",
        "nosymfollow",
        "sync",
        "dirsync",
        "async",
    ]);
    // Of several about access times mount(8) takes the strictest, and the specification is silent.
    let access_time = proptest::sample::select(vec!["noatime", "relatime", "strictatime", "defaults"]);
    let words = (proptest::collection::vec(flags, 0..6), access_time).prop_map(|(mut words, last)| {
        words.push(last);
        words
    });
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let cases: Vec<Vec<&str>> = (0..60).map(|_| words.new_tree(&mut runner).unwrap().current()).collect();
    let mut bundle = Bundle::new();
    let folder = bundle.folder.path().join("oracle");
    for (number, words) in cases.iter().enumerate() {
        let place = folder.join(number.to_string());
        std::fs::create_dir_all(&place).unwrap();
        let mount = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &words.join(","), "tmpfs"])
            .arg(&place)
            .status();
        assert!(mount.unwrap().success(), "{words:?}");
        bundle = bundle.mount(&format!("/oracle/{number}"), "tmpfs", Path::new("tmpfs"), words);
    }
    let ours = shown(&bundle.output("cat /proc/self/mountinfo"), "/oracle/");
    let theirs = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let theirs = shown(&theirs, &format!("{}/", folder.display()));
    assert_eq!((ours.len(), theirs.len()), (cases.len(), cases.len()));
    for ((ours, theirs), words) in ours.iter().zip(&theirs).zip(&cases) {
        assert_eq!(ours, theirs, "{words:?}");
    }
}

/// The options of the mounts below a path, in their order: those of the mount, and whether its file system writes at once.
fn shown(mountinfo: &str, below: &str) -> Vec<(String, bool, bool)> {
    let lines = mountinfo.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let found = lines.filter(|fields| fields[4].starts_with(below)).map(|fields| {
        let of_file_system: Vec<&str> = fields.last().unwrap().split(',').collect();
        (fields[5].to_owned(), of_file_system.contains(&"sync"), of_file_system.contains(&"dirsync"))
    });
    found.collect()
}
