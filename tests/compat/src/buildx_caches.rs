//! Caches of builds that travel: to a registry, into a folder, within an image; and a second engine that has nothing else.

use std::collections::BTreeSet;
use std::path::Path;

use harness::{Engine, Host, Program, busybox_tar};
use serde_json::Value;

use crate::build::{folder, run};
use crate::buildx::{build, built, with_buildx};
use crate::image_copy::Other;
use crate::registry_server::engine_and_registry;

/// Two stages, each with commands that leave a trace in a folder of the host where they have run.
const DOCKERFILE: &str = "FROM busybox AS made\nARG WHO=you\nRUN echo \"$WHO $RANDOM\" > /random\n\
    RUN --mount=type=bind,source=input,target=/ctx cat /ctx/word > /word\nRUN true\n\
    FROM busybox\nENV A=1\nWORKDIR /srv\nCOPY --from=made /random /word ./\nCOPY --link input /input\nRUN cat random word > all; echo $RANDOM >> all\nCMD [\"cat\", \"/srv/all\"]\n";

fn context(engine: &Engine, name: &str) -> std::path::PathBuf {
    folder(engine, name, &[("Dockerfile", DOCKERFILE), ("input/word", "word\n"), ("other", "1")])
}

/// How many commands ran, by what was told.
fn ran(text: &str) -> usize {
    let commands: Vec<(&str, &str)> =
        text.lines().filter(|line| line.contains("] RUN ")).filter_map(|line| line.split_once(' ')).collect();
    assert!(!commands.is_empty(), "{text}");
    let cached = |number: &str| text.lines().any(|line| line == format!("{number} CACHED"));
    let titles: BTreeSet<&str> =
        commands.into_iter().filter(|(number, _)| !cached(number)).map(|(_, title)| title).collect();
    titles.len()
}

impl Other {
    fn build(&self, engine: &Engine, folder: &Path, arguments: &[&str]) -> String {
        let all = [&["build", "--progress=plain"], arguments, &[folder.to_str().unwrap()]].concat();
        let output = with_buildx(engine.host(), self.docker(engine, &all)).run().expect_code(0);
        output.error_text() + &output.text()
    }

    fn with_busybox(engine: &Engine) -> Other {
        let other = Other::start(engine);
        let import = ["import", "--change", "CMD [\"sh\"]", "-", "busybox:latest"];
        other.docker(engine, &import).input(busybox_tar()).ok();
        other
    }
}

fn document(host: &Host, url: &str, kinds: &str) -> Value {
    let accept = format!("Accept: {kinds}");
    host.program("curl").args(["-sS", "-f", "-H", &accept, url]).run().expect_code(0).json()
}

/// Builds on one engine, exports, builds on another that has nothing but the export, and compares.
fn travels(name: &str, export: &str, import: &str) {
    let (engine, registry) = engine_and_registry();
    let first = context(&engine, name);
    let cache = engine.host().files().join("cache").display().to_string();
    let place = |text: &str| text.replace("REGISTRY", &registry.address).replace("CACHE", &cache);
    let (export, import) = (place(export), place(import));
    let text = built(&engine, &first, &["-t", "made", "--cache-to", &export]);
    assert_eq!(ran(&text), 4, "{text}");
    let made = run(&engine, &["made"]);
    if export.contains("inline") {
        let pushed = registry.name("app:cached");
        engine.docker(["tag", "made", &pushed]).ok();
        engine.docker(["push", "-q", &pushed]).ok();
    }
    let other = Other::with_busybox(&engine);
    // The same files, written later.
    let second = context(&engine, &format!("{name}-again"));
    let text = other.build(&engine, &second, &["-t", "made", "--cache-from", &import]);
    assert_eq!(ran(&text), 0, "{text}");
    let docker = |arguments: &[&str]| other.docker(&engine, arguments).ok();
    assert_eq!(docker(&["run", "--rm", "made"]), made);
    let inspect = ["image", "inspect", "-f", "{{json .RootFS.Layers}} {{.Created}}", "made"];
    assert_eq!(docker(&inspect), engine.docker(inspect).ok());
    // A changed file makes its step run, and what needs it.
    std::fs::write(second.join("input/word"), "other\n").unwrap();
    docker(&["builder", "prune", "-af"]);
    let text = other.build(&engine, &second, &["-t", "changed", "--cache-from", &import]);
    assert_eq!(ran(&text), if export.contains("max") { 3 } else { 4 }, "{text}");
    assert!(docker(&["run", "--rm", "changed"]).contains("other"));
    other.finish(&engine);
    drop(registry);
    engine.finish();
}

