//! A registry that has answered: its scheme, its way of authorising, and connections to it.

use std::sync::Arc;

use http::header::{ACCEPT, AUTHORIZATION, LOCATION};
use http::{Method, StatusCode};
use serde::Deserialize;

use crate::auth::{Authorizer, Credentials};
use crate::client::Client;
use crate::connect::Known;
use crate::endpoint::{Endpoint, Role, Trust};
use crate::error::Error;
use crate::exchange::{Exchange, Request, Response};
use crate::repository::Repository;
use crate::retry::is_transient_status;
use crate::url::{Scheme, Url};

/// How many times an answer may point elsewhere.
const REDIRECTS_MAX: u32 = 5;
/// A page of results.
const SEARCH_BYTES_MAX: u64 = 4 << 20;

/// A registry, for one operation.
#[derive(Debug)]
pub struct Session {
    client: Client,
    base: Url,
    trust: Trust,
    exchange: Arc<Exchange>,
    authorizer: Authorizer,
}

/// What a login gives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Login {
    /// A token to keep in the password's place, where the registry gives one.
    pub identity_token: Option<String>,
}

/// One repository that a search found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Found {
    /// Its name.
    pub name: String,
    /// What it says about itself.
    pub description: String,
    /// How many people like it.
    pub star_count: i64,
    /// Whether Docker keeps it.
    pub is_official: bool,
    /// Whether a robot builds it.
    pub is_automated: bool,
}

impl Session {
    /// Asks the registry whether it is there: over TLS, and in the clear where that is allowed and nothing else answers.
    pub(crate) async fn open(client: &Client, endpoint: &Endpoint, credentials: Credentials) -> Result<Session, Error> {
        let credentials = match endpoint.role {
            Role::Registry => credentials,
            Role::Mirror => Credentials::of_url(&endpoint.base),
        };
        // A proxy looks names up by itself.
        let addresses = match client.has_proxy(&endpoint.base) {
            true => Vec::new(),
            false => endpoint.covered_addresses(client.places()).await,
        };
        let trust = if addresses.is_empty() { endpoint.trust } else { Trust::Anybody };
        let new = |base: Url| Session {
            exchange: Arc::new(client.exchange(Known::new(&base, &addresses))),
            ..Session::new(client, base, trust, credentials.clone())
        };
        let session = new(endpoint.base.clone());
        match session.ping().await {
            Ok(()) => Ok(session),
            Err(error) if error.is_connect() && trust == Trust::Anybody && session.base.scheme() == Scheme::Https => {
                let session = new(endpoint.base.with_scheme(Scheme::Http));
                session.ping().await.map(|()| session)
            }
            Err(error) => Err(error),
        }
    }

    pub(crate) fn new(client: &Client, base: Url, trust: Trust, credentials: Credentials) -> Session {
        let exchange = Arc::new(client.exchange(Known::default()));
        Session { client: client.clone(), base, trust, exchange, authorizer: Authorizer::new(credentials) }
    }

    async fn ping(&self) -> Result<(), Error> {
        let request = Request::new(Method::GET, self.base.below("v2/"));
        let response = match self.exchange.send(request.again().expect("it has no body"), self.trust).await {
            Ok(response) if !is_transient_status(response.status) => response,
            // No second attempt where nobody listens: the next way is tried at once.
            Err(error) if error.is_connect() => return Err(error),
            _ => self.send_retrying(&request).await?,
        };
        match response.status {
            StatusCode::UNAUTHORIZED => {
                self.authorizer.learn(&response, &[])?;
                response.discard().await;
                Ok(())
            }
            // Some registries answer only below a repository.
            status if status.is_success() || status == StatusCode::NOT_FOUND || status == StatusCode::FORBIDDEN => {
                response.discard().await;
                Ok(())
            }
            _ => Err(response.refusal().await),
        }
    }

    /// The repository of this path.
    pub fn repository(self: &Arc<Self>, path: &str) -> Repository {
        Repository::new(Arc::clone(self), path)
    }

    /// Proves that the credentials are good.
    pub async fn login(&self) -> Result<Login, Error> {
        let identity_token = self.authorizer.refresh_token(self).await?;
        let request = Request::new(Method::GET, self.base.below("v2/"));
        let response = self.request(&request, &[]).await?;
        let status = response.status;
        if !status.is_success() {
            return Err(Error::Login { url: request.url.to_string(), status });
        }
        response.discard().await;
        Ok(Login { identity_token })
    }

