//! What Docker refuses is refused with its status, in its words.

use harness::Engine;

use crate::system::answer;

/// The containers, the volume and the network that the requests are about.
fn prepare(engine: &Engine) {
    let create = |name: &str, options: &[&str], command: &[&str]| {
        let words = [&["create", "--name", name, "--network", "none"], options, &["busybox"], command].concat();
        engine.docker(words).ok();
    };
    let sleep = ["sleep", "100000"];
    create("run", &["-i"], &sleep);
    create("made", &[], &["true"]);
    create("ended", &[], &["false"]);
    create("pau", &[], &sleep);
    create("auto", &["--rm"], &sleep);
    create("tty", &["-t"], &sleep);
    engine.docker(["start", "run", "ended", "pau", "auto", "tty"]).ok();
    engine.docker(["wait", "ended"]).ok();
    engine.docker(["pause", "pau"]).ok();
    engine.docker(["volume", "create", "vol"]).ok();
    engine.docker(["network", "create", "net"]).ok();
}

/// An id differs from run to run.
fn without_ids(text: &str) -> String {
    let is_id = |word: &&str| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let ids = text.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(is_id);
    ids.fold(text.to_owned(), |text, id| text.replace(id, "<ID>"))
}

#[test]
fn what_docker_refuses_is_refused_in_its_words() {
    let engine = Engine::with_busybox();
    prepare(&engine);
    let facts = include_str!("refusals.facts").lines().filter(|line| !line.starts_with('#'));
    let differ: Vec<String> = facts
        .filter_map(|fact| {
            let (asked, wanted) = fact.split_once('\t').unwrap();
            let got = without_ids(&answer(&engine.socket(), asked));
            (got != wanted).then(|| format!("{asked}\n  wanted {wanted}\n  got    {got}"))
        })
        .collect();
    assert!(differ.is_empty(), "{} differ:\n{}", differ.len(), differ.join("\n"));
    engine.docker(["rm", "-f", "run", "made", "ended", "pau", "auto", "tty"]).ok();
    engine.docker(["volume", "rm", "vol"]).ok();
    engine.docker(["network", "rm", "net"]).ok();
    engine.finish();
}

/// Clients take a 404 of a create for an image that they have to pull.
#[test]
fn an_image_of_another_platform_is_pulled() {
    let engine = Engine::with_busybox();
    let words = ["create", "--platform", "linux/s390x", "busybox"];
    let told = engine.docker(words).run().error_text();
    assert!(told.contains("Unable to find image 'busybox:latest' locally"), "{told}");
    engine.finish();
}

#[test]
fn an_import_fetches_what_is_at_an_address() {
    let engine = Engine::start();
    let folder = engine.host().files().join("served");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("root.tar"), harness::busybox_tar()).unwrap();
    let mut server =
        engine.host().program("busybox").args(["httpd", "-f", "-p", "127.0.0.1:8123", "-h"]).arg(&folder).spawn();
    crate::waits::wait_until("the server listens", || std::net::TcpStream::connect("127.0.0.1:8123").is_ok());
    engine.docker(["import", "http://127.0.0.1:8123/root.tar", "fetched"]).ok();
    // Without a scheme, as Docker takes it.
    let short = engine.get("/images/create?fromSrc=127.0.0.1:8123/root.tar&repo=short").args(["-X", "POST"]).ok();
    assert!(short.contains("sha256:"), "{short}");
    assert_eq!(engine.docker(["run", "--rm", "fetched", "/bin/sh", "-c", "echo runs"]).ok(), "runs");
    let comment = engine.docker(["inspect", "-f", "{{.Comment}}", "fetched"]).ok();
    assert_eq!(comment, "Imported from http://127.0.0.1:8123/root.tar");
    let absent = engine.docker(["import", "http://127.0.0.1:8123/absent.tar", "x"]).fails(1);
    assert!(absent.contains("cannot fetch http://127.0.0.1:8123/absent.tar") && absent.contains("404"), "{absent}");
    server.kill().unwrap();
    server.wait().unwrap();
    engine.finish();
}

#[test]
fn starts_that_fail_have_dockers_exit_codes_and_advice() {
    let engine = Engine::with_busybox();
    let folder = engine.host().files().join("empty");
    std::fs::create_dir(&folder).unwrap();
    let folder = folder.to_str().unwrap();
    let run = |code: i32, words: &[&str]| engine.docker([&["run", "--rm"], words].concat()).fails(code);
    assert!(run(126, &["busybox", "/etc"]).contains("is a directory"));
    assert!(run(127, &["busybox", "nosuch"]).contains("executable file not found in $PATH"));
    let advice = "not a directory: Are you trying to mount a directory onto a file (or vice-versa)?";
    for bind in ["/etc/hostname:/etc", &format!("{folder}:/etc/passwd")] {
        let told = run(125, &["-v", bind, "busybox", "true"]);
        assert!(told.contains(advice), "{bind}: {told}");
    }
    let told = run(125, &["--device", folder, "busybox", "true"]);
    assert!(told.contains("error gathering device information") && told.contains("not a device node"), "{told}");
    engine.finish();
}
