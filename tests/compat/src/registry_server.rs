//! A real registry, Debian's docker-registry, in a test's own network namespace.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use harness::{Engine, EngineOptions, Host};
use oci::Digest;
use serde_json::{Value, json};

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const TIME_LIMIT: Duration = Duration::from_secs(30);

/// A running registry; it ends with the value.
pub(crate) struct RegistryServer {
    child: Child,
    /// `host:port`, as it stands in names.
    pub(crate) address: String,
}

/// What a registry is started with.
#[derive(Default)]
pub(crate) struct Settings {
    /// The address of the loopback interface that it listens at, `127.0.0.1:5000` unless said otherwise.
    pub(crate) address: Option<String>,
    /// Certificate and key.
    pub(crate) tls: Option<(PathBuf, PathBuf)>,
    /// Lines below `auth:` of its configuration.
    pub(crate) auth: Option<String>,
}

impl Settings {
    /// A registry that lets in `user` with the password `secret`.
    pub(crate) fn with_password(host: &Host) -> Self {
        let passwords = host.program("htpasswd").args(["-Bbn", "user", "secret"]).ok();
        let file = host.files().join("htpasswd");
        std::fs::write(&file, passwords).unwrap();
        Self { auth: Some(format!("  htpasswd: {{realm: test, path: {}}}\n", file.display())), ..Self::default() }
    }
}

/// An engine with `busybox`, and a registry in the clear beside it.
pub(crate) fn engine_and_registry() -> (Engine, RegistryServer) {
    let host = Host::new();
    let registry = RegistryServer::start(&host, Settings::default());
    let engine = Engine::start_in(host, EngineOptions::default());
    engine.import_busybox();
    (engine, registry)
}

impl RegistryServer {
    /// Starts a registry that keeps its blobs in the host's scratch folder, and waits until it listens.
    pub(crate) fn start(host: &Host, settings: Settings) -> Self {
        let address = settings.address.unwrap_or_else(|| "127.0.0.1:5000".to_owned());
        let folder = host.scratch().join("registry");
        std::fs::create_dir_all(&folder).unwrap();
        let mut text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp:\n  addr: {address}\n",
            folder.join("blobs").display()
        );
        if let Some((certificate, key)) = &settings.tls {
            text += &format!("  tls: {{certificate: {}, key: {}}}\n", certificate.display(), key.display());
        }
        if let Some(auth) = &settings.auth {
            text += &format!("auth:\n{auth}");
        }
        let file = folder.join("config.yml");
        std::fs::write(&file, text).unwrap();
        let log = std::fs::File::create(folder.join("log")).unwrap();
        let mut command = host.program("docker-registry").args(["serve", file.to_str().unwrap()]).into_command();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let mut child = command.spawn().expect("Debian's docker-registry is installed");
        wait_until_listening(&mut child, &address, &folder.join("log"));
        Self { child, address }
    }

    /// A name in this registry.
    pub(crate) fn name(&self, rest: &str) -> String {
        format!("{}/{rest}", self.address)
    }
}

fn wait_until_listening(child: &mut Child, address: &str, log: &Path) {
    let end = Instant::now() + TIME_LIMIT;
    while TcpStream::connect(address).is_err() {
        let says = || std::fs::read_to_string(log).unwrap_or_default();
        assert!(child.try_wait().unwrap().is_none(), "the registry has ended: {}", says());
        assert!(Instant::now() < end, "the registry does not listen: {}", says());
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl Drop for RegistryServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A private authority, and a certificate of it for an address.
pub(crate) struct Certificates {
    pub(crate) authority: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Certificates {
    /// A certificate that stands for itself, with an RSA key: what signs tokens.
    pub(crate) fn self_signed_rsa(host: &Host) -> Self {
        let folder = host.scratch().join("certificates");
        std::fs::create_dir_all(&folder).unwrap();
        let (certificate, key) = (folder.join("token.crt"), folder.join("token.key"));
        let openssl = host.program("openssl").args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "36500"]);
        openssl.args(["-subj", "/CN=tokens", "-keyout"]).arg(&key).arg("-out").arg(&certificate).ok();
        Self { authority: certificate.clone(), certificate, key }
    }

    /// Makes them with openssl.
    pub(crate) fn make(host: &Host, address: &str) -> Self {
        let folder = host.scratch().join("certificates");
        std::fs::create_dir_all(&folder).unwrap();
        let file = |name: &str| folder.join(name);
        let openssl = |arguments: &[&str]| host.program("openssl").args(arguments).ok();
        let path = |name: &str| file(name).to_str().unwrap().to_owned();
        let new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "36500"];
        let (ca, ca_key) = (path("ca.crt"), path("ca.key"));
        let subject = ["-subj", "/CN=a private authority", "-addext", "basicConstraints=critical,CA:TRUE"];
        openssl(&[&["req", "-x509"], &new_key[..], &["-keyout", &ca_key, "-out", &ca], &subject[..]].concat());
        let (request, key, certificate) = (path("server.csr"), path("server.key"), path("server.crt"));
        let new_key = &new_key[..5];
        openssl(&[&["req", "-new"], new_key, &["-keyout", &key, "-out", &request, "-subj", "/CN=registry"]].concat());
        std::fs::write(file("san"), format!("subjectAltName=IP:{address}\n")).unwrap();
        openssl(&[
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            &ca,
            "-CAkey",
            &ca_key,
            "-CAcreateserial",
            "-days",
            "36500",
            "-out",
            &certificate,
            "-extfile",
            &path("san"),
        ]);
        Self { authority: file("ca.crt"), certificate: file("server.crt"), key: file("server.key") }
    }
}

/// Puts a blob past every client of ours; gives its descriptor.
pub(crate) fn put_blob(host: &Host, registry: &RegistryServer, repository: &str, bytes: &[u8]) -> Value {
    let url = format!("http://{}/v2/{repository}/blobs/uploads/", registry.address);
    let headers = host.program("curl").args(["-s", "-X", "POST", "-D", "-", &url]).ok();
    let location = headers.lines().find_map(|line| line.strip_prefix("Location: ")).unwrap().trim().to_owned();
    let digest = Digest::of(bytes);
    let target = format!("{location}&digest={digest}");
    let put = ["-s", "-f", "-X", "PUT", "-H", "Content-Type: application/octet-stream", "--data-binary", "@-", &target];
    host.program("curl").args(put).input(bytes.to_vec()).ok();
    json!({ "mediaType": "application/octet-stream", "digest": digest, "size": bytes.len() })
}

/// Puts a manifest or index in the same way; gives its digest.
pub(crate) fn put_manifest(
    host: &Host,
    registry: &RegistryServer,
    repository: &str,
    tag: &str,
    kind: &str,
    document: &Value,
) -> Digest {
    let bytes = document.to_string().into_bytes();
    let url = format!("http://{}/v2/{repository}/manifests/{tag}", registry.address);
    let header = format!("Content-Type: {kind}");
    let put = ["-s", "-f", "-X", "PUT", "-H", &header, "--data-binary", "@-", &url];
    host.program("curl").args(put).input(bytes.clone()).ok();
    Digest::of(&bytes)
}
