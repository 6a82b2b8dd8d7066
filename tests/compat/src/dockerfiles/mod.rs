//! Dockerfiles written for the purpose: what Docker makes of them, recorded, and that Conex makes the same of them.
//!
//! ```text
//! dockerfiles/GROUP/NAME.case    the Dockerfile (or several), its context, how it is built
//! dockerfiles/GROUP/NAME.facts   what Docker 26 with BuildKit made of it, by `./x corpus --record`
//! ```
//!
//! Where the peers are installed Docker is held against the facts as well, so that they cannot be wrong for long.

mod case;
mod facts;

use std::path::{Path, PathBuf};

use harness::{Docker, Engine, EngineOptions, Host, busybox_tar};
use oci::Digest;
use serde_json::{Value, json};

use crate::build_sources::{GitServer, git};
use crate::buildx::with_buildx;
use crate::fake_server::{Reply, serve};
use case::Case;
use facts::Facts;

/// Set by `./x corpus --record`.
const RECORD: &str = "CONEX_RECORD";
/// The time of everything that has a fixed one: 2023-11-14 22:13:20 UTC.
const FIXED_TIME: &str = "2023-11-14T22:13:20Z";

/// An engine that builds.
struct Builder<'a> {
    host: &'a Host,
    address: String,
    /// The one layer of all base images.
    base: Digest,
}

impl Builder<'_> {
    fn docker(&self, arguments: &[&str]) -> harness::Program {
        with_buildx(self.host, self.host.program("docker").args(["-H", &self.address]).args(arguments))
    }

    /// What comes of one Dockerfile of a case.
    fn facts(&self, case: &Case, dockerfile: &str, context: &Path) -> Facts {
        let path = context.to_str().unwrap();
        let mut arguments = vec!["build".to_owned(), "--progress=plain".to_owned(), "-t".to_owned(), "made".to_owned()];
        arguments.extend(case.arguments.iter().map(|word| word.replace("{context}", path)));
        if !case.arguments.iter().any(|word| word == "-f") {
            arguments.extend(["-f".to_owned(), dockerfile.to_owned()]);
        }
        arguments.push(".".to_owned());
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut command = self.docker(&arguments).into_command();
        let output = command.current_dir(context).output().unwrap();
        if !output.status.success() {
            return Facts::of_failure(&String::from_utf8_lossy(&output.stderr));
        }
        if self.docker(&["image", "inspect", "-f", "{{len .RootFS.Layers}}", "made"]).ok() == "0" {
            // Docker cannot save such an image.
            return Facts::of_nothing();
        }
        let saved = self.host.files().join("saved");
        std::fs::create_dir_all(&saved).unwrap();
        self.docker(&["save", "-o", saved.join("image.tar").to_str().unwrap(), "made"]).ok();
        self.host.program("tar").arg("-xf").arg(saved.join("image.tar")).arg("-C").arg(&saved).ok();
        let facts = Facts::of_image(&saved, self.base);
        std::fs::remove_dir_all(&saved).unwrap();
        self.docker(&["rmi", "-f", "made"]).ok();
        facts
    }

    /// Loads the images that Dockerfiles begin with.
    fn load_bases(&mut self) {
        let layer = busybox_tar();
        self.base = Digest::of(&layer);
        let rich = json!({
            "Env": ["PATH=/bin:/usr/bin", "KEPT=as it was"], "Cmd": ["sh", "-x"], "Entrypoint": ["/bin/busybox"],
            "User": "daily", "WorkingDir": "/tmp", "ExposedPorts": {"80/tcp": {}}, "Volumes": {"/vol": {}},
            "Labels": {"kept": "from the base", "other": "x"}, "StopSignal": "SIGINT", "Shell": ["/bin/ash", "-c"],
            "Healthcheck": {"Test": ["CMD", "true"], "Interval": 5_000_000_000_u64, "Retries": 2},
        });
        let triggering =
            json!({"Env": ["PATH=/bin"], "OnBuild": ["RUN echo a > /by-trigger", "LABEL triggered=yes", "USER daily"]});
        let plain = json!({"Env": ["PATH=/bin:/usr/bin"], "Cmd": ["sh"]});
        for (name, config) in [("busybox", plain), ("rich", rich), ("triggering", triggering)] {
            self.load(name, &layer, &config);
        }
    }

    fn load(&self, name: &str, layer: &[u8], config: &Value) {
        let folder = self.host.files().join(format!("base-{name}"));
        std::fs::create_dir_all(&folder).unwrap();
        let history =
            |text: &str, empty: bool| json!({"created": FIXED_TIME, "created_by": text, "empty_layer": empty});
        let image = json!({
            "architecture": "amd64", "os": "linux", "created": FIXED_TIME, "author": "nobody", "config": config,
            "rootfs": {"type": "layers", "diff_ids": [self.base.to_string()]},
            "history": [history("a base", false), history("its configuration", true)],
        });
        let manifest =
            json!([{"Config": "config.json", "RepoTags": [format!("{name}:latest")], "Layers": ["layer.tar"]}]);
        std::fs::write(folder.join("layer.tar"), layer).unwrap();
        std::fs::write(folder.join("config.json"), image.to_string()).unwrap();
        std::fs::write(folder.join("manifest.json"), manifest.to_string()).unwrap();
        let archive = folder.with_extension("tar");
        let files = ["manifest.json", "config.json", "layer.tar"];
        self.host.program("tar").arg("-C").arg(&folder).arg("-cf").arg(&archive).args(files).ok();
        self.docker(&["load", "-q", "-i", archive.to_str().unwrap()]).ok();
    }
}

