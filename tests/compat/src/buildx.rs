//! BuildKit's face, as Docker's own clients use it: `docker build`, buildx, bake and Compose.

use std::path::{Path, PathBuf};

use harness::{Engine, EngineOptions, Host, Program, unpacked};

use crate::build::{folder, run};
use crate::registry_server::{RegistryServer, Settings};

/// `docker` with the plugin buildx on this engine.
pub(crate) fn docker<'a>(engine: &Engine, arguments: impl IntoIterator<Item = &'a str>) -> Program {
    with_buildx(engine.host(), engine.docker(arguments))
}

/// The client with its plugin buildx, on whichever engine.
pub(crate) fn with_buildx(host: &Host, client: Program) -> Program {
    let config = host.files().join("docker-config");
    let plugins = config.join("cli-plugins");
    if !plugins.exists() {
        std::fs::create_dir_all(&plugins).unwrap();
        std::os::unix::fs::symlink(unpacked("CONEX_BUILDX", "buildx/docker-buildx"), plugins.join("docker-buildx"))
            .unwrap();
    }
    client.env("DOCKER_CONFIG", config.to_str().unwrap()).env("DOCKER_BUILDKIT", "1")
}

pub(crate) fn build(engine: &Engine, folder: &Path, arguments: &[&str]) -> harness::Output {
    let folder = folder.to_str().unwrap();
    let all = ["build", "--progress=plain"].iter().chain(arguments).copied().chain([folder]);
    docker(engine, all).run()
}

/// What was told while it was built.
pub(crate) fn built(engine: &Engine, folder: &Path, arguments: &[&str]) -> String {
    let output = build(engine, folder, arguments).expect_code(0);
    output.error_text() + &output.text()
}

#[test]
fn a_file_becomes_an_image() {
    let engine = Engine::with_busybox();
    let context =
        folder(&engine, "first", &[("Dockerfile", "FROM scratch\nCOPY a /b\n"), ("a", "hello\n"), ("c", "unused")]);
    let text = built(&engine, &context, &["-t", "first"]);
    assert!(text.contains("[1/1] COPY a /b"), "{text}");
    assert!(text.contains("naming to docker.io/library/first"), "{text}");
    let layers = engine.docker(["image", "inspect", "-f", "{{len .RootFS.Layers}} {{.Id}}", "first"]).ok();
    assert!(layers.starts_with("1 sha256:"), "{layers}");
    // The same again is the same image, and nothing is sent.
    let again = built(&engine, &context, &["-t", "again"]);
    assert!(again.contains("CACHED"), "{again}");
    assert_eq!(engine.docker(["image", "inspect", "-f", "1 {{.Id}}", "again"]).ok(), layers);
    engine.finish();
}

