//! Images.

use docker_api::container::{DriverData, HealthConfig};
use docker_api::image::{
    Attestation, Config, DeleteItem, HistoryItem, Inspect, ManifestAttestation, ManifestImage, ManifestSize,
    ManifestSummary, Metadata, Origin, PolicyVerdict, Provenance, RootFs, SearchResult, Statement, Summary,
    UnpackedSize,
};
use docker_api::progress::{Message, Progress};
use docker_api::{Empty, ZERO_TIME};
use engine::model::{
    AttestationStatement, AttestationView, FlowLimit, HistoryView, ImageProgress, ImageRemoval, ImageSummary,
    ImageView, ManifestView, PullFlow,
};
use engine::{ManifestKind, Source};
use serde_json::{Value, json};

use super::time::shown;

/// One image of a list.
pub(crate) fn summary(image: &ImageSummary) -> Summary {
    Summary {
        containers: i64::try_from(image.containers).unwrap_or(i64::MAX),
        created: image.created.map_or(0, |time| time.as_second()),
        id: image.id.to_string(),
        labels: super::null_map_if_empty(&image.labels),
        parent_id: image.parent.as_ref().map(ToString::to_string).unwrap_or_default(),
        repo_digests: image.repo_digests.clone(),
        repo_tags: image.repo_tags.clone(),
        // Nothing where nobody has asked for it.
        shared_size: image.shared_bytes.map_or(-1, size),
        unique_size: image.shared_bytes.map(|shared| size(image.size_bytes.saturating_sub(shared))),
        size: size(image.size_bytes),
        last_used: image.last_used.as_second(),
        pins: image.pins.clone(),
        descriptor: serde_json::to_value(&image.descriptor).ok(),
        manifests: image.manifests.iter().map(manifest).collect(),
        ..Summary::default()
    }
}