#[test]
fn a_cache_in_a_registry_is_all_that_another_engine_needs() {
    travels("registry", "type=registry,ref=REGISTRY/app:cache,mode=max", "type=registry,ref=REGISTRY/app:cache");
}

#[test]
fn so_is_one_of_the_results_layers_alone() {
    let form = "type=registry,ref=REGISTRY/app:cache,mode=min,image-manifest=false";
    travels("min", form, "REGISTRY/app:cache");
}

#[test]
fn so_is_a_folder() {
    travels("folder", "type=local,dest=CACHE,mode=max,oci-mediatypes=false", "type=local,src=CACHE");
}

#[test]
fn so_is_an_image_that_tells_of_its_steps() {
    travels("inline", "type=inline", "type=registry,ref=REGISTRY/app:cached");
}

#[test]
fn caches_are_written_as_buildkit_writes_them() {
    let (engine, registry) = engine_and_registry();
    let context = context(&engine, "forms");
    let url = |tag: &str| format!("http://{}/v2/app/manifests/{tag}", registry.address);
    let oci = "application/vnd.oci.image";
    for (tag, more, kind) in [
        ("plain", "", format!("{oci}.manifest.v1+json")),
        ("index", ",image-manifest=false", format!("{oci}.index.v1+json")),
        ("docker", ",oci-mediatypes=false", "application/vnd.docker.distribution.manifest.list.v2+json".to_owned()),
    ] {
        let export = format!("type=registry,mode=max,ref={}{more}", registry.name(&format!("app:{tag}")));
        built(&engine, &context, &["--cache-to", &export]);
        let manifest = document(engine.host(), &url(tag), &kind);
        assert_eq!(manifest["mediaType"], kind.as_str());
        let layers = if tag == "plain" { "layers" } else { "manifests" };
        let blobs = manifest[layers].as_array().unwrap().clone();
        let config = if tag == "plain" { &manifest["config"] } else { blobs.last().unwrap() };
        assert_eq!(config["mediaType"], "application/vnd.buildkit.cacheconfig.v0", "{manifest}");
        let config = format!("http://{}/v2/app/blobs/{}", registry.address, config["digest"].as_str().unwrap());
        let config = document(engine.host(), &config, "*/*");
        assert_eq!(config["records"].as_array().unwrap().len(), 7, "{config}");
        assert_eq!(config["layers"][0]["parent"], -1);
    }
    drop(registry);
    engine.finish();
}

#[test]
fn a_cache_that_cannot_be_read_stops_nobody() {
    let (engine, registry) = engine_and_registry();
    let context = context(&engine, "missing");
    let missing = registry.name("no/such:cache");
    let text = built(&engine, &context, &["--cache-from", &missing]);
    assert!(text.contains(&format!("importing cache manifest from {missing}")) && text.contains("ERROR"), "{text}");
    assert_eq!(ran(&text), 4);
    for kind in ["gha,url=x,token=y", "s3,bucket=b,region=r", "azblob,account_url=x,name=n", "odd"] {
        let name = kind.split(',').next().unwrap();
        for way in ["--cache-to", "--cache-from"] {
            let refused = build(&engine, &context, &[way, &format!("type={kind}")]).expect_code(1);
            assert!(refused.error_text().contains(&format!("{name:?}")), "{way} {refused:?}");
        }
    }
    let nowhere = "type=registry,ref=127.0.0.1:1/nobody:listens";
    let failed = build(&engine, &context, &["--cache-to", nowhere]).expect_code(1);
    assert!(failed.error_text().contains("127.0.0.1:1"), "{failed:?}");
    built(&engine, &context, &["--cache-to", &format!("{nowhere},ignore-error=true")]);
    drop(registry);
    engine.finish();
}

