//! The daemon as a whole.

use harness::Engine;

#[test]
fn version_info_and_disk_use() {
    let engine = Engine::with_busybox();
    let docker = |arguments: &[&str]| engine.docker(arguments).run().expect_code(0).text();
    assert!(!docker(&["version", "--format", "{{.Server.Version}}"]).is_empty());
    let info = docker(&["info", "--format", "{{.OSType}} {{.Images}} {{.Swarm.LocalNodeState}} {{.CgroupVersion}}"]);
    assert!(info.starts_with("linux ") && info.contains("inactive"), "{info}");
    let df = docker(&["system", "df"]);
    for word in ["Images", "Containers", "Local Volumes", "Build Cache"] {
        assert!(df.contains(word), "{df}");
    }
    engine.finish();
}

#[test]
fn what_is_not_there_yet_says_so() {
    let engine = Engine::with_busybox();
    let cases: &[&[&str]] =
        &[&["pull", "nosuchimage"], &["commit", "x"], &["swarm", "ca"], &["network", "create", "-d", "weird", "x"]];
    for arguments in cases {
        let output = engine.docker(*arguments).run();
        assert_ne!(output.code, 0, "{output:?}");
        assert!(!output.error_text().is_empty(), "{output:?}");
    }
    engine.finish();
}

#[test]
fn one_root_has_one_daemon() {
    let engine = Engine::start();
    let daemon = engine.host().conex().args(["daemon", "--name", "second", "--root"]);
    let second = daemon.arg(engine.root_folder()).arg("--run").arg(engine.host().files().join("run")).run();
    assert_ne!(second.code, 0);
    assert!(second.error_text().contains("root"), "{}", second.error_text());
    engine.finish();
}

/// What has happened so far, oldest first.
pub(crate) fn events(engine: &Engine, arguments: &[&str]) -> String {
    // Clients send whole seconds: the last events lie before the next one.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    engine.docker(["events", "--since", "0", "--until", &(now + 1).to_string()]).args(arguments).ok()
}
