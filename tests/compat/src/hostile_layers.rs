//! Images whose layers lie, by each way on which an image comes: pull, load, import. Nothing outside changes, and memory stays bounded.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::{Engine, EngineOptions, Host};

use crate::api::{self, Answer};
use crate::attacks::{memory_bytes, on_both_stores};
use crate::corpus::{Case, Expected, corpus};
use crate::fake_server::serve;
use crate::picture::{Dress, Picture, filter};
use crate::raw_tar::{RawHeader, RawTar};

const ADDRESS: &str = "127.0.0.1:5000";
/// What the engine may take, at its highest.
const MEMORY_BYTES_MAX: u64 = 256 << 20;

/// Has a registry answer `/v2/xN/…` with the picture of this number.
fn serve_all(pictures: Vec<Picture>) {
    serve(ADDRESS, move |request| {
        let number = request.target.split('/').nth(2).and_then(|name| name.strip_prefix('x')?.parse().ok());
        pictures[number.unwrap_or(0)].answer(request)
    });
}

fn pull(engine: &Engine, number: usize) -> Answer {
    ask(engine, &format!("POST /images/create?fromImage={ADDRESS}/x{number}&tag=1"), &[])
}

fn load(engine: &Engine, picture: &Picture) -> Answer {
    ask(engine, "POST /images/load", &picture.archive("loaded:1"))
}

fn import(engine: &Engine, tar: &[u8]) -> Answer {
    ask(engine, "POST /images/create?fromSrc=-&repo=imported", tar)
}

fn ask(engine: &Engine, line: &str, body: &[u8]) -> Answer {
    api::ask(&engine.socket(), line, "application/x-tar", body).unwrap_or_else(|| panic!("{line}: no answer"))
}

/// Everything below a folder: mode, owner, size, time of change and content of each file.
fn describe(folder: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let status = path.symlink_metadata().unwrap();
        let content = if status.is_file() { std::fs::read(&path).unwrap() } else { Vec::new() };
        let (mode, owner, time) = (status.mode(), status.uid(), (status.ctime(), status.ctime_nsec()));
        found.insert(path.clone(), format!("{mode:o} {owner} {} {time:?} {content:?}", status.len()));
        if status.is_dir() {
            found.extend(describe(&path));
        }
    }
    found
}

/// Folders called `canary` wherever a `../canary` of a layer may lead.
fn canaries(engine: &Engine) -> Vec<PathBuf> {
    let root = engine.root_folder();
    let above = [engine.host().scratch().to_owned(), root.clone(), root.join("layers"), root.join("layers/sha256")];
    let folders: Vec<PathBuf> = above.iter().map(|folder| folder.join("canary")).collect();
    for folder in &folders {
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(folder.join("file"), "sings").unwrap();
    }
    folders
}

fn assert_as_expected(case: &Case, how: &str, answer: &Answer) {
    let is_expected = match case.expected {
        Expected::Refused => {
            !answer.is_good() && answer.text.contains("\"error\"") | answer.text.contains("\"message\"")
        }
        Expected::Stored(_) => answer.is_good(),
    };
    assert!(is_expected, "{how} of {:?}: {}", case.name, answer.text);
}

#[test]
fn layers_that_lie_change_nothing_outside() {
    on_both_stores(|engine| {
        let cases = corpus();
        let pictures: Vec<Picture> =
            cases.iter().map(|case| Picture::new(&[(case.tar.clone(), Dress::Gzip)])).collect();
        serve_all(pictures.clone());
        let canaries = canaries(&engine);
        let before: Vec<_> = canaries.iter().map(|folder| describe(folder)).collect();
        for (number, (case, picture)) in cases.iter().zip(&pictures).enumerate() {
            assert_as_expected(case, "pull", &pull(&engine, number));
            assert_as_expected(case, "load", &load(&engine, picture));
            assert_as_expected(case, "import", &import(&engine, &case.tar));
        }
        let after: Vec<_> = canaries.iter().map(|folder| describe(folder)).collect();
        assert_eq!(before, after);
        assert!(!Path::new("/canary").exists());
        let peak = memory_bytes(engine.pid(), "VmHWM");
        assert!(peak < MEMORY_BYTES_MAX, "the engine took {peak} bytes");
        for folder in canaries {
            std::fs::remove_dir_all(folder).unwrap();
        }
        engine.finish();
    });
}

/// A tar of one file of zeros, compressed: as large as wanted, and nearly nothing.
fn bomb(dress: Dress, size: u64) -> Vec<u8> {
    const PIECE: u64 = 64 << 20;
    let pack = |bytes: &[u8]| match dress {
        Dress::Gzip => filter("gzip", &["-1"], bytes),
        _ => filter("zstd", &["-q", "-1", "-c"], bytes),
    };
    let head = RawTar::new().header(RawHeader::new("zeros", b'0').size(size)).without_end();
    // Files of several members or frames are read as one.
    let piece = pack(&vec![0; PIECE as usize]);
    [pack(&head), piece.repeat((size / PIECE) as usize), pack(&[0; 1024])].concat()
}

