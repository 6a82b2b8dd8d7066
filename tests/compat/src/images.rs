//! Images in and out without a registry.

use harness::Engine;

use crate::system::events;

#[test]
fn save_and_load() {
    let engine = Engine::with_busybox();
    let docker = |arguments: &[&str]| engine.docker(arguments).run().expect_code(0).text();
    docker(&["tag", "busybox", "other/name:v1"]);
    let id = docker(&["image", "inspect", "-f", "{{.Id}}", "busybox"]);
    let archive = engine.host().files().join("saved.tar");
    let archive = archive.to_str().unwrap();
    docker(&["save", "-o", archive, "busybox", "other/name:v1"]);
    docker(&["rmi", "busybox", "other/name:v1"]);
    assert_eq!(docker(&["images", "-q"]).lines().filter(|short| id.contains(*short)).count(), 0);
    let loaded = docker(&["load", "-i", archive]);
    assert!(
        loaded.contains("Loaded image: busybox:latest") && loaded.contains("Loaded image: other/name:v1"),
        "{loaded}"
    );
    assert_eq!(docker(&["image", "inspect", "-f", "{{.Id}}", "busybox"]), id);
    assert_eq!(docker(&["run", "--rm", "other/name:v1", "echo", "works"]), "works");

    for (tool, ending) in [("gzip", "gz"), ("zstd", "zst"), ("xz", "xz"), ("bzip2", "bz2")] {
        let packed = format!("{archive}.{ending}");
        let bytes = engine.host().program(tool).args(["-c", archive]).run().expect_code(0).stdout;
        std::fs::write(&packed, bytes).unwrap();
        docker(&["rmi", "-f", "busybox", "other/name:v1"]);
        assert!(docker(&["load", "-i", &packed]).contains("Loaded image: busybox:latest"), "{tool}");
    }
    engine.finish();
}

#[test]
fn import_export_history_and_changes() {
    let engine = Engine::with_busybox();
    let docker = |arguments: &[&str]| engine.docker(arguments).run().expect_code(0);
    docker(&["run", "--name", "one", "busybox", "sh", "-c", "echo changed > /etc/new"]);
    let exported = docker(&["export", "one"]).stdout;
    let import =
        ["import", "--change", "ENV A=b", "--change", "ENTRYPOINT [\"cat\"]", "-m", "a message", "-", "made:1"];
    engine.docker(import).input(exported).ok();
    assert_eq!(docker(&["run", "--rm", "made:1", "/etc/new"]).text(), "changed");
    let config =
        docker(&["image", "inspect", "-f", "{{json .Config.Env}} {{json .Config.Entrypoint}}", "made:1"]).text();
    assert!(config.contains("\"A=b\"") && config.contains("[\"cat\"]"), "{config}");
    let history = docker(&["history", "--format", "{{.Comment}}", "made:1"]).text();
    assert!(history.contains("a message"), "{history}");
    let junk = engine.docker(["load"]).input("this is no archive").run();
    assert_ne!(junk.code, 0, "{junk:?}");
    engine.finish();
}

#[test]
fn removal_rules() {
    let engine = Engine::with_busybox();
    let docker = |arguments: &[&str]| engine.docker(arguments).run().expect_code(0).text();
    docker(&["tag", "busybox", "two:latest"]);
    let id = docker(&["images", "-q", "busybox"]);
    let several = engine.docker(["rmi", &id]).fails(1);
    assert!(several.contains("image is referenced in multiple repositories"), "{several}");
    assert_eq!(docker(&["rmi", "two"]), "Untagged: two:latest");
    docker(&["create", "--name", "one", "busybox"]);
    let used = engine.docker(["rmi", "busybox"]).fails(1);
    assert!(used.contains("unable to remove repository reference \"busybox\" (must force) - container"), "{used}");
    docker(&["rm", "one"]);
    let removed = docker(&["rmi", "busybox"]);
    assert!(removed.contains("Untagged: busybox:latest") && removed.contains("Deleted: sha256:"), "{removed}");
    let gone = engine.docker(["rmi", "busybox"]).fails(1);
    assert!(gone.contains("No such image: busybox:latest"), "{gone}");
    engine.finish();
}

#[test]
fn the_image_that_is_built_in() {
    let engine = Engine::start();
    let hello = engine.docker(["run", "--rm", "--pull=never", "hello"]).ok();
    assert!(hello.to_lowercase().contains("hello") && hello.contains("conex "), "{hello}");
    engine.finish();
}

/// The one file of this kind among the engine's layers whose size is at least this.
fn layer_file(engine: &Engine, suffix: &str, bytes: u64) -> std::path::PathBuf {
    let files = std::fs::read_dir(engine.root_folder().join("layers/sha256")).expect("the store has layers");
    let large = |path: &std::path::Path| std::fs::metadata(path).is_ok_and(|file| file.len() >= bytes);
    let mut found = files.flatten().map(|file| file.path()).filter(|path| path.to_string_lossy().ends_with(suffix));
    found.find(|path| large(path)).expect("there is a layer")
}

