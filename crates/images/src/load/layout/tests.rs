use serde_json::{Value, json};

use super::*;

/// An archive under construction; a layer is its name alone.
struct Fixture(Archive<()>);

impl Fixture {
    fn new() -> Fixture {
        Fixture(Archive::new())
    }

    fn document(mut self, name: &str, value: &Value) -> Fixture {
        self.0.insert(name.to_owned(), Member::Document(value.to_string().into_bytes()));
        self
    }

    fn layer(mut self, name: &str) -> Fixture {
        self.0.insert(name.to_owned(), Member::Layer(()));
        self
    }

    fn link(mut self, name: &str, target: &str) -> Fixture {
        self.0.insert(name.to_owned(), Member::Link(target.to_owned()));
        self
    }

    /// Adds a document under its digest and gives its descriptor.
    fn blob(self, media_type: &str, value: &Value) -> (Fixture, Value) {
        let text = value.to_string();
        let digest = Digest::of(text.as_bytes());
        let name = blob_name(&digest);
        (self.document(&name, value), json!({"mediaType": media_type, "digest": digest, "size": text.len()}))
    }

    fn plan(&self) -> Result<Vec<PlannedImage>, LayoutError> {
        plan(&self.0, None)
    }

    fn error(&self) -> String {
        self.plan().unwrap_err().to_string()
    }
}

fn digest(seed: &str) -> Digest {
    Digest::of(seed.as_bytes())
}