fn group_folder(group: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("dockerfiles").join(group)
}

/// Gets a case, the file of its facts, and what came of each of its Dockerfiles.
type Judge<'a> = dyn FnMut(&Case, &Path, &[(String, Facts)]) + 'a;

/// Makes every case's facts, and gives them to `judge` with the file in which they are recorded.
fn each_case(builder: &Builder<'_>, group: &str, by_reason: ByReason, judge: &mut Judge<'_>) {
    let only = std::env::var("CONEX_CASE").ok();
    let folder = group_folder(group);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "case"));
    files.sort();
    for file in files {
        let case = Case::parse(&std::fs::read_to_string(&file).unwrap());
        let name = file.file_stem().unwrap().to_str().unwrap();
        if case.reason.is_some() && by_reason == ByReason::LeftOut {
            continue;
        }
        if only.as_ref().is_some_and(|only| only != name) {
            continue;
        }
        let context = builder.host.files().join("contexts").join(name);
        case.write(builder.host, &context);
        let of = |dockerfile: &String| (dockerfile.clone(), builder.facts(&case, dockerfile, &context));
        let all: Vec<(String, Facts)> = case.dockerfiles().iter().map(of).collect();
        judge(&case, &file.with_extension("facts"), &all);
    }
}

/// Compares with what is recorded; says all that differs.
fn compare(builder: &Builder<'_>, group: &str, by_reason: ByReason) {
    let mut wrong = Vec::new();
    let mut count = 0;
    each_case(builder, group, by_reason, &mut |case, recorded, all| {
        count += 1;
        let name = recorded.file_stem().unwrap().display();
        let text = std::fs::read_to_string(recorded).unwrap_or_default();
        for (dockerfile, facts) in all {
            let mut expected = facts::section(&text, dockerfile);
            if by_reason == ByReason::Compared {
                expected = case.on_conex(dockerfile, &expected);
            }
            let differences = facts.differences(&expected);
            wrong.extend(differences.iter().map(|line| format!("{name}, {dockerfile}: {line}")));
        }
    });
    assert!(count > 0 && wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
}

/// What becomes of cases whose facts are by reason.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ByReason {
    Compared,
    LeftOut,
}

/// Writes down what Docker makes; facts by reason stay as they were written.
fn record(builder: &Builder<'_>, group: &str) {
    each_case(builder, group, ByReason::LeftOut, &mut |_, file, all| {
        let text = all.iter().map(|(name, facts)| format!("== {name}\n{}", facts.text())).collect::<String>();
        std::fs::write(file, text).unwrap();
    });
}

