//! A process that is killed while it loads leaves nothing that stays.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use archive::compression::Compression;
use images::LoadRequest;

use crate::fixtures::{Picture, Site, files_below, layer};

const ROOT: &str = "CONEX_TEST_LOAD_INTO";

/// Not a test by itself: the process that [`a_killed_load_leaves_nothing`] kills.
#[test]
fn load_from_standard_input() {
    let Some(root) = std::env::var_os(ROOT) else { return };
    let root = std::path::Path::new(&root);
    let snapshotter = snapshots::open(&root.join("root"), &root.join("run"), snapshots::Choice::Automatic).unwrap();
    let store = images::ImageStore::open(&root.join("root"), snapshotter).unwrap();
    store.load(Box::new(std::io::stdin()), &LoadRequest::default(), &|_| {}).unwrap();
}

#[test]
fn a_killed_load_leaves_nothing() {
    let archive = Picture::new_archive(
        &[Picture::new(&[layer("a", 2_000_000), layer("b", 2_000_000)], &["app:1"])],
        Compression::None,
    );
    // In the first layer, in the second, and before the manifest.
    for part in [1_000_000, 3_000_000, archive.len() - 2048] {
        let directory = Arc::new(tempfile::tempdir().unwrap());
        kill_after(directory.path(), &archive[..part]);
        let site = Site::open(directory);
        assert_eq!(site.store.problems(), []);
        site.set_no_users();
        site.assert_empty();
        site.load(&archive).unwrap();
    }
}

/// Starts the process, gives it `part` of an archive, waits until it has written something, and kills it.
fn kill_after(root: &std::path::Path, part: &[u8]) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::load_from_standard_input"])
        .env(ROOT, root)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(part).unwrap();
    let layers = root.join("root/layers");
    let deadline = Instant::now() + Duration::from_secs(20);
    while !layers.is_dir() || !files_below(&layers).iter().any(|file| !file.ends_with("lock")) {
        assert!(Instant::now() < deadline, "the load has not begun");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}
