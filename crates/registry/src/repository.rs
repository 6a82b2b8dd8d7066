//! One repository: manifests, tags, referrers.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, LINK};
use http::{Method, StatusCode};
use oci::Digest;
use oci::image::{Descriptor, media_type};
use serde::Deserialize;

use crate::body::Body;
use crate::error::Error;
use crate::exchange::{Request, Response};
use crate::link;
use crate::manifest::{ACCEPTED, Document, Fetched, MANIFEST_BYTES_MAX};
use crate::session::Session;

/// One page of tags.
const TAGS_PAGE_BYTES_MAX: u64 = 16 << 20;
/// Tags of one repository that are listed.
const TAGS_MAX: usize = 100_000;
const TAGS_PAGE: &str = "1000";

/// What a token may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Pull,
    Push,
}

/// Which manifest of a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name<'a> {
    /// The one that a tag names now.
    Tag(&'a str),
    /// Exactly this one.
    Digest(&'a Digest),
}

impl fmt::Display for Name<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Name::Tag(tag) => formatter.write_str(tag),
            Name::Digest(digest) => digest.fmt(formatter),
        }
    }
}

/// What a registry says about a manifest without giving it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Its digest.
    pub digest: Digest,
    /// What it is.
    pub media_type: String,
    /// Its size.
    pub size_bytes: u64,
}

/// A repository of a registry.
#[derive(Debug, Clone)]
pub struct Repository {
    pub(crate) session: Arc<Session>,
    path: String,
}

impl Repository {
    pub(crate) fn new(session: Arc<Session>, path: &str) -> Repository {
        Repository { session, path: path.to_owned() }
    }

    /// Its path in the registry.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What a tag or digest names, without fetching it; nothing where the registry has no such thing or does not say.
    pub async fn head_manifest(&self, name: Name<'_>) -> Result<Option<Known>, Error> {
        let response = self.ask_for_manifest(Method::HEAD, name).await?;
        let known = response.status.is_success().then(|| known(&response)).flatten();
        let is_refused = matches!(response.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        if is_refused {
            return Err(response.refusal().await);
        }
        response.discard().await;
        Ok(known)
    }

    /// Fetches a manifest or index and checks that it is what its digest says.
    pub async fn manifest(&self, name: Name<'_>) -> Result<Fetched, Error> {
        let mut response = self.ask_for_manifest(Method::GET, name).await?;
        if !response.status.is_success() {
            return Err(response.refusal().await);
        }
        let bytes = response.bytes(MANIFEST_BYTES_MAX).await?;
        let digest = Digest::of(&bytes);
        let stated = response.header("docker-content-digest").and_then(|text| Digest::parse(text).ok());
        let expected = match name {
            Name::Digest(digest) => Some(*digest),
            Name::Tag(_) => stated,
        };
        if let Some(expected) = expected.filter(|expected| *expected != digest) {
            return Err(Error::Digest { asked: response.asked, expected, actual: digest });
        }
        Ok(Fetched { digest, media_type: content_type(&response), bytes })
    }

    async fn ask_for_manifest(&self, method: Method, name: Name<'_>) -> Result<Response, Error> {
        let request = Request::new(method, self.url(&format!("manifests/{name}")));
        let request = ACCEPTED.iter().fold(request, |request, kind| request.header(ACCEPT, kind));
        self.session.request(&request, &self.scopes(Action::Pull)).await
    }

    /// Stores a manifest or index under a tag or its digest.
    pub async fn put_manifest(&self, name: Name<'_>, media_type: &str, bytes: &[u8]) -> Result<Digest, Error> {
        let request = Request::new(Method::PUT, self.url(&format!("manifests/{name}")))
            .header(CONTENT_TYPE, media_type)
            .body(Body::whole(Bytes::copy_from_slice(bytes)));
        let response = self.session.request(&request, &self.scopes(Action::Push)).await?;
        if !response.status.is_success() {
            return Err(response.refusal().await);
        }
        let digest = Digest::of(bytes);
        let stated = response.header("docker-content-digest").and_then(|text| Digest::parse(text).ok());
        if let Some(stated) = stated.filter(|stated| *stated != digest) {
            return Err(Error::Digest { asked: response.asked, expected: digest, actual: stated });
        }
        response.discard().await;
        Ok(digest)
    }

    /// All tags.
    pub async fn tags(&self) -> Result<Vec<String>, Error> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Page {
            tags: Option<Vec<String>>,
        }
        let mut url = self.url("tags/list").with_query("n", TAGS_PAGE);
        let mut tags = Vec::new();
        loop {
            let request = Request::new(Method::GET, url).header(ACCEPT, "application/json");
            let mut response = self.session.request(&request, &self.scopes(Action::Pull)).await?;
            if !response.status.is_success() {
                return Err(response.refusal().await);
            }
            let document = response.bytes(TAGS_PAGE_BYTES_MAX).await?;
            let malformed = |what: String| Error::Malformed { asked: response.asked.clone(), what };
            let page: Page = serde_json::from_slice(&document)
                .map_err(|error| malformed(format!("no tags in the answer: {error}")))?;
            let page = page.tags.unwrap_or_default();
            let is_last = page.is_empty();
            tags.extend(page);
            if tags.len() > TAGS_MAX {
                return Err(malformed(format!("more than {TAGS_MAX} tags")));
            }
            match response.header(LINK).and_then(link::next) {
                Some(next) if !is_last => url = response.url.join(next)?,
                _ => return Ok(tags),
            }
        }
    }

    /// What refers to a manifest: signatures, attestations. Registries that do not know the question have them under a tag.
    pub async fn referrers(&self, digest: &Digest) -> Result<Vec<Descriptor>, Error> {
        let request =
            Request::new(Method::GET, self.url(&format!("referrers/{digest}"))).header(ACCEPT, media_type::OCI_INDEX);
        let mut response = self.session.request(&request, &self.scopes(Action::Pull)).await?;
        let fetched = match response.status {
            status if status.is_success() => {
                let bytes = response.bytes(MANIFEST_BYTES_MAX).await?;
                Fetched { digest: Digest::of(&bytes), media_type: content_type(&response), bytes }
            }
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
                response.discard().await;
                match self.manifest(Name::Tag(&format!("sha256-{}", digest.hex()))).await {
                    Ok(fetched) => fetched,
                    Err(error) if error.is_not_found() => return Ok(Vec::new()),
                    Err(error) => return Err(error),
                }
            }
            _ => return Err(response.refusal().await),
        };
        match fetched.document() {
            Ok(Document::Index(index)) => Ok(index.manifests),
            Ok(Document::Manifest(_)) => Ok(Vec::new()),
            Err(error) => {
                Err(Error::Malformed { asked: request.asked(), what: format!("no list of referrers: {error}") })
            }
        }
    }

    pub(crate) fn url(&self, below: &str) -> crate::Url {
        self.session.url(&format!("v2/{}/{below}", self.path))
    }

    pub(crate) fn scopes(&self, action: Action) -> Vec<String> {
        let actions = match action {
            Action::Pull => "pull",
            Action::Push => "pull,push",
        };
        vec![format!("repository:{}:{actions}", self.path)]
    }
}

fn known(response: &Response) -> Option<Known> {
    let digest = Digest::parse(response.header("docker-content-digest")?).ok()?;
    Some(Known { digest, media_type: content_type(response), size_bytes: response.length().unwrap_or_default() })
}

/// The type without its parameters.
fn content_type(response: &Response) -> String {
    let whole = response.header(CONTENT_TYPE).unwrap_or_default();
    whole.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}
