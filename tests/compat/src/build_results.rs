//! What comes out of a build besides an image: files with what is attested about them, generators of SBOMs, several platforms; and who waits
//! for whom.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use harness::{Engine, Output};
use serde_json::Value;

use crate::build::{folder, run};
use crate::buildx::{build, built};
use crate::waits::wait_until;

fn conex(engine: &Engine, folder: &Path, arguments: &[&str]) -> Output {
    engine.conex(["build", "--progress=plain"].iter().chain(arguments)).arg(folder).run().expect_code(0)
}

fn json(path: &Path) -> Value {
    let text = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).unwrap()
}

/// The digest that a statement gives of a file.
fn digest_of(statement: &Value, name: &str) -> Option<String> {
    let subject = statement["subject"].as_array()?.iter().find(|subject| subject["name"] == name)?;
    subject["digest"]["sha256"].as_str().map(str::to_owned)
}

fn unpacked(archive: &Path) -> PathBuf {
    let folder = archive.with_extension("folder");
    std::fs::create_dir_all(&folder).unwrap();
    let tar = std::process::Command::new("tar").arg("-C").arg(&folder).arg("-xf").arg(archive).status();
    assert!(tar.unwrap().success());
    folder
}

#[test]
fn statements_stand_beside_the_files_that_they_are_about() {
    let engine = Engine::with_busybox();
    let lines = "FROM scratch\nCOPY a b /\nCOPY status /var/lib/dpkg/status\n";
    let status = "Package: libc6\nStatus: install ok installed\nVersion: 2.41\nArchitecture: amd64\n";
    let files = [("Dockerfile", lines), ("a", "one\n"), ("b/c", "two\n"), ("status", status)];
    let context = folder(&engine, "stated", &files);
    let out = |name: &str| engine.host().files().join(name);
    let check = |folder: &Path, prefix: &str| {
        let provenance = json(&folder.join(format!("{prefix}provenance.json")));
        assert_eq!(provenance["predicateType"], "https://slsa.dev/provenance/v0.2");
        assert_eq!(digest_of(&provenance, "a").as_deref(), Some(oci::Digest::of(b"one\n").hex().as_str()));
        let sbom = json(&folder.join(format!("{prefix}sbom.spdx.json")));
        assert_eq!(sbom["predicate"]["packages"][0]["name"], "libc6");
        assert!(digest_of(&sbom, "var/lib/dpkg/status").is_some() && digest_of(&sbom, "sbom.spdx.json").is_none());
        assert_eq!(std::fs::read_to_string(folder.join("a")).unwrap(), "one\n");
    };
    for client in ["buildx", "conex"] {
        let make = |output: String| {
            let arguments = ["--sbom=true", "--provenance=mode=max", "--output", &output];
            match client {
                "buildx" => drop(built(&engine, &context, &arguments)),
                _ => drop(conex(&engine, &context, &arguments)),
            }
        };
        let local = out(&format!("{client}-local"));
        make(format!("type=local,dest={},attestation-prefix=p-", local.display()));
        check(&local, "p-");
        let tar = out(&format!("{client}.tar"));
        make(format!("type=tar,dest={}", tar.display()));
        check(&unpacked(&tar), "");
        // One platform may have a folder as well.
        let split = out(&format!("{client}-split"));
        make(format!("type=local,dest={},platform-split=true", split.display()));
        let own = std::fs::read_dir(&split).unwrap().flatten().next().unwrap().path();
        assert!(own.file_name().unwrap().to_str().unwrap().starts_with("linux_"));
        check(&own, "");
    }
    // No statement takes the place of a file.
    std::fs::write(context.join("Dockerfile"), "FROM scratch\nCOPY a /provenance.json\n").unwrap();
    let local = format!("type=local,dest={}", out("taken").display());
    let refused = build(&engine, &context, &["--provenance=true", "--output", &local]).expect_code(1);
    assert!(refused.error_text().contains("duplicate attestation path name provenance.json"), "{refused:?}");
    engine.finish();
}

