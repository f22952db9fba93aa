//! What the server says of itself: numbers and log lines. Metric names and labels are part of the interface; no label
//! holds what users write.
//!
//! - `metrics` is every number, as `/metrics` shows it; `labels` what they are told apart by.
//! - `deliveries` counts what goes out, where a tenth of a microsecond matters.
//! - `busy_rooms` counts by room. Rooms are named by users, so this is for the status page, and never a metric.
//! - `logs` is where log lines go.

mod busy_rooms;
mod deliveries;
mod labels;
mod logs;
mod metrics;

pub use busy_rooms::BusyRooms;
pub use deliveries::{Delays, Deliveries, millis_since};
pub use labels::{
    EventLabels, InsertLabels, OutcomeLabels, ReasonLabels, RequestLabels, RouteLabels, TRANSPORTS, TransportLabels,
};
pub use logs::{DEFAULT_LOG, LogFilter, LogFormat, Repeats, Seldom, start_logging};
pub use metrics::{Counted, Metrics, show_from_start};
