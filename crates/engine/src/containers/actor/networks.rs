//! Where a container sits while it runs: networks, names, ports.

use std::sync::Arc;

use dns::Serving;
use monitor_protocol::Request;

use super::{Actor, limited};
use crate::containers::attachments::{self, Moved};
use crate::containers::record::ContainerRecord;
use crate::containers::relay::{self, Relayed};
use crate::containers::{links, resolver, start};
use crate::engine::blocking;
use crate::model::{EndpointSpec, EngineError, ErrorKind, NetworkMode};
use crate::store::Durability;

impl Actor {
    /// Removes a link: from what the next start is told, and from the hosts file that a running container has.
    pub(super) async fn unlink(&mut self, alias: &str) -> Result<(), EngineError> {
        let before = self.record.spec.links.len();
        self.record.spec.links.retain(|text| links::Link::parse(text).is_ok_and(|link| link.alias != alias));
        if self.record.spec.links.len() == before {
            return Err(EngineError::not_found(format!("no such link: /{}/{alias}", self.record.name)));
        }
        self.write_record(Durability::Machine).await?;
        start::forget_host(&self.record, &self.engine.inner.container_dir(&self.record.id), alias);
        self.handle.publish_record(self.record.clone());
        self.publish();
        Ok(())
    }

    pub(super) async fn connect(&mut self, network: String, endpoint: EndpointSpec) -> Result<(), EngineError> {
        let spec = &self.record.spec;
        if matches!(spec.network, NetworkMode::Container(_)) {
            return Err(EngineError::invalid(
                "container sharing network namespace with another container or host cannot be connected to any other network",
            ));
        }
        if spec.endpoints.contains_key(&network) && self.life.pid().is_some() {
            return Err(EngineError::forbidden(format!(
                "endpoint with name {} already exists in network {network}",
                self.record.name
            )));
        }
        attachments::alone(spec.endpoints.keys().chain([&network]).map(String::as_str))?;
        let mut changed = self.record.clone();
        changed.spec.endpoints.insert(network.clone(), endpoint);
        self.change_networks(changed).await?;
        self.tell_of_network("connect", &network);
        Ok(())
    }

    pub(super) async fn disconnect(&mut self, network: String) -> Result<(), EngineError> {
        if network == "host" && self.life.pid().is_some() {
            return Err(EngineError::invalid(
                "container cannot be disconnected from host network or connected to host network",
            ));
        }
        let mut changed = self.record.clone();
        if changed.spec.endpoints.remove(&network).is_none() {
            // Docker's status for it.
            return Err(EngineError::new(
                ErrorKind::System,
                format!("container {} is not connected to network {network}", self.handle.id),
            ));
        }
        self.change_networks(changed).await?;
        self.tell_of_network("disconnect", &network);
        Ok(())
    }

    /// Has the container sit where the changed record says, now if it runs, and keeps the record.
    async fn change_networks(&mut self, changed: ContainerRecord) -> Result<(), EngineError> {
        if let Some(pid) = self.life.pid() {
            let (inner, before, after) = (Arc::clone(&self.engine.inner), self.record.clone(), changed.clone());
            let mut place = self.place.clone();
            let (place, moved) = blocking(move || {
                let moved = attachments::change(&inner, &before, &after, pid, &mut place)?;
                Ok((place, moved))
            })
            .await?;
            let folder = self.engine.inner.container_dir(&self.record.id);
            start::change_hosts(&changed, &folder, &self.place, &place);
            self.place = place;
            if moved == Moved::Yes {
                self.move_ports(&changed).await;
            }
        }
        self.record = changed;
        self.announce();
        if self.names.is_none()
            && let Some(pid) = self.life.pid()
        {
            self.serve_names(pid).await;
        }
        self.write_record(Durability::Machine).await?;
        self.handle.publish_record(self.record.clone());
        self.publish();
        Ok(())
    }

    /// Tells others by which names a running container is found.
    pub(super) fn announce(&self) {
        if self.life.pid().is_some() {
            resolver::announce(&self.engine.inner, &self.record, &self.place);
        }
    }

    /// Gives a running container a name server, if it has come to a network with names.
    pub(super) async fn serve_names(&mut self, pid: i32) {
        if !resolver::is_named(&self.place) {
            return;
        }
        let (inner, record, place) = (Arc::clone(&self.engine.inner), self.record.clone(), self.place.clone());
        let served = blocking(move || {
            let serving = resolver::serve_running(&inner, &record, &place, pid);
            if serving.is_some() {
                start::write_resolv_conf(&inner, &record, &inner.container_dir(&record.id), network::Reach::Resolver)?;
            }
            Ok(serving)
        });
        match served.await {
            Ok(serving) => {
                self.place.resolver = serving.as_ref().map(Serving::port);
                self.names = serving;
            }
            Err(error) => tracing::warn!("container {}: {error}", self.handle.id),
        }
    }

    /// Has the ports lead to where the container is now.
    async fn move_ports(&mut self, changed: &ContainerRecord) {
        if self.place.ports.iter().any(|port| relay::is_relayed(&port)) {
            self.relay(Vec::new()).await;
        }
        self.free_ports();
        let (inner, record, mut place) = (Arc::clone(&self.engine.inner), changed.clone(), self.place.clone());
        let published = blocking(move || {
            let relays = attachments::publish(&inner, &record, &mut place)?;
            Ok((place, relays))
        });
        match published.await {
            Ok((place, relays)) => {
                self.place = place;
                if !relays.is_empty() {
                    self.relay(relays).await;
                }
            }
            Err(error) => tracing::warn!("container {}: its ports are not published: {error}", self.handle.id),
        }
    }

    /// Has the monitor pass on what comes to these ports, and to no others.
    async fn relay(&self, relays: Vec<Relayed>) {
        let Some(connection) = self.connection.clone() else { return };
        let mut fds = Vec::new();
        let (relays, datagram_relays) = start::pass_on(relays, &mut fds);
        if let Err(error) = limited(connection.request(Request::Relay { relays, datagram_relays }, fds)).await {
            tracing::warn!("container {}: what comes by IPv6 is not passed on: {error}", self.handle.id);
        }
    }
}
