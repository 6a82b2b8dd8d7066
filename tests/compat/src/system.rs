//! The daemon as a whole.

use std::path::Path;

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

/// Where Docker asks a registry or unpacks what it is sent, before it finds out that it is of no use: we say at once that there are none.
const NO_PLUGINS: &str = "501 plugins are not supported";
const OURS: [(&str, &str); 6] = [
    ("POST /plugins/pull?remote=127.0.0.1:1/y []", NO_PLUGINS),
    ("POST /plugins/pull?remote=127.0.0.1:1/y -", NO_PLUGINS),
    ("GET /plugins/privileges?remote=127.0.0.1:1/y -", NO_PLUGINS),
    ("POST /plugins/create?name=x -", NO_PLUGINS),
    ("POST /plugins/create?name=x {}", NO_PLUGINS),
    ("POST /plugins/create?name=x !", NO_PLUGINS),
];

/// Every answer is that of Docker 26.1, recorded in the file, but for those named above.
#[test]
fn outside_a_swarm_and_without_plugins_all_is_refused_as_docker_refuses_it() {
    let facts = include_str!("outside_a_swarm.facts");
    let (heading, facts): (Vec<&str>, Vec<&str>) = facts.lines().partition(|line| line.starts_with('#'));
    let facts = facts.into_iter().map(|line| line.split_once('\t').unwrap());
    if let Some(socket) = std::env::var_os("CONEX_RECORD") {
        let told = facts.map(|(asked, _)| format!("{asked}\t{}", answer(Path::new(&socket), asked)));
        let text = heading.into_iter().map(str::to_owned).chain(told).collect::<Vec<_>>().join("\n") + "\n";
        let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/outside_a_swarm.facts");
        return std::fs::write(place, text).unwrap();
    }
    let engine = Engine::start();
    let differ: Vec<String> = facts
        .filter_map(|(asked, theirs)| {
            let ours = answer(&engine.socket(), asked);
            let wanted = OURS.iter().find(|(own, _)| *own == asked).map_or(theirs, |(_, wanted)| wanted);
            (ours != wanted).then(|| format!("{asked}\n  wanted {wanted}\n  got    {ours}"))
        })
        .collect();
    assert!(differ.is_empty(), "{} differ:\n{}", differ.len(), differ.join("\n"));
    engine.finish();
}

/// Status and message of the answer to `METHOD PATH BODY`.
pub(crate) fn answer(socket: &Path, asked: &str) -> String {
    let mut words = asked.splitn(3, ' ');
    let (method, path, body) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap_or_default());
    let (kind, body) = match body {
        "-" => ("application/json", ""),
        "!" => ("text/plain", "{}"),
        document => ("application/json", document),
    };
    let answer = crate::api::ask(socket, &format!("{method} /v1.45{path}"), kind, body.as_bytes()).expect("an answer");
    let (head, body) = answer.text.split_once("\r\n\r\n").unwrap();
    let told = serde_json::from_str::<serde_json::Value>(body).ok();
    let message = told.as_ref().and_then(|told| told["message"].as_str()).unwrap_or(body.trim());
    format!("{} {message}", &head["HTTP/1.1 ".len()..][..3]).trim_end().to_owned()
}

/// What has happened so far, oldest first.
pub(crate) fn events(engine: &Engine, arguments: &[&str]) -> String {
    // Clients send whole seconds: the last events lie before the next one.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    engine.docker(["events", "--since", "0", "--until", &(now + 1).to_string()]).args(arguments).ok()
}
