//! Caches of builds elsewhere: where they are, and how they are written.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io::{self, Read, Write};
use std::sync::Arc;

use oci::{Digest, Reference};

use super::EngineError;
use super::build::HostError;

/// Kinds that BuildKit has and that are services of others.
const SERVICES: &[&str] = &["gha", "s3", "azblob"];

/// A cache as a user names it: `type=registry,ref=NAME`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CacheOption {
    /// `type`
    pub kind: String,
    /// Everything else.
    pub attributes: BTreeMap<String, String>,
}

/// Blobs by their digests, in a folder of whoever. Every method blocks.
pub trait BlobStore: Debug + Send + Sync {
    /// Whether a blob is there.
    fn has(&self, digest: &Digest) -> Result<bool, HostError>;

    /// Reads a blob.
    fn open(&self, digest: &Digest) -> Result<Box<dyn Read + Send>, HostError>;

    /// Writes a blob whose digest is known once it is written.
    fn write(&self, contents: BlobContents<'_>) -> Result<(), HostError>;
}

/// Writes a blob, and says what it was.
pub type BlobContents<'a> = &'a mut dyn FnMut(&mut dyn Write) -> io::Result<Digest>;

/// A cache that a build reads.
#[derive(Debug, Clone)]
pub enum CacheSource {
    /// In a registry, or in an image that is here or there.
    Registry(Reference),
    /// In a folder.
    Folder {
        /// What it is called.
        name: String,
        /// The cache's manifest.
        manifest: Digest,
        /// The folder.
        store: Arc<dyn BlobStore>,
    },
}

impl CacheSource {
    /// What reading it is called, in BuildKit's words.
    pub fn title(&self) -> String {
        match self {
            CacheSource::Registry(reference) => format!("importing cache manifest from {}", reference.familiar()),
            CacheSource::Folder { name, .. } => format!("importing cache manifest from local:{name}"),
        }
    }
}

/// A cache that a build writes.
#[derive(Debug, Clone)]
pub struct CacheTarget {
    /// Where to.
    pub place: CachePlace,
    /// Which layers go along.
    pub mode: CacheMode,
    /// How its manifest is written.
    pub form: CacheForm,
    /// Whether the build is well without it.
    pub may_fail: bool,
}

impl CacheTarget {
    /// What writing it is called, in BuildKit's words.
    pub fn title(&self) -> &'static str {
        match &self.place {
            CachePlace::Inline => "preparing layers for inline cache",
            CachePlace::Registry(_) => "exporting cache to registry",
            CachePlace::Folder(_) => "exporting cache to client directory",
        }
    }
}

/// Where a cache is written.
#[derive(Debug, Clone)]
pub enum CachePlace {
    /// Into the configuration of the image.
    Inline,
    /// Into a registry.
    Registry(Reference),
    /// Into the folder of this name.
    Folder(String),
}

/// Which layers go along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheMode {
    /// Those of the result.
    Min,
    /// Those of all steps.
    Max,
}

/// What a cache's manifest is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheForm {
    /// An image's, which every registry takes.
    ImageManifest,
    /// An OCI index.
    Index,
    /// A list of Docker's.
    DockerList,
}

/// Opens the folder that a user has named, where this is possible.
pub type OpenFolder<'a> = &'a dyn Fn(&str) -> Result<Arc<dyn BlobStore>, EngineError>;

impl CacheOption {
    /// Reads `type=local,src=PATH`; what has no type is the name of an image, as everywhere in Docker.
    pub fn parse(text: &str) -> Result<CacheOption, EngineError> {
        if !text.contains('=') {
            let attributes = BTreeMap::from([("ref".to_owned(), text.to_owned())]);
            return Ok(CacheOption { kind: "registry".to_owned(), attributes });
        }
        let mut option = CacheOption::default();
        for part in text.split(',') {
            let pair = part.split_once('=');
            let (name, value) = pair.ok_or_else(|| EngineError::invalid(format!("invalid value {part}")))?;
            match name.trim() {
                "type" => option.kind = value.to_owned(),
                name => drop(option.attributes.insert(name.to_owned(), value.to_owned())),
            }
        }
        if option.kind.is_empty() {
            return Err(EngineError::invalid(format!("type required form> {text:?}")));
        }
        Ok(option)
    }

