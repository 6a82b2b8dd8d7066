//! Building images, through the classic builder's API.

use std::path::{Path, PathBuf};

use harness::Engine;

/// A folder with these files: `path`, contents.
pub(crate) fn folder(engine: &Engine, name: &str, files: &[(&str, &str)]) -> PathBuf {
    let folder = engine.host().files().join(name);
    std::fs::create_dir_all(&folder).unwrap();
    for (path, text) in files {
        let path = folder.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    folder
}

fn build(engine: &Engine, folder: &Path, arguments: &[&str]) -> harness::Output {
    let folder = folder.to_str().unwrap();
    let all = ["build"].iter().chain(arguments).copied().chain([folder]);
    engine.docker(all).env("DOCKER_BUILDKIT", "0").run()
}

fn built(engine: &Engine, folder: &Path, arguments: &[&str]) -> String {
    build(engine, folder, arguments).expect_code(0).text()
}

pub(crate) fn run(engine: &Engine, arguments: &[&str]) -> String {
    engine.docker(["run", "--rm"].iter().chain(arguments)).ok()
}

pub(crate) fn inspect(engine: &Engine, image: &str, format: &str) -> String {
    engine.docker(["image", "inspect", "-f", format, image]).ok()
}

#[test]
fn every_instruction_reaches_the_image() {
    let engine = Engine::with_busybox();
    let dockerfile = "ARG BASE=busybox\nFROM $BASE\nARG WHO=world\nENV GREETING=\"hello $WHO\" B=2\nLABEL a=1 \"b c\"=\"$GREETING\"\n\
                      WORKDIR /srv\nWORKDIR app\nCOPY --chown=daily:extra --chmod=640 hello.txt ./\nRUN echo \"$GREETING from $WHO\" > made && id -u >> made\n\
                      USER 1000\nRUN id -u > /tmp/user\nEXPOSE 80 53/udp\nVOLUME /data\nSTOPSIGNAL SIGINT\nSHELL [\"/bin/sh\", \"-e\", \"-c\"]\n\
                      HEALTHCHECK --interval=5s --retries=2 CMD true\nONBUILD RUN echo triggered > /tmp/trigger\nENTRYPOINT [\"cat\"]\nCMD [\"made\"]\n";
    let context = folder(&engine, "all", &[("Dockerfile", dockerfile), ("hello.txt", "hi\n")]);
    let text = built(&engine, &context, &["-t", "made:1", "--build-arg", "WHO=you", "--label", "given=yes"]);
    assert!(text.contains("Step 1/18 : FROM busybox") && text.contains("Successfully tagged made:1"), "{text}");
    assert_eq!(run(&engine, &["made:1"]), "hello you from you\n0");
    assert_eq!(run(&engine, &["--entrypoint", "stat", "made:1", "-c", "%u:%g %a", "hello.txt"]), "1000:50000 640");
    assert_eq!(run(&engine, &["--entrypoint", "cat", "made:1", "/tmp/user"]), "1000");
    let config = inspect(&engine, "made:1", "{{json .Config}}");
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["WorkingDir"], "/srv/app");
    assert_eq!(config["Labels"]["b c"], "hello you");
    assert_eq!(config["Labels"]["given"], "yes");
    assert_eq!(config["ExposedPorts"], serde_json::json!({"53/udp": {}, "80/tcp": {}}));
    assert_eq!((config["User"].as_str(), config["StopSignal"].as_str()), (Some("1000"), Some("SIGINT")));
    assert_eq!(config["Healthcheck"]["Test"], serde_json::json!(["CMD-SHELL", "true"]));
    assert_eq!(config["OnBuild"], serde_json::json!(["RUN echo triggered > /tmp/trigger"]));
    let history = engine.docker(["history", "--no-trunc", "--format", "{{.CreatedBy}}", "made:1"]).ok();
    assert!(history.contains("RUN |1 WHO=you /bin/sh -c id -u > /tmp/user # buildkit"), "{history}");
    let child = folder(&engine, "child", &[("Dockerfile", "FROM made:1\n")]);
    built(&engine, &child, &["-t", "child"]);
    assert_eq!(run(&engine, &["child", "/tmp/trigger"]), "triggered");
    engine.finish();
}