fn manifest(view: &ManifestView) -> ManifestSummary {
    let content = size(view.entry.content_bytes);
    let (kind, image_data, attestation_data) = match &view.entry.kind {
        ManifestKind::Image(platform) => {
            let data = ManifestImage {
                platform: platform.clone(),
                size: UnpackedSize { unpacked: size(view.unpacked_bytes) },
                containers: view.containers.clone(),
            };
            ("image", Some(data), None)
        }
        ManifestKind::Attestation(about) => {
            ("attestation", None, Some(ManifestAttestation { r#for: about.to_string() }))
        }
        ManifestKind::Unknown => ("unknown", None, None),
    };
    ManifestSummary {
        id: view.entry.descriptor.digest.to_string(),
        descriptor: serde_json::to_value(&view.entry.descriptor).unwrap_or_default(),
        available: view.entry.available,
        size: ManifestSize { content, total: content.saturating_add(size(view.unpacked_bytes)) },
        kind: kind.to_owned(),
        image_data,
        attestation_data,
    }
}

fn provenance(image: &ImageView) -> Provenance {
    let statement = |statement: &AttestationStatement| Statement {
        predicate_type: statement.predicate_type.clone(),
        media_type: statement.media_type.clone(),
        digest: statement.blob.to_string(),
        size: size(statement.size_bytes),
    };
    let attestation = |view: &AttestationView| Attestation {
        manifest: view.manifest.to_string(),
        statements: view.statements.iter().map(statement).collect(),
    };
    Provenance {
        origins: image.origins.iter().map(origin).collect(),
        policy: image.policy.as_ref().map(|policy| PolicyVerdict {
            allowed: policy.allowed,
            rule: policy.rule.clone(),
            signed_by: policy.signed_by.as_ref().map(ToString::to_string).unwrap_or_default(),
            reason: policy.reason.clone(),
        }),
        attestations: image.attestations.iter().map(attestation).collect(),
    }
}

fn origin(origin: &engine::Origin) -> Origin {
    let shown = Origin { time: origin.time.to_string(), signatures: origin.signatures.len(), ..Origin::default() };
    match &origin.source {
        Source::Registry { reference, digest, manifest, server } => Origin {
            kind: "registry".to_owned(),
            reference: reference.clone(),
            digest: digest.to_string(),
            manifest: manifest.to_string(),
            server: server.clone(),
            ..shown
        },
        Source::Archive => Origin { kind: "archive".to_owned(), ..shown },
        Source::Import => Origin { kind: "import".to_owned(), ..shown },
        Source::Build => Origin { kind: "build".to_owned(), ..shown },
    }
}

fn size(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// Everything about an image.
pub(crate) fn inspect(image: &ImageView) -> Inspect {
    let (summary, config) = (&image.summary, &image.config);
    Inspect {
        id: summary.id.to_string(),
        repo_tags: summary.repo_tags.clone(),
        repo_digests: summary.repo_digests.clone(),
        parent: summary.parent.as_ref().map(ToString::to_string).unwrap_or_default(),
        comment: config.comment.clone(),
        created: summary.created.map(|time| shown(Some(time))).unwrap_or_default(),
        author: config.author.clone(),
        docker_version: config.docker_version.clone(),
        config: Some(container_config(config)),
        architecture: config.architecture.clone(),
        variant: config.variant.clone(),
        os: config.os.clone(),
        os_version: config.os_version.clone(),
        size: size(summary.size_bytes),
        graph_driver: DriverData { data: None, name: image.driver.clone() },
        root_fs: RootFs {
            r#type: "layers".to_owned(),
            layers: config.rootfs.diff_ids.iter().map(ToString::to_string).collect(),
        },
        metadata: Metadata {
            last_tag_time: image.last_tagged.map_or_else(|| ZERO_TIME.to_owned(), |time| shown(Some(time))),
        },
        descriptor: serde_json::to_value(&summary.descriptor).ok(),
        manifests: image.manifests.iter().map(manifest).collect(),
        last_used: shown(Some(summary.last_used)),
        pins: summary.pins.clone(),
        provenance: Some(provenance(image)),
        ..Inspect::default()
    }
}

fn container_config(image: &oci::image::ImageConfig) -> Value {
    let config = image.config.clone();
    let shown = Config {
        user: config.user,
        exposed_ports: config
            .exposed_ports
            .unwrap_or_default()
            .into_keys()
            .map(|port| (port, Empty::default()))
            .collect(),
        env: config.env.unwrap_or_default(),
        entrypoint: config.entrypoint.unwrap_or_default(),
        cmd: config.cmd.unwrap_or_default(),
        volumes: config.volumes.unwrap_or_default().into_keys().map(|path| (path, Empty::default())).collect(),
        working_dir: config.working_dir,
        labels: config.labels.unwrap_or_default(),
        stop_signal: config.stop_signal,
        args_escaped: config.args_escaped,
        healthcheck: config.healthcheck.map(|check| HealthConfig {
            test: check.test,
            interval: check.interval,
            timeout: check.timeout,
            start_period: check.start_period,
            start_interval: check.start_interval,
            retries: check.retries,
        }),
        on_build: config.on_build.unwrap_or_default(),
        shell: config.shell.unwrap_or_default(),
    };
    serde_json::to_value(shown).unwrap_or_default()
}

/// One step of a history.
pub(crate) fn history(step: &HistoryView) -> HistoryItem {
    HistoryItem {
        comment: step.comment.clone(),
        created: step.created.map_or(0, |time| time.as_second()),
        created_by: step.created_by.clone(),
        id: step.id.as_ref().map_or_else(|| "<missing>".to_owned(), ToString::to_string),
        size: size(step.size_bytes),
        tags: super::null_if_empty(&step.tags),
    }
}

/// One repository that a search found.
pub(crate) fn found(found: engine::Found) -> SearchResult {
    SearchResult {
        star_count: found.star_count,
        is_official: found.is_official,
        name: found.name,
        is_automated: found.is_automated,
        description: found.description,
    }
}

/// One line of a removal.
pub(crate) fn removal(removal: &ImageRemoval) -> DeleteItem {
    match removal {
        ImageRemoval::Untagged(name) => DeleteItem { untagged: name.clone(), ..DeleteItem::default() },
        ImageRemoval::Deleted(id) => DeleteItem { deleted: id.clone(), ..DeleteItem::default() },
    }
}

/// One line of a load, an import, a pull or a push; bars are left out for those who want it quiet.
pub(crate) fn progress(progress: ImageProgress, quiet: bool) -> Option<Message> {
    match progress {
        ImageProgress::Layer { .. } if quiet => None,
        ImageProgress::Layer { id, status, current, total } => {
            let progress = Progress { current: size(current), total: total.map_or(0, size), start: 0 };
            Some(Message::step(id, status, progress))
        }
        ImageProgress::Heading { id, status } => Some(Message { id, status, ..Message::default() }),
        ImageProgress::Step { id, status } => {
            Some(Message { id, status, progress_detail: Some(Progress::default()), ..Message::default() })
        }
        ImageProgress::Status(text) => Some(Message::status(text)),
        ImageProgress::Pushed { tag, digest, size_bytes } => Some(Message {
            progress_detail: Some(Progress::default()),
            aux: Some(json!({ "Tag": tag, "Digest": digest, "Size": size_bytes })),
            ..Message::default()
        }),
        ImageProgress::Flow(flow) => Some(Message { aux: Some(self::flow(&flow)), ..Message::default() }),
        ImageProgress::Note(text) => Some(Message::stream(format!("{text}\n"))),
        ImageProgress::LoadedReference(name) => Some(Message::stream(format!("Loaded image: {name}\n"))),
        ImageProgress::LoadedId(id) => Some(Message::stream(format!("Loaded image ID: {id}\n"))),
        ImageProgress::Imported(id) => Some(Message::status(id.to_string())),
    }
}

fn flow(flow: &PullFlow) -> Value {
    let limit = match flow.limit {
        FlowLimit::Network => "network",
        FlowLimit::Processor => "CPU",
        FlowLimit::Disk => "disk",
    };
    let described = docker_api::progress::Flow {
        layer: flow.layer.clone().unwrap_or_default(),
        fetched: flow.fetched_bytes,
        unpacked: flow.tar_bytes,
        seconds: flow.elapsed.as_secs_f64(),
        limit: limit.to_owned(),
    };
    json!({ "Flow": described })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_what_the_docker_cli_parses() {
        let line = |step, quiet| progress(step, quiet).map(|message| String::from_utf8(message.to_line()).unwrap());
        assert_eq!(
            line(ImageProgress::LoadedReference("a:b".into()), true).unwrap(),
            "{\"stream\":\"Loaded image: a:b\\n\"}\r\n"
        );
        let step = ImageProgress::Step { id: "abc".into(), status: "Pull complete".into() };
        assert_eq!(
            line(step, false).unwrap(),
            "{\"status\":\"Pull complete\",\"progressDetail\":{},\"id\":\"abc\"}\r\n"
        );
        let heading = ImageProgress::Heading { id: "latest".into(), status: "Pulling from library/alpine".into() };
        assert_eq!(line(heading, false).unwrap(), "{\"status\":\"Pulling from library/alpine\",\"id\":\"latest\"}\r\n");
        let layer =
            ImageProgress::Layer { id: "abc".into(), status: "Loading layer".into(), current: 512, total: Some(1024) };
        assert_eq!(line(layer.clone(), true), None);
        let shown = line(layer, false).unwrap();
        assert!(
            shown.starts_with(
                r#"{"status":"Loading layer","progressDetail":{"current":512,"total":1024},"progress":"["#
            ),
            "{shown}"
        );
        assert!(shown.contains(r#""id":"abc""#));
    }
}
