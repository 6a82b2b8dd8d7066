//! Published attacks on builders, and a daemon that dies while it builds.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use harness::{Engine, Output};

use crate::build::folder;

/// Kills in every run of the tests; `CONEX_BUILD_KILLS=200` for more.
const KILLS: u64 = 5;
/// The last moment of a build at which it is killed, roughly its length.
const LATEST_MS: u64 = 1500;
const TIME_LIMIT: Duration = Duration::from_secs(30);
const CANARY: &str = "the canary sings";

fn conex(engine: &Engine, folder: &Path, arguments: &[&str]) -> Output {
    engine.conex(["build", "--progress=plain"].iter().chain(arguments)).arg(folder).run()
}

fn all(output: &Output) -> String {
    output.text() + &output.error_text()
}

/// CVE-2024-1753, CVE-2024-9407, CVE-2024-9675, CVE-2024-11218, CVE-2024-23651, CVE-2024-23652: what a mount of RUN begins and ends at.
#[test]
fn mounts_of_commands_stay_inside() {
    let engine = Engine::with_busybox();
    let host = engine.host().files();
    std::fs::write(host.join("canary"), CANARY).unwrap();
    let up = format!("{}{}", "../".repeat(12), host.display());
    let dockerfile = format!(
        "FROM busybox AS trap\nRUN ln -s / /root-link && ln -s {up} /up && ln -s {0} /far && mkdir /seed && ln -s {0} /seed/link\n\
         FROM busybox\n\
         RUN --mount=type=bind,from=trap,source=/root-link,target=/m ls -a /m > /listed; test ! -e /m{0}/canary\n\
         RUN --mount=type=cache,from=trap,source=/seed,target=/c test ! -e /c/link/canary && echo x > /c/x\n\
         RUN --mount=type=cache,id=../../../../{0}/pwned,target=/c echo y > /c/y\n\
         RUN --mount=type=cache,id=shared,target=/c rm -rf /c/sub && ln -s {0} /c/sub\n\
         RUN --mount=type=cache,id=shared,target=/c test ! -e /c/sub/canary\n\
         RUN ln -s {0} /stub && ln -s {up} /stub2\n\
         RUN --mount=type=tmpfs,target=/stub/t true || true\n\
         RUN --mount=type=cache,target=/stub2/c true || true\n",
        host.display()
    );
    let context = folder(&engine, "trap", &[("Dockerfile", &dockerfile), ("f", "1")]);
    let before = names(&host);
    let output = conex(&engine, &context, &["-t", "trapped"]);
    assert!(!all(&output).contains(CANARY), "{output:?}");
    assert_eq!(names(&host), before, "{output:?}");
    assert_eq!(std::fs::read_to_string(host.join("canary")).unwrap(), CANARY);
    for source in ["/up", "/far", "/up/canary", "../../canary"] {
        let line = format!(
            "FROM busybox AS trap\nRUN ln -s {up} /up && ln -s {} /far\nFROM busybox\nRUN --mount=type=bind,from=trap,source={source},target=/m cat /m /m/canary\n",
            host.display()
        );
        let context = folder(&engine, "trap", &[("Dockerfile", &line)]);
        let output = conex(&engine, &context, &[]);
        assert!(output.code != 0 && !all(&output).contains(CANARY), "{source}: {output:?}");
    }
    engine.finish();
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).unwrap().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// CVE-2024-23653: no build is privileged, whoever asks in whichever way.
#[test]
fn no_build_is_privileged() {
    let engine = Engine::with_busybox();
    let context = folder(&engine, "privileged", &[("Dockerfile", "FROM busybox\nRUN --security=insecure id\n")]);
    let classic = engine.docker(["build"]).arg(&context).env("DOCKER_BUILDKIT", "0").run();
    let own = conex(&engine, &context, &[]);
    for output in [classic, own] {
        assert!(output.code != 0 && all(&output).contains("security.insecure is not allowed"), "{output:?}");
    }
    let odd = folder(&engine, "odd", &[("Dockerfile", "FROM busybox\nRUN --security=everything id\n")]);
    let output = conex(&engine, &odd, &[]);
    assert!(output.code != 0 && all(&output).contains("everything"), "{output:?}");
    // What a command may do at most: not what a privileged container may.
    let line = "FROM busybox\nRUN grep CapEff /proc/self/status && ! mount -t tmpfs x /mnt && mknod /dev/x b 7 0 && ! cat /dev/x && test $(head -c 1 /proc/kcore | wc -c) = 0\n";
    let plain = folder(&engine, "plain", &[("Dockerfile", line)]);
    let output = conex(&engine, &plain, &[]).expect_code(0);
    assert!(all(&output).contains("00000000a80425fb"), "{output:?}");
    engine.finish();
}

