//! What stays, what goes, and what a damaged disk does.

use std::sync::Arc;

use images::{
    ContainerUse, ErrorKind, Force, NewImage, ParentImages, Removal, RemoveRequest, ResolveError, Running, TagError,
};
use oci::Reference;

use crate::fixtures::{Picture, Site, Users, layer};

const PLAIN: RemoveRequest = RemoveRequest { force: Force::No, parents: ParentImages::Remove };
const FORCED: RemoveRequest = RemoveRequest { force: Force::Yes, parents: ParentImages::Remove };

fn picture() -> Picture {
    Picture::new(&[layer("a", 1000), layer("b", 10)], &["app:1"])
}

fn loaded() -> Site {
    let site = Site::new();
    site.load(&Picture::old_archive(&[picture()])).unwrap();
    site
}

fn reference(text: &str) -> Reference {
    Reference::parse(text).unwrap()
}

fn config_path(site: &Site) -> std::path::PathBuf {
    let id = site.store.resolve("app:1").unwrap().id;
    site.root().join("blobs/sha256").join(id.hex())
}

#[test]
fn images_survive_the_store() {
    let site = loaded();
    assert_eq!(site.store.resolve("app:1").unwrap().last_tagged, None, "its tag came with it");
    site.store.tag("app:1", &reference("example.org/app:2")).unwrap();
    let before = site.store.resolve("app:1").unwrap();
    let site = site.reopened();
    assert_eq!(site.store.problems(), []);
    assert_eq!(site.store.resolve("example.org/app:2").unwrap(), before);
    assert_eq!(before.created.unwrap().to_string(), "2024-01-02T03:04:05Z");
    assert!(before.last_tagged.is_some());
}

#[test]
fn tags_are_checked() {
    let site = loaded();
    let error = |source: &str, target: Reference| site.store.tag(source, &target).unwrap_err();
    let digest = reference(&format!("app@{}", picture().id()));
    assert!(matches!(error("app:1", digest), TagError::Digest));
    assert!(matches!(error("app:1", reference("sha256:x")), TagError::Ambiguous));
    assert_eq!(error("nope", reference("x")).kind(), ErrorKind::NotFound);
    assert_eq!(site.store.tag("app:1", &reference("new")).unwrap().tags, [reference("app:1"), reference("new:latest")]);
}

#[test]
fn removing_the_last_name_removes_everything() {
    let site = loaded();
    site.set_no_users();
    let removals = site.store.remove("app:1", &PLAIN).unwrap();
    assert_eq!(removals.len(), 4, "{removals:?}");
    assert!(matches!(removals[1], Removal::Deleted { .. }));
    site.assert_empty();
    site.reopened().assert_empty();
}

#[test]
fn shared_layers_stay() {
    let site = loaded();
    site.set_no_users();
    let other = Picture::new(&[layer("a", 1000)], &["other:1"]);
    site.load(&Picture::old_archive(std::slice::from_ref(&other))).unwrap();
    site.store.remove("app:1", &PLAIN).unwrap();
    assert_eq!(site.layers(), site.store.resolve("other:1").unwrap().layers);
}

#[test]
fn a_container_keeps_its_layers() {
    let site = loaded();
    let image = site.store.resolve("app:1").unwrap();
    let users = Arc::new(Users::default());
    let user =
        ContainerUse { container: "c".repeat(64), image: image.id, layers: image.layers.clone(), running: Running::No };
    users.0.lock().unwrap().push(user);
    site.store.set_users(users.clone()).unwrap();
    assert_eq!(site.store.remove("app:1", &PLAIN).unwrap_err().kind(), ErrorKind::Conflict);
    let removals = site.store.remove(&image.id.short(), &FORCED).unwrap();
    assert_eq!(removals.len(), 2, "{removals:?}");
    assert_eq!(site.layers().len(), 2);
    users.0.lock().unwrap().clear();
    site.store.container_gone(&image.layers).unwrap();
    site.assert_empty();
}

#[test]
fn nothing_is_deleted_while_there_is_a_lease() {
    let site = loaded();
    site.set_no_users();
    let lease = site.store.lease();
    site.store.remove("app:1", &PLAIN).unwrap();
    assert_eq!(site.layers().len(), 2);
    drop(lease);
    site.store.container_gone(&[]).unwrap();
    site.assert_empty();
}

