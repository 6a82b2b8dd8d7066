//! The daemon and its host.

use docker_api::event::Event;
use docker_api::system::{DiskUsage, Info, Version};
use docker_api::{ApiVersion, AuthConfig, AuthResponse, Filters, QueryBuilder};

use crate::client::{Client, Request};
use crate::error::Result;
use crate::lines::Lines;

/// What the headers of `/_ping` say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ping {
    /// The newest version that the server speaks.
    pub api_version: Option<ApiVersion>,
    /// `linux`.
    pub os_type: String,
    /// `1` or `2`, or empty.
    pub builder_version: String,
    /// Which server answered: `Conex/…` among its products or not.
    pub server: String,
}

/// Which events to read.
#[derive(Debug, Clone, Default)]
pub struct EventsOptions {
    /// Past ones from this time on, in seconds; empty for none.
    pub since: String,
    /// Until this time; empty for ever.
    pub until: String,
    /// Which ones.
    pub filters: Filters,
}

impl Client {
    /// Asks whether the daemon is there, and settles the version to speak.
    pub fn ping(&self) -> Result<Ping> {
        let answer = self.send(Request::new("HEAD", "/_ping"))?;
        let header = |name| answer.head.header(name).unwrap_or_default().to_owned();
        let ping = Ping {
            api_version: header("api-version").parse().ok(),
            os_type: header("ostype"),
            builder_version: header("builder-version"),
            server: header("server"),
        };
        // Servers that do not say speak the oldest version that we know.
        self.agree_on(ping.api_version.unwrap_or(ApiVersion::OLDEST));
        Ok(ping)
    }

    /// The server's version and those of its parts.
    pub fn server_version(&self) -> Result<Version> {
        self.document(Request::get("/version"))
    }

    /// The server and its host.
    pub fn info(&self) -> Result<Info> {
        self.document(Request::get("/info"))
    }

    /// The same, as the server wrote it.
    pub fn info_raw(&self) -> Result<serde_json::Value> {
        self.document(Request::get("/info"))
    }

    /// What happens.
    pub fn events(&self, options: &EventsOptions) -> Result<Lines<Event>> {
        let query = QueryBuilder::new()
            .with_some("since", &options.since)
            .with_some("until", &options.until)
            .with_filters(&options.filters)
            .build();
        self.send(Request::get(format!("/events{query}"))).map(|answer| Lines::new(answer.body))
    }

    /// What uses the disk.
    pub fn disk_usage(&self) -> Result<DiskUsage> {
        self.document(Request::get("/system/df"))
    }

    /// Checks credentials with a registry.
    pub fn auth(&self, auth: &AuthConfig) -> Result<AuthResponse> {
        self.document(Request::post("/auth").json(auth)?)
    }
}