/// CVE-2025-4953: what is mounted for a command is in no layer.
#[test]
fn what_is_mounted_is_in_no_layer() {
    let engine = Engine::with_busybox();
    let dockerfile = "FROM busybox\nRUN --mount=type=bind,source=secret,target=/m/secret --mount=type=secret,id=key --mount=type=cache,target=/m/c \
                      cat /m/secret /run/secrets/key > /m/c/kept && touch /done\n";
    let context = folder(&engine, "mounted", &[("Dockerfile", dockerfile), ("secret", CANARY)]);
    let key = engine.host().files().join("key");
    std::fs::write(&key, "a-key-in-a-cage").unwrap();
    conex(&engine, &context, &["-t", "mounted", "--secret", &format!("id=key,src={}", key.display())]).expect_code(0);
    let archive = engine.docker(["save", "mounted"]).run().expect_code(0).stdout;
    for text in [CANARY, "a-key-in-a-cage"] {
        assert!(!archive.windows(text.len()).any(|window| window == text.as_bytes()), "{text}");
    }
    let listed = engine
        .docker(["run", "--rm", "mounted", "sh", "-c", "ls /done; find /m -type f -size +0 2>/dev/null; true"])
        .ok();
    assert_eq!(listed, "/done");
    engine.finish();
}

#[test]
fn a_cache_stays_while_a_command_uses_it() {
    let engine = Engine::with_busybox();
    let line = "FROM busybox\nRUN --mount=type=cache,target=/c echo kept > /c/f && touch /c/begun && while test ! -e /c/go; do sleep 0.05; done; cat /c/f\n";
    let context = folder(&engine, "held", &[("Dockerfile", line)]);
    let build = begun(&engine, &context, "N=1");
    let mounts = engine.root_folder().join("build/mounts");
    let cache = || names(&mounts).into_iter().map(|name| mounts.join(name)).find(|path| path.join("begun").exists());
    let end = Instant::now() + TIME_LIMIT;
    let used = loop {
        assert!(Instant::now() < end, "the command does not begin");
        match cache() {
            Some(path) => break path,
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let prune = || engine.docker(["builder", "prune", "-af"]).env("DOCKER_BUILDKIT", "0").ok();
    prune();
    std::fs::write(used.join("go"), "").unwrap();
    let output = build.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.contains("| kept"), "{text}");
    assert!(used.exists());
    prune();
    assert!(!used.exists());
    engine.finish();
}

/// A build that was begun, and what it told.
fn begun(engine: &Engine, folder: &Path, number: &str) -> std::process::Child {
    let arguments = ["build", "--progress=plain", "-t", "killed", "--build-arg", number];
    let mut command = engine.conex(arguments).arg(folder).into_command();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

/// The titles of steps that ended so.
fn ended(text: &str, how: &str) -> BTreeSet<String> {
    let number = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
    let ends: BTreeSet<String> = text.lines().filter(|line| line.split(' ').nth(1) == Some(how)).map(number).collect();
    let titles = text.lines().filter(|line| line.contains(" [") && ends.contains(&number(line)));
    titles.filter_map(|line| Some(line.split_once(' ')?.1.to_owned())).collect()
}

#[test]
fn a_daemon_killed_in_the_middle_of_builds_keeps_what_was_finished() {
    let kills = std::env::var("CONEX_BUILD_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(KILLS);
    let mut engine = Engine::with_busybox();
    let dockerfile = "FROM busybox AS one\nARG N\nRUN echo $N > /one && dd if=/dev/urandom of=/noise bs=1M count=4 2>/dev/null\nRUN sleep 0.2; cp /one /two\n\
                      FROM busybox AS two\nARG N\nCOPY big /big\nRUN --mount=type=cache,target=/cache echo $N >> /cache/n; sleep 0.1; echo $N > /three\n\
                      FROM busybox\nARG N\nCOPY --from=one /two /noise /\nCOPY --from=two /three /big /\nRUN echo $N > /four\n";
    let context = folder(&engine, "killed", &[("Dockerfile", dockerfile), ("big", &"x".repeat(2 << 20))]);
    for round in 0..kills {
        let number = format!("N={round}");
        let build = begun(&engine, &context, &number);
        // No condition to wait for: the moment is what is tried.
        std::thread::sleep(Duration::from_millis(round * 397 % LATEST_MS));
        engine.kill();
        let before = String::from_utf8(build.wait_with_output().unwrap().stdout).unwrap();
        engine.launch();
        engine.conex(["image", "verify"]).ok();
        let end = Instant::now() + TIME_LIMIT;
        while !engine.docker(["ps", "-aq"]).ok().is_empty() {
            assert!(Instant::now() < end, "containers of the build stay: {}", engine.docker(["ps", "-a"]).ok());
            std::thread::sleep(Duration::from_millis(10));
        }
        let again = begun(&engine, &context, &number).wait_with_output().unwrap();
        let after = String::from_utf8(again.stdout).unwrap();
        assert!(again.status.success(), "{round}: {after}");
        let (done, cached) = (ended(&before, "DONE"), ended(&after, "CACHED"));
        let lost: Vec<&String> =
            done.iter().filter(|title| !title.contains("[internal]") && !cached.contains(*title)).collect();
        assert!(lost.is_empty(), "{round}: {lost:?}\n{before}\n{after}");
        let script = "cat /four /three /two; wc -c < /noise; wc -c < /big";
        let found = engine.docker(["run", "--rm", "killed", "sh", "-c", script]).ok();
        assert_eq!(found, format!("{round}\n{round}\n{round}\n4194304\n2097152"));
    }
    engine.conex(["image", "verify"]).ok();
    engine.finish();
}
