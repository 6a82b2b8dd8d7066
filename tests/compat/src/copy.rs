//! `cp` in and out of containers, and containers that want it to go astray.

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

use harness::Engine;

use crate::system::events;
use crate::waits::{PATIENCE, read_until};

/// Runs the real docker command line, which must succeed.
fn docker(engine: &Engine, arguments: &[&str]) -> String {
    engine.docker(arguments).run().expect_code(0).text()
}

#[test]
fn files_go_both_ways_while_it_runs_and_while_it_does_not() {
    let engine = Engine::with_busybox();
    let files = engine.host().files();
    let (bound, here) = (files.join("bound"), files.join("here"));
    std::fs::create_dir_all(bound.join("sub")).unwrap();
    std::fs::create_dir_all(here.join("tree/deep")).unwrap();
    std::fs::write(bound.join("sub/file"), "bound").unwrap();
    std::fs::write(here.join("tree/deep/file"), "from here").unwrap();
    std::os::unix::fs::symlink("deep/file", here.join("tree/link")).unwrap();
    let (bind, here) = (format!("{}:/bound", bound.display()), here.display().to_string());
    let create =
        ["create", "--name", "one", "-v", &bind, "-v", "data:/data/vol", "busybox", "sh", "-c", "cat /etc/link; cat"];
    docker(&engine, &[&create[..1], &["-i"], &create[1..]].concat());
    let inside = |arguments: &[&str]| docker(&engine, &[&["exec", "one"], arguments].concat());
    for state in ["created", "running", "exited"] {
        assert_eq!(docker(&engine, &["inspect", "-f", "{{.State.Status}}", "one"]), state);
        let tree = format!("{here}/tree");
        docker(&engine, &["cp", &tree, "one:/data/vol"]);
        docker(&engine, &["cp", &format!("{tree}/."), "one:/bound/copy"]);
        docker(&engine, &["cp", &format!("{tree}/deep/file"), &format!("one:/etc/{state}")]);
        engine.docker(["cp", "-", "one:/tmp"]).input(docker_tar(&engine, "one:/data/vol/tree")).ok();
        for (from, to) in
            [("/data/vol/tree", "volume"), ("/bound/sub/../copy/", "bound"), ("/tmp/tree", "piped"), ("/bin", "image")]
        {
            let to = format!("{here}/{state}-{to}");
            docker(&engine, &["cp", &format!("one:{from}"), &to]);
            if from == "/bin" {
                assert!(Path::new(&to).join("busybox").is_file());
            } else {
                assert_eq!(std::fs::read_to_string(format!("{to}/deep/file")).unwrap(), "from here", "{state} {from}");
                assert_eq!(std::fs::read_link(format!("{to}/link")).unwrap(), Path::new("deep/file"));
            }
        }
        assert_eq!(std::fs::read_to_string(bound.join("copy/deep/file")).unwrap(), "from here");
        assert!(docker(&engine, &["volume", "inspect", "-f", "{{.Mountpoint}}", "data"]).contains("data"));
        match state {
            "created" => drop(docker(&engine, &["start", "one"])),
            "running" => {
                assert_eq!(inside(&["cat", "/etc/created", "/tmp/tree/deep/file"]), "from herefrom here");
                docker(&engine, &["kill", "one"]);
            }
            _ => {}
        }
    }
    engine.finish();
}

/// What `docker cp FROM -` writes.
fn docker_tar(engine: &Engine, from: &str) -> Vec<u8> {
    engine.docker(["cp", from, "-"]).run().expect_code(0).stdout
}

