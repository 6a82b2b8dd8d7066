//! Images on their way without a registry: to another engine, into archives and OCI layouts.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use harness::{Engine, Program};
use serde_json::Value;

/// A second engine in the same host.
pub(crate) struct Other {
    folder: PathBuf,
    child: Child,
}

impl Other {
    pub(crate) fn start(engine: &Engine) -> Other {
        let folder = engine.host().scratch().join("other");
        std::fs::create_dir_all(&folder).unwrap();
        let log = std::fs::File::create(folder.join("log")).unwrap();
        let mut command = engine.host().conex().into_command();
        command.args(["daemon", "--name", &format!("{}-o", engine.host().name())]);
        command.arg("--root").arg(folder.join("root")).arg("--run").arg(folder.join("run"));
        let child = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let mut other = Other { folder, child };
        let end = Instant::now() + Duration::from_secs(30);
        while std::os::unix::net::UnixStream::connect(other.socket()).is_err() {
            assert!(other.child.try_wait().unwrap().is_none() && Instant::now() < end, "{}", other.log());
            std::thread::sleep(Duration::from_millis(5));
        }
        other
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("run/conex.sock")
    }

    pub(crate) fn address(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    pub(crate) fn docker(&self, engine: &Engine, arguments: &[&str]) -> Program {
        engine.host().program("docker").args(["-H", &self.address()]).args(arguments)
    }

    pub(crate) fn finish(mut self, engine: &Engine) {
        engine.host().program("kill").arg(self.child.id().to_string()).ok();
        self.child.wait().unwrap();
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Busybox, and two images upon it of 3 MB each that share nothing else.
fn engine_with_images() -> Engine {
    let engine = Engine::with_busybox();
    for name in ["one", "two"] {
        engine.docker(["run", "--name", "maker", "busybox", "sh", "-c", "head -c 3000000 /dev/urandom > /more"]).ok();
        engine.docker(["commit", "maker", name]).ok();
        engine.docker(["rm", "maker"]).ok();
    }
    engine
}

fn copied(program: Program) -> (u64, u64, u64) {
    let told: Value = program.run().expect_code(0).json();
    let number = |name: &str| told[name].as_u64().unwrap();
    (number("Layers"), number("LayersSent"), number("BytesSent"))
}

#[test]
fn another_engine_gets_what_it_lacks_and_no_more() {
    let engine = engine_with_images();
    let other = Other::start(&engine);
    let address = other.address();
    let copy = |image: &str| engine.conex(["image", "copy", "--json", image, &address]);
    let (layers, sent, bytes) = copied(copy("busybox"));
    assert_eq!((layers, sent), (1, 1));
    assert!(bytes > 1_000_000, "{bytes}");
    let (layers, sent, bytes) = copied(copy("one"));
    assert_eq!((layers, sent), (2, 1));
    assert!((3_000_000..3_100_000).contains(&bytes), "{bytes}");
    let (layers, sent, bytes) = copied(copy("one"));
    assert_eq!((layers, sent), (2, 0));
    assert!(bytes < 20_000, "{bytes}");
    let id = engine.docker(["image", "inspect", "-f", "{{.Id}}", "one"]).ok();
    assert_eq!(other.docker(&engine, &["image", "inspect", "-f", "{{.Id}}", "one"]).ok(), id);
    let sum = ["run", "--rm", "--network", "none", "one", "sha256sum", "/more"];
    assert_eq!(other.docker(&engine, &sum).ok(), engine.docker(sum).ok());

    // By ssh, as far as a stand-in for the other machine's door: it runs what the real one would be told to run.
    let programs = engine.host().files().join("bin");
    std::fs::create_dir(&programs).unwrap();
    std::fs::write(programs.join("ssh"), "#!/bin/sh\nfor last; do :; done\nexec sh -c \"$last\"\n").unwrap();
    std::fs::set_permissions(programs.join("ssh"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let conex = PathBuf::from(engine.host().conex().into_command().get_program());
    std::os::unix::fs::symlink(std::path::absolute(conex).unwrap(), programs.join("conex")).unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let remote = format!("ssh://somewhere{}", other.socket().display());
    let (layers, sent, bytes) = copied(engine.conex(["image", "copy", "--json", "two", &remote]).env("PATH", path));
    assert_eq!((layers, sent), (2, 1));
    assert!((3_000_000..3_100_000).contains(&bytes), "{bytes}");

    // By the name of a context of the docker command line, and in words.
    let config = engine.host().files().join("docker-config");
    let create = ["context", "create", "there", "--docker", &format!("host={address}")];
    engine.host().program("docker").args(create).env("DOCKER_CONFIG", &config).ok();
    let told = engine.conex(["image", "copy", "two", "there"]).env("DOCKER_CONFIG", &config).ok();
    assert!(told.ends_with("kB sent") && told.contains("Copied two to there: 0 of 2 layers"), "{told}");
    let nowhere = engine.conex(["image", "copy", "two", "nowhere"]).fails(1);
    assert!(nowhere.contains("context \"nowhere\" not found"), "{nowhere}");
    let absent = engine.conex(["image", "copy", "nosuch", &address]).fails(1);
    assert!(absent.contains("No such image: nosuch:latest"), "{absent}");
    let origin = engine.host().conex().args([
        "-H",
        &address,
        "image",
        "inspect",
        "-f",
        "{{(index .Provenance.Origins 0).Kind}}",
        "two",
    ]);
    assert_eq!(origin.ok(), "archive");
    other.finish(&engine);
    engine.finish();
}

/// Sends a body to a route of the second engine; the answer.
fn post(engine: &Engine, other: &Other, path: &str, kind: &str, body: Vec<u8>) -> String {
    let (socket, url) = (other.socket(), format!("http://x{path}"));
    let header = format!("Content-Type: {kind}");
    let curl = ["-s", "--unix-socket", socket.to_str().unwrap(), "-H", &header, "--data-binary", "@-", &url];
    engine.host().program("curl").args(curl).input(body).ok()
}

#[test]
fn what_is_left_out_must_be_here_and_nothing_is_half_done() {
    let engine = engine_with_images();
    let other = Other::start(&engine);
    let layers = engine.docker(["image", "inspect", "-f", "{{json .RootFS.Layers}}", "one"]).ok();
    let body = format!("{{\"Names\":[\"one\"],\"Without\":{layers}}}");
    let save = engine.get("/conex/images/save").args(["-H", "Content-Type: application/json", "-d", &body]);
    let tar = save.run().expect_code(0).stdout;
    assert!(tar.len() < 20_000, "no layer is in it");

    let tar_kind = "application/x-tar";
    let refused = post(&engine, &other, "/conex/images/load", tar_kind, tar.clone());
    assert!(refused.contains("missing from the archive") && refused.contains("errorDetail"), "{refused}");
    // Half of an archive with its layers, then the rest of none.
    let whole = engine.docker(["save", "one"]).run().expect_code(0).stdout;
    let half = post(&engine, &other, "/conex/images/load", tar_kind, whole[..whole.len() / 2].to_vec());
    assert!(half.contains("errorDetail"), "{half}");
    assert_eq!(other.docker(&engine, &["images", "-q"]).ok(), "");
    let left = std::fs::read_dir(other.folder.join("root/layers/sha256")).unwrap().count();
    assert_eq!(left, 0, "layers without an image are gone");

    let asked = post(
        &engine,
        &other,
        "/conex/images/missing",
        "application/json",
        format!("{{\"Layers\":{layers}}}").into_bytes(),
    );
    assert_eq!(
        serde_json::from_str::<Value>(&asked).unwrap()["Layers"],
        serde_json::from_str::<Value>(&layers).unwrap()
    );
    let junk =
        post(&engine, &other, "/conex/images/missing", "application/json", br#"{"Layers":["../../etc"]}"#.to_vec());
    assert!(junk.contains("invalid JSON"), "{junk}");
    // Where the layers are here, the same archive is an image; but never for Docker's own route.
    other.docker(&engine, &["load"]).input(whole).ok();
    let id = other.docker(&engine, &["images", "-q", "one"]).ok();
    let docker_route = post(&engine, &other, "/images/load", tar_kind, tar.clone());
    assert!(docker_route.contains("missing from the archive"), "{docker_route}");
    other.docker(&engine, &["tag", "one", "kept"]).ok();
    other.docker(&engine, &["rmi", "one"]).ok();
    let taken = post(&engine, &other, "/conex/images/load", tar_kind, tar);
    assert!(taken.contains("Loaded image: one:latest"), "{taken}");
    assert_eq!(other.docker(&engine, &["images", "-q", "one"]).ok(), id);
    other.finish(&engine);
    engine.finish();
}

fn skopeo_digest(engine: &Engine, name: &str) -> String {
    engine.host().program("skopeo").args(["inspect", "--format", "{{.Digest}}", name]).ok()
}

fn size(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().len()
}

#[test]
fn archives_and_layouts_are_read_by_others() {
    let engine = engine_with_images();
    let files = engine.host().files();
    let layout = files.join("layout");
    let digest = engine.conex(["image", "inspect", "-f", "{{.Descriptor.digest}}", "one"]).ok();
    let target = format!("oci:{}", layout.display());
    let (layers, sent, _) = copied(engine.conex(["image", "copy", "--json", "one", &format!("{target}:one")]));
    assert_eq!((layers, sent), (2, 2));
    assert_eq!(skopeo_digest(&engine, &format!("{target}:one")), digest);
    // The second image brings its own layer alone, and the first stays.
    let (layers, sent, bytes) = copied(engine.conex(["image", "copy", "--json", "two", &format!("{target}:two")]));
    assert_eq!((layers, sent), (2, 1));
    assert!((3_000_000..3_100_000).contains(&bytes), "{bytes}");
    let again = copied(engine.conex(["image", "copy", "--json", "two", &format!("{target}:two")]));
    assert!(again.1 == 0 && again.2 < 20_000, "{again:?}");
    assert_eq!(skopeo_digest(&engine, &format!("{target}:one")), digest);
    assert_ne!(skopeo_digest(&engine, &format!("{target}:two")), digest);
    let index: Value = serde_json::from_slice(&std::fs::read(layout.join("index.json")).unwrap()).unwrap();
    assert_eq!(index["manifests"].as_array().map(Vec::len), Some(2));
    let copied_again = files.join("copied");
    let copy = ["copy", "-q", &format!("{target}:two"), &format!("oci:{}:x", copied_again.display())];
    engine.host().program("skopeo").args(copy).ok();

    for kind in ["docker-archive", "oci-archive"] {
        let file = files.join(format!("{kind}.tar"));
        let (_, _, bytes) =
            copied(engine.conex(["image", "copy", "--json", "one", &format!("{kind}:{}", file.display())]));
        assert_eq!(bytes, size(&file));
        let name = format!("{kind}:{}", file.display());
        let seen = skopeo_digest(&engine, &name);
        assert!(kind == "docker-archive" || seen == digest, "{seen}");
    }
    let id = engine.docker(["images", "-q", "one"]).ok();
    engine.docker(["rmi", "-f", &id]).ok();
    engine.docker(["load", "-i", files.join("oci-archive.tar").to_str().unwrap()]).ok();
    assert_eq!(engine.docker(["images", "-q", "one"]).ok(), id);
    engine.finish();
}
