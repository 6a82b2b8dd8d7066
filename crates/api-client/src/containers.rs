//! Containers.

use std::os::fd::BorrowedFd;

use docker_api::container::{
    Change, CommitResponse, CreateRequest, CreateResponse, Inspect, PathStat, PruneReport, Summary, TopResponse,
    UpdateRequest, UpdateResponse, WaitResponse, Why,
};
use docker_api::stats::Stats;
use docker_api::{Filters, QueryBuilder, encode_path_segment, json};

use crate::body::Body;
use crate::client::{Client, Request, Upload};
use crate::error::{Error, Result};
use crate::hijack::Hijacked;
use crate::lines::Lines;

/// Which containers to list.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs, reason = "the fields are the parameters of the endpoint")]
pub struct ListOptions {
    pub all: bool,
    pub size: bool,
    pub limit: Option<i64>,
    pub filters: Filters,
}

/// Which part of a log to read.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs, reason = "the fields are the parameters of the endpoint")]
pub struct LogsOptions {
    pub stdout: bool,
    pub stderr: bool,
    pub follow: bool,
    pub timestamps: bool,
    pub details: bool,
    /// Seconds, or seconds and nanoseconds; empty for all.
    pub since: String,
    pub until: String,
    /// A number or `all`.
    pub tail: String,
}

/// What to connect to.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs, reason = "the fields are the parameters of the endpoint")]
pub struct AttachOptions {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub stream: bool,
    pub logs: bool,
    pub detach_keys: String,
}

/// How to make an image of a container.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs, reason = "the fields are the parameters of the endpoint")]
pub struct CommitOptions {
    pub repository: String,
    pub tag: String,
    pub author: String,
    pub message: String,
    pub changes: Vec<String>,
    pub pause: bool,
}

/// How to stop.
#[derive(Debug, Clone, Default)]
pub struct StopOptions {
    /// The signal; the container's own where empty.
    pub signal: String,
    /// Seconds until it is killed; -1 waits for ever.
    pub timeout: Option<i64>,
}

/// How to remove.
#[derive(Debug, Clone, Copy, Default)]
#[allow(missing_docs, reason = "the fields are the parameters of the endpoint")]
pub struct RemoveOptions {
    pub volumes: bool,
    pub links: bool,
    pub force: bool,
}

/// What to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitCondition {
    /// Answers at once where the container does not run.
    NotRunning,
    /// The next exit, also of one that has not started.
    NextExit,
    /// Its removal.
    Removed,
}

impl WaitCondition {
    fn name(self) -> &'static str {
        match self {
            Self::NotRunning => "not-running",
            Self::NextExit => "next-exit",
            Self::Removed => "removed",
        }
    }
}

/// A wait that the server has begun.
#[derive(Debug)]
pub struct Wait(Body);

impl Wait {
    /// Blocks until it is over.
    pub fn finish(self) -> Result<WaitResponse> {
        const MAX: u64 = 1 << 20;
        let bytes = self.0.read_all(MAX).map_err(Error::io("waiting for the container"))?;
        Ok(json::from_slice(&bytes)?)
    }

    /// The socket that becomes readable when it is over; `None` when it is over already.
    pub fn socket(&self) -> Option<BorrowedFd<'_>> {
        if self.0.has_buffered() { None } else { self.0.socket() }
    }
}

fn at(name: &str, action: &str) -> String {
    format!("/containers/{}{action}", encode_path_segment(name))
}

impl Client {
    /// Why a container is as it is; of Conex alone.
    pub fn container_why(&self, container: &str) -> Result<Why> {
        self.document(Request::get(at(container, "/why")))
    }

    /// Creates a container; no name lets the server choose one, `platform` is empty or `os/arch`.
    pub fn container_create(&self, name: &str, platform: &str, request: &CreateRequest) -> Result<CreateResponse> {
        let query = QueryBuilder::new().with_some("name", name).with_some("platform", platform).build();
        self.document(Request::post(format!("/containers/create{query}")).json(request)?)
    }

    /// Lists containers.
    pub fn container_list(&self, options: &ListOptions) -> Result<Vec<Summary>> {
        let limit = options.limit.map(|limit| limit.to_string()).unwrap_or_default();
        let query = QueryBuilder::new()
            .with_flag("all", options.all)
            .with_flag("size", options.size)
            .with_some("limit", &limit)
            .with_filters(&options.filters)
            .build();
        self.document(Request::get(format!("/containers/json{query}")))
    }

