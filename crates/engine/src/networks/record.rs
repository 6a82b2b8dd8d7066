//! What the database keeps of a user's network, and all of them in memory.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};

use jiff::Timestamp;
use network::Definition;
use serde::{Deserialize, Serialize};

use crate::model::{EngineError, IpamPool};

/// The version of the record; a newer one is left alone.
pub(super) const RECORD_VERSION: u32 = 2;

/// A network that a user made. Nothing of it changes but by its removal.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct NetworkRecord {
    pub(crate) version: u32,
    pub(crate) id: String,
    pub(crate) name: String,
    #[serde(with = "crate::moment")]
    pub(crate) created: Timestamp,
    pub(crate) definition: Definition,
    pub(crate) attachable: bool,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) options: BTreeMap<String, String>,
    pub(crate) ipam_options: BTreeMap<String, String>,
    pub(crate) pools: Vec<IpamPool>,
    /// Whether the user chose the IPv4 subnet: only then may containers choose their address.
    pub(crate) subnet_given: bool,
    /// The same for IPv6.
    pub(crate) subnet6_given: bool,
    /// Where ports are published for who names no address.
    pub(crate) host_binding: Option<IpAddr>,
    /// What interfaces in containers are called, before their number.
    pub(crate) interface_prefix: Option<String>,
    /// What a configuration is for networks that are made from it: nothing else is made of this one.
    #[serde(default)]
    pub(crate) template: Option<Template>,
    /// The configuration that it was made from.
    #[serde(default)]
    pub(crate) config_from: String,
}

/// A configuration: what networks that are made from it are asked to be.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Template {
    pub(crate) enable_ipv4: Option<bool>,
    pub(crate) enable_ipv6: bool,
    pub(crate) ipam_driver: String,
    /// As they were given.
    pub(crate) pools: Vec<IpamPool>,
}

/// Reads a record of this or an earlier version.
fn read(text: &str) -> Result<NetworkRecord, serde_json::Error> {
    let mut value: serde_json::Value = serde_json::from_str(text)?;
    if value["version"] == 1 {
        from_first(&mut value);
    }
    serde_json::from_value(value)
}

/// Version 1 knew one IPv4 pool and its translation.
fn from_first(value: &mut serde_json::Value) {
    use serde_json::json;
    let old = value["definition"].take();
    let border = |masquerade: &serde_json::Value| json!({ "mode": "nat", "masquerade": masquerade });
    value["definition"] = json!({
        "id": old["id"],
        "driver": "bridge",
        "interface": old["interface"],
        "ipv4": [{
            "subnet": old["subnet"],
            "gateway": old["gateway"],
            "range": old["range"],
            "reserved": old["reserved"],
        }],
        "ipv6": [],
        "mtu": old["mtu"],
        "internal": old["internal"],
        "talk": old["talk"],
        "border4": border(&old["masquerade"]),
        "border6": border(&old["masquerade"]),
        "inhibit_ipv4": false,
        "trusted": [],
    });
    (value["version"], value["subnet6_given"]) = (json!(RECORD_VERSION), json!(false));
}

/// All networks that users made. Locked for a look-up or a change only.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    by_id: RwLock<BTreeMap<String, Arc<NetworkRecord>>>,
    /// Held while one is made or removed: who chooses a name or a subnet must see what others chose.
    pub(super) changing: tokio::sync::Mutex<()>,
}

impl Registry {
    /// Those of the database. What cannot be read is told and left alone.
    pub(crate) fn open(texts: &[(String, String)]) -> Self {
        let mut by_id = BTreeMap::new();
        for (id, text) in texts {
            match read(text) {
                Ok(record) if record.version <= RECORD_VERSION => {
                    by_id.insert(id.clone(), Arc::new(record));
                }
                Ok(record) => tracing::error!("the record of network {id} is of version {}", record.version),
                Err(error) => tracing::error!("cannot read the record of network {id}: {error}"),
            }
        }
        Self { by_id: RwLock::new(by_id), changing: tokio::sync::Mutex::default() }
    }

    /// Every one, by id.
    pub(crate) fn all(&self) -> Vec<Arc<NetworkRecord>> {
        self.by_id.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// The one of this full id.
    pub(crate) fn by_id(&self, id: &str) -> Option<Arc<NetworkRecord>> {
        self.by_id.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// The one of this name.
    pub(crate) fn by_name(&self, name: &str) -> Option<Arc<NetworkRecord>> {
        let all = self.by_id.read().unwrap_or_else(PoisonError::into_inner);
        all.values().find(|record| record.name == name).cloned()
    }

    /// By full id, name, or unique prefix of an id, in Docker's order.
    pub(crate) fn find(&self, reference: &str) -> Result<Option<Arc<NetworkRecord>>, EngineError> {
        if let Some(found) = self.by_id(reference).or_else(|| self.by_name(reference)) {
            return Ok(Some(found));
        }
        let all = self.by_id.read().unwrap_or_else(PoisonError::into_inner);
        let mut matching = all.values().filter(|record| !reference.is_empty() && record.id.starts_with(reference));
        match (matching.next(), matching.count()) {
            (found, 0) => Ok(found.cloned()),
            (_, more) => Err(EngineError::invalid(format!(
                "network {reference} is ambiguous ({} matches found on ID prefix)",
                more + 1
            ))),
        }
    }

    pub(super) fn insert(&self, record: Arc<NetworkRecord>) {
        self.by_id.write().unwrap_or_else(PoisonError::into_inner).insert(record.id.clone(), record);
    }

    pub(super) fn remove(&self, id: &str) {
        self.by_id.write().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_version_is_read_as_what_it_meant() {
        let text = r#"{"version":1,"id":"ab","name":"back","created":"2026-01-02T03:04:05Z","definition":{"id":"ab",
            "interface":"br-ab","subnet":"10.77.0.0/24","gateway":"10.77.0.1","range":null,"reserved":["10.77.0.9"],"mtu":null,
            "internal":true,"talk":true,"masquerade":false},"attachable":false,"labels":{},"options":{},"ipam_options":{},
            "pools":[],"subnet_given":true,"host_binding":null}"#;
        let moment = serde_json::to_value(Moment(Timestamp::UNIX_EPOCH)).unwrap();
        let text = text.replace("\"2026-01-02T03:04:05Z\"", &moment.to_string());
        let record = read(&text).unwrap();
        let pool = &record.definition.ipv4[0];
        assert_eq!(pool.gateway, Some([10, 77, 0, 1].into()));
        assert_eq!(pool.reserved, [std::net::Ipv4Addr::new(10, 77, 0, 9)]);
        assert!(record.definition.internal && !record.definition.border4.masquerade && record.subnet_given);
        assert_eq!(read(&serde_json::to_string(&record).unwrap()).unwrap().definition, record.definition);
    }

    #[derive(Serialize)]
    struct Moment(#[serde(with = "crate::moment")] Timestamp);
}
