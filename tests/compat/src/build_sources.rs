//! Builds whose parts come from elsewhere: registries with passwords, addresses, repositories; and what `conex build` shows of them.

use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use harness::{Engine, EngineOptions, Host, Output};
use serde_json::Value;

use crate::build::{folder, inspect, run};
use crate::buildx::docker;
use crate::fake_server::{Reply, serve};
use crate::registry_server::{RegistryServer, Settings};

const TIME_LIMIT: Duration = Duration::from_secs(30);

fn classic(engine: &Engine, arguments: &[&str]) -> Output {
    engine.docker(["build"].iter().chain(arguments)).env("DOCKER_BUILDKIT", "0").run()
}

#[test]
fn bases_are_fetched_with_the_clients_password_and_anew_where_wanted() {
    let host = Host::new();
    let registry = RegistryServer::start(&host, Settings::with_password(&host));
    let engine = Engine::start_in(host, EngineOptions::default());
    engine.import_busybox();
    let name = registry.name("base/image:1");
    let context = folder(&engine, "based", &[("Dockerfile", &format!("FROM {name}\nCOPY a /a\n")), ("a", "1")]);
    let context = context.to_str().unwrap();
    engine.docker(["login", "-u", "user", "--password-stdin", &registry.address]).input("secret").ok();
    engine.docker(["tag", "busybox", &name]).ok();
    engine.docker(["push", "-q", &name]).ok();
    engine.docker(["rmi", &name]).ok();
    let nobody = engine.docker(["build", context]).env("DOCKER_BUILDKIT", "0").env("DOCKER_CONFIG", "/does/not/exist");
    let nobody = nobody.run().expect_code(1);
    assert!(nobody.error_text().contains("no basic auth credentials"), "{nobody:?}");
    classic(&engine, &["-t", "based", context]).expect_code(0);
    assert_eq!(run(&engine, &["based", "cat", "/a"]), "1");
    // What is in the registry has changed: it is seen when it is asked for, and only then.
    let made = folder(&engine, "newer", &[("Dockerfile", "FROM busybox\nRUN echo newer > /newer\n")]);
    classic(&engine, &["-t", "newer", made.to_str().unwrap()]).expect_code(0);
    engine.docker(["tag", &name, "kept"]).ok();
    engine.docker(["tag", "newer", &name]).ok();
    engine.docker(["push", "-q", &name]).ok();
    engine.docker(["tag", "kept", &name]).ok();
    let is_newer = |arguments: &[&str]| {
        classic(&engine, &[&["-t", "again"], arguments, &[context]].concat()).expect_code(0);
        run(&engine, &["again", "sh", "-c", "test -e /newer && echo yes || echo no"])
    };
    assert_eq!((is_newer(&[]), is_newer(&["--pull"])), ("no".to_owned(), "yes".to_owned()));
    drop(registry);
    engine.finish();
}

#[test]
fn containers_stay_where_they_are_asked_to() {
    let engine = Engine::with_busybox();
    let context = folder(&engine, "stays", &[("Dockerfile", "FROM busybox\nRUN echo x > /x\n")]);
    let context = context.to_str().unwrap();
    let kept = classic(&engine, &["--rm=false", "-t", "one", context]).expect_code(0).text();
    assert!(!kept.contains("Removed intermediate container"), "{kept}");
    let containers = engine.docker(["ps", "-aq"]).ok();
    assert_eq!(containers.lines().count(), 1, "{containers}");
    engine.docker(["rm", &containers]).ok();
    let gone = classic(&engine, &["--no-cache", "-t", "two", context]).expect_code(0).text();
    assert!(gone.contains("Removed intermediate container"), "{gone}");
    assert_eq!(engine.docker(["ps", "-aq"]).ok(), "");
    engine.finish();
}

