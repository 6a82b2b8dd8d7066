//! One engine for one test.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use engine::model::{
    AttachRequest, AttachTarget, ContainerSpec, CreateRequest, ImageProgress, ImportRequest, NetworkMode,
    RemoveOptions, WaitCondition,
};
use engine::{Engine, EngineOptions, NetworkOptions, StorageBackend};
use tokio::sync::mpsc;

/// Longer than any step of a test takes on a busy machine.
const TIME_LIMIT: Duration = Duration::from_secs(60);
/// Namespaces of mounts and networks.
const NEW_NAMESPACES: u64 = 0x0002_0000 | 0x4000_0000;

/// An engine, its folders, and the image `busybox`.
pub(crate) struct World {
    pub(crate) engine: Slot,
    pub(crate) folder: PathBuf,
    name: String,
    _folder: tempfile::TempDir,
}

/// The engine of a test; empty only while it is opened again.
pub(crate) struct Slot(Option<Engine>);

impl std::ops::Deref for Slot {
    type Target = Engine;
    fn deref(&self) -> &Engine {
        self.0.as_ref().expect("the engine is open")
    }
}

/// Runs a test in namespaces of its own: the thread that runs it, and every thread and process that comes from there.
pub(crate) fn with_world(test: impl AsyncFnOnce(&mut World)) {
    linux::namespace::unshare(NEW_NAMESPACES).expect("the tests run as root");
    rustix::mount::mount_change(
        "/",
        rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC,
    )
    .expect("root may change propagation in its own namespace");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut world = World::new().await;
        tokio::time::timeout(TIME_LIMIT, test(&mut world)).await.expect("the test takes too long");
        world.finish().await;
    });
    runtime.shutdown_timeout(Duration::from_secs(5));
}

impl World {
    async fn new() -> World {
        let folder = tempfile::tempdir().unwrap();
        // Short: interface names are made from it.
        let name = format!("e{:05}", std::process::id() % 100_000);
        let engine = Engine::open(options(folder.path(), &name)).await.unwrap();
        let world = World { engine: Slot(Some(engine)), folder: folder.path().to_owned(), name, _folder: folder };
        world.import().await;
        world
    }

    /// The same engine as after a restart of the daemon.
    pub(crate) async fn reopen(&mut self) {
        self.engine.shutdown().await;
        self.engine.0 = None;
        for _ in 0..500 {
            // The old engine's tasks let go of it when they have seen that it closes.
            tokio::time::sleep(Duration::from_millis(10)).await;
            match Engine::open(options(&self.folder, &self.name)).await {
                Ok(engine) => {
                    self.engine.0 = Some(engine);
                    return;
                }
                Err(error) => assert!(error.to_string().contains("another engine"), "{error}"),
            }
        }
        panic!("the old engine does not end");
    }

    async fn import(&self) {
        let (sink, input) = mpsc::channel(4);
        let request = ImportRequest {
            reference: Some("busybox:latest".into()),
            changes: vec!["CMD [\"sh\"]".into(), "ENV FROM=image".into()],
            ..ImportRequest::default()
        };
        let mut progress = self.engine.import_image(input, request).unwrap();
        sink.send(Ok(Bytes::from(harness::busybox_tar()))).await.unwrap();
        drop(sink);
        assert!(matches!(progress.recv().await.unwrap().unwrap(), ImageProgress::Imported(_)));
    }

    async fn finish(self) {
        let all = engine::model::ContainerQuery { all: true, ..Default::default() };
        for view in self.engine.containers(&all).unwrap() {
            let options = RemoveOptions { force: true, volumes: true, link: false };
            self.engine.remove_container(view.id.as_str(), options).await.unwrap();
        }
        self.engine.shutdown().await;
        assert_eq!(std::fs::read_dir(self.folder.join("root/containers")).unwrap().count(), 0, "containers are left");
    }

