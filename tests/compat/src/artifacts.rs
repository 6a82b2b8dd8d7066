//! Indexes, attestations, platforms, and what in registries is no image.

use harness::Engine;
use oci::Digest;
use serde_json::{Value, json};

use crate::registry_server::{OCI_INDEX, OCI_MANIFEST, RegistryServer, engine_and_registry, put_blob, put_manifest};

/// A manifest in a registry.
fn remote(engine: &Engine, registry: &RegistryServer, repository: &str, name: &str) -> Vec<u8> {
    let url = format!("http://{}/v2/{repository}/manifests/{name}", registry.address);
    let accept = format!("Accept: {OCI_INDEX}, {OCI_MANIFEST}, application/vnd.docker.distribution.manifest.v2+json");
    engine.host().program("curl").args(["-s", "-f", "-H", &accept, &url]).run().expect_code(0).stdout
}

/// Puts an index under `tag`: the image `tag 1`, an attestation about it, and `more`.
fn put_index(engine: &Engine, registry: &RegistryServer, tag: &str, more: &[Value]) -> (Digest, Digest, Digest) {
    let host = engine.host();
    let document = remote(engine, registry, "app", "1");
    let image = Digest::of(&document);
    let kind = serde_json::from_slice::<Value>(&document).unwrap()["mediaType"].as_str().unwrap().to_owned();
    let statement =
        br#"{"_type":"https://in-toto.io/Statement/v0.1","predicateType":"https://slsa.dev/provenance/v0.2"}"#;
    let mut layer = put_blob(host, registry, "app", statement);
    layer["mediaType"] = json!("application/vnd.in-toto+json");
    layer["annotations"] = json!({ "in-toto.io/predicate-type": "https://slsa.dev/provenance/v0.2" });
    let mut config = put_blob(host, registry, "app", b"{\"architecture\":\"unknown\",\"os\":\"unknown\"}");
    config["mediaType"] = json!("application/vnd.oci.image.config.v1+json");
    let attestation = json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [layer] });
    let said = put_manifest(host, registry, "app", "said", OCI_MANIFEST, &attestation);
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let mut entries = vec![
        json!({ "mediaType": kind, "digest": image, "size": document.len(), "platform": { "os": "linux", "architecture": architecture } }),
        json!({ "mediaType": OCI_MANIFEST, "digest": said, "size": attestation.to_string().len(),
            "platform": { "os": "unknown", "architecture": "unknown" },
            "annotations": { "vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": image } }),
    ];
    entries.extend(more.iter().cloned());
    let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries });
    let digest = put_manifest(host, registry, "app", tag, OCI_INDEX, &index);
    (digest, image, said)
}

#[test]
fn attestations_are_kept_shown_and_pushed_again() {
    let (engine, registry) = engine_and_registry();
    let docker = |arguments: &[&str]| engine.docker(arguments).run().expect_code(0).text();
    docker(&["tag", "busybox", &registry.name("app:1")]);
    docker(&["push", &registry.name("app:1")]);
    let (index, image, said) = put_index(&engine, &registry, "multi", &[]);
    let id = docker(&["images", "-q", "busybox"]);
    docker(&["rmi", "-f", &id]);
    let name = registry.name("app:multi");
    assert!(docker(&["pull", &name]).contains(&format!("Digest: {index}")));

    let shown = engine.get(&format!("/v1.48/images/{name}/json?manifests=1")).run().json();
    assert_eq!(shown["Descriptor"]["digest"], json!(index), "{shown}");
    let manifests = shown["Manifests"].as_array().unwrap();
    let seen: Vec<_> = manifests.iter().map(|m| (m["ID"].clone(), m["Kind"].clone(), m["Available"].clone())).collect();
    assert_eq!(seen, [(json!(image), json!("image"), json!(true)), (json!(said), json!("attestation"), json!(true))]);
    assert_eq!(manifests[1]["AttestationData"]["For"], json!(image));
    assert!(manifests[0]["ImageData"]["Size"]["Unpacked"].as_u64().unwrap() > 1_000_000, "{shown}");
    assert!(engine.get(&format!("/v1.47/images/{name}/json?manifests=1")).run().json().get("Manifests").is_none());
    let listed = engine.get("/v1.47/images/json?manifests=1").run().json();
    assert_eq!(listed[0]["Manifests"].as_array().map(Vec::len), Some(2), "{listed}");
    assert!(engine.get("/v1.46/images/json?manifests=1").run().json()[0].get("Manifests").is_none());
    let statement = &shown["Provenance"]["Attestations"][0]["Statements"][0];
    assert_eq!(statement["PredicateType"], json!("https://slsa.dev/provenance/v0.2"), "{shown}");

    // Docker's own tree knows the same; and all of it goes to another repository, under the same digest.
    let tree = docker(&["image", "ls", "--tree"]);
    assert!(tree.contains("linux/"), "{tree}");
    let other = registry.name("other:multi");
    docker(&["tag", &name, &other]);
    assert!(docker(&["push", &other]).contains(&format!("multi: digest: {index}")));
    assert_eq!(Digest::of(&remote(&engine, &registry, "other", "multi")), index);
    assert_eq!(Digest::of(&remote(&engine, &registry, "other", &said.to_string())), said);
    engine.conex(["image", "verify", "-q"]).ok();

    // What names a platform that is not here goes without it.
    let absent = put_manifest_of_another_platform(&engine, &registry);
    let (index, ..) = put_index(&engine, &registry, "two", &[absent]);
    docker(&["rmi", "-f", &docker(&["images", "-q", &name])]);
    docker(&["pull", &registry.name("app:two")]);
    let tree = engine.conex(["image", "ls", "--tree"]).ok();
    assert!(tree.contains("linux/s390x (not here)") && tree.contains("attestation"), "{tree}");
    docker(&["tag", &registry.name("app:two"), &registry.name("third:two")]);
    let pushed = docker(&["push", &registry.name("third:two")]);
    assert!(!pushed.contains(&index.to_string()), "{pushed}");
    let left: Value = serde_json::from_slice(&remote(&engine, &registry, "third", "two")).unwrap();
    assert_eq!(left["manifests"].as_array().map(Vec::len), Some(2), "{left}");
    drop(registry);
    engine.finish();
}