#[test]
fn files_from_addresses_are_checked_and_named_safely() {
    let engine = Engine::with_busybox();
    let changed = Arc::new(AtomicBool::new(false));
    let now = Arc::clone(&changed);
    serve("127.0.0.1:8080", move |request| match request.target.as_str() {
        "/file.txt" if now.load(Ordering::Relaxed) => Reply::Whole(200, "text/plain", b"other".to_vec()),
        "/file.txt" | "/%2e%2e" => Reply::Whole(200, "text/plain", b"hello".to_vec()),
        _ => Reply::Whole(404, "text/plain", b"no".to_vec()),
    });
    let sum = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    let build = |line: &str| {
        let context = folder(&engine, "web", &[("Dockerfile", &format!("FROM busybox\n{line}\n"))]);
        classic(&engine, &["-t", "web", context.to_str().unwrap()])
    };
    build(&format!("ADD --checksum={sum} --chmod=640 http://127.0.0.1:8080/file.txt /in/")).expect_code(0);
    assert_eq!(run(&engine, &["web", "sh", "-c", "cat /in/file.txt; stat -c ' %a' /in/file.txt"]), "hello 640");
    let again = build(&format!("ADD --checksum={sum} --chmod=640 http://127.0.0.1:8080/file.txt /in/")).expect_code(0);
    assert!(again.text().contains("Using cache"), "{again:?}");
    let wrong = build(&format!("ADD --checksum={} http://127.0.0.1:8080/file.txt /in/", sum.replace("2cf2", "0000")));
    assert!(wrong.expect_code(1).error_text().contains("digest mismatch"));
    let missing = build("ADD http://127.0.0.1:8080/none /in/").expect_code(1);
    assert!(missing.error_text().contains("404"), "{missing:?}");
    // A name that is a path stays a name.
    build("ADD http://127.0.0.1:8080/%2e%2e /in/").expect_code(0);
    let listed = run(&engine, &["web", "find", "/in", "-type", "f"]);
    assert_eq!(listed.lines().filter(|path| path.starts_with("/in/")).count(), 1, "{listed}");
    changed.store(true, Ordering::Relaxed);
    build("ADD http://127.0.0.1:8080/file.txt /in/").expect_code(0);
    assert_eq!(run(&engine, &["web", "cat", "/in/file.txt"]), "other");
    engine.finish();
}

/// `git daemon` over a folder; it ends with the value.
pub(crate) struct GitServer(Child);

