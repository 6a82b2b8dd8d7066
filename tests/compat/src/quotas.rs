//! Sizes of containers and volumes, and volumes that begin as others are: what the file system below must be able to do.

use std::io::Write as _;
use std::process::Command;

use harness::{Engine, EngineOptions, Host};

/// Large enough for btrfs; the file has holes.
const DISK_BYTES: u64 = 300 << 20;

/// An engine whose root is a disk of its own, made by `make` and mounted with `options`; none where this machine's kernel need not be able to
/// mount that, which is said on standard error. In the virtual machines, whose kernel is, there is no way round it.
fn engine_on(make: &[&str], options: &str) -> Option<Engine> {
    let host = Host::new();
    let (image, root) = (host.files().join("disk.img"), host.scratch().join("root"));
    std::fs::File::create(&image).unwrap().set_len(DISK_BYTES).unwrap();
    let made = Command::new(make[0]).args(&make[1..]).arg(&image).output().unwrap();
    assert!(made.status.success(), "{make:?}: {made:?}");
    std::fs::create_dir(&root).unwrap();
    let mounted = host.program("mount").args(["-o", &format!("loop,{options}")]).arg(&image).arg(&root).run();
    if mounted.code != 0 {
        let what = format!("a disk of {make:?} with {options}: {}", mounted.error_text());
        assert!(may_lack(make[0], options), "this kernel must mount {what}");
        // Not by `eprintln!`, which a test that passes keeps to itself.
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: this kernel does not mount {what}; ./x vm-test quotas:: has one that does"
        );
        return None;
    }
    let engine = Engine::start_in(host, EngineOptions::default());
    engine.import_busybox();
    Some(engine)
}

/// Whether this kernel may be one without a file system, or without quotas on it (CONFIG_QFMT_V2).
fn may_lack(make: &str, options: &str) -> bool {
    let known = std::fs::read_to_string("/proc/filesystems").unwrap();
    let kind = make.trim_start_matches("mkfs.");
    let has_it = known.lines().any(|line| line.trim_start_matches("nodev").trim() == kind);
    std::env::var_os("CONEX_VM").is_none() && (!has_it || options.contains("quota"))
}

/// Ends the engine, and then takes its disk away, without which its folder cannot be removed.
fn finish(engine: Engine) {
    let (root, scratch) = (engine.root_folder(), engine.host().scratch().to_owned());
    engine.finish();
    assert!(Command::new("umount").arg(&root).status().unwrap().success());
    std::fs::remove_dir_all(scratch).unwrap();
}

const FILL: &str = "dd if=/dev/zero of=/data/big bs=1M count=5 2>&1; stat -c %s /data/big";

#[test]
fn a_size_binds_where_the_file_system_has_project_quotas() {
    let make = ["mkfs.ext4", "-q", "-F", "-O", "quota,project", "-E", "quotatype=prjquota"];
    let Some(engine) = engine_on(&make, "prjquota") else { return };
    let docker = |arguments: &[&str]| engine.docker(arguments).ok();
    docker(&["volume", "create", "-o", "size=2m", "small"]);
    for arguments in [
        &["run", "--rm", "-v", "small:/data", "busybox", "sh", "-c", FILL][..],
        &["run", "--rm", "--storage-opt", "size=2m", "busybox", "sh", "-c", &format!("mkdir /data; {FILL}")],
    ] {
        let said = engine.docker(arguments).run().text();
        let size: u64 = said.lines().last().unwrap().parse().unwrap();
        assert!((1 << 20..=2 << 20).contains(&size), "{said}");
    }
    docker(&["run", "--rm", "busybox", "sh", "-c", &format!("mkdir /data; {FILL} | grep 5242880")]);
    docker(&["volume", "rm", "small"]);
    docker(&["volume", "create", "small"]);
    docker(&["run", "--rm", "-v", "small:/data", "busybox", "sh", "-c", &format!("{FILL} | grep 5242880")]);
    finish(engine);
}

#[test]
fn without_project_quotas_the_error_names_them() {
    let engine = Engine::with_busybox();
    for arguments in [
        &["volume", "create", "-o", "size=20m", "small"][..],
        &["create", "--name", "small", "--storage-opt", "size=20m", "busybox"],
    ] {
        let refused = engine.docker(arguments).fails(1);
        assert!(refused.contains("keeps no project quotas") && refused.contains("prjquota"), "{refused}");
    }
    let refused = engine.docker(["create", "--storage-opt", "color=red", "busybox"]).fails(1);
    assert!(refused.contains("unknown option color"), "{refused}");
    assert_eq!(engine.docker(["volume", "ls", "-q"]).ok(), "", "what is refused is not there");
    assert_eq!(engine.docker(["ps", "-aq"]).ok(), "");
    engine.finish();
}

#[test]
fn a_clone_shares_blocks_and_a_snapshot_stays_as_it_was() {
    let Some(engine) = engine_on(&["mkfs.btrfs", "-q"], "rw") else { return };
    let docker = |arguments: &[&str]| engine.docker(arguments).ok();
    let inside = |volume: &str, script: &str| {
        engine.docker(["run", "--rm", "-v", &format!("{volume}:/data"), "busybox", "sh", "-c", script]).run()
    };
    inside(
        "first",
        "dd if=/dev/urandom of=/data/big bs=1M count=150 2>/dev/null; echo one > /data/sub; ln /data/sub /data/same; \
                     mkdir -m 1777 /data/dir; chown 7:8 /data/sub",
    )
    .expect_code(0);
    // A second copy of its own would not fit.
    docker(&["volume", "create", "-o", "clone=first", "second"]);
    assert_eq!(engine.conex(["volume", "snapshot", "first", "third"]).ok(), "third");
    let check = "cd /data; md5sum big | cut -d' ' -f1; cat sub; stat -c '%h %u:%g' same; stat -c %a dir";
    let expected = inside("first", check).expect_code(0).text();
    assert!(expected.ends_with("one\n2 7:8\n1777"), "{expected}");
    inside("first", "echo changed > /data/sub").expect_code(0);
    inside("second", "echo mine > /data/other").expect_code(0);
    for (volume, expected) in [("second", expected.clone()), ("third", expected)] {
        assert_eq!(inside(volume, check).text(), expected, "{volume}");
    }
    let refused = inside("third", "echo no > /data/sub");
    assert!(refused.code != 0 && refused.error_text().contains("Read-only file system"), "{refused:?}");
    assert!(inside("first", "cat /data/sub; ls /data").text().starts_with("changed\nbig"), "one is not the other");
    let again = engine.conex(["volume", "clone", "first", "second"]).fails(1);
    assert!(again.contains("volume second already exists"), "{again}");
    let missing = engine.conex(["volume", "clone", "nothing", "fourth"]).fails(1);
    assert!(missing.contains("no such volume"), "{missing}");
    finish(engine);
}

#[test]
fn where_blocks_cannot_be_shared_nothing_is_copied() {
    let engine = Engine::with_busybox();
    engine.docker(["run", "--rm", "-v", "first:/data", "busybox", "sh", "-c", "echo one > /data/file"]).ok();
    for command in ["clone", "snapshot"] {
        let refused = engine.conex(["volume", command, "first", "second"]).fails(1);
        assert!(refused.contains("cannot share blocks between files (reflink)"), "{refused}");
    }
    assert_eq!(engine.docker(["volume", "ls", "-q"]).ok(), "first");
    engine.finish();
}
