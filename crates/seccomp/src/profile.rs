//! Docker's profile format, and Docker's default profile.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use oci::runtime::{Arch, LinuxSeccomp, LinuxSyscall, SeccompAction, SeccompFlag};
use serde::{Deserialize, Deserializer};

use crate::filter::{CompileError, Filter, compile_for};

/// Docker's default profile: the same calls under the same conditions as Docker 29's.
static DEFAULT: LazyLock<Profile> =
    LazyLock::new(|| Profile::parse(include_str!("default.json")).expect("the built-in profile is well formed"));

/// A profile as `--security-opt seccomp=FILE` takes it: OCI's format, or Docker's, whose rules have conditions.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Profile {
    #[serde(default, deserialize_with = "empty_is_none")]
    default_action: Option<SeccompAction>,
    #[serde(default)]
    default_errno_ret: Option<u32>,
    #[serde(default, deserialize_with = "null_is_empty")]
    architectures: Vec<Arch>,
    #[serde(default, deserialize_with = "null_is_empty")]
    arch_map: Vec<ArchMapEntry>,
    #[serde(default, deserialize_with = "null_is_empty")]
    flags: Vec<SeccompFlag>,
    #[serde(default, deserialize_with = "null_is_empty")]
    listener_path: String,
    #[serde(default, deserialize_with = "null_is_empty")]
    listener_metadata: String,
    #[serde(default, deserialize_with = "null_is_empty")]
    syscalls: Vec<Rule>,
}

/// What the conditions of a profile are about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conditions<'a> {
    /// The capabilities in the container's bounding set, `CAP_SYS_ADMIN`.
    pub capabilities: &'a BTreeSet<String>,
    /// The machine.
    pub arch: Arch,
    /// The kernel.
    pub kernel: KernelVersion,
}

/// A kernel's version as far as profiles look at it: `6.12`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KernelVersion {
    major: u32,
    minor: u32,
}

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// The text is not a profile.
    #[error("invalid seccomp profile")]
    Json(#[from] serde_json::Error),
    /// There are two lists of architectures.
    #[error(
        "both 'architectures' and 'archMap' are specified in the seccomp profile, use either 'architectures' or 'archMap'"
    )]
    TwoArchitectureLists,
    /// A rule names its calls in the old way and in the new one.
    #[error("both 'name' and 'names' are specified in the seccomp profile, use either 'name' or 'names'")]
    TwoNames,
    /// There are rules, but no word about the rest.
    #[error("the seccomp profile has no defaultAction")]
    NoDefaultAction,
    /// The text is not a kernel's version.
    #[error("invalid kernel version: {0:?}, expected \"<kernel>.<major>\"")]
    KernelVersion(String),
    /// The resolved profile cannot be made a filter.
    #[error(transparent)]
    Compile(#[from] CompileError),
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchMapEntry {
    architecture: Arch,
    #[serde(default, deserialize_with = "null_is_empty")]
    sub_architectures: Vec<Arch>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    #[serde(default, deserialize_with = "null_is_empty")]
    names: Vec<String>,
    #[serde(default, deserialize_with = "null_is_empty")]
    name: String,
    action: SeccompAction,
    #[serde(default)]
    errno_ret: Option<u32>,
    #[serde(default, deserialize_with = "null_is_empty")]
    args: Vec<oci::runtime::LinuxSeccompArg>,
    #[serde(default, deserialize_with = "null_is_empty")]
    includes: Clause,
    #[serde(default, deserialize_with = "null_is_empty")]
    excludes: Clause,
}

/// When a rule is taken or left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Clause {
    #[serde(default, deserialize_with = "null_is_empty")]
    caps: Vec<String>,
    #[serde(default, deserialize_with = "null_is_empty")]
    arches: Vec<String>,
    #[serde(default, deserialize_with = "empty_is_no_version")]
    min_kernel: Option<KernelVersion>,
}

impl Profile {
    /// Docker's default profile.
    pub fn docker_default() -> &'static Self {
        &DEFAULT
    }

    /// Reads a profile.
    pub fn parse(json: &str) -> Result<Self, ProfileError> {
        let profile: Self = serde_json::from_str(json)?;
        if !profile.architectures.is_empty() && !profile.arch_map.is_empty() {
            return Err(ProfileError::TwoArchitectureLists);
        }
        if profile.syscalls.iter().any(|rule| !rule.name.is_empty() && !rule.names.is_empty()) {
            return Err(ProfileError::TwoNames);
        }
        if profile.default_action.is_none() && !profile.syscalls.is_empty() {
            return Err(ProfileError::NoDefaultAction);
        }
        Ok(profile)
    }

    /// Leaves only what holds for one container; `None` if the profile says nothing, which means no filter.
    pub fn resolve(&self, conditions: &Conditions<'_>) -> Option<LinuxSeccomp> {
        let syscalls = self.syscalls.iter().filter(|rule| rule.is_taken(conditions)).map(Rule::to_syscall).collect();
        Some(LinuxSeccomp {
            default_action: self.default_action?,
            default_errno_ret: self.default_errno_ret,
            architectures: self.architectures_on(conditions.arch),
            flags: self.flags.clone(),
            listener_path: self.listener_path.clone(),
            listener_metadata: self.listener_metadata.clone(),
            syscalls,
        })
    }

    /// Resolves and compiles in one step.
    pub fn compile(&self, conditions: &Conditions<'_>) -> Result<Option<Filter>, ProfileError> {
        self.resolve(conditions).map(|seccomp| Ok(compile_for(&seccomp, conditions.arch)?)).transpose()
    }

    fn architectures_on(&self, arch: Arch) -> Vec<Arch> {
        let entry = self.arch_map.iter().find(|entry| entry.architecture == arch);
        let mapped =
            entry.into_iter().flat_map(|entry| std::iter::once(&entry.architecture).chain(&entry.sub_architectures));
        self.architectures.iter().chain(mapped).copied().collect()
    }
}

