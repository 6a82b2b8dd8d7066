//! The options of the Dockerfile frontend, as buildx and Compose name them, as a build of the engine.

use std::collections::HashMap;

use engine::model::build::{NamedContext, Reuse};
use engine::model::{BuildRequest, ContainerSpec, NetworkMode};

use crate::grpc::{Code, Status};

/// What a frontend is asked for.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) request: BuildRequest,
    /// A context that is not the client's folder.
    pub(crate) remote: Option<String>,
    /// A question about the Dockerfile in the place of a build.
    pub(crate) subrequest: Option<String>,
}

/// Options that say how a build is shown or recorded and not what it makes.
const WITHOUT_EFFECT: &[&str] = &[
    "frontend.caps",
    "contextsubdir",
    "build-arg-source",
    "contextkey",
    "dockerfilekey",
    "image-resolve-mode",
    "context",
    "filename",
    "target",
    "platform",
    "no-cache",
    "add-hosts",
    "force-network-mode",
    "shm-size",
    "ulimit",
    "cgroup-parent",
    "requestid",
    "multi-platform",
    "cache-imports",
    "cache-from",
    "source",
    "cmdline",
    "hostname",
];

/// Images that are the frontend which is built in.
const OWN_FRONTENDS: &[&str] = &["docker/dockerfile", "docker.io/docker/dockerfile", "docker/dockerfile-upstream"];

/// Refuses frontends that are not built in, by name.
pub(crate) fn check(frontend: &str, options: &HashMap<String, String>) -> Result<(), Status> {
    let source = options.get("source").map(String::as_str).unwrap_or_default();
    let own = |source: &str| {
        let name = source.split(['@']).next().unwrap_or_default();
        let name = name.rsplit_once(':').map_or(name, |(name, _)| name);
        OWN_FRONTENDS.contains(&name)
    };
    match frontend {
        "dockerfile.v0" => Ok(()),
        "gateway.v0" if own(source) => Ok(()),
        "gateway.v0" => Err(Status::new(
            Code::Unimplemented,
            format!(
                "frontend {source:?} is not supported by this engine, only the Dockerfile frontend that is built in"
            ),
        )),
        other => Err(Status::new(Code::Unimplemented, format!("frontend {other:?} is not supported by this engine"))),
    }
}

/// Reads the options. `entitlements` are what the user allows.
pub(crate) fn wanted(options: &HashMap<String, String>, entitlements: &[String]) -> Result<Wanted, Status> {
    let mut request = BuildRequest::default();
    let mut sorted: Vec<(&String, &String)> = options.iter().collect();
    sorted.sort();
    for (name, value) in sorted {
        if let Some(argument) = name.strip_prefix("build-arg:") {
            request.arguments.insert(argument.to_owned(), value.clone());
        } else if let Some(label) = name.strip_prefix("label:") {
            request.labels.insert(label.to_owned(), value.clone());
        } else if let Some(context) = name.strip_prefix("context:") {
            request.contexts.insert(context_name(context), named_context(value)?);
        } else if let Some(kind) = name.strip_prefix("attest:") {
            let added = request.attests.add(kind, value);
            added.map_err(|error| Status::new(Code::Unimplemented, error.message()))?;
        } else if !is_known(name) {
            return Err(Status::new(Code::InvalidArgument, format!("option {name:?} is not supported by this engine")));
        }
    }
    let text = |name: &str| options.get(name).cloned().unwrap_or_default();
    let optional = |name: &str| Some(text(name)).filter(|text| !text.is_empty());
    request.dockerfile = optional("filename").unwrap_or_else(|| "Dockerfile".to_owned());
    request.target = optional("target");
    request.platform = optional("platform");
    request.options = options.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    request.pull = text("image-resolve-mode") == "pull";
    request.reuse = match options.get("no-cache").map(String::as_str) {
        None => Reuse::All,
        Some("") => Reuse::Nothing,
        Some(stages) => Reuse::NotFor(stages.split(',').map(|stage| stage.trim().to_owned()).collect()),
    };
    request.template = template(options)?;
    request.host_network = allowed(entitlements)?;
    if request.template.network == NetworkMode::Host && !request.host_network {
        return Err(Status::unknown("network.host is not allowed"));
    }
    Ok(Wanted { request, remote: optional("context"), subrequest: optional("requestid") })
}

fn is_known(name: &str) -> bool {
    let recorded = ["vcs:", "input-metadata:", "local-sessionid:"];
    WITHOUT_EFFECT.contains(&name) || recorded.iter().any(|prefix| name.starts_with(prefix))
}

/// A name may carry a platform behind it.
fn context_name(name: &str) -> String {
    name.split_once("::").map_or(name, |(name, _)| name).to_owned()
}

fn named_context(value: &str) -> Result<NamedContext, Status> {
    let context = match value.split_once(':') {
        Some(("docker-image", rest)) => NamedContext::Image(rest.trim_start_matches("//").to_owned()),
        Some(("local", name)) => NamedContext::Client(name.to_owned()),
        // A result of another build of the same client is an image here.
        Some(("input", name)) => NamedContext::Image(format!("input:{name}")),
        Some(("https" | "http" | "ssh" | "git", _)) => NamedContext::Remote(value.to_owned()),
        _ if value.starts_with("git@") => NamedContext::Remote(value.to_owned()),
        _ => {
            return Err(Status::new(
                Code::InvalidArgument,
                format!("context {value:?} is not supported by this engine"),
            ));
        }
    };
    Ok(context)
}

