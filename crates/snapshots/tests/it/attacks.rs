//! Hostile tars: a corpus of them, against every back end and against extraction, with a canary outside.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use archive::extract::{Options, Overwrite, Owner, extract};
use archive::ids::Ids;
use archive::tar::Reader;
use archive::unpack::Privileges;

use crate::corpus::Expected::{Refused, Stored};
use crate::corpus::{corpus, header, tar};
use crate::support::{BACKENDS, Described, Store, assert_same, describe};

/// A directory that nobody may touch, where the tars' names point to.
fn make_canary(dir: &Path) -> BTreeMap<PathBuf, Described> {
    let canary = dir.join("canary");
    fs::create_dir(&canary).unwrap();
    fs::set_permissions(&canary, fs::Permissions::from_mode(0o711)).unwrap();
    fs::write(canary.join("file"), "sings").unwrap();
    describe(&canary)
}

#[test]
fn the_corpus_against_every_back_end() {
    for backend in BACKENDS {
        let store = Store::new(backend);
        let canary = make_canary(store.dir.path());
        for case in corpus() {
            let what = format!("{backend}: {}", case.name);
            match (store.add(&case.tar), &case.expected) {
                (Err(snapshots::Error::Refused(_)), Refused) => {}
                (Ok(layer), Stored(files)) => assert_eq!(found(&layer), expected(files), "{what}"),
                (other, expected) => panic!("{what}: {other:?}, but {expected:?} was expected"),
            }
        }
        assert_same(&describe(&store.dir.path().join("canary")), &canary, "the canary");
        let left: Vec<_> = fs::read_dir(store.dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left.len(), 3, "only root, run and canary: {left:?}");
    }
}

fn found(layer: &Path) -> Vec<(char, String)> {
    let files = describe(layer);
    files.into_iter().skip(1).map(|(path, file)| (file.kind, path.to_string_lossy().into_owned())).collect()
}

fn expected(files: &[(char, &str)]) -> Vec<(char, String)> {
    files.iter().map(|(kind, path)| (*kind, (*path).to_owned())).collect()
}

#[test]
fn the_corpus_against_extraction() {
    for case in corpus() {
        let dir = tempfile::tempdir().unwrap();
        let canary = make_canary(dir.path());
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("inside")).unwrap();
        // The container's own links: into itself by its own reckoning, out of it by the host's.
        symlink(dir.path().join("canary"), root.join("inside/to-canary")).unwrap();
        symlink("../../canary", root.join("inside/up")).unwrap();
        let outcome = extract_into(&root, &case.tar);
        assert_same(&describe(&dir.path().join("canary")), &canary, case.name);
        let left = fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(left, 2, "{}: only root and canary", case.name);
        if matches!(case.expected, Stored(_)) && !case.name.contains("overlayfs") {
            outcome.unwrap_or_else(|error| panic!("{}: {error}", case.name));
        }
    }
}

fn extract_into(root: &Path, tar: &[u8]) -> Result<(), archive::extract::ExtractError> {
    let root = File::open(root).unwrap();
    let options = Options {
        directory: b"inside",
        rename: None,
        overwrite: Overwrite::Replace,
        owner: Owner::AsInTar,
        ids: &Ids::default(),
        privileges: Privileges::Full,
    };
    extract(&mut &*tar, root.as_fd(), &options)
}

#[test]
fn extraction_goes_through_links_of_the_container_but_not_out_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let canary = make_canary(dir.path());
    let root = dir.path().join("root");
    fs::create_dir_all(root.join("inside")).unwrap();
    fs::create_dir_all(root.join("canary")).unwrap();
    symlink("/canary", root.join("inside/absolute")).unwrap();
    symlink("../../../canary", root.join("inside/up")).unwrap();
    symlink("/proc/self/root", root.join("inside/magic")).unwrap();
    extract_into(&root, &tar().file("absolute/a", "x").file("up/b", "x").end()).unwrap();
    assert!(root.join("canary/a").exists() && root.join("canary/b").exists());
    assert!(extract_into(&root, &tar().file("magic/c", "x").end()).is_err());
    // A mode given to a directory never reaches what a link of that name points to.
    symlink("../../canary", root.join("inside/d")).unwrap();
    extract_into(&root, &tar().header(header("d", b'5').mode(0o777)).end()).unwrap();
    assert!(fs::symlink_metadata(root.join("inside/d")).unwrap().is_dir());
    assert_same(&describe(&dir.path().join("canary")), &canary, "the canary");
}

