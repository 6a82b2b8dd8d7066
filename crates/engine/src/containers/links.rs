//! Links between containers on the default bridge: names in `/etc/hosts` and variables in the environment, as they were before networks
//! had names. On a user's network a link is a further name that one container alone has for another.

use network::{DEFAULT_NETWORK, Endpoint};

use super::record::ContainerRecord;
use crate::engine::Inner;
use crate::model::{ContainerSpec, ContainerView, EngineError, NetworkMode, Port};

/// One `--link`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    /// The other container, by name or id.
    pub(super) container: String,
    /// What it is called here.
    pub(super) alias: String,
}

impl Link {
    /// Reads `CONTAINER`, `CONTAINER:ALIAS`, and what inspect shows: `/CONTAINER:/SELF/ALIAS`.
    pub(super) fn parse(text: &str) -> Result<Self, EngineError> {
        let (container, alias) = text.split_once(':').unwrap_or((text, text));
        let container = container.trim_start_matches('/');
        let alias = alias.rsplit('/').next().unwrap_or_default();
        if container.is_empty() || alias.is_empty() || alias.contains([':', ' ', '\t', '\n', '=']) {
            return Err(EngineError::invalid(format!("bad format for links: {text}")));
        }
        Ok(Self { container: container.to_owned(), alias: alias.to_owned() })
    }
}

/// All links of a list, parsed.
pub(super) fn parse(texts: &[String]) -> Result<Vec<Link>, EngineError> {
    texts.iter().map(|text| Link::parse(text)).collect()
}

/// Checks `HostConfig.Links`: of form, and that there is a network that they can be for.
pub(super) fn check(spec: &ContainerSpec) -> Result<(), EngineError> {
    if spec.links.is_empty() {
        return Ok(());
    }
    parse(&spec.links)?;
    match &spec.network {
        NetworkMode::Host => Err(EngineError::invalid(
            "conflicting options: host type networking can't be used with links. This would result in undefined behavior",
        )),
        NetworkMode::Container(_) => Err(EngineError::invalid(
            "conflicting options: container type network can't be used with links. This would result in undefined behavior",
        )),
        _ => Ok(()),
    }
}

/// What a container is told of those that it is linked to on the default bridge.
#[derive(Debug, Default)]
pub(super) struct Linked {
    /// Lines of `/etc/hosts`: address and names.
    pub(super) hosts: Vec<(std::net::IpAddr, String)>,
    /// Variables.
    pub(super) environment: Vec<String>,
}

/// Finds them. They must run: what they have is told as it is now.
pub(super) fn look(inner: &Inner, record: &ContainerRecord, endpoints: &[Endpoint]) -> Result<Linked, EngineError> {
    if endpoints.iter().all(|endpoint| endpoint.network != DEFAULT_NETWORK) {
        return Ok(Linked::default());
    }
    find(inner, record)
}

/// The variables for a further process of a container that runs; none where what it is linked with has ended.
pub(crate) fn environment(inner: &Inner, record: &ContainerRecord, view: &ContainerView) -> Vec<String> {
    if !view.networks.endpoints.contains_key("bridge") {
        return Vec::new();
    }
    find(inner, record).map(|linked| linked.environment).unwrap_or_default()
}

fn find(inner: &Inner, record: &ContainerRecord) -> Result<Linked, EngineError> {
    let mut linked = Linked::default();
    for link in parse(&record.spec.links)? {
        let other = inner.index.find(&link.container)?;
        let (theirs, view) = (other.record(), other.view());
        let address = view.networks.endpoints.get("bridge").and_then(|endpoint| endpoint.ipv4);
        let (Some(_), Some(address)) = (other.live(), address) else {
            return Err(EngineError::conflict(format!(
                "Cannot link to a non running container: /{} AS /{}/{}",
                theirs.name, record.name, link.alias
            )));
        };
        linked.hosts.push((address.into(), names(&link.alias, theirs.id.short(), theirs.name.as_str())));
        let ports: Vec<Port> =
            theirs.spec.exposed_ports.iter().chain(theirs.spec.port_bindings.by_port().map(|(port, _)| port)).collect();
        linked.environment.extend(variables(&link.alias, record.name.as_str(), address, ports, &theirs.spec.env));
    }
    Ok(linked)
}

fn names(alias: &str, id: &str, name: &str) -> String {
    let mut names = format!("{alias} {id}");
    if name != alias {
        names.push(' ');
        names.push_str(name);
    }
    names
}

/// Docker's variables of one link.
fn variables(
    alias: &str,
    own_name: &str,
    address: std::net::Ipv4Addr,
    mut ports: Vec<Port>,
    env: &[String],
) -> Vec<String> {
    ports.sort();
    ports.dedup();
    let upper = alias.to_uppercase().replace('-', "_");
    let url = |port: &Port| format!("{}://{address}:{}", port.protocol.as_str(), port.number);
    let mut variables = Vec::new();
    if let Some(lowest) = ports.first() {
        variables.push(format!("{upper}_PORT={}", url(lowest)));
    }
    for port in &ports {
        let protocol = port.protocol.as_str();
        let start = format!("{upper}_PORT_{}_{}", port.number, protocol.to_uppercase());
        variables.push(format!("{start}={}", url(port)));
        variables.push(format!("{start}_ADDR={address}"));
        variables.push(format!("{start}_PORT={}", port.number));
        variables.push(format!("{start}_PROTO={protocol}"));
    }
    variables.push(format!("{upper}_NAME=/{own_name}/{alias}"));
    let told =
        env.iter().filter(|entry| entry.contains('=') && !entry.starts_with("HOME=") && !entry.starts_with("PATH="));
    variables.extend(told.map(|entry| format!("{upper}_ENV_{entry}")));
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_read_in_all_spellings() {
        let link = |text: &str| Link::parse(text).map(|link| (link.container, link.alias)).ok();
        let pair = |container: &str, alias: &str| Some((container.to_owned(), alias.to_owned()));
        assert_eq!(link("db"), pair("db", "db"));
        assert_eq!(link("db:store"), pair("db", "store"));
        assert_eq!(link("/db:/web/store"), pair("db", "store"));
        for wrong in ["", ":a", "db:", "db:a:b", "db:a b"] {
            assert_eq!(link(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn variables_are_dockers() {
        let ports = ["5432/tcp", "53/udp", "5432"].map(|text| Port::parse(text).unwrap()).to_vec();
        let env = ["PATH=/bin", "PASSWORD=x"].map(str::to_owned);
        let found = variables("my-db", "web", [172, 17, 0, 2].into(), ports, &env);
        assert_eq!(
            found,
            [
                "MY_DB_PORT=udp://172.17.0.2:53",
                "MY_DB_PORT_53_UDP=udp://172.17.0.2:53",
                "MY_DB_PORT_53_UDP_ADDR=172.17.0.2",
                "MY_DB_PORT_53_UDP_PORT=53",
                "MY_DB_PORT_53_UDP_PROTO=udp",
                "MY_DB_PORT_5432_TCP=tcp://172.17.0.2:5432",
                "MY_DB_PORT_5432_TCP_ADDR=172.17.0.2",
                "MY_DB_PORT_5432_TCP_PORT=5432",
                "MY_DB_PORT_5432_TCP_PROTO=tcp",
                "MY_DB_NAME=/web/my-db",
                "MY_DB_ENV_PASSWORD=x",
            ]
        );
    }
}
