//! Blobs on their way here: a stream that takes itself up again where it broke off.

use std::ops::Range;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_RANGE, RANGE};
use http::{Method, StatusCode};
use oci::Digest;

use crate::error::{Asked, Error};
use crate::exchange::{Request, Response};
use crate::parts::{Parts, Split};
use crate::repository::{Action, Repository};
use crate::retry::Attempts;

/// A blob that is being read. Its bytes are as many as were announced; whether they are the right ones, their digest says, which the
/// reader computes.
#[derive(Debug)]
pub struct BlobStream {
    repository: Repository,
    digest: Digest,
    size_bytes: u64,
    position: u64,
    /// Where what is wanted of it ends.
    end: u64,
    response: Option<Response>,
    /// What is left, where it comes in parts.
    parts: Option<Box<Parts>>,
    attempts: Attempts,
    /// How many times it had to be taken up again.
    resumed: u32,
}

impl Repository {
    /// Starts to read a blob of this size.
    pub async fn blob(&self, digest: &Digest, size_bytes: u64) -> Result<BlobStream, Error> {
        self.blob_range(digest, size_bytes, 0..size_bytes).await
    }

    /// Some bytes of a blob of this size.
    pub(crate) async fn blob_range(
        &self,
        digest: &Digest,
        size_bytes: u64,
        range: Range<u64>,
    ) -> Result<BlobStream, Error> {
        let attempts = self.session.client().retry().attempts();
        let mut stream = BlobStream {
            repository: self.clone(),
            digest: *digest,
            size_bytes,
            position: range.start,
            end: range.end,
            response: None,
            parts: None,
            attempts,
            resumed: 0,
        };
        // Of an empty part nothing can be asked for.
        if range.start == 0 || !range.is_empty() {
            stream.open().await?;
        }
        Ok(stream)
    }

    /// Reads a small blob whole, and checks it.
    pub async fn small_blob(&self, digest: &Digest, size_bytes: u64, limit_bytes: u64) -> Result<Vec<u8>, Error> {
        let asked = self.blob_request(digest).asked();
        if size_bytes > limit_bytes {
            return Err(Error::TooLarge { asked, limit_bytes });
        }
        let mut stream = self.blob(digest, size_bytes).await?;
        let mut bytes = Vec::new();
        while let Some(piece) = stream.piece().await? {
            bytes.extend_from_slice(&piece);
        }
        let actual = Digest::of(&bytes);
        if actual == *digest { Ok(bytes) } else { Err(Error::Digest { asked, expected: *digest, actual }) }
    }

    fn blob_request(&self, digest: &Digest) -> Request {
        // What a helpful server would unpack on the way has another digest.
        Request::new(Method::GET, self.url(&format!("blobs/{digest}"))).header(ACCEPT_ENCODING, "identity")
    }
}

