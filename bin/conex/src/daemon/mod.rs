//! The engine in the foreground: options, limits, sockets, signals.

mod config_file;
mod options;

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use api_server::{Address, AuditLog, Face, Front, Listener, ServerOptions, SocketGroup, TcpSecurity};
use engine::Engine;
use options::{Asked, Options};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, reload};

/// Threads for blocking work. Streams to slow clients hold one each, so there are more than any burst of starts needs.
const BLOCKING_THREADS: usize = 256;
/// Idle threads end after this: each keeps a stack and a heap of its own.
const THREAD_IDLE: Duration = Duration::from_secs(2);
/// The deepest work on such a thread walks directory trees.
const THREAD_STACK: usize = 1 << 20;
/// Each client, container and log follower takes descriptors.
const WANTED_DESCRIPTORS: u64 = 1 << 20;

/// Why the daemon does not run.
#[derive(Debug, thiserror::Error)]
enum DaemonError {
    #[error(transparent)]
    Options(#[from] options::OptionsError),
    #[error("the engine must run as root")]
    NotRoot,
    #[error("cannot start the async runtime")]
    Runtime(#[source] io::Error),
    #[error("cannot watch for signals")]
    Signals(#[source] io::Error),
    #[error(transparent)]
    Open(#[from] engine::OpenError),
    #[error(transparent)]
    Listen(#[from] api_server::ListenError),
    #[error("cannot open the audit log {0}")]
    Audit(std::path::PathBuf, #[source] io::Error),
    #[error("cannot use the TLS files")]
    Tls(#[from] tls::TlsError),
}

/// Runs until SIGTERM or SIGINT.
pub(crate) fn main(words: &[String]) -> ExitCode {
    match try_main(words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("conex daemon: {}", engine::model::chain(&error));
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "answers go to standard output")]
fn try_main(words: &[String]) -> Result<(), DaemonError> {
    let options = match options::parse(words)? {
        Asked::Run(options) => *options,
        Asked::Valid => {
            println!("configuration OK");
            return Ok(());
        }
        Asked::Help => {
            print!("{}", options::HELP);
            return Ok(());
        }
    };
    if !rustix::process::geteuid().is_root() {
        return Err(DaemonError::NotRoot);
    }
    let level = log_to_stderr(&options);
    prepare_process();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_keep_alive(THREAD_IDLE)
        .thread_stack_size(THREAD_STACK)
        .build()
        .map_err(DaemonError::Runtime)?;
    let result = runtime.block_on(run(options, words, &level));
    // Streams to clients that do not read must not hold up the end.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

/// How much is logged, which may change.
type LogLevel = reload::Handle<LevelFilter, Registry>;

fn log_to_stderr(options: &Options) -> LogLevel {
    let (filter, level) = reload::Layer::new(LevelFilter::from_level(options.log_level));
    let lines = tracing_subscriber::fmt::layer().with_target(false).with_writer(io::stderr);
    tracing_subscriber::registry().with(filter).with(lines).init();
    level
}

/// Reads the options again, and takes those that may change; the others are told.
fn reload_file(engine: &Engine, before: &mut Options, words: &[String], level: &LogLevel) {
    tracing::info!("reloading the configuration from {}", before.file.path.display());
    let options = match options::parse(words) {
        Ok(Asked::Run(options)) => *options,
        Ok(Asked::Help | Asked::Valid) => return,
        Err(error) => {
            tracing::error!("the configuration stays as it was: {}", engine::model::chain(&error));
            return;
        }
    };
    let debug = (options.log_level >= tracing::Level::DEBUG).to_string();
    if let Err(error) = engine.reload(options.engine.settings.clone(), &[("debug", debug)]) {
        tracing::error!("the configuration stays as it was: {error}");
        return;
    }
    if let Err(error) = level.modify(|filter| *filter = LevelFilter::from_level(options.log_level)) {
        tracing::error!("the log level stays as it was: {error}");
    }
    let waiting = before.file.unheeded(&options.file);
    if !waiting.is_empty() {
        tracing::warn!("these take effect at the next start: {}", waiting.join(", "));
    }
}

/// What the process must not inherit from whoever started it.
fn prepare_process() {
    // Files for containers get exactly the modes that are asked for.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let _ = rustix::process::chdir("/");
    let limit = getrlimit(Resource::Nofile);
    // Without CAP_SYS_RESOURCE the hard limit stays; the soft one can always follow it.
    let raised = Rlimit {
        current: Some(WANTED_DESCRIPTORS),
        maximum: Some(limit.maximum.map_or(WANTED_DESCRIPTORS, |most| most.max(WANTED_DESCRIPTORS))),
    };
    if setrlimit(Resource::Nofile, raised).is_err() {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
}

async fn run(mut options: Options, words: &[String], level: &LogLevel) -> Result<(), DaemonError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(DaemonError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(DaemonError::Signals)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(DaemonError::Signals)?;
    let engine = Engine::open(options.engine.clone()).await?;
    let fronts = listen(&options).await?;
    for address in &options.addresses {
        tracing::info!("listening on {address}");
    }
    let reloading = engine.clone();
    let audit_log = options.audit_log.clone();
    let stopped = async {
        loop {
            tokio::select! {
                _ = terminate.recv() => return,
                _ = interrupt.recv() => return,
                _ = hangup.recv() => reload_file(&reloading, &mut options, words, level),
            }
        }
    };
    let audit = audit_log
        .as_ref()
        .map(|path| AuditLog::open(path).map(Arc::new).map_err(|error| DaemonError::Audit(path.clone(), error)));
    let serving = ServerOptions { audit: audit.transpose()?, ..ServerOptions::default() };
    api_server::serve(engine.clone(), fronts, serving, stopped).await;
    tracing::info!("stopping; containers run on");
    engine.shutdown().await;
    Ok(())
}

async fn listen(options: &Options) -> Result<Vec<Front>, DaemonError> {
    let mut fronts = Vec::new();
    for address in &options.addresses {
        let listener = match address {
            Address::Unix(path) => Listener::unix(path, &options.group).await?,
            Address::Tcp(address) => Listener::tcp(address, security(options)?).await?,
        };
        fronts.push(Front { listener, face: Face::Api });
    }
    for socket in &options.sockets {
        let group = socket.group.clone().map_or_else(|| options.group.clone(), SocketGroup::Named);
        let listener = Listener::unix(&socket.path, &group).await?;
        tracing::info!("listening with fewer rights on {}", socket.path.display());
        fronts.push(Front { listener, face: Face::Scoped(Arc::new(socket.scope.clone())) });
    }
    if let Some(address) = &options.metrics {
        // Numbers only, and so in the clear, as Docker's daemon serves them.
        let listener = Listener::tcp(address, TcpSecurity::Insecure).await?;
        tracing::info!("metrics on {address}");
        fronts.push(Front { listener, face: Face::Metrics });
    }
    Ok(fronts)
}

fn security(options: &Options) -> Result<TcpSecurity, DaemonError> {
    match (&options.tls.authority, &options.tls.certificate, &options.tls.key) {
        (Some(authority), Some(certificate), Some(key)) => {
            let files = tls::ServerFiles { certificate, key, client_authority: Some(authority) };
            Ok(TcpSecurity::Tls(tls::Acceptor::load(files)?))
        }
        _ if options.insecure => Ok(TcpSecurity::Insecure),
        _ => Err(options::OptionsError::Unprotected.into()),
    }
}
