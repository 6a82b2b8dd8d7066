//! Every member that we write is one that bollard's types know, under the same name and with the same value.

use bollard_stubs::models;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::samples;

/// Members that Docker 28 writes and newer descriptions of its API have dropped.
const DROPPED: &[&str] = &[
    "Annotations",
    "ArgsEscaped",
    "AutoCopy",
    "BridgeNfIp6tables",
    "BridgeNfIptables",
    "Bridge",
    "CanRemove",
    "DockerVersion",
    "EndpointID",
    "ExperimentalBuild",
    "from",
    "Gateway",
    "GlobalIPv6Address",
    "GlobalIPv6PrefixLen",
    "HairpinMode",
    "id",
    "IPAddress",
    "IPPrefixLen",
    "IPv6Gateway",
    "LinkLocalIPv6Address",
    "LinkLocalIPv6PrefixLen",
    "MacAddress",
    "MountLabel",
    "num_procs",
    "progress",
    "status",
    "CgroupParent",
    "Parent",
    "OsVersion",
    "VirtualSize",
    "KernelMemoryTCP",
    "error",
];

fn known<Theirs: Serialize + DeserializeOwned>(document: &str) {
    let ours: Value = serde_json::from_str(document).unwrap();
    let theirs: Theirs = serde_json::from_str(document).unwrap();
    compare(&ours, &serde_json::to_value(theirs).unwrap(), "");
}

fn compare(ours: &Value, theirs: &Value, path: &str) {
    match (ours, theirs) {
        (Value::Object(ours), Value::Object(theirs)) => {
            for (name, value) in ours.iter().filter(|(_, value)| !value.is_null()) {
                let path = format!("{path}.{name}");
                match theirs.get(name) {
                    Some(theirs) => compare(value, theirs, &path),
                    None => assert!(DROPPED.contains(&name.as_str()), "{path} is not known"),
                }
            }
        }
        (Value::Array(ours), Value::Array(theirs)) => {
            assert_eq!(ours.len(), theirs.len(), "{path}");
            ours.iter().zip(theirs).for_each(|(ours, theirs)| compare(ours, theirs, path));
        }
        _ => assert_eq!(ours, theirs, "{path}"),
    }
}

#[test]
fn containers() {
    known::<models::ContainerInspectResponse>(samples::CONTAINER_INSPECT);
    known::<models::ContainerSummary>(samples::CONTAINER_SUMMARY);
    known::<models::ExecInspectResponse>(samples::EXEC);
    known::<models::ContainerStatsResponse>(samples::STATS);
}

#[test]
fn images_volumes_and_networks() {
    known::<models::ImageSummary>(samples::IMAGE_SUMMARY);
    known::<models::ImageInspect>(samples::IMAGE_INSPECT);
    known::<models::ImageHistoryResponseItem>(samples::HISTORY);
    known::<models::Volume>(samples::VOLUME);
    known::<models::NetworkInspect>(samples::NETWORK);
}

#[test]
fn the_system() {
    known::<models::EventMessage>(samples::EVENT);
    known::<models::SystemVersion>(samples::VERSION);
    known::<models::SystemInfo>(samples::INFO);
    known::<models::CreateImageInfo>(samples::PROGRESS);
}
