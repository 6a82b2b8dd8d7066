use super::*;
use crate::testing::{canonical, catalogue, id, image};

fn all() -> Catalogue {
    let images = vec![
        image("old", None, "a", 10),
        image("new", None, "b", 30),
        image("dangling", None, "c", 20),
        image("parent", None, "d", 5),
        image("child", Some("parent"), "de", 40),
        image("digest", None, "f", 1),
    ];
    let digest = canonical("example.org/team/pulled");
    let names = [
        ("web:1", "old"),
        ("web:latest", "new"),
        ("example.org/team/web:1", "new"),
        ("child:1", "child"),
        (&digest, "digest"),
    ];
    catalogue(images, &names)
}

fn listed(filters: &ListFilters, intermediate: Intermediate) -> Vec<String> {
    let catalogue = all();
    let names = ["old", "new", "dangling", "parent", "child", "digest"];
    let name = |image: &ListedImage| (*names.iter().find(|name| id(name) == image.image.id).unwrap()).to_owned();
    list(&catalogue, filters, intermediate).unwrap().iter().map(name).collect()
}

fn check(filters: &ListFilters, expected: &[&str]) {
    assert_eq!(listed(filters, Intermediate::Hidden), expected, "{filters:?}");
}

#[test]
fn newest_first_without_intermediates() {
    check(&ListFilters::default(), &["child", "new", "dangling", "old", "digest"]);
    let shown = listed(&ListFilters::default(), Intermediate::Shown);
    assert_eq!(shown, ["child", "new", "dangling", "old", "parent", "digest"]);
}

#[test]
fn each_filter() {
    let filters = ListFilters::default;
    check(&ListFilters { dangling: Some(true), ..filters() }, &["dangling", "digest"]);
    check(&ListFilters { dangling: Some(false), ..filters() }, &["child", "new", "old", "digest"]);
    check(&ListFilters { before: Some("web".into()), ..filters() }, &["dangling", "old", "digest"]);
    check(&ListFilters { since: Some("web:1".into()), ..filters() }, &["child", "new", "dangling"]);
    check(&ListFilters { until: Some(Timestamp::from_second(10).unwrap()), ..filters() }, &["digest"]);
    let reference = |pattern: &str| ListFilters { references: vec![pattern.to_owned()], ..filters() };
    check(&reference("web"), &["new", "old"]);
    check(&reference("web:1"), &["old"]);
    check(&reference("*:1"), &["child", "old"]);
    check(&reference("*/*/web"), &["new"]);
    check(&reference("*/web"), &[]);
    check(&reference("example.org/team/*"), &["new", "digest"]);
    let label = LabelFilter { key: "none".to_owned(), value: None };
    check(&ListFilters { labels: vec![label], ..filters() }, &[]);
}

#[test]
fn a_reference_filter_shows_the_names_that_pass() {
    let filters = ListFilters { references: vec!["web".to_owned()], ..ListFilters::default() };
    let catalogue = all();
    let images = list(&catalogue, &filters, Intermediate::Hidden).unwrap();
    let tags: Vec<_> = images.iter().flat_map(|image| &image.tags).map(oci::Reference::familiar).collect();
    assert_eq!(tags, ["web:latest", "web:1"]);
}

#[test]
fn errors_are_dockers() {
    let error = |filters: ListFilters| list(&all(), &filters, Intermediate::Hidden).unwrap_err();
    let unknown = error(ListFilters { before: Some("zz".into()), ..ListFilters::default() });
    assert_eq!(
        (unknown.to_string().as_str(), unknown.kind()),
        ("No such image: zz:latest", crate::ErrorKind::NotFound)
    );
    let pattern = error(ListFilters { references: vec!["[".into()], ..ListFilters::default() });
    assert_eq!(pattern.kind(), crate::ErrorKind::InvalidParameter);
}
