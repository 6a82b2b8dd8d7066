//! A store on a disk of its own that is cut off at every step: the process killed, the power gone, the disk full or failing.
//!
//! ```text
//! disk image (ext4 on a loop device) ◀─ victim: a script of loads, pulls, tags, imports, ◀─ strace: at the n-th call of a kind,
//!      │                                         commits, removals, collections                 SIGKILL, or ENOSPC, or EIO
//!      ├─ as the kernel has it: the process was killed
//!      └─ a copy of what had reached the disk at that moment: the power was cut
//! ```
//!
//! After each cut the store must open without a complaint, hold exactly what had been acknowledged (and the step under way wholly or
//! not at all), byte by byte, leave no stray layer, and go on working. `CONEX_CUTS=all` cuts at every point; otherwise a few dozen
//! points spread over all of them.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Cursor, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use archive::compression::Compression;
use images::{
    Dangling, Force, ImageStore, ImportRequest, LayerBlob, LoadRequest, NewImage, Origin, ParentImages, PruneFilters,
    Pulled, PulledManifest, RemoveRequest, Source, Step, child,
};
use jiff::Timestamp;
use oci::image::ContainerConfig;
use oci::{DiffId, Digest, Reference};
use snapshots::{Backend, Choice, Selection, Snapshotter};

use crate::fixtures::{Picture, Users, compressed, layer};

/// Where the victim works, and where it acknowledges its steps.
const PLACE: &str = "CONEX_TEST_CUT_PLACE";
/// Which back end keeps the victim's layers.
const BACKEND: &str = "CONEX_TEST_CUT_BACKEND";
/// How many points are cut without `CONEX_CUTS=all`.
const SAMPLE: usize = 24;
/// Room for the script's images and its journal.
const DISK_BYTES: u64 = 32 << 20;

/// Names that are there, and the images that they mean.
pub(crate) type Names = BTreeMap<String, String>;

/// Kinds of system calls that change a disk; each is counted by itself, so that threads with few calls are cut too.
const KINDS: &[&str] = &[
    "write,writev,pwrite64,pwritev,pwritev2",
    "fsync,fdatasync,syncfs,sync_file_range",
    "rename,renameat,renameat2",
    "unlink,unlinkat,rmdir",
    "mkdir,mkdirat",
    "fallocate,ftruncate",
    "open,openat,openat2",
];

/// What happens at a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Kill,
    Error(&'static str),
}

const FAULTS: &[Fault] = &[Fault::Kill, Fault::Error("ENOSPC"), Fault::Error("EIO")];

/// One cut: before the `number`th call of a kind that any thread makes.
#[derive(Debug, Clone, Copy)]
struct Point {
    fault: Fault,
    kind: &'static str,
    number: usize,
}

fn pictures() -> Vec<Picture> {
    let (shared, one, two) = (layer("shared", 150_000), layer("one", 90_000), layer("two", 60_000));
    vec![Picture::new(&[shared.clone(), one], &["app:1", "app:latest"]), Picture::new(&[shared, two], &["other:1"])]
}

/// One step of the script: what a user would ask the store for, in a place with the changes of containers.
pub(crate) type ScriptStep = fn(&ImageStore, &Path) -> Result<(), String>;

