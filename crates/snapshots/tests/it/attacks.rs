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

use crate::raw_tar::{RawHeader, RawTar};
use crate::support::{BACKENDS, Described, Store, assert_same, describe};

/// What must come of a tar.
#[derive(Debug, Clone)]
enum Expected {
    /// The whole layer is refused.
    Refused,
    /// It is stored, and these are the files in it: kind and path.
    Stored(&'static [(char, &'static str)]),
}
use Expected::{Refused, Stored};

struct Case {
    name: &'static str,
    tar: Vec<u8>,
    expected: Expected,
}

fn case(name: &'static str, tar: RawTar, expected: Expected) -> Case {
    Case { name, tar: tar.end(), expected }
}

fn tar() -> RawTar {
    RawTar::new()
}

fn header(name: &str, typeflag: u8) -> RawHeader {
    RawHeader::new(name, typeflag)
}

/// Names and links that try to get out.
fn escapes() -> Vec<Case> {
    vec![
        case("dot-dot", tar().file("../canary/x", "x"), Refused),
        case("dot-dot inside", tar().directory("a").file("a/../../canary/x", "x"), Refused),
        case("dot-dot that stays inside", tar().directory("a").file("a/../b", "x"), Refused),
        case("only dot-dot", tar().directory(".."), Refused),
        case("dot-dot directory", tar().directory("../canary"), Refused),
        case("dot-dot by PAX", tar().pax(&[("path", b"../canary/x")]).file("ok", "x"), Refused),
        case("dot-dot by long name", tar().extension(b'L', b"../canary/x\0").file("ok", "x"), Refused),
        case("dot-dot by prefix", tar().header(header("x", b'0').raw(345, b"../canary")), Refused),
        case("absolute", tar().file("/x", "x"), Stored(&[('-', "x")])),
        case("many slashes", tar().file("///a//b", "x"), Stored(&[('d', "a"), ('-', "a/b")])),
        case("dots", tar().file("././a/./b", "x"), Stored(&[('d', "a"), ('-', "a/b")])),
        case("through a link to the root", tar().symlink("a", "/").file("a/x", "x"), Stored(&[('l', "a"), ('-', "x")])),
        case("through a link upwards", tar().symlink("a", "..").file("a/x", "x"), Stored(&[('l', "a"), ('-', "x")])),
        case(
            "through many dot-dots",
            tar().symlink("a", "../../../../..").file("a/x", "x"),
            Stored(&[('l', "a"), ('-', "x")]),
        ),
        case("through a link to the canary", tar().symlink("a", "../canary").file("a/x", "x"), Refused),
        case("through an absolute link", tar().symlink("a", "/canary").file("a/x", "x"), Refused),
        case(
            "through two links",
            tar().symlink("a", "b").symlink("b", "/").file("a/x", "x"),
            Stored(&[('l', "a"), ('l', "b"), ('-', "x")]),
        ),
        case("through a loop", tar().symlink("a", "b").symlink("b", "a").file("a/x", "x"), Refused),
        case("through a link to itself", tar().symlink("a", "a").file("a/x", "x"), Refused),
        case("below a file", tar().file("a", "x").file("a/x", "x"), Refused),
        case("below a device", tar().header(header("a", b'3').device(1, 3)).file("a/x", "x"), Refused),
        case(
            "link over directory, then into it",
            tar().directory("a").symlink("a", "../canary").file("a/x", "x"),
            Refused,
        ),
        case(
            "directory over link",
            tar().symlink("a", "../canary").header(header("a", b'5').mode(0o777)),
            Stored(&[('d', "a")]),
        ),
        case("file over link", tar().symlink("a", "../canary/file").file("a", "new"), Stored(&[('-', "a")])),
        case("hard link upwards", tar().hard_link("a", "../canary/file"), Refused),
        case("hard link to an absolute name", tar().hard_link("a", "/canary/file"), Refused),
        case("hard link to nothing", tar().hard_link("a", "b"), Refused),
        case("hard link to a directory", tar().directory("d").hard_link("a", "d"), Refused),
        case("hard link to the root", tar().hard_link("a", "."), Refused),
        case("hard link without target", tar().hard_link("a", ""), Refused),
        case("hard link to what comes later", tar().hard_link("a", "b").file("b", "x"), Refused),
        case("hard link through a link outwards", tar().symlink("s", "../canary").hard_link("a", "s/file"), Refused),
        case(
            "hard link to a link, then write",
            tar().symlink("s", "../canary/file").hard_link("a", "s").file("a", "x"),
            Stored(&[('-', "a"), ('l', "s")]),
        ),
        case("hard link to itself", tar().file("a", "x").hard_link("a", "a"), Stored(&[('-', "a")])),
        case(
            "hard link to a replaced file",
            tar().file("a", "x").hard_link("b", "a").file("a", "y"),
            Stored(&[('-', "a"), ('-', "b")]),
        ),
        case("the root as a file", tar().file(".", "x"), Refused),
        case("the root as a link", tar().symlink("./", "../canary"), Refused),
    ]
}

