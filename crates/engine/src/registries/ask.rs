//! Questions to registries: logins, what a name means there, searches.

use oci::image::{Descriptor, ImageConfig, Platform, media_type};
use registry::{Credentials, Document, Found, Name, Repository};

use super::failure::{Failure, of_request};
use super::named;
use crate::engine::Engine;
use crate::model::{Distribution, EngineError, ErrorKind, SearchRequest, chain};

const CONFIG_BYTES_MAX: u64 = 8 << 20;
const DOCKER_HUB: &str = "docker.io";

impl Engine {
    /// Proves that credentials are good; gives a token to keep in the password's place, where the registry has such.
    pub async fn login(&self, server: &str, credentials: Credentials) -> Result<Option<String>, EngineError> {
        let client = self.inner.registries.client();
        let endpoint = client.places().registry(registry_name(server));
        let endpoint = endpoint.map_err(|error| EngineError::invalid(error.to_string()))?;
        let failed = |error: registry::Error| of_request(&error);
        let session = client.open(&endpoint, credentials).await.map_err(failed)?;
        Ok(session.login().await.map_err(failed)?.identity_token)
    }

    /// What a registry has under a name.
    pub async fn distribution(&self, image: &str, credentials: Credentials) -> Result<Distribution, EngineError> {
        let reference = named(image, "")?.with_default_tag();
        let failed = |failure: Failure| match failure {
            Failure::Registry(error) if error.is_not_found() => EngineError::not_found(chain(&error)),
            failure => failure.of_pull(&reference),
        };
        let client = self.inner.registries.client();
        let session = client.open_registry_of(&reference, credentials).await.map_err(|error| failed(error.into()))?;
        let repository = session.repository(reference.path());
        let name = match (reference.digest(), reference.tag()) {
            (Some(digest), _) => Name::Digest(digest),
            (None, tag) => Name::Tag(tag.unwrap_or_default()),
        };
        describe(&repository, name).await.map_err(failed)
    }

    /// Looks for repositories.
    pub async fn search_images(&self, request: SearchRequest) -> Result<Vec<Found>, EngineError> {
        let (domain, term) = search_place(&request.term);
        let client = self.inner.registries.client();
        let found = client.search(domain, term, request.limit, request.credentials.clone()).await;
        let found = found.map_err(|error| match error.refusal() {
            Some(refusal) => {
                EngineError::new(ErrorKind::System, format!("Unexpected status code {}", refusal.status()))
            }
            None => of_request(&error),
        })?;
        let is_wanted = |found: &Found| {
            request.is_official.is_none_or(|wanted| wanted == found.is_official)
                && request.is_automated.is_none_or(|wanted| wanted == found.is_automated)
                && found.star_count >= request.stars
        };
        Ok(found.into_iter().filter(is_wanted).collect())
    }
}

async fn describe(repository: &Repository, name: Name<'_>) -> Result<Distribution, Failure> {
    let fetched = repository.manifest(name).await?;
    let (kind, platforms) = match fetched.document()? {
        Document::Index(index) => {
            let platforms = index.manifests.into_iter().filter_map(|descriptor| descriptor.platform).collect();
            (media_type::OCI_INDEX, platforms)
        }
        Document::Manifest(manifest) => {
            (media_type::OCI_MANIFEST, vec![platform_of(repository, &manifest.config).await?])
        }
    };
    let media_type = if fetched.media_type.is_empty() { kind.to_owned() } else { fetched.media_type.clone() };
    let descriptor = Descriptor::new(&media_type, fetched.digest, fetched.bytes.len() as u64);
    Ok(Distribution { descriptor, platforms })
}

async fn platform_of(repository: &Repository, config: &Descriptor) -> Result<Platform, Failure> {
    let bytes = repository.small_blob(&config.digest, config.size, CONFIG_BYTES_MAX).await?;
    // What is no image has no platform.
    let config: ImageConfig = serde_json::from_slice(&bytes).unwrap_or_default();
    Ok(config.platform())
}

/// The registry that a client means: `https://index.docker.io/v1/`, `host:port`, or nothing for Docker Hub.
fn registry_name(server: &str) -> &str {
    let without_scheme = server.split_once("://").map_or(server, |(_, rest)| rest);
    let host = without_scheme.split('/').next().unwrap_or_default();
    if host.is_empty() { DOCKER_HUB } else { host }
}

/// `host:port/term` is for that registry, anything else for Docker Hub.
fn search_place(term: &str) -> (&str, &str) {
    match term.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => (host, rest),
        _ => (DOCKER_HUB, term),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_are_found_in_what_clients_send() {
        for (server, expected) in [
            ("", "docker.io"),
            ("https://index.docker.io/v1/", "index.docker.io"),
            ("127.0.0.1:5000", "127.0.0.1:5000"),
            ("http://reg.example/v2/", "reg.example"),
        ] {
            assert_eq!(registry_name(server), expected, "{server}");
        }
        assert_eq!(search_place("127.0.0.1:5000/a/b"), ("127.0.0.1:5000", "a/b"));
        assert_eq!(search_place("user/app"), ("docker.io", "user/app"));
        assert_eq!(search_place("alpine"), ("docker.io", "alpine"));
    }
}