#[test]
fn stages_are_built_only_when_needed() {
    let engine = Engine::with_busybox();
    let dockerfile = "FROM busybox AS one\nRUN mkdir -p /out/sub && echo 1 > /out/a && echo 2 > /out/sub/b && ln -s a /out/link && chown daily /out/a\n\
                      FROM busybox AS broken\nRUN exit 9\nFROM scratch AS files\nCOPY --from=one /out /\nFROM busybox\nCOPY --from=files / /got/\n\
                      COPY --from=one /out/link /followed\nCOPY --from=busybox /etc/pass* /etc/group /copied/\nFROM broken AS late\n";
    let context = folder(&engine, "stages", &[("Dockerfile", dockerfile)]);
    let text = built(&engine, &context, &["-t", "multi", "--target", "3"]);
    assert!(!text.contains("exit 9"), "{text}");
    let listing = run(
        &engine,
        &["multi", "sh", "-c", "cd /got && find . | sort | tr '\\n' ' ' && cat sub/b link /followed && stat -c %u a"],
    );
    assert_eq!(listing, ". ./a ./link ./sub ./sub/b 2\n1\n1\n1000");
    assert_eq!(run(&engine, &["multi", "ls", "/copied"]), "group\npasswd");
    let failed = build(&engine, &context, &["-t", "x"]).expect_code(9);
    assert!(failed.error_text().contains("The command '/bin/sh -c exit 9' returned a non-zero code: 9"), "{failed:?}");
    let missing = build(&engine, &context, &["--target", "fils"]).expect_code(1);
    assert!(
        missing.error_text().contains("target stage \"fils\" could not be found (did you mean files?)"),
        "{missing:?}"
    );
    engine.finish();
}

#[test]
fn the_cache_knows_contents_and_survives_the_engine() {
    let mut engine = Engine::with_busybox();
    let dockerfile = "FROM busybox\nCOPY a /a\nRUN cat /proc/sys/kernel/random/uuid > /id\nCOPY b /b\n";
    let context = folder(&engine, "cache", &[("Dockerfile", dockerfile), ("a", "1"), ("b", "1")]);
    let hits = |text: &str| text.matches("Using cache").count();
    assert_eq!(hits(&built(&engine, &context, &["-t", "first"])), 0);
    let id = run(&engine, &["first", "cat", "/id"]);
    // Another time of the file changes nothing, other contents do.
    std::fs::write(context.join("a"), "1").unwrap();
    assert_eq!(hits(&built(&engine, &context, &["-t", "second"])), 3);
    std::fs::write(context.join("b"), "2").unwrap();
    assert_eq!(hits(&built(&engine, &context, &["-t", "third"])), 2);
    assert_eq!(run(&engine, &["third", "cat", "/id"]), id);
    engine.kill();
    engine.launch();
    engine.docker(["rmi", "-f", "first", "second", "third"]).ok();
    assert_eq!(hits(&built(&engine, &context, &["-t", "again"])), 3);
    assert_eq!(run(&engine, &["again", "cat", "/id"]), id);
    assert_eq!(hits(&built(&engine, &context, &["-t", "fresh", "--no-cache"])), 0);
    assert_ne!(run(&engine, &["fresh", "cat", "/id"]), id);
    engine.docker(["rmi", "-f", "again", "fresh"]).ok();
    let pruned = engine.docker(["builder", "prune", "-f"]).env("DOCKER_BUILDKIT", "0").run().expect_code(0).text();
    assert!(pruned.contains("Total reclaimed space:"), "{pruned}");
    assert_eq!(hits(&built(&engine, &context, &["-t", "last"])), 0);
    engine.finish();
}

#[test]
fn steps_without_a_layer_say_that_they_were_done_before() {
    let engine = Engine::with_busybox();
    let dockerfile = "FROM busybox\nENV A=1\nRUN true\nCMD [\"x\"]\n";
    let context = folder(&engine, "configured", &[("Dockerfile", dockerfile)]);
    let hits = |arguments: &[&str]| built(&engine, &context, arguments).matches("Using cache").count();
    assert_eq!([hits(&["-t", "one"]), hits(&["-t", "two"]), hits(&["--no-cache"])], [0, 3, 0]);
    assert_eq!(hits(&["--cache-from", "two"]), 3);
    assert_eq!(hits(&["--cache-from", "busybox"]), 0);
    std::fs::write(context.join("Dockerfile"), dockerfile.replace("CMD", "ENTRYPOINT")).unwrap();
    assert_eq!(hits(&[]), 2);
    engine.docker(["builder", "prune", "-af"]).env("DOCKER_BUILDKIT", "0").ok();
    engine.docker(["rmi", "-f", "one", "two"]).ok();
    engine.finish();
}

