//! Every answer is one that another client's types read: bollard's, which are made from Docker's own description of the API.
//!
//! Almost every field of theirs may be left out, so a name that they do not know would not be missed: what is read has to be all that there is.

use bollard_stubs::models;
use harness::Engine;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// What those types do not know: what Docker had in older versions of its API, and what is ours (`LastUsed`, `Provenance`, `UniqueSize`).
const UNKNOWN_TO_THEM: &[&str] = &[
    "ContainerInspectResponse.NetworkSettings.Bridge",
    "ContainerInspectResponse.NetworkSettings.EndpointID",
    "ContainerInspectResponse.NetworkSettings.Gateway",
    "ContainerInspectResponse.NetworkSettings.GlobalIPv6Address",
    "ContainerInspectResponse.NetworkSettings.GlobalIPv6PrefixLen",
    "ContainerInspectResponse.NetworkSettings.HairpinMode",
    "ContainerInspectResponse.NetworkSettings.IPAddress",
    "ContainerInspectResponse.NetworkSettings.IPPrefixLen",
    "ContainerInspectResponse.NetworkSettings.IPv6Gateway",
    "ContainerInspectResponse.NetworkSettings.LinkLocalIPv6Address",
    "ContainerInspectResponse.NetworkSettings.LinkLocalIPv6PrefixLen",
    "ContainerInspectResponse.NetworkSettings.MacAddress",
    "EventMessage.from",
    "EventMessage.id",
    "EventMessage.status",
    "ImageInspect.Config.AttachStderr",
    "ImageInspect.Config.AttachStdin",
    "ImageInspect.Config.AttachStdout",
    "ImageInspect.Config.Domainname",
    "ImageInspect.Config.Hostname",
    "ImageInspect.Config.Image",
    "ImageInspect.Config.OpenStdin",
    "ImageInspect.Config.StdinOnce",
    "ImageInspect.Config.Tty",
    "ImageInspect.DockerVersion",
    "ImageInspect.LastUsed",
    "ImageInspect.Parent",
    "ImageInspect.Provenance",
    "ImageSummary[].LastUsed",
    "ImageSummary[].UniqueSize",
    "Network[].Containers",
    "SystemDataUsageResponse.BuildCache",
    "SystemDataUsageResponse.Containers",
    "SystemDataUsageResponse.Images",
    "SystemDataUsageResponse.LayersSize",
    "SystemDataUsageResponse.Volumes",
    "SystemInfo.BridgeNfIp6tables",
    "SystemInfo.BridgeNfIptables",
    "SystemInfo.InitCommit.Expected",
    "SystemInfo.KernelMemoryTCP",
    "SystemInfo.RuncCommit.Expected",
];

thread_local! {
    /// What came to nothing in this test so far.
    static UNREAD: std::cell::RefCell<std::collections::BTreeSet<String>> = const { std::cell::RefCell::new(std::collections::BTreeSet::new()) };
}

/// Asks, and reads the answer as a `T`; what is no `T` fails the test with the answer.
#[track_caller]
fn get<T: DeserializeOwned + Serialize>(engine: &Engine, path: &str) -> T {
    read(path, &engine.get(path).run().stdout)
}

#[track_caller]
fn post<T: DeserializeOwned + Serialize>(engine: &Engine, path: &str, body: &str) -> T {
    send(engine, "POST", path, body)
}

#[track_caller]
fn send<T: DeserializeOwned + Serialize>(engine: &Engine, method: &str, path: &str, body: &str) -> T {
    let request = engine.get(path).args(["-X", method, "-H", "Content-Type: application/json", "-d", body]);
    read(path, &request.run().stdout)
}

#[track_caller]
fn read<T: DeserializeOwned + Serialize>(path: &str, answer: &[u8]) -> T {
    let wrong = |error: serde_json::Error| panic!("{path}: {error}: {}", String::from_utf8_lossy(answer).trim());
    let read: T = serde_json::from_slice(answer).unwrap_or_else(wrong);
    let answer: Value = serde_json::from_slice(answer).unwrap();
    let mut unread = Vec::new();
    collect_unread("", &answer, &serde_json::to_value(&read).unwrap(), &mut unread);
    let name = std::any::type_name::<T>().rsplit("::").next().unwrap_or_default().trim_end_matches('>');
    UNREAD.with_borrow_mut(|all| all.extend(unread.iter().map(|place| format!("{name}{place}"))));
    read
}

