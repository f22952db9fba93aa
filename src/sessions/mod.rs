//! Stage 4b, one per client: a place in the log, and a transport that writes what comes after it.
//!
//! `subscription` is the same for every transport: what is followed, what was read, when to say `ready`, `position`
//! and `reset`. A transport turns its outputs into bytes and its client's frames into calls.

mod catalogue;
mod changes;
mod close;
mod event_stream;
mod frame;
mod handshake;
mod live_api;
mod pieces;
mod schema;
mod socket;
mod socket_io;
mod subscription;
mod websocket;
mod wire;

pub use catalogue::{Carriers, CloseEntry, Field, FrameEntry, Speaker, closes, frames};
pub use frame::{ClientFrame, FrameError};
pub use handshake::accept;
pub use live_api::LiveApi;
pub use schema::{frame_schemas, schema_name};
pub use socket::{ReadError, Socket, WriteError};
pub use socket_io::{EngineClocks, EngineIo, serve_socket_io, socket_io_builder};
pub use subscription::{Interest, Output, Sources, Subscription, Told, TopicsError};
pub use websocket::serve_websocket;
pub use wire::{Decoder, Incoming, MESSAGE_BYTES_MAX, Outgoing, Violation};

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::sleep,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use poem::Request;

use crate::{
    listener::{ClientNetwork, Writer},
    message::{Draft, NewMessage},
    mongo::Inserter,
    problem::Problem,
    rates::Rates,
    telemetry::Metrics,
    watcher::WatcherStatus,
};

/// How much longer the sessions take to end for each one of them: 200 a second.
const DRAIN_PER_SESSION: Duration = Duration::from_millis(5);

/// What sessions work with. Cheap to clone.
#[derive(Clone)]
pub struct Sessions {
    /// Where they read.
    pub sources: Sources,
    /// What they tell of the stream.
    pub status: WatcherStatus,
    /// Where they insert.
    pub inserter: Inserter,
    /// What bounds what their clients send.
    pub rates: Rates,
    /// Where they are counted.
    pub metrics: Metrics,
    /// Over how long the sessions end when the server stops, at most.
    pub drain_max: Duration,
    /// One for each session that there may be, over all transports: over HTTP/2, or with polling, a session is not a
    /// connection.
    pub places: Arc<Semaphore>,
    /// How often an idle client gets its position, over every transport, and a ping besides where there are pings: at least
    /// twice within [`Self::silence_max`].
    pub keep_alive: Duration,
    /// After how long without a sign of life a client is gone or stuck. The front door closes a connection then that is
    /// still HTTP.
    pub silence_max: Duration,
    /// Cancelled when the server stops.
    pub stop: CancellationToken,
    /// Holds their tasks, so that the server can wait for them: they outlive their requests.
    pub tasks: TaskTracker,
    /// Cancelled when one of those that must not end before the server stops has ended.
    pub failed: CancellationToken,
}

/// Who is at the other end of a session, as long as that lasts.
#[derive(Debug, Clone)]
pub(super) struct Client {
    pub(super) network: ClientNetwork,
    writer: Writer,
}

impl Client {
    pub(super) fn of_request(request: &Request) -> Self {
        Self { network: ClientNetwork::of_request(request), writer: Writer::of_request(request) }
    }

    /// Whether a later request of the same session is made by the same person, where people sign in.
    pub(super) fn is_same_writer(&self, request: &Request) -> bool {
        self.writer == Writer::of_request(request)
    }

    /// The message that this client wants to send.
    ///
    /// # Errors
    /// When it breaks a rule, or it is not known who writes: what to say to the client.
    pub(super) fn message(&self, draft: Draft) -> Result<NewMessage, Problem> {
        NewMessage::parse(self.writer.sign(draft)?).map_err(Problem::invalid)
    }
}

impl Sessions {
    /// Whether [`Self::dismissal`] may resolve. Unlike that it takes no lock.
    pub(super) fn is_stopping(&self) -> bool {
        // Closed before `stop` is cancelled, so whoever is woken by that sees it.
        self.tasks.is_closed()
    }

    /// Lets one more session in, which holds its place as long as it lasts.
    ///
    /// # Errors
    /// When there is none left: a 503.
    pub(super) fn admit(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let place = self.places.clone().try_acquire_owned();
        place.map_err(|_| Problem::unavailable("there are too many sessions; close some, or try again in a moment"))
    }

    /// Resolves when this session must end because the server stops: each at a time of its own, so that the clients of
    /// a busy server do not all come back in one moment. A server with few clients does not keep them waiting.
    pub(super) async fn dismissal(&self) {
        self.stop.cancelled().await;
        let spread = drain_of(self.tasks.len(), self.drain_max);
        // Boxed: every session waits for the line above, and few for this one.
        Box::pin(sleep(spread.mul_f64(rand::random()))).await;
    }
}

/// Over how long so many sessions end.
fn drain_of(sessions: usize, drain_max: Duration) -> Duration {
    drain_max.min(DRAIN_PER_SESSION.saturating_mul(u32::try_from(sessions).unwrap_or(u32::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_sessions_there_are_the_longer_they_take_to_end_up_to_the_bound() {
        let drain_max = Duration::from_secs(10);
        assert_eq!(drain_of(0, drain_max), Duration::ZERO);
        assert_eq!(drain_of(200, drain_max), Duration::from_secs(1));
        assert_eq!(drain_of(50_000, drain_max), drain_max);
        assert_eq!(drain_of(usize::MAX, drain_max), drain_max);
    }
}
