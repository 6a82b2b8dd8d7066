//! Blobs on their way there.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE};
use http::{Method, StatusCode};
use oci::Digest;

use crate::body::{Body, Pieces};
use crate::error::Error;
use crate::exchange::{Request, Response};
use crate::repository::{Action, Repository};
use crate::url::Url;

const OCTETS: &str = "application/octet-stream";

/// What became of the wish to take a blob from another repository.
#[derive(Debug)]
pub enum Mount {
    /// It is there.
    Mounted,
    /// It must be sent.
    Refused(Upload),
}

/// Where a blob comes from that may have to be sent more than once: each call gives its bytes from an offset on.
pub trait Source: Send + Sync {
    /// The bytes from `offset` on.
    fn open(&self, offset: u64) -> Pieces;
}

/// A blob that is being sent.
#[derive(Debug)]
pub struct Upload {
    repository: Repository,
    location: Url,
}

impl Repository {
    /// Whether the blob is there.
    pub async fn has_blob(&self, digest: &Digest) -> Result<bool, Error> {
        let request = Request::new(Method::HEAD, self.url(&format!("blobs/{digest}")));
        let response = self.session.request(&request, &self.scopes(Action::Push)).await?;
        match response.status {
            status if status.is_success() => {
                response.discard().await;
                Ok(true)
            }
            StatusCode::NOT_FOUND => {
                response.discard().await;
                Ok(false)
            }
            _ => Err(response.refusal().await),
        }
    }

    /// Takes a blob from another repository of the same registry.
    pub async fn mount(&self, digest: &Digest, from: &str) -> Result<Mount, Error> {
        let url = self.url("blobs/uploads/").with_query("mount", &digest.to_string()).with_query("from", from);
        let mut scopes = self.scopes(Action::Push);
        scopes.push(format!("repository:{from}:pull"));
        let response = self.session.request(&Request::new(Method::POST, url), &scopes).await?;
        match response.status {
            StatusCode::CREATED => {
                response.discard().await;
                Ok(Mount::Mounted)
            }
            StatusCode::ACCEPTED => self.started(response).await.map(Mount::Refused),
            // Who may not read there may still write here.
            _ => {
                response.discard().await;
                self.start_upload().await.map(Mount::Refused)
            }
        }
    }

    /// Begins to send a blob.
    pub async fn start_upload(&self) -> Result<Upload, Error> {
        let request = Request::new(Method::POST, self.url("blobs/uploads/"));
        let response = self.session.request(&request, &self.scopes(Action::Push)).await?;
        match response.status {
            StatusCode::ACCEPTED => self.started(response).await,
            _ => Err(response.refusal().await),
        }
    }

    async fn started(&self, response: Response) -> Result<Upload, Error> {
        let location = location(&response)?;
        response.discard().await;
        Ok(Upload { repository: self.clone(), location })
    }

    /// Sends a small blob, all at once.
    pub async fn put_blob(&self, bytes: Bytes) -> Result<Digest, Error> {
        let digest = Digest::of(&bytes);
        let upload = self.start_upload().await?;
        let request = Request::new(Method::PUT, upload.location.with_query("digest", &digest.to_string()))
            .header(CONTENT_TYPE, OCTETS)
            .body(Body::whole(bytes));
        let response = self.session.request(&request, &self.scopes(Action::Push)).await?;
        match response.status.is_success() {
            true => {
                response.discard().await;
                Ok(digest)
            }
            false => Err(response.refusal().await),
        }
    }
}

impl Upload {
    /// Sends all bytes of `source` in one stream, and takes up again where that breaks off.
    pub async fn send(&mut self, source: &dyn Source) -> Result<(), Error> {
        let mut attempts = self.repository.session.client().retry().attempts();
        let mut offset = 0;
        loop {
            match self.stream(source, offset).await {
                Ok(()) => return Ok(()),
                // What cannot be read here does not get better there.
                Err(error @ Error::Source(_)) => return Err(error),
                Err(error) => attempts.pause(error).await?,
            }
            offset = match self.received().await {
                Some(offset) => offset,
                None => {
                    *self = self.repository.start_upload().await?;
                    0
                }
            };
        }
    }

    async fn stream(&mut self, source: &dyn Source, offset: u64) -> Result<(), Error> {
        let mut request = Request::new(Method::PATCH, self.location.clone()).header(CONTENT_TYPE, OCTETS);
        if offset > 0 {
            // The end is not known; registries look at the beginning.
            request = request.header(CONTENT_RANGE, &format!("{offset}-"));
        }
        let request = request.body(Body::Stream(source.open(offset)));
        let response = self.repository.session.send_stream(request, &self.repository.scopes(Action::Push)).await?;
        match response.status {
            StatusCode::ACCEPTED | StatusCode::NO_CONTENT | StatusCode::CREATED => {
                self.location = location(&response)?;
                response.discard().await;
                Ok(())
            }
            _ => Err(response.refusal().await),
        }
    }

    /// How many bytes the registry has; nothing where it has forgotten the upload or does not say.
    async fn received(&mut self) -> Option<u64> {
        let request = Request::new(Method::GET, self.location.clone());
        let scopes = self.repository.scopes(Action::Push);
        let response = self.repository.session.request(&request, &scopes).await.ok()?;
        if !response.status.is_success() {
            return None;
        }
        let end = response.header(RANGE)?.trim().trim_start_matches("bytes=").split_once('-')?.1.parse::<u64>().ok()?;
        if let Ok(location) = location(&response) {
            self.location = location;
        }
        response.discard().await;
        // A range names its last byte; "0-0" is also how registries say "nothing".
        Some(if end == 0 { 0 } else { end + 1 })
    }

    /// Ends the upload: the registry checks the digest and keeps the blob.
    pub async fn commit(self, digest: &Digest) -> Result<(), Error> {
        let request = Request::new(Method::PUT, self.location.with_query("digest", &digest.to_string()))
            .header(CONTENT_LENGTH, "0")
            .header(CONTENT_TYPE, OCTETS);
        let response = self.repository.session.request(&request, &self.repository.scopes(Action::Push)).await?;
        if response.status.is_success() {
            response.discard().await;
            return Ok(());
        }
        let refusal = response.refusal().await;
        // The answer to a first attempt may have been lost on the way.
        if refusal.is_not_found() && self.repository.has_blob(digest).await? { Ok(()) } else { Err(refusal) }
    }

    /// Tells the registry that the rest does not come.
    pub async fn cancel(self) {
        let request = Request::new(Method::DELETE, self.location);
        // Registries forget uploads by themselves too.
        if let Ok(response) =
            self.repository.session.request_once(&request, &self.repository.scopes(Action::Push)).await
        {
            response.discard().await;
        }
    }
}

fn location(response: &Response) -> Result<Url, Error> {
    let malformed = || Error::Malformed {
        asked: response.asked.clone(),
        what: "the answer does not say where to send the blob".to_owned(),
    };
    Ok(response.url.join(response.header(LOCATION).ok_or_else(malformed)?)?)
}