#[test]
fn a_generator_looks_at_what_was_built() {
    let engine = Engine::with_busybox();
    let script = "set -e\nname=$(cat $BUILDKIT_SCAN_SOURCE/name)\ntouch /tmp/scratch\n! touch $BUILDKIT_SCAN_SOURCE/x 2>/dev/null\n\
        echo '{\"_type\":\"https://in-toto.io/Statement/v0.1\",\"predicateType\":\"https://spdx.dev/Document\",\"subject\":[],\"predicate\":{\"name\":\"'$name'\"}}' \
        > ${BUILDKIT_SCAN_DESTINATION}sbom.spdx.json\n";
    let scanner = folder(
        &engine,
        "scanner",
        &[
            ("Dockerfile", "FROM busybox\nCOPY scan /\nUSER 1000\nENTRYPOINT [\"sh\"]\nCMD [\"/scan\"]\n"),
            ("scan", script),
        ],
    );
    conex(&engine, &scanner, &["-t", "example/scanner:1"]);
    let context = folder(&engine, "scanned", &[("Dockerfile", "FROM scratch\nCOPY name /name\n"), ("name", "found\n")]);
    for (number, option) in
        ["--sbom=generator=example/scanner:1", "--attest=type=sbom,generator=example/scanner:1"].iter().enumerate()
    {
        let out = engine.host().files().join(format!("scanned-{number}"));
        let output = format!("type=local,dest={}", out.display());
        let text = match number {
            0 => built(&engine, &context, &[option, "--output", &output]),
            _ => conex(&engine, &context, &[option, "--output", &output]).text(),
        };
        assert!(text.contains("generating sbom using example/scanner:1"), "{text}");
        assert_eq!(json(&out.join("sbom.spdx.json"))["predicate"]["name"], "found");
    }
    for (script, word) in [
        ("exit 3", "ended with exit code 3"),
        ("true", "found nothing to say"),
        ("echo x > /run/out/x", "is no statement"),
    ] {
        std::fs::write(scanner.join("scan"), script).unwrap();
        conex(&engine, &scanner, &["-t", "example/scanner:1"]);
        let failed =
            engine.conex(["build", "--sbom=generator=example/scanner:1", "-o", "/tmp/none"]).arg(&context).run();
        let text = failed.text() + &failed.error_text();
        assert!(failed.code != 0 && text.contains(word), "{text}");
    }
    engine.finish();
}

#[test]
fn platforms_are_built_side_by_side_and_go_into_folders() {
    let engine = Engine::with_busybox();
    // Each platform's command waits for the other's: one after the other they would never end.
    let lines = "FROM scratch\nARG TARGETARCH\nCOPY busybox /bin/\nCOPY busybox /bin/sh\n\
        RUN --mount=type=cache,target=/c,sharing=shared busybox touch /c/$TARGETARCH; \
        for i in $(busybox seq 600); do [ -e /c/amd64 ] && [ -e /c/386 ] && busybox echo $TARGETARCH > /arch && exit 0; busybox sleep 0.1; done; exit 1\n";
    if !cfg!(target_arch = "x86_64") {
        return;
    }
    let context = folder(&engine, "beside", &[("Dockerfile", lines)]);
    std::fs::copy("/bin/busybox", context.join("busybox")).unwrap();
    let files = engine.host().files();
    let platforms = ["--platform", "linux/amd64,linux/386", "--provenance=true"];
    let with = |make: &dyn Fn(&[&str]), output: String| make(&[&platforms[..], &["--output", &output]].concat());
    let ours = |arguments: &[&str]| drop(conex(&engine, &context, arguments));
    let theirs = |arguments: &[&str]| drop(built(&engine, &context, arguments));
    let check = |folder: &Path| {
        for arch in ["amd64", "386"] {
            let folder = folder.join(format!("linux_{arch}"));
            assert_eq!(std::fs::read_to_string(folder.join("arch")).unwrap(), format!("{arch}\n"));
            assert!(digest_of(&json(&folder.join("provenance.json")), "arch").is_some());
        }
    };
    with(&ours, format!("type=tar,dest={}", files.join("conex.tar").display()));
    check(&unpacked(&files.join("conex.tar")));
    with(&theirs, format!("type=tar,dest={}", files.join("buildx.tar").display()));
    check(&unpacked(&files.join("buildx.tar")));
    with(&ours, files.join("folder").display().to_string());
    check(&files.join("folder"));
    let layout = files.join("layout");
    with(&ours, format!("type=oci,tar=false,dest={}", layout.display()));
    let index = json(&layout.join("index.json"));
    let named = index["manifests"][0]["digest"].as_str().unwrap().trim_start_matches("sha256:").to_owned();
    let members = json(&layout.join("blobs/sha256").join(named));
    assert_eq!(members["manifests"].as_array().unwrap().len(), 4, "{members}");
    // The failure of one is that of all, and ends the others.
    std::fs::write(
        context.join("Dockerfile"),
        lines.replace("for i in", "[ $TARGETARCH = 386 ] && exit 5; for i in").replace("/c,", "/c,id=other,"),
    )
    .unwrap();
    let failed = engine.conex(["build", "--progress=plain", "--platform", "linux/amd64,linux/386"]).arg(&context).run();
    assert_eq!(failed.code, 5, "{failed:?}");
    engine.finish();
}

