//! `GET /events`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::mount::is_zero;

/// Something that happened.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the fields are Docker's, under Docker's names")]
pub struct Event {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub status: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub from: String,
    #[serde(rename = "Type")]
    pub r#type: String,
    #[serde(rename = "Action")]
    pub action: String,
    #[serde(rename = "Actor")]
    pub actor: Actor,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub scope: String,
    /// Seconds since 1970.
    #[serde(skip_serializing_if = "is_zero")]
    pub time: i64,
    /// Nanoseconds since 1970.
    #[serde(rename = "timeNano", skip_serializing_if = "is_zero")]
    pub time_nano: i64,
}

/// What it happened to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the fields are Docker's, under Docker's names")]
pub struct Actor {
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(rename = "Attributes")]
    pub attributes: BTreeMap<String, String>,
}

impl Event {
    /// Fills the members that clients before `Type` and `Action` read: containers show all three, images no `from`, prunes only `status`.
    #[must_use]
    pub fn with_legacy_members(mut self) -> Self {
        match (self.r#type.as_str(), self.action.as_str()) {
            ("container" | "image", "prune") => self.status.clone_from(&self.action),
            ("container", _) => {
                self.status.clone_from(&self.action);
                self.id.clone_from(&self.actor.id);
                self.from = self.actor.attributes.get("image").cloned().unwrap_or_default();
            }
            ("image", _) => {
                self.status.clone_from(&self.action);
                self.id.clone_from(&self.actor.id);
            }
            _ => {}
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn legacy_members_depend_on_the_type() {
        let event = |r#type: &str, action: &str| Event {
            r#type: r#type.to_owned(),
            action: action.to_owned(),
            actor: Actor { id: "i".into(), attributes: [("image".to_owned(), "alpine".to_owned())].into() },
            scope: "local".into(),
            time: 1,
            time_nano: 1_000_000_002,
            ..Event::default()
        };
        assert_eq!(
            serde_json::to_string(&event("container", "start").with_legacy_members()).unwrap(),
            r#"{"status":"start","id":"i","from":"alpine","Type":"container","Action":"start","Actor":{"ID":"i","Attributes":{"image":"alpine"}},"scope":"local","time":1,"timeNano":1000000002}"#
        );
        let network = serde_json::to_string(&event("network", "connect").with_legacy_members()).unwrap();
        assert!(network.starts_with(r#"{"Type":"network""#), "{network}");
        assert_eq!(event("image", "prune").with_legacy_members().id, "");
    }
}
