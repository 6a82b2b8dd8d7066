//! `moby.buildkit.v1.frontend`

use std::collections::HashMap;

use super::control::{CacheOptionsEntry, Definition, Platform, RpcStatus, SourceOp, WorkerRecord};

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PongResponse {
    #[prost(message, repeated, tag = "1")]
    pub(crate) frontend_caps: Vec<Cap>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) llb_caps: Vec<Cap>,
    #[prost(message, repeated, tag = "3")]
    pub(crate) workers: Vec<WorkerRecord>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Cap {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(bool, tag = "2")]
    pub(crate) enabled: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SolveRequest {
    #[prost(message, optional, tag = "1")]
    pub(crate) definition: Option<Definition>,
    #[prost(string, tag = "2")]
    pub(crate) frontend: String,
    #[prost(map = "string, string", tag = "3")]
    pub(crate) frontend_opt: HashMap<String, String>,
    #[prost(message, repeated, tag = "12")]
    pub(crate) cache_imports: Vec<CacheOptionsEntry>,
    #[prost(map = "string, message", tag = "13")]
    pub(crate) frontend_inputs: HashMap<String, Definition>,
    #[prost(bool, tag = "14")]
    pub(crate) evaluate: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SolveResponse {
    #[prost(string, tag = "1")]
    pub(crate) reference: String,
    #[prost(message, optional, tag = "3")]
    pub(crate) result: Option<GatewayResult>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct GatewayResult {
    #[prost(oneof = "ResultRef", tags = "1, 2, 3, 4")]
    pub(crate) result: Option<ResultRef>,
    #[prost(map = "string, bytes", tag = "10")]
    pub(crate) metadata: HashMap<String, Vec<u8>>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum ResultRef {
    #[prost(string, tag = "1")]
    OldRef(String),
    #[prost(message, tag = "2")]
    OldRefs(OldRefs),
    #[prost(message, tag = "3")]
    Ref(Ref),
    #[prost(message, tag = "4")]
    Refs(Refs),
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct OldRefs {
    #[prost(map = "string, string", tag = "1")]
    pub(crate) refs: HashMap<String, String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Refs {
    #[prost(map = "string, message", tag = "1")]
    pub(crate) refs: HashMap<String, Ref>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Ref {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) def: Option<Definition>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ReturnRequest {
    #[prost(message, optional, tag = "1")]
    pub(crate) result: Option<GatewayResult>,
    #[prost(message, optional, tag = "2")]
    pub(crate) error: Option<RpcStatus>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ResolveImageConfigRequest {
    #[prost(string, tag = "1")]
    pub(crate) reference: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) platform: Option<Platform>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ResolveImageConfigResponse {
    #[prost(string, tag = "1")]
    pub(crate) digest: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) config: Vec<u8>,
    #[prost(string, tag = "3")]
    pub(crate) reference: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ResolveSourceMetaRequest {
    #[prost(message, optional, tag = "1")]
    pub(crate) source: Option<SourceOp>,
    #[prost(message, optional, tag = "2")]
    pub(crate) platform: Option<Platform>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ResolveSourceMetaResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) source: Option<SourceOp>,
    #[prost(message, optional, tag = "2")]
    pub(crate) image: Option<ImageMeta>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ImageMeta {
    #[prost(string, tag = "1")]
    pub(crate) digest: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) config: Vec<u8>,
}

/// Asks for a file, a directory or what a file is.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct FileRequest {
    #[prost(string, tag = "1")]
    pub(crate) reference: String,
    #[prost(string, tag = "2")]
    pub(crate) path: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ReadFileRequest {
    #[prost(string, tag = "1")]
    pub(crate) reference: String,
    #[prost(string, tag = "2")]
    pub(crate) path: String,
    #[prost(message, optional, tag = "3")]
    pub(crate) range: Option<FileRange>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct FileRange {
    #[prost(int64, tag = "1")]
    pub(crate) offset: i64,
    #[prost(int64, tag = "2")]
    pub(crate) length: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ReadFileResponse {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) data: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct StatFileResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) stat: Option<super::session::Stat>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct WarnRequest {
    #[prost(int64, tag = "2")]
    pub(crate) level: i64,
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) short: Vec<u8>,
}
