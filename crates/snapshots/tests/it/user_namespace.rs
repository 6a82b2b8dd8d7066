//! The store of a user who is root in a user namespace alone.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;

use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen, move_mount,
};
use snapshots::{Backend, Choice, OverlayXattrs};

use crate::raw_tar::{RawHeader, RawTar};
use crate::support::{add, describe};

/// Set in the process that this test starts inside a user namespace.
const INSIDE: &str = "CONEX_TEST_IN_USER_NAMESPACE";

#[test]
fn layers_are_unpacked_and_stacked_there() {
    if let Some(dir) = std::env::var_os(INSIDE) {
        return inside(Path::new(&dir));
    }
    let dir = tempfile::tempdir().unwrap();
    // util-linux, because a process with threads cannot enter a user namespace.
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "--propagation=private"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "user_namespace::layers_are_unpacked_and_stacked_there", "--nocapture"])
        .env(INSIDE, dir.path())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(dir.path().join("inside-has-run").exists());
}

fn inside(dir: &Path) {
    let (root, run) = (dir.join("root"), dir.join("run"));
    let probe = snapshots::probe(&root);
    assert!(probe.erofs_file.is_err() && probe.erofs_loop.is_err(), "{probe:?}");
    let store = snapshots::open(&root, &run, Choice::Automatic).unwrap();
    assert_eq!((store.backend(), store.overlay_xattrs()), (Backend::Directories, OverlayXattrs::User));
    let base = RawTar::new()
        .file("gone", "x")
        .file("opaque/old", "x")
        .header(RawHeader::new("null", b'3').device(1, 3))
        .pax(&[("SCHILY.xattr.trusted.x", b"1"), ("SCHILY.xattr.user.x", b"1")])
        .file("setuid", "x")
        .end();
    let top = RawTar::new().file(".wh.gone", "").file("opaque/.wh..wh..opq", "").file("opaque/new", "x").end();
    let layers = [add(&*store, &base).unwrap(), add(&*store, &top).unwrap()];
    // Devices cannot be made there, and are left out; the tar has them all the same.
    store.verify(&layers[0]).unwrap();
    let upper = store.create_upper(dir, &layers).unwrap();
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    for lower in store.lower_dirs(&layers).unwrap() {
        fsconfig_set_string(context.as_fd(), "lowerdir+", &lower).unwrap();
    }
    fsconfig_set_string(context.as_fd(), "upperdir", &upper.upper).unwrap();
    fsconfig_set_string(context.as_fd(), "workdir", &upper.work).unwrap();
    fsconfig_set_flag(context.as_fd(), "userxattr").unwrap();
    fsconfig_create(context.as_fd()).unwrap();
    let mount = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).unwrap();
    let merged = dir.join("merged");
    fs::create_dir(&merged).unwrap();
    move_mount(mount.as_fd(), c"", CWD, &merged, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).unwrap();
    let names: Vec<_> = describe(&merged).into_keys().collect();
    assert_eq!(names, ["", "opaque", "opaque/new", "setuid"].map(Path::new));
    let xattrs: Vec<_> = describe(&merged)[Path::new("setuid")].xattrs.iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(xattrs, [b"user.x".to_vec()]);
    fs::remove_dir_all(merged.join("opaque")).unwrap();
    fs::create_dir(merged.join("opaque")).unwrap();
    let changes: Vec<_> = store.changes(&upper.upper, &layers).unwrap().into_iter().map(|change| change.path).collect();
    assert_eq!(changes, [b"/opaque".to_vec(), b"/opaque/new".to_vec()]);
    fs::write(dir.join("inside-has-run"), "").unwrap();
}
