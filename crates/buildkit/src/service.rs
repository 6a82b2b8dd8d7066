//! Which call means what.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use engine::Engine;
use engine::model::{BuildCacheView, BuildPruneRequest};
use oci::image::Platform as ImagePlatform;

use crate::grpc::{Call, Code, Outgoing, Reply, Service, Status};
use crate::jobs::{Job, Jobs};
use crate::messages::control::{
    BuildHistoryEvent, BuildHistoryRequest, DiskUsageRequest, DiskUsageResponse, InfoResponse, ListWorkersResponse,
    Platform, PruneRequest, SolveRequest, SolveResponse, StatusRequest, UpdateBuildHistoryRequest, UsageRecord,
    Version, WorkerRecord,
};
use crate::messages::{Empty, Timestamp};
use crate::session::Sessions;
use crate::{export, gateway, solve};

/// The label that says that images are kept with their manifests, so that archives can be exported.
const SNAPSHOTTER_LABEL: &str = "org.mobyproject.buildkit.worker.snapshotter";

/// Everything that a connection's calls work with.
#[derive(Debug)]
pub(crate) struct Control {
    pub(crate) engine: Engine,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) jobs: Jobs,
}

impl Service for Control {
    fn call(self: Arc<Self>, call: Call) -> Pin<Box<dyn Future<Output = Reply> + Send>> {
        Box::pin(async move { self.answer(call).await })
    }
}

impl Control {
    async fn answer(self: Arc<Self>, mut call: Call) -> Reply {
        let path = call.path.clone();
        if let Some(method) = path.strip_prefix("/moby.buildkit.v1.frontend.LLBBridge/") {
            return gateway::answer(self, method, call).await;
        }
        match path.as_str() {
            "/moby.buildkit.v1.Control/Solve" => Reply::of(self.solve(&mut call).await),
            "/moby.buildkit.v1.Control/Status" => self.status(&mut call).await,
            "/moby.buildkit.v1.Control/ListWorkers" => {
                Reply::of(Ok(ListWorkersResponse { record: vec![self.worker()] }))
            }
            "/moby.buildkit.v1.Control/Info" => Reply::of(Ok(InfoResponse { version: Some(version()) })),
            "/moby.buildkit.v1.Control/DiskUsage" => Reply::of(self.disk_usage(&mut call).await),
            "/moby.buildkit.v1.Control/Prune" => self.prune(&mut call).await,
            "/moby.buildkit.v1.Control/ListenBuildHistory" => self.history(&mut call).await,
            "/moby.buildkit.v1.Control/UpdateBuildHistory" => Reply::of(self.update_history(&mut call).await),
            "/grpc.health.v1.Health/Check" => Reply::of(Ok(Healthy { status: 1 })),
            other => Reply::of(Err::<Empty, _>(unimplemented(other))),
        }
    }

    pub(crate) fn worker(&self) -> WorkerRecord {
        let host = ImagePlatform::host();
        let platform = Platform { architecture: host.architecture, os: host.os, variant: host.variant };
        let labels = [
            (SNAPSHOTTER_LABEL, "conex"),
            ("org.mobyproject.buildkit.worker.executor", "conex"),
            ("org.mobyproject.buildkit.worker.network", "host"),
        ];
        WorkerRecord {
            id: self.engine.id().to_owned(),
            labels: labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            platforms: vec![platform],
            version: Some(version()),
        }
    }

    async fn solve(&self, call: &mut Call) -> Result<SolveResponse, Status> {
        let mut request: SolveRequest = call.message().await?;
        if request.definition.as_ref().is_some_and(|definition| !definition.def.is_empty()) {
            return Err(unimplemented("solving a definition of operations"));
        }
        if request.exporters.is_empty() && !request.exporter_deprecated.is_empty() {
            let (kind, attrs) = (request.exporter_deprecated.clone(), request.exporter_attrs_deprecated.clone());
            request.exporters.push(crate::messages::control::Exporter { kind, attrs });
        }
        export::check(&request.exporters, request.cache.as_ref())?;
        let listed = self.jobs.begin(&request)?;
        let solved = self.solve_job(&listed.job, &request).await;
        let error = solved.as_ref().err();
        listed.job.note(|record| match (&solved, error) {
            (Ok(response), _) => record.exporter_response.clone_from(&response.exporter_response),
            (_, Some(status)) => {
                let message = status.message.clone();
                record.error = Some(crate::messages::control::RpcStatus { code: status.code as i32, message });
            }
            _ => {}
        });
        solved
    }