/// Names that are no names.
fn names() -> Vec<Case> {
    let long = "n".repeat(256);
    let deep = "d/".repeat(600) + "x";
    let longest = ["c".repeat(250).as_str()].repeat(20).join("/");
    vec![
        case("empty name", tar().header(header("", b'0')), Refused),
        case("NUL by PAX", tar().pax(&[("path", b"a\0b")]).file("ok", "x"), Refused),
        case("NUL by long name", tar().extension(b'L', b"a\0b\0").file("ok", "x"), Refused),
        case("component too long", tar().pax(&[("path", long.as_bytes())]).file("ok", "x"), Refused),
        case("name too long", tar().pax(&[("path", longest.as_bytes())]).file("ok", "x"), Refused),
        case("too deep", tar().pax(&[("path", deep.as_bytes())]).file("ok", "x"), Refused),
        case("file with a slash", tar().file("a/", "x"), Refused),
        case("old directory", tar().header(header("a/", 0)), Stored(&[('d', "a")])),
        case("case pair", tar().file("a", "x").file("A", "y"), Stored(&[('-', "A"), ('-', "a")])),
        case("not UTF-8", tar().header(header("", b'0').raw(0, b"\xff\xfe")), Stored(&[('-', "\u{fffd}\u{fffd}")])),
        case("duplicates", tar().file("a", "first").file("a", "last!"), Stored(&[('-', "a")])),
        case(
            "file, then directory",
            tar().file("a", "x").directory("a").file("a/b", "y"),
            Stored(&[('d', "a"), ('-', "a/b")]),
        ),
        case("directory, then file", tar().directory("a").file("a/b", "x").file("a", "y"), Stored(&[('-', "a")])),
        case("ambiguous prefix", tar().header(header("x", b'0').gnu().raw(345, b"pre")), Refused),
    ]
}

