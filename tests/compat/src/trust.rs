//! The image policy: what may be pulled, built upon and run, with real keys and a real registry.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use harness::{Engine, EngineOptions, Host};
use oci::Digest;
use serde_json::{Value, json};

use crate::registry_server::{OCI_INDEX, OCI_MANIFEST, RegistryServer, Settings, put_blob, put_manifest};

const PAYLOAD: &str = "application/vnd.dev.cosign.simplesigning.v1+json";

/// A registry, and an engine whose policy file the test writes.
struct Site {
    engine: Engine,
    registry: RegistryServer,
}

impl Site {
    fn new(policy: &Value) -> Site {
        let host = Host::new();
        let registry = RegistryServer::start(&host, Settings::default());
        let file = host.files().join("policy.json");
        std::fs::write(&file, policy.to_string()).unwrap();
        let arguments = vec!["--image-policy".to_owned(), file.to_str().unwrap().to_owned()];
        Site { engine: Engine::start_in(host, EngineOptions { arguments }), registry }
    }

    fn docker(&self, arguments: &[&str]) -> String {
        self.engine.docker(arguments).run().expect_code(0).text()
    }

    fn refused(&self, arguments: &[&str], code: i32) -> String {
        self.engine.docker(arguments).fails(code)
    }

    /// Starts the engine again with another policy.
    fn with_policy(&mut self, policy: &Value) {
        std::fs::write(self.engine.host().files().join("policy.json"), policy.to_string()).unwrap();
        self.engine.stop();
        self.engine.launch();
    }

    /// Pushes busybox under a name and forgets it; gives the digest in the registry.
    fn publish(&self, name: &str) -> Digest {
        self.docker(&["tag", "busybox", name]);
        let pushed = self.docker(&["push", name]);
        self.docker(&["rmi", name]);
        let digest = pushed.split("digest: ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
        Digest::parse(digest).unwrap()
    }

    fn put(&self, repository: &str, bytes: &[u8]) -> Value {
        put_blob(self.engine.host(), &self.registry, repository, bytes)
    }

    /// Puts a manifest of signatures under the tag that cosign gives it.
    fn put_signatures(&self, repository: &str, digest: &Digest, layers: &[Value]) {
        let tag = format!("sha256-{}.sig", digest.hex());
        let config = self.put(repository, b"{}");
        put_manifest(self.engine.host(), &self.registry, repository, &tag, OCI_MANIFEST, &manifest(&config, layers));
    }

    fn finish(self) {
        drop(self.registry);
        self.engine.finish();
    }
}

fn manifest(config: &Value, layers: &[Value]) -> Value {
    json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers })
}

/// A key pair of openssl's.
struct Key {
    private: PathBuf,
    public: PathBuf,
    sign: &'static [&'static str],
}

impl Key {
    fn new(host: &Host, name: &str, kind: &[&str], sign: &'static [&'static str]) -> Key {
        let (private, public) = (host.files().join(format!("{name}.pem")), host.files().join(format!("{name}.pub")));
        host.program("openssl").arg("genpkey").args(kind).arg("-out").arg(&private).ok();
        host.program("openssl").args(["pkey", "-pubout", "-in"]).arg(&private).arg("-out").arg(&public).ok();
        Key { private, public, sign }
    }

    fn p256(host: &Host, name: &str) -> Key {
        let kind = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
        Key::new(host, name, &kind, &["dgst", "-sha256", "-sign"])
    }

    fn signature(&self, host: &Host, payload: &[u8]) -> String {
        let file = host.files().join("payload");
        std::fs::write(&file, payload).unwrap();
        let mut program = host.program("openssl").args(self.sign).arg(&self.private);
        if self.sign[0] == "pkeyutl" {
            program = program.arg("-in");
        }
        STANDARD.encode(program.arg(&file).run().expect_code(0).stdout)
    }
}

fn payload(digest: &Digest, identity: &str) -> Vec<u8> {
    let critical = json!({
        "identity": { "docker-reference": identity },
        "image": { "docker-manifest-digest": digest },
        "type": "cosign container image signature",
    });
    json!({ "critical": critical, "optional": null }).to_string().into_bytes()
}

