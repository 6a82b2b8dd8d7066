//! Where an image is copied to.

use std::path::PathBuf;

use api_client::{Client, Host};

use crate::context::Context;
use crate::contexts;
use crate::error::Failure;

/// Where an image goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Destination {
    /// Another engine, by its address.
    Engine(Host),
    /// Another engine, by the name of a context of the docker command line.
    Context(String),
    /// An archive, which both Docker and OCI tools read.
    Archive(String),
    /// An OCI layout, and the name of the image in it.
    Layout {
        /// Its folder.
        folder: PathBuf,
        /// The name; the image's own tags where there is none.
        name: Option<String>,
    },
}

impl Destination {
    /// Reads what the user wrote.
    pub(super) fn parse(text: &str) -> Result<Destination, Failure> {
        if text.contains("://") {
            return Host::parse(text).map(Destination::Engine).map_err(|error| Failure::usage(error.to_string()));
        }
        match text.split_once(':') {
            Some((_, "")) => Err(Failure::usage(format!("{text}: a path is missing"))),
            Some(("docker-archive" | "oci-archive", file)) => match file.split_once(':') {
                None => Ok(Destination::Archive(file.to_owned())),
                Some(_) => Err(Failure::usage(format!(
                    "{text}: a name behind the file is not supported: the image keeps its own names"
                ))),
            },
            Some(("oci", rest)) => {
                let (folder, name) = rest.split_once(':').map_or((rest, None), |(folder, name)| (folder, Some(name)));
                Ok(Destination::Layout { folder: folder.into(), name: name.map(str::to_owned) })
            }
            Some((scheme, _)) => Err(Failure::usage(format!(
                "unknown destination {scheme:?}: ssh://, unix://, tcp://, a context, docker-archive:, oci-archive: or oci: is expected"
            ))),
            None => Ok(Destination::Context(text.to_owned())),
        }
    }

    /// The client of an engine.
    pub(super) fn client(&self, context: &Context) -> Result<Client, Failure> {
        match self {
            Destination::Engine(host) => Ok(context.client_of(host.clone())),
            Destination::Context(name) => Ok(Client::new(host_of_context(name)?)),
            Destination::Archive(_) | Destination::Layout { .. } => unreachable!("asked of engines alone"),
        }
    }
}

/// The address in a context.
fn host_of_context(name: &str) -> Result<Host, Failure> {
    let missing = |_| Failure::usage(format!("context {name:?} not found, and it is no other destination either"));
    contexts::load(name).map_err(missing)?.host()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_told_from_the_others() {
        let parse = |text: &str| Destination::parse(text).map_err(|failure| failure.message);
        let engine = |text: &str| Ok(Destination::Engine(Host::parse(text).unwrap()));
        assert_eq!(parse("ssh://me@host"), engine("ssh://me@host"));
        assert_eq!(parse("unix:///run/x.sock"), engine("unix:///run/x.sock"));
        assert_eq!(parse("docker-archive:/a/b.tar"), Ok(Destination::Archive("/a/b.tar".to_owned())));
        let layout = |name: Option<&str>| Destination::Layout { folder: "/a/b".into(), name: name.map(str::to_owned) };
        assert_eq!(parse("oci:/a/b"), Ok(layout(None)));
        assert_eq!(parse("oci:/a/b:v1"), Ok(layout(Some("v1"))));
        assert_eq!(parse("remote"), Ok(Destination::Context("remote".to_owned())));
        for (text, part) in [
            ("oci:", "a path is missing"),
            ("oci-archive:a:b", "a name behind the file is not supported"),
            ("dir:/x", "unknown destination \"dir\""),
            ("ftp://x", "unable to parse docker host"),
        ] {
            assert!(parse(text).unwrap_err().contains(part), "{text}");
        }
    }
}
