//! The filters of lists, prunes and events.

use docker_api::Filters;
use engine::model::{
    ContainerFilters, EventFilters, HealthStatus, ImageQuery, LabelFilter, NetworkQuery, Port, PruneFilters, Status,
    VolumeQuery,
};
use jiff::{Timestamp, Zoned};

use super::create::ports_of;
use super::time::moment;
use crate::error::{ApiError, ApiResult};

/// Containers.
pub(crate) fn containers(filters: &Filters) -> ApiResult<ContainerFilters> {
    filters.accept(&[
        "ancestor",
        "before",
        "exited",
        "expose",
        "health",
        "id",
        "is-task",
        "isolation",
        "label",
        "name",
        "network",
        "publish",
        "since",
        "status",
        "volume",
    ])?;
    Ok(ContainerFilters {
        ancestor: filters.get("ancestor").to_vec(),
        before: filters.get("before").first().cloned(),
        since: filters.get("since").first().cloned(),
        exited: filters.get("exited").iter().map(|code| exit_code(code)).collect::<ApiResult<_>>()?,
        health: filters.get("health").iter().map(|word| health(word)).collect::<ApiResult<_>>()?,
        id: filters.get("id").to_vec(),
        is_task: filters.flag("is-task")?,
        label: labels(filters, "label"),
        name: filters.get("name").to_vec(),
        network: filters.get("network").to_vec(),
        publish: ports(filters, "publish")?,
        expose: ports(filters, "expose")?,
        status: filters.get("status").iter().map(|word| status(word)).collect::<ApiResult<_>>()?,
        volume: filters.get("volume").to_vec(),
        annotation: Vec::new(),
    })
}

fn exit_code(text: &str) -> ApiResult<i32> {
    text.parse().map_err(|_| ApiError::bad_request(format!("strconv.Atoi: parsing {text:?}: invalid syntax")))
}

fn health(word: &str) -> ApiResult<Option<HealthStatus>> {
    match word {
        "none" => Ok(None),
        "starting" => Ok(Some(HealthStatus::Starting)),
        "healthy" => Ok(Some(HealthStatus::Healthy)),
        "unhealthy" => Ok(Some(HealthStatus::Unhealthy)),
        _ => Err(ApiError::bad_request(format!(
            "invalid value for health ({word}): must be one of none, starting, healthy, unhealthy"
        ))),
    }
}

fn status(word: &str) -> ApiResult<Status> {
    Status::parse(word).ok_or_else(|| {
        ApiError::bad_request(format!(
            "invalid value for state ({word}): must be one of created, running, paused, restarting, removing, exited, dead"
        ))
    })
}

fn ports(filters: &Filters, name: &str) -> ApiResult<Vec<Port>> {
    let mut all = Vec::new();
    for text in filters.get(name) {
        all.extend(ports_of(text)?);
    }
    Ok(all)
}

fn labels(filters: &Filters, name: &str) -> Vec<LabelFilter> {
    filters.get(name).iter().map(|text| LabelFilter::parse(text)).collect()
}

/// Events. Kinds of objects that Conex does not have match nothing.
pub(crate) fn events(filters: &Filters) -> EventFilters {
    let absent = ["plugin", "node", "service", "secret", "config"];
    EventFilters {
        kind: filters.get("type").to_vec(),
        action: filters.get("event").to_vec(),
        container: filters.get("container").to_vec(),
        image: filters.get("image").to_vec(),
        volume: filters.get("volume").to_vec(),
        network: filters.get("network").to_vec(),
        daemon: filters.get("daemon").to_vec(),
        label: labels(filters, "label"),
        scope: filters.get("scope").to_vec(),
        absent: absent.iter().flat_map(|name| filters.get(name)).cloned().collect(),
    }
}

/// Images.
pub(crate) fn images(filters: &Filters) -> ApiResult<ImageQuery> {
    filters.accept(&["dangling", "label", "before", "since", "reference", "until"])?;
    Ok(ImageQuery {
        all: false,
        dangling: filters.flag("dangling")?,
        label: labels(filters, "label"),
        reference: filters.get("reference").to_vec(),
        before: filters.get("before").first().cloned(),
        since: filters.get("since").first().cloned(),
        until: until(filters)?,
        shared_size: false,
        manifests: false,
    })
}

/// Volumes.
pub(crate) fn volumes(filters: &Filters) -> ApiResult<VolumeQuery> {
    filters.accept(&["dangling", "driver", "label", "name"])?;
    Ok(VolumeQuery {
        dangling: filters.flag("dangling")?,
        driver: filters.get("driver").to_vec(),
        label: labels(filters, "label"),
        name: filters.get("name").to_vec(),
    })
}

