//! What the numbers are told apart by: words from fixed lists, never what users write.

use prometheus_client::encoding::EncodeLabelSet;

/// Labels of `corriente_inserts_total`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct InsertLabels {
    /// `rest`, `form`, `websocket` or `socket.io`.
    pub source: &'static str,
    /// `created`, `repeated`, `conflict`, `refused`, `read only`, `overloaded` or `unknown`.
    pub outcome: &'static str,
}

/// Labels of `corriente_events_total`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct EventLabels {
    /// `insert`, `edit`, `delete` or `invalid`.
    pub kind: &'static str,
}

/// A reason, from a fixed list.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabels {
    /// A word or a sentence of ours.
    pub reason: &'static str,
}

/// Labels of `corriente_replays_total`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabels {
    /// `filled`, `lost`, `too much`, `slow`, `busy` or `failed`.
    pub outcome: &'static str,
}

/// Every transport by which sessions are counted.
pub const TRANSPORTS: [&str; 4] = ["websocket", "sse", "long-poll", "socket.io"];

/// Labels of `corriente_connections`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TransportLabels {
    /// One of [`TRANSPORTS`].
    pub transport: &'static str,
}

/// Labels of `corriente_http_request_duration_seconds`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RouteLabels {
    /// The pattern that the path matched, such as `/api/messages/:id`, or `none`.
    pub route: String,
    /// `GET`, `HEAD`, `POST`, `OPTIONS` or `other`.
    pub method: &'static str,
}

/// Labels of `corriente_http_requests_total`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// As in [`RouteLabels`].
    pub route: String,
    /// As in [`RouteLabels`].
    pub method: &'static str,
    /// The HTTP status; 101 for a WebSocket.
    pub status: u16,
}