/// A signature as a layer of cosign's manifest.
fn layer(site: &Site, repository: &str, key: &Key, payload: &[u8]) -> Value {
    let mut layer = site.put(repository, payload);
    layer["mediaType"] = json!(PAYLOAD);
    let signature = key.signature(site.engine.host(), payload);
    layer["annotations"] = json!({ "dev.cosignproject.cosign/signature": signature });
    layer
}

fn signed_by(keys: &[&Path]) -> Value {
    json!([{ "type": "sigstoreSigned", "keyPaths": keys, "signedIdentity": { "type": "matchRepository" } }])
}

/// Everything that does not come from a registry is accepted, and of registries what the test says.
fn policy(docker: &Value) -> Value {
    let accept = json!([{ "type": "insecureAcceptAnything" }]);
    let anything = json!({ "": accept });
    json!({
        "default": [{ "type": "reject" }],
        "transports": { "docker": docker, "tarball": anything, "conex-build": anything, "docker-archive": anything },
    })
}

#[test]
fn only_what_is_signed_comes_and_runs() {
    let mut site = Site::new(&policy(&json!({})));
    site.engine.import_busybox();
    let host = |site: &Site| Key::p256(site.engine.host(), "one");
    let (one, two) = (host(&site), Key::p256(site.engine.host(), "two"));
    let rules = json!({ "127.0.0.1:5000/signed": signed_by(&[&one.public]) });
    site.with_policy(&policy(&rules));
    let name = site.registry.name("signed/app:1");
    let repository = "signed/app";
    let full = site.registry.name(repository);
    let digest = site.publish(&name);
    site.docker(&["rmi", "-f", "busybox"]);

    let unsigned = site.refused(&["pull", &name], 1);
    let rule = "is not admitted by the image policy: policy rule docker \"127.0.0.1:5000/signed\"";
    assert!(
        unsigned.contains(&format!("image {name} ({digest}) {rule}: a signature is asked for, and none was found")),
        "{unsigned}"
    );
    assert_eq!(site.docker(&["images", "-q"]), "", "nothing stays of it");
    let rejected = site.refused(&["pull", &site.registry.name("other/app:1")], 1);
    assert!(rejected.contains("policy rule default: images of this scope are rejected"), "{rejected}");

    // By another key, over another digest, under another name: each alone, and then many.
    let good = payload(&digest, &full);
    let wrong = [
        (layer(&site, repository, &two, &good), "by none of the rule's keys"),
        (layer(&site, repository, &one, &payload(&Digest::of(b"x"), &full)), "which is another image"),
        (layer(&site, repository, &one, &payload(&digest, "127.0.0.1:5000/signed/other")), "one is for the name"),
    ];
    for (layer, reason) in &wrong {
        site.put_signatures(repository, &digest, std::slice::from_ref(layer));
        let refused = site.refused(&["pull", &name], 1);
        assert!(refused.contains(reason), "{refused}");
    }
    site.put_signatures(repository, &digest, &vec![wrong[0].0.clone(); 5000]);
    assert!(site.refused(&["pull", &name], 1).contains("by none of the rule's keys"));
    let huge = json!({ "mediaType": PAYLOAD, "digest": Digest::of(b"huge"), "size": 1u64 << 40,
        "annotations": { "dev.cosignproject.cosign/signature": "A".repeat(100_000) } });
    let mut large = huge.clone();
    large["annotations"]["dev.cosignproject.cosign/signature"] = json!("AAAA");
    // The registry itself looks whether the blobs of a manifest are there, but for those that are foreign.
    for layer in [huge, large] {
        let mut foreign = layer;
        foreign["urls"] = json!(["http://127.0.0.1:1/"]);
        let config = site.put(repository, b"{}");
        let tag = format!("sha256-{}.sig", digest.hex());
        let url = format!("http://{}/v2/{repository}/manifests/{tag}", site.registry.address);
        let body = manifest(&config, &[foreign]).to_string().into_bytes();
        let put = [
            "-s",
            "-X",
            "PUT",
            "-H",
            "Content-Type: application/vnd.oci.image.manifest.v1+json",
            "--data-binary",
            "@-",
            &url,
        ];
        site.engine.host().program("curl").args(put).input(body).run();
        assert!(site.refused(&["pull", &name], 1).contains("is not admitted"));
    }

    site.put_signatures(repository, &digest, &[wrong[0].0.clone(), layer(&site, repository, &one, &good)]);
    site.docker(&["pull", &name]);
    assert_eq!(site.docker(&["run", "--rm", &name, "echo", "signed"]), "signed");
    let shown: Value =
        serde_json::from_str(&site.engine.conex(["image", "inspect", "-f", "{{json .Provenance}}", &name]).ok())
            .unwrap();
    assert_eq!(shown["Policy"]["Allowed"], json!(true), "{shown}");
    assert!(shown["Policy"]["SignedBy"].as_str().unwrap().starts_with("sha256:"), "{shown}");
    let origin = &shown["Origins"][0];
    assert_eq!(
        (origin["Kind"].as_str(), origin["Reference"].as_str()),
        (Some("registry"), Some(name.as_str())),
        "{shown}"
    );
    assert_eq!(origin["Digest"], json!(digest), "{shown}");
    let by_digest = format!("{full}@{digest}");
    site.docker(&["pull", &by_digest]);

    // A name that it is given here proves nothing, and takes nothing away.
    site.docker(&["tag", &name, "mine"]);
    assert_eq!(site.docker(&["run", "--rm", "mine", "echo", "still"]), "still");
    let container = site.docker(&["create", "--name", "old", &name, "true"]);
    // Another policy: what was admitted runs no longer, neither as a new container nor as one that is there.
    site.with_policy(&policy(&json!({ "127.0.0.1:5000/signed": signed_by(&[&two.public]) })));
    let refused = site.refused(&["run", "--rm", &name, "true"], 125);
    assert!(refused.contains(&format!("image {name} (sha256:")) && refused.contains(rule), "{refused}");
    assert!(site.refused(&["run", "--rm", "mine", "true"], 125).contains(rule));
    let refused = site.refused(&["start", "old"], 1);
    assert!(refused.contains("is not admitted by the image policy"), "{refused}");
    let context = site.engine.host().files().join("context");
    std::fs::create_dir(&context).unwrap();
    std::fs::write(context.join("Dockerfile"), format!("FROM {name}\nRUN true\n")).unwrap();
    let built = site.engine.conex(["build", "-q"]).arg(&context).fails(1);
    assert!(built.contains("is not admitted by the image policy"), "{built}");
    // Signed by the other key as well, it comes again.
    site.put_signatures(
        repository,
        &digest,
        &[layer(&site, repository, &one, &good), layer(&site, repository, &two, &good)],
    );
    site.docker(&["pull", &name]);
    site.docker(&["start", &container]);
    site.finish();
}

