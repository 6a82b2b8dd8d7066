//! Files of the web that builds add, kept with what their servers said about them, so that they are fetched again only when they changed.
//!
//! ```text
//! <root>/build/web/<digest of the address>.data, .json
//! ```

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use archive::tar::{Metadata, Timestamp};
use builder::{Context, Download, HostError};
use durable::{StagedFile, Versioned};
use oci::{Digest, Digester};
use registry::{Client, Validators, WebFile};
use serde::{Deserialize, Serialize};

use super::Stop;

/// The largest Dockerfile from the web.
const TEXT_BYTES_MAX: u64 = 4 << 20;
/// What a file is called whose address has no name.
const NAMELESS: &str = "__unnamed__";

/// A file that is here.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Stored {
    digest: Digest,
    size: u64,
    name: String,
    etag: Option<String>,
    last_modified: Option<String>,
    #[serde(skip)]
    path: PathBuf,
}

impl Versioned for Stored {
    const VERSION: u32 = 1;
}

impl Stored {
    pub(super) fn open(&self) -> Result<File, HostError> {
        File::open(&self.path).map_err(failed)
    }

    pub(super) fn text(&self) -> Result<Vec<u8>, HostError> {
        let mut text = Vec::new();
        self.open()?.take(TEXT_BYTES_MAX).read_to_end(&mut text).map_err(failed)?;
        Ok(text)
    }

    fn modified(&self) -> i64 {
        let time = self.last_modified.as_deref().and_then(|text| jiff::fmt::rfc2822::parse(text).ok());
        time.map_or(0, |time| time.timestamp().as_second())
    }
}

/// Fetches files.
#[derive(Debug)]
pub(super) struct Web<'a> {
    pub(super) client: Client,
    pub(super) runtime: &'a tokio::runtime::Handle,
    pub(super) dir: &'a Path,
    pub(super) stop: &'a Stop,
}

impl Web<'_> {
    pub(super) fn cancelled(&self) -> bool {
        self.stop.is_wanted()
    }

    /// A file as a context of its own.
    pub(super) fn download(&self, url: &str, tell: &dyn Fn(u64, Option<u64>)) -> Result<Download, HostError> {
        let (stored, _) = self.fetch(url, tell)?;
        let mtime = Timestamp { seconds: stored.modified(), nanoseconds: 0 };
        let metadata = Metadata { mode: 0o600, mtime, ..Metadata::default() };
        let file = Arc::new(stored.open()?);
        let context = Context::of_stored(&stored.name, file, (stored.size, stored.digest), metadata).map_err(failed)?;
        Ok(Download { context: Arc::new(context), digest: stored.digest, name: stored.name })
    }

    /// The file, and whether it was here already.
    pub(super) fn fetch(&self, url: &str, tell: &dyn Fn(u64, Option<u64>)) -> Result<(Stored, bool), HostError> {
        let key = Digest::of(url.as_bytes()).hex();
        let (data, record) = (format!("{key}.data"), format!("{key}.json"));
        let known = durable::load::<Stored>(&self.dir.join(&record)).ok().filter(|_| self.dir.join(&data).exists());
        let validators = known.as_ref().map_or_else(Validators::default, |stored| Validators {
            etag: stored.etag.clone(),
            last_modified: stored.last_modified.clone(),
        });
        let answer = self.runtime.block_on(self.client.web_file(url, &validators)).map_err(failed)?;
        let mut stream = match (answer, known) {
            (WebFile::Unchanged, Some(stored)) => return Ok((Stored { path: self.dir.join(data), ..stored }, true)),
            (WebFile::Unchanged, None) => {
                return Err(HostError(format!("{url}: the server says that nothing changed")));
            }
            (WebFile::New(stream), _) => stream,
        };
        let mut staged = StagedFile::create(self.dir).map_err(failed)?;
        let (mut digester, mut size) = (Digester::new(), 0);
        while let Some(piece) = self.runtime.block_on(stream.piece()).map_err(failed)? {
            if self.cancelled() {
                return Err(HostError("build cancelled".to_owned()));
            }
            staged.write_all(&piece).map_err(failed)?;
            digester.update(&piece);
            size += piece.len() as u64;
            tell(size, stream.length);
        }
        staged.commit(&data).map_err(failed)?;
        let stored = Stored {
            digest: digester.finish(),
            size,
            name: file_name(url, stream.disposition.as_deref()),
            etag: stream.validators.etag.clone(),
            last_modified: stream.validators.last_modified.clone(),
            path: self.dir.join(&data),
        };
        durable::save(self.dir, &record, &stored).map_err(failed)?;
        Ok((stored, false))
    }
}

/// What the file is called: as its address ends, else as the server says. Never a path.
fn file_name(url: &str, disposition: Option<&str>) -> String {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let path = path.split_once("://").map_or(path, |(_, rest)| rest);
    let of_path = registry::percent_decode(path.split_once('/').map_or("", |(_, path)| path));
    let of_path = of_path.rsplit('/').next().unwrap_or_default();
    let of_server = disposition.and_then(|text| {
        let name = text.split(';').find_map(|part| part.trim().strip_prefix("filename="))?;
        Some(name.trim_matches('"').rsplit(['/', '\\']).next()?.to_owned())
    });
    let usable = |name: &String| !matches!(name.as_str(), "" | "." | "..") && !name.contains(['/', '\0']);
    let names = [Some(of_path.to_owned()), of_server];
    names.into_iter().flatten().find(usable).unwrap_or_else(|| NAMELESS.to_owned())
}

fn failed(error: impl std::error::Error + 'static) -> HostError {
    HostError(crate::model::chain(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_no_paths() {
        let cases = [
            ("http://h/a/b.txt?x=/y", None, "b.txt"),
            ("http://h/", Some("attachment; filename=\"../../x\""), "x"),
            ("http://h/a/..", Some("attachment; filename=.."), "__unnamed__"),
            ("http://h", None, "__unnamed__"),
            ("http://h/a/", Some("attachment; filename=c.tar; size=3"), "c.tar"),
            ("http://h/a%2Fb%20c", None, "b c"),
            ("http://h/x/%2e%2e", None, "__unnamed__"),
        ];
        for (url, disposition, expected) in cases {
            assert_eq!(file_name(url, disposition), expected, "{url}");
        }
    }
}