fn flip_a_byte(path: &std::path::Path, at: u64) {
    use std::os::unix::fs::FileExt as _;
    let file = std::fs::File::options().read(true).write(true).open(path).expect("a file of the store");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("it is long enough");
    file.write_all_at(&[byte[0] ^ 1], at).expect("it is writable");
}

#[test]
fn damage_is_found_repaired_and_healed_by_what_comes_again() {
    let engine = Engine::with_busybox();
    let saved = engine.docker(["save", "busybox"]).run().expect_code(0).stdout;
    let verify = |words: &[&str]| engine.conex(["image", "verify"]).args(words).run();
    assert!(verify(&[]).expect_code(0).text().contains(" 0 damaged"));

    flip_a_byte(&layer_file(&engine, ".erofs", 1), 1100);
    let damaged = verify(&[]).expect_code(1).text();
    assert!(damaged.contains("busybox:latest") && damaged.contains("its tar is whole"), "{damaged}");
    assert!(verify(&["--repair"]).expect_code(0).text().contains("1 repaired"));
    verify(&["-q"]).expect_code(0);

    flip_a_byte(&layer_file(&engine, ".tar", 100_000), 70_000);
    let damaged = verify(&["--repair"]).expect_code(1).text();
    assert!(damaged.contains("damaged layer") && damaged.contains("its bytes hash to"), "{damaged}");
    engine.docker(["load"]).input(saved).ok();
    verify(&["-q"]).expect_code(0);
    assert_eq!(engine.docker(["run", "--rm", "busybox", "echo", "well"]).ok(), "well");
    engine.finish();
}

#[test]
fn commit_makes_an_image_of_what_changed() {
    let engine = Engine::with_busybox();
    let docker = |arguments: &[&str]| engine.docker(arguments).run().expect_code(0).text();
    let script = "echo new > /etc/new; rm /etc/hostname /etc/group; rm -r /home; mkdir /home; chmod 700 /root; mkfifo /ready; cat /ready";
    docker(&["run", "-d", "--name", "one", "-e", "A=b", "-v", "/data/vol", "busybox", "sh", "-c", script]);
    // Opening a FIFO for writing waits for its reader, who comes when everything before is done.
    docker(&["exec", "one", "sh", "-c", "until [ -p /ready ]; do :; done"]);
    let commit = ["commit", "-a", "me <me@x>", "-m", "why", "-c", "CMD [\"cat\", \"/etc/new\"]", "one", "made:1"];
    let id = docker(&commit);
    assert_eq!(docker(&["inspect", "-f", "{{.State.Status}}", "one"]), "running");
    assert_eq!(
        docker(&["image", "inspect", "-f", "{{.Id}} {{.Author}} {{.Comment}}", "made:1"]),
        format!("{id} me <me@x> why")
    );
    assert_eq!(docker(&["run", "--rm", "made:1"]), "new");
    let look =
        "stat -c %a /root; ls /home; test -e /etc/hostname.x; test -e /etc/group || echo gone; echo $A; ls -d /data";
    let seen = engine.docker(["run", "--rm", "--entrypoint", "sh", "made:1", "-c", look]).run();
    assert_eq!(seen.text(), "700\ngone\nb\n/data");
    // Nothing that the runtime made to mount on is in the layer.
    let layer = docker(&["history", "--no-trunc", "--format", "{{.CreatedBy}}|{{.Comment}}", "made:1"]);
    assert_eq!(layer.lines().next(), Some(format!("sh -c {script}|why").as_str()));
    let base = docker(&["create", "--name", "two", "busybox"]);
    let same = docker(&["commit", &base]);
    let layers = |image: &str| docker(&["image", "inspect", "-f", "{{len .RootFS.Layers}}", image]);
    assert_eq!((layers(&same), layers("made:1")), ("1".to_owned(), "2".to_owned()));
    let again = docker(&["run", "--name", "three", "made:1"]);
    assert_eq!(again, "new");
    assert_eq!(docker(&["diff", "three"]), "");
    assert!(docker(&["commit", "--pause=false", "three"]).starts_with("sha256:"));
    let unknown = engine.docker(["commit", "nobody"]).fails(1);
    assert!(unknown.contains("No such container: nobody"), "{unknown}");
    let wrong = engine.docker(["commit", "-c", "RUN x", "one"]).fails(1);
    assert!(wrong.contains("RUN is not a valid change command"), "{wrong}");
    let format = "{{.Actor.Attributes.imageRef}} {{.Actor.Attributes.comment}}";
    let events = events(&engine, &["--filter", "event=commit", "--format", format]);
    assert!(events.starts_with("made:1 why\n"), "{events}");
    let ours = engine.conex(["commit", "-m", "ours", "one", "made:2"]).ok();
    assert_eq!(docker(&["image", "inspect", "-f", "{{.Id}}", "made:2"]), ours);
    engine.finish();
}
