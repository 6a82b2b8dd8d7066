//! A daemon that is killed at any moment of its work with images, and a disk that loses its power then.
//!
//! ```text
//! disk image (ext4 on a loop device) ◀─ conex daemon ◀─ a client: pull, load, build, commit, remove, prune
//!      │                                     ▲
//!      │                                  SIGKILL, at moments spread evenly over the script
//!      ├─ as the kernel has it: the process was killed
//!      └─ a copy of what had reached the disk then: the power was cut
//! ```
//!
//! After each, a new daemon must hold exactly the images that had been acknowledged (and the step under way wholly or not at all), find
//! every one of them whole, run them with the bytes that they came with, and have no layer or file that belongs to none.
//! `CONEX_CUTS=all` cuts some hundred times, `CONEX_CUTS=N` N times; otherwise a few. The steps themselves are cut at every system call
//! by the rig of crate `images`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use harness::{Engine, EngineOptions, Host, busybox_tar};
use oci::Digest;
use serde_json::{Value, json};

use crate::api;
use crate::fake_server::serve;
use crate::picture::{Dress, Picture, noise, tar_of};

const REGISTRY: &str = "127.0.0.1:5000";
const DISK_BYTES: u64 = 192 << 20;
/// Cuts in every run of the tests, and with `CONEX_CUTS=all`.
const SAMPLE: usize = 4;
const ALL: usize = 400;

/// Names of images, as a list shows them.
type Names = BTreeSet<String>;

/// One request of the script, and the names that are there after it.
struct Step {
    line: String,
    body: Vec<u8>,
    kind: &'static str,
    names: Names,
}

/// What the client does, again and again the same.
fn script(archive: &[u8]) -> Vec<Step> {
    let mut names = Names::from(["loaded:1".to_owned()]);
    let mut steps = Vec::new();
    let mut step = |line: &str, kind: &'static str, body: Vec<u8>, names: &Names| {
        steps.push(Step { line: line.to_owned(), body, kind, names: names.clone() });
    };
    let json_kind = "application/json";
    let app = format!("{REGISTRY}/app:1");
    step("DELETE /images/loaded:1", json_kind, Vec::new(), &{
        names.remove("loaded:1");
        names.clone()
    });
    names.insert(app.clone());
    step(&format!("POST /images/create?fromImage={REGISTRY}/app&tag=1"), json_kind, Vec::new(), &names);
    let create = json!({"Image": app, "Cmd": ["true"], "HostConfig": {"NetworkMode": "none"}}).to_string();
    step("POST /containers/create?name=one", json_kind, create.into_bytes(), &names);
    step("PUT /containers/one/archive?path=/", "application/x-tar", tar_of(&[("changed", &noise(3, 200_000))]), &names);
    names.insert("committed:1".to_owned());
    step("POST /commit?container=one&repo=committed&tag=1", json_kind, b"{}".to_vec(), &names);
    let dockerfile = format!("FROM {app}\nCOPY Dockerfile /copied\nCOPY Dockerfile /again\nLABEL a=b\n");
    names.insert("built:1".to_owned());
    step(
        "POST /build?t=built:1&nocache=1",
        "application/x-tar",
        tar_of(&[("Dockerfile", dockerfile.as_bytes())]),
        &names,
    );
    step("DELETE /containers/one?force=1", json_kind, Vec::new(), &names);
    names.remove("committed:1");
    step("DELETE /images/committed:1", json_kind, Vec::new(), &names);
    names.insert("loaded:1".to_owned());
    step("POST /images/load", "application/x-tar", archive.to_vec(), &names);
    names.remove("built:1");
    step("DELETE /images/built:1", json_kind, Vec::new(), &names);
    names.remove(&app);
    step(&format!("DELETE /images/{app}"), json_kind, Vec::new(), &names);
    step("POST /images/prune", json_kind, Vec::new(), &names);
    steps
}