#[test]
fn layers_of_a_crash_go_when_the_containers_are_known() {
    let site = loaded();
    let mut writer = site.snapshotter.stage().unwrap();
    std::io::Write::write_all(&mut writer, &layer("orphan", 10)).unwrap();
    writer.finish(None).unwrap();
    let site = site.reopened();
    assert_eq!(site.layers().len(), 3, "until then it could be a container's");
    site.set_no_users();
    assert_eq!(site.layers().len(), 2);
}

#[test]
fn images_can_be_made_of_layers_that_are_here() {
    let site = loaded();
    let parent = site.store.resolve("app:1").unwrap();
    let mut config = (*parent.config).clone();
    config.comment = "committed".to_owned();
    let new = NewImage {
        config: serde_json::to_vec(&config).unwrap(),
        references: vec![reference("child")],
        parent: Some(parent.id),
    };
    let child = site.store.create(new).unwrap();
    assert_eq!((child.parent, child.layers.clone()), (Some(parent.id), parent.layers.clone()));
    let error = site.store.remove(&parent.id.short(), &FORCED).unwrap_err();
    assert!(error.to_string().ends_with("(cannot be forced) - image has dependent child images"), "{error}");
    config.rootfs.diff_ids.push(oci::DiffId(oci::Digest::of(b"nowhere")));
    let config = serde_json::to_vec(&config).unwrap();
    let error = site.store.create(NewImage { config, references: Vec::new(), parent: None }).unwrap_err();
    assert!(error.to_string().starts_with("layer sha256:"), "{error}");
}

/// Damages the store, opens it again, and sees that the image is reported, refused, and healed by loading it again.
fn damaged(damage: impl Fn(&Site), expected: &str) {
    let site = loaded();
    damage(&site);
    let site = site.reopened();
    let problems = site.store.problems();
    assert!(problems.len() == 1 && problems[0].reason.contains(expected), "{problems:?}");
    let error = site.store.resolve("app:1").unwrap_err();
    assert!(matches!(&error, ResolveError::Damaged { reason, .. } if reason.contains(expected)), "{error}");
    site.load(&Picture::old_archive(&[picture()])).unwrap();
    assert_eq!(site.store.resolve("app:1").unwrap().id.to_string(), picture().id());
    let site = site.reopened();
    assert_eq!(site.store.problems(), []);
    // And what nobody heals can be removed.
    damage(&site);
    let site = site.reopened();
    site.set_no_users();
    assert_eq!(site.store.remove("app:1", &PLAIN).unwrap().len(), 2);
    assert_eq!(site.reopened().store.problems(), []);
}

#[test]
fn a_configuration_that_changed() {
    damaged(
        |site| std::fs::write(config_path(site), b"{}").unwrap(),
        "its configuration is not the one that was stored",
    );
}

#[test]
fn a_configuration_that_is_gone() {
    damaged(|site| std::fs::remove_file(config_path(site)).unwrap(), "No such file");
}

#[test]
fn a_record_that_is_cut_off() {
    let cut = |site: &Site| {
        let id = site.store.resolve("app:1").unwrap().id;
        std::fs::write(site.root().join(format!("images/sha256/{}.json", id.hex())), b"{\"version\":1,").unwrap();
    };
    damaged(cut, "malformed record");
}

#[test]
fn a_layer_that_is_gone() {
    let remove = |site: &Site| {
        let layer = site.store.resolve("app:1").unwrap().layers[0];
        site.snapshotter.remove(&layer).unwrap();
    };
    damaged(remove, "is missing");
}

#[test]
fn names_that_are_lost_are_reported() {
    let site = loaded();
    let id = site.store.resolve("app:1").unwrap().id;
    std::fs::write(site.root().join("images/references.json"), b"not json").unwrap();
    let site = site.reopened();
    assert!(site.store.problems()[0].reason.contains("malformed record"), "{:?}", site.store.problems());
    assert!(site.store.resolve(&id.to_string()).unwrap().tags.is_empty());
    assert_eq!(site.reopened().store.problems(), [], "it was set aside");
}

