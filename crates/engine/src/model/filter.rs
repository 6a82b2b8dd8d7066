//! Filters of lists, events and prunes, as parsed values.

use jiff::Timestamp;
use regex_lite::Regex;

use super::{HealthStatus, Port, Status};

/// One `label` filter: `key` or `key=value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelFilter {
    /// The key.
    pub key: String,
    /// The value, when it matters.
    pub value: Option<String>,
}

impl LabelFilter {
    /// Reads `key` or `key=value`.
    pub fn parse(text: &str) -> Self {
        match text.split_once('=') {
            Some((key, value)) => Self { key: key.into(), value: Some(value.into()) },
            None => Self { key: text.into(), value: None },
        }
    }

    /// Whether these labels have it.
    pub fn matches(&self, labels: &std::collections::BTreeMap<String, String>) -> bool {
        labels.get(&self.key).is_some_and(|value| self.value.as_ref().is_none_or(|wanted| wanted == value))
    }
}

/// `GET /containers/json`: which containers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ContainerQuery {
    /// `all`: also those that do not run.
    pub all: bool,
    /// `limit`: the newest so many, running or not; none is all.
    pub limit: Option<usize>,
    /// The filters.
    pub filters: ContainerFilters,
}

/// Filters of containers; within one field any may match (but every label must), between fields all must.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ContainerFilters {
    /// `ancestor`: an image or one of its ancestors, by name or id.
    pub ancestor: Vec<String>,
    /// `before`: created before this container.
    pub before: Option<String>,
    /// `since`: created after this container.
    pub since: Option<String>,
    /// `exited`: exit codes of containers that ran and ended.
    pub exited: Vec<i32>,
    /// `health`; none is `none` (no healthcheck).
    pub health: Vec<Option<HealthStatus>>,
    /// `id`: prefixes.
    pub id: Vec<String>,
    /// `is-task`: no container is a swarm task, so true matches nothing.
    pub is_task: Option<bool>,
    /// `label`: all must match.
    pub label: Vec<LabelFilter>,
    /// `name`: part of the name, `^` and `$` anchor it; a leading slash is allowed.
    pub name: Vec<String>,
    /// `network`: names or ids.
    pub network: Vec<String>,
    /// `publish`
    pub publish: Vec<Port>,
    /// `expose`
    pub expose: Vec<Port>,
    /// `status`
    pub status: Vec<Status>,
    /// `volume`: names or targets.
    pub volume: Vec<String>,
    /// `annotation` (1.56)
    pub annotation: Vec<LabelFilter>,
}

/// `prune`'s filters.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PruneFilters {
    /// `label`: all must match.
    pub label: Vec<LabelFilter>,
    /// `label!`: none may match.
    pub without_label: Vec<LabelFilter>,
    /// `until`: created before.
    pub until: Option<Timestamp>,
    /// Images: `unused-for`: not used since.
    pub unused_since: Option<Timestamp>,
    /// Images: `dangling`; false prunes every unused image.
    pub dangling: Option<bool>,
    /// Volumes: `all`, named ones too.
    pub all: bool,
}

/// `GET /events`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EventQuery {
    /// `since`
    pub since: Option<Timestamp>,
    /// `until`
    pub until: Option<Timestamp>,
    /// The filters.
    pub filters: EventFilters,
}

/// Filters of events.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EventFilters {
    /// `type`
    pub kind: Vec<String>,
    /// `event`: actions; `exec_start` also matches `exec_start: sh`, `health_status` also `health_status: healthy`.
    pub action: Vec<String>,
    /// `container`: id prefixes or names.
    pub container: Vec<String>,
    /// `image`: ids or names.
    pub image: Vec<String>,
    /// `volume`
    pub volume: Vec<String>,
    /// `network`
    pub network: Vec<String>,
    /// `daemon`
    pub daemon: Vec<String>,
    /// `label`: all must match.
    pub label: Vec<LabelFilter>,
    /// `scope`: `local` or `swarm`.
    pub scope: Vec<String>,
    /// `plugin`, `node`, `service`, `secret`, `config`: Conex has none, so any value matches nothing.
    pub absent: Vec<String>,
}

