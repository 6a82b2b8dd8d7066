use super::*;
use crate::testing::{canonical, catalogue, container, id, image};

const PLAIN: RemoveRequest = RemoveRequest { force: Force::No, parents: ParentImages::Remove };
const FORCED: RemoveRequest = RemoveRequest { force: Force::Yes, parents: ParentImages::Remove };

/// What `docker rmi` prints, with an image by its name in the test and a layer by the word `layer`.
fn lines(images: &[&str], removals: &[Removal]) -> Vec<String> {
    let line = |removal: &Removal| match removal {
        Removal::Untagged { reference, .. } => format!("Untagged: {}", reference.familiar()),
        Removal::Deleted { image } => {
            let name = images.iter().find(|name| id(name) == *image).unwrap();
            format!("Deleted: {name}")
        }
        Removal::DeletedLayer { .. } => "layer".to_owned(),
    };
    removals.iter().map(line).collect()
}

fn check(
    catalogue: &Catalogue,
    containers: &[ContainerUse],
    name: &str,
    request: &RemoveRequest,
) -> Result<Vec<String>, String> {
    let mut removing = Removing::new(catalogue, containers);
    removing.remove(name, request).map_err(|error| error.to_string())?;
    Ok(lines(&["a", "b", "c", "base", "middle", "top"], &removing.removals))
}

#[test]
fn a_name_goes_alone_while_there_are_others() {
    let catalogue = catalogue(vec![image("a", None, "x", 0)], &[("web:1", "a"), ("web:2", "a"), ("other:1", "a")]);
    assert_eq!(check(&catalogue, &[], "web:1", &PLAIN).unwrap(), ["Untagged: web:1"]);
}

#[test]
fn the_last_name_takes_the_image_along() {
    let catalogue = catalogue(vec![image("a", None, "xy", 0), image("b", None, "x", 0)], &[("web:latest", "a")]);
    let expected = ["Untagged: web:latest", "Deleted: a", "layer"];
    assert_eq!(check(&catalogue, &[], "web", &PLAIN).unwrap(), expected, "layer x stays, b has it");
}

#[test]
fn a_digest_of_the_same_repository_goes_with_its_last_tag() {
    let digest = canonical("web");
    let catalogue = catalogue(vec![image("a", None, "x", 0)], &[("web:1", "a"), (&digest, "a")]);
    let expected =
        vec!["Untagged: web:1".to_owned(), format!("Untagged: {digest}"), "Deleted: a".into(), "layer".into()];
    assert_eq!(check(&catalogue, &[], "web:1", &PLAIN).unwrap(), expected);
}

#[test]
fn an_id_with_several_names_needs_force() {
    let catalogue = catalogue(vec![image("a", None, "x", 0)], &[("web:1", "a"), ("other:1", "a")]);
    let short = id("a").short();
    let message =
        format!("conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories");
    assert_eq!(check(&catalogue, &[], &short, &PLAIN), Err(message));
    let expected = ["Untagged: other:1", "Untagged: web:1", "Deleted: a", "layer"];
    assert_eq!(check(&catalogue, &[], &short, &FORCED).unwrap(), expected);
}

#[test]
fn an_id_with_one_name_does_not() {
    let catalogue = catalogue(vec![image("a", None, "x", 0)], &[("web:1", "a")]);
    let expected = ["Untagged: web:1", "Deleted: a", "layer"];
    assert_eq!(check(&catalogue, &[], &id("a").hex()[..20], &PLAIN).unwrap(), expected);
    assert_eq!(check(&catalogue, &[], &id("a").to_string(), &PLAIN).unwrap(), expected);
}