impl BlobStream {
    /// The next piece; nothing at the end.
    pub async fn piece(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            if let Some(parts) = &mut self.parts {
                match parts.piece().await {
                    Ok(Some(piece)) => return self.take(piece).map(Some),
                    Ok(None) => return Ok(None),
                    Err(error) => tracing::debug!("{}: no parts of it can be had: {error}", self.digest),
                }
                // A server that does not know ranges, or does not want so many connections: it comes in one again.
                self.parts = None;
            }
            let failed = match &mut self.response {
                None if self.position > 0 && self.position == self.end => return Ok(None),
                None => self.open_once().await.err(),
                Some(response) => match response.piece().await {
                    Ok(Some(piece)) => return self.take(piece).map(Some),
                    Ok(None) if self.position == self.end => return Ok(None),
                    Ok(None) => Some(self.broken_off()),
                    Err(error) => Some(error),
                },
            };
            if let Some(error) = failed {
                self.response = None;
                self.attempts.pause(error).await?;
                self.resumed += 1;
            }
        }
    }

    /// Has what is left come in parts side by side.
    pub fn split(&mut self, split: Split) {
        // What is still on its way in one piece is not waited for.
        self.response = None;
        let (repository, digest) = (self.repository.clone(), self.digest);
        self.parts = Some(Box::new(Parts::new(repository, digest, self.size_bytes, self.position, split)));
    }

    /// How many bytes are still to come.
    pub fn left(&self) -> u64 {
        self.end - self.position
    }

    /// How many times it had to be taken up again so far.
    pub fn resumed(&self) -> u32 {
        self.resumed
    }

    fn take(&mut self, piece: Bytes) -> Result<Bytes, Error> {
        self.position += piece.len() as u64;
        if self.position > self.end {
            (self.response, self.parts) = (None, None);
            return Err(Error::TooLarge { asked: self.asked(), limit_bytes: self.size_bytes });
        }
        // What came is kept, so the next failure is a first one again.
        self.attempts.progress();
        Ok(piece)
    }

    fn broken_off(&self) -> Error {
        let what = format!("the body ended after {} of {} bytes", self.position, self.end);
        Error::Broken { asked: self.asked(), cause: what.into() }
    }

    fn asked(&self) -> Asked {
        self.repository.blob_request(&self.digest).asked()
    }

    async fn open(&mut self) -> Result<(), Error> {
        while let Err(error) = self.open_once().await {
            self.attempts.pause(error).await?;
        }
        Ok(())
    }

    /// Asks for what is left.
    async fn open_once(&mut self) -> Result<(), Error> {
        let mut request = self.repository.blob_request(&self.digest);
        let is_part = self.end < self.size_bytes;
        if is_part {
            request = request.header(RANGE, &format!("bytes={}-{}", self.position, self.end - 1));
        } else if self.position > 0 {
            request = request.header(RANGE, &format!("bytes={}-", self.position));
        }
        let session = &self.repository.session;
        let mut response = session.request_once(&request, &self.repository.scopes(Action::Pull)).await?;
        let begins_at = match response.status {
            StatusCode::OK if is_part => return Err(self.malformed("the server gives no parts".to_owned())),
            StatusCode::OK => 0,
            StatusCode::PARTIAL_CONTENT => start_of_range(response.header(CONTENT_RANGE).unwrap_or_default())
                .ok_or_else(|| self.malformed("it does not say which part it is".to_owned()))?,
            _ => return Err(response.refusal().await),
        };
        let end = response.length().map(|length| begins_at + length);
        if let Some(end) = end.filter(|end| *end != self.end) {
            return Err(self.malformed(format!("the blob has {end} bytes where {} were announced", self.end)));
        }
        if begins_at > self.position {
            return Err(self.malformed(format!("it begins at {begins_at} instead of {}", self.position)));
        }
        self.skip(&mut response, self.position - begins_at).await?;
        self.response = Some(response);
        Ok(())
    }

    /// A server that does not know ranges begins from the beginning: what is here already is read past.
    async fn skip(&mut self, response: &mut Response, mut bytes: u64) -> Result<(), Error> {
        while bytes > 0 {
            let Some(piece) = response.piece().await? else { return Err(self.broken_off()) };
            match (piece.len() as u64).checked_sub(bytes) {
                None | Some(0) => bytes = bytes.saturating_sub(piece.len() as u64),
                // The server's pieces need not end where ours did.
                Some(_) => {
                    response.unread(piece.slice(bytes as usize..));
                    bytes = 0;
                }
            }
        }
        Ok(())
    }

    fn malformed(&self, what: String) -> Error {
        Error::Malformed { asked: self.asked(), what }
    }
}

/// The first byte of `bytes 10-19/20`.
fn start_of_range(header: &str) -> Option<u64> {
    header.trim().strip_prefix("bytes ")?.split_once('-')?.0.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_say_where_they_begin() {
        for (header, expected) in [
            ("bytes 10-19/20", Some(10)),
            ("bytes 0-0/*", Some(0)),
            ("bytes */20", None),
            ("", None),
            ("items 1-2/3", None),
        ] {
            assert_eq!(start_of_range(header), expected, "{header}");
        }
    }
}
