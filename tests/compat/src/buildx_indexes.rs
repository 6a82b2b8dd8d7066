//! Images of several platforms, and what is attested about images, as BuildKit's clients ask for them and read them.

use harness::Engine;
use serde_json::Value;

use crate::build::{folder, run};
use crate::buildx::{build, built, docker};
use crate::registry_server::{OCI_INDEX, OCI_MANIFEST, RegistryServer, engine_and_registry};

fn get(engine: &Engine, registry: &RegistryServer, path: &str) -> Value {
    let accept = format!("Accept: {OCI_INDEX}, {OCI_MANIFEST}, application/octet-stream");
    let url = format!("http://{}/v2/{path}", registry.address);
    engine.host().program("curl").args(["-sS", "-f", "-H", &accept, &url]).run().expect_code(0).json()
}

fn inspected(engine: &Engine, name: &str, what: &str) -> Value {
    let template = format!("{{{{json .{what}}}}}");
    docker(engine, ["buildx", "imagetools", "inspect", "--format", &template, name]).run().expect_code(0).json()
}

#[test]
fn how_an_image_was_made_and_what_is_in_it_is_attested() {
    let (engine, registry) = engine_and_registry();
    let status = "Package: libc6\nStatus: install ok installed\nVersion: 2.41\nArchitecture: amd64\n";
    let lines = "FROM busybox\nARG WHO\nCOPY status /var/lib/dpkg/status\nRUN echo $WHO > /who\n";
    let context = folder(&engine, "attested", &[("Dockerfile", lines), ("status", status)]);
    let name = registry.name("attested/app:1");
    let arguments = ["-t", &name, "--build-arg", "WHO=you", "--sbom=true", "--provenance=mode=max", "--push"];
    built(&engine, &context, &arguments);
    let slsa = inspected(&engine, &name, "Provenance")["SLSA"].clone();
    assert_eq!(slsa["buildType"], "https://mobyproject.org/buildkit@v1", "{slsa}");
    assert_eq!(slsa["invocation"]["parameters"]["args"]["build-arg:WHO"], "you");
    assert!(slsa["materials"][0]["uri"].as_str().unwrap().starts_with("pkg:docker/busybox@latest?platform=linux%2F"));
    assert!(
        slsa["metadata"]["buildStartedOn"].as_str().unwrap() <= slsa["metadata"]["buildFinishedOn"].as_str().unwrap()
    );
    assert!(slsa["buildConfig"]["llbDefinition"].as_array().unwrap().len() == 2, "{slsa}");
    let spdx = inspected(&engine, &name, "SBOM")["SPDX"].clone();
    assert_eq!((&spdx["packages"][0]["name"], &spdx["packages"][0]["versionInfo"]), (&"libc6".into(), &"2.41".into()));
    // What the registry has is whole and says what it is about.
    let index = get(&engine, &registry, "attested/app/manifests/1");
    let (image, attestation) = (&index["manifests"][0], &index["manifests"][1]);
    assert_eq!(index["manifests"].as_array().unwrap().len(), 2);
    assert_eq!(attestation["annotations"]["vnd.docker.reference.type"], "attestation-manifest");
    assert_eq!(attestation["annotations"]["vnd.docker.reference.digest"], image["digest"]);
    let digest = |value: &Value| value["digest"].as_str().unwrap().to_owned();
    let manifest = get(&engine, &registry, &format!("attested/app/manifests/{}", digest(image)));
    assert!(
        manifest["layers"]
            .as_array()
            .unwrap()
            .iter()
            .all(|layer| { layer["mediaType"] == "application/vnd.oci.image.layer.v1.tar+gzip" }),
        "{manifest}"
    );
    let statements = get(&engine, &registry, &format!("attested/app/manifests/{}", digest(attestation)));
    for layer in statements["layers"].as_array().unwrap() {
        assert_eq!(layer["mediaType"], "application/vnd.in-toto+json");
        let statement = get(&engine, &registry, &format!("attested/app/blobs/{}", digest(layer)));
        assert_eq!(statement["_type"], "https://in-toto.io/Statement/v0.1");
        let about = format!("sha256:{}", statement["subject"][0]["digest"]["sha256"].as_str().unwrap());
        assert_eq!(about, digest(image));
    }
    // It is an image as any other, here and when it is fetched.
    assert_eq!(run(&engine, &[&name, "cat", "/who"]), "you");
    engine.docker(["rmi", "-f", &name]).ok();
    assert_eq!(run(&engine, &[&name, "cat", "/who"]), "you");
    // The less that is told, the less is private.
    let second = registry.name("attested/app:2");
    built(&engine, &context, &["-t", &second, "--build-arg", "WHO=private", "--attest", "type=provenance", "--push"]);
    let slsa = inspected(&engine, &second, "Provenance")["SLSA"].clone();
    assert!(!slsa.to_string().contains("private") && slsa["buildConfig"].is_null(), "{slsa}");
    // Without a wish an image stays one manifest.
    let plain = registry.name("attested/app:3");
    built(&engine, &context, &["-t", &plain, "--push"]);
    assert!(get(&engine, &registry, "attested/app/manifests/3")["manifests"].is_null());
    // Of a generator, too, only what is here or comes from its registry.
    let none = registry.name("no/scanner");
    let generator = format!("--sbom=generator={none}");
    for (option, word) in [(generator.as_str(), none.as_str()), ("--attest=type=provenance,version=v1", "v1")] {
        let refused = build(&engine, &context, &[option]).expect_code(1);
        assert!(refused.error_text().contains(word), "{refused:?}");
    }
    // As an archive it is an index as well.
    let archive = engine.host().files().join("attested.tar").display().to_string();
    let output = format!("type=oci,dest={archive}");
    built(&engine, &context, &["-t", "archived:1", "--provenance=true", "--output", &output]);
    engine.docker(["load", "-q", "-i", &archive]).ok();
    assert_eq!(run(&engine, &["archived:1", "ls", "/who"]), "/who");
    drop(registry);
    engine.finish();
}

