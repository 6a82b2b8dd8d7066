//! What a build is asked to attest about its image.

use std::collections::BTreeMap;

use super::EngineError;

/// BuildKit's own scanner, which stands for the one that is built in.
const DEFAULT_SCANNER: &str = "docker/buildkit-syft-scanner";

/// What is attested.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attests {
    /// How the image was made.
    pub provenance: Option<ProvenanceRequest>,
    /// Which packages are in it, and who looks.
    pub sbom: Option<Scanner>,
}

/// Who looks for packages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scanner {
    /// The engine.
    BuiltIn,
    /// An image of this name, by BuildKit's protocol for scanners.
    Image(String),
}

/// How the image was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvenanceRequest {
    /// How much of it is told.
    pub mode: ProvenanceMode,
    /// Who builds, as an address.
    pub builder: String,
    /// Whether the user says that the build gives the same image each time.
    pub reproducible: bool,
}

/// How much is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProvenanceMode {
    /// Nothing that may be private: no arguments, no Dockerfile.
    Min,
    /// Everything.
    Max,
}

impl Attests {
    /// Whether there is anything to attest.
    pub fn any(&self) -> bool {
        self.sbom.is_some() || self.provenance.is_some()
    }

    /// Adds what an option says: `provenance`, `mode=max`, or `sbom`, `generator=IMAGE`. What is only wanted where it costs nothing
    /// (`inline-only`), as buildx asks for by itself, is not made: an image stays one manifest unless a user wishes otherwise.
    pub fn add(&mut self, kind: &str, value: &str) -> Result<(), EngineError> {
        let attributes = attributes(value)?;
        let get = |name: &str| attributes.get(name).map(String::as_str).unwrap_or_default();
        if get("disabled") == "true" || get("inline-only") == "true" {
            return Ok(());
        }
        let known: &[&str] = match kind {
            "provenance" => &["type", "mode", "builder-id", "reproducible", "version", "inline-only", "disabled"],
            "sbom" => &["type", "generator", "inline-only", "disabled"],
            _ => {
                return Err(EngineError::not_implemented(format!(
                    "attestation {kind:?} is not supported by this engine"
                )));
            }
        };
        if let Some(name) = attributes.keys().find(|name| !known.contains(&name.as_str())) {
            let words = format!("option {name:?} of attestation {kind:?} is not supported by this engine");
            return Err(EngineError::not_implemented(words));
        }
        match kind {
            "provenance" => {
                if !matches!(get("version"), "" | "v0.2") {
                    let words = format!(
                        "provenance of version {:?} is not supported by this engine, only v0.2",
                        get("version")
                    );
                    return Err(EngineError::not_implemented(words));
                }
                let mode = match get("mode") {
                    "" | "min" => ProvenanceMode::Min,
                    "max" => ProvenanceMode::Max,
                    other => {
                        return Err(EngineError::invalid(format!("invalid mode {other:?} of provenance: min or max")));
                    }
                };
                let builder = get("builder-id").to_owned();
                self.provenance =
                    Some(ProvenanceRequest { mode, builder, reproducible: get("reproducible") == "true" });
            }
            _ => {
                self.sbom = Some(match get("generator") {
                    "" => Scanner::BuiltIn,
                    name if name.contains(DEFAULT_SCANNER) => Scanner::BuiltIn,
                    name => Scanner::Image(name.to_owned()),
                });
            }
        }
        Ok(())
    }
}

/// `mode=max,reproducible=true`; `true` and nothing mean the defaults.
fn attributes(value: &str) -> Result<BTreeMap<String, String>, EngineError> {
    let parts = value.split(',').map(str::trim).filter(|part| !part.is_empty() && *part != "true");
    let pair = |part: &str| match part.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None if part == "false" => Ok(("disabled".to_owned(), "true".to_owned())),
        None => Err(EngineError::invalid(format!("invalid attestation option {part:?}: expected key=value"))),
    };
    parts.map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_or_refused_by_name() {
        let add = |kind: &str, value: &str| {
            let mut attests = Attests::default();
            attests.add(kind, value).map(|()| attests).map_err(|error| error.message().to_owned())
        };
        let mode = |value: &str| add("provenance", value).map(|attests| attests.provenance.map(|asked| asked.mode));
        assert_eq!(mode("type=provenance,mode=max"), Ok(Some(ProvenanceMode::Max)));
        assert_eq!((mode(""), mode("true")), (Ok(Some(ProvenanceMode::Min)), Ok(Some(ProvenanceMode::Min))));
        for nothing in ["mode=min,inline-only=true", "disabled=true", "false"] {
            assert_eq!(mode(nothing), Ok(None), "{nothing}");
        }
        let scanner = |value: &str| add("sbom", value).unwrap().sbom;
        for built_in in ["", "generator=docker/buildkit-syft-scanner:stable-1"] {
            assert_eq!(scanner(built_in), Some(Scanner::BuiltIn));
        }
        assert_eq!(scanner("generator=other/scanner"), Some(Scanner::Image("other/scanner".to_owned())));
        for (kind, value, word) in [
            ("sbom", "scanner=x", "scanner"),
            ("provenance", "mode=mid", "mid"),
            ("provenance", "version=v1", "v1"),
            ("provenance", "odd=1", "odd"),
            ("odd", "", "odd"),
        ] {
            assert!(add(kind, value).unwrap_err().contains(word), "{kind} {value}");
        }
    }
}
