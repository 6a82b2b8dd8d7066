//! Which of several platforms an image should be for.

use oci::image::Platform;

/// How well `candidate` fits, 0 best; nothing if it cannot run. An entry without a platform fits worst, but fits.
pub(crate) fn rank(wanted: Option<&Platform>, candidate: Option<&Platform>) -> Option<usize> {
    let Some(candidate) = candidate else { return Some(usize::MAX) };
    match wanted {
        Some(wanted) => is(wanted, candidate).then_some(0),
        None => rank_on(&Platform::host(), candidate),
    }
}

/// Says whether `candidate` is what was asked for; a variant counts only when it was asked for.
pub(crate) fn is(wanted: &Platform, candidate: &Platform) -> bool {
    let same_variant = wanted.variant.is_empty() || default_variant(wanted) == default_variant(candidate);
    wanted.os == candidate.os && wanted.architecture == candidate.architecture && same_variant
}

/// The place of the best of `candidates`; nothing where none can run.
pub fn best_platform<'a>(
    wanted: Option<&Platform>,
    candidates: impl Iterator<Item = Option<&'a Platform>>,
) -> Option<usize> {
    let ranked = candidates.enumerate().filter_map(|(at, candidate)| Some((rank(wanted, candidate)?, at)));
    ranked.min().map(|(_, at)| at)
}

/// Says whether an image for `candidate` is what was asked for.
pub fn is_platform(wanted: &Platform, candidate: &Platform) -> bool {
    is(wanted, candidate)
}

/// `linux/arm/v7`.
pub fn platform_name(platform: &Platform) -> String {
    display(platform)
}

fn rank_on(host: &Platform, candidate: &Platform) -> Option<usize> {
    if candidate.os != host.os {
        return None;
    }
    let runnable: &[(&str, &str)] = match host.architecture.as_str() {
        "amd64" => &[("amd64", ""), ("amd64", "v2"), ("amd64", "v3"), ("386", "")],
        "arm64" => &[("arm64", ""), ("arm", "v8"), ("arm", "v7"), ("arm", "v6"), ("arm", "v5")],
        other => return (candidate.architecture == other).then_some(0),
    };
    let variant = default_variant(candidate);
    runnable.iter().position(|(architecture, v)| candidate.architecture == *architecture && variant == *v)
}

/// The variant, where the usual one counts as none.
fn default_variant(platform: &Platform) -> &str {
    match (platform.architecture.as_str(), platform.variant.as_str()) {
        ("amd64", "v1") | ("arm64", "v8") => "",
        ("arm", "") => "v7",
        (_, variant) => variant,
    }
}

/// `linux/arm/v7`.
pub(crate) fn display(platform: &Platform) -> String {
    let parts = [platform.os.as_str(), &platform.architecture, &platform.variant];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/")
}

/// Several platforms for a message.
pub(crate) fn join(platforms: impl Iterator<Item = Platform>) -> String {
    let names: Vec<String> = platforms.map(|platform| display(&platform)).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// A platform that is none; the message is Docker's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?}: unknown operating system or architecture: invalid argument")]
pub struct PlatformError(String);

/// Parses `os`, `arch`, `os/arch` or `os/arch/variant`, with the usual other names of processors.
pub fn parse_platform(text: &str) -> Result<Platform, PlatformError> {
    let unknown = || PlatformError(text.to_owned());
    let lower = text.to_ascii_lowercase();
    let parts: Vec<&str> = lower.split('/').collect();
    let (os, architecture, variant) = match parts[..] {
        [os] if is_os(os) => return Ok(Platform { os: os.to_owned(), ..Platform::host() }),
        [architecture] => ("linux", architecture, ""),
        [os, architecture] => (os, architecture, ""),
        [os, architecture, variant] => (os, architecture, variant),
        _ => return Err(unknown()),
    };
    let (architecture, variant) = normalised(architecture, variant);
    if !is_os(os) || !ARCHITECTURES.contains(&architecture) {
        return Err(unknown());
    }
    let (os, architecture, variant) = (os.to_owned(), architecture.to_owned(), variant.to_owned());
    Ok(Platform { os, architecture, variant, ..Platform::default() })
}

const ARCHITECTURES: &[&str] = &[
    "386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64", "ppc64le", "riscv64",
    "s390x", "wasm",
];

fn is_os(name: &str) -> bool {
    matches!(name, "linux" | "windows" | "darwin" | "freebsd" | "netbsd" | "openbsd" | "solaris" | "wasip1")
}

/// Go's name for a processor, and its variant unless that is the usual one.
fn normalised<'a>(architecture: &'a str, variant: &'a str) -> (&'a str, &'a str) {
    match (architecture, variant) {
        ("i386", _) => ("386", ""),
        ("x86_64" | "x86-64" | "amd64", "v1" | "") => ("amd64", ""),
        ("x86_64" | "x86-64", variant) => ("amd64", variant),
        ("aarch64" | "arm64", "8" | "v8" | "") => ("arm64", ""),
        ("aarch64", variant) => ("arm64", variant),
        ("armhf", _) => ("arm", "v7"),
        ("armel", _) => ("arm", "v6"),
        ("arm", "" | "7") => ("arm", "v7"),
        ("arm", "8") => ("arm", "v8"),
        ("arm", "6") => ("arm", "v6"),
        ("arm", "5") => ("arm", "v5"),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        parse_platform(text).map_or_else(|error| error.to_string(), |platform| display(&platform))
    }

    #[test]
    fn platforms_are_read_as_docker_reads_them() {
        for (text, expected) in [
            ("linux/amd64", "linux/amd64"),
            ("linux/x86_64", "linux/amd64"),
            ("LINUX/ARM64/v8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/v6", "linux/arm/v6"),
            ("aarch64", "linux/arm64"),
            ("windows/amd64", "windows/amd64"),
            ("foo", "\"foo\": unknown operating system or architecture: invalid argument"),
            ("linux/foo", "\"linux/foo\": unknown operating system or architecture: invalid argument"),
            ("", "\"\": unknown operating system or architecture: invalid argument"),
            ("a/b/c/d", "\"a/b/c/d\": unknown operating system or architecture: invalid argument"),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn the_best_for_a_machine_is_itself_then_its_elder() {
        let amd64 = parse_platform("linux/amd64").unwrap();
        let ranks = ["linux/amd64", "linux/386", "linux/arm64", "windows/amd64"]
            .map(|text| rank_on(&amd64, &parse_platform(text).unwrap()));
        assert_eq!(ranks, [Some(0), Some(3), None, None]);
        let arm64 = parse_platform("linux/arm64").unwrap();
        let ranks = ["linux/arm64/v8", "linux/arm/v8", "linux/arm/v7", "linux/arm/v5", "linux/amd64"]
            .map(|text| rank_on(&arm64, &parse_platform(text).unwrap()));
        assert_eq!(ranks, [Some(0), Some(1), Some(2), Some(4), None]);
    }
}