fn config(layers: &[&str], architecture: &str) -> Value {
    let diff_ids: Vec<Digest> = layers.iter().map(|layer| digest(&format!("tar {layer}"))).collect();
    json!({"architecture": architecture, "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}})
}

/// An OCI image of one layer: its blobs, and the descriptor of its manifest.
fn oci_image(fixture: Fixture, layer: &str, architecture: &str) -> (Fixture, Value) {
    let (fixture, config) = fixture.blob(media_type::OCI_CONFIG, &config(&[layer], architecture));
    let blob = digest(&format!("gz {layer}"));
    let manifest = json!({"schemaVersion": 2, "config": config,
        "layers": [{"mediaType": media_type::OCI_LAYER_GZIP, "digest": blob, "size": 7}]});
    fixture.layer(&blob_name(&blob)).blob(media_type::OCI_MANIFEST, &manifest)
}

fn with(mut descriptor: Value, extra: Value) -> Value {
    let more = extra.as_object().unwrap().clone();
    descriptor.as_object_mut().unwrap().extend(more);
    descriptor
}

fn named(descriptor: Value, name: &str) -> Value {
    with(descriptor, json!({"annotations": {ANNOTATION_IMAGE_NAME: name}}))
}

fn for_platform(descriptor: Value, architecture: &str) -> Value {
    with(descriptor, json!({"platform": {"os": "linux", "architecture": architecture}}))
}

fn index(manifests: &[Value]) -> Value {
    json!({"schemaVersion": 2, "manifests": manifests})
}

fn names(image: &PlannedImage) -> Vec<String> {
    image.references.iter().map(Reference::familiar).collect()
}

fn foreign() -> &'static str {
    if cfg!(target_arch = "aarch64") { "amd64" } else { "arm64" }
}

fn host() -> String {
    Platform::host().architecture
}

#[test]
fn the_old_docker_archive() {
    let fixture = Fixture::new()
        .document("c0ffee.json", &config(&["a", "b"], "amd64"))
        .layer("one/layer.tar")
        .link("two/layer.tar", "one/layer.tar")
        .document(
            "manifest.json",
            &json!([{"Config": "c0ffee.json", "RepoTags": ["x:1", "r.io/y:2"],
            "Layers": ["one/layer.tar", "./two//layer.tar"]}]),
        );
    let images = fixture.plan().unwrap();
    assert_eq!(images.len(), 1);
    assert_eq!(names(&images[0]), ["x:1", "r.io/y:2"]);
    let expected: Vec<_> = ["a", "b"]
        .map(|layer| PlannedLayer {
            member: "one/layer.tar".to_owned(),
            blob: None,
            diff_id: DiffId(digest(&format!("tar {layer}"))),
        })
        .into();
    assert_eq!(images[0].layers, expected);
}

#[test]
fn the_new_docker_archive_states_digests() {
    let layer = blob_name(&digest("tar a"));
    let (fixture, config) = Fixture::new().layer(&layer).blob(media_type::OCI_CONFIG, &config(&["a"], "amd64"));
    let config_name = blob_name(&config["digest"].as_str().unwrap().parse().unwrap());
    let manifest = json!([{"Config": config_name, "RepoTags": null, "Layers": [layer]}]);
    // The index beside it is Docker's own second description; its names would be others.
    let fixture = fixture.document("manifest.json", &manifest).document("index.json", &json!({"not": "read"}));
    let images = fixture.plan().unwrap();
    assert_eq!(names(&images[0]), [] as [&str; 0]);
    assert_eq!(images[0].layers[0].blob, Some(digest("tar a")));
    let lying = fixture.document(&config_name, &json!({"os": "linux", "rootfs": {"type": "layers"}}));
    assert!(lying.error().contains("hashes to"), "{}", lying.error());
}

#[test]
fn an_oci_layout_with_several_images() {
    let (fixture, a) = oci_image(Fixture::new(), "a", "amd64");
    let (fixture, b) = oci_image(fixture, "b", foreign());
    let (fixture, c) = oci_image(fixture, "c", "amd64");
    let tag = |name: &str| json!({"annotations": {ANNOTATION_REF_NAME: name}});
    let fixture = fixture.document(
        "index.json",
        &index(&[
            named(a.clone(), "docker.io/library/a:1"),
            named(a, "docker.io/library/a:2"),
            with(b, tag("v1")),
            with(c, tag("example.org/c")),
        ]),
    );
    let images = fixture.plan().unwrap();
    let all: Vec<_> = images.iter().map(names).collect();
    assert_eq!(all, [vec!["a:1", "a:2"], vec![], vec!["example.org/c:latest"]]);
    assert_eq!(images[0].layers[0].blob, Some(digest("gz a")));
}

#[test]
fn a_nested_index_gives_this_machines_image() {
    let (fixture, other) = oci_image(Fixture::new(), "other", foreign());
    let (fixture, mine) = oci_image(fixture, "mine", &host());
    let attestation = json!({"mediaType": media_type::OCI_MANIFEST, "digest": digest("attestation"), "size": 1,
        "platform": {"os": "unknown", "architecture": "unknown"}});
    let missing = json!({"mediaType": media_type::OCI_MANIFEST, "digest": digest("left out"), "size": 1});
    let nested = index(&[
        for_platform(other, foreign()),
        attestation,
        for_platform(missing, &host()),
        for_platform(mine, &host()),
    ]);
    let (fixture, nested) = fixture.blob(media_type::OCI_INDEX, &nested);
    let fixture = fixture.document("index.json", &index(&[named(nested, "multi:1")]));
    let images = fixture.plan().unwrap();
    assert_eq!((images.len(), names(&images[0])), (1, vec!["multi:1".to_owned()]));
    assert_eq!(images[0].layers[0].blob, Some(digest("gz mine")));
    let wanted = |architecture: &str| platform::parse_platform(&format!("linux/{architecture}")).unwrap();
    let images = plan(&fixture.0, Some(&wanted(foreign()))).unwrap();
    assert_eq!(images[0].layers[0].blob, Some(digest("gz other")));
    let error = plan(&fixture.0, Some(&wanted("s390x"))).unwrap_err().to_string();
    assert!(error.starts_with("no image for linux/s390x in the archive: it has linux/"), "{error}");
}

#[test]
fn a_flat_index_of_platforms_is_one_image() {
    let (fixture, other) = oci_image(Fixture::new(), "other", foreign());
    let (fixture, mine) = oci_image(fixture, "mine", &host());
    let manifests = [named(for_platform(other, foreign()), "multi:1"), named(for_platform(mine, &host()), "multi:1")];
    let images = fixture.document("index.json", &index(&manifests)).plan().unwrap();
    assert_eq!(images.len(), 1);
    assert_eq!(images[0].layers[0].blob, Some(digest("gz mine")));
}

#[test]
fn a_lone_foreign_image_is_taken() {
    let (fixture, only) = oci_image(Fixture::new(), "only", foreign());
    let images = fixture.document("index.json", &index(&[for_platform(only, foreign())])).plan().unwrap();
    assert_eq!(images[0].config.architecture, foreign());
}

#[test]
fn what_is_wrong_is_said() {
    let manifest = |item: Value| Fixture::new().document("manifest.json", &json!([item]));
    let cases = [
        (Fixture::new(), "no image in the archive: it has neither manifest.json nor index.json"),
        (Fixture::new().document("manifest.json", &json!([])), "no image in the archive: manifest.json names none"),
        (Fixture::new().document("index.json", &index(&[])), "no image in the archive: index.json names none"),
        (Fixture::new().document("manifest.json", &json!({"a": 1})), "invalid manifest.json in the archive"),
        (Fixture::new().document("manifest.json", &json!([[1]])), "invalid manifest.json in the archive"),
        (manifest(json!({"Config": 7, "Layers": []})), "invalid manifest.json in the archive"),
        (
            manifest(json!({"Config": "c.json", "Layers": []})),
            "c.json is named by the archive's manifest.json but missing from the archive",
        ),
        (
            manifest(json!({"Config": "../../etc/passwd", "Layers": []})),
            "invalid path \"../../etc/passwd\" in manifest.json",
        ),
        (
            manifest(json!({"Config": "c.json", "Layers": ["a/../../x"]})).document("c.json", &config(&["a"], "amd64")),
            "invalid path \"a/../../x\" in manifest.json",
        ),
        (
            manifest(json!({"Config": "c.json", "Layers": ["c.json"]})).document("c.json", &config(&["a"], "amd64")),
            "c.json is neither a tar nor a compressed tar",
        ),
        (
            manifest(json!({"Config": "c.json", "Layers": ["l"]}))
                .document("c.json", &config(&["a"], "amd64"))
                .link("l", "l"),
            "l is named by the archive's manifest.json but missing from the archive",
        ),
        (
            manifest(json!({"Config": "c.json", "Layers": []})).document("c.json", &config(&["a"], "amd64")),
            "invalid manifest, layers length mismatch: expected 1, got 0",
        ),
        (
            manifest(json!({"Config": "c.json", "RepoTags": ["x"], "Layers": []}))
                .document("c.json", &config(&[], "amd64")),
            "invalid tag \"x\"",
        ),
        (
            manifest(json!({"Config": "c.json", "RepoTags": ["UPPER:1"], "Layers": []}))
                .document("c.json", &config(&[], "amd64")),
            "invalid tag \"UPPER:1\"",
        ),
        (
            manifest(json!({"Config": "c.json", "Layers": []})).document("c.json", &json!({"os": "windows"})),
            "image operating system \"windows\" cannot be used on this platform",
        ),
        (
            manifest(json!({"Config": "c.json", "Layers": []})).document("c.json", &json!(["not", "an", "object"])),
            "invalid c.json in the archive",
        ),
    ];
    for (fixture, message) in cases {
        assert_eq!(fixture.error(), message);
    }
}

#[test]
fn oci_documents_are_checked_too() {
    let (fixture, image) = oci_image(Fixture::new(), "a", "amd64");
    let digest_text = image["digest"].as_str().unwrap().to_owned();
    let name = blob_name(&digest_text.parse().unwrap());
    let fixture = fixture.document("index.json", &index(&[image]));
    assert!(fixture.plan().is_ok());
    let fixture = fixture.document(&name, &json!({"schemaVersion": 2}));
    assert!(fixture.error().starts_with(&format!("{name} hashes to sha256:")), "{}", fixture.error());

    let artifact =
        json!({"schemaVersion": 2, "config": {"mediaType": media_type::OCI_EMPTY, "digest": digest("{}"), "size": 2}});
    let (fixture, artifact) = Fixture::new().blob(media_type::OCI_MANIFEST, &artifact);
    let fixture = fixture.document("index.json", &index(&[artifact]));
    assert!(fixture.error().starts_with("unsupported media type \"application/vnd.oci.empty.v1+json\""));

    let (mut fixture, mut nested) = Fixture::new().blob(media_type::OCI_INDEX, &index(&[]));
    for _ in 0..6 {
        (fixture, nested) = fixture.blob(media_type::OCI_INDEX, &index(&[nested]));
    }
    let fixture = fixture.document("index.json", &index(&[nested]));
    assert_eq!(fixture.error(), "indexes are nested more than 4 deep");
}

#[test]
fn documents_have_limits() {
    let mut fixture = Fixture::new();
    fixture.0.insert("manifest.json".to_owned(), Member::Unknown { size_bytes: 1 << 30 });
    assert_eq!(fixture.error(), "manifest.json is larger than 4194304 bytes");
    fixture.0.insert("manifest.json".to_owned(), Member::Document(vec![b' '; MANIFEST_BYTES_MAX + 1]));
    assert_eq!(fixture.error(), "manifest.json is larger than 4194304 bytes");
}

#[test]
fn names_are_normalised() {
    for (name, expected) in [
        ("a/b", Some("a/b")),
        ("./a//b/", Some("a/b")),
        ("a/../b", Some("b")),
        ("/a", Some("a")),
        ("..", None),
        ("a/../../b", None),
        ("", None),
        (".", None),
    ] {
        assert_eq!(normalised(name).as_deref(), expected, "{name}");
    }
}

proptest::proptest! {
    /// Whatever the documents say, there is an answer.
    #[test]
    fn no_document_makes_it_panic(text in r#"[\[\]{}":,a-zA-Z0-9 ./]{0,200}"#, index in proptest::bool::ANY) {
        let mut archive: Archive<()> = Archive::new();
        let name = if index { "index.json" } else { "manifest.json" };
        archive.insert(name.to_owned(), Member::Document(text.into_bytes()));
        let _ = plan(&archive, None);
    }
}
