//! Images in and out without a registry.

use harness::Engine;

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
