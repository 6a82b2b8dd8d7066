//! `conex image ls --tree`: below each image its platforms, attestations and containers, and what it takes.

use std::collections::HashMap;

use api_client::{ImageListOptions, ListOptions};
use clap::ArgMatches;
use docker_api::Filters;
use docker_api::image::{ManifestSummary, Summary};

use super::print;
use crate::context::Context;
use crate::error::Outcome;
use crate::flags::on;
use crate::output::table::align;
use crate::output::units;

const HEADINGS: &str = "IMAGE\tID\tTOTAL\tUNIQUE\tCONTENT\tLAST USED\tEXTRA\n";
const LEGEND: &str = "TOTAL: all layers on this disk; UNIQUE: those that no other image has; CONTENT: what a registry keeps of it\n\
     EXTRA: U in use by a container, P pinned, D dangling\n\n";

/// Lists images as trees.
pub(super) fn tree(context: &Context, matches: &ArgMatches, filters: Filters) -> Outcome {
    let client = context.client()?;
    let options = ImageListOptions { all: on(matches, "all"), shared_size: true, manifests: true, filters };
    let images = client.image_list(&options)?;
    let containers = client.container_list(&ListOptions { all: true, ..ListOptions::default() })?;
    let mut users: HashMap<&str, Vec<String>> = HashMap::new();
    for container in &containers {
        let name = container.names.first().map_or("", |name| name.trim_start_matches('/'));
        let line = format!("container {name} ({})", container.state);
        users.entry(&container.image_id).or_default().push(line);
    }
    let no_trunc = on(matches, "no-trunc");
    let mut text = HEADINGS.to_owned();
    for image in &images {
        text += &image_lines(image, users.get(image.id.as_str()).map(Vec::as_slice).unwrap_or_default(), no_trunc);
    }
    print(&(LEGEND.to_owned() + &align(&text)))?;
    Ok(0)
}

fn image_lines(image: &Summary, users: &[String], no_trunc: bool) -> String {
    let id = |id: &str| if no_trunc { id.to_owned() } else { units::short_id(id).to_owned() };
    let own: Vec<&ManifestSummary> = image.manifests.iter().filter(|manifest| manifest.available).collect();
    let content: i64 = own.iter().map(|manifest| manifest.size.content).sum();
    let name = image.repo_tags.first().or(image.repo_digests.first()).map_or("<untagged>", String::as_str);
    let last_used = match jiff::Timestamp::from_second(image.last_used) {
        Ok(time) if image.last_used > 0 => units::ago(time, jiff::Timestamp::now()),
        _ => String::new(),
    };
    let unique = image.unique_size.unwrap_or((image.size - image.shared_size).max(0));
    let mut lines = row(name, &id(&image.id), [image.size, unique, content], &last_used, &extra(image, users));
    let mut children: Vec<String> =
        image.repo_tags.iter().skip(1).map(|tag| row_of_name(&format!("also {tag}"))).collect();
    children.extend(image.pins.iter().map(|pin| row_of_name(&format!("pinned by {pin}"))));
    children.extend(image.manifests.iter().map(|manifest| manifest_row(manifest, &id(&manifest.id))));
    children.extend(users.iter().map(|user| row_of_name(user)));
    for (at, child) in children.iter().enumerate() {
        let branch = if at + 1 == children.len() { "└─ " } else { "├─ " };
        lines += &format!("{branch}{child}");
    }
    lines
}

fn row(name: &str, id: &str, sizes: [i64; 3], last_used: &str, extra: &str) -> String {
    let [total, unique, content] = sizes.map(|bytes| units::size(bytes.max(0) as u64));
    format!("{name}\t{id}\t{total}\t{unique}\t{content}\t{last_used}\t{extra}\n")
}

fn row_of_name(name: &str) -> String {
    format!("{name}\t\t\t\t\t\t\n")
}

fn manifest_row(manifest: &ManifestSummary, id: &str) -> String {
    let name = match (&manifest.image_data, manifest.kind.as_str()) {
        (Some(data), _) => {
            let platform = &data.platform;
            let parts = [&platform.os, &platform.architecture, &platform.variant];
            let parts: Vec<&str> = parts.into_iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
            parts.join("/")
        }
        (None, kind) => kind.to_owned(),
    };
    if !manifest.available {
        return format!("{name} (not here)\t{id}\t\t\t\t\t\n");
    }
    let size = |bytes: i64| units::size(bytes.max(0) as u64);
    let unpacked = manifest.image_data.as_ref().map(|data| size(data.size.unpacked)).unwrap_or_default();
    format!("{name}\t{id}\t{unpacked}\t\t{}\t\t\n", size(manifest.size.content))
}

fn extra(image: &Summary, users: &[String]) -> String {
    let marks = [(!users.is_empty(), 'U'), (!image.pins.is_empty(), 'P'), (image.repo_tags.is_empty(), 'D')];
    marks.into_iter().filter(|(is, _)| *is).map(|(_, mark)| mark).collect()
}

#[cfg(test)]
mod tests {
    use docker_api::image::{ManifestImage, ManifestSize, UnpackedSize};

    use super::*;

    #[test]
    fn an_image_has_its_manifests_and_containers_below_it() {
        let platform = |architecture: &str| oci::image::Platform {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            ..oci::image::Platform::default()
        };
        let manifest = |architecture: &str, available| ManifestSummary {
            id: "sha256:0123456789abcdef".to_owned(),
            available,
            size: ManifestSize { content: 500, total: 1500 },
            kind: "image".to_owned(),
            image_data: Some(ManifestImage {
                platform: platform(architecture),
                size: UnpackedSize { unpacked: 1000 },
                containers: Vec::new(),
            }),
            ..ManifestSummary::default()
        };
        let image = Summary {
            id: "sha256:fedcba9876543210".to_owned(),
            repo_tags: vec!["web:1".to_owned(), "web:2".to_owned()],
            size: 1000,
            shared_size: 400,
            unique_size: Some(600),
            pins: vec!["name web:1".to_owned()],
            manifests: vec![manifest("amd64", true), manifest("arm64", false)],
            ..Summary::default()
        };
        let text = image_lines(&image, &["container one (running)".to_owned()], false);
        let lines: Vec<String> = text.lines().map(|line| line.replace('\t', "|")).collect();
        assert_eq!(
            lines,
            [
                "web:1|fedcba987654|1kB|600B|500B||UP",
                "├─ also web:2||||||",
                "├─ pinned by name web:1||||||",
                "├─ linux/amd64|0123456789ab|1kB||500B||",
                "├─ linux/arm64 (not here)|0123456789ab|||||",
                "└─ container one (running)||||||",
            ]
        );
    }
}
