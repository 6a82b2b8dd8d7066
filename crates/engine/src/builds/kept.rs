//! Results that a client asks for in parts once its build is over: files, archives, caches.

use std::io::Write as _;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use oci::image::{ANNOTATION_REF_NAME, ImageLayout, Index, media_type};
use tokio::sync::{mpsc, oneshot};

use super::BuildResult;
use super::caches::LayoutFolder;
use super::scratch::Scratch;
use super::trees::{BuiltTree, TreeOptions, write_trees};
use crate::containers::Pieces;
use crate::engine::Engine;
use crate::images::{ByteStream, PIECE_QUEUE};
use crate::model::build_cache::{BlobStore, CachePlace, CacheTarget};
use crate::model::{EngineError, ErrorKind};

/// How long a result waits for its client.
const KEPT: Duration = Duration::from_secs(60);

/// Results by the names that clients were told.
pub(super) type Kept = std::collections::BTreeMap<String, (Instant, Arc<[Arc<BuildResult>]>)>;

/// What a client wants of a result; always a tar.
#[derive(Debug, Clone)]
pub enum BuildOutput {
    /// The files; of several platforms each in a folder of its own.
    Files(TreeOptions),
    /// The image in OCI's layout.
    Oci,
    /// The image as `docker save` writes it.
    Docker,
    /// A cache in OCI's layout.
    Cache(CacheTarget),
}

impl Engine {
    /// Keeps a result for its client; gives the name by which it is asked for.
    pub(super) fn keep_build(&self, results: Vec<Arc<BuildResult>>, runtime: &tokio::runtime::Handle) -> String {
        let name = crate::random_name::<16>();
        let kept = |engine: &Engine| Arc::clone(&engine.inner.builds.kept);
        let all = kept(self);
        all.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), (Instant::now(), results.into()));
        let forgotten = name.clone();
        runtime.spawn(async move {
            loop {
                tokio::time::sleep(KEPT).await;
                let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
                let is_wanted = |(used, results): &(Instant, Arc<[Arc<BuildResult>]>)| {
                    used.elapsed() < KEPT || Arc::strong_count(results) > 1
                };
                if !all.get(&forgotten).is_some_and(is_wanted) {
                    all.remove(&forgotten);
                    return;
                }
            }
        });
        name
    }

    /// A part of a result that was kept. What keeps it from being written at all is an error here, and not one of the stream.
    pub async fn build_output(
        &self,
        name: &str,
        output: BuildOutput,
        names: Vec<String>,
    ) -> Result<ByteStream, EngineError> {
        let results = {
            let mut kept = self.inner.builds.kept.lock().unwrap_or_else(PoisonError::into_inner);
            let found = kept.get_mut(name);
            let (used, results) =
                found.ok_or_else(|| EngineError::not_found(format!("no result {name} of a build is kept")))?;
            *used = Instant::now();
            Arc::clone(results)
        };
        let is_set = results.len() > 1 || results.iter().any(|result| result.is_attested());
        if matches!(output, BuildOutput::Docker) && is_set {
            let words = "docker exporter does not currently support exporting manifest lists";
            return Err(EngineError::new(ErrorKind::InvalidParameter, words));
        }
        let (sink, stream) = mpsc::channel(PIECE_QUEUE);
        let (prepared, is_prepared) = oneshot::channel();
        let engine = self.clone();
        tokio::task::spawn_blocking(move || {
            let trees = match &output {
                BuildOutput::Files(options) => engine.built_trees(&results, options),
                BuildOutput::Oci | BuildOutput::Docker | BuildOutput::Cache(_) => Ok(Vec::new()),
            };
            let (trees, outcome) = match trees {
                Ok(trees) => (Some(trees), Ok(())),
                Err(error) => (None, Err(error)),
            };
            // Who has asked may have left.
            let _ = prepared.send(outcome);
            let Some(trees) = trees else { return };
            let mut pieces = Pieces::new(sink.clone());
            let written = engine.write_output((&results, &trees), &output, &names, &mut pieces);
            let flushed = pieces.flush().map_err(|error| EngineError::system("cannot write what was built", error));
            if let Err(error) = written.and(flushed) {
                let _ = sink.blocking_send(Err(error));
            }
        });
        let lost = |_| EngineError::new(ErrorKind::System, "nobody writes what was built");
        is_prepared.await.map_err(lost)??;
        Ok(stream)
    }

    fn write_output(
        &self,
        (results, trees): (&[Arc<BuildResult>], &[BuiltTree]),
        output: &BuildOutput,
        names: &[String],
        pieces: &mut Pieces,
    ) -> Result<(), EngineError> {
        let failed = |error: std::io::Error| EngineError::system("cannot write what was built", error);
        match (output, results) {
            (BuildOutput::Files(_), _) => write_trees(trees, pieces).map_err(failed),
            (BuildOutput::Oci | BuildOutput::Docker, results) => self.save_build(results, names, pieces),
            (BuildOutput::Cache(target), results) => {
                // Swept with the contexts.
                let folder = Scratch::create(&self.inner.builds.dir.join("contexts"), "cache-");
                let folder = folder.map_err(|error| EngineError::system("cannot write the cache", error))?;
                self.write_cache(results, target, folder.path())?;
                let root = std::fs::File::open(folder.path()).map_err(failed)?;
                use std::os::fd::AsFd;
                archive::export::contents(root.as_fd(), &archive::ids::Ids::default(), pieces).map_err(failed)
            }
        }
    }

    /// Writes a cache as a folder in OCI's layout.
    fn write_cache(
        &self,
        results: &[Arc<BuildResult>],
        target: &CacheTarget,
        folder: &std::path::Path,
    ) -> Result<(), EngineError> {
        let failed = |error: std::io::Error| EngineError::system("cannot write the cache", error);
        let path = folder.to_owned();
        let open = move |_: &str| Ok(Arc::new(LayoutFolder::new(&path)) as Arc<dyn BlobStore>);
        let mut manifests = Vec::new();
        if let Some(mut manifest) = self.export_build_cache(results, target, &open, &|_| {})? {
            if let CachePlace::Folder(tag) = &target.place {
                manifest.annotations.insert(ANNOTATION_REF_NAME.to_owned(), tag.clone());
            }
            manifests.push(manifest);
        }
        let index = Index::new(media_type::OCI_INDEX, manifests);
        let layout = ImageLayout::default();
        let json = |text: serde_json::Result<Vec<u8>>| text.map_err(|error| failed(error.into()));
        std::fs::write(folder.join("index.json"), json(serde_json::to_vec(&index))?).map_err(failed)?;
        std::fs::write(folder.join("oci-layout"), json(serde_json::to_vec(&layout))?).map_err(failed)
    }
}
