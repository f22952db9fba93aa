//! Server-sent events: one client's subscription as the body of an answer.
//!
//! The body is pulled. When the connection has room it asks for the next chunk, which is made then out of what waits in
//! the log; a client that does not read holds at most one chunk, and its place. Nothing runs in between.
//!
//! ```text
//! retry: 2781
//!
//! id: 97bf3ca9-6b063e3900000003-d87b4be1
//! event: created
//! data: {"type":"created","cursor":"97bf3ca9-6b063e3900000003-d87b4be1","topics":[…],"message":{…}}
//! ```

use std::{io::Write, ops::ControlFlow, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{
    FutureExt, Stream,
    future::BoxFuture,
    stream::{self, StreamExt},
};
use tokio::{
    sync::{OwnedSemaphorePermit, watch},
    time::{Instant, Sleep, sleep_until},
};
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::{
    Sessions,
    frame::ServerFrame,
    pieces::{CHUNK_BYTES, Piece},
    subscription::Subscription,
};
use crate::{telemetry::Counted, watcher::Told};

/// How often an idle client gets a comment, at the latest: this is what the protocol's authors advise for old proxies.
const COMMENT_EVERY_MAX: Duration = Duration::from_secs(15);
/// After how many milliseconds a client comes back. A time of its own for each, so that they do not all come at once.
const RETRY_MILLIS: std::ops::Range<u32> = 2_000..4_000;

/// The body of one answer.
pub(super) struct EventStream {
    subscription: Subscription,
    sessions: Arc<Sessions>,
    told: watch::Receiver<Told>,
    /// Resolves when this stream must end. Boxed, and kept from one chunk to the next: it draws its moment by lot.
    dismissal: BoxFuture<'static, ()>,
    clock: Pin<Box<Sleep>>,
    comment_at: Instant,
    position_at: Instant,
    stage: Stage,
    _counted: Counted,
    _place: OwnedSemaphorePermit,
    /// The server waits for it when it stops, as for the tasks of other transports.
    _task: TaskTrackerToken,
}

#[derive(PartialEq, Eq)]
enum Stage {
    Beginning,
    Live,
    Ended,
}

impl EventStream {
    pub(super) fn new(subscription: Subscription, sessions: Arc<Sessions>, place: OwnedSemaphorePermit) -> Self {
        let now = Instant::now();
        let (comment_at, position_at) = (now + comment_every(&sessions), now + sessions.keep_alive);
        let dismissal = {
            let sessions = sessions.clone();
            async move { sessions.dismissal().await }.boxed()
        };
        Self {
            subscription,
            told: sessions.status.told(),
            dismissal,
            clock: Box::pin(sleep_until(comment_at.min(position_at))),
            comment_at,
            position_at,
            stage: Stage::Beginning,
            _counted: Counted::connection(&sessions.metrics, "sse"),
            _place: place,
            _task: sessions.tasks.token(),
            sessions,
        }
    }

    /// The chunks, for a body.
    pub(super) fn into_chunks(self) -> impl Stream<Item = Result<Bytes, std::io::Error>> + Send {
        stream::unfold(self, |mut events| async move { Some((events.next_chunk().await?, events)) }).map(Ok)
    }

    /// What goes out next; `None` at the end.
    async fn next_chunk(&mut self) -> Option<Bytes> {
        match self.stage {
            Stage::Ended => return None,
            Stage::Beginning => {
                // Before there is anything to tell: the client so knows at once that it is connected.
                self.stage = Stage::Live;
                return Some(format!("retry: {}\n\n", rand::random_range(RETRY_MILLIS)).into());
            }
            Stage::Live => {}
        }
        loop {
            // Also a client that always has something to read hears of the stop.
            if self.sessions.stop.is_cancelled() && self.dismissal.as_mut().now_or_never().is_some() {
                return Some(self.last_position());
            }
            let mut chunk = Vec::new();
            self.subscription.tell(&self.sessions.metrics, |piece| {
                put_event(&mut chunk, &piece);
                if chunk.len() < CHUNK_BYTES { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
            if !chunk.is_empty() {
                return Some(chunk.into());
            }
            tokio::select! {
                turned = self.subscription.turn() => {
                    if !turned {
                        // Nothing will ever come here any more; another connection may find a server that works.
                        self.stage = Stage::Ended;
                        return None;
                    }
                }
                () = &mut self.dismissal => return Some(self.last_position()),
                Ok(()) = self.told.changed() => return Some(self.position()),
                () = &mut self.clock => return Some(self.sign_of_life()),
            }
        }
    }

    fn sign_of_life(&mut self) -> Bytes {
        let now = Instant::now();
        let is_position = self.position_at <= now;
        if is_position {
            self.position_at = now + self.sessions.keep_alive;
        }
        self.comment_at = now + comment_every(&self.sessions);
        self.clock.as_mut().reset(self.comment_at.min(self.position_at));
        if is_position { self.position() } else { Bytes::from_static(b":\n\n") }
    }

    /// The place to come back with, and the end.
    fn last_position(&mut self) -> Bytes {
        self.stage = Stage::Ended;
        self.position()
    }

    fn position(&mut self) -> Bytes {
        let cursor = self.subscription.position();
        let json = ServerFrame::Position { cursor, stream: self.told.borrow().as_str() }.json();
        let mut event = Vec::new();
        put_event(&mut event, &Piece { kind: "position", cursor, json: &json });
        event.into()
    }
}

/// An idle connection must not look like a silent one to our own front door.
fn comment_every(sessions: &Sessions) -> Duration {
    COMMENT_EVERY_MAX.min(sessions.silence_max / 2)
}

/// Writes one event. Its id is a cursor, its name one of ours and its data JSON on one line, so none of them holds a line
/// end, and nothing is to be escaped.
fn put_event(into: &mut Vec<u8>, piece: &Piece<'_>) {
    into.reserve_exact(if into.is_empty() { piece.json.len() + 80 } else { 0 });
    // A vector takes all that is written to it.
    let _ = write!(into, "id: {}\nevent: {}\ndata: ", piece.cursor, piece.kind);
    into.extend_from_slice(piece.json);
    into.extend_from_slice(b"\n\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cursor::{ClusterTime, Cursor};

    #[test]
    fn an_event_is_three_lines_and_an_empty_one() {
        let cursor = Cursor::boundary(1, ClusterTime { seconds: 2, increment: 3 });
        let json = ServerFrame::Ready { cursor }.json();
        let mut chunk = Vec::new();
        put_event(&mut chunk, &Piece { kind: "ready", cursor, json: &json });
        let text = String::from_utf8(chunk).unwrap();
        assert_eq!(
            text,
            "id: 00000001-0000000200000003-00000000\nevent: ready\n\
             data: {\"type\":\"ready\",\"cursor\":\"00000001-0000000200000003-00000000\"}\n\n"
        );
    }
}