impl GitServer {
    /// Serves every repository below a folder.
    pub(crate) fn start(host: &Host, folder: &Path) -> GitServer {
        let base = format!("--base-path={}", folder.display());
        // Not by `git daemon`, which would be its parent.
        let program = Path::new(&host.program("git").arg("--exec-path").ok()).join("git-daemon");
        let arguments = ["--export-all", "--listen=127.0.0.1", "--port=9418", &base];
        let mut command = host.program(program).args(arguments).into_command();
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let end = Instant::now() + TIME_LIMIT;
        while TcpStream::connect("127.0.0.1:9418").is_err() {
            assert!(child.try_wait().unwrap().is_none() && Instant::now() < end, "git daemon does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        GitServer(child)
    }
}

impl Drop for GitServer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs git in a folder, as somebody who has no configuration.
pub(crate) fn git(host: &Host, folder: &Path, arguments: &[&str]) {
    let who = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main"];
    host.program("git").arg("-C").arg(folder).args(who).args(arguments).env("HOME", "/nonexistent").ok();
}

#[test]
fn repositories_are_contexts_and_nothing_more() {
    let engine = Engine::with_busybox();
    let canary = engine.host().files().join("canary");
    std::fs::write(&canary, "the canary sings").unwrap();
    let work = folder(
        &engine,
        "served/work",
        &[
            ("Dockerfile", "FROM busybox\nCOPY . /all/\n"),
            ("below/Dockerfile", "FROM busybox\nCOPY f /f\n"),
            ("below/f", "main"),
        ],
    );
    std::os::unix::fs::symlink(engine.host().files(), work.join("out")).unwrap();
    let host = engine.host();
    git(host, &work, &["init", "-q"]);
    git(host, &work, &["add", "."]);
    git(host, &work, &["commit", "-qm", "one"]);
    git(host, &work, &["tag", "v1"]);
    std::fs::write(work.join("below/f"), "later").unwrap();
    git(host, &work, &["commit", "-qam", "two"]);
    let server = GitServer::start(host, &engine.host().files().join("served"));
    let url = "git://127.0.0.1/work/.git";
    // Docker's classic client clones by itself.
    let built = |address: &str| engine.conex(["build", "--progress=plain", "-t", "cloned", address]).run();
    built(url).expect_code(0);
    assert_eq!(
        run(&engine, &["cloned", "sh", "-c", "cat /all/below/f; test -e /all/.git || echo ' bare'"]),
        "later bare"
    );
    built(&format!("{url}#v1:below")).expect_code(0);
    assert_eq!(run(&engine, &["cloned", "cat", "/f"]), "main");
    let added = format!("FROM busybox\nADD {url}#v1 /plain\nADD --keep-git-dir=true {url}#main /whole\n");
    let context = folder(&engine, "adds", &[("Dockerfile", &added)]);
    built(context.to_str().unwrap()).expect_code(0);
    let script = "cat /plain/below/f /whole/below/f; ls -d /plain/.git /whole/.git 2>/dev/null; true";
    assert_eq!(run(&engine, &["cloned", "sh", "-c", script]), "mainlater/whole/.git");
    // Nothing in an address is an option, a program, or a way out.
    let files = engine.host().files();
    let attempts = [
        format!("{url}#main:../.."),
        format!("{url}#main:out"),
        format!("{url}#--upload-pack=touch {}/pwned", files.display()),
        format!("{url}#main:below/../../.."),
        format!("git://-oProxyCommand=touch${{IFS}}{}/pwned/x.git", files.display()),
        format!("ext::sh -c touch% {}/pwned .git", files.display()),
        format!("file://{}/served/work/.git", files.display()),
    ];
    for address in attempts {
        let path = format!("/build?t=attempt&remote={}", encoded(&address));
        let output = engine.host().program("curl").args(["-sS", "-X", "POST", "--unix-socket"]);
        let output = output.arg(engine.socket()).arg(format!("http://x{path}")).run();
        let text = output.text();
        assert!(text.contains("message") || text.contains("errorDetail"), "{address}: {text}");
        assert!(!text.contains("Successfully built"), "{address}: {text}");
        assert!(!files.join("pwned").exists(), "{address}");
    }
    drop(server);
    engine.finish();
}

#[test]
fn repositories_of_the_web_let_in_who_has_their_token() {
    const TOKEN: &str = "the-token-of-the-canary";
    const PLACE: &str = "127.0.0.1:8088";
    let engine = Engine::with_busybox();
    let (host, files) = (engine.host(), engine.host().files());
    let of_commit = |folder: &Path, message: &str| {
        git(host, folder, &["add", "."]);
        git(host, folder, &["commit", "-qm", message]);
        host.program("git").arg("-C").arg(folder).args(["rev-parse", "HEAD"]).ok()
    };
    let part = folder(&engine, "parts/part", &[("inside", "a part\n")]);
    git(host, &part, &["init", "-q"]);
    of_commit(&part, "part");
    let lines = "FROM busybox\nCOPY . /all\nRUN --mount=type=secret,id=word cat /run/secrets/word > /word\n";
    let private = folder(&engine, "web/private", &[("Dockerfile", lines), ("below/f", "first\n")]);
    let server = GitServer::start(host, &files.join("parts"));
    git(host, &private, &["init", "-q"]);
    git(
        host,
        &private,
        &["-c", "protocol.allow=always", "submodule", "--quiet", "add", "git://127.0.0.1/part/.git", "sub"],
    );
    let first = of_commit(&private, "one");
    std::fs::write(private.join("below/f"), "second\n").unwrap();
    of_commit(&private, "two");
    git(host, &private, &["update-server-info"]);
    // A server of files, as any of the web: it gives no single commits.
    let root = files.join("web");
    let wanted = format!("basic {}", STANDARD.encode(format!("x-access-token:{TOKEN}")));
    serve(PLACE, move |request| {
        if request.authorization != wanted {
            return Reply::Whole(401, "text/plain", b"who is that?".to_vec());
        }
        let path = request.target.split('?').next().unwrap_or_default().trim_start_matches('/');
        match std::fs::read(root.join(path)) {
            Ok(bytes) => Reply::Whole(200, "text/plain", bytes),
            Err(_) => Reply::Whole(404, "text/plain", b"no".to_vec()),
        }
    });
    let url = format!("http://{PLACE}/private/.git");
    for (name, text) in [("token", TOKEN), ("wrong", "another"), ("word", "spoken\n")] {
        std::fs::write(files.join(name), text).unwrap();
    }
    let secret = |id: &str, file: &str| format!("--secret=id={id},src={}", files.join(file).display());
    let script = "cat /all/below/f /all/sub/inside /word; test -e /all/.git || echo bare";
    // A context of its own, by BuildKit's client.
    let words = ["build", "--progress=plain", "-t", "private"];
    let by_docker =
        |secrets: &[&str]| docker(&engine, words.iter().chain(secrets).copied().chain([url.as_str()])).run();
    let built = by_docker(&[
        &secret("GIT_AUTH_TOKEN.127.0.0.1:8088", "token"),
        &secret("GIT_AUTH_TOKEN", "wrong"),
        &secret("word", "word"),
    ]);
    let told = built.expect_code(0);
    assert!(!(told.text() + &told.error_text()).contains(TOKEN));
    assert_eq!(run(&engine, &["private", "sh", "-c", script]), "second\na part\nspoken\nbare");
    // A part of an image, at one commit, by ours.
    let added = format!("FROM busybox\nADD {url}#{first}:below /in\nADD --keep-git-dir=true {url}#{first} /whole\n");
    let context = folder(&engine, "adds-private", &[("Dockerfile", &added)]);
    let by_conex = |secrets: &[&str]| engine.conex(words.iter().chain(secrets)).arg(&context).run();
    by_conex(&[&secret("GIT_AUTH_TOKEN", "token")]).expect_code(0);
    assert_eq!(
        run(&engine, &["private", "sh", "-c", "cat /in/f /whole/below/f; ls -d /whole/.git"]),
        "first\nfirst\n/whole/.git"
    );
    let config = run(&engine, &["private", "cat", "/whole/.git/config"]);
    assert!(!config.contains("extraheader") && !config.contains(TOKEN), "{config}");
    std::fs::write(context.join("Dockerfile"), added.replace("/in", "/other")).unwrap();
    for secrets in [vec![], vec![secret("GIT_AUTH_TOKEN", "wrong")]] {
        let secrets: Vec<&str> = secrets.iter().map(String::as_str).collect();
        for refused in [by_conex(&secrets), by_docker(&secrets)] {
            let refused = refused.expect_code(1);
            assert!((refused.text() + &refused.error_text()).contains("git fetch failed"), "{refused:?}");
        }
    }
    drop(server);
    engine.finish();
}

/// Text as it stands in a query.
fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[test]
fn two_engines_make_the_same_image() {
    let dockerfile = "FROM busybox AS one\nRUN mkdir /made && date > /made/time && date > /kept && rm /made/time\nCOPY a b/c /in/\n\
                      FROM busybox\nARG SOURCE_DATE_EPOCH\nWORKDIR /w/x\nCOPY --from=one /made /made\nADD --chmod=600 a /a\nRUN touch /w/y && ln /w/y /w/z\nENV A=b\n";
    let shared = tempfile::tempdir().unwrap();
    let base = shared.path().join("busybox.tar");
    let build = || {
        let engine = Engine::start();
        // The same base for both: one that is imported has the time of its import.
        if base.exists() {
            engine.docker(["load", "-i", base.to_str().unwrap()]).ok();
        } else {
            engine.import_busybox();
            engine.docker(["save", "-o", base.to_str().unwrap(), "busybox"]).ok();
        }
        let context = folder(&engine, "same", &[("Dockerfile", dockerfile), ("a", "1"), ("b/c", "2")]);
        let arguments = ["-t", "same", "--build-arg", "SOURCE_DATE_EPOCH=1700000000", context.to_str().unwrap()];
        let by_steps = engine.conex(["build"].iter().chain(&arguments)).run().expect_code(0);
        let ids = inspect(&engine, "same", "{{.Id}} {{.RootFS.Layers}} {{.Created}}");
        classic(&engine, &[&["--no-cache"], &arguments[..]].concat()).expect_code(0);
        assert_eq!(inspect(&engine, "same", "{{.Id}} {{.RootFS.Layers}} {{.Created}}"), ids, "{by_steps:?}");
        let times = run(&engine, &["same", "stat", "-c", "%Y", "/w/y", "/w/x", "/made", "/a"]);
        assert!(times.lines().all(|time| time == "1700000000"), "{times}");
        // On nothing as well: its root has no time and no owner of this engine's.
        let bare = folder(&engine, "bare", &[("Dockerfile", "FROM scratch\nCOPY a /a\n"), ("a", "1")]);
        let arguments = ["-t", "bare", "--build-arg", "SOURCE_DATE_EPOCH=1700000000", bare.to_str().unwrap()];
        engine.conex(["build"].iter().chain(&arguments)).ok();
        let ids = format!("{} {ids}", inspect(&engine, "bare", "{{.Id}}"));
        engine.finish();
        ids
    };
    let first = build();
    assert!(first.ends_with("2023-11-14T22:13:20Z"), "{first}");
    assert_eq!(build(), first);
}

#[test]
fn why_a_step_ran_is_said() {
    let engine = Engine::with_busybox();
    let dockerfile = "FROM busybox AS one\nCOPY a dir /one/\nRUN cat /one/a > /b\nFROM busybox AS two\nARG WHO=x\nRUN echo made by $WHO\n\
                      RUN echo $WHO > /who\nFROM busybox\nCOPY --from=one /b /b\nCOPY --from=two /who /who\nENV A=b\n";
    let context =
        folder(&engine, "why", &[("Dockerfile", dockerfile), ("a", "1"), ("dir/kept", "1"), ("dir/old", "1")]);
    // The engine reads the folder where it is: this file could not be sent.
    std::fs::File::create(context.join("huge")).unwrap().set_len(1 << 42).unwrap();
    let conex = |arguments: &[&str]| {
        engine
            .conex(
                ["build", "--why", "--progress=plain", "-t", "why"]
                    .iter()
                    .chain(arguments)
                    .chain(&[context.to_str().unwrap()]),
            )
            .run()
    };
    let built = |arguments: &[&str]| conex(arguments).expect_code(0).text();
    // What follows a step, by a word of its title.
    let of = |text: &str, title: &str| {
        let step = text.lines().find(|line| line.contains(title)).unwrap_or_else(|| panic!("{title}: {text}"));
        let number = format!("{} ", step.split(' ').next().unwrap());
        let told = text.lines().filter(|line| line.starts_with(&number)).skip(1);
        told.map(|line| line[number.len()..].to_owned()).collect::<Vec<_>>().join("\n")
    };
    let first = built(&[]);
    assert!(of(&first, "COPY a dir").contains("ran because it has not run before"), "{first}");
    assert!(of(&first, "RUN echo made").contains("| made by x"), "{first}");
    assert!(of(&first, "RUN echo $WHO").contains("DONE "), "{first}");
    let second = built(&[]);
    assert!(!second.contains("ran because") && of(&second, "RUN cat").starts_with("CACHED"), "{second}");
    assert!(second.contains("Successfully tagged why:latest"), "{second}");
    std::fs::write(context.join("a"), "2").unwrap();
    std::fs::remove_file(context.join("dir/old")).unwrap();
    let third = built(&[]);
    let reasons = of(&third, "COPY a dir");
    assert!(reasons.contains("a changed") && reasons.contains("old is gone"), "{third}");
    assert!(!reasons.contains("kept"), "{third}");
    assert!(of(&third, "RUN cat").contains("ran because the step before changed"), "{third}");
    assert!(of(&third, "RUN echo $WHO").starts_with("CACHED"), "{third}");
    assert!(of(&third, "COPY --from=one").contains("the files copied from changed"), "{third}");
    let fourth = built(&["--build-arg", "WHO=y"]);
    assert!(of(&fourth, "RUN echo made").contains("ran because the environment changed"), "{fourth}");
    // As documents, one a line.
    let output = engine.conex(["build", "--progress=json", "-t", "why", context.to_str().unwrap()]).run();
    let text = output.expect_code(0).text();
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let count = |kind: &str| events.iter().filter(|event| event["Event"] == kind).count();
    assert!(count("Begin") > 8 && count("Begin") == count("End"), "{text}");
    assert!(count("Cached") > 3, "{text}");
    let last = events.last().unwrap();
    assert_eq!(
        (last["Event"].as_str(), last["Id"].as_str()),
        (Some("Built"), Some(inspect(&engine, "why", "{{.Id}}").as_str()))
    );
    engine.finish();
}

#[test]
fn our_own_command_line_has_what_dockers_has() {
    let engine = Engine::with_busybox();
    let files = engine.host().files();
    std::fs::write(files.join("key"), "the-canary-is-in-a-cage").unwrap();
    let dockerfile = "FROM busybox AS a\nRUN --mount=type=secret,id=key wc -c < /run/secrets/key > /size\nCOPY --from=extra note /note\n\
                      COPY --from=base /etc/group /group\nRUN exit 7\nFROM a AS b\n";
    let context = folder(&engine, "own", &[("sub/Dockerfile", dockerfile), (".dockerignore", "x\n")]);
    let extra = folder(&engine, "extra", &[("note", "named")]);
    let secret = format!("id=key,src={}", files.join("key").display());
    let contexts = [format!("extra={}", extra.display()), "base=docker-image://busybox".to_owned()];
    let dockerfile = context.join("sub/Dockerfile");
    let arguments = [
        "build",
        "--progress=plain",
        "--secret",
        &secret,
        "--build-context",
        &contexts[0],
        "--build-context",
        &contexts[1],
        "-f",
    ];
    let failed = engine.conex(arguments).arg(&dockerfile).arg(&context).run();
    let (code, text) = (failed.code, failed.text() + &failed.error_text());
    assert_eq!(code, 7, "{text}");
    assert!(
        text.contains("FAILED") && text.contains("The command '/bin/sh -c exit 7' returned a non-zero code: 7"),
        "{text}"
    );
    let whole = std::fs::read_to_string(&dockerfile).unwrap().replace("RUN exit 7\n", "");
    // From elsewhere, and from standard input: the folder stays the same.
    std::fs::write(files.join("Elsewhere"), &whole).unwrap();
    engine.conex(arguments).arg(files.join("Elsewhere")).args(["-t", "own"]).arg(&context).ok();
    assert_eq!(
        run(&engine, &["own", "sh", "-c", "cat /size /note; grep -c . /group >/dev/null && echo ' group'"]),
        "23\nnamed group"
    );
    engine.conex(arguments).arg("-").args(["-t", "own2"]).arg(&context).input(whole).ok();
    assert_eq!(inspect(&engine, "own2", "{{.Id}}"), inspect(&engine, "own", "{{.Id}}"));
    let unknown = engine.conex(["build", "--frobnicate"]).arg(&context).run();
    assert!(unknown.code != 0 && unknown.error_text().contains("--frobnicate"), "{unknown:?}");
    let log = engine.log();
    assert!(!log.contains("canary"), "{log}");
    engine.finish();
}