impl Rule {
    fn is_taken(&self, conditions: &Conditions<'_>) -> bool {
        self.includes.includes(conditions) && !self.excludes.excludes(conditions)
    }

    fn to_syscall(&self) -> LinuxSyscall {
        let names = if self.name.is_empty() { self.names.clone() } else { vec![self.name.clone()] };
        LinuxSyscall { names, action: self.action, errno_ret: self.errno_ret, args: self.args.clone() }
    }
}

impl Clause {
    /// All that is asked for must be so.
    fn includes(&self, conditions: &Conditions<'_>) -> bool {
        (self.arches.is_empty() || self.names_arch(conditions.arch))
            && self.caps.iter().all(|capability| conditions.capabilities.contains(capability))
            && self.min_kernel.is_none_or(|minimum| conditions.kernel >= minimum)
    }

    /// One of the things that are named is enough.
    fn excludes(&self, conditions: &Conditions<'_>) -> bool {
        self.names_arch(conditions.arch)
            || self.caps.iter().any(|capability| conditions.capabilities.contains(capability))
            || self.min_kernel.is_some_and(|minimum| conditions.kernel >= minimum)
    }

    fn names_arch(&self, arch: Arch) -> bool {
        self.arches.iter().any(|name| name == docker_name(arch))
    }
}

/// What Docker's profiles call an architecture.
fn docker_name(arch: Arch) -> &'static str {
    match arch {
        Arch::X86 => "x86",
        Arch::X86_64 => "amd64",
        Arch::X32 => "x32",
        Arch::Arm => "arm",
        Arch::Aarch64 => "arm64",
        Arch::Mips => "mips",
        Arch::Mips64 => "mips64",
        Arch::Mips64n32 => "mips64n32",
        Arch::Mipsel => "mipsel",
        Arch::Mipsel64 => "mipsel64",
        Arch::Mipsel64n32 => "mips3l64n32",
        Arch::Ppc => "ppc",
        Arch::Ppc64 => "ppc64",
        Arch::Ppc64le => "ppc64le",
        Arch::S390 => "s390",
        Arch::S390x => "s390x",
        Arch::Parisc => "parisc",
        Arch::Parisc64 => "parisc64",
        Arch::Riscv64 => "riscv64",
        Arch::Loongarch64 => "loongarch64",
        Arch::M68k => "m68k",
        Arch::Sh => "sh",
        Arch::Sheb => "sheb",
    }
}

impl KernelVersion {
    /// Makes a version.
    pub fn new(major: u32, minor: u32) -> Self {
        Self { major, minor }
    }

    /// Reads what `uname -r` says: `6.18.44-fc`, `3.12-rc5`. Only the first two numbers count.
    pub fn of_release(release: &str) -> Option<Self> {
        let (major, rest) = release.split_once('.')?;
        let end = rest.find(|other: char| !other.is_ascii_digit()).unwrap_or(rest.len());
        Some(Self { major: major.parse().ok()?, minor: rest[..end].parse().ok()? })
    }
}

impl FromStr for KernelVersion {
    type Err = ProfileError;

    fn from_str(text: &str) -> Result<Self, ProfileError> {
        let parse = || {
            let (major, minor) = text.split_once('.')?;
            let version = Self { major: major.parse::<u8>().ok()?.into(), minor: minor.parse::<u8>().ok()?.into() };
            (version != Self::new(0, 0)).then_some(version)
        };
        parse().ok_or_else(|| ProfileError::KernelVersion(text.to_owned()))
    }
}

impl fmt::Display for KernelVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.major, self.minor)
    }
}

fn null_is_empty<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

fn empty_is_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SeccompAction>, D::Error> {
    use serde::de::IntoDeserializer;
    match Option::<String>::deserialize(deserializer)?.as_deref() {
        None | Some("") => Ok(None),
        Some(name) => SeccompAction::deserialize(name.into_deserializer()).map(Some),
    }
}