fn put_manifest_of_another_platform(engine: &Engine, registry: &RegistryServer) -> Value {
    let mut config = put_blob(engine.host(), registry, "app", b"{\"architecture\":\"s390x\",\"os\":\"linux\"}");
    config["mediaType"] = json!("application/vnd.oci.image.config.v1+json");
    let document = json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [] });
    let digest = put_manifest(engine.host(), registry, "app", "s390x", OCI_MANIFEST, &document);
    json!({ "mediaType": OCI_MANIFEST, "digest": digest, "size": document.to_string().len(),
        "platform": { "os": "linux", "architecture": "s390x" } })
}

#[test]
fn what_is_no_image_is_refused_in_dockers_words() {
    let (engine, registry) = engine_and_registry();
    let layer = put_blob(engine.host(), &registry, "charts", b"chart");
    for (kind, expected) in [
        (
            "application/vnd.cncf.helm.config.v1+json",
            "Encountered remote \"application/vnd.cncf.helm.config.v1+json\"(unknown) when fetching",
        ),
        (
            "application/vnd.docker.plugin.v1+json",
            "Encountered remote \"application/vnd.docker.plugin.v1+json\"(plugin) when fetching",
        ),
        (
            "application/vnd.docker.ai.model.config.v0.1+json",
            "AI models are not yet supported by the Engine, please use \"docker model pull/run\" instead",
        ),
    ] {
        let mut config = put_blob(engine.host(), &registry, "charts", b"{}");
        config["mediaType"] = json!(kind);
        let document = json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [layer] });
        put_manifest(engine.host(), &registry, "charts", "1", OCI_MANIFEST, &document);
        let refused = engine.docker(["pull", &registry.name("charts:1")]).fails(1);
        assert!(refused.contains(expected), "{refused}");
    }
    drop(registry);
    engine.finish();
}

#[test]
fn an_image_is_for_its_platform() {
    let engine = Engine::with_busybox();
    let own = if cfg!(target_arch = "aarch64") { "linux/arm64" } else { "linux/amd64" };
    let file = engine.host().files().join("saved.tar");
    for command in [vec!["image", "inspect"], vec!["history"], vec!["save", "-o", file.to_str().unwrap()]] {
        let with = |platform: &str| {
            let mut words: Vec<String> = command.iter().map(|&word| word.to_owned()).collect();
            words.extend(["--platform".to_owned(), platform.to_owned(), "busybox".to_owned()]);
            words
        };
        if command[0] != "save" {
            engine.docker(with(own)).ok();
        }
        let words =
            "image with reference busybox:latest was found but does not provide the specified platform (linux/s390x)";
        let refused = engine.docker(with("linux/s390x")).fails(1);
        assert!(refused.contains(words), "{refused}");
        let refused = engine.conex(with("linux/s390x")).fails(1);
        assert!(refused.contains(words), "{refused}");
    }
    engine.finish();
}