    /// A cache to read.
    pub fn source(&self, open: OpenFolder<'_>) -> Result<CacheSource, EngineError> {
        match self.kind.as_str() {
            "registry" => {
                self.check("importing", &["ref", "registry.insecure"])?;
                Ok(CacheSource::Registry(self.reference()?))
            }
            "local" => {
                self.check("importing", &["src", "digest", "tag"])?;
                let (name, digest) = (self.needed("src")?, self.needed("digest")?);
                let manifest = Digest::parse(digest).map_err(|error| EngineError::invalid(error.to_string()))?;
                Ok(CacheSource::Folder { name: name.to_owned(), manifest, store: open(name)? })
            }
            _ => Err(self.unsupported("importing")),
        }
    }

    /// A cache to write.
    pub fn target(&self) -> Result<CacheTarget, EngineError> {
        let common = ["mode", "oci-mediatypes", "image-manifest", "compression", "ignore-error"];
        let also = |more: &[&'static str]| [&common[..], more].concat();
        let place = match self.kind.as_str() {
            "inline" => {
                self.check("exporting", &["mode", "ignore-error"])?;
                if self.get("mode") == "max" {
                    return Err(EngineError::invalid("cache exporter \"inline\" supports only mode=min"));
                }
                CachePlace::Inline
            }
            "registry" => {
                self.check("exporting", &also(&["ref", "registry.insecure"]))?;
                CachePlace::Registry(self.reference()?)
            }
            "local" => {
                self.check("exporting", &also(&["dest", "tag"]))?;
                CachePlace::Folder(self.needed("dest")?.to_owned())
            }
            _ => return Err(self.unsupported("exporting")),
        };
        if !matches!(self.get("compression"), "" | "gzip") {
            let words = format!("compression={} of cache exporter {:?}", self.get("compression"), self.kind);
            return Err(EngineError::not_implemented(format!("{words} is not supported by this engine")));
        }
        Ok(CacheTarget {
            place,
            mode: self.mode()?,
            form: self.form()?,
            may_fail: self.flag("ignore-error")? == Some(true),
        })
    }

    fn mode(&self) -> Result<CacheMode, EngineError> {
        match self.get("mode") {
            "" | "min" => Ok(CacheMode::Min),
            "max" => Ok(CacheMode::Max),
            other => Err(EngineError::invalid(format!("invalid cache mode {other:?}: min or max"))),
        }
    }

    /// As in BuildKit an image's manifest unless Docker's media types are asked for.
    fn form(&self) -> Result<CacheForm, EngineError> {
        let oci = self.flag("oci-mediatypes")?.unwrap_or(true);
        match (oci, self.flag("image-manifest")?.unwrap_or(oci)) {
            (true, true) => Ok(CacheForm::ImageManifest),
            (true, false) => Ok(CacheForm::Index),
            (false, false) => Ok(CacheForm::DockerList),
            (false, true) => Err(EngineError::invalid(
                "invalid configuration for remote cache, OCI mediatypes are required for image-manifest cache format",
            )),
        }
    }

    fn get(&self, name: &str) -> &str {
        self.attributes.get(name).map(String::as_str).unwrap_or_default()
    }

    fn needed(&self, name: &str) -> Result<&str, EngineError> {
        let value = self.attributes.get(name).map(String::as_str).filter(|value| !value.is_empty());
        value.ok_or_else(|| EngineError::invalid(format!("cache of type {:?} requires {name}", self.kind)))
    }

    fn flag(&self, name: &str) -> Result<Option<bool>, EngineError> {
        match self.get(name) {
            "" => Ok(None),
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Some(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Some(false)),
            other => Err(EngineError::invalid(format!("failed to parse {name}: invalid syntax {other:?}"))),
        }
    }

    fn reference(&self) -> Result<Reference, EngineError> {
        if self.flag("registry.insecure")? == Some(true) {
            let words = "registry.insecure of a cache is not supported by this engine, whose own list of insecure registries counts";
            return Err(EngineError::not_implemented(words));
        }
        let reference = Reference::parse(self.needed("ref")?);
        Ok(reference.map_err(|error| EngineError::invalid(error.to_string()))?.with_default_tag())
    }

    /// Refuses attributes that would change nothing.
    fn check(&self, doing: &str, known: &[&str]) -> Result<(), EngineError> {
        match self.attributes.keys().find(|name| !known.contains(&name.as_str())) {
            None => Ok(()),
            Some(name) => Err(EngineError::not_implemented(format!(
                "option {name:?} of {doing} a cache of type {:?} is not supported by this engine",
                self.kind
            ))),
        }
    }

    fn unsupported(&self, doing: &str) -> EngineError {
        let kind = &self.kind;
        match SERVICES.contains(&kind.as_str()) {
            true => EngineError::not_implemented(format!(
                "{doing} the cache with type {kind:?} is not supported by this engine: use registry, local or inline"
            )),
            false => EngineError::invalid(format!("unknown cache type {kind:?}: registry, local or inline")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no_folder(path: &str) -> Result<Arc<dyn BlobStore>, EngineError> {
        Err(EngineError::invalid(format!("no folder {path}")))
    }

    fn target(text: &str) -> Result<CacheTarget, String> {
        let option = CacheOption::parse(text).map_err(|error| error.message().to_owned())?;
        option.target().map_err(|error| error.message().to_owned())
    }

    #[test]
    fn caches_are_read_as_buildkit_reads_them() {
        let registry = target("type=registry,ref=a/b,mode=max").unwrap();
        assert!(matches!(&registry.place, CachePlace::Registry(name) if name.familiar() == "a/b:latest"));
        assert_eq!((registry.mode, registry.form), (CacheMode::Max, CacheForm::ImageManifest));
        let form = |more: &str| target(&format!("type=registry,ref=a,{more}")).map(|target| target.form);
        assert_eq!(form("image-manifest=false"), Ok(CacheForm::Index));
        assert_eq!(form("oci-mediatypes=false"), Ok(CacheForm::DockerList));
        assert!(form("oci-mediatypes=false,image-manifest=true").unwrap_err().contains("OCI mediatypes are required"));
        assert!(target("type=registry,ref=a,ignore-error=true").unwrap().may_fail);
        assert!(matches!(target("type=inline").unwrap().place, CachePlace::Inline));
        let source = |text: &str| {
            let option = CacheOption::parse(text).unwrap();
            option.source(&no_folder).map(|source| source.title()).map_err(|error| error.message().to_owned())
        };
        assert_eq!(source("a/b:c").unwrap(), "importing cache manifest from a/b:c");
        assert!(source("type=local,src=/x").unwrap_err().contains("digest"));
    }

    #[test]
    fn what_is_not_supported_is_named() {
        for (text, words) in [
            ("type=gha", "\"gha\""),
            ("type=s3,bucket=b", "\"s3\""),
            ("type=azblob", "\"azblob\""),
            ("type=odd", "\"odd\""),
            ("type=registry", "requires ref"),
            ("type=registry,ref=a,compression=zstd", "compression=zstd"),
            ("type=registry,ref=a,odd=1", "\"odd\""),
            ("type=registry,ref=a,mode=mid", "\"mid\""),
            ("type=registry,ref=a,registry.insecure=true", "registry.insecure"),
            ("type=inline,mode=max", "mode=min"),
            ("type=local", "requires dest"),
            ("ref=a", "type required"),
        ] {
            let error = target(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