/// `GET /images/json`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageQuery {
    /// `all`: intermediate images too.
    pub all: bool,
    /// `dangling`
    pub dangling: Option<bool>,
    /// `label`: all must match.
    pub label: Vec<LabelFilter>,
    /// `reference`: patterns.
    pub reference: Vec<String>,
    /// `before`: created before this image.
    pub before: Option<String>,
    /// `since`: created after this image.
    pub since: Option<String>,
    /// `until`: created before this moment.
    pub until: Option<Timestamp>,
    /// `shared-size`: whether to work out what images share.
    pub shared_size: bool,
    /// `manifests`: whether to tell the manifests of each.
    pub manifests: bool,
}

/// `GET /volumes`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VolumeQuery {
    /// `dangling`: used by no container, or (false) by one.
    pub dangling: Option<bool>,
    /// `driver`
    pub driver: Vec<String>,
    /// `label`: all must match.
    pub label: Vec<LabelFilter>,
    /// `name`: regular expressions.
    pub name: Vec<String>,
}

/// `GET /networks`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NetworkQuery {
    /// `dangling`
    pub dangling: Option<bool>,
    /// `driver`
    pub driver: Vec<String>,
    /// `id`: prefixes.
    pub id: Vec<String>,
    /// `label`: all must match.
    pub label: Vec<LabelFilter>,
    /// `name`: regular expressions.
    pub name: Vec<String>,
    /// `scope`
    pub scope: Vec<String>,
    /// `type`: `builtin` or `custom`.
    pub kind: Vec<String>,
}

/// Regular expressions of one filter, any of which may match a part of a text; without any every text matches. One that is none matches
/// nothing, as in Docker.
#[derive(Debug)]
pub(crate) struct Patterns(Option<Vec<Regex>>);

impl Patterns {
    /// Those of a filter.
    pub(crate) fn new(given: &[String]) -> Self {
        Self((!given.is_empty()).then(|| given.iter().filter_map(|text| Regex::new(text).ok()).collect()))
    }

    /// Whether `text` is looked for.
    pub(crate) fn match_text(&self, text: &str) -> bool {
        self.0.as_ref().is_none_or(|patterns| patterns.iter().any(|pattern| pattern.is_match(text)))
    }

    /// Whether a container's name is, with the slash that it has in Docker or without.
    pub(crate) fn match_container(&self, name: &str) -> bool {
        self.match_text(name) || self.match_text(&format!("/{name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::{LabelFilter, Patterns};

    #[test]
    fn names_match_by_regular_expressions() {
        for (pattern, name, expected) in [
            ("we", "web", true),
            ("^/web$", "web", true),
            ("^web$", "web1", false),
            ("b$", "web", true),
            ("/we", "web", true),
            ("^eb", "web", false),
            ("w.b", "web", true),
            ("^(web|db)-[0-9]+$", "db-12", true),
            ("^(web|db)-[0-9]+$", "db-x", false),
            ("(", "web", false),
        ] {
            assert_eq!(Patterns::new(&[pattern.to_owned()]).match_container(name), expected, "{pattern} {name}");
        }
        assert!(Patterns::new(&[]).match_text("anything"));
        assert!(Patterns::new(&["x".to_owned(), "(".to_owned(), "^a".to_owned()]).match_text("abc"), "any of them");
    }

    #[test]
    fn labels_match_by_key_or_pair() {
        let labels = [("a".to_owned(), "1".to_owned())].into();
        assert!(LabelFilter::parse("a").matches(&labels) && LabelFilter::parse("a=1").matches(&labels));
        assert!(!LabelFilter::parse("a=2").matches(&labels) && !LabelFilter::parse("b").matches(&labels));
    }
}
