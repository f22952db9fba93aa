//! What happened after a cursor, as one answer: for scripts and audits, which ask again and again.
//!
//! The answer is written as it is read, like an event stream: however much was missed, a client that does not read holds
//! one chunk of it.

use std::{io::Write, ops::ControlFlow, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{
    Stream,
    stream::{self, StreamExt},
};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, sleep_until},
};
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::{Sessions, pieces::CHUNK_BYTES, subscription::Subscription};
use crate::telemetry::Counted;

/// The most changes of one answer. Its cursor then goes on from there.
pub(super) const CHANGES_MAX: usize = 10_000;
/// The longest that a client can wait for a change, in seconds.
pub(super) const WAIT_SECS_MAX: u64 = 30;
/// How long it may take to find in MongoDB what the log no longer holds, in seconds. It is answered, or refused with a
/// `reset`, before that.
const FINDING_SECS_MAX: u64 = 25;

/// One answer.
pub(super) struct Changes {
    subscription: Subscription,
    sessions: Arc<Sessions>,
    chunk: Vec<u8>,
    told: usize,
    stage: Stage,
    _counted: Counted,
    _place: OwnedSemaphorePermit,
    _task: TaskTrackerToken,
}

#[derive(PartialEq, Eq)]
enum Stage {
    /// There may be more to tell.
    Telling,
    /// All is told but the cursor.
    Closing,
    Ended,
}

impl Changes {
    pub(super) fn new(subscription: Subscription, sessions: Arc<Sessions>, place: OwnedSemaphorePermit) -> Self {
        let _counted = Counted::connection(&sessions.metrics, "long-poll");
        let _task = sessions.tasks.token();
        let chunk = br#"{"changes":["#.to_vec();
        Self { subscription, sessions, chunk, told: 0, stage: Stage::Telling, _counted, _place: place, _task }
    }

    /// Tells nothing but the place in the stream.
    pub(super) fn none(mut self) -> Self {
        self.stage = Stage::Closing;
        self
    }

    /// Waits until there is something to tell, for as long as the client wants to and the server does not stop.
    pub(super) async fn first(mut self, wait: Duration) -> Self {
        let began = Instant::now();
        let sessions = self.sessions.clone();
        // To the front door a connection that waits looks silent.
        let live_until = began + wait.min(sessions.silence_max / 2);
        // What is being looked for in MongoDB is waited for also by those who would not wait for what is to come: they would
        // else ask for it again, and for ever.
        let found_until = began + Duration::from_secs(FINDING_SECS_MAX).min(sessions.silence_max / 2);
        let mut dismissal = Box::pin(sessions.dismissal());
        loop {
            self.fill();
            if self.told > 0 {
                return self;
            }
            let until = if self.subscription.is_live() { live_until } else { found_until.max(live_until) };
            let goes_on = tokio::select! {
                biased;
                turned = self.subscription.turn() => turned,
                () = sleep_until(until) => false,
                () = &mut dismissal => false,
            };
            if !goes_on {
                return self.none();
            }
        }
    }

    /// The chunks, for a body.
    pub(super) fn into_chunks(self) -> impl Stream<Item = Result<Bytes, std::io::Error>> + Send {
        let chunks = stream::unfold(self, |mut changes| async move { Some((changes.next_chunk()?, changes)) });
        chunks.map(Ok)
    }

    /// Never waits: what is there is told.
    fn next_chunk(&mut self) -> Option<Bytes> {
        if self.stage == Stage::Ended {
            return None;
        }
        if self.chunk.len() < CHUNK_BYTES {
            self.fill();
        }
        if self.stage == Stage::Closing {
            // A vector takes all that is written to it.
            let _ = write!(self.chunk, r#"],"cursor":"{}"}}"#, self.subscription.position());
            self.stage = Stage::Ended;
        }
        Some(std::mem::take(&mut self.chunk).into())
    }

    /// Puts into the chunk what there is, and finds out whether that is all.
    fn fill(&mut self) {
        if self.stage != Stage::Telling {
            return;
        }
        let (chunk, told) = (&mut self.chunk, &mut self.told);
        let mut is_all = true;
        self.subscription.tell(&self.sessions.metrics, |piece| {
            if piece.kind == "ready" {
                return ControlFlow::Continue(());
            }
            if *told > 0 {
                chunk.push(b',');
            }
            chunk.extend_from_slice(piece.json);
            *told += 1;
            // At the bound of changes that is all for this answer; when the chunk is full, all for this chunk.
            is_all = chunk.len() < CHUNK_BYTES || *told >= CHANGES_MAX;
            if is_all && *told < CHANGES_MAX { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        if *told > 0 && is_all {
            self.stage = Stage::Closing;
        }
    }
}