#[test]
fn a_generator_looks_at_stages_and_the_context_where_the_dockerfile_says() {
    let engine = Engine::with_busybox();
    let script = "set -e\nfor place in $BUILDKIT_SCAN_SOURCE ${BUILDKIT_SCAN_SOURCE_EXTRAS:+$BUILDKIT_SCAN_SOURCE_EXTRAS/*}; do\n\
        echo '{\"predicateType\":\"https://spdx.dev/Document\",\"predicate\":{\"files\":\"'$(ls $place)'\"}}' \
        > $BUILDKIT_SCAN_DESTINATION/$(basename $place).spdx.json\n! touch $place/x 2>/dev/null\ndone\n";
    let scanner = folder(
        &engine,
        "extra-scanner",
        &[("Dockerfile", "FROM busybox\nCOPY scan /\nENTRYPOINT [\"sh\", \"/scan\"]\n"), ("scan", script)],
    );
    conex(&engine, &scanner, &["-t", "example/scanner:2"]);
    let lines = "ARG BUILDKIT_SBOM_SCAN_STAGE=tools\nFROM scratch AS tools\nCOPY tool /\nFROM scratch AS unseen\nCOPY unseen /\n\
        FROM scratch AS unneeded\nARG BUILDKIT_SBOM_SCAN_STAGE=true\nCOPY tool /\n\
        FROM scratch\nARG BUILDKIT_SBOM_SCAN_CONTEXT=true\nCOPY --from=tools /tool /\nCOPY --from=unseen /unseen /\nCOPY name /\n";
    let files = [("Dockerfile", lines), ("tool", "1"), ("unseen", "2"), ("name", "3")];
    let context = folder(&engine, "extra-scanned", &files);
    let statements = |name: &str, arguments: &[&str]| {
        let out = engine.host().files().join(name);
        let output = format!("type=local,dest={}", out.display());
        let arguments = [arguments, &["--output", &output]].concat();
        if name.starts_with("buildx") {
            built(&engine, &context, &arguments);
        } else {
            conex(&engine, &context, &arguments);
        }
        let names = std::fs::read_dir(&out).unwrap().flatten().map(|file| file.file_name().into_string().unwrap());
        let mut names: Vec<String> =
            names.filter_map(|name| name.strip_suffix(".spdx.json").map(str::to_owned)).collect();
        names.sort();
        (out, names)
    };
    let all = ["sbom", "sbom-context", "sbom-tools"];
    for client in ["buildx", "conex"] {
        let (out, names) = statements(&format!("{client}-extras"), &["--sbom=generator=example/scanner:2"]);
        assert_eq!(names, all);
        let files = |name: &str| json(&out.join(format!("{name}.spdx.json")))["predicate"]["files"].to_string();
        assert_eq!((files("sbom"), files("sbom-tools")), ("\"name tool unseen\"".to_owned(), "\"tool\"".to_owned()));
        assert!(files("sbom-context").contains("name"), "{}", files("sbom-context"));
        // Only what is declared can be given.
        let given = ["--build-arg=BUILDKIT_SBOM_SCAN_CONTEXT=false", "--build-arg=BUILDKIT_SBOM_SCAN_STAGE=unseen"];
        let (_, names) =
            statements(&format!("{client}-given"), &[&["--sbom=generator=example/scanner:2"], &given[..]].concat());
        assert_eq!(names, ["sbom", "sbom-unseen"]);
        // The engine's own scanner does the same.
        assert_eq!(statements(&format!("{client}-own"), &["--sbom=true"]).1, all);
    }
    engine.finish();
}