#[test]
fn prune_frees_what_it_says() {
    let site = loaded();
    site.set_no_users();
    let filters = images::PruneFilters {
        dangling: images::Dangling::AllUnused,
        labels: Vec::new(),
        without_labels: Vec::new(),
        until: None,
        unused_since: None,
    };
    let pruned = site.store.prune(&filters).unwrap();
    let bytes: u64 = picture().layers.iter().map(|layer| layer.len() as u64).sum();
    assert_eq!(pruned.reclaimed_bytes, bytes);
    site.assert_empty();
}

#[test]
fn pins_survive_and_go_with_what_was_pinned() {
    use images::{Pin, Pinning};
    let site = loaded();
    let id = site.store.resolve("app:1").unwrap().id;
    let pins = |site: &Site| site.store.resolve("app:1").unwrap().pins.clone();
    site.store.pin("app:1", Pinning::On).unwrap();
    site.store.pin(&id.short(), Pinning::On).unwrap();
    let site = site.reopened();
    site.set_no_users();
    assert_eq!(pins(&site), [Pin::Image, Pin::Name(reference("app:1"))]);
    let everything = images::PruneFilters {
        dangling: images::Dangling::AllUnused,
        labels: Vec::new(),
        without_labels: Vec::new(),
        until: None,
        unused_since: None,
    };
    assert_eq!(site.store.prune(&everything).unwrap().removals, []);
    // The name's pin stays with the name, whatever it means.
    site.load(&Picture::old_archive(&[Picture::new(&[layer("other", 10)], &["app:1"])])).unwrap();
    assert_eq!(pins(&site), [Pin::Name(reference("app:1"))]);
    site.store.pin("app:1", Pinning::Off).unwrap();
    let error = site.store.pin("app:1", Pinning::Off).unwrap_err();
    assert_eq!(error.to_string(), "image app:1 is not pinned by that name: nothing pins it");
    site.store.pin(&id.hex(), Pinning::Off).unwrap();
    let planned = site.store.plan_prune(&everything);
    let pruned = site.store.prune(&everything).unwrap();
    assert_eq!((planned.removals.clone(), planned.reclaimed_bytes), (pruned.removals, pruned.reclaimed_bytes));
    assert!(pruned.reclaimed_bytes > 0);
    site.assert_empty();
}

#[test]
fn what_a_registry_says_about_an_image_is_kept_with_it() {
    use images::{Origin, Pulled, PulledIndex, PulledManifest, Signature, Source};
    let site = loaded();
    site.set_no_users();
    let image = site.store.resolve("app:1").unwrap();
    let statement = b"{\"predicate\":1}".to_vec();
    let manifest = |layer: &[u8]| PulledManifest {
        media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
        document: format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"c","digest":"{0}","size":1}},"layers":[{{"mediaType":"l","digest":"{0}","size":1}}]}}"#,
            oci::Digest::of(layer)
        ),
    };
    let digest = oci::Digest::of(b"index");
    let source = Source::Registry {
        reference: "docker.io/library/app:1".to_owned(),
        digest,
        manifest: digest,
        server: "https://r".to_owned(),
    };
    let signatures = vec![Signature { payload: "{}".to_owned(), signature: "AA==".to_owned() }];
    let pulled = Pulled {
        manifest: manifest(b"x"),
        index: Some(PulledIndex {
            media_type: "i".to_owned(),
            document: "{}".to_owned(),
            attestations: vec![manifest(&statement)],
            images: Vec::new(),
        }),
        blobs: vec![statement.clone()],
        origin: Origin { source: source.clone(), time: jiff::Timestamp::UNIX_EPOCH, signatures },
    };
    let new = NewImage { config: image.config_bytes.to_vec(), references: vec![reference("app:2")], parent: None };
    site.store.create_pulled(new, pulled).unwrap();
    let site = site.reopened();
    site.set_no_users();
    let image = site.store.resolve("app:2").unwrap();
    let sources: Vec<&Source> = image.origins().iter().map(|origin| &origin.source).collect();
    assert_eq!(sources, [&source, &Source::Archive]);
    let blob = image.index.as_ref().unwrap().blobs()[0];
    assert_eq!(site.store.blob(&blob).unwrap(), statement);
    site.store.remove(&image.id.hex(), &FORCED).unwrap();
    site.assert_empty();
}
