//! Layers under an overlay: whiteouts, opaque directories, upper directories and the way back to a layer.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use archive::ids::Ids;
use oci::DiffId;
use rustix::fs::{CWD, XattrFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
    move_mount,
};
use snapshots::{Backend, ChangeKind, OverlayXattrs, Selection, Snapshotter, Upper};

use crate::raw_tar::{RawHeader, RawTar};
use crate::support::{BACKENDS, Described, Store, add, assert_same, describe};

/// Mounts an overlay as the runtime does.
fn mount_overlay(snapshotter: &dyn Snapshotter, layers: &[DiffId], upper: Option<&Upper>, place: &Path) {
    let context: OwnedFd = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    let set = |key: &str, path: &Path| fsconfig_set_string(context.as_fd(), key, path).unwrap();
    for lower in snapshotter.lower_dirs(layers).unwrap() {
        set("lowerdir+", &lower);
    }
    if let Some(upper) = upper {
        set("upperdir", &upper.upper);
        set("workdir", &upper.work);
    }
    assert_eq!(snapshotter.overlay_xattrs(), OverlayXattrs::Trusted);
    fsconfig_create(context.as_fd()).unwrap();
    let mount = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).unwrap();
    fs::create_dir_all(place).unwrap();
    move_mount(mount.as_fd(), c"", CWD, place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).unwrap();
}

fn tar() -> RawTar {
    RawTar::new()
}

fn paths(tree: &BTreeMap<PathBuf, Described>) -> Vec<String> {
    tree.iter().skip(1).map(|(path, file)| format!("{}{}", file.kind, path.display())).collect()
}

fn base() -> Vec<u8> {
    tar()
        .directory("./")
        .directory("etc")
        .file("etc/passwd", "root")
        .file("etc/group", "root")
        .directory("opaque")
        .file("opaque/old", "old")
        .directory("replaced")
        .file("replaced/old", "old")
        .directory("gone")
        .file("gone/old", "old")
        .file("file", "old")
        .symlink("link", "file")
        .end()
}

fn check_stack(backend: Backend, upper_layer: RawTar, expected: &[&str]) {
    let store = Store::new(backend);
    let snapshotter = &*store.snapshotter;
    let layers = [add(snapshotter, &base()).unwrap(), add(snapshotter, &upper_layer.end()).unwrap()];
    let merged = store.dir.path().join("merged");
    mount_overlay(snapshotter, &layers, None, &merged);
    assert_eq!(paths(&describe(&merged)), expected, "{backend}");
}

#[test]
fn whiteouts_and_opaque_directories_hide_lower_layers() {
    for backend in BACKENDS {
        let changes = || {
            tar()
                .file("etc/.wh.group", "")
                .file("opaque/.wh..wh..opq", "")
                .file("opaque/new", "new")
                .file(".wh.gone", "")
                // Replaced by a directory of the same name: whiteout and directory in one layer, in either order.
                .file(".wh.replaced", "")
                .file("replaced/new", "new")
                .file("file", "new")
                .file(".wh.file", "")
                .directory("link")
        };
        let expected =
            ["detc", "-etc/passwd", "-file", "dlink", "dopaque", "-opaque/new", "dreplaced", "-replaced/new"];
        check_stack(backend, changes(), &expected);
    }
}

#[test]
fn one_layer_twice_is_mounted_once() {
    let store = Store::new(Backend::ErofsFile);
    let snapshotter = &*store.snapshotter;
    let (one, other) =
        (add(snapshotter, &base()).unwrap(), add(snapshotter, &tar().file(".wh.etc", "").end()).unwrap());
    assert_eq!(snapshotter.lower_dirs(&[one, other, one]).unwrap().len(), 2);
    let merged = store.dir.path().join("merged");
    mount_overlay(snapshotter, &[one, other, one], None, &merged);
    assert!(merged.join("etc/passwd").exists());
}

#[test]
fn an_image_without_layers_is_an_empty_directory() {
    for backend in BACKENDS {
        let store = Store::new(backend);
        let (_, merged) = container(&store, &[], "container");
        assert_eq!(describe(&merged).len(), 1);
    }
}

