//! A client of image registries: OCI distribution 1.1 and Docker's registry API v2.
//!
//! ```text
//! Client ─▶ Endpoint (a mirror, or the registry itself) ─▶ Session (scheme, authorisation) ─▶ Repository
//!                                                                 │                            │
//!                                                       requests, retries, redirects     manifests, tags,
//!                                                                 │                      BlobStream, Upload
//!                                                       Exchange ─┴─▶ Dialler (name, proxy, TLS)
//! ```
//!
//! Everything that comes is taken with suspicion: documents and pieces have limits, every wait has an end, digests are checked before
//! they name anything, secrets go to the registry itself and to its server of tokens and nowhere else. A blob that breaks off is
//! taken up again where it broke off.
//!
//! What must not be known here: images as they are kept, layers, Docker's progress lines.

mod auth;
mod blob;
mod body;
mod carry;
mod challenge;
mod client;
mod connect;
mod endpoint;
mod error;
mod exchange;
mod link;
mod manifest;
mod parts;
mod proxy;
mod repository;
mod retry;
mod session;
mod upload;
mod url;
mod web;

pub use auth::Credentials;
pub use blob::BlobStream;
pub use body::Pieces;
pub use client::{Client, Options};
pub use endpoint::{Endpoint, Insecure, InsecureError, Mirror, MirrorError, Places, Role};
pub use error::{Asked, ConnectError, Error, Reason, Refusal};
pub use exchange::Patience;
pub use manifest::{Document, DocumentError, Fetched, MANIFEST_BYTES_MAX};
pub use parts::Split;
pub use proxy::Proxies;
pub use repository::{Known, Name, Repository};
pub use retry::Retry;
pub use session::{Found, Login, Session};
pub use upload::{Mount, Source, Upload};
pub use url::decode as percent_decode;
pub use url::{Scheme, Url, UrlError};
pub use web::{Validators, WebFile, WebStream};