#[test]
fn every_kind_of_key_and_both_places_of_signatures() {
    let mut site = Site::new(&policy(&json!({})));
    site.engine.import_busybox();
    let keys = [
        Key::p256(site.engine.host(), "ec"),
        Key::new(site.engine.host(), "ed", &["-algorithm", "ED25519"], &["pkeyutl", "-sign", "-rawin", "-inkey"]),
        Key::new(
            site.engine.host(),
            "rsa",
            &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
            &["dgst", "-sha256", "-sign"],
        ),
    ];
    let rule = |index: usize| (format!("127.0.0.1:5000/k{index}"), signed_by(&[&keys[index].public]));
    let rules: serde_json::Map<String, Value> = (0..keys.len()).map(rule).collect();
    site.with_policy(&policy(&Value::Object(rules)));
    for (index, key) in keys.iter().enumerate() {
        let repository = format!("k{index}/app");
        let name = site.registry.name(&format!("{repository}:1"));
        let digest = site.publish(&name);
        let layer = layer(&site, &repository, key, &payload(&digest, &site.registry.name(&repository)));
        assert!(site.refused(&["pull", &name], 1).contains("none was found"));
        if index == 0 {
            // OCI 1.1: the signature's manifest refers to what it signs. This registry keeps the list under a tag.
            let config = site.put(&repository, b"{}");
            let mut document = manifest(&config, &[layer]);
            document["artifactType"] = json!("application/vnd.dev.cosign.artifact.sig.v1+json");
            document["subject"] = json!({ "mediaType": OCI_MANIFEST, "digest": digest, "size": 1 });
            let host = site.engine.host();
            let referrer = put_manifest(host, &site.registry, &repository, "signature", OCI_MANIFEST, &document);
            let entry = json!({ "mediaType": OCI_MANIFEST, "digest": referrer, "size": document.to_string().len(),
                "artifactType": "application/vnd.dev.cosign.artifact.sig.v1+json" });
            let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry] });
            let tag = format!("sha256-{}", digest.hex());
            put_manifest(host, &site.registry, &repository, &tag, OCI_INDEX, &index);
        } else {
            site.put_signatures(&repository, &digest, &[layer]);
        }
        site.docker(&["pull", &name]);
        assert_eq!(site.docker(&["run", "--rm", &name, "echo", "signed"]), "signed");
        site.docker(&["rmi", &name]);
    }
    site.finish();
}