#[test]
fn one_build_makes_images_for_several_platforms() {
    let (engine, registry) = engine_and_registry();
    let lines = "FROM scratch AS files\nARG TARGETARCH\nCOPY $TARGETARCH /arch\nFROM scratch\nCOPY --from=files /arch /arch\nCOPY busybox /bin/\nCMD [\"/bin/busybox\", \"cat\", \"/arch\"]\n";
    let context =
        folder(&engine, "platforms", &[("Dockerfile", lines), ("amd64", "amd64\n"), ("arm64", "arm64\n"), (".x", "")]);
    std::fs::copy("/bin/busybox", context.join("busybox")).unwrap();
    let name = registry.name("several/app:1");
    let platforms = ["--platform", "linux/amd64,linux/arm64"];
    let text = built(&engine, &context, &[&platforms[..], &["-t", &name, "--push"]].concat());
    assert!(text.contains("[linux/amd64 stage-1 1/2]") && text.contains("[linux/arm64 stage-1 1/2]"), "{text}");
    let index = get(&engine, &registry, "several/app/manifests/1");
    let of: Vec<&Value> =
        index["manifests"].as_array().unwrap().iter().map(|entry| &entry["platform"]["architecture"]).collect();
    assert_eq!(of, ["amd64", "arm64"]);
    // Here it is one name, and nothing else is shown.
    assert_eq!(engine.docker(["images", "-q", "--filter", "dangling=true"]).ok(), "");
    engine.docker(["image", "prune", "-f"]).ok();
    let copy = registry.name("several/copy:1");
    engine.docker(["tag", &name, &copy]).ok();
    engine.docker(["push", "-q", &copy]).ok();
    assert_eq!(get(&engine, &registry, "several/copy/manifests/1"), index);
    if cfg!(target_arch = "x86_64") {
        assert_eq!(run(&engine, &[&copy]), "amd64");
    }
    // A build upon it finds the one that it needs.
    let upon = folder(&engine, "upon", &[("Dockerfile", &format!("FROM {copy}\nCOPY Dockerfile /d\n"))]);
    let out = engine.host().files().join("out");
    built(&engine, &upon, &[&platforms[..], &["--output", out.to_str().unwrap()]].concat());
    for arch in ["amd64", "arm64"] {
        let text = std::fs::read_to_string(out.join(format!("linux_{arch}/arch"))).unwrap();
        assert_eq!(text, format!("{arch}\n"));
    }
    // A command of another processor runs where an emulator is registered, and else it is said why not.
    let foreign = if cfg!(target_arch = "x86_64") { "arm64" } else { "amd64" };
    let lines = format!("FROM {copy}\nRUN [\"/bin/busybox\", \"true\"]\n");
    let runs = folder(&engine, "runs", &[("Dockerfile", &lines)]);
    let refused = build(&engine, &runs, &["--platform", &format!("linux/{foreign}")]);
    if refused.error_text().contains("ERROR") {
        assert!(refused.error_text().contains(&format!("cannot run a command for linux/{foreign}")), "{refused:?}");
    }
    let archive = engine.host().files().join("several.tar").display().to_string();
    built(&engine, &context, &[&platforms[..], &["-t", "a:1", "-o", &format!("type=oci,dest={archive}")]].concat());
    engine.docker(["load", "-q", "-i", &archive]).ok();
    let refused = build(&engine, &context, &[&platforms[..], &["-o", "type=docker,dest=/dev/null"]].concat());
    assert!(refused.expect_code(1).error_text().contains("manifest lists"));
    // With the last of its names all of it goes.
    engine.docker(["rmi", "-f", &name, &copy, "a:1"]).ok();
    let left = engine.docker(["images", "-aq"]).ok();
    assert_eq!(left.lines().count(), 1, "busybox: {left}");
    drop(registry);
    engine.finish();
}