#[test]
fn stages_arguments_mounts_and_secrets() {
    let engine = Engine::with_busybox();
    let dockerfile = "# syntax=docker/dockerfile:1\nARG BASE=busybox\nFROM $BASE AS one\nARG WHO=nobody\nRUN echo \"$WHO\" > /who\n\
        FROM busybox AS two\nRUN --mount=type=cache,target=/cache echo x >> /cache/n && wc -l < /cache/n > /count\n\
        FROM busybox AS broken\nRUN exit 9\n\
        FROM busybox\nCOPY --from=one /who /who\nCOPY --from=two /count /count\nCOPY --link --chmod=750 --chown=daily:extra files /srv/\n\
        RUN --mount=type=secret,id=key,required=true --mount=type=secret,id=word,env=WORD sha256sum < /run/secrets/key | cut -c1-8 > /sum; echo ${#WORD} >> /sum\n\
        RUN --mount=type=bind,source=files,target=/ctx --mount=type=bind,from=one,source=/who,target=/w cat /ctx/a /w > /bound; touch /ctx/x 2>/dev/null || echo ro >> /bound\n\
        RUN --mount=type=bind,source=files,target=/ctx,rw touch /ctx/x && ls /ctx | xargs > /rw\n\
        RUN --mount=type=tmpfs,target=/t --network=none ls /sys/class/net > /nets\n\
        RUN <<EOF\n#!/bin/sh -e\necho interpreted > /script\nEOF\n\
        COPY --from=extra note /note\nLABEL a=b\n";
    let context = folder(
        &engine,
        "wide",
        &[
            ("Dockerfile", dockerfile),
            ("files/a", "bound\n"),
            ("files/ignored", "no"),
            (".dockerignore", "**/ignored\n"),
        ],
    );
    let extra = folder(&engine, "extra", &[("note", "named\n")]);
    let key = engine.host().files().join("key");
    std::fs::write(&key, SECRET).unwrap();
    let extra = format!("extra={}", extra.display());
    let key = format!("id=key,src={}", key.display());
    let arguments = [
        "-t",
        "wide",
        "--build-arg",
        "WHO=you",
        "--label",
        "given=yes",
        "--build-context",
        &extra,
        "--secret",
        &key,
        "--secret",
        "id=word,env=WORD",
    ];
    let whole = context.to_str().unwrap();
    let all = ["build", "--progress=plain"].iter().chain(&arguments).copied().chain([whole]);
    let output = docker(&engine, all).env("WORD", SECRET).run().expect_code(0);
    let text = output.error_text() + &output.text();
    assert!(!text.contains("exit 9") && !text.contains(SECRET), "{text}");
    let shell = |script: &str| run(&engine, &["wide", "sh", "-c", script]);
    assert_eq!(shell("cat /who /count /note /script /nets"), "you\n1\nnamed\ninterpreted\nlo");
    assert_eq!(shell("stat -c '%a %u:%g' /srv/a; ls /srv"), "750 1000:50000\na");
    assert_eq!(
        shell("sed -n 2p /sum; cat /bound /rw; ls -d /ctx /t /run/secrets 2>/dev/null | wc -l"),
        "23\nbound\nyou\nro\na x\n0"
    );
    let labels = engine.docker(["image", "inspect", "-f", "{{json .Config.Labels}}", "wide"]).ok();
    assert_eq!(labels, r#"{"a":"b","given":"yes"}"#);
    // The secret is nowhere: in no layer, no configuration, no record, no log.
    assert_eq!(finds(engine.host().scratch(), SECRET, &["files"]), Vec::<PathBuf>::new());
    let failed = build(&engine, &context, &["--target", "broken"]).expect_code(1);
    let words = "process \"/bin/sh -c exit 9\" did not complete successfully: exit code: 9";
    assert!(failed.error_text().contains(words), "{failed:?}");
    let missing = build(&engine, &context, &["--build-context", &extra]).expect_code(1);
    assert!(missing.error_text().contains("secret key: not found"), "{missing:?}");
    engine.finish();
}

const SECRET: &str = "the-canary-is-in-a-cage";

/// Files below a folder that contain a text.
fn finds(folder: &Path, text: &str, without: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        if without.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        if kind.is_dir() {
            found.extend(finds(&path, text, without));
        } else if kind.is_file() {
            let bytes = std::fs::read(&path).unwrap_or_default();
            if bytes.windows(text.len()).any(|window| window == text.as_bytes()) {
                found.push(path);
            }
        }
    }
    found
}

#[test]
fn results_go_where_the_client_wants_them() {
    let engine = Engine::with_busybox();
    let dockerfile = "FROM busybox AS made\nRUN mkdir -p /out/sub && echo 1 > /out/a && ln -s a /out/link && chmod 640 /out/a && echo 2 > /out/sub/b\n\
                      FROM scratch\nCOPY --from=made /out /\n";
    let context = folder(&engine, "outputs", &[("Dockerfile", dockerfile)]);
    let files = engine.host().files().to_owned();
    let path = |name: &str| files.join(name).display().to_string();
    built(&engine, &context, &["--output", &path("local")]);
    assert_eq!(std::fs::read_to_string(files.join("local/sub/b")).unwrap(), "2\n");
    assert_eq!(std::fs::read_link(files.join("local/link")).unwrap(), Path::new("a"));
    built(&engine, &context, &["--output", &format!("type=tar,dest={}", path("out.tar"))]);
    let listed = engine.host().program("tar").args(["-tf", &path("out.tar")]).ok();
    assert_eq!(listed.lines().collect::<Vec<_>>(), ["a", "link", "sub/", "sub/b"], "{listed}");
    for kind in ["oci", "docker"] {
        let file = path(&format!("{kind}.tar"));
        built(&engine, &context, &["-t", &format!("made:{kind}"), "--output", &format!("type={kind},dest={file}")]);
        assert!(engine.docker(["load", "-q", "-i", &file]).ok().contains(&format!("made:{kind}")));
    }
    let (id, metadata) = (path("id"), path("metadata.json"));
    built(&engine, &context, &["-t", "named", "--iidfile", &id, "--metadata-file", &metadata]);
    let image = engine.docker(["image", "inspect", "-f", "{{.Id}}", "named"]).ok();
    assert_eq!(std::fs::read_to_string(&id).unwrap(), image);
    assert!(std::fs::read_to_string(&metadata).unwrap().contains(&image));
    // Nothing was stored for what went elsewhere.
    assert_eq!(engine.docker(["images", "-q", "--filter", "dangling=true"]).ok(), "");
    engine.finish();
}