#[test]
fn platforms_share_a_folder_where_their_files_do_not_meet() {
    let engine = Engine::with_busybox();
    let lines = "FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /shared/$TARGETARCH\n";
    let context = folder(&engine, "together", &[("Dockerfile", lines), ("amd64", "1\n"), ("arm64", "2\n")]);
    let files = engine.host().files();
    let words = ["--platform", "linux/amd64,linux/arm64", "--provenance=true", "--output"];
    let check = |folder: &Path| {
        for (arch, text) in [("amd64", "1\n"), ("arm64", "2\n")] {
            assert_eq!(std::fs::read_to_string(folder.join("shared").join(arch)).unwrap(), text);
            let statement = json(&folder.join(format!("provenance.linux_{arch}.json")));
            assert!(digest_of(&statement, &format!("shared/{arch}")).is_some());
        }
        assert_eq!(std::fs::read_dir(folder).unwrap().count(), 3);
    };
    for client in ["buildx", "conex"] {
        let run = |output: &str| match client {
            "buildx" => build(&engine, &context, &[&words[..], &[output]].concat()),
            _ => engine.conex(["build", "--progress=plain"].iter().chain(&words)).arg(output).arg(&context).run(),
        };
        let (folder, tar) = (files.join(format!("{client}-together")), files.join(format!("{client}-together.tar")));
        run(&format!("type=local,platform-split=false,dest={}", folder.display())).expect_code(0);
        check(&folder);
        run(&format!("type=tar,platform-split=false,dest={}", tar.display())).expect_code(0);
        check(&unpacked(&tar));
        std::fs::write(context.join("Dockerfile"), lines.replace("/shared/$TARGETARCH", "/shared/same")).unwrap();
        let none = files.join(format!("{client}-met"));
        let refused = run(&format!("type=local,platform-split=false,dest={}", none.display())).expect_code(1);
        let text = refused.text() + &refused.error_text();
        let words = "cannot overwrite shared/same from linux/amd64 with linux/arm64 when split option is disabled";
        assert!(text.contains(words), "{text}");
        std::fs::write(context.join("Dockerfile"), lines).unwrap();
    }
    engine.finish();
}