/// Networks.
pub(crate) fn networks(filters: &Filters) -> ApiResult<NetworkQuery> {
    filters.accept(&["dangling", "driver", "id", "label", "name", "scope", "type"])?;
    let kind = filters.get("type").to_vec();
    if let Some(wrong) = kind.iter().find(|word| !matches!(word.as_str(), "builtin" | "custom")) {
        return Err(ApiError::bad_request(format!("invalid filter: 'type'='{wrong}'")));
    }
    Ok(NetworkQuery {
        dangling: filters.flag("dangling")?,
        driver: filters.get("driver").to_vec(),
        id: filters.get("id").to_vec(),
        label: labels(filters, "label"),
        name: filters.get("name").to_vec(),
        scope: filters.get("scope").to_vec(),
        kind,
    })
}

/// What may be pruned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Prune {
    Containers,
    Images,
    Networks,
    Volumes,
}

/// Prunes; each kind has its own filters.
pub(crate) fn prune(filters: &Filters, kind: Prune) -> ApiResult<PruneFilters> {
    let known: &[&str] = match kind {
        Prune::Containers | Prune::Networks => &["label", "label!", "until"],
        Prune::Images => &["dangling", "label", "label!", "unused-for", "until"],
        Prune::Volumes => &["label", "label!", "all"],
    };
    filters.accept(known)?;
    Ok(PruneFilters {
        label: labels(filters, "label"),
        without_label: labels(filters, "label!"),
        until: until(filters)?,
        unused_since: unused_since(filters)?,
        dangling: if kind == Prune::Images { filters.flag("dangling")? } else { None },
        all: if kind == Prune::Volumes { filters.flag("all")?.unwrap_or(false) } else { false },
    })
}

/// `unused-for`: a duration, or a moment.
fn unused_since(filters: &Filters) -> ApiResult<Option<Timestamp>> {
    match filters.get("unused-for") {
        [] => Ok(None),
        [text] => moment(text, &Zoned::now()).map(Some),
        _ => Err(ApiError::bad_request("more than one unused-for filter specified")),
    }
}

fn until(filters: &Filters) -> ApiResult<Option<Timestamp>> {
    match filters.get("until") {
        [] => Ok(None),
        [text] => moment(text, &Zoned::now()).map(Some),
        _ => Err(ApiError::bad_request("more than one until filter specified")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters(json: &str) -> Filters {
        Filters::parse(json).unwrap()
    }

    #[test]
    fn container_filters_are_parsed_and_checked() {
        let parsed = containers(&filters(
            r#"{"status":["running"],"health":["none","healthy"],"exited":["137"],"label":{"a=b":true},"expose":["80-81/udp"],"is-task":["false"]}"#,
        ))
        .unwrap();
        assert_eq!((parsed.status, parsed.exited), (vec![Status::Running], vec![137]));
        assert_eq!(parsed.health, [None, Some(HealthStatus::Healthy)]);
        assert_eq!((parsed.expose.len(), parsed.is_task), (2, Some(false)));
        assert_eq!(parsed.label, [LabelFilter::parse("a=b")]);
        for (json, part) in [
            (r#"{"foo":["x"]}"#, "invalid filter 'foo'"),
            (r#"{"status":["x"]}"#, "invalid value for state (x)"),
            (r#"{"health":["x"]}"#, "invalid value for health (x)"),
            (r#"{"exited":["x"]}"#, "strconv.Atoi"),
        ] {
            assert!(containers(&filters(json)).unwrap_err().message.starts_with(part), "{json}");
        }
    }

    #[test]
    fn prunes_know_their_own_filters() {
        let volumes = prune(&filters(r#"{"all":["true"],"label!":["k"]}"#), Prune::Volumes).unwrap();
        assert!(volumes.all && volumes.without_label == [LabelFilter::parse("k")]);
        assert!(prune(&filters(r#"{"all":["1"]}"#), Prune::Containers).is_err());
        assert!(prune(&filters(r#"{"until":["1h","2h"]}"#), Prune::Images).is_err());
        assert!(prune(&filters(r#"{"unused-for":["720h"]}"#), Prune::Images).unwrap().unused_since.is_some());
        assert!(prune(&filters(r#"{"unused-for":["soon"]}"#), Prune::Images).is_err());
        assert!(prune(&filters(r#"{"unused-for":["720h"]}"#), Prune::Networks).is_err());
        assert_eq!(prune(&filters(r#"{"dangling":["false"]}"#), Prune::Images).unwrap().dangling, Some(false));
    }

    #[test]
    fn objects_that_do_not_exist_match_nothing() {
        assert_eq!(events(&filters(r#"{"service":["x"],"type":["container"]}"#)).absent, ["x"]);
    }
}