/// The script. Each step is acknowledged when it has returned.
pub(crate) fn steps() -> Vec<ScriptStep> {
    vec![
        |store, _| load(store, Picture::new_archive(&pictures()[..1], Compression::None)),
        |store, _| load(store, Picture::oci_archive(&pictures()[1..], Compression::Gzip)),
        |store, _| store.tag("app:1", &reference("kept:1")).map(drop).map_err(|error| error.to_string()),
        |store, _| {
            let request = ImportRequest { reference: Some(reference("imported:1")), ..ImportRequest::default() };
            store.import(Box::new(Cursor::new(layer("imported", 40_000))), request).map(drop).map_err(|e| e.to_string())
        },
        |store, _| remove(store, "app:1"),
        |store, _| remove(store, "other:1"),
        |store, _| {
            let filters = PruneFilters {
                dangling: Dangling::Only,
                labels: Vec::new(),
                without_labels: Vec::new(),
                until: None,
                unused_since: None,
            };
            store.prune(&filters).map(drop).map_err(|error| error.to_string())
        },
        // One image a step: an archive of several is taken image by image.
        |store, _| load(store, Picture::new_archive(&pictures()[..1], Compression::Zstd)),
        |store, _| load(store, Picture::old_archive(&pictures()[1..])),
        |store, _| pull(store, &pulled()),
        // A pull of which a layer came, and then nothing.
        |store, _| {
            let lease = store.lease();
            let tar = layer("cancelled", 50_000);
            let came = add_layer(store, &tar);
            drop(lease);
            store.doubt_layers([DiffId(Digest::of(&tar))].into_iter()).map_err(|error| error.to_string())?;
            came
        },
        |store, place| commit(store, place, "pulled:1", "committed:1"),
        |store, _| remove(store, "pulled:1"),
        |store, place| commit(store, place, "committed:1", "committed:2"),
        |store, _| remove(store, "committed:2"),
        // A container of an image that is gone goes too.
        |store, _| {
            let layers = pulled().layers.iter().map(|layer| DiffId(Digest::of(layer))).collect::<Vec<_>>();
            remove(store, "committed:1")?;
            store.container_gone(&layers).map_err(|error| error.to_string())
        },
    ]
}

fn pulled() -> Picture {
    Picture::new(&[layer("shared", 150_000), layer("pulled", 80_000)], &["pulled:1"])
}

/// What the engine does with an image that comes from a registry.
fn pull(store: &ImageStore, picture: &Picture) -> Result<(), String> {
    let lease = store.lease();
    let layers = picture.layers.iter().map(|layer| DiffId(Digest::of(layer)));
    let stored = picture.layers.iter().try_for_each(|layer| add_layer(store, layer)).and_then(|()| {
        let reference = reference(picture.tags[0]);
        let references = vec![reference.clone(), reference.with_digest(Digest::of(b"its manifest"))];
        let new = NewImage { config: picture.config.clone(), references, parent: None };
        let source = Source::Registry {
            reference: "registry/pulled:1".to_owned(),
            digest: Digest::of(b"its manifest"),
            manifest: Digest::of(b"its manifest"),
            server: "https://registry/".to_owned(),
        };
        let manifest = PulledManifest { media_type: "m".to_owned(), document: "{}".to_owned() };
        let origin = Origin { source, time: Timestamp::UNIX_EPOCH, signatures: Vec::new() };
        let pulled = Pulled { manifest, index: None, blobs: Vec::new(), origin };
        store.create_pulled(new, pulled).map(drop).map_err(|error| error.to_string())
    });
    drop(lease);
    store.doubt_layers(layers).map_err(|error| error.to_string())?;
    stored
}

/// Stores a layer as it comes from a registry, unless it is here.
fn add_layer(store: &ImageStore, layer: &[u8]) -> Result<(), String> {
    let name = DiffId(Digest::of(layer));
    if store.has_layer(&name) {
        return Ok(());
    }
    let blob = compressed(layer, Compression::Gzip);
    let noted = LayerBlob {
        digest: Digest::of(&blob),
        size_bytes: blob.len() as u64,
        media_type: "m".to_owned(),
        repositories: vec!["registry/pulled".to_owned()],
    };
    store.add_layer(Box::new(Cursor::new(blob)), Some(&name)).map_err(|error| error.to_string())?;
    store.note_blob(&name, noted).map_err(|error| error.to_string())
}

/// What a commit does, and each step of a build.
fn commit(store: &ImageStore, place: &Path, from: &str, to: &str) -> Result<(), String> {
    let _lease = store.lease();
    let parent = store.resolve(from).map_err(|error| error.to_string())?;
    let layer = store.add_changes(&place.join("upper"), Selection::Everything).map_err(|error| error.to_string())?;
    let step = Step {
        config: ContainerConfig::default(),
        layer: Some(layer),
        created: Timestamp::UNIX_EPOCH,
        created_by: to.to_owned(),
        author: String::new(),
        comment: String::new(),
    };
    let config = serde_json::to_vec(&child(Some(&parent.config), step)).map_err(|error| error.to_string())?;
    let new = NewImage { config, references: vec![reference(to)], parent: Some(parent.id) };
    store.create(new).map(drop).map_err(|error| error.to_string())
}