fn empty_is_no_version<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<KernelVersion>, D::Error> {
    match Option::<String>::deserialize(deserializer)?.as_deref() {
        None | Some("") => Ok(None),
        Some(text) => text.parse().map(Some).map_err(serde::de::Error::custom),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conditions<'a>(capabilities: &'a BTreeSet<String>, arch: Arch, kernel: &str) -> Conditions<'a> {
        Conditions { capabilities, arch, kernel: KernelVersion::of_release(kernel).unwrap() }
    }

    fn capabilities(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn names(json: &str, caps: &[&str], arch: Arch, kernel: &str) -> Vec<String> {
        let caps = capabilities(caps);
        let resolved = Profile::parse(json).unwrap().resolve(&conditions(&caps, arch, kernel)).unwrap();
        resolved.syscalls.into_iter().flat_map(|syscall| syscall.names).collect()
    }

    const CONDITIONAL: &str = r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[
        {"names":["plain"],"action":"SCMP_ACT_ALLOW"},
        {"names":["two-caps"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_A","CAP_B"]}},
        {"names":["no-cap"],"action":"SCMP_ACT_ALLOW","excludes":{"caps":["CAP_A","CAP_B"]}},
        {"names":["arch"],"action":"SCMP_ACT_ALLOW","includes":{"arches":["amd64","x32"]}},
        {"names":["not-arch"],"action":"SCMP_ACT_ALLOW","excludes":{"arches":["arm64"]}},
        {"names":["kernel"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"4.8"},"comment":"x"},
        {"names":["old-kernel"],"action":"SCMP_ACT_ALLOW","excludes":{"minKernel":"4.8"}}]}"#;

    #[test]
    fn rules_are_taken_as_docker_takes_them() {
        assert_eq!(names(CONDITIONAL, &[], Arch::X86_64, "4.8.0"), ["plain", "no-cap", "arch", "not-arch", "kernel"]);
        assert_eq!(names(CONDITIONAL, &["CAP_A"], Arch::Aarch64, "4.7.9-rc1"), ["plain", "old-kernel"]);
        let both = names(CONDITIONAL, &["CAP_A", "CAP_B"], Arch::S390x, "10.0");
        assert_eq!(both, ["plain", "two-caps", "not-arch", "kernel"]);
    }

    #[test]
    fn old_and_plain_formats_are_read() {
        let old = r#"{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64"],"syscalls":[{"name":"accept","action":"SCMP_ACT_ALLOW","args":null}]}"#;
        assert_eq!(names(old, &[], Arch::X86_64, "6.1"), ["accept"]);
        let none = BTreeSet::new();
        let empty = Profile::parse("{}").unwrap();
        assert_eq!(empty.resolve(&conditions(&none, Arch::X86_64, "6.1")), None);
    }

    #[test]
    fn contradictions_are_refused() {
        for (json, word) in [
            (
                r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],"archMap":[{"architecture":"SCMP_ARCH_X86"}]}"#,
                "archMap",
            ),
            (
                r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"a","names":["b"],"action":"SCMP_ACT_ALLOW"}]}"#,
                "'names'",
            ),
            (r#"{"syscalls":[{"names":["b"],"action":"SCMP_ACT_ALLOW"}]}"#, "defaultAction"),
            (r#"{"defaultAction":"SCMP_ACT_NONSENSE"}"#, "invalid"),
            (
                r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["b"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"4"}}]}"#,
                "invalid",
            ),
        ] {
            let error = Profile::parse(json).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn kernel_versions() {
        let release = |text| KernelVersion::of_release(text).map(|version| version.to_string());
        assert_eq!(release("6.18.44-fc-v657").as_deref(), Some("6.18"));
        assert_eq!(release("3.12-rc5").as_deref(), Some("3.12"));
        assert_eq!(release("nonsense"), None);
        assert!("4.8".parse::<KernelVersion>().unwrap() < KernelVersion::new(4, 10));
        assert!("0.0".parse::<KernelVersion>().is_err() && "4.8.1".parse::<KernelVersion>().is_err());
    }

    #[test]
    fn the_default_profile_is_dockers() {
        let none = BTreeSet::new();
        let resolved = Profile::docker_default().resolve(&conditions(&none, Arch::X86_64, "6.18")).unwrap();
        assert_eq!(resolved.architectures, [Arch::X86_64, Arch::X86, Arch::X32]);
        let has = |name: &str| resolved.syscalls.iter().any(|syscall| syscall.names.iter().any(|known| known == name));
        assert!(has("read") && has("ptrace") && has("arch_prctl"));
        assert!(
            !has("mount") && !has("bpf") && !has("reboot") && !has("open_by_handle_at") && !has("riscv_flush_icache")
        );
        let clone3 = resolved.syscalls.iter().find(|syscall| syscall.names == ["clone3"]).unwrap();
        assert_eq!((clone3.action, clone3.errno_ret), (SeccompAction::Errno, Some(38)));
        // Every name means something somewhere: a misspelt one would be ignored in silence.
        let all = DEFAULT.syscalls.iter().flat_map(|rule| &rule.names);
        let unknown: Vec<_> = all.filter(|name| crate::arch::row(name).is_none()).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }
}