#[test]
fn layers_that_a_cache_has_lost_are_made_again() {
    let engine = Engine::with_busybox();
    let context = context(&engine, "lost");
    let cache = engine.host().files().join("lost-cache");
    built(&engine, &context, &["--cache-to", &format!("type=local,dest={},mode=max", cache.display())]);
    let other = Other::with_busybox(&engine);
    for blob in std::fs::read_dir(cache.join("blobs/sha256")).unwrap().flatten() {
        let bytes = std::fs::read(blob.path()).unwrap();
        if bytes.starts_with(&[0x1f, 0x8b]) {
            // One is gone, one is another.
            if bytes.len() % 2 == 0 {
                std::fs::remove_file(blob.path()).unwrap();
            } else {
                std::fs::write(blob.path(), b"no layer at all").unwrap();
            }
        }
    }
    let from = format!("type=local,src={}", cache.display());
    let text = other.build(&engine, &context, &["-t", "made", "--cache-from", &from]);
    assert!(text.contains("cannot be had") || text.contains("RUN"), "{text}");
    assert!(other.docker(&engine, &["run", "--rm", "made"]).ok().contains("word"));
    other.finish(&engine);
    engine.finish();
}

#[test]
fn an_ordinary_image_is_a_cache_where_its_history_says_the_same() {
    let (engine, registry) = engine_and_registry();
    let lines = "FROM busybox\nENV A=1\nCOPY input /input\nRUN echo $RANDOM > /random\n";
    let files = [("Dockerfile", lines), ("input/word", "word\n")];
    let first = folder(&engine, "ordinary", &files);
    let name = registry.name("ordinary:1");
    built(&engine, &first, &["-t", &name]);
    engine.docker(["push", "-q", &name]).ok();
    let layers = |docker: &dyn Fn(&[&str]) -> Program, image: &str| {
        docker(&["image", "inspect", "-f", "{{json .RootFS.Layers}}", image]).ok()
    };
    let expected = layers(&|arguments| engine.docker(arguments), &name);
    let other = Other::with_busybox(&engine);
    let second = folder(&engine, "ordinary-again", &files);
    let classic = |arguments: &[&str], context: &Path| {
        let all = [&["build"], arguments, &[context.to_str().unwrap()]].concat();
        other.docker(&engine, &all).env("DOCKER_BUILDKIT", "0").run().expect_code(0).text()
    };
    // Docker's classic builder asks images that are here.
    let text = classic(&["-t", "none", "--cache-from", &name], &second);
    assert!(!text.contains("Using cache"), "{text}");
    other.docker(&engine, &["builder", "prune", "-af"]).ok();
    other.docker(&engine, &["pull", "-q", &name]).ok();
    let text = classic(&["-t", "like", "--cache-from", &name], &second);
    assert_eq!(text.matches("Using cache").count(), 3, "{text}");
    let own = |arguments: &[&str]| other.docker(&engine, arguments);
    assert_eq!(layers(&own, "like"), expected);
    // What the image has of other files is not taken, but what stands before them is.
    std::fs::write(second.join("input/word"), "other\n").unwrap();
    let text = classic(&["-t", "like", "--cache-from", &name], &second);
    assert_eq!(text.matches("Using cache").count(), 1, "{text}");
    // As in Docker nothing but the named images counts.
    let text = classic(&["-t", "like", "--cache-from", "no/such"], &second);
    assert!(!text.contains("Using cache"), "{text}");
    // BuildKit's face reads it where it is.
    other.docker(&engine, &["rmi", "-f", "like", "none", &name]).ok();
    other.docker(&engine, &["builder", "prune", "-af"]).ok();
    std::fs::write(second.join("input/word"), "word\n").unwrap();
    let text = other.build(&engine, &second, &["-t", "like", "--cache-from", &name]);
    assert_eq!(ran(&text), 0, "{text}");
    assert_eq!(layers(&own, "like"), expected);
    other.finish(&engine);
    drop(registry);
    engine.finish();
}