/// Whether a request was answered to its end, and did what it asks for; says why not.
fn ask(socket: &Path, step: &Step) -> Result<(), String> {
    match api::ask(socket, &step.line, step.kind, &step.body) {
        Some(answer) if answer.is_good() => Ok(()),
        Some(answer) => Err(answer.text),
        None => Err("no answer".to_owned()),
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// What came of the script.
struct Played {
    /// How many steps were acknowledged.
    done: usize,
    /// Why the next one was not.
    why: String,
    elapsed: Duration,
}

/// The engine, whose root is a disk of its own.
struct Rig {
    engine: Engine,
    folder: PathBuf,
    steps: Arc<Vec<Step>>,
    payload: String,
}

impl Rig {
    fn new() -> Self {
        let (payload, archived) = (noise(1, 3_000_000), noise(2, 1_500_000));
        let host = Host::new();
        let picture = |payload: &[u8]| {
            Picture::new(&[(busybox_tar(), Dress::Gzip), (tar_of(&[("payload", payload)]), Dress::Zstd)])
        };
        let archive = picture(&archived).archive("loaded:1");
        let picture = picture(&payload);
        let folder = host.files();
        serve(REGISTRY, move |request| picture.answer(request));
        std::fs::create_dir(host.scratch().join("root")).unwrap();
        std::fs::File::create(folder.join("disk.img")).unwrap().set_len(DISK_BYTES).unwrap();
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-E", "lazy_itable_init=1"]).arg(folder.join("disk.img")));
        let root = host.scratch().join("root");
        run(Command::new("mount").args(["-o", "loop"]).arg(folder.join("disk.img")).arg(&root));
        let engine = Engine::start_in(host, EngineOptions::default());
        let steps = script(&archive);
        let payload = Digest::of(&payload).hex();
        let mut rig = Self { engine, folder, steps: Arc::new(steps), payload };
        let load = rig.steps.iter().position(|step| step.line.ends_with("/images/load")).unwrap();
        ask(&rig.engine.socket(), &rig.steps[load]).unwrap();
        rig.engine.stop();
        rig.unmount();
        rig.copy("disk.img", "first.img");
        rig
    }

    fn copy(&self, from: &str, to: &str) {
        run(Command::new("cp").arg("--sparse=always").arg(self.folder.join(from)).arg(self.folder.join(to)));
    }

    fn mount(&self, image: &str) {
        run(Command::new("mount").args(["-o", "loop"]).arg(self.folder.join(image)).arg(self.engine.root_folder()));
    }

    fn unmount(&self) {
        // A container's process may hold the disk for a moment after its daemon has gone.
        let end = Instant::now() + Duration::from_secs(20);
        while !Command::new("umount").arg(self.engine.root_folder()).output().unwrap().status.success() {
            assert!(Instant::now() < end, "the disk is still in use");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Runs the script until it ends or the daemon is killed after `until`.
    fn play(&mut self, until: Option<Duration>) -> Played {
        self.copy("first.img", "disk.img");
        self.mount("disk.img");
        self.engine.launch();
        let (steps, socket) = (Arc::clone(&self.steps), self.engine.socket());
        let begun = Instant::now();
        let client = std::thread::spawn(move || {
            for (done, step) in steps.iter().enumerate() {
                if let Err(why) = ask(&socket, step) {
                    return (done, format!("{}: {why}", step.line));
                }
            }
            (steps.len(), String::new())
        });
        if let Some(until) = until {
            std::thread::sleep(until.saturating_sub(begun.elapsed()));
            self.engine.kill();
            self.copy("disk.img", "cut.img");
        }
        let (done, why) = client.join().unwrap();
        Played { done, why, elapsed: begun.elapsed() }
    }

    /// Kills the daemon once, and looks at what the next one finds, on this disk and on what had reached it.
    fn cut(&mut self, after: Duration) -> usize {
        let done = self.play(Some(after)).done;
        let allowed: Vec<Names> = [done.checked_sub(1), Some(done)]
            .into_iter()
            .map(|at| match at {
                None => Names::from(["loaded:1".to_owned()]),
                Some(at) => self.steps[at.min(self.steps.len() - 1)].names.clone(),
            })
            .collect();
        self.check(&allowed, &format!("killed after {after:?}, in step {done}"));
        self.unmount();
        self.mount("cut.img");
        self.check(&allowed, &format!("power cut after {after:?}, in step {done}"));
        self.unmount();
        done
    }

    fn check(&mut self, allowed: &[Names], what: &str) {
        self.engine.launch();
        let names: Names = self
            .engine
            .docker(["images", "--format", "{{.Repository}}:{{.Tag}}"])
            .ok()
            .lines()
            .filter(|name| !name.contains("<none>"))
            .map(str::to_owned)
            .collect();
        assert!(allowed.contains(&names), "{what}: found {names:?}, allowed are {allowed:?}");
        let verified = self.engine.conex(["image", "verify"]).run();
        assert_eq!(verified.code, 0, "{what}: {}", verified.text());
        let app = format!("{REGISTRY}/app:1");
        for name in names.iter().filter(|name| **name == app || **name == "committed:1" || **name == "built:1") {
            let ran = self.engine.docker(["run", "--rm", "--network", "none", name, "sha256sum", "/payload"]).ok();
            assert!(ran.starts_with(&self.payload), "{what}: {name}: {ran}");
        }
        let strays = strays(&self.engine);
        assert!(strays.is_empty(), "{what}: {strays:?}");
        let containers = self.engine.docker(["ps", "-aq"]).ok();
        if !containers.is_empty() {
            self.engine.docker(["rm", "-f"]).args(containers.lines()).ok();
        }
        self.engine.stop();
    }
}

/// Layers of no image, no container and no build, and files that were never finished.
fn strays(engine: &Engine) -> Vec<String> {
    let all = engine.docker(["images", "-aq", "--no-trunc"]).ok();
    let mut known = BTreeSet::new();
    for id in all.lines() {
        let inspected: Value =
            serde_json::from_str(&engine.docker(["image", "inspect", "-f", "{{json .RootFS.Layers}}", id]).ok())
                .unwrap();
        known.extend(inspected.as_array().unwrap().iter().map(|layer| layer.as_str().unwrap().to_owned()));
    }
    let cached = std::fs::read_dir(engine.root_folder().join("build/cache")).into_iter().flatten().flatten();
    let cached: String = cached.filter_map(|entry| std::fs::read_to_string(entry.path()).ok()).collect();
    let folder = engine.root_folder().join("layers/sha256");
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names
        .filter(|name| match name.strip_suffix(".tar").or(name.strip_suffix(".erofs")) {
            Some(hex) => !known.contains(&format!("sha256:{hex}")) && !cached.contains(hex),
            None => true,
        })
        .collect()
}

fn cuts() -> usize {
    match std::env::var("CONEX_CUTS").as_deref() {
        Ok("all") => ALL,
        Ok(number) => number.parse().unwrap_or(SAMPLE),
        Err(_) => SAMPLE,
    }
}

#[test]
fn a_daemon_killed_at_any_moment_keeps_its_word() {
    let mut rig = Rig::new();
    let Played { done, why, elapsed } = rig.play(None);
    assert_eq!(done, rig.steps.len(), "the script does not run to its end: {why}");
    rig.engine.stop();
    rig.unmount();
    let number = cuts();
    let mut reached = BTreeSet::new();
    for cut in 0..number {
        // Between the moments of a small number, and never twice the same.
        let moment = elapsed.mul_f64((cut as f64 + 0.5) / number as f64);
        reached.insert(rig.cut(moment));
    }
    eprintln!(
        "{number} kills in {} of {} steps, each also as a power cut: {} points",
        reached.len(),
        rig.steps.len(),
        2 * number
    );
    rig.mount("first.img");
    rig.engine.launch();
    let Rig { engine, .. } = rig;
    let root = engine.root_folder();
    engine.finish();
    drop(Command::new("umount").arg(root).output());
}