/// Who still sends when the refusal comes reads it, and goes on over the same connection.
#[test]
fn a_refused_upload_is_read_to_its_end() {
    let engine = Engine::with_busybox();
    docker(&engine, &["create", "--name", "one", "--read-only", "busybox", "true"]);
    let mut stream = UnixStream::connect(engine.socket()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let length = 100_000;
    let head = "PUT /v1.40/containers/one/archive?path=/etc HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-tar";
    write!(stream, "{head}\r\nContent-Length: {length}\r\n\r\n0123456789").unwrap();
    let mut answer = read_until(&mut stream, "marked read-only\"}\n");
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    stream.write_all(&vec![0; length - 10]).unwrap();
    stream.write_all(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    answer = read_until(&mut stream, "OK");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    engine.finish();
}

#[test]
fn what_cannot_be_copied_is_said_in_dockers_words() {
    let engine = Engine::with_busybox();
    let file = engine.host().files().join("file");
    std::fs::write(&file, "x").unwrap();
    let file = file.to_str().unwrap();
    docker(
        &engine,
        &[
            "run",
            "-d",
            "--name",
            "one",
            "--read-only",
            "-v",
            "data:/data",
            "-v",
            "data:/fixed:ro",
            "busybox",
            "sleep",
            "600",
        ],
    );
    docker(&engine, &["create", "--name", "two", "--read-only", "-v", "data:/data", "busybox", "true"]);
    for name in ["one", "two"] {
        let gone = engine.docker(["cp", &format!("{name}:/none/x"), "-"]).fails(1);
        assert!(gone.contains(&format!("Could not find the file /none/x in container {name}")), "{gone}");
        let read_only = engine.docker(["cp", file, &format!("{name}:/etc/x")]).fails(1);
        assert!(read_only.contains("container rootfs is marked read-only"), "{read_only}");
        docker(&engine, &["cp", file, &format!("{name}:/data/x")]);
    }
    let fixed = engine.docker(["cp", file, "one:/fixed/y"]).fails(1);
    assert!(fixed.contains("mounted volume is marked read-only"), "{fixed}");
    let directory = engine.docker(["cp", "one:/etc", file]).fails(1);
    assert!(directory.contains("cannot copy directory"), "{directory}");
    let nobody = engine.docker(["cp", "nobody:/etc", "-"]).fails(1);
    assert!(nobody.contains("No such container: nobody"), "{nobody}");
    docker(&engine, &["exec", "one", "mkdir", "/data/dir"]);
    let over = engine.docker(["cp", file, "one:/data/dir/"]).run();
    assert_eq!(over.code, 0);
    let folder = engine.host().files().join("x");
    std::fs::create_dir(&folder).unwrap();
    let kinds = engine.docker(["cp", folder.to_str().unwrap(), "one:/data"]).fails(1);
    assert!(kinds.contains("cannot overwrite non-directory with directory"), "{kinds}");
    engine.finish();
}

#[test]
fn owners_links_and_our_own_command_line() {
    let engine = Engine::with_busybox();
    let here = engine.host().files();
    std::fs::write(here.join("file"), "text").unwrap();
    let path = |name: &str| here.join(name).display().to_string();
    docker(&engine, &["run", "-d", "--name", "one", "-u", "daily", "busybox", "sleep", "600"]);
    docker(&engine, &["exec", "-u", "0", "one", "sh", "-c", "ln -s /etc/group /tmp/abs; ln -s /home /tmp/dir"]);
    docker(&engine, &["cp", "-a", &path("file"), "one:/tmp/dir/"]);
    docker(&engine, &["cp", &path("file"), "one:/tmp/dir/mine"]);
    assert_eq!(docker(&engine, &["exec", "one", "stat", "-c", "%u:%g", "/home/file", "/home/mine"]), "1000:1000\n0:0");
    docker(&engine, &["cp", "-L", "one:/tmp/abs", &path("followed")]);
    docker(&engine, &["cp", "one:/tmp/abs", &path("link")]);
    assert!(std::fs::read_to_string(path("followed")).unwrap().contains("daily"));
    assert_eq!(std::fs::read_link(path("link")).unwrap(), Path::new("/etc/group"));

    let ours = |arguments: &[&str]| engine.conex(arguments).run().expect_code(0);
    ours(&["cp", &path("file"), "one:/tmp/ours"]);
    let said = ours(&["cp", "one:/tmp/ours", &path("back")]).error_text();
    assert!(said.starts_with("Successfully copied "), "{said}");
    assert_eq!(std::fs::read_to_string(path("back")).unwrap(), "text");
    ours(&["cp", "-q", "one:/etc", &path("etc")]);
    ours(&["cp", "-q", "one:/etc/.", &path("")]);
    assert!(here.join("etc/group").is_file() && here.join("group").is_file());
    let tar = ours(&["cp", "one:/etc", "-"]).stdout;
    engine.conex(["cp", "-", "one:/home"]).input(tar).ok();
    assert!(docker(&engine, &["exec", "one", "cat", "/home/etc/group"]).contains("daily"));
    ours(&["cp", "-L", "one:/tmp/abs", &path("again")]);
    assert!(std::fs::read_to_string(path("again")).unwrap().contains("daily"));
    assert!(engine.conex(["cp", "one:/none", &path("")]).fails(1).contains("Could not find the file /none"));
    let events = events(&engine, &["--format", "{{.Action}}"]);
    assert!(events.contains("archive-path") && events.contains("extract-to-dir"), "{events}");
    engine.finish();
}

/// CVE-2026-41567: programs of the container must not be run to decompress what is put into it.
#[test]
fn nothing_of_the_container_decompresses() {
    let engine = Engine::with_busybox();
    let programs = ["xz", "unxz", "pigz", "unpigz", "gzip", "zstd", "bzip2", "tar"];
    let trap = "for name in $0 $@; do for dir in /bin /usr/bin; do rm -f $dir/$name; printf '#!/bin/busybox sh\\ntouch /canary; busybox cat\\n' > $dir/$name; chmod 755 $dir/$name; done; done; sleep 600";
    docker(&engine, &[&["run", "-d", "--name", "one", "busybox", "sh", "-c", trap][..], &programs[..]].concat());
    let tar = docker_tar(&engine, "one:/etc/group");
    for (tool, name) in [("gzip", "a"), ("xz", "b"), ("zstd", "c"), ("bzip2", "d")] {
        let packed = engine.host().program(tool).arg("-c").input(tar.clone()).run().expect_code(0).stdout;
        let to = format!("/tmp/{name}");
        docker(&engine, &["exec", "one", "mkdir", &to]);
        engine.docker(["cp", "-", &format!("one:{to}")]).input(packed).ok();
        assert!(docker(&engine, &["exec", "one", "cat", &format!("{to}/group")]).contains("daily"), "{tool}");
    }
    docker(&engine, &["exec", "one", "test", "!", "-e", "/canary"]);
    engine.finish();
}

/// Swaps a directory for a link to a folder of the host, as fast as it can (CVE-2018-15664, CVE-2021-41089).
const SWAP: &str = "while :; do mv $0 $0.d; mv $0.l $0; mv $0 $0.l; mv $0.d $0; done";

#[test]
fn a_container_that_swaps_directories_for_links_gains_nothing() {
    let engine = Engine::with_busybox();
    let secret = engine.host().files().join("secret");
    std::fs::create_dir(&secret).unwrap();
    std::fs::write(secret.join("file"), "canary").unwrap();
    let mode = |path: &Path| std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(path).unwrap().permissions());
    let before = mode(&secret);
    let script =
        format!("mkdir -p /t/a; echo inside > /t/a/file; ln -s {} /t/a.l; touch /ready; {SWAP}", secret.display());
    docker(&engine, &["run", "-d", "--name", "one", "busybox", "sh", "-c", &script, "/t/a"]);
    docker(&engine, &["exec", "one", "sh", "-c", "until [ -e /ready ]; do :; done"]);
    let tree = engine.host().files().join("a");
    std::fs::create_dir(&tree).unwrap();
    std::fs::write(tree.join("planted"), "x").unwrap();
    for round in 0..40 {
        let out = engine.conex(["cp", if round % 2 == 0 { "one:/t/a/file" } else { "one:/t/a/." }, "-"]).run();
        assert!(!out.stdout.windows(6).any(|bytes| bytes == b"canary"), "the host's file was read");
        // Whether it succeeds is up to the moment; where it goes is not.
        engine.conex(["cp", &format!("{}/.", tree.display()), "one:/t/a/"]).run();
        engine.conex(["cp", tree.to_str().unwrap(), "one:/t"]).run();
    }
    let names: Vec<_> = std::fs::read_dir(&secret).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["file"], "something was made on the host");
    assert_eq!(mode(&secret), before, "the host's folder has another mode");
    engine.finish();
}

