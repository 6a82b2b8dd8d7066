//! BuildKit's messages, as far as they are used: fields that are not here are skipped when they come. The numbers are the protocol's.
#![allow(missing_docs, reason = "the messages are BuildKit's, under BuildKit's names")]

pub(crate) mod content;
pub(crate) mod control;
pub(crate) mod gateway;
pub(crate) mod session;

/// A point in time.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct Timestamp {
    #[prost(int64, tag = "1")]
    pub(crate) seconds: i64,
    #[prost(int32, tag = "2")]
    pub(crate) nanos: i32,
}

impl Timestamp {
    pub(crate) fn now() -> Timestamp {
        Timestamp::of(jiff::Timestamp::now())
    }

    pub(crate) fn of(time: jiff::Timestamp) -> Timestamp {
        Timestamp { seconds: time.as_second(), nanos: time.subsec_nanosecond() }
    }
}

/// A message without fields that are used.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct Empty {}

/// Bytes of a stream.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct BytesMessage {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) data: bytes::Bytes,
}