fn container(store: &Store, layers: &[DiffId], name: &str) -> (Upper, PathBuf) {
    let dir = store.dir.path().join(name);
    fs::create_dir(&dir).unwrap();
    let upper = store.snapshotter.create_upper(&dir, layers).unwrap();
    let merged = dir.join("merged");
    mount_overlay(&*store.snapshotter, layers, Some(&upper), &merged);
    (upper, merged)
}

#[test]
fn the_upper_directory_is_like_the_image_s_root() {
    for backend in BACKENDS {
        let store = Store::new(backend);
        let root = RawHeader::new("./", b'5').mode(0o1751).raw(108, b"0001750").raw(116, b"0000062");
        let tar = tar().pax(&[("SCHILY.xattr.user.root", b"1")]).header(root).end();
        let layer = add(&*store.snapshotter, &tar).unwrap();
        let (_, merged) = container(&store, &[layer], "container");
        let metadata = fs::metadata(&merged).unwrap();
        assert_eq!((metadata.mode() & 0o7777, metadata.uid(), metadata.gid()), (0o1751, 1000, 50), "{backend}");
        let mut value = [0; 10];
        assert_eq!(rustix::fs::getxattr(&merged, "user.root", &mut value), Ok(1));
    }
}

/// Does to a container's root what containers do.
fn change(merged: &Path) {
    fs::write(merged.join("etc/passwd"), "changed").unwrap();
    fs::remove_file(merged.join("etc/group")).unwrap();
    fs::remove_dir_all(merged.join("gone")).unwrap();
    // Removed and made again: overlayfs makes it opaque.
    fs::remove_dir_all(merged.join("opaque")).unwrap();
    fs::create_dir(merged.join("opaque")).unwrap();
    fs::write(merged.join("opaque/new"), "new").unwrap();
    fs::remove_file(merged.join("link")).unwrap();
    symlink("somewhere", merged.join("link")).unwrap();
    fs::create_dir_all(merged.join("new/dir")).unwrap();
    fs::write(merged.join("new/dir/file"), "new").unwrap();
    fs::hard_link(merged.join("new/dir/file"), merged.join("new/again")).unwrap();
    fs::set_permissions(merged.join("new/dir/file"), fs::Permissions::from_mode(0o4711)).unwrap();
    rustix::fs::setxattr(merged.join("new"), "user.x", b"1", XattrFlags::empty()).unwrap();
    fs::write(merged.join(format!("new/{}", "n".repeat(255))), "a long name").unwrap();
}

#[test]
fn changes_are_listed_and_become_a_layer_that_repeats_them() {
    for backend in BACKENDS {
        let store = Store::new(backend);
        let layers = [add(&*store.snapshotter, &base()).unwrap()];
        let (upper, merged) = container(&store, &layers, "first");
        assert_eq!(store.snapshotter.changes(&upper.upper, &layers).unwrap(), []);
        change(&merged);
        let changes = store.snapshotter.changes(&upper.upper, &layers).unwrap();
        let long = format!("A /new/{}", "n".repeat(255));
        let listed: Vec<String> = changes
            .iter()
            .map(|change| format!("{} {}", letter(change.kind), String::from_utf8_lossy(&change.path)))
            .collect();
        assert_eq!(
            listed,
            [
                "C /etc",
                "D /etc/group",
                "C /etc/passwd",
                "D /gone",
                "C /link",
                "A /new",
                "A /new/again",
                "A /new/dir",
                "A /new/dir/file",
                long.as_str(),
                "C /opaque",
                "A /opaque/new",
                "D /opaque/old",
            ],
            "{backend}"
        );
        let mut tar = Vec::new();
        store.snapshotter.diff(&upper.upper, Selection::Everything).unwrap().read_to_end(&mut tar).unwrap();
        let both = [layers[0], add(&*store.snapshotter, &tar).unwrap()];
        let repeated = store.dir.path().join("repeated");
        mount_overlay(&*store.snapshotter, &both, None, &repeated);
        assert_same(&describe(&repeated), &describe(&merged), &backend.to_string());
    }
}

fn letter(kind: ChangeKind) -> char {
    match kind {
        ChangeKind::Modified => 'C',
        ChangeKind::Added => 'A',
        ChangeKind::Deleted => 'D',
    }
}