#[test]
fn the_same_inputs_give_the_same_image() {
    let engine = Engine::with_busybox();
    let dockerfile = "FROM busybox\nARG SOURCE_DATE_EPOCH\nWORKDIR /new/dir\nCOPY . .\nENV A=b\n";
    let context = folder(&engine, "same", &[("Dockerfile", dockerfile), ("x/y", "1"), ("z", "2")]);
    let build = |name: &str| {
        let argument = "SOURCE_DATE_EPOCH=1700000000";
        built(&engine, &context, &["-t", name, "--no-cache", "--build-arg", argument]);
        inspect(&engine, name, "{{.Id}} {{.Created}}")
    };
    let first = build("one");
    std::fs::write(context.join("z"), "2").unwrap();
    assert_eq!(build("two"), first);
    assert!(first.ends_with("2023-11-14T22:13:20Z"), "{first}");
    engine.finish();
}

#[test]
fn copies_follow_dockers_rules() {
    let engine = Engine::with_busybox();
    let dockerfile = "FROM busybox\nRUN ln -s /usr/local /linked && mkdir -p /usr/local /kept && chmod 700 /kept && chown 7:8 /kept\n\
                      COPY dir /into\nCOPY dir/f1 /linked/renamed\nCOPY dir/*.txt dir/f1 /several/\nCOPY dir /kept/\nADD packed.tar.gz /unpacked/\n\
                      ADD notes.txt /notes\nCOPY --parents dir/sub/deep.txt /parents/\nCOPY --exclude=*.txt --exclude=sub dir /excluded/\n\
                      COPY <<one <<\"two\" /docs/\nHOME is $HOME and $PATHLESS.\none\n$HOME\ntwo\n\
                      RUN --mount=type=tmpfs,target=/t --mount=type=cache,target=/c --network=none touch /t/x && echo cached >> /c/n && wc -l < /c/n > /count && ls /sys/class/net > /nets\n\
                      RUN <<EOF\nset -e\necho script > /script\nEOF\n";
    let context = folder(
        &engine,
        "copy",
        &[
            ("Dockerfile", dockerfile),
            (".dockerignore", "secret\nDockerfile\n.dockerignore\npacked\n"),
            ("dir/f1", "f1"),
            ("dir/a.txt", "a"),
            ("dir/b.txt", "b"),
            ("dir/sub/deep.txt", "deep"),
            ("secret", "hidden"),
            ("notes.txt", "plain"),
            ("packed/in/it", "packed"),
        ],
    );
    let archive = context.join("packed.tar.gz");
    let folder = context.join("packed");
    engine.host().program("tar").args(["-czf", archive.to_str().unwrap(), "-C", folder.to_str().unwrap(), "in"]).ok();
    built(&engine, &context, &["-t", "copied"]);
    let shell = |script: &str| run(&engine, &["copied", "sh", "-c", script]);
    assert_eq!(shell("cd /into && find . -type f | sort | xargs"), "./a.txt ./b.txt ./f1 ./sub/deep.txt");
    assert_eq!(shell("cat /usr/local/renamed; test -L /linked && ls /several | xargs"), "f1a.txt b.txt f1");
    assert_eq!(shell("stat -c '%a %u:%g' /kept && cat /kept/sub/deep.txt"), "700 7:8\ndeep");
    assert_eq!(shell("cat /unpacked/in/it /notes /parents/dir/sub/deep.txt && ls /excluded"), "packedplaindeepf1");
    assert_eq!(shell("cat /docs/one /docs/two"), "HOME is  and .\n$HOME");
    assert_eq!(shell("cat /count /nets /script; ls -d /t /c 2>/dev/null | wc -l"), "1\nlo\nscript\n0");
    let all = self::folder(&engine, "copy", &[("All", "FROM busybox\nCOPY . /all/\n")]);
    built(&engine, &all, &["-t", "all", "-f", all.join("All").to_str().unwrap()]);
    assert_eq!(run(&engine, &["all", "ls", "-A", "/all"]), "All\ndir\nnotes.txt\npacked.tar.gz");
    engine.finish();
}

/// A file outside of the context, which no build may see.
const CANARY: &str = "the canary sings";