fn load(store: &ImageStore, archive: Vec<u8>) -> Result<(), String> {
    let loaded = store.load(Box::new(Cursor::new(archive)), &LoadRequest::default(), &|_| {});
    loaded.map(drop).map_err(|error| error.to_string())
}

fn remove(store: &ImageStore, name: &str) -> Result<(), String> {
    let request = RemoveRequest { force: Force::No, parents: ParentImages::Remove };
    store.remove(name, &request).map(drop).map_err(|error| error.to_string())
}

fn reference(text: &str) -> Reference {
    Reference::parse(text).unwrap()
}

pub(crate) fn open(place: &Path, backend: Choice) -> Result<(ImageStore, Arc<dyn Snapshotter>), String> {
    let root = place.join("disk/root");
    let snapshotter = snapshots::open(&root, &place.join("run"), backend).map_err(|error| error.to_string())?;
    let store = ImageStore::open(&root, snapshotter.clone()).map_err(|error| error.to_string())?;
    store.set_users(Arc::new(Users::default())).map_err(|error| error.to_string())?;
    Ok((store, snapshotter))
}

pub(crate) fn names(store: &ImageStore) -> Names {
    let catalogue = store.catalogue();
    let of_image = |image: &Arc<images::Image>| {
        let id = image.id.to_string();
        image.tags.iter().map(move |tag| (tag.familiar(), id.clone())).collect::<Vec<_>>()
    };
    let mut names: Names = catalogue.images().flat_map(of_image).collect();
    // An import carries the time at which it was made.
    if let Some(id) = names.get_mut("imported:1") {
        "imported".clone_into(id);
    }
    names
}

/// Not a test by itself: the process that is cut off. It goes on after a failed step, as an engine does.
#[test]
fn victim() {
    let Some(place) = std::env::var_os(PLACE).map(PathBuf::from) else { return };
    let mut acknowledged = fs::File::options().append(true).create(true).open(place.join("acknowledged")).unwrap();
    let directories = std::env::var_os(BACKEND).is_some_and(|backend| backend == "directories");
    let backend = if directories { Choice::Only(Backend::Directories) } else { Choice::Automatic };
    let Ok((store, _)) = open(&place, backend) else { return };
    for (number, step) in steps().iter().enumerate() {
        let line = match step(&store, &place) {
            Ok(()) => serde_json::json!({"step": number, "names": names(&store)}),
            Err(error) => serde_json::json!({"step": number, "error": error, "names": names(&store)}),
        };
        acknowledged.write_all(format!("{line}\n").as_bytes()).unwrap();
    }
}

/// A place of the test's own: `disk` is the mounted disk image, everything else lies outside it.
pub(crate) struct Bench {
    place: tempfile::TempDir,
    backend: Choice,
}