/// Where readers disagree about sizes and extended headers, and so about what is an entry at all.
fn disagreements() -> Vec<Case> {
    let hidden = RawTar::new().file("hidden", "h").without_end();
    let with_hidden = |header: RawHeader| tar().header(header).raw(&hidden);
    vec![
        case(
            "PAX size larger",
            tar().pax(&[("size", b"1024")]).raw(&with_hidden(header("a", b'0')).without_end()),
            Refused,
        ),
        case(
            "PAX size smaller",
            tar().pax(&[("size", b"0")]).raw(&with_hidden(header("a", b'0').size(1024)).without_end()),
            Refused,
        ),
        case(
            "PAX before a GNU long name",
            tar().pax(&[("size", b"1024")]).extension(b'L', b"name\0").file("a", "x"),
            Refused,
        ),
        case(
            "GNU long name before PAX",
            tar().extension(b'L', b"name\0").pax(&[("size", b"1")]).file("a", "x"),
            Refused,
        ),
        case("two PAX headers", tar().pax(&[("path", b"a")]).pax(&[("path", b"b")]).file("c", "x"), Refused),
        case("two long names", tar().extension(b'L', b"a\0").extension(b'L', b"b\0").file("c", "x"), Refused),
        case("global size", tar().extension(b'g', b"11 size=99\n").file("a", "x"), Refused),
        case("global comment", tar().extension(b'g', b"13 comment=x\n").file("a", "x"), Stored(&[('-', "a")])),
        case("directory with contents", with_hidden(header("a", b'5').size(1024)), Refused),
        case("link with contents", with_hidden(header("a", b'2').link("b").size(1024)), Refused),
        case("pipe with contents", with_hidden(header("a", b'6').size(1024)), Refused),
        case(
            "hard link with a size",
            tar().file("a", "x").header(header("b", b'1').link("a").size(1024)).file("c", "y"),
            Stored(&[('-', "a"), ('-', "b"), ('-', "c")]),
        ),
        case("lone block of zeros", tar().file("a", "x").raw(&[0; 512]).file("b", "y"), Refused),
        case("entries behind the end", tar().file("a", "x").raw(&[0; 1024]).file("b", "y"), Stored(&[('-', "a")])),
        Case { name: "no end mark", tar: tar().file("a", "x").without_end(), expected: Stored(&[('-', "a")]) },
        Case {
            name: "cut in the contents",
            tar: tar().file("a", "x").without_end()[..700].to_vec(),
            expected: Refused,
        },
        Case { name: "cut in the header", tar: tar().file("a", "x").without_end()[..100].to_vec(), expected: Refused },
        Case { name: "extension without entry", tar: tar().pax(&[("path", b"a")]).end(), expected: Refused },
        case("wrong checksum", tar().raw(&[b'x'; 512]), Refused),
        case("negative size", tar().header(header("a", b'0').raw(124, b"-0000000001")), Refused),
        case(
            "size of eight exbibytes",
            tar().header(header("a", b'0').raw(124, b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff")),
            Refused,
        ),
        case(
            "size beyond 64 bits",
            tar().header(header("a", b'0').raw(124, b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")),
            Refused,
        ),
        case("PAX size beyond 64 bits", tar().pax(&[("size", b"99999999999999999999")]).file("a", "x"), Refused),
        case("PAX size with a sign", tar().pax(&[("size", b"+1")]).file("a", "x"), Refused),
        case("PAX record too long", tar().extension(b'x', b"99 path=a\n").file("a", "x"), Refused),
        case("PAX record without length", tar().extension(b'x', b"path=a\n").file("a", "x"), Refused),
        case("owner beyond 32 bits", tar().pax(&[("uid", b"4294967296")]).file("a", "x"), Refused),
        case("owner -1", tar().pax(&[("uid", b"4294967295")]).file("a", "x"), Refused),
        case("volume label", tar().header(header("label", b'V').gnu()), Refused),
        case("multi-volume", tar().header(header("part", b'M').gnu()), Refused),
        case("Solaris PAX", tar().extension(b'X', b"10 path=b\n").file("a", "x"), Refused),
    ]
}

/// What asks for more than it brings.
fn bombs() -> Vec<Case> {
    let huge = (8_u64 << 60).to_string();
    let sparse = |records: &[(&str, &[u8])]| tar().pax(records).header(header("a", b'0'));
    vec![
        case(
            "sparse of 8 EiB",
            sparse(&[("GNU.sparse.size", huge.as_bytes()), ("GNU.sparse.numblocks", b"0"), ("GNU.sparse.map", b"")]),
            Refused,
        ),
        case("sparse without size", sparse(&[("GNU.sparse.map", b"0,0")]), Refused),
        case("sparse map beyond the file", sparse(&[("GNU.sparse.size", b"10"), ("GNU.sparse.map", b"5,10")]), Refused),
        case(
            "sparse map that overlaps",
            sparse(&[("GNU.sparse.size", b"100"), ("GNU.sparse.map", b"0,10,5,10")]),
            Refused,
        ),
        case(
            "sparse map with odd numbers",
            sparse(&[("GNU.sparse.size", b"100"), ("GNU.sparse.map", b"0,10,5")]),
            Refused,
        ),
        case(
            "sparse map larger than the contents",
            sparse(&[("GNU.sparse.size", b"4096"), ("GNU.sparse.map", b"0,512")]),
            Refused,
        ),
        case(
            "sparse map that wraps",
            sparse(&[("GNU.sparse.size", b"100"), ("GNU.sparse.map", b"18446744073709551615,10")]),
            Refused,
        ),
        case(
            "sparse directory",
            tar().pax(&[("GNU.sparse.size", b"0"), ("GNU.sparse.map", b"")]).directory("a"),
            Refused,
        ),
        case(
            "sparse 1.0 without a map",
            tar()
                .pax(&[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"0")])
                .file("a", "x"),
            Refused,
        ),
        case("PAX header of 2 MiB", tar().extension(b'x', &vec![b'x'; 2 << 20]).file("a", "x"), Refused),
        case("long name of 2 MiB", tar().extension(b'L', &vec![b'x'; 2 << 20]).file("a", "x"), Refused),
        case("attribute too large", tar().pax(&[("SCHILY.xattr.user.x", &vec![b'v'; 70_000])]).file("a", "x"), Refused),
        case(
            "attribute with a long name",
            tar().pax(&[(format!("SCHILY.xattr.user.{}", "n".repeat(255)).as_str(), b"v")]).file("a", "x"),
            Refused,
        ),
    ]
}

/// Whiteouts, honest and not.
fn whiteouts() -> Vec<Case> {
    vec![
        case("whiteout", tar().file(".wh.a", ""), Stored(&[('c', "a")])),
        case("whiteout of dot", tar().file(".wh..", ""), Refused),
        case("whiteout of dot-dot", tar().file(".wh...", ""), Refused),
        case("whiteout of nothing", tar().file(".wh.", ""), Refused),
        case("whiteout outside", tar().file("../.wh.canary", ""), Refused),
        case("whiteout as a directory", tar().file(".wh.../x", ""), Refused),
        case("whiteout through a link outwards", tar().symlink("a", "../canary").file("a/.wh.file", ""), Refused),
        case(
            "opaque through a link",
            tar().directory("d").symlink("a", "d").file("a/.wh..wh..opq", ""),
            Stored(&[('l', "a"), ('d', "d")]),
        ),
        case("opaque through a link outwards", tar().symlink("a", "../canary").file("a/.wh..wh..opq", ""), Refused),
        case("whiteout and file", tar().file("a", "x").file(".wh.a", ""), Stored(&[('-', "a")])),
        case("whiteout, then directory", tar().file(".wh.a", "").file("a/b", "x"), Stored(&[('d', "a"), ('-', "a/b")])),
        case(
            "AUFS metadata",
            tar().directory(".wh..wh.plnk").file(".wh..wh.plnk/1.2", "x").file("a", "x"),
            Stored(&[('-', "a")]),
        ),
        case("overlayfs whiteout", tar().header(header("a", b'3').device(0, 0)), Stored(&[('c', "a")])),
        case("hard link to a whiteout", tar().file(".wh.a", "").hard_link("b", "a"), Refused),
        case("device number too large", tar().header(header("a", b'3').device(0o10000, 0)), Refused),
    ]
}

fn corpus() -> Vec<Case> {
    [escapes(), names(), disagreements(), bombs(), whiteouts()].into_iter().flatten().collect()
}

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
