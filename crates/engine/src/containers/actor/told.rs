//! What others are told of a container.

use std::collections::BTreeMap;

use super::Actor;
use crate::containers::view;
use crate::model::EventKind;

impl Actor {
    /// An event about this container, with its labels, image and name.
    pub(super) fn tell(&self, action: &str, more: &[(&str, &str)]) {
        self.engine.tell_container(&self.record, action, more);
    }

    pub(super) fn tell_network(&self, action: &str) {
        for network in self.record.spec.endpoints.keys() {
            self.tell_of_network(action, network);
        }
    }

    pub(super) fn tell_of_network(&self, action: &str, network: &str) {
        let kind = view::driver_of(&self.engine.inner, network);
        let attributes = [("container", self.handle.id.as_str()), ("name", network), ("type", kind)];
        let attributes = attributes.map(|(key, value)| (key.to_owned(), value.to_owned()));
        self.engine.tell(EventKind::Network, action, &self.engine.network_id(network), BTreeMap::from(attributes));
    }

    pub(super) fn tell_volumes(&self, action: &str) {
        for mount in &self.record.mounts {
            let Some(name) = mount.volume() else { continue };
            let mut attributes = BTreeMap::from([
                ("container".to_owned(), self.handle.id.to_string()),
                ("driver".to_owned(), "local".to_owned()),
            ]);
            if action == "mount" {
                attributes.insert("destination".into(), mount.target.clone());
                attributes.insert("propagation".into(), String::new());
                attributes.insert("read/write".into(), (mount.access == crate::model::Access::ReadWrite).to_string());
            }
            self.engine.tell(EventKind::Volume, action, name, attributes);
        }
    }
}