/// CVE-2026-41568, CVE-2026-42306: a volume in a volume, whose place another container swaps for a link.
#[test]
fn a_volume_is_not_mounted_through_a_swapped_link() {
    let engine = Engine::with_busybox();
    let outside = engine.host().files().join("outside");
    std::fs::create_dir(&outside).unwrap();
    let script = format!("mkdir -p /a/b; ln -s {} /a/b.l; touch /ready; {SWAP}", outside.display());
    docker(&engine, &["run", "-d", "--name", "swapper", "-v", "outer:/a", "busybox", "sh", "-c", &script, "/a/b"]);
    docker(&engine, &["exec", "swapper", "sh", "-c", "until [ -e /ready ]; do :; done"]);
    docker(&engine, &["create", "--name", "one", "-v", "outer:/a", "-v", "inner:/a/b", "busybox", "true"]);
    let file = engine.host().files().join("file");
    std::fs::write(&file, "x").unwrap();
    for _ in 0..20 {
        engine.conex(["cp", file.to_str().unwrap(), "one:/a/b/"]).run();
        engine.conex(["cp", "one:/a", "-"]).run();
    }
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0, "something was made on the host");
    let mounts = std::fs::read_to_string(format!("/proc/{}/mountinfo", engine.pid())).unwrap();
    assert!(!mounts.contains(outside.to_str().unwrap()), "something is mounted on the host: {mounts}");
    engine.finish();
}