#[test]
fn a_container_that_swaps_directories_for_links_gains_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let canary = make_canary(dir.path());
    let root = dir.path().join("root");
    fs::create_dir_all(root.join("inside/a")).unwrap();
    symlink(dir.path().join("canary"), root.join("inside/b")).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let inside = root.join("inside");
        let stop = &stop;
        scope.spawn(move || {
            let flags = rustix::fs::RenameFlags::EXCHANGE;
            let (a, b) = (inside.join("a"), inside.join("b"));
            let mut swapped = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                match rustix::fs::renameat_with(rustix::fs::CWD, &a, rustix::fs::CWD, &b, flags) {
                    Ok(()) => swapped += 1,
                    // The extraction has removed one of the two at this moment, perhaps for good.
                    Err(_) => drop(symlink("../../canary", &b)),
                }
            }
            assert!(swapped > 100, "{swapped}");
        });
        let tar = tar().header(header("a", b'5').mode(0o777)).file("a/x", "x").file("a/sub/y", "y").end();
        for _ in 0..2000 {
            // It fails whenever the link is in the way; what matters is where the files are.
            let _ = extract_into(&root, &tar);
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_same(&describe(&dir.path().join("canary")), &canary, "the canary");
}

#[test]
fn overlay_attributes_are_dropped_and_others_are_kept() {
    let smuggled: &[(&str, &[u8])] = &[
        ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
        ("SCHILY.xattr.trusted.overlay.metacopy", b""),
        ("SCHILY.xattr.user.overlay.opaque", b"y"),
        ("SCHILY.xattr.user.kept", b"1"),
    ];
    for backend in BACKENDS {
        let store = Store::new(backend);
        let layer = store.add(&tar().pax(smuggled).directory("d").end()).unwrap();
        let dir = File::open(layer.join("d")).unwrap();
        let mut names = vec![0; 1000];
        let length = rustix::fs::flistxattr(dir.as_fd(), &mut names).unwrap();
        assert_eq!(String::from_utf8_lossy(&names[..length]), "user.kept\0", "{backend}");
    }
}

/// Where our reader lists entries, it lists what Python's and GNU's readers list.
#[test]
fn accepted_tars_mean_the_same_to_python_and_gnu_tar() {
    let dir = tempfile::tempdir().unwrap();
    let accepted: Vec<_> = corpus().into_iter().filter_map(|case| Some((our_list(&case.tar)?, case))).collect();
    let path = |number: usize| dir.path().join(format!("{number:03}.tar"));
    for (number, (_, case)) in accepted.iter().enumerate() {
        fs::write(path(number), &case.tar).unwrap();
    }
    let python = python_lists(dir.path());
    assert!(accepted.len() > 25 && python.len() == accepted.len());
    for (number, ((ours, case), theirs)) in accepted.iter().zip(python).enumerate() {
        assert_eq!(*ours, theirs, "Python: {}", case.name);
        assert_eq!(ours.len(), gnu_list(&path(number)), "GNU tar: {}", case.name);
    }
}

/// Names and sizes of all entries; `None` for a refused tar.
fn our_list(tar: &[u8]) -> Option<Vec<String>> {
    let mut reader = Reader::new(tar);
    let mut list = Vec::new();
    loop {
        match reader.next_entry() {
            Ok(Some(entry)) => {
                let size = match entry.kind {
                    archive::tar::EntryKind::File { size, .. } => size,
                    _ => 0,
                };
                list.push(format!("{} {size}", entry.path.escape_ascii()));
            }
            Ok(None) => return Some(list),
            Err(_) => return None,
        }
    }
}

/// The lists of all tars in a directory, in the order of their names.
fn python_lists(dir: &Path) -> Vec<Vec<String>> {
    let program = r#"
import os, sys, tarfile
def clean(name):
    raw = name.encode('utf-8', 'surrogateescape')
    parts = [part for part in raw.split(b'/') if part not in (b'', b'.')]
    return ''.join(chr(b) if 32 <= b < 127 else '\\x%02x' % b for b in b'/'.join(parts))
for name in sorted(os.listdir(sys.argv[1])):
    print('==')
    for member in tarfile.open(os.path.join(sys.argv[1], name), 'r:'):
        print(clean(member.name), member.size if member.isfile() else 0)
"#;
    let output = Command::new("python3").args(["-c", program]).arg(dir).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.split("==\n").skip(1).map(|list| list.lines().map(str::to_owned).collect()).collect()
}

fn gnu_list(tar: &Path) -> usize {
    let mut command = Command::new("tar");
    command.args(["--list", "--absolute-names", "--quoting-style=escape", "--file"]).arg(tar);
    let output = command.stderr(Stdio::null()).output().unwrap();
    String::from_utf8_lossy(&output.stdout).lines().count()
}
