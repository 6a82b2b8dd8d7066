//! Which packages are in an image, by the databases of dpkg and apk in its files, as an SPDX document.

use std::fs::File;
use std::io::Read;
use std::os::fd::BorrowedFd;

use jiff::Timestamp;
use oci::Digest;
use rustix::fs::{Dir, Mode, OFlags, ResolveFlags};
use serde_json::{Value, json};

pub(super) const SPDX: &str = "https://spdx.dev/Document";
/// The largest database that is read.
const DATABASE_BYTES_MAX: u64 = 64 << 20;
/// Packages of one image.
const PACKAGES_MAX: usize = 100_000;

/// A package as its database knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Package {
    /// `deb` or `apk`.
    kind: &'static str,
    name: String,
    version: String,
    architecture: String,
    maintainer: String,
    license: String,
}

/// The document of a root's files. `name` is the image's.
pub(super) fn predicate(root: BorrowedFd<'_>, name: &str, made: Timestamp) -> Value {
    let release = text(root, "etc/os-release").or_else(|| text(root, "usr/lib/os-release")).unwrap_or_default();
    let distribution = value_of(&release, "ID").unwrap_or_else(|| "linux".to_owned());
    let mut packages = Vec::new();
    if let Some(text) = text(root, "var/lib/dpkg/status") {
        packages.extend(of_dpkg(&text));
    }
    // Images without a package manager have one file for each package.
    for name in names(root, "var/lib/dpkg/status.d") {
        let text = text(root, &format!("var/lib/dpkg/status.d/{name}")).filter(|_| !name.ends_with(".md5sums"));
        packages.extend(text.iter().flat_map(|text| of_dpkg(text)));
    }
    for place in ["lib/apk/db/installed", "usr/lib/apk/db/installed"] {
        if let Some(text) = text(root, place) {
            packages.extend(of_apk(&text));
        }
    }
    packages.truncate(PACKAGES_MAX);
    packages.sort_by(|a, b| (a.kind, &a.name, &a.version).cmp(&(b.kind, &b.name, &b.version)));
    packages.dedup();
    document(&packages, &distribution, name, made)
}

fn document(packages: &[Package], distribution: &str, name: &str, made: Timestamp) -> Value {
    let listed: Vec<Value> = packages.iter().map(|package| described(package, distribution)).collect();
    let namespace = Digest::of(format!("{listed:?}").as_bytes());
    let relations: Vec<Value> = listed
        .iter()
        .map(|package| {
            let id = &package["SPDXID"];
            json!({ "spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES", "relatedSpdxElement": id })
        })
        .collect();
    json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": name,
        "documentNamespace": format!("urn:conex:sbom:{}", namespace.hex()),
        "creationInfo": {
            "created": Timestamp::from_second(made.as_second()).unwrap_or_default().to_string(),
            "creators": [format!("Tool: conex-{}", env!("CARGO_PKG_VERSION"))],
        },
        "packages": listed,
        "relationships": relations,
    })
}

fn described(package: &Package, distribution: &str) -> Value {
    let Package { kind, name, version, architecture, maintainer, license } = package;
    let id: String = format!("{kind}-{name}-{version}-{architecture}")
        .chars()
        .map(|letter| if letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-') { letter } else { '-' })
        .collect();
    let url =
        format!("pkg:{kind}/{distribution}/{}@{}?arch={}", escaped(name), escaped(version), escaped(architecture));
    let or_unsaid = |text: &str| if text.is_empty() { "NOASSERTION".to_owned() } else { text.to_owned() };
    let supplier = if maintainer.is_empty() { "NOASSERTION".to_owned() } else { format!("Person: {maintainer}") };
    json!({
        "SPDXID": format!("SPDXRef-Package-{id}"),
        "name": name,
        "versionInfo": version,
        "supplier": supplier,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": "NOASSERTION",
        "licenseComments": or_unsaid(license),
        "copyrightText": "NOASSERTION",
        "externalRefs": [{
            "referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": url,
        }],
    })
}

fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}

/// Packages that dpkg has installed: paragraphs of `Name: value`.
fn of_dpkg(text: &str) -> Vec<Package> {
    let paragraphs = text.split("\n\n");
    let package = |paragraph: &str| {
        let field = |name: &str| {
            let line = paragraph.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.map(|value| value.trim().to_owned()).unwrap_or_default()
        };
        let status = field("Status");
        let is_installed = status.is_empty() || status.split(' ').any(|word| word == "installed");
        let package = Package {
            kind: "deb",
            name: field("Package"),
            version: field("Version"),
            architecture: field("Architecture"),
            maintainer: field("Maintainer"),
            license: String::new(),
        };
        (is_installed && !package.name.is_empty()).then_some(package)
    };
    paragraphs.filter_map(package).collect()
}