#[test]
fn only_what_changed_is_sent() {
    let engine = Engine::with_busybox();
    let big = "x".repeat(3 << 20);
    let context =
        folder(&engine, "large", &[("Dockerfile", "FROM busybox\nCOPY . /all/\n"), ("big", &big), ("small", "1")]);
    let sent = |text: &str| {
        let line =
            text.lines().rev().find(|line| line.contains("transferring context:")).unwrap_or_default().to_owned();
        line.split("transferring context:")
            .nth(1)
            .unwrap_or_default()
            .split_whitespace()
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    let first = built(&engine, &context, &["-t", "large"]);
    assert!(sent(&first).ends_with("MB"), "{first}");
    std::fs::write(context.join("small"), "22").unwrap();
    let second = built(&engine, &context, &["-t", "large"]);
    assert!(sent(&second).ends_with('B') && !sent(&second).ends_with("MB"), "{second}");
    assert_eq!(run(&engine, &["large", "sh", "-c", "cat /all/small; wc -c < /all/big"]), format!("22{}", big.len()));
    std::fs::remove_file(context.join("big")).unwrap();
    built(&engine, &context, &["-t", "large"]);
    assert_eq!(run(&engine, &["large", "ls", "/all"]), "Dockerfile\nsmall");
    engine.finish();
}

#[test]
fn bake_compose_and_the_cache() {
    let engine = Engine::with_busybox();
    let bake = r#"group "default" { targets = ["app", "tool"] }
        target "base" {
          dockerfile-inline = "FROM busybox\nRUN echo base > /base\n"
        }
        target "app" {
          contexts = { base = "target:base" }
          dockerfile-inline = "FROM base\nRUN cp /base /app\n"
          tags = ["app:baked"]
        }
        target "tool" {
          dockerfile-inline = "FROM busybox\nRUN echo tool > /tool\n"
          tags = ["tool:baked"]
        }
    "#;
    let context = folder(&engine, "bake", &[("docker-bake.hcl", bake)]);
    let file = context.join("docker-bake.hcl").display().to_string();
    docker(&engine, ["buildx", "bake", "--progress=plain", "-f", &file]).ok();
    assert_eq!(run(&engine, &["app:baked", "cat", "/app"]), "base");
    assert_eq!(run(&engine, &["tool:baked", "cat", "/tool"]), "tool");
    let usage = docker(&engine, ["buildx", "du"]).ok();
    assert!(usage.contains("Total:"), "{usage}");
    let yaml = "services:\n  web:\n    image: web:composed\n    build:\n      context: .\n      dockerfile_inline: |\n        FROM busybox\n        ARG A\n        RUN echo $$A > /a\n      args: { A: composed }\n";
    let project = folder(&engine, "project", &[("compose.yaml", yaml)]);
    let program = engine.host().program(crate::compose::compose_program());
    let composed =
        program.env("DOCKER_HOST", engine.address()).arg("-f").arg(project.join("compose.yaml")).arg("build").run();
    composed.expect_code(0);
    assert_eq!(run(&engine, &["web:composed", "cat", "/a"]), "composed");
    engine.docker(["rmi", "-f", "app:baked", "tool:baked", "web:composed"]).ok();
    let pruned = docker(&engine, ["buildx", "prune", "-af"]).ok();
    assert!(pruned.contains("Total:"), "{pruned}");
    assert_eq!(docker(&engine, ["buildx", "du"]).ok().lines().count(), 2, "all is gone");
    engine.finish();
}

#[test]
fn what_a_build_may_is_what_the_user_allows() {
    let engine = Engine::with_busybox();
    let line = "FROM busybox\nRUN --network=host ls /sys/class/net | xargs > /nets\nRUN --network=none ls /sys/class/net | xargs > /none\n";
    let context = folder(&engine, "network", &[("Dockerfile", line)]);
    let refused = build(&engine, &context, &[]).expect_code(1);
    assert!(refused.error_text().contains("network.host is not allowed"), "{refused:?}");
    built(&engine, &context, &["--allow", "network.host", "-t", "nets"]);
    let found = run(&engine, &["nets", "cat", "/nets", "/none"]);
    let (host, none) = found.split_once('\n').unwrap();
    assert!(none == "lo" && host != "lo" && host.contains("lo"), "{found}");
    let insecure = folder(&engine, "insecure", &[("Dockerfile", "FROM busybox\nRUN --security=insecure id\n")]);
    for arguments in [&[][..], &["--allow", "security.insecure"]] {
        let refused = build(&engine, &insecure, arguments).expect_code(1);
        assert!(refused.error_text().contains("security.insecure"), "{refused:?}");
    }
    engine.finish();
}

#[test]
fn the_cache_is_listed_and_pruned_by_filters() {
    let engine = Engine::with_busybox();
    let lines =
        "FROM busybox\nRUN echo one > /one\nRUN --mount=type=cache,target=/c echo two > /c/two; echo two > /two\n";
    let context = folder(&engine, "filters", &[("Dockerfile", lines)]);
    built(&engine, &context, &["-t", "filters"]);
    let usage = |filter: &str| {
        let all = docker(&engine, ["buildx", "du", "--verbose", "--filter", filter]).ok();
        all.lines().filter(|line| line.starts_with("ID:")).count()
    };
    assert_eq!((usage("type=exec.cachemount"), usage("type=regular")), (1, 2));
    docker(&engine, ["buildx", "prune", "-af", "--filter", "type=exec.cachemount"]).ok();
    assert_eq!((usage("type=exec.cachemount"), usage("type=regular")), (0, 2));
    engine.docker(["rmi", "filters"]).ok();
    docker(&engine, ["buildx", "prune", "-f", "--filter", "until=24h"]).ok();
    assert_eq!(usage("type=regular"), 2, "nothing is that old");
    docker(&engine, ["buildx", "prune", "-af", "--keep-storage", "100MB"]).ok();
    assert_eq!(usage("type=regular"), 2, "it fits");
    docker(&engine, ["buildx", "prune", "-af"]).ok();
    assert_eq!(usage("type=regular"), 0);
    engine.finish();
}

#[test]
fn images_that_were_built_are_read_in_their_registry() {
    let (engine, registry) = crate::registry_server::engine_and_registry();
    let context = folder(&engine, "pushed", &[("Dockerfile", "FROM busybox\nCOPY Dockerfile /x\n")]);
    let name = registry.name("built/image:1");
    built(&engine, &context, &["-t", &name]);
    let pushed = engine.docker(["push", &name]).ok();
    let seen = docker(&engine, ["buildx", "imagetools", "inspect", &name]).ok();
    let digest = seen.lines().find_map(|line| line.strip_prefix("Digest:")).unwrap_or_default().trim().to_owned();
    assert!(digest.starts_with("sha256:") && pushed.contains(&digest), "{seen}\n{pushed}");
    let copy = registry.name("built/copy:2");
    docker(&engine, ["buildx", "imagetools", "create", "-t", &copy, &name]).ok();
    engine.docker(["pull", "-q", &copy]).ok();
    assert_eq!(run(&engine, &[&copy, "head", "-1", "/x"]), "FROM busybox");
    drop(registry);
    engine.finish();
}

#[test]
fn an_agent_is_lent_for_one_command() {
    let engine = Engine::with_busybox();
    let dockerfile = "FROM busybox\nRUN --mount=type=ssh,required=true test -S $SSH_AUTH_SOCK && stat -c %a $SSH_AUTH_SOCK > /mode\n\
                      RUN test -z \"$SSH_AUTH_SOCK\"\n";
    let context = folder(&engine, "ssh", &[("Dockerfile", dockerfile)]);
    let missing = build(&engine, &context, &[]).expect_code(1);
    assert!(missing.error_text().contains("no SSH key \"default\" forwarded"), "{missing:?}");
    let socket = engine.host().files().join("agent").display().to_string();
    let mut agent = engine.host().program("ssh-agent").args(["-D", "-a", &socket]).into_command().spawn().unwrap();
    let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !Path::new(&socket).exists() && std::time::Instant::now() < end {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let output = build(&engine, &context, &["-t", "lent", "--ssh", &format!("default={socket}")]);
    agent.kill().unwrap();
    agent.wait().unwrap();
    output.expect_code(0);
    assert_eq!(run(&engine, &["lent", "cat", "/mode"]), "600");
    assert_eq!(run(&engine, &["lent", "sh", "-c", "ls -d /run/buildkit 2>/dev/null | wc -l"]), "0");
    engine.finish();
}

#[test]
fn a_private_base_is_fetched_with_the_clients_password() {
    let host = Host::new();
    let registry = RegistryServer::start(&host, Settings::with_password(&host));
    let engine = Engine::start_in(host, EngineOptions::default());
    engine.import_busybox();
    let name = registry.name("private/base:1");
    let login = ["login", "-u", "user", "--password-stdin", &registry.address];
    engine.docker(login).input("secret").ok();
    engine.docker(["tag", "busybox", &name]).ok();
    engine.docker(["push", "-q", &name]).ok();
    engine.docker(["rmi", &name]).ok();
    let context = folder(&engine, "private", &[("Dockerfile", &format!("FROM {name}\nCOPY Dockerfile /x\n"))]);
    // Another user's client, which knows no password; then it does, and is asked for it.
    let refused = build(&engine, &context, &["-t", "private"]).expect_code(1);
    assert!(refused.error_text().contains("no basic auth credentials"), "{refused:?}");
    docker(&engine, login).input("secret").ok();
    built(&engine, &context, &["-t", "private"]);
    assert_eq!(run(&engine, &["private", "head", "-c", "4", "/x"]), "FROM");
    assert_eq!(
        finds(&engine.root_folder(), "dXNlcjpzZWNyZXQ", &[]),
        Vec::<PathBuf>::new(),
        "a password is kept nowhere"
    );
    drop(registry);
    engine.finish();
}

#[test]
fn an_agent_signs_for_a_command() {
    let engine = Engine::with_busybox();
    let dockerfile = "FROM busybox\nCOPY tools /\nCOPY key.pub /\n\
                      RUN --mount=type=ssh ssh-add -l > /keys && ssh-add -T /key.pub && echo signed > /signed\n";
    let context = folder(&engine, "signing", &[("Dockerfile", dockerfile)]);
    copy_with_libraries(&engine, "/usr/bin/ssh-add", &context.join("tools"));
    let files = engine.host().files();
    let (key, socket) = (files.join("key").display().to_string(), files.join("signer").display().to_string());
    engine.host().program("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", &key]).ok();
    std::fs::copy(format!("{key}.pub"), context.join("key.pub")).unwrap();
    let mut agent = engine.host().program("ssh-agent").args(["-D", "-a", &socket]).into_command();
    let mut agent = agent.stdout(std::process::Stdio::null()).spawn().unwrap();
    let add = || engine.host().program("ssh-add").args(["-q", &key]).env("SSH_AUTH_SOCK", &socket).run().code == 0;
    let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !add() && std::time::Instant::now() < end {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let output = build(&engine, &context, &["-t", "signed", "--ssh", &format!("default={socket}")]);
    agent.kill().unwrap();
    agent.wait().unwrap();
    output.expect_code(0);
    let found = run(&engine, &["signed", "cat", "/keys", "/signed"]);
    assert!(found.contains("ED25519") && found.ends_with("signed"), "{found}");
    engine.finish();
}

/// Copies a program of this machine below a folder, as `/bin/NAME`, and its libraries to where it looks for them.
fn copy_with_libraries(engine: &Engine, program: &str, folder: &Path) {
    let name = program.rsplit('/').next().unwrap();
    let listed = engine.host().program("ldd").arg(program).ok();
    let libraries = listed.split_whitespace().filter(|word| word.starts_with('/')).map(|path| (path, path.to_owned()));
    for (from, to) in libraries.chain([(program, format!("/bin/{name}"))]) {
        let to = folder.join(to.trim_start_matches('/'));
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(from, to).unwrap();
    }
}
