//! Who reaches which published port.

use std::net::IpAddr;
use std::sync::Arc;

use network::{Explanation, Published, Transport};

use crate::engine::{Engine, blocking};
use crate::model::{ContainerQuery, ContainerView, EngineError, HostPort, Port, Protocol};

/// What one caller finds at one published port of a container.
#[derive(Debug, Clone)]
pub struct PortView {
    /// The container's name.
    pub container: String,
    /// The port, the caller, and what becomes of his call.
    pub explanation: Explanation,
}

impl Engine {
    /// Explains the published ports of one container, or of all that run.
    pub async fn explain_ports(&self, container: Option<&str>) -> Result<Vec<PortView>, EngineError> {
        let views = match container {
            Some(reference) => vec![self.container(reference)?],
            None => self.containers(&ContainerQuery::default())?,
        };
        let inner = Arc::clone(&self.inner);
        blocking(move || {
            let mut all = Vec::new();
            for view in views {
                let ports: Vec<Published> = view
                    .networks
                    .ports
                    .iter()
                    .map(|(port, place)| published(&inner.networks, &view, port, place))
                    .collect();
                let explained = inner.networks.explain(&ports);
                let explained =
                    explained.map_err(|error| EngineError::system("cannot read the host's rules", error))?;
                let container = view.name.to_string();
                all.extend(
                    explained.into_iter().map(|explanation| PortView { container: container.clone(), explanation }),
                );
            }
            Ok(all)
        })
        .await
    }
}

/// A port with the container's address that it leads to.
fn published(networks: &network::Networks, view: &ContainerView, port: Port, place: HostPort) -> Published {
    let transport = match port.protocol {
        Protocol::Tcp => Transport::Tcp,
        Protocol::Udp => Transport::Udp,
        Protocol::Sctp => Transport::Sctp,
    };
    let own = view.networks.endpoints.values().find_map(|endpoint| endpoint.ipv4.map(IpAddr::V4));
    let target = networks.target_of(place.address, transport, place.number).map(|(target, _)| target);
    Published {
        transport,
        address: place.address,
        port: place.number,
        // What is not translated is passed on, to the container's IPv4 address.
        target: target.or(own).unwrap_or(place.address),
        container_port: port.number,
    }
}