/// Fails where an answer had something that its type does not know.
fn all_was_read() {
    let known = |place: &String| UNKNOWN_TO_THEM.iter().any(|known| place == known);
    let unread: Vec<String> = UNREAD.take().into_iter().filter(|place| !known(place)).collect();
    assert!(unread.is_empty(), "in no type of theirs: {unread:#?}");
}

/// The places in an answer that came to nothing.
fn collect_unread(place: &str, answer: &Value, read: &Value, unread: &mut Vec<String>) {
    match (answer, read) {
        (Value::Object(answer), Value::Object(read)) => {
            for (key, value) in answer.iter().filter(|(_, value)| !value.is_null()) {
                let inside = format!("{place}.{key}");
                let found = read.iter().find(|(name, _)| name.eq_ignore_ascii_case(key));
                match found.map(|(_, found)| found) {
                    Some(found) => collect_unread(&inside, value, found, unread),
                    None => unread.push(inside),
                }
            }
        }
        (Value::Array(answer), Value::Array(read)) => {
            for (value, found) in answer.iter().zip(read) {
                collect_unread(&format!("{place}[]"), value, found, unread);
            }
        }
        _ => {}
    }
}

/// An engine with something of everything.
fn furnished() -> Engine {
    let engine = Engine::with_busybox();
    let docker = |arguments: &[&str]| engine.docker(arguments).ok();
    docker(&["network", "create", "--subnet", "172.30.0.0/24", "--label", "a=b", "net"]);
    docker(&["volume", "create", "--label", "a=b", "vol"]);
    docker(&["volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "memory"]);
    docker(&[
        "run",
        "-d",
        "--name",
        "busy",
        "--network",
        "net",
        "--ip",
        "172.30.0.9",
        "-p",
        "127.0.0.1:8099:80",
        "-m",
        "64m",
        "-v",
        "vol:/vol",
        "-v",
        "memory:/memory",
        "--mount",
        "type=tmpfs,dst=/t",
        "-v",
        "/tmp:/host:ro",
        "--cpus",
        "1.5",
        "--restart",
        "on-failure:3",
        "--label",
        "a=b",
        "--ulimit",
        "nofile=100",
        "--device",
        "/dev/null:/dev/x",
        "--health-cmd",
        "true",
        "--health-interval",
        "50ms",
        "busybox",
        "sleep",
        "1000",
    ]);
    engine.docker(["run", "--name", "ended", "busybox", "sh", "-c", "touch /new; exit 3"]).fails(3);
    docker(&["exec", "busy", "touch", "/file"]);
    docker(&["commit", "busy", "committed:1"]);
    engine
}

/// As Docker's documents write them for curl.
#[test]
fn filters_may_be_written_without_percent_signs() {
    let engine = Engine::with_busybox();
    engine.docker(["create", "--name", "one", "busybox"]).ok();
    engine.docker(["create", "--name", "two", "busybox"]).ok();
    let listed = engine.get(r#"/containers/json?all=1&filters={"name":["one"]}"#).arg("-g").run().json();
    assert_eq!(listed.as_array().unwrap().len(), 1, "{listed}");
    assert_eq!(listed[0]["Names"][0], "/one");
    engine.docker(["rm", "one", "two"]).ok();
    engine.finish();
}

#[test]
fn what_is_asked_is_read_by_bollards_types() {
    let engine = furnished();
    for version in ["", "/v1.44", "/v1.51"] {
        let at = |path: &str| format!("{version}{path}");
        let containers: Vec<models::ContainerSummary> = get(&engine, &at("/containers/json?all=1&size=1"));
        assert_eq!(containers.len(), 2);
        for name in ["busy", "ended"] {
            let inspect: models::ContainerInspectResponse =
                get(&engine, &at(&format!("/containers/{name}/json?size=1")));
            assert_eq!(inspect.name.as_deref(), Some(format!("/{name}").as_str()));
            let changes: Vec<models::FilesystemChange> = get(&engine, &at(&format!("/containers/{name}/changes")));
            assert!(!changes.is_empty(), "{name}");
        }
        let top: models::ContainerTopResponse = get(&engine, &at("/containers/busy/top"));
        assert!(top.processes.is_some_and(|processes| !processes.is_empty()));
        let stats: models::ContainerStatsResponse = get(&engine, &at("/containers/busy/stats?stream=0&one-shot=1"));
        assert!(stats.memory_stats.and_then(|memory| memory.limit) == Some(64 << 20));
        let images: Vec<models::ImageSummary> = get(&engine, &at("/images/json?all=1&shared-size=1"));
        assert_eq!(images.len(), 2);
        let image: models::ImageInspect = get(&engine, &at("/images/committed:1/json"));
        assert!(image.root_fs.is_some_and(|root| root.layers.is_some_and(|layers| layers.len() == 2)));
        let _: Vec<models::ImageHistoryResponseItem> = get(&engine, &at("/images/committed:1/history"));
        let networks: Vec<models::Network> = get(&engine, &at("/networks"));
        assert_eq!(networks.len(), 4);
        let network: models::NetworkInspect = get(&engine, &at("/networks/net?verbose=1"));
        assert_eq!(network.containers.map(|containers| containers.len()), Some(1));
        let volumes: models::VolumeListResponse = get(&engine, &at("/volumes"));
        assert_eq!(volumes.volumes.map(|volumes| volumes.len()), Some(2));
        let _: models::Volume = get(&engine, &at("/volumes/memory"));
        let _: models::SystemInfo = get(&engine, &at("/info"));
        let _: models::SystemVersion = get(&engine, &at("/version"));
        let _: models::SystemDataUsageResponse = get(&engine, &at("/system/df"));
        let _: Vec<models::Plugin> = get(&engine, &at("/plugins"));
        let missing: models::ErrorResponse = get(&engine, &at("/containers/nobody/json"));
        assert_eq!(missing.message, "No such container: nobody");
    }
    let until = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() + 1;
    let events = engine.get(&format!("/events?since=0&until={until}")).ok();
    for line in events.lines() {
        let event: models::EventMessage = read("/events", line.as_bytes());
        assert!(event.typ.is_some() && event.actor.is_some(), "{line}");
    }
    engine.docker(["rm", "-f", "busy", "ended"]).ok();
    engine.docker(["rmi", "committed:1"]).ok();
    all_was_read();
    engine.finish();
}

#[test]
fn what_is_done_is_read_by_bollards_types() {
    let engine = Engine::with_busybox();
    let created: models::ContainerCreateResponse = post(
        &engine,
        "/containers/create?name=one",
        r#"{"Image":"busybox","Cmd":["sleep","1000"],"HostConfig":{"Memory":67108864}}"#,
    );
    engine.docker(["start", "one"]).ok();
    let exec: models::IdResponse = post(&engine, "/containers/one/exec", r#"{"Cmd":["true"],"Env":["A=b"]}"#);
    engine.get(&format!("/exec/{}/start", exec.id)).args(["-X", "POST", "-d", r#"{"Detach":true}"#]).ok();
    let exec: models::ExecInspectResponse = get(&engine, &format!("/exec/{}/json", exec.id));
    assert_eq!(exec.container_id, Some(created.id));
    let _: models::ContainerUpdateResponse = post(&engine, "/containers/one/update", r#"{"Memory":33554432}"#);
    engine.docker(["kill", "one"]).ok();
    let waited: models::ContainerWaitResponse = post(&engine, "/containers/one/wait", "");
    assert_eq!(waited.status_code, 137);
    let _: models::IdResponse = post(&engine, "/commit?container=one&repo=made", "{}");
    let network: models::NetworkCreateResponse = post(&engine, "/networks/create", r#"{"Name":"net"}"#);
    let network: models::NetworkInspect = get(&engine, &format!("/networks/{}", network.id));
    assert_eq!(network.name.as_deref(), Some("net"));
    let volume: models::Volume = post(&engine, "/volumes/create", r#"{"Name":"vol"}"#);
    assert_eq!(volume.driver, "local");
    let containers: models::ContainerPruneResponse = post(&engine, "/containers/prune", "");
    assert_eq!(containers.containers_deleted.map(|deleted| deleted.len()), Some(1));
    let networks: models::NetworkPruneResponse = post(&engine, "/networks/prune", "");
    assert_eq!(networks.networks_deleted, Some(vec!["net".to_owned()]));
    let volumes: models::VolumePruneResponse =
        post(&engine, "/volumes/prune?filters=%7B%22all%22%3A%5B%22true%22%5D%7D", "");
    assert_eq!(volumes.volumes_deleted, Some(vec!["vol".to_owned()]));
    let deleted: Vec<models::ImageDeleteResponseItem> = send(&engine, "DELETE", "/images/made", "");
    assert_eq!(deleted[0].untagged.as_deref(), Some("made:latest"));
    let _: models::ImagePruneResponse = post(&engine, "/images/prune", "");
    let _: models::BuildPruneResponse = post(&engine, "/build/prune", "");
    for (method, path) in [("GET", "/swarm"), ("POST", "/containers/nobody/start"), ("GET", "/images/nothing/json")] {
        let _: models::ErrorResponse = send(&engine, method, path, "");
    }
    all_was_read();
    engine.finish();
}