#[test]
fn a_tree_is_deeper_than_the_engine_may_have_files() {
    let engine = Engine::with_busybox();
    let context = folder(&engine, "deep", &[("Dockerfile", "FROM scratch\nCOPY tree /tree\n")]);
    let below = ["d"; 400].join("/");
    std::fs::create_dir_all(context.join("tree").join(&below)).unwrap();
    std::fs::write(context.join("tree").join(&below).join("f"), "deep\n").unwrap();
    let limit = rustix::process::Rlimit { current: Some(200), maximum: Some(200) };
    let pid = rustix::process::Pid::from_raw(engine.pid() as i32);
    rustix::process::prlimit(pid, rustix::process::Resource::Nofile, limit).unwrap();
    let out = |name: &str| engine.host().files().join(name);
    for client in ["buildx", "conex"] {
        let make = |output: String| {
            let words = ["--no-cache", "--provenance=true", "--sbom=true", "--output", &output];
            match client {
                "buildx" => drop(built(&engine, &context, &words)),
                _ => drop(conex(&engine, &context, &words)),
            }
        };
        let check = |folder: &Path| {
            let file = format!("tree/{below}/f");
            assert_eq!(std::fs::read_to_string(folder.join(&file)).unwrap(), "deep\n");
            assert!(digest_of(&json(&folder.join("provenance.json")), &file).is_some());
        };
        let (local, tar) = (out(&format!("{client}-deep")), out(&format!("{client}-deep.tar")));
        make(format!("type=local,dest={}", local.display()));
        check(&local);
        make(format!("type=tar,dest={}", tar.display()));
        check(&unpacked(&tar));
    }
    engine.finish();
}

#[test]
fn what_has_failed_waits_for_no_lock() {
    if !cfg!(target_arch = "x86_64") {
        return;
    }
    let engine = Engine::with_busybox();
    let busybox = "FROM scratch AS base\nCOPY busybox /bin/\nCOPY busybox /bin/sh\n";
    let holder = "RUN --mount=type=cache,target=/c,id=lock,sharing=locked busybox touch /c/begun; while ! [ -e /c/go ]; do busybox sleep 0.05; done\n";
    let gate = |name: &str| {
        format!(
            "--mount=type=cache,target=/g,id={name} busybox touch /g/{name}; while ! [ -e /g/go ]; do busybox sleep 0.05; done; exit 5"
        )
    };
    let waits = "--mount=type=cache,target=/c,id=lock,sharing=locked echo";
    // A platform fails while the other waits, and a stage.
    let stages = format!(
        "{busybox}FROM base AS one\nRUN {}\nFROM base AS two\nRUN {waits} waited\nFROM base\nCOPY --from=one / /1\nCOPY --from=two / /2\n",
        gate("stages")
    );
    let platforms = format!(
        "{busybox}FROM base AS b-386\nRUN {}\nFROM base AS b-amd64\nRUN {waits} waited\nFROM b-$TARGETARCH\n",
        gate("platforms")
    );
    let context = |name: &str, lines: &str| {
        let context = folder(&engine, name, &[("Dockerfile", lines)]);
        std::fs::copy("/bin/busybox", context.join("busybox")).unwrap();
        context
    };
    let mounts = engine.root_folder().join("build/mounts");
    let cache = |mark: &str| {
        std::fs::read_dir(&mounts).unwrap().flatten().map(|dir| dir.path()).find(|path| path.join(mark).exists())
    };
    let holds = context("lock-held", &format!("{busybox}{holder}"));
    let mut holding = engine.conex(["build", "--progress=plain"]).arg(&holds).into_command();
    let mut holding = holding.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_until("the lock to be held", || cache("begun").is_some());
    for (name, lines, arguments) in
        [("platforms", &platforms, &["--platform", "linux/386,linux/amd64"][..]), ("stages", &stages, &[])]
    {
        let context = context(name, lines);
        let told = engine.host().files().join(format!("{name}-told"));
        let mut client =
            engine.conex(["build", "--progress=plain"].iter().chain(arguments)).arg(&context).into_command();
        let mut client = client.stdin(Stdio::null()).stdout(std::fs::File::create(&told).unwrap()).spawn().unwrap();
        let text = || std::fs::read_to_string(&told).unwrap();
        wait_until("one to wait for the lock", || text().contains("echo waited") && cache(name).is_some());
        assert!(client.try_wait().unwrap().is_none());
        std::fs::write(cache(name).unwrap().join("go"), "").unwrap();
        assert_eq!(client.wait().unwrap().code(), Some(5), "{}", text());
        assert!(holding.try_wait().unwrap().is_none());
    }
    std::fs::write(cache("begun").unwrap().join("go"), "").unwrap();
    assert!(holding.wait().unwrap().success());
    engine.finish();
}