    /// Looks for repositories, where the registry can.
    pub(crate) async fn search(&self, term: &str, limit: u32) -> Result<Vec<Found>, Error> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Results {
            results: Vec<Found>,
        }
        let url = self.base.below("v1/search").with_query("q", term).with_query("n", &limit.to_string());
        let request = Request::new(Method::GET, url).header(ACCEPT, "application/json");
        let mut response = self.request(&request, &[]).await?;
        if !response.status.is_success() {
            return Err(response.refusal().await);
        }
        let document = response.bytes(SEARCH_BYTES_MAX).await?;
        let results: Results = serde_json::from_slice(&document).map_err(|error| Error::Malformed {
            asked: response.asked.clone(),
            what: format!("no results in the answer: {error}"),
        })?;
        Ok(results.results)
    }

    pub(crate) fn url(&self, path: &str) -> Url {
        self.base.below(path)
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Whether the registry has proven who it is.
    pub(crate) fn is_proven(&self) -> bool {
        self.trust == Trust::Proven
    }

    /// Sends a request until it is answered with something that counts: authorised, redirections followed, trouble waited out.
    pub(crate) async fn request(&self, request: &Request, scopes: &[String]) -> Result<Response, Error> {
        let mut attempts = self.client.retry().attempts();
        loop {
            match self.request_once(request, scopes).await {
                Ok(response) => return Ok(response),
                Err(error) => attempts.pause(error).await?,
            }
        }
    }

    /// The same without waiting trouble out, for callers that do so themselves.
    pub(crate) async fn request_once(&self, request: &Request, scopes: &[String]) -> Result<Response, Error> {
        let mut response = self.authorized(request, scopes).await?;
        for _ in 0..REDIRECTS_MAX {
            match self.redirected(request, &response)? {
                None => break,
                Some((next, is_same)) => {
                    response.discard().await;
                    response = match is_same {
                        true => self.authorized(&next, scopes).await?,
                        false => self.exchange.send(next, self.trust).await?,
                    };
                }
            }
        }
        if is_transient_status(response.status) { Err(response.refusal().await) } else { Ok(response) }
    }

    /// Sends a request that carries a stream: it can be sent once.
    pub(crate) async fn send_stream(&self, request: Request, scopes: &[String]) -> Result<Response, Error> {
        let asked = request.asked();
        let request = match self.authorizer.header(self, scopes, &asked).await? {
            Some(value) if self.is_own(&request.url) => request.header(AUTHORIZATION, &value),
            _ => request,
        };
        self.exchange.send(request, self.trust).await
    }

    /// Sends a request that needs no authorisation, and waits trouble out.
    pub(crate) async fn send_retrying(&self, request: &Request) -> Result<Response, Error> {
        let mut attempts = self.client.retry().attempts();
        loop {
            let sent = self.exchange.send(request.again().expect("not a stream"), self.trust).await;
            let error = match sent {
                Ok(response) if !is_transient_status(response.status) => return Ok(response),
                Ok(response) => response.refusal().await,
                Err(error) => error,
            };
            attempts.pause(error).await?;
        }
    }

    async fn authorized(&self, request: &Request, scopes: &[String]) -> Result<Response, Error> {
        // The second time because the registry says how it wants to be told, or that a token has ended.
        let response = self.authorized_once(request, scopes).await?;
        if response.status != StatusCode::UNAUTHORIZED || !self.authorizer.learn(&response, scopes)? {
            return Ok(response);
        }
        response.discard().await;
        self.authorized_once(request, scopes).await
    }

    async fn authorized_once(&self, request: &Request, scopes: &[String]) -> Result<Response, Error> {
        let header = match self.is_own(&request.url) {
            true => self.authorizer.header(self, scopes, &request.asked()).await?,
            false => None,
        };
        let mut attempt = request.again().expect("streams are sent by send_stream");
        if let Some(value) = header {
            attempt = attempt.header(AUTHORIZATION, &value);
        }
        self.exchange.send(attempt, self.trust).await
    }

    /// Whether secrets may go there: to the registry itself and nowhere else.
    fn is_own(&self, url: &Url) -> bool {
        url.origin() == self.base.origin()
    }

    /// Where an answer points to, and whether that is this registry again.
    fn redirected(&self, request: &Request, response: &Response) -> Result<Option<(Request, bool)>, Error> {
        let is_reading = matches!(request.method, Method::GET | Method::HEAD);
        let is_redirection = matches!(response.status.as_u16(), 301 | 302 | 303 | 307 | 308);
        let Some(location) = response.header(LOCATION).filter(|_| is_reading && is_redirection) else {
            return Ok(None);
        };
        let url = response.url.join(location)?;
        if url.scheme() == Scheme::Http && self.is_proven() {
            let what = format!("redirected from TLS to {url}, which is not followed");
            return Err(Error::Malformed { asked: response.asked.clone(), what });
        }
        let is_same = self.is_own(&url);
        let mut next = request.again().expect("readers have no body");
        next.url = url;
        Ok(Some((next, is_same)))
    }
}
