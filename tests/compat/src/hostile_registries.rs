//! Registries that lie, and what a pull from them leaves: nothing.

use harness::Engine;
use oci::Digest;
use oci::image::media_type::{DOCKER_LAYER, OCI_CONFIG, OCI_INDEX, OCI_LAYER_GZIP, OCI_MANIFEST};

use crate::fake_server::{Reply, Request, serve};

const ADDRESS: &str = "127.0.0.1:5000";
/// What the engine may take, at its highest.
const MEMORY_MAX_KIB: u64 = 256 << 10;

fn descriptor(media_type: &str, digest: &str, size: usize) -> String {
    format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{size}}}"#)
}

fn config(diff_id: &str) -> String {
    format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":["{diff_id}"]}}}}"#
    )
}

fn manifest(config: &str, layers: &str) -> String {
    format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","config":{config},"layers":[{layers}]}}"#)
}

/// A manifest of a good configuration and one layer.
fn with_layer(layer: &str) -> String {
    let config = config(&Digest::of(LAYER).to_string());
    manifest(&descriptor(OCI_CONFIG, &Digest::of(config.as_bytes()).to_string(), config.len()), layer)
}

/// An empty tar.
const LAYER: &[u8] = &[0; 1024];

fn hostile(request: &Request) -> Reply {
    let digest = |bytes: &[u8]| Digest::of(bytes).to_string();
    let config = config(&digest(LAYER));
    let good_config = descriptor(OCI_CONFIG, &digest(config.as_bytes()), config.len());
    let document = |text: String| Reply::Whole(200, OCI_MANIFEST, text.into_bytes());
    if request.target == "/v2/" {
        return Reply::json(200, "{}");
    }
    if request.method == "HEAD" {
        return Reply::json(404, "");
    }
    let Some(name) = request.target.strip_prefix("/v2/x/manifests/") else {
        return match request.target.strip_prefix("/v2/x/blobs/").unwrap_or_default() {
            blob if blob == digest(config.as_bytes()) => Reply::json(200, config),
            blob if blob == digest(b"large") => Reply::Endless("application/octet-stream", Vec::new()),
            blob if blob == digest(b"another") => Reply::Whole(200, "application/octet-stream", vec![1; 1024]),
            blob if blob == digest(b"traversal") => Reply::json(200, traversal()),
            _ => Reply::Whole(200, "application/octet-stream", LAYER.to_vec()),
        };
    };
    match name {
        "path-in-digest" => document(with_layer(&descriptor(OCI_LAYER_GZIP, "sha256:../../x", 10))),
        "path-in-config" => document(manifest(&descriptor(OCI_CONFIG, "sha256:../../../etc/passwd", 10), "")),
        "short-digest" => document(with_layer(&descriptor(OCI_LAYER_GZIP, "sha256:abcd", 10))),
        "upper-case" => document(with_layer(&descriptor(OCI_LAYER_GZIP, &digest(b"x").to_uppercase(), 10))),
        "both" => document(format!(r#"{{"schemaVersion":2,"config":{good_config},"layers":[],"manifests":[]}}"#)),
        "confused" => document(format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[]}}"#)),
        "list" => document("[2]".to_owned()),
        "schema-1" => Reply::Whole(
            200,
            "application/vnd.docker.distribution.manifest.v1+prettyjws",
            br#"{"schemaVersion":1,"name":"x"}"#.to_vec(),
        ),
        "endless-manifest" => Reply::Endless(OCI_MANIFEST, b"{".to_vec()),
        "large-config" => document(manifest(&descriptor(OCI_CONFIG, &digest(b"large"), 1 << 30), "")),
        "endless-config" => document(manifest(&descriptor(OCI_CONFIG, &digest(b"large"), 100), "")),
        "endless-layer" => document(with_layer(&descriptor(OCI_LAYER_GZIP, &digest(b"large"), 1 << 20))),
        "other-layer" => document(with_layer(&descriptor(DOCKER_LAYER, &digest(b"another"), 1024))),
        "wrong-blob" => document(with_layer(&descriptor(DOCKER_LAYER, &digest(b"wrong"), 1024))),
        "fewer-layers" => document(manifest(&good_config, "")),
        "traversal" => document(with_layer(&descriptor(DOCKER_LAYER, &digest(b"traversal"), traversal().len()))),
        "artifact" => document(manifest(&descriptor("application/vnd.oci.empty.v1+json", &digest(b"{}"), 2), "")),
        "good" => document(with_layer(&descriptor(DOCKER_LAYER, &digest(LAYER), 1024))),
        _ => Reply::json(404, r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#),
    }
}

/// A tar whose one entry leaves its directory. Its checksum is right.
fn traversal() -> Vec<u8> {
    let mut header = [0_u8; 512];
    header[..21].copy_from_slice(b"../../../conex-canary");
    header[100..108].copy_from_slice(b"0000644\0");
    header[124..136].copy_from_slice(b"00000000000\0");
    header[136..148].copy_from_slice(b"00000000000\0");
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    [header.as_slice(), LAYER].concat()
}

fn peak_memory_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn lies_are_refused_by_name() {
    let engine = Engine::start();
    serve(ADDRESS, hostile);
    for (tag, expected) in [
        ("path-in-digest", "invalid manifest"),
        ("path-in-config", "invalid manifest"),
        ("short-digest", "invalid manifest"),
        ("upper-case", "invalid manifest"),
        ("both", "ambiguous manifest"),
        ("confused", "the manifest's mediaType is"),
        ("list", "invalid manifest"),
        ("schema-1", "schema 1 are not supported"),
        ("endless-manifest", "larger than 4194304 bytes"),
        ("large-config", "larger than 8388608 bytes"),
        ("endless-config", "larger than 100 bytes"),
        ("endless-layer", "larger than 1048576 bytes"),
        ("other-layer", "failed to register layer"),
        ("wrong-blob", "filesystem layer verification failed for digest"),
        ("fewer-layers", "layers from manifest don't match image configuration"),
        ("traversal", "layer"),
        ("artifact", "when fetching"),
        ("nosuch", "manifest unknown"),
    ] {
        let refusal = engine.docker(["pull", &format!("{ADDRESS}/x:{tag}")]).fails(1);
        assert!(refusal.contains(expected), "{tag}: {refusal}");
    }
    let peak = peak_memory_kib(engine.pid());
    assert!(peak < MEMORY_MAX_KIB, "the engine took {peak} KiB");
    assert_eq!(engine.docker(["images", "-aq", ADDRESS]).ok(), "");
    let layers = std::fs::read_dir(engine.root_folder().join("layers/sha256")).map_or(0, Iterator::count);
    let before = layers;
    // The same server tells the truth once, and what was wrong before does no harm.
    engine.docker(["pull", &format!("{ADDRESS}/x:good")]).ok();
    let after = std::fs::read_dir(engine.root_folder().join("layers/sha256")).map_or(0, Iterator::count);
    assert!(after <= before + 2, "{before} files before, {after} after");
    engine.finish();
}