/// What sources from elsewhere come from.
fn serve_sources(host: &Host) -> GitServer {
    // Headers of their own come with the type.
    const DATED: &str = "text/plain\r\nLast-Modified: Mon, 13 Nov 2023 10:00:00 GMT";
    const DISPOSED: &str = "text/plain\r\nContent-Disposition: attachment; filename=\"its-own-name.txt\"";
    let packed = host.files().join("packed");
    std::fs::create_dir_all(&packed).unwrap();
    std::fs::write(packed.join("in-archive"), "packed").unwrap();
    let tar = ["--sort=name", "--owner=5", "--group=6", "--numeric-owner", "--mtime=@1600000000", "-cz", "in-archive"];
    let archive = host.program("tar").arg("-C").arg(&packed).args(tar).run().expect_code(0).stdout;
    serve("127.0.0.1:8080", move |request| match request.target.as_str() {
        "/file.txt" | "/file.txt?a=b" | "/deep/er/name%20with" | "/" => {
            Reply::Whole(200, "text/plain", b"hello".to_vec())
        }
        "/dated.txt" => Reply::Whole(200, DATED, b"dated".to_vec()),
        "/disposed" => Reply::Whole(200, DISPOSED, b"disposed".to_vec()),
        "/archive.tar.gz" => Reply::Whole(200, "application/gzip", archive.clone()),
        _ => Reply::Whole(404, "text/plain", b"no".to_vec()),
    });
    let work = host.files().join("served/work");
    std::fs::create_dir_all(work.join("below")).unwrap();
    std::fs::write(work.join("top"), "one").unwrap();
    std::fs::write(work.join("below/program"), "two").unwrap();
    std::fs::set_permissions(work.join("below/program"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink("top", work.join("link")).unwrap();
    git(host, &work, &["init", "-q"]);
    git(host, &work, &["add", "."]);
    git(host, &work, &["commit", "-qm", "one"]);
    git(host, &work, &["tag", "v1"]);
    std::fs::write(work.join("top"), "later").unwrap();
    git(host, &work, &["commit", "-qam", "two"]);
    git(host, &host.files().join("served"), &["clone", "-q", "--bare", "work", "work.git"]);
    GitServer::start(host, &host.files().join("served"))
}

fn on_conex(group: &str) {
    let host = Host::new();
    let sources = (group == "sources").then(|| serve_sources(&host));
    let engine = Engine::start_in(host, EngineOptions::default());
    let mut builder = Builder { host: engine.host(), address: engine.address(), base: Digest::of(b"") };
    builder.load_bases();
    compare(&builder, group, ByReason::Compared);
    drop(sources);
    engine.finish();
}

fn on_docker(group: &str) {
    let host = Host::new();
    let recording = std::env::var_os(RECORD).is_some();
    let Some(docker) = Docker::start(&host) else {
        assert!(!recording, "facts are recorded with the Docker that ./x peers installs");
        eprintln!("skipped: ./x peers has not been run");
        return;
    };
    let _sources = (group == "sources").then(|| serve_sources(&host));
    let mut builder = Builder { host: &host, address: docker.address(), base: Digest::of(b"") };
    builder.load_bases();
    if recording {
        record(&builder, group);
    } else {
        compare(&builder, group, ByReason::LeftOut);
    }
}

#[test]
fn the_language_means_what_it_means_to_docker() {
    on_conex("language");
}

#[test]
fn files_come_as_they_do_with_docker() {
    on_conex("files");
}

#[test]
fn commands_leave_what_they_leave_with_docker() {
    on_conex("commands");
}

#[test]
fn sources_elsewhere_give_what_they_give_docker() {
    on_conex("sources");
}

#[test]
fn the_facts_about_the_language_are_dockers() {
    on_docker("language");
}

#[test]
fn the_facts_about_files_are_dockers() {
    on_docker("files");
}

#[test]
fn the_facts_about_commands_are_dockers() {
    on_docker("commands");
}

#[test]
fn the_facts_about_sources_elsewhere_are_dockers() {
    on_docker("sources");
}