#[test]
fn a_container_keeps_the_last_name() {
    let used = image("a", None, "x", 0);
    let containers = [container('c', &used, Running::Yes)];
    let catalogue = catalogue(vec![used], &[("web:1", "a")]);
    let message = format!(
        "conflict: unable to remove repository reference \"web:1\" (must force) - container cccccccccccc is using its referenced image {}",
        id("a").short()
    );
    assert_eq!(check(&catalogue, &containers, "web:1", &PLAIN), Err(message));
    // Forced, the name goes and the image silently stays.
    assert_eq!(check(&catalogue, &containers, "web:1", &FORCED).unwrap(), ["Untagged: web:1"]);
}

#[test]
fn a_running_container_keeps_its_image_even_from_force() {
    let used = image("a", None, "x", 0);
    let containers = [container('c', &used, Running::Yes)];
    let catalogue = catalogue(vec![used], &[("web:1", "a")]);
    let short = id("a").short();
    for request in [PLAIN, FORCED] {
        let message = format!(
            "conflict: unable to delete {short} (cannot be forced) - image is being used by running container cccccccccccc"
        );
        assert_eq!(check(&catalogue, &containers, &short, &request), Err(message));
    }
}

#[test]
fn a_stopped_container_keeps_its_image_from_less_than_force() {
    let used = image("a", None, "x", 0);
    let containers = [container('c', &used, Running::No)];
    let catalogue = catalogue(vec![used], &[("web:1", "a")]);
    let short = id("a").short();
    let message = format!(
        "conflict: unable to delete {short} (must be forced) - image is being used by stopped container cccccccccccc"
    );
    assert_eq!(check(&catalogue, &containers, &short, &PLAIN), Err(message));
    // The layers are still the container's.
    assert_eq!(check(&catalogue, &containers, &short, &FORCED).unwrap(), ["Untagged: web:1", "Deleted: a"]);
}

fn family() -> Catalogue {
    let images = vec![
        image("base", None, "x", 1),
        image("middle", Some("base"), "xy", 2),
        image("top", Some("middle"), "xyz", 3),
    ];
    catalogue(images, &[("app:1", "top")])
}

#[test]
fn parents_that_nothing_needs_go_too() {
    let expected = ["Untagged: app:1", "Deleted: top", "layer", "Deleted: middle", "layer", "Deleted: base", "layer"];
    assert_eq!(check(&family(), &[], "app:1", &PLAIN).unwrap(), expected);
    let keep = RemoveRequest { force: Force::No, parents: ParentImages::Keep };
    assert_eq!(check(&family(), &[], "app:1", &keep).unwrap(), ["Untagged: app:1", "Deleted: top", "layer"]);
}

#[test]
fn a_named_parent_stays() {
    let images = vec![image("base", None, "x", 1), image("top", Some("base"), "xz", 3)];
    let catalogue = catalogue(images, &[("app:1", "top"), ("base:1", "base")]);
    assert_eq!(check(&catalogue, &[], "app:1", &PLAIN).unwrap(), ["Untagged: app:1", "Deleted: top", "layer"]);
}

#[test]
fn an_image_with_children_stays() {
    let short = id("middle").short();
    for request in [PLAIN, FORCED] {
        let message =
            format!("conflict: unable to delete {short} (cannot be forced) - image has dependent child images");
        assert_eq!(check(&family(), &[], &short, &request), Err(message));
    }
}

#[test]
fn a_name_that_is_not_there() {
    assert_eq!(check(&family(), &[], "nope", &PLAIN), Err("No such image: nope:latest".to_owned()));
    assert_eq!(check(&family(), &[], "app", &PLAIN), Err("No such image: app:latest".to_owned()));
}

#[test]
fn a_tag_that_looks_like_the_beginning_of_its_own_id_is_an_id() {
    let prefix = id("a").short();
    let catalogue = catalogue(vec![image("a", None, "x", 0)], &[(&prefix, "a"), ("web:1", "a")]);
    // Docker decides by the text alone; the name has no tag here, so it means the id.
    let message =
        format!("conflict: unable to delete {prefix} (must be forced) - image is referenced in multiple repositories");
    assert_eq!(check(&catalogue, &[], &prefix, &PLAIN), Err(message));
}