/// A frame of zstd that wants a window of two gibibytes.
fn wide_window() -> Vec<u8> {
    let (magic, no_flags, window_log_31) = (0xfd2f_b528_u32, 0_u8, (31 - 10) << 3);
    let last_raw_block_of_1024 = &(1_u32 | 1024 << 3).to_le_bytes()[..3];
    [&magic.to_le_bytes()[..], &[no_flags, window_log_31], last_raw_block_of_1024, &[0; 1024]].concat()
}

/// A tar of as many empty files as wanted.
fn crowd(entries: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity((entries as usize + 2) * 512);
    for number in 0..entries {
        let name = format!("a-folder-with-a-name-of-some-length-{:03}/a-file-with-one-{number:08}", number % 500);
        bytes.extend(RawTar::new().header(RawHeader::new(&name, b'0')).without_end());
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

/// An engine whose root has little room.
fn engine_on_a_small_disk(storage: &str) -> Engine {
    let host = Host::new();
    let root = host.scratch().join("root");
    std::fs::create_dir(&root).unwrap();
    host.program("mount").args(["-t", "tmpfs", "-o", "size=192m", "tmpfs"]).arg(&root).ok();
    Engine::start_in(host, EngineOptions { arguments: vec!["--storage-backend".to_owned(), storage.to_owned()] })
}

fn assert_refused(what: &str, answer: &Answer, because: &str) {
    assert!(!answer.is_good() && answer.text.contains(because), "{what}: {}", answer.text);
}

#[test]
fn bombs_end_at_the_end_of_the_disk() {
    for storage in ["auto", "directories"] {
        let test = || {
            let engine = engine_on_a_small_disk(storage);
            let bombs = [bomb(Dress::Gzip, 10 << 30), bomb(Dress::Zstd, 10 << 30)];
            let pictures: Vec<Picture> = [Dress::Gzip, Dress::Zstd]
                .into_iter()
                .zip(&bombs)
                .map(|(dress, bomb)| Picture::of_blobs(&[(dress, bomb.clone(), Vec::new())]))
                .collect();
            serve_all(pictures.clone());
            for (number, (picture, bomb)) in pictures.iter().zip(&bombs).enumerate() {
                assert_refused("pull", &pull(&engine, number), "o space left on device");
                assert_refused("load", &load(&engine, picture), "o space left on device");
                assert_refused("import", &import(&engine, bomb), "o space left on device");
            }
            let peak = memory_bytes(engine.pid(), "VmHWM");
            assert!(peak < MEMORY_BYTES_MAX, "{storage}: the engine took {peak} bytes");
            // All of its room is there again.
            engine.import_busybox();
            assert_eq!(engine.docker(["run", "--rm", "--network", "none", "busybox", "echo", "whole"]).ok(), "whole");
            let root = engine.root_folder();
            engine.finish();
            drop(Command::new("umount").arg(root).output());
        };
        std::thread::scope(|scope| scope.spawn(test).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
    }
}

#[test]
fn crowds_and_wide_windows_fit_into_little_memory() {
    let engine = Engine::start();
    // A good part of it is the program itself.
    let before = memory_bytes(engine.pid(), "VmHWM");
    let wide = wide_window();
    // Three layers come side by side, but only one of many files at a time.
    let crowds: Vec<Vec<u8>> = (0..3).map(|more| crowd(120_000 + more)).collect();
    let layers: Vec<(Vec<u8>, Dress)> = crowds.iter().map(|tar| (tar.clone(), Dress::Gzip)).collect();
    let pictures = vec![Picture::of_blobs(&[(Dress::Zstd, wide.clone(), vec![0; 1024])]), Picture::new(&layers)];
    serve_all(pictures.clone());
    assert_refused("pull", &pull(&engine, 0), "too much memory for decoding");
    assert_refused("load", &load(&engine, &pictures[0]), "too much memory for decoding");
    assert_refused("import", &import(&engine, &wide), "too much memory for decoding");
    for (how, answer) in
        [("pull", pull(&engine, 1)), ("load", load(&engine, &pictures[1])), ("import", import(&engine, &crowds[0]))]
    {
        assert!(answer.is_good(), "{how}: {}", answer.text);
    }
    // Three such trees at once would take more than this.
    let peak = memory_bytes(engine.pid(), "VmHWM");
    assert!(peak - before < MEMORY_BYTES_MAX / 4, "the engine took {peak} bytes, {before} before");
    engine.finish();
}
