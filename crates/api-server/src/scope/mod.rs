//! Sockets with fewer rights: which requests they take, and which things they reach.
//!
//! ```text
//! /run/ci.sock,allow=containers:read,allow=containers:write,label=team=ci
//! ```
//!
//! What is not allowed is refused. With a label, things without it do not exist for the socket's clients: lists leave them out, names do
//! not find them, and what is made gets the label. What a container may have is narrow in any case ([`confine`]): nothing that reaches
//! out of it.

mod confine;
mod rights;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

use docker_api::Route;
use engine::Engine;
use engine::model::{EngineError, LabelFilter};

use crate::error::{ApiError, ApiResult};
use rights::{Need, Right};

/// The labels of a thing.
type Labels = BTreeMap<String, String>;

/// What a socket's clients may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    rights: Vec<Right>,
    label: Option<LabelFilter>,
}

/// A socket with fewer rights, as `--socket` gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScopedSocket {
    /// Where.
    pub path: PathBuf,
    /// The group that may use it; the same as for the other sockets when none.
    pub group: Option<String>,
    /// What its clients may do.
    pub scope: Scope,
}

/// A `--socket` that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid --socket {text:?}: {reason}; use /PATH,allow=AREA:VERB[,allow=…][,label=KEY[=VALUE]][,group=GROUP]")]
pub struct ScopeError {
    text: String,
    reason: String,
}

impl FromStr for ScopedSocket {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        let wrong = |reason: &str| ScopeError { text: text.to_owned(), reason: reason.to_owned() };
        let mut parts = text.split(',');
        let path = PathBuf::from(parts.next().unwrap_or_default());
        if !path.is_absolute() {
            return Err(wrong("the path must be absolute"));
        }
        let mut scope = Scope { rights: Vec::new(), label: None };
        let mut group = None;
        for part in parts {
            match part.split_once('=') {
                Some(("allow", right)) => {
                    let all = Right::parse(right).ok_or_else(|| wrong(&format!("there is no right {right:?}")))?;
                    scope.rights.extend(all);
                }
                Some(("label", label)) if scope.label.is_none() && !label.is_empty() => {
                    scope.label = Some(LabelFilter::parse(label));
                }
                Some(("group", name)) if group.is_none() && !name.is_empty() => group = Some(name.to_owned()),
                _ => return Err(wrong(&format!("{part:?} is not understood"))),
            }
        }
        if scope.rights.is_empty() { Err(wrong("it allows nothing")) } else { Ok(Self { path, group, scope }) }
    }
}

fn denied(message: impl Into<String>) -> ApiError {
    ApiError::new(http::StatusCode::FORBIDDEN, message)
}

impl Scope {
    /// Whether a request may be made at all; names in it become full ids, so that they mean the same thing later.
    pub(crate) fn admit(&self, engine: &Engine, route: Route) -> ApiResult<Route> {
        match rights::need(&route) {
            Need::Nothing => return Ok(route),
            Need::Refused(what) => return Err(denied(format!("{what} is not allowed on this socket"))),
            Need::Rights(needed) => {
                if let Some(missing) = needed.iter().find(|right| !self.rights.contains(right)) {
                    return Err(denied(format!("{missing} is not allowed on this socket")));
                }
            }
        }
        match &self.label {
            None => Ok(route),
            Some(label) => reach(engine, route, label),
        }
    }

    /// With a label images are shared things: they may be pulled, not made from something else under whatever name.
    pub(crate) fn admit_image_source(&self, source: &str) -> ApiResult<()> {
        match self.label.is_some() && !source.is_empty() {
            true => Err(denied("an import is not allowed on this socket")),
            false => Ok(()),
        }
    }

    /// The filter that every list gets.
    pub(crate) fn label(&self) -> Option<&LabelFilter> {
        self.label.as_ref()
    }

    /// Puts the label on something new, over whatever the client said.
    fn mark(&self, labels: &mut Labels) {
        if let Some(label) = &self.label {
            labels.insert(label.key.clone(), label.value.clone().unwrap_or_default());
        }
    }
}

/// Looks whether the thing that a request names has the label.
fn reach(engine: &Engine, mut route: Route, label: &LabelFilter) -> ApiResult<Route> {
    if let Some(name) = rights::container_of(&mut route) {
        *name = container(engine, name, label)?;
    } else if let Some(name) = rights::network_of(&mut route) {
        *name = network(engine, name, label)?;
    } else if let Some(name) = rights::volume_of(&route) {
        volume(engine, name, label)?;
    } else if let Some(id) = rights::exec_of(&route) {
        let exec = engine.exec(id)?;
        let of_another = |_| EngineError::not_found(format!("No such exec instance: {id}"));
        container(engine, exec.container.as_str(), label).map_err(of_another)?;
    } else if !rights::is_confined_by_its_handler(&route) {
        return Err(denied("this request reaches things without the label of this socket"));
    }
    Ok(route)
}

/// The full id of a container that has the label; the others are not there.
fn container(engine: &Engine, name: &str, label: &LabelFilter) -> Result<String, EngineError> {
    let view = engine.container(name)?;
    match label.matches(&view.spec.labels) {
        true => Ok(view.id.to_string()),
        false => Err(EngineError::not_found(format!("No such container: {name}"))),
    }
}

fn network(engine: &Engine, name: &str, label: &LabelFilter) -> Result<String, EngineError> {
    let view = engine.network(name)?;
    match label.matches(&view.labels) {
        true => Ok(view.id.clone()),
        false => Err(EngineError::not_found(format!("network {name} not found"))),
    }
}

fn volume(engine: &Engine, name: &str, label: &LabelFilter) -> Result<(), EngineError> {
    let view = engine.volume(name)?;
    match view.labels.as_ref().is_some_and(|labels| label.matches(labels)) {
        true => Ok(()),
        false => Err(EngineError::not_found(format!("get {name}: no such volume"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_say_what_they_allow() {
        let parse = |text: &str| text.parse::<ScopedSocket>().map_err(|error| error.to_string());
        let socket = parse("/run/ci.sock,allow=containers:read,allow=images:*,label=team=ci").unwrap();
        assert_eq!(socket.path, PathBuf::from("/run/ci.sock"));
        let shown: Vec<_> = socket.scope.rights.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["containers:read", "images:read", "images:write"]);
        assert_eq!(socket.scope.label, Some(LabelFilter::parse("team=ci")));
        for (text, reason) in [
            ("ci.sock,allow=containers:read", "absolute"),
            ("/ci.sock", "allows nothing"),
            ("/ci.sock,allow=containers", "no right \"containers\""),
            ("/ci.sock,allow=pods:read", "no right \"pods:read\""),
            ("/ci.sock,allow=images:exec", "no right \"images:exec\""),
            ("/ci.sock,deny=images:read", "not understood"),
            ("/ci.sock,allow=images:read,label=a,label=b", "not understood"),
        ] {
            assert!(parse(text).unwrap_err().contains(reason), "{text}");
        }
    }
}