#[test]
fn an_exported_tree_is_the_tree() {
    let store = Store::new(Backend::ErofsFile);
    let layers = [add(&*store.snapshotter, &base()).unwrap()];
    let (_, merged) = container(&store, &layers, "container");
    change(&merged);
    let mut tar = Vec::new();
    archive::export::tree(File::open(&merged).unwrap().as_fd(), &Ids::default(), &mut tar).unwrap();
    let again = store.add(&tar).unwrap();
    assert_same(&describe(&again), &describe(&merged), "exported and imported");
}

#[test]
fn a_container_keeps_its_layers_when_they_are_removed_from_the_store() {
    for backend in [Backend::ErofsFile, Backend::ErofsLoop] {
        let store = Store::new(backend);
        let layer = add(&*store.snapshotter, &base()).unwrap();
        let (_, merged) = container(&store, &[layer], "container");
        store.snapshotter.unmount_except(&[]).unwrap();
        store.snapshotter.remove(&layer).unwrap();
        assert_eq!(fs::read_to_string(merged.join("etc/passwd")).unwrap(), "root", "{backend}");
        assert_eq!(fs::read_dir(store.dir.path().join("run/layers")).unwrap().count(), 1, "only `empty` is left");
    }
}

#[test]
fn parts_of_a_tree_are_exported_under_another_name() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    fs::create_dir_all(root.join("etc/sub")).unwrap();
    fs::write(root.join("etc/sub/file"), "contents").unwrap();
    fs::write(dir.path().join("secret"), "outside").unwrap();
    symlink("/etc/sub", root.join("absolute")).unwrap();
    symlink("../../secret", root.join("etc/out")).unwrap();
    let check = |path: &str, expected: Result<&[&str], std::io::ErrorKind>| {
        let mut tar = Vec::new();
        let outcome = archive::export::subtree(
            File::open(&root).unwrap().as_fd(),
            path.as_bytes(),
            b"new",
            &Ids::default(),
            &mut tar,
        );
        let listed = outcome.map_err(|error| error.kind()).map(|()| {
            let mut reader = archive::tar::Reader::new(tar.as_slice());
            std::iter::from_fn(|| reader.next_entry().unwrap())
                .map(|entry| String::from_utf8(entry.path).unwrap())
                .collect::<Vec<_>>()
        });
        assert_eq!(listed, expected.map(|names| names.iter().map(|name| (*name).to_owned()).collect()), "{path}");
    };
    check("/etc/sub", Ok(&["new", "new/file"]));
    check("etc/sub/", Ok(&["new", "new/file"]));
    check("/absolute/file", Ok(&["new"]));
    check("/absolute", Ok(&["new"]));
    check("/absolute/.", Ok(&["new", "new/file"]));
    check("/../../etc/sub", Ok(&["new", "new/file"]));
    check("/etc/out", Ok(&["new"]));
    check("/etc/out/.", Err(std::io::ErrorKind::NotFound));
    check("/nothing", Err(std::io::ErrorKind::NotFound));
    check("/nothing/here", Err(std::io::ErrorKind::NotFound));
    check("/", Ok(&["new", "new/absolute", "new/etc", "new/etc/out", "new/etc/sub", "new/etc/sub/file"]));
}

#[test]
fn set_user_id_bits_and_devices_work_in_the_overlay_alone() {
    let store = Store::new(Backend::ErofsFile);
    let program = fs::read("/usr/bin/id").unwrap();
    let header = RawHeader::new("id", b'0').mode(0o4755).size(program.len() as u64);
    let tar = tar().header(header).data(&program).header(RawHeader::new("null", b'3').device(1, 3)).end();
    let layers = [add(&*store.snapshotter, &tar).unwrap()];
    let (_, merged) = container(&store, &layers, "container");
    // The user who runs the program must reach it.
    for dir in [
        store.dir.path(),
        &store.dir.path().join("run"),
        &store.dir.path().join("run/layers"),
        &store.dir.path().join("container"),
    ] {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let effective = |program: PathBuf| {
        let output =
            Command::new("setpriv").args(["--reuid=1000", "--clear-groups"]).arg(program).arg("-u").output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let layer = store.snapshotter.lower_dirs(&layers).unwrap().remove(0);
    assert_eq!(effective(merged.join("id")), "0\n");
    assert_eq!(effective(layer.join("id")), "1000\n");
    assert!(File::open(merged.join("null")).is_ok());
    assert!(File::open(layer.join("null")).is_err());
}