    /// Creates a container.
    pub(crate) async fn create(&self, spec: ContainerSpec) -> String {
        let request = CreateRequest { name: None, platform: None, spec };
        self.engine.create_container(request).await.unwrap().id.to_string()
    }

    /// Creates and starts a container.
    pub(crate) async fn start(&self, spec: ContainerSpec) -> String {
        let id = self.create(spec).await;
        self.engine.start_container(&id).await.unwrap();
        id
    }

    /// Runs a container to its end: its exit code and what it wrote to both outputs.
    pub(crate) async fn run(&self, spec: ContainerSpec) -> (i32, String) {
        let id = self.create(spec).await;
        let output = self.attach(&id, b"").await;
        let waiter = self.engine.wait_container(&id, WaitCondition::NextExit).await.unwrap();
        self.engine.start_container(&id).await.unwrap();
        let result = waiter.result().await.unwrap();
        let text = read_frames(output).await;
        self.engine.remove_container(&id, RemoveOptions::default()).await.unwrap();
        (result.exit_code, text)
    }

    /// Attaches to all streams; `input` is what came behind the request.
    pub(crate) async fn attach(&self, id: &str, input: &'static [u8]) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let request =
            AttachRequest { stdin: true, stdout: true, stderr: true, stream: true, ..AttachRequest::default() };
        let pending = self.engine.attach_container(id, request).await.unwrap();
        pending
            .connect(AttachTarget { socket: OwnedFd::from(theirs), early_input: Bytes::from_static(input) })
            .await
            .unwrap();
        ours
    }

    /// Waits until a container has ended.
    pub(crate) async fn wait(&self, id: &str) -> i32 {
        self.engine.wait_container(id, WaitCondition::NotRunning).await.unwrap().result().await.unwrap().exit_code
    }
}

/// A container that runs this in a shell, without a network.
pub(crate) fn shell(script: &str) -> ContainerSpec {
    ContainerSpec {
        image: "busybox".into(),
        command: Some(["sh", "-c", script].map(str::to_owned).to_vec()),
        network: NetworkMode::None,
        ..ContainerSpec::default()
    }
}

/// Everything until the end, out of Docker's frames.
pub(crate) async fn read_frames(mut socket: UnixStream) -> String {
    let read = tokio::task::spawn_blocking(move || {
        socket.set_read_timeout(Some(TIME_LIMIT)).unwrap();
        let mut bytes = Vec::new();
        socket.read_to_end(&mut bytes).unwrap();
        bytes
    });
    let (mut bytes, mut text) = (read.await.unwrap(), String::new());
    while bytes.len() >= 8 {
        let length = u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]) as usize;
        text.push_str(std::str::from_utf8(&bytes[8..8 + length]).unwrap());
        bytes.drain(..8 + length);
    }
    text
}

fn options(folder: &Path, name: &str) -> EngineOptions {
    EngineOptions {
        root: folder.join("root"),
        run: folder.join("run"),
        name: name.into(),
        storage: StorageBackend::Automatic,
        network: NetworkOptions::default(),
        settings: engine::Settings::default(),
        defaults: engine::ContainerDefaults::default(),
        userns_remap: None,
        runtime: runtime_program(),
        space: engine::SpaceOptions::default(),
        image_policy: None,
        cdi_spec_dirs: Vec::new(),
    }
}

/// From `CONEX_PROGRAMS`, or where cargo and `./x build` put it.
fn runtime_program() -> PathBuf {
    let target = std::env::current_exe().unwrap().ancestors().nth(3).unwrap().to_owned();
    let folders = [
        std::env::var_os("CONEX_PROGRAMS").map(PathBuf::from),
        Some(target.join("conex/debug")),
        Some(target.join("debug")),
    ];
    let candidates = folders.into_iter().flatten().map(|folder| folder.join("conex-runtime"));
    candidates.into_iter().find(|path| path.is_file()).expect("conex-runtime is built: ./x build")
}