/// Packages that apk has installed: paragraphs of `X:value`.
fn of_apk(text: &str) -> Vec<Package> {
    let package = |paragraph: &str| {
        let field = |letter: &str| {
            let line = paragraph.lines().find_map(|line| line.strip_prefix(letter)?.strip_prefix(':'));
            line.map(|value| value.trim().to_owned()).unwrap_or_default()
        };
        let package = Package {
            kind: "apk",
            name: field("P"),
            version: field("V"),
            architecture: field("A"),
            maintainer: field("m"),
            license: field("L"),
        };
        (!package.name.is_empty()).then_some(package)
    };
    text.split("\n\n").filter_map(package).collect()
}

/// `ID="debian"` in a file of variables.
fn value_of(text: &str, name: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
    let value: String = value.trim().trim_matches(['"', '\'']).chars().filter(char::is_ascii_alphanumeric).collect();
    (!value.is_empty()).then_some(value)
}

/// A text of the image; its links lead nowhere else.
fn text(root: BorrowedFd<'_>, path: &str) -> Option<String> {
    let file = open(root, path, OFlags::RDONLY | OFlags::NONBLOCK)?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(DATABASE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn names(root: BorrowedFd<'_>, path: &str) -> Vec<String> {
    let Some(directory) = open(root, path, OFlags::RDONLY | OFlags::DIRECTORY) else { return Vec::new() };
    let entries = Dir::read_from(&directory).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name != "." && name != "..").take(PACKAGES_MAX).collect()
}

fn open(root: BorrowedFd<'_>, path: &str, flags: OFlags) -> Option<File> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve).ok().map(File::from)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use proptest::prelude::*;

    use super::*;

    const DPKG: &str = "Package: libc6\nStatus: install ok installed\nMaintainer: A <a@b>\nArchitecture: amd64\nVersion: 2.41-12+deb13u1\nDescription: x\n Version: no\n\n\
                        Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\nPackage: tzdata\nVersion: 2025b\nArchitecture: all\n";
    const APK: &str = "C:Q1x=\nP:musl\nV:1.2.5-r9\nA:x86_64\nL:MIT\nm:B <b@c>\nF:lib\n\nP:zlib\nV:1.3\nA:x86_64\n";

    #[test]
    fn databases_become_a_document() {
        let folder = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        put("usr/lib/os-release", "NAME=x\nID=\"debian\"\n");
        put("var/lib/dpkg/status", DPKG);
        put("var/lib/dpkg/status.d/base", "Package: base-files\nVersion: 13\nArchitecture: amd64\n");
        put("lib/apk/db/installed", APK);
        // An image's links are followed inside it only.
        std::os::unix::fs::symlink("/usr/lib/os-release", folder.path().join("etc-release")).unwrap();
        let root = File::open(folder.path()).unwrap();
        let document = predicate(root.as_fd(), "image", Timestamp::UNIX_EPOCH);
        let packages = document["packages"].as_array().unwrap();
        let shown: Vec<String> = packages
            .iter()
            .map(|package| {
                format!("{} {}", package["name"].as_str().unwrap(), package["versionInfo"].as_str().unwrap())
            })
            .collect();
        assert_eq!(shown, ["musl 1.2.5-r9", "zlib 1.3", "base-files 13", "libc6 2.41-12+deb13u1", "tzdata 2025b"]);
        let url = &packages[3]["externalRefs"][0]["referenceLocator"];
        assert_eq!(url, "pkg:deb/debian/libc6@2.41-12%2Bdeb13u1?arch=amd64");
        assert_eq!(document["spdxVersion"], "SPDX-2.3");
        assert_eq!(document["relationships"].as_array().unwrap().len(), 5);
        let empty = tempfile::tempdir().unwrap();
        let root = File::open(empty.path()).unwrap();
        assert_eq!(predicate(root.as_fd(), "x", Timestamp::UNIX_EPOCH)["packages"], json!([]));
    }

    proptest! {
        #[test]
        fn whatever_stands_in_a_database_is_read(text in ".{0,300}") {
            of_dpkg(&text);
            of_apk(&text);
            value_of(&text, "ID");
        }
    }
}