    /// Everything about a container.
    pub fn container_inspect(&self, name: &str) -> Result<Inspect> {
        self.document(Request::get(at(name, "/json")))
    }

    /// Everything about it, with the sizes of its files where `size` is set.
    pub fn container_inspect_sized(&self, name: &str, size: bool) -> Result<Inspect> {
        let query = QueryBuilder::new().with_flag("size", size).build();
        self.document(Request::get(at(name, &format!("/json{query}"))))
    }

    /// The same, as the server wrote it.
    pub fn container_inspect_raw(&self, name: &str, size: bool) -> Result<serde_json::Value> {
        let query = QueryBuilder::new().with_flag("size", size).build();
        self.document(Request::get(at(name, &format!("/json{query}"))))
    }

    /// Makes an image of it and returns the image's id.
    pub fn container_commit(&self, name: &str, options: &CommitOptions) -> Result<CommitResponse> {
        let query = QueryBuilder::new()
            .with("container", name)
            .with_some("repo", &options.repository)
            .with_some("tag", &options.tag)
            .with_some("author", &options.author)
            .with_some("comment", &options.message)
            .with("pause", if options.pause { "1" } else { "0" });
        let query = options.changes.iter().fold(query, |query, change| query.with("changes", change)).build();
        self.document(Request::post(format!("/commit{query}")))
    }

    /// What is at one of its paths.
    pub fn container_path(&self, name: &str, path: &str) -> Result<PathStat> {
        let query = QueryBuilder::new().with("path", path).build();
        let answer = self.send(Request::new("HEAD", at(name, &format!("/archive{query}"))))?;
        path_stat(answer.head.header("x-docker-container-path-stat"))
    }

    /// A file or directory of it as a tar.
    pub fn container_copy_from(&self, name: &str, path: &str) -> Result<(PathStat, Body)> {
        let query = QueryBuilder::new().with("path", path).build();
        let answer = self.send(Request::get(at(name, &format!("/archive{query}"))))?;
        Ok((path_stat(answer.head.header("x-docker-container-path-stat"))?, answer.body))
    }

    /// Puts the files of a tar into one of its directories; with `copy_owner` they become its user's.
    pub fn container_copy_into(&self, name: &str, path: &str, copy_owner: bool, tar: Upload) -> Result<()> {
        let query = QueryBuilder::new()
            .with("path", path)
            .with("noOverwriteDirNonDir", "true")
            .with_flag("copyUIDGID", copy_owner)
            .build();
        let request = Request::new("PUT", at(name, &format!("/archive{query}")));
        self.upload(request.header("Content-Type", "application/x-tar"), tar).map(drop)
    }

    /// Starts it.
    pub fn container_start(&self, name: &str) -> Result<()> {
        self.command(Request::post(at(name, "/start")))
    }

    /// Stops it.
    pub fn container_stop(&self, name: &str, options: &StopOptions) -> Result<()> {
        self.command(Request::post(at(name, &format!("/stop{}", stop_query(options)))))
    }

    /// Stops and starts it.
    pub fn container_restart(&self, name: &str, options: &StopOptions) -> Result<()> {
        self.command(Request::post(at(name, &format!("/restart{}", stop_query(options)))))
    }

    /// Sends a signal, by name or number.
    pub fn container_kill(&self, name: &str, signal: &str) -> Result<()> {
        let query = QueryBuilder::new().with_some("signal", signal).build();
        self.command(Request::post(at(name, &format!("/kill{query}"))))
    }

    /// Stops its processes where they are.
    pub fn container_pause(&self, name: &str) -> Result<()> {
        self.command(Request::post(at(name, "/pause")))
    }

    /// Lets them go on.
    pub fn container_unpause(&self, name: &str) -> Result<()> {
        self.command(Request::post(at(name, "/unpause")))
    }

    /// Gives it another name.
    pub fn container_rename(&self, name: &str, new_name: &str) -> Result<()> {
        let query = QueryBuilder::new().with("name", new_name).build();
        self.command(Request::post(at(name, &format!("/rename{query}"))))
    }