    async fn solve_job(&self, job: &Arc<Job>, request: &SolveRequest) -> Result<SolveResponse, Status> {
        let names = if request.frontend.is_empty() {
            job.given_back().await?
        } else {
            let caches = request.cache.as_ref().map(|cache| cache.imports.as_slice()).unwrap_or_default();
            let options = (&request.frontend, &request.frontend_attrs, &request.frontend_inputs);
            solve::run(self, job, options, caches).await?.references.into_iter().map(|(_, name)| name).collect()
        };
        let mut names: Vec<String> = names;
        // Names end with the number of their platform, in the order in which they were asked for.
        names.sort_by_key(|name| name.rsplit('-').next().and_then(|number| number.parse::<u32>().ok()));
        let results: Vec<_> = names.iter().filter_map(|name| job.result(name)).collect();
        if results.is_empty() {
            return Ok(SolveResponse::default());
        }
        let session = match request.session.as_str() {
            "" => None,
            id => Some(self.sessions.find(id).await?),
        };
        let (engine, job, exporters) = (self.engine.clone(), Arc::clone(job), request.exporters.clone());
        let cache = request.cache.clone();
        let exported = tokio::task::spawn_blocking(move || {
            let mut told = export::export(&engine, &job, (&exporters, session.clone()), &results)?;
            crate::caches::export(&engine, &job, (cache.as_ref(), session.as_ref()), &results, &mut told)?;
            Ok::<_, Status>(told)
        });
        let exporter_response = exported.await.map_err(|error| Status::new(Code::Internal, error.to_string()))??;
        Ok(SolveResponse { exporter_response })
    }

    async fn status(&self, call: &mut Call) -> Reply {
        let job = match call.message::<StatusRequest>().await {
            Ok(request) => self.jobs.find(&request.reference).await,
            Err(status) => Err(status),
        };
        let job = match job {
            Ok(job) => job,
            Err(status) => return Reply::of(Err::<Empty, _>(status)),
        };
        let (sender, outgoing) = Outgoing::answer();
        tokio::spawn(async move {
            let (mut length, mut next) = (job.story.subscribe(), 0);
            loop {
                let now = *length.borrow_and_update();
                while next < now.responses {
                    let Some(response) = job.story.response(next) else { break };
                    next += 1;
                    if !sender.send(&*response).await {
                        return;
                    }
                }
                if now.ended {
                    return sender.end(Ok(())).await;
                }
                tokio::select! {
                    changed = length.changed() => if changed.is_err() { return },
                    () = sender.closed() => return,
                }
            }
        });
        Reply::Stream(outgoing)
    }

    async fn disk_usage(&self, call: &mut Call) -> Result<DiskUsageResponse, Status> {
        let request: DiskUsageRequest = call.message().await?;
        let engine = self.engine.clone();
        let all = tokio::task::spawn_blocking(move || engine.build_cache()).await;
        let all = all.map_err(|error| Status::new(Code::Internal, error.to_string()))?;
        let wanted = filters(&request.filter)?;
        let fits = |view: &BuildCacheView| wanted.iter().all(|filter| filter.fits(view));
        Ok(DiskUsageResponse { record: all.iter().filter(|view| fits(view)).map(record).collect() })
    }

    async fn prune(&self, call: &mut Call) -> Reply {
        let pruned = match call.message::<PruneRequest>().await {
            Ok(request) => self.pruned(request).await,
            Err(status) => Err(status),
        };
        let records = match pruned {
            Ok(records) => records,
            Err(status) => return Reply::of(Err::<Empty, _>(status)),
        };
        let (sender, outgoing) = Outgoing::answer();
        tokio::spawn(async move {
            for record in records {
                if !sender.send(&record).await {
                    return;
                }
            }
            sender.end(Ok(())).await;
        });
        Reply::Stream(outgoing)
    }