/// What the user allows beyond what every build may: the host's network.
fn allowed(entitlements: &[String]) -> Result<bool, Status> {
    let mut host_network = false;
    for entitlement in entitlements {
        match entitlement.as_str() {
            "network.host" => host_network = true,
            other => {
                let message = format!("granting entitlement {other} is not allowed by build daemon configuration");
                return Err(Status::unknown(message));
            }
        }
    }
    Ok(host_network)
}

fn template(options: &HashMap<String, String>) -> Result<ContainerSpec, Status> {
    let wrong = |message: String| Status::new(Code::InvalidArgument, message);
    let text = |name: &str| options.get(name).map(String::as_str).unwrap_or_default();
    let network = match text("force-network-mode") {
        "" | "sandbox" => NetworkMode::default(),
        "host" => NetworkMode::Host,
        "none" => NetworkMode::None,
        other => return Err(wrong(format!("invalid network mode {other:?}"))),
    };
    let shm_size_bytes = match text("shm-size") {
        "" => 0,
        size => size.parse().map_err(|_| wrong(format!("invalid shm-size {size:?}")))?,
    };
    let mut spec = ContainerSpec {
        network,
        shm_size_bytes,
        extra_hosts: text("add-hosts")
            .split(',')
            .filter(|host| !host.is_empty())
            .map(|host| host.replacen('=', ":", 1))
            .collect(),
        hostname: Some(text("hostname").to_owned()).filter(|name| !name.is_empty()),
        ..ContainerSpec::default()
    };
    spec.resources.cgroup_parent = text("cgroup-parent").to_owned();
    for limit in text("ulimit").split(',').filter(|limit| !limit.is_empty()) {
        spec.resources.ulimits.push(ulimit(limit).ok_or_else(|| wrong(format!("invalid ulimit {limit:?}")))?);
    }
    Ok(spec)
}

/// `nofile=1024:2048`
fn ulimit(text: &str) -> Option<engine::model::Ulimit> {
    let (name, values) = text.split_once('=')?;
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    Some(engine::model::Ulimit { name: name.to_owned(), soft: soft.parse().ok()?, hard: hard.parse().ok()? })
}

/// Names in an exporter's `name`, without the registry's answer to how they are pushed.
pub(crate) fn names(attributes: &HashMap<String, String>) -> Vec<String> {
    let names = attributes.get("name").map(String::as_str).unwrap_or_default();
    names.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn options_become_a_request() {
        let given = options(&[
            ("filename", "x/Dockerfile"),
            ("build-arg:A", "1"),
            ("label:l", "v"),
            ("no-cache", "a,b"),
            ("add-hosts", "h=1.2.3.4,i=::1"),
            ("shm-size", "1024"),
            ("context:base", "docker-image://busybox"),
            ("context:files", "local:files"),
            ("image-resolve-mode", "pull"),
        ]);
        let wanted = wanted(&given, &[]).unwrap().request;
        assert_eq!(wanted.dockerfile, "x/Dockerfile");
        assert_eq!(wanted.arguments["A"], "1");
        assert_eq!(wanted.reuse, Reuse::NotFor(vec!["a".into(), "b".into()]));
        assert_eq!(wanted.template.extra_hosts, ["h:1.2.3.4", "i:::1"]);
        assert_eq!(wanted.contexts["base"], NamedContext::Image("busybox".into()));
        assert_eq!(wanted.contexts["files"], NamedContext::Client("files".into()));
        assert!(wanted.pull && wanted.template.shm_size_bytes == 1024);
    }

    #[test]
    fn what_is_not_supported_is_named() {
        let refused = |pairs: &[(&str, &str)], allow: &[&str]| {
            let allow: Vec<String> = allow.iter().map(|text| (*text).to_owned()).collect();
            wanted(&options(pairs), &allow).unwrap_err().message
        };
        assert!(refused(&[("odd", "1")], &[]).contains("\"odd\""));
        assert!(refused(&[("attest:sbom", "scanner=x")], &[]).contains("\"scanner\""));
        assert!(refused(&[("attest:odd", "")], &[]).contains("attestation \"odd\""));
        assert!(wanted(&options(&[("attest:provenance", "mode=min,inline-only=true")]), &[]).is_ok());
        assert!(refused(&[], &["security.insecure"]).contains("security.insecure"));
        assert!(refused(&[], &["device"]).contains("device"));
        assert!(refused(&[("force-network-mode", "host")], &[]).contains("network.host"));
        let message = check("gateway.v0", &options(&[("source", "example/frontend:1")])).unwrap_err().message;
        assert!(message.contains("example/frontend:1"), "{message}");
        assert!(check("gateway.v0", &options(&[("source", "docker/dockerfile:1.7@sha256:ab")])).is_ok());
    }
}
