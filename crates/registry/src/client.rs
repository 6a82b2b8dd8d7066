//! What all operations share: places, proxies, patience.

use std::sync::Arc;

use oci::Reference;

use crate::auth::Credentials;
use crate::connect::{Dialler, Known};
use crate::endpoint::{Endpoint, Places, Trust, is_docker_hub};
use crate::error::Error;
use crate::exchange::{Exchange, Patience};
use crate::proxy::Proxies;
use crate::retry::Retry;
use crate::session::{Found, Session};
use crate::url::Url;

/// Where Docker Hub searches.
const DOCKER_HUB_INDEX: &str = "https://index.docker.io/";

/// How registries are spoken to.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Where they are.
    pub places: Places,
    /// Which way they are reached.
    pub proxies: Proxies,
    /// What is tried again.
    pub retry: Retry,
    /// How long to wait.
    pub patience: Patience,
    /// What is said about this program.
    pub user_agent: String,
}

/// A client of registries; cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    options: Arc<Options>,
}

impl Client {
    /// A client with these options.
    pub fn new(options: Options) -> Client {
        Client { options: Arc::new(options) }
    }

    /// Where registries are.
    pub fn places(&self) -> &Places {
        &self.options.places
    }

    /// Asks a server whether it is there. Credentials are for the registry itself: a mirror is never told them.
    pub async fn open(&self, endpoint: &Endpoint, credentials: Credentials) -> Result<Arc<Session>, Error> {
        Session::open(self, endpoint, credentials).await.map(Arc::new)
    }

    /// The registry itself that has `reference`.
    pub async fn open_registry_of(
        &self,
        reference: &Reference,
        credentials: Credentials,
    ) -> Result<Arc<Session>, Error> {
        self.open(&self.places().to_push(reference)?, credentials).await
    }

    /// Looks for repositories in the registry called `domain`.
    pub async fn search(
        &self,
        domain: &str,
        term: &str,
        limit: u32,
        credentials: Credentials,
    ) -> Result<Vec<Found>, Error> {
        if !is_docker_hub(domain) {
            let endpoint = self.places().registry(domain)?;
            return self.open(&endpoint, credentials).await?.search(term, limit).await;
        }
        let index = Url::parse(DOCKER_HUB_INDEX)?;
        Session::new(self, index, Trust::Proven, credentials).search(term, limit).await
    }

    pub(crate) fn has_proxy(&self, url: &Url) -> bool {
        self.options.proxies.of(url.origin()).is_some()
    }

    pub(crate) fn exchange(&self, known: Known) -> Exchange {
        let Options { places, proxies, patience, user_agent, .. } = &*self.options;
        // New for each operation: certificates that somebody has put there meanwhile count at once.
        let dialler = Dialler::new(proxies.clone(), places.certificates.clone(), known);
        Exchange::new(dialler, *patience, user_agent.clone())
    }

    pub(crate) fn retry(&self) -> Retry {
        self.options.retry
    }
}