    async fn pruned(&self, request: PruneRequest) -> Result<Vec<UsageRecord>, Status> {
        if request.min_free_space > 0 {
            return Err(unimplemented("pruning to a minimum of free space"));
        }
        let bytes = [request.reserved_space, request.max_used_space].into_iter().filter(|bytes| *bytes > 0).min();
        let mut wanted = BuildPruneRequest {
            all: request.all,
            unused_for_s: Some(Duration::from_nanos(request.keep_duration.max(0) as u64).as_secs() as i64)
                .filter(|seconds| *seconds > 0),
            keep_bytes: bytes.map(|bytes| bytes as u64),
            ..BuildPruneRequest::default()
        };
        for filter in filters(&request.filter)? {
            match filter {
                Filter::Id(id) => wanted.ids.push(id),
                Filter::Kind(kind) => wanted.kind = Some(kind),
                Filter::Other { .. } => return Err(unimplemented("pruning by this filter")),
            }
        }
        let report = self.engine.prune_build_cache(wanted).await.map_err(|error| Status::unknown(error.message()))?;
        Ok(report.removed.iter().map(record).collect())
    }

    async fn history(&self, call: &mut Call) -> Reply {
        let request = match call.message::<BuildHistoryRequest>().await {
            Ok(request) => request,
            Err(status) => return Reply::of(Err::<Empty, _>(status)),
        };
        let (over, running) = self.jobs.history();
        let events = over.into_iter().map(|record| (1, record)).chain(running.into_iter().map(|record| (0, record)));
        let fits = |kind: i32, reference: &str| {
            (!request.active_only || kind == 0) && (request.reference.is_empty() || request.reference == reference)
        };
        let events: Vec<BuildHistoryEvent> = events
            .filter(|(kind, record)| fits(*kind, &record.reference))
            .map(|(kind, record)| BuildHistoryEvent { kind, record: Some(record) })
            .collect();
        let (sender, outgoing) = Outgoing::answer();
        tokio::spawn(async move {
            for event in events {
                if !sender.send(&event).await {
                    return;
                }
            }
            if !request.early_exit {
                // Nothing more is told of builds that come; the client reads until it leaves.
                sender.closed().await;
            }
            sender.end(Ok(())).await;
        });
        Reply::Stream(outgoing)
    }

    async fn update_history(&self, call: &mut Call) -> Result<Empty, Status> {
        let request: UpdateBuildHistoryRequest = call.message().await?;
        if request.pinned {
            return Err(unimplemented("pinning a build's record"));
        }
        if request.delete {
            self.jobs.forget(&request.reference);
        }
        Ok(Empty {})
    }
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Healthy {
    #[prost(int32, tag = "1")]
    status: i32,
}

fn unimplemented(what: &str) -> Status {
    Status::new(Code::Unimplemented, format!("{what} is not supported by this engine"))
}

fn version() -> Version {
    Version { package: "conex".to_owned(), version: format!("v{}", env!("CARGO_PKG_VERSION")), revision: String::new() }
}

fn record(view: &BuildCacheView) -> UsageRecord {
    UsageRecord {
        id: view.id.hex(),
        mutable: view.kind == engine::model::BuildCacheKind::Mount,
        in_use: false,
        size: view.size_bytes as i64,
        created_at: Some(Timestamp::of(view.created)),
        last_used_at: Some(Timestamp::of(view.last_used)),
        usage_count: view.uses as i64,
        description: view.description.clone(),
        record_type: view.kind.name().to_owned(),
        shared: view.in_use,
    }
}

/// A filter of the cache, as containerd writes them.
enum Filter {
    Id(String),
    Kind(String),
    Other { field: String, value: String },
}

impl Filter {
    fn fits(&self, view: &BuildCacheView) -> bool {
        match self {
            Filter::Id(id) => view.id.hex().starts_with(id.as_str()),
            Filter::Kind(kind) => view.kind.name() == kind,
            Filter::Other { field, value } => match field.as_str() {
                "description" => view.description.contains(value.as_str()),
                "shared" => view.in_use.to_string() == *value,
                "inuse" | "mutable" | "immutable" => true,
                _ => false,
            },
        }
    }
}

fn filters(texts: &[String]) -> Result<Vec<Filter>, Status> {
    let mut filters = Vec::new();
    for part in texts.iter().flat_map(|text| text.split(',')).filter(|part| !part.is_empty()) {
        let (field, value) = part.split_once("==").or_else(|| part.split_once("~=")).unwrap_or((part, "true"));
        let value = value.trim_matches('"').to_owned();
        filters.push(match field {
            "id" => Filter::Id(value),
            "type" => Filter::Kind(value),
            "description" | "shared" | "inuse" | "mutable" | "immutable" => {
                Filter::Other { field: field.to_owned(), value }
            }
            other => return Err(Status::new(Code::InvalidArgument, format!("invalid filter {other:?}"))),
        });
    }
    Ok(filters)
}