    /// Removes it.
    pub fn container_remove(&self, name: &str, options: RemoveOptions) -> Result<()> {
        let query = QueryBuilder::new()
            .with_flag("v", options.volumes)
            .with_flag("link", options.links)
            .with_flag("force", options.force)
            .build();
        self.command(Request::delete(at(name, &query)))
    }

    /// Changes its limits.
    pub fn container_update(&self, name: &str, request: &UpdateRequest) -> Result<UpdateResponse> {
        self.document(Request::post(at(name, "/update")).json(request)?)
    }

    /// Begins to wait: when this returns the server waits already, so that nothing is missed.
    pub fn container_wait(&self, name: &str, condition: WaitCondition) -> Result<Wait> {
        let query = QueryBuilder::new().with("condition", condition.name()).build();
        self.send(Request::post(at(name, &format!("/wait{query}")))).map(|answer| Wait(answer.body))
    }

    /// Connects to its streams.
    pub fn container_attach(&self, name: &str, options: &AttachOptions) -> Result<Hijacked> {
        let query = QueryBuilder::new()
            .with_some("detachKeys", &options.detach_keys)
            .with_flag("logs", options.logs)
            .with_flag("stream", options.stream)
            .with_flag("stdin", options.stdin)
            .with_flag("stdout", options.stdout)
            .with_flag("stderr", options.stderr)
            .build();
        self.hijack(Request::post(at(name, &format!("/attach{query}"))))
    }

    /// Tells it the size of its terminal.
    pub fn container_resize(&self, name: &str, height: u16, width: u16) -> Result<()> {
        let query = QueryBuilder::new().with("h", &height.to_string()).with("w", &width.to_string()).build();
        self.command(Request::post(at(name, &format!("/resize{query}"))))
    }

    /// Its log: frames without a terminal, raw bytes with one.
    pub fn container_logs(&self, name: &str, options: &LogsOptions) -> Result<Body> {
        let query = QueryBuilder::new()
            .with_flag("stdout", options.stdout)
            .with_flag("stderr", options.stderr)
            .with_flag("follow", options.follow)
            .with_flag("timestamps", options.timestamps)
            .with_flag("details", options.details)
            .with_some("since", &options.since)
            .with_some("until", &options.until)
            .with_some("tail", &options.tail)
            .build();
        self.send(Request::get(at(name, &format!("/logs{query}")))).map(|answer| answer.body)
    }

    /// What it uses, once a second.
    pub fn container_stats(&self, name: &str) -> Result<Lines<Stats>> {
        self.send(Request::get(at(name, "/stats?stream=1"))).map(|answer| Lines::new(answer.body))
    }

    /// What it uses now; without `one_shot` the server takes a second sample first, for the rates.
    pub fn container_stats_once(&self, name: &str, one_shot: bool) -> Result<Stats> {
        let query = QueryBuilder::new().with("stream", "0").with_flag("one-shot", one_shot).build();
        self.document(Request::get(at(name, &format!("/stats{query}"))))
    }

    /// Its processes, with the arguments for `ps`.
    pub fn container_top(&self, name: &str, ps_args: &str) -> Result<TopResponse> {
        let query = QueryBuilder::new().with_some("ps_args", ps_args).build();
        self.document(Request::get(at(name, &format!("/top{query}"))))
    }

    /// What differs from its image.
    pub fn container_changes(&self, name: &str) -> Result<Vec<Change>> {
        self.document::<Option<_>>(Request::get(at(name, "/changes"))).map(Option::unwrap_or_default)
    }

    /// Its file system as a tar.
    pub fn container_export(&self, name: &str) -> Result<Body> {
        self.send(Request::get(at(name, "/export"))).map(|answer| answer.body)
    }

    /// Removes all that do not run.
    pub fn container_prune(&self, filters: &Filters) -> Result<PruneReport> {
        let query = QueryBuilder::new().with_filters(filters).build();
        self.document(Request::post(format!("/containers/prune{query}")))
    }
}

fn stop_query(options: &StopOptions) -> String {
    let timeout = options.timeout.map(|seconds| seconds.to_string()).unwrap_or_default();
    QueryBuilder::new().with_some("signal", &options.signal).with_some("t", &timeout).build()
}

fn path_stat(header: Option<&str>) -> Result<PathStat> {
    header.and_then(PathStat::from_header).ok_or(Error::Malformed("the answer does not describe the path"))
}
