//! Files of the web that no registry has: what a build adds from an address. The same proxies, certificates and redirections as for
//! registries; never a secret.

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED};
use http::{HeaderName, Method, StatusCode};

use crate::auth::Credentials;
use crate::client::Client;
use crate::endpoint::Trust;
use crate::error::Error;
use crate::exchange::{Request, Response};
use crate::session::Session;
use crate::url::{Scheme, Url};

/// What a server said about a file when it came, to ask whether it has changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Validators {
    /// `ETag`
    pub etag: Option<String>,
    /// `Last-Modified`
    pub last_modified: Option<String>,
}

/// What the server has.
#[derive(Debug)]
pub enum WebFile {
    /// What it had before.
    Unchanged,
    /// A file.
    New(Box<WebStream>),
}

/// A file on its way.
#[derive(Debug)]
pub struct WebStream {
    /// What to ask next time.
    pub validators: Validators,
    /// `Content-Disposition`
    pub disposition: Option<String>,
    /// How long it is, where the server says so.
    pub length: Option<u64>,
    response: Response,
}

impl WebStream {
    /// The next piece; nothing at the end.
    pub async fn piece(&mut self) -> Result<Option<Bytes>, Error> {
        self.response.piece().await
    }
}

impl Client {
    /// Asks for a file, unless it is still what it was.
    pub async fn web_file(&self, url: &str, known: &Validators) -> Result<WebFile, Error> {
        let url = Url::parse(url)?;
        let trust = if url.scheme() == Scheme::Https { Trust::Proven } else { Trust::Anybody };
        let session = Session::new(self, url.clone(), trust, Credentials::Anonymous);
        let mut request = Request::new(Method::GET, url).header(ACCEPT_ENCODING, "identity");
        let conditions: [(HeaderName, &Option<String>); 2] =
            [(IF_NONE_MATCH, &known.etag), (IF_MODIFIED_SINCE, &known.last_modified)];
        for (name, value) in conditions {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        let response = session.request(&request, &[]).await?;
        if response.status == StatusCode::NOT_MODIFIED {
            response.discard().await;
            return Ok(WebFile::Unchanged);
        }
        if !response.status.is_success() {
            return Err(response.refusal().await);
        }
        let text = |name: HeaderName| response.header(name).map(str::to_owned);
        Ok(WebFile::New(Box::new(WebStream {
            validators: Validators { etag: text(ETAG), last_modified: text(LAST_MODIFIED) },
            disposition: text(http::header::CONTENT_DISPOSITION),
            length: response.length(),
            response,
        })))
    }
}
