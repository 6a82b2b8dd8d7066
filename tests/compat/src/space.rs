//! What images take on the disk, and what goes when it is too much.

use std::time::{Duration, Instant};

use harness::{Engine, EngineOptions};

const TIME_LIMIT: Duration = Duration::from_secs(30);

/// An engine with further arguments.
fn engine_with(arguments: &[&str]) -> Engine {
    Engine::start_with(EngineOptions { arguments: arguments.iter().map(|&word| word.to_owned()).collect() })
}

/// Waits for what happens behind the engine's answers.
#[track_caller]
fn wait_until(engine: &Engine, what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + TIME_LIMIT;
    while !is_so() {
        assert!(Instant::now() < end, "still not: {what}; the daemon's log:\n{}", engine.log());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Imports an image of one file of so many bytes; its bytes depend on the name.
fn import(engine: &Engine, name: &str, bytes: usize) {
    let folder = tempfile::tempdir().unwrap();
    let seed = name.as_bytes();
    let contents: Vec<u8> = (0..bytes).map(|at| seed[at % seed.len()].wrapping_mul(at as u8)).collect();
    std::fs::write(folder.path().join("file"), contents).unwrap();
    let tar = engine.host().program("tar").args(["-C"]).arg(folder.path()).args(["-cf", "-", "file"]);
    let tar = tar.run().expect_code(0).stdout;
    engine.docker(["import", "--change", "CMD [\"x\"]", "-", name]).input(tar).ok();
}

fn images(engine: &Engine) -> Vec<String> {
    let listed = engine.docker(["images", "--format", "{{.Repository}}"]).ok();
    let mut names: Vec<String> = listed.lines().map(str::to_owned).collect();
    names.sort();
    names
}

fn events(engine: &Engine, filter: &str, format: &str) -> Vec<String> {
    // Clients send whole seconds: the last events lie before the next one.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let until = (now + 1).to_string();
    let listed =
        engine.docker(["events", "--since", "0", "--until", &until, "--filter", filter, "--format", format]).ok();
    listed.lines().map(str::to_owned).collect()
}

#[test]
fn shared_and_unique_sizes_are_right() {
    let engine = Engine::with_busybox();
    let docker = |arguments: &[&str]| engine.docker(arguments).run().expect_code(0).text();
    docker(&["run", "--name", "maker", "busybox", "sh", "-c", "head -c 3000000 /dev/urandom > /more"]);
    docker(&["commit", "maker", "child"]);
    docker(&["rm", "maker"]);
    import(&engine, "alone", 1_000_000);
    let sizes = engine.conex(["images", "--format", "{{.Repository}} {{.Size}} {{.SharedSize}} {{.UniqueSize}}"]).ok();
    let line = |text: &str, name: &str| -> Vec<String> {
        let found = text.lines().find(|line| line.split_whitespace().next() == Some(name));
        found.unwrap_or_else(|| panic!("no {name} in {text}")).split_whitespace().map(str::to_owned).collect()
    };
    let base = line(&sizes, "busybox");
    assert_eq!((base[1].as_str(), base[3].as_str()), (base[2].as_str(), "0B"), "{sizes}");
    let child = line(&sizes, "child");
    assert_eq!((child[2].as_str(), child[3].as_str()), (base[1].as_str(), "3MB"), "{sizes}");
    assert_eq!(line(&sizes, "alone")[2..], ["0B", "1MB"], "{sizes}");

    // The same by Docker's own verbose `system df`: shared, unique, containers are the last three columns.
    docker(&["create", "--name", "one", "child"]);
    let verbose = docker(&["system", "df", "-v"]);
    let columns = line(&verbose, "child");
    assert_eq!(columns[columns.len() - 3..], [base[1].as_str(), "3.004MB", "1"], "{verbose}");
    let ours = engine.conex(["system", "df", "-v"]).ok();
    let columns = line(&ours, "child");
    assert_eq!(columns[columns.len() - 3..], [base[1].as_str(), "3MB", "1"], "{ours}");
    let listed = engine.get("/v1.45/images/json?shared-size=1").ok();
    let unasked = engine.get("/v1.45/images/json").ok();
    let shared = |json: &str| -> Vec<i64> {
        let images: Vec<serde_json::Value> = serde_json::from_str(json).unwrap();
        let mut all: Vec<i64> = images.iter().map(|image| image["SharedSize"].as_i64().unwrap()).collect();
        all.sort_unstable();
        all
    };
    assert!(shared(&listed)[0] == 0 && shared(&listed)[1] == shared(&listed)[2], "{listed}");
    assert_eq!(shared(&unasked), [-1, -1, -1], "{unasked}");
    let only = engine.get("/v1.45/system/df?type=volume").ok();
    assert!(only.contains("\"Images\":null") && only.contains("\"LayersSize\":0"), "{only}");

    let tree = engine.conex(["image", "ls", "--tree"]).ok();
    assert!(tree.contains("└─ container one (created)"), "{tree}");
    assert!(tree.contains("├─ linux/amd64") || tree.contains("├─ linux/arm64"), "{tree}");
    assert!(line(&tree, "child:latest").ends_with(&["U".to_owned()]), "{tree}");
    engine.finish();
}

#[test]
fn prune_knows_the_last_use_pins_and_what_it_would_do() {
    let mut engine = Engine::with_busybox();
    for name in ["one", "two", "three"] {
        import(&engine, name, 10_000);
    }
    let conex = |engine: &Engine, arguments: &[&str]| engine.conex(arguments).run().expect_code(0).text();
    let prune = ["image", "prune", "-a", "-f", "--filter", "unused-for=0s"];
    let dry = conex(&engine, &[&prune[..], &["--dry-run"]].concat());
    assert!(dry.starts_with("Would be deleted:\n") && dry.contains("untagged: one:latest"), "{dry}");
    assert_eq!(images(&engine).len(), 4);
    let lately = conex(&engine, &["image", "prune", "-a", "-f", "--filter", "unused-for=720h"]);
    assert!(lately.contains("Total reclaimed space: 0B"), "{lately}");

    assert_eq!(conex(&engine, &["image", "pin", "one"]), "one: pinned by name one:latest");
    let id = engine.docker(["images", "-q", "two"]).ok();
    assert_eq!(conex(&engine, &["image", "pin", &id]), format!("{id}: pinned by id"));
    let pins = engine.conex(["image", "inspect", "-f", "{{json .Pins}}", "one", "two"]).ok();
    assert_eq!(pins, "[\"name one:latest\"]\n[\"id\"]");
    engine.docker(["run", "--name", "user", "busybox", "true"]).ok();
    // Uses and pins outlive the engine, however it ends.
    engine.kill();
    engine.launch();
    conex(&engine, &prune);
    assert_eq!(images(&engine), ["busybox", "one", "two"]);
    let reasons = events(&engine, "event=delete", "{{.Actor.Attributes.reason}}");
    assert_eq!(reasons, ["prune"]);
    let unpinned = engine.conex(["image", "unpin", "busybox"]).fails(1);
    assert!(unpinned.contains("image busybox is not pinned by that name: nothing pins it"), "{unpinned}");
    conex(&engine, &["image", "unpin", "one"]);
    let wrong = engine.docker(["image", "prune", "-f", "--filter", "nosuch=1"]).fails(1);
    assert!(wrong.contains("invalid filter 'nosuch'"), "{wrong}");
    engine.docker(["rm", "user"]).ok();
    conex(&engine, &prune);
    assert_eq!(images(&engine), ["two"]);
    engine.finish();
}

#[test]
fn a_budget_removes_what_was_used_longest_ago() {
    let engine = engine_with(&["--storage-budget", "9MB", "--storage-min-age", "0s", "--pin-label", "keep"]);
    for name in ["a", "b"] {
        import(&engine, name, 3_000_000);
    }
    engine.docker(["volume", "create", "mine"]).ok();
    let container = engine.docker(["create", "a"]).ok();
    import(&engine, "c", 3_000_000);
    wait_until(&engine, "b is gone", || images(&engine) == ["a", "c"]);
    let gone = events(&engine, "event=delete", "{{.Type}} {{.Actor.Attributes.reason}}");
    assert_eq!(gone, ["image storage-budget"]);
    let df = engine.conex(["system", "df"]).ok();
    assert!(df.contains("Storage budget: ") && df.contains(" of 9MB used\n") || df.ends_with(" of 9MB used"), "{df}");

    // What is pinned, by name or by a label, and what a container has, stays; that the budget cannot be kept is said.
    engine.conex(["image", "pin", "c"]).ok();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), vec![7; 3_000_000]).unwrap();
    let tar = engine.host().program("tar").arg("-C").arg(folder.path()).args(["-cf", "-", "file"]);
    let tar = tar.run().expect_code(0).stdout;
    engine.docker(["import", "--change", "LABEL keep=1", "-", "d"]).input(tar).ok();
    wait_until(&engine, "the excess is logged", || {
        engine.log().contains("the storage budget of 9000000 is exceeded by")
    });
    assert_eq!(images(&engine), ["a", "c", "d"]);
    let df = engine.conex(["system", "df"]).ok();
    let why = "too much, which may not go: 1 image is used by containers, 2 images are pinned";
    assert!(df.contains(why), "{df}");

    let dry = engine.conex(["image", "prune", "--dry-run", "--budget", "1MB"]).ok();
    assert!(!dry.contains("untagged"), "{dry}");
    engine.conex(["image", "unpin", "c"]).ok();
    let dry = engine.conex(["image", "prune", "--dry-run", "--budget", "7MB"]).ok();
    assert!(dry.contains("untagged: c:latest") && !dry.contains("a:latest"), "{dry}");
    // A container that goes lets its image go.
    engine.docker(["rm", &container]).ok();
    wait_until(&engine, "one image is gone", || images(&engine).len() == 2);
    assert!(images(&engine).contains(&"d".to_owned()));
    assert_eq!(engine.docker(["volume", "ls", "-q"]).ok(), "mine");
    let refused = engine.conex(["image", "prune", "-f", "--budget", "101%"]).fails(1);
    assert!(refused.contains("invalid storage budget"), "{refused}");
    engine.docker(["volume", "rm", "mine"]).ok();
    engine.finish();
}
