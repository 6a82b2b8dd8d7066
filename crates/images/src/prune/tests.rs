use super::*;
use crate::testing::{canonical, catalogue, container, id, image};
use crate::{ImageId, Pin, Running};

fn pruned(catalogue: &Catalogue, containers: &[ContainerUse], filters: &PruneFilters) -> Vec<ImageId> {
    pruned_with(catalogue, containers, filters, &UseRecord::default())
}

fn pruned_with(
    catalogue: &Catalogue,
    containers: &[ContainerUse],
    filters: &PruneFilters,
    uses: &UseRecord,
) -> Vec<ImageId> {
    let removing = prune(catalogue, containers, filters, uses);
    let mut deleted: Vec<ImageId> = removing.deleted.iter().map(|image| image.id).collect();
    deleted.sort();
    deleted
}

fn ids(names: &[&str]) -> Vec<ImageId> {
    let mut ids: Vec<ImageId> = names.iter().map(|name| id(name)).collect();
    ids.sort();
    ids
}

fn filters(dangling: Dangling) -> PruneFilters {
    PruneFilters { dangling, labels: Vec::new(), without_labels: Vec::new(), until: None, unused_since: None }
}

fn everything() -> (Catalogue, Vec<ContainerUse>) {
    let used = image("used", None, "u", 5);
    let containers = vec![container('c', &used, Running::No)];
    let images = vec![
        image("tagged", None, "t", 1),
        image("dangling", None, "d", 2),
        image("digest only", None, "o", 3),
        image("base", None, "b", 4),
        image("child", Some("base"), "bc", 4),
        used,
    ];
    let digest = canonical("pulled");
    (catalogue(images, &[("t:1", "tagged"), (&digest, "digest only")]), containers)
}

#[test]
fn dangling_images_go_with_their_parents() {
    let (catalogue, containers) = everything();
    let expected = ids(&["dangling", "digest only", "base", "child"]);
    assert_eq!(pruned(&catalogue, &containers, &filters(Dangling::Only)), expected);
}

#[test]
fn all_unused_images_go() {
    let (catalogue, containers) = everything();
    let expected = ids(&["tagged", "dangling", "digest only", "base", "child"]);
    assert_eq!(pruned(&catalogue, &containers, &filters(Dangling::AllUnused)), expected);
    let removing = prune(&catalogue, &containers, &filters(Dangling::AllUnused), &UseRecord::default());
    assert_eq!(removing.freed_bytes(&[]), 50, "five layers of ten bytes");
    assert_eq!(removing.freed_bytes(&[crate::testing::layer("t")]), 40, "one of which somebody else needs");
}

#[test]
fn those_that_were_used_lately_stay() {
    let (catalogue, containers) = everything();
    let moment = |second| Timestamp::from_second(second).unwrap();
    let last_uses = [(id("tagged"), moment(50)), (id("dangling"), moment(99))].into();
    let uses = UseRecord { last_uses, ..UseRecord::default() };
    let filters = PruneFilters { unused_since: Some(moment(50)), ..filters(Dangling::AllUnused) };
    let expected = ids(&["tagged", "digest only", "base", "child"]);
    assert_eq!(pruned_with(&catalogue, &containers, &filters, &uses), expected);
}

#[test]
fn what_is_pinned_stays_and_so_does_a_pinned_parent() {
    let pinned = |image: Image, pins: Vec<Pin>| Image { pins, ..image };
    let name = oci::Reference::parse("t:1").unwrap();
    let images = vec![
        pinned(image("tagged", None, "t", 1), vec![Pin::Name(name)]),
        pinned(image("base", None, "b", 4), vec![Pin::Image]),
        image("child", Some("base"), "bc", 4),
        image("other", None, "o", 4),
    ];
    let catalogue = catalogue(images, &[("t:1", "tagged")]);
    assert_eq!(pruned(&catalogue, &[], &filters(Dangling::AllUnused)), ids(&["child", "other"]));
}

#[test]
fn only_the_old_ones_go() {
    let (catalogue, containers) = everything();
    let until = Some(Timestamp::from_second(2).unwrap());
    let filters = PruneFilters { until, ..filters(Dangling::Only) };
    assert_eq!(pruned(&catalogue, &containers, &filters), ids(&["dangling"]));
}

#[test]
fn labels_choose() {
    let labelled = |name: &str, label: &str| {
        let mut image = image(name, None, "", 0);
        let config = std::sync::Arc::make_mut(&mut image.config);
        config.config.labels = Some([(label.to_owned(), "1".to_owned())].into());
        image
    };
    let catalogue = catalogue(vec![labelled("a", "x"), labelled("b", "y"), image("c", None, "", 0)], &[]);
    let label =
        |key: &str, value: Option<&str>| vec![LabelFilter { key: key.to_owned(), value: value.map(str::to_owned) }];
    let check = |labels, without_labels, expected: &[&str]| {
        let filters = PruneFilters { labels, without_labels, ..filters(Dangling::Only) };
        assert_eq!(pruned(&catalogue, &[], &filters), ids(expected));
    };
    let uses = UseRecord { pin_labels: label("x", None), ..UseRecord::default() };
    assert_eq!(pruned_with(&catalogue, &[], &filters(Dangling::Only), &uses), ids(&["b", "c"]), "a label pins");
    check(label("x", None), Vec::new(), &["a"]);
    check(label("x", Some("1")), Vec::new(), &["a"]);
    check(label("x", Some("2")), Vec::new(), &[]);
    check(Vec::new(), label("x", None), &["b", "c"]);
}
