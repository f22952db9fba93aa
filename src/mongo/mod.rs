//! Stage 2, the database: the only folder that names the driver.
//!
//! - [`connect`] opens the deployment and says in one sentence what is wrong with it, if anything is; `diagnosis` asks servers that the
//!   driver does not choose.
//! - `schema` makes or detects the collection, `retention` lets go of what is old; `document` and `id` turn BSON into messages and back,
//!   `broken` says what is wrong with documents that are none, and `sample` looks for such at the start.
//! - `inserter` is the only writer of messages, by the batches of `group_commit`, dated by `dates`; `presence` has a collection of its own.
//! - `history`, `search` and `rooms` read the collection, by the scans of `scan`; `changes` reads the change stream.

mod broken;
mod changes;
mod connect;
mod dates;
mod diagnosis;
mod document;
mod group_commit;
mod history;
mod id;
mod inserter;
mod pipeline;
mod place;
mod presence;
mod retention;
mod rooms;
mod sample;
mod scan;
mod schema;
mod scope;
mod search;
mod stretch;

pub use broken::Broken;
pub use changes::{Batch, Changes, OpenError, StreamError};
pub use connect::{ConnectError, Deployment, Target, connect};
pub use document::Invalid;
pub use group_commit::{Committer, QueueLimits};
pub use history::{History, Page, ReadError};
pub use inserter::{InsertError, Inserted, Inserter};
pub use pipeline::ResumePoint;
pub use place::HistoryPlace;
pub use presence::{Others, PRESENCE_SECS_MAX, PresenceError, PresenceStore, ROOMS_PER_SERVER_MAX, ServerReport};
pub use retention::Sweeper;
pub use rooms::{RoomSummary, RoomsPage, RoomsPlace};
pub use schema::{SchemaError, SchemaOptions};
pub use scope::Scope;
pub use stretch::{Stretch, StretchError, StretchLimits};

use mongodb::bson::Timestamp;

use crate::cursor::ClusterTime;

fn cluster_time(timestamp: Timestamp) -> ClusterTime {
    ClusterTime { seconds: timestamp.time, increment: timestamp.increment }
}

fn timestamp(time: ClusterTime) -> Timestamp {
    Timestamp { time: time.seconds, increment: time.increment }
}