#[test]
fn conex_build_takes_and_gives_caches() {
    let (engine, registry) = engine_and_registry();
    let first = context(&engine, "own");
    let cache = engine.host().files().join("own-cache").display().to_string();
    let there = registry.name("own:cache");
    let conex = |address: &str, arguments: &[&str], folder: &Path| {
        let all = [&["-H", address, "build", "--progress=plain"], arguments, &[folder.to_str().unwrap()]].concat();
        let output = engine.host().conex().args(all).run().expect_code(0);
        output.error_text() + &output.text()
    };
    let to = [format!("type=local,dest={cache},mode=max"), format!("type=registry,ref={there},mode=max")];
    conex(&engine.address(), &["-t", "made", "--cache-to", &to[0], "--cache-to", &to[1]], &first);
    let made = run(&engine, &["made"]);
    let other = Other::with_busybox(&engine);
    let second = context(&engine, "own-again");
    for from in [format!("type=local,src={cache}"), there] {
        conex(&other.address(), &["-t", "made", "--cache-from", &from], &second);
        assert_eq!(other.docker(&engine, &["run", "--rm", "made"]).ok(), made, "{from}");
        other.docker(&engine, &["rmi", "-f", "made"]).ok();
        other.docker(&engine, &["builder", "prune", "-af"]).ok();
    }
    let text = conex(&other.address(), &["-t", "made", "--cache-from", "type=local,src=/does/not/exist"], &second);
    assert!(text.contains("not found"), "{text}");
    let refused = engine.conex(["build", "--cache-to", "type=gha", second.to_str().unwrap()]).run();
    assert!(refused.error_text().contains("gha"), "{refused:?}");
    other.finish(&engine);
    drop(registry);
    engine.finish();
}

#[test]
fn conex_build_sends_results_where_they_are_wanted() {
    let (engine, registry) = engine_and_registry();
    let lines = "FROM busybox AS made\nRUN mkdir /out && echo 1 > /out/a && ln -s a /out/link\nFROM scratch\nCOPY --from=made /out /\n";
    let context = folder(&engine, "sent", &[("Dockerfile", lines)]);
    let files = engine.host().files();
    let path = |name: &str| files.join(name).display().to_string();
    let conex = |arguments: &[&str]| {
        let all = [&["build", "--progress=plain"], arguments, &[context.to_str().unwrap()]].concat();
        engine.conex(all).run()
    };
    let outputs =
        [path("folder"), format!("type=tar,dest={}", path("a.tar")), format!("type=oci,dest={}", path("oci.tar"))];
    conex(&["-t", "sent:1", "-o", &outputs[0], "-o", &outputs[1], "-o", &outputs[2]]).expect_code(0);
    assert_eq!(std::fs::read_to_string(files.join("folder/a")).unwrap(), "1\n");
    assert_eq!(std::fs::read_link(files.join("folder/link")).unwrap(), Path::new("a"));
    let listed = engine.host().program("tar").args(["-tf", &path("a.tar")]).ok();
    assert_eq!(listed.lines().collect::<Vec<_>>(), ["a", "link"]);
    // Nothing was stored for what went elsewhere.
    assert!(!engine.docker(["images", "--format", "{{.Repository}}"]).ok().contains("sent"));
    engine.docker(["load", "-q", "-i", &path("oci.tar")]).ok();
    let loaded = engine.docker(["image", "inspect", "-f", "{{.Id}}", "sent:1"]).ok();
    engine.docker(["rmi", "sent:1"]).ok();
    let docker = format!("type=docker,dest={}", path("docker.tar"));
    let ids = [path("id"), path("metadata.json")];
    conex(&["-t", "sent:2", "-o", &docker, "--load", "--iidfile", &ids[0], "--metadata-file", &ids[1]]).expect_code(0);
    assert_eq!(engine.docker(["image", "inspect", "-f", "{{.Id}}", "sent:2"]).ok(), loaded);
    assert_eq!(std::fs::read_to_string(&ids[0]).unwrap(), loaded);
    let metadata: Value = serde_json::from_slice(&std::fs::read(&ids[1]).unwrap()).unwrap();
    assert_eq!(
        (&metadata["containerimage.config.digest"], &metadata["image.name"]),
        (&loaded.into(), &"sent:2".into())
    );
    let name = registry.name("sent:3");
    conex(&["-t", &name, "--push", "--provenance=mode=max"]).expect_code(0);
    let url = format!("http://{}/v2/sent/manifests/3", registry.address);
    let index = document(engine.host(), &url, "application/vnd.oci.image.index.v1+json");
    assert_eq!(index["manifests"].as_array().unwrap().len(), 2, "{index}");
    let refused = conex(&["-o", "type=odd"]);
    assert!(refused.error_text().contains("odd"), "{refused:?}");
    drop(registry);
    engine.finish();
}