#[test]
fn a_cancelled_build_waits_for_no_lock() {
    let engine = Engine::with_busybox();
    let line = |more: &str| {
        format!(
            "FROM busybox\nRUN --mount=type=cache,target=/c,id=one,sharing=locked touch /c/{more}; while test ! -e /c/go; do sleep 0.05; done\n"
        )
    };
    let holds = folder(&engine, "holds", &[("Dockerfile", &line("begun"))]);
    let waits = folder(&engine, "waits", &[("Dockerfile", &line("second"))]);
    let mut holder = engine.conex(["build", "--progress=plain"]).arg(&holds).into_command();
    let mut holder = holder.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mounts = engine.root_folder().join("build/mounts");
    let cache =
        || std::fs::read_dir(&mounts).unwrap().flatten().map(|dir| dir.path()).find(|path| path.join("begun").exists());
    wait_until("the first command's begin", || cache().is_some());
    let cache = cache().unwrap();
    // The second one as a client asks for it that can end it by its name.
    let tar = std::process::Command::new("tar").arg("-C").arg(&waits).args(["-c", "."]).output().unwrap().stdout;
    let socket = engine.socket().display().to_string();
    let curl =
        |arguments: &[&str]| engine.host().program("curl").args(["-sS", "--unix-socket", &socket]).args(arguments);
    let told = engine.host().files().join("told");
    let context = engine.host().files().join("waits.tar");
    std::fs::write(&context, tar).unwrap();
    let data = format!("@{}", context.display());
    let mut client = curl(&[
        "-N",
        "-X",
        "POST",
        "-H",
        "Content-Type: application/x-tar",
        "--data-binary",
        &data,
        "http://x/build?buildid=second",
    ])
    .into_command();
    let mut client = client.stdin(Stdio::null()).stdout(std::fs::File::create(&told).unwrap()).spawn().unwrap();
    let text = || std::fs::read_to_string(&told).unwrap();
    wait_until("the second step", || text().contains("RUN --mount"));
    assert!(!cache.join("second").exists() && client.try_wait().unwrap().is_none());
    curl(&["-f", "-X", "POST", "http://x/build/cancel?id=second"]).run().expect_code(0);
    client.wait().unwrap();
    assert!(text().contains("cancelled"), "{}", text());
    // The first one has not noticed, and nobody takes the lock after it.
    assert!(holder.try_wait().unwrap().is_none());
    std::fs::write(cache.join("go"), "").unwrap();
    assert!(holder.wait().unwrap().success());
    assert!(!cache.join("second").exists());
    engine.finish();
}

#[test]
fn what_is_hashed_once_is_not_read_again() {
    use rustix::fs::inotify;
    let engine = Engine::with_busybox();
    let context = folder(&engine, "kept", &[("Dockerfile", "FROM scratch\nCOPY files /files\n"), ("files/a", "one\n")]);
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).unwrap();
    inotify::add_watch(&watch, context.join("files/a").as_os_str(), inotify::WatchFlags::OPEN).unwrap();
    let is_read = || {
        conex(&engine, &context, &["-t", "kept"]);
        rustix::io::read(&watch, &mut [0_u8; 4096]).is_ok()
    };
    assert!(is_read());
    // A file that has changed a moment ago may change again without a sign of it, so that it is read until it is older.
    wait_until("a build that does not read the file", || !is_read());
    std::fs::write(context.join("files/a"), "two\n").unwrap();
    let _ = rustix::io::read(&watch, &mut [0_u8; 4096]);
    assert!(is_read());
    assert_eq!(run_cat(&engine), "two");
    engine.finish();
}

fn run_cat(engine: &Engine) -> String {
    let upon = folder(engine, "upon", &[("Dockerfile", "FROM busybox\nCOPY --from=kept /files /files\n")]);
    conex(engine, &upon, &["-t", "shown"]);
    run(engine, &["shown", "cat", "/files/a"])
}