impl Bench {
    pub(crate) fn new(backend: Choice) -> Bench {
        linux::namespace::unshare(linux::namespace::MOUNT).expect("tests of the store run as root");
        run(Command::new("mount").args(["--make-rprivate", "/"]));
        let bench = Bench { place: tempfile::tempdir().unwrap(), backend };
        for folder in ["disk", "run", "upper"] {
            fs::create_dir(bench.path(folder)).unwrap();
        }
        fs::write(bench.path("upper/changed"), vec![b'x'; 30_000]).unwrap();
        fs::File::create(bench.path("empty.img")).unwrap().set_len(DISK_BYTES).unwrap();
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-E", "lazy_itable_init=1"]).arg(bench.path("empty.img")));
        bench
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    pub(crate) fn place(&self) -> &Path {
        self.place.path()
    }

    pub(crate) fn backend(&self) -> Choice {
        self.backend
    }

    fn copy(&self, from: &str, to: &str) {
        run(Command::new("cp").arg("--sparse=always").arg(self.path(from)).arg(self.path(to)));
    }

    pub(crate) fn mount(&self, image: &str) {
        run(Command::new("mount").args(["-o", "loop"]).arg(self.path(image)).arg(self.path("disk")));
    }

    pub(crate) fn unmount(&self) {
        // A process that another test starts may have this one's files for a moment.
        let end = Instant::now() + Duration::from_secs(20);
        while !Command::new("umount").arg(self.path("disk")).output().unwrap().status.success() {
            assert!(Instant::now() < end, "the disk is still in use");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Runs the script on an empty disk, watched by strace with these options, and leaves the disk mounted.
    fn run_script(&self, strace: &[String]) {
        let _ = fs::remove_file(self.path("acknowledged"));
        self.copy("empty.img", "disk.img");
        self.mount("disk.img");
        let mut command = Command::new("strace");
        command.args(["-f", "-qqq", "-o"]).arg(self.path("trace")).args(strace);
        command.arg(std::env::current_exe().unwrap()).args(["--exact", "cuts::victim"]);
        // Cargo's path for libraries would have the loader look into dozens of folders.
        command.env_remove("LD_LIBRARY_PATH");
        let backend = if self.backend == Choice::Automatic { "automatic" } else { "directories" };
        command
            .env(PLACE, self.place.path())
            .env(BACKEND, backend)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.status().unwrap();
    }

    /// What the victim has acknowledged: the names after each step, and whether it worked.
    fn acknowledged(&self) -> Vec<(bool, Names)> {
        let text = fs::read_to_string(self.path("acknowledged")).unwrap_or_default();
        let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        lines.map(|line| (line["error"].is_null(), serde_json::from_value(line["names"].clone()).unwrap())).collect()
    }

    /// All points, found by a run without faults, and the names after each step of it.
    fn survey(&self) -> (Vec<Point>, Vec<Names>) {
        self.run_script(&[format!("--trace={}", KINDS.join(","))]);
        let steps = self.acknowledged();
        assert_eq!(steps.len(), self::steps().len(), "the script does not run to its end");
        assert!(steps.iter().all(|(worked, _)| *worked), "{}", fs::read_to_string(self.path("acknowledged")).unwrap());
        let trace = fs::read_to_string(self.path("trace")).unwrap();
        self.unmount();
        let mut points = Vec::new();
        for kind in KINDS {
            let numbers = 1..=most_calls_of_a_thread(&trace, kind);
            points.extend(
                FAULTS.iter().flat_map(|&fault| numbers.clone().map(move |number| Point { fault, kind, number })),
            );
        }
        (points, steps.into_iter().map(|(_, names)| names).collect())
    }

    /// Cuts once, and looks at what is left.
    fn cut(&self, point: Point, expected: &[Names]) {
        let Point { fault, kind, number } = point;
        let fault_text = match fault {
            Fault::Kill => "signal=SIGKILL".to_owned(),
            Fault::Error(name) => format!("error={name}"),
        };
        self.run_script(&[format!("--trace={kind}"), format!("--inject={kind}:{fault_text}:when={number}")]);
        let acknowledged = self.acknowledged();
        if fault == Fault::Kill {
            self.copy("disk.img", "cut.img");
        }
        let allowed = allowed(expected, &acknowledged);
        self.check(&allowed, &format!("{point:?}"));
        self.unmount();
        if fault == Fault::Kill {
            self.mount("cut.img");
            self.check(&allowed, &format!("power cut at {point:?}"));
            self.unmount();
        }
    }

    /// The store opens, holds one of the allowed sets of names, whole, and nothing else; and it goes on working.
    pub(crate) fn check(&self, allowed: &[Names], what: &str) {
        let (store, snapshotter) =
            open(self.place.path(), self.backend).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(store.problems(), [], "{what}");
        let found = names(&store);
        assert!(allowed.contains(&found), "{what}: found {found:?}, allowed are {allowed:?}");
        verify_all(&store, snapshotter.as_ref(), what);
        self.find_strays(snapshotter.as_ref(), what);
        load(&store, Picture::new_archive(&pictures(), Compression::None))
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        verify_all(&store, snapshotter.as_ref(), what);
        self.find_strays(snapshotter.as_ref(), what);
        assert!(names(&store).contains_key("app:1") && names(&store).contains_key("other:1"), "{what}");
    }

    /// No file is left over: each is a layer's.
    fn find_strays(&self, snapshotter: &dyn Snapshotter, what: &str) {
        let layers: Vec<String> = snapshotter.list().unwrap().iter().map(|layer| layer.diff_id.hex()).collect();
        for folder in ["sha256", "unpacked"] {
            let entries = fs::read_dir(self.path("disk/root/layers").join(folder)).into_iter().flatten().flatten();
            let mut names = entries.map(|entry| entry.file_name().into_string().unwrap());
            let stray = names.find(|name| !layers.iter().any(|layer| name.starts_with(layer)));
            assert_eq!(stray, None, "{what}: what is in {folder} and no layer's");
        }
    }
}

/// Every layer is an image's, and hashes to its name.
fn verify_all(store: &ImageStore, snapshotter: &dyn Snapshotter, what: &str) {
    let catalogue = store.catalogue();
    let layers = snapshotter.list().unwrap_or_else(|error| panic!("{what}: {error}"));
    for layer in &layers {
        assert!(catalogue.images().any(|image| image.layers.contains(&layer.diff_id)), "{what}: a stray layer");
        snapshotter.verify(&layer.diff_id).unwrap_or_else(|error| panic!("{what}: {error}"));
    }
    for layer in catalogue.images().flat_map(|image| &image.layers) {
        assert!(snapshotter.has(layer), "{what}: {layer} is missing");
    }
}

/// The names as they were last acknowledged; and as the step under way makes them, or the last one, if it failed: a sync that fails
/// behind a write says no more than that nobody knows. Wholly or not at all either way.
fn allowed(expected: &[Names], acknowledged: &[(bool, Names)]) -> Vec<Names> {
    let last = acknowledged.last();
    let under_way = match last {
        Some((false, _)) => acknowledged.len() - 1,
        _ => acknowledged.len(),
    };
    let last = last.map(|(_, names)| names.clone()).unwrap_or_default();
    std::iter::once(last).chain(expected.get(under_way).cloned()).collect()
}

/// How many calls of a kind one thread makes at most: strace counts each thread's by themselves.
fn most_calls_of_a_thread(trace: &str, kind: &str) -> usize {
    let calls: Vec<&str> = kind.split(',').collect();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for line in trace.lines().filter(|line| !line.contains(" resumed>")) {
        let Some((thread, call)) = line.split_once(' ') else { continue };
        if call.trim_start().split_once('(').is_some_and(|(name, _)| calls.contains(&name)) {
            *counts.entry(thread).or_default() += 1;
        }
    }
    counts.into_values().max().unwrap_or(0)
}

#[track_caller]
pub(crate) fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// As many points as asked for, evenly spread.
pub(crate) fn sample<T: Copy>(points: &[T], number: usize) -> Vec<T> {
    if std::env::var("CONEX_CUTS").is_ok_and(|cuts| cuts == "all") {
        return points.to_vec();
    }
    points.iter().copied().step_by(points.len().div_ceil(number).max(1)).collect()
}

fn survive_every_cut(backend: Choice) {
    let bench = Bench::new(backend);
    let (points, expected) = bench.survey();
    let chosen = sample(&points, SAMPLE);
    let mut bad = 0;
    for point in &chosen {
        // The panic's message names the point; the others are looked at nevertheless.
        if catch_unwind(AssertUnwindSafe(|| bench.cut(*point, &expected))).is_err() {
            bench.unmount();
            bad += 1;
        }
    }
    let kills = chosen.iter().filter(|point| point.fault == Fault::Kill).count();
    let (of, failed) = (points.len(), chosen.len() - kills);
    eprintln!(
        "{} of {of} points: {kills} kills, each also as a power cut, and {failed} calls that failed",
        chosen.len()
    );
    assert_eq!(bad, 0, "points after which the store was not whole");
}

#[test]
fn layers_as_tars_survive_every_cut() {
    survive_every_cut(Choice::Automatic);
}

#[test]
fn unpacked_layers_survive_every_cut() {
    survive_every_cut(Choice::Only(Backend::Directories));
}