#[test]
fn nothing_outside_the_context_is_reached() {
    let engine = Engine::with_busybox();
    let outside = engine.host().files().join("canary");
    std::fs::write(&outside, CANARY).unwrap();
    let context = folder(&engine, "escape", &[("inside/x", "mine"), ("etc/passwd", "the context's own")]);
    for (link, target) in
        [("up", "../canary"), ("far", outside.to_str().unwrap()), ("root", "/"), ("host", "/etc/passwd")]
    {
        std::os::unix::fs::symlink(target, context.join(link)).unwrap();
    }
    let attempt = |line: &str| {
        std::fs::write(context.join("Dockerfile"), format!("FROM busybox\n{line}\n")).unwrap();
        let output = build(&engine, &context, &["-t", "attempt", "--no-cache"]);
        let found = if output.code == 0 {
            run(&engine, &["attempt", "sh", "-c", "cat /o /o/* 2>/dev/null; true"])
        } else {
            String::new()
        };
        assert!(!found.contains(CANARY) && !found.contains("daemon:x:"), "{line}: {found}");
        (output, found)
    };
    for line in ["COPY ../canary /o", "COPY inside/../../canary /o", "ADD ../canary /o"] {
        let (output, _) = attempt(line);
        assert!(output.error_text().contains("forbidden path outside the build context"), "{line}: {output:?}");
    }
    for line in ["COPY up /o", "COPY far /o"] {
        assert!(attempt(line).0.error_text().contains("file not found in build context"), "{line}");
    }
    // Absolute links mean the context, as everywhere in it.
    assert_eq!(attempt("COPY host /o").1, "the context's own");
    assert!(attempt("COPY root/inside /o").1.contains("mine"));
    // An image's links mean the image.
    let dockerfile = "FROM busybox AS trap\nRUN ln -s / /out && mkdir /d && ln -s ../../../../../../../../etc /d/etc\nFROM busybox\nCOPY --from=trap /d/etc/passwd /o\n";
    std::fs::write(context.join("Dockerfile"), dockerfile).unwrap();
    built(&engine, &context, &["-t", "trap"]);
    assert!(run(&engine, &["trap", "cat", "/o"]).contains("daily:x:1000"));
    // A destination behind a link stays in the image; a mount point behind one is nobody's but the container's.
    let dockerfile = format!(
        "FROM busybox\nRUN ln -s {0} /hole && ln -s ../../../../../../../../{0} /hole2\nRUN --mount=type=tmpfs,target=/hole/t --mount=type=cache,id=../../x,target=/hole2/c true\nCOPY inside/x /hole/x\n",
        engine.host().files().join("trapped").display()
    );
    let trapped = engine.host().files().join("trapped");
    std::fs::create_dir(&trapped).unwrap();
    std::fs::write(context.join("Dockerfile"), dockerfile).unwrap();
    build(&engine, &context, &["-t", "hole"]);
    assert_eq!(std::fs::read_dir(&trapped).unwrap().count(), 0);
    engine.finish();
}

#[test]
fn what_is_wrong_is_said() {
    let engine = Engine::with_busybox();
    let cases: &[(&str, &str)] = &[
        ("FROMM x\n", "dockerfile parse error on line 1: unknown instruction: FROMM (did you mean FROM?)"),
        (
            "FROM busybox\nCOPY none /x\n",
            "COPY failed: file not found in build context or excluded by .dockerignore: stat none",
        ),
        ("FROM busybox\nCOPY none* /x\n", "COPY failed: no source files were specified"),
        ("FROM busybox\nCOPY Dockerfile Dockerfile /x\n", "must be a directory and end with a /"),
        ("FROM busybox\nCOPY Dockerfile /etc/passwd/x\n", "cannot copy to non-directory: /etc/passwd"),
        ("FROM busybox\nCOPY --chown=nobody2 Dockerfile /x\n", "can't find uid for nobody2"),
        ("FROM busybox\nCOPY --chmod=9 Dockerfile /x\n", "invalid chmod parameter: '9'"),
        ("FROM busybox\nADD http://127.0.0.1:1/x /x\n", "Get \"http://127.0.0.1:1/x\""),
        ("FROM busybox\nRUN --security=insecure true\n", "security.insecure is not allowed"),
        ("FROM busybox\nRUN --mount=type=secret,id=key,required=true true\n", "secret key: not found"),
        ("FROM busybox\nRUN --network=host true\n", "network.host is not allowed"),
        ("FROM 127.0.0.1:1/none:such\n", "127.0.0.1:1"),
        ("FROM busybox\nUSER ${X:?is missing}\n", "X: is missing"),
        ("FROM busybox\nCOPY --from=later x y\nFROM busybox AS later\n", "needs to be defined before current stage"),
    ];
    for (dockerfile, message) in cases {
        let context = folder(&engine, "wrong", &[("Dockerfile", dockerfile)]);
        let output = build(&engine, &context, &[if dockerfile.contains("later") { "--target=0" } else { "-q" }]);
        assert!(output.error_text().contains(message), "{dockerfile}: {output:?}");
    }
    let quiet = folder(&engine, "wrong", &[("Dockerfile", "FROM busybox\nRUN true\n")]);
    let id = built(&engine, &quiet, &["-q"]);
    assert_eq!(inspect(&engine, &id, "{{.Id}}"), id);
    assert_eq!(engine.docker(["ps", "-aq"]).ok(), "");
    engine.finish();
}
