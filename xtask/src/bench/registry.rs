//! A registry with one image of several layers, as Debian's docker-registry keeps it.
//!
//! ```text
//! <folder>/docker/registry/v2/
//!   blobs/sha256/<two digits>/<hex>/data
//!   repositories/<name>/_layers/sha256/<hex>/link
//!   repositories/<name>/_manifests/revisions/sha256/<hex>/link
//!   repositories/<name>/_manifests/tags/<tag>/current/link
//! ```

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::image::{architecture, sha256};
use crate::process::run;

/// Where it listens, in each network namespace that it is started in.
pub(crate) const ADDRESS: &str = "127.0.0.1:5000";
/// The image's repository.
pub(crate) const REPOSITORY: &str = "bench/pull";
/// The image's tag.
pub(crate) const TAG: &str = "1";

const PATIENCE: Duration = Duration::from_secs(20);

/// How a layer is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packing {
    /// `gzip -6`, as most images have it.
    Gzip,
    /// `zstd -3`
    Zstd,
}

/// A folder of the peers' root that becomes a layer.
pub(crate) type Part = (&'static str, Packing);

/// The folder of a registry.
#[derive(Debug)]
pub(crate) struct Storage {
    folder: PathBuf,
}

/// How large an image is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sizes {
    /// Its layers' tars.
    pub(crate) unpacked: u64,
    /// Its layers in the registry.
    pub(crate) packed: u64,
}

impl Storage {
    /// Makes an image of parts of `root`.
    pub(crate) fn make(folder: &Path, root: &Path, parts: &[Part]) -> Result<(Storage, Sizes)> {
        let storage = Storage { folder: folder.to_owned() };
        let (mut sizes, mut layers, mut diff_ids) = (Sizes::default(), Vec::new(), Vec::new());
        for (part, packing) in parts {
            let tar = folder.join("layer.tar");
            fs::create_dir_all(folder)?;
            run(Command::new("tar")
                .args(["--numeric-owner", "--sort=name", "-C"])
                .arg(root)
                .arg("-cf")
                .arg(&tar)
                .arg(part))?;
            sizes.unpacked += fs::metadata(&tar)?.len();
            diff_ids.push(format!("sha256:{}", sha256(&tar)?));
            let (program, level, kind) = match packing {
                Packing::Gzip => ("gzip", "-6", "application/vnd.oci.image.layer.v1.tar+gzip"),
                Packing::Zstd => ("zstd", "-3", "application/vnd.oci.image.layer.v1.tar+zstd"),
            };
            let packed = folder.join("layer.packed");
            let output = fs::File::create(&packed)?;
            run(Command::new(program).args([level, "-q", "-c"]).arg(&tar).stdout(output))?;
            layers.push(storage.add_blob(&packed, kind)?);
            fs::remove_file(&tar)?;
        }
        sizes.packed = layers.iter().filter_map(|layer| layer["size"].as_u64()).sum();
        storage.add_manifest(layers, &diff_ids)?;
        Ok((storage, sizes))
    }

    fn add_manifest(&self, layers: Vec<Value>, diff_ids: &[String]) -> Result<()> {
        let config = json!({
            "architecture": architecture(), "os": "linux", "created": "2024-01-01T00:00:00Z",
            "config": {"Env": ["PATH=/bin:/usr/bin"], "Cmd": ["/bin/sh"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": diff_ids.iter().map(|_| json!({"created_by": "bench"})).collect::<Vec<_>>(),
        });
        let config = self.add_document(&config, "application/vnd.oci.image.config.v1+json")?;
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers});
        let manifest = self.add_document(&manifest, kind)?;
        let digest = manifest["digest"].as_str().unwrap_or_default();
        let hex = digest.trim_start_matches("sha256:");
        self.link(&format!("_manifests/revisions/sha256/{hex}"), digest)?;
        self.link(&format!("_manifests/tags/{TAG}/current"), digest)
    }

    fn add_document(&self, document: &Value, kind: &str) -> Result<Value> {
        let file = self.folder.join("document");
        fs::write(&file, document.to_string())?;
        self.add_blob(&file, kind)
    }

    /// Takes a file; gives its descriptor.
    fn add_blob(&self, file: &Path, kind: &str) -> Result<Value> {
        let (hex, size) = (sha256(file)?, fs::metadata(file)?.len());
        let place = self.top().join("blobs/sha256").join(&hex[..2]).join(&hex);
        fs::create_dir_all(&place)?;
        fs::rename(file, place.join("data"))?;
        let digest = format!("sha256:{hex}");
        self.link(&format!("_layers/sha256/{hex}"), &digest)?;
        Ok(json!({"mediaType": kind, "digest": digest, "size": size}))
    }

    fn link(&self, place: &str, digest: &str) -> Result<()> {
        let place = self.top().join("repositories").join(REPOSITORY).join(place);
        fs::create_dir_all(&place)?;
        Ok(fs::write(place.join("link"), digest)?)
    }

    fn top(&self) -> PathBuf {
        self.folder.join("docker/registry/v2")
    }

    /// Starts a registry in the network namespace of a process.
    pub(crate) fn serve(&self, pid: u32) -> Result<Server> {
        let file = self.folder.join("config.yml");
        let folder = self.folder.display();
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {folder}}}}}\nhttp: {{addr: \"{ADDRESS}\"}}\n"
        );
        fs::write(&file, text)?;
        let log = fs::File::create(self.folder.join(format!("log-{pid}")))?;
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{pid}/ns/net")).args(["docker-registry", "serve"]).arg(&file);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut server = Server(command.spawn().context("cannot start docker-registry: ./x setup")?);
        server.wait_until_ready(pid)?;
        Ok(server)
    }
}

/// A running registry; it ends with the value.
#[derive(Debug)]
pub(crate) struct Server(Child);

impl Server {
    fn wait_until_ready(&mut self, pid: u32) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !listens(pid)? {
            if let Some(status) = self.0.try_wait()? {
                bail!("the registry has ended: {status}");
            }
            if Instant::now() > deadline {
                bail!("the registry does not listen");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

/// Whether somebody listens at the registry's port in a process's network namespace.
fn listens(pid: u32) -> Result<bool> {
    if pid == std::process::id() {
        return Ok(TcpStream::connect(ADDRESS).is_ok());
    }
    // 0A is LISTEN, 1388 the port.
    let listeners = fs::read_to_string(format!("/proc/{pid}/net/tcp"))?;
    Ok(listeners.lines().any(|line| line.contains(":1388 00000000:0000 0A")))
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