#[test]
fn a_policy_that_cannot_be_kept_starts_no_engine() {
    let host = Host::new();
    let file = host.files().join("policy.json");
    let start = |policy: &Value| {
        std::fs::write(&file, policy.to_string()).unwrap();
        let place = |name: &str| host.scratch().join(name);
        let daemon = host.conex().args(["daemon", "--name", host.name(), "--image-policy"]).arg(&file);
        daemon.arg("--root").arg(place("root")).arg("--run").arg(place("run")).fails(1)
    };
    let unsupported = start(&json!({ "default": [{ "type": "signedBy", "keyType": "GPGKeys", "keyPath": "/x" }] }));
    assert!(
        unsupported.contains("image policy: default: requirement \"signedBy\" (GPG signatures) is not supported"),
        "{unsupported}"
    );
    let missing = start(&json!({ "default": [{ "type": "sigstoreSigned", "keyPath": "/no/such.pub" }] }));
    assert!(missing.contains("cannot read /no/such.pub"), "{missing}");
    let unknown = start(&json!({ "default": [{ "type": "reject" }], "transport": {} }));
    assert!(unknown.contains("unknown member \"transport\""), "{unknown}");
}

#[test]
fn a_cache_that_the_policy_does_not_admit_is_none() {
    let anything = json!({ "": [{ "type": "insecureAcceptAnything" }] });
    let mut site = Site::new(&policy(&anything));
    site.engine.import_busybox();
    let context =
        crate::build::folder(&site.engine, "cached", &[("Dockerfile", "FROM busybox\nRUN echo $RANDOM > /r\n")]);
    let cache = site.registry.name("signed/cache:1");
    let build = |site: &Site, option: &str| {
        let output = site.engine.conex(["build", "--progress=plain", option]).arg(&context).run().expect_code(0);
        output.text() + &output.error_text()
    };
    build(&site, &format!("--cache-to=type=registry,mode=max,ref={cache}"));
    let from = format!("--cache-from=type=registry,ref={cache}");
    let prune = |site: &Site| drop(site.engine.docker(["builder", "prune", "-af"]).env("DOCKER_BUILDKIT", "0").ok());
    let key = Key::p256(site.engine.host(), "one");
    site.with_policy(&policy(&json!({ "127.0.0.1:5000/signed": signed_by(&[&key.public]) })));
    prune(&site);
    let refused = build(&site, &from);
    assert!(refused.contains("is not admitted by the image policy"), "{refused}");
    let digest = refused.split("sha256:").nth(1).map(|rest| format!("sha256:{}", &rest[..64])).unwrap();
    let digest = Digest::parse(&digest).unwrap();
    let signature = layer(&site, "signed/cache", &key, &payload(&digest, &site.registry.name("signed/cache")));
    site.put_signatures("signed/cache", &digest, std::slice::from_ref(&signature));
    prune(&site);
    let admitted = build(&site, &from);
    assert!(!admitted.contains("is not admitted") && admitted.contains("CACHED"), "{admitted}");
    site.finish();
}
