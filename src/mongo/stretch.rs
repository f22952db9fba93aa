//! A stretch of the stream that lies in the past: for clients that come back from before the log, and for a log that
//! begins before its server.

use std::time::Duration;

use tokio::time::timeout;

use super::{
    changes::{Changes, OpenError, StreamError},
    cluster_time,
    connect::Deployment,
    pipeline::ResumePoint,
};
use crate::{
    cursor::{ClusterTime, Cursor},
    event::Event,
};

/// How long MongoDB holds an answer open when the stretch is at its end, in milliseconds.
const AWAIT_MILLIS: u64 = 50;
/// What an event takes in memory beside its content, in bytes, roughly.
const EVENT_BYTES: usize = 512;

/// Everything that happened between two places.
#[derive(Debug)]
pub struct Stretch {
    /// It is complete after this place.
    pub start: Cursor,
    /// In stream order. A document that breaks the contract has no event, unless it is gone for those who were shown it.
    pub events: Vec<(Cursor, Option<Event>)>,
    /// It is complete up to this place.
    pub end: Cursor,
}

/// How much a stretch may be.
#[derive(Debug, Clone, Copy)]
pub struct StretchLimits {
    /// The most events.
    pub events_max: usize,
    /// The most memory, in bytes.
    pub bytes_max: usize,
    /// The longest that reading it may take.
    pub patience: Duration,
}

/// Why a stretch can not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StretchError {
    /// MongoDB's oplog does not reach back so far, or the collection is another one since.
    Lost,
    /// It holds more than the limits allow.
    TooMuch,
    /// It took longer than the limits allow.
    Slow,
    /// MongoDB could not be asked.
    Failed,
}

impl StretchError {
    /// All of them.
    pub const ALL: [StretchError; 4] =
        [StretchError::Lost, StretchError::TooMuch, StretchError::Slow, StretchError::Failed];

    /// The reason as one word, for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            StretchError::Lost => "lost",
            StretchError::TooMuch => "too much",
            StretchError::Slow => "slow",
            StretchError::Failed => "failed",
        }
    }
}

impl Deployment {
    /// Reads everything from the time `from` on until the stream has come to `until`.
    ///
    /// # Errors
    /// See [`StretchError`]. What was read until then is of no use: it does not meet `until`.
    pub async fn changes_between(
        &self,
        from: ClusterTime,
        until: Cursor,
        limits: StretchLimits,
    ) -> Result<Stretch, StretchError> {
        let reading = async {
            let trusted_images = self.trusts_images();
            match self.read_between(from, until, limits).await {
                // It met an edit whose image has expired, or never was. From now on nobody asks for images.
                Err(StretchError::Failed) if trusted_images && !self.trusts_images() => {
                    self.read_between(from, until, limits).await
                }
                read => read,
            }
        };
        timeout(limits.patience, reading).await.unwrap_or(Err(StretchError::Slow))
    }

    async fn read_between(
        &self,
        from: ClusterTime,
        until: Cursor,
        limits: StretchLimits,
    ) -> Result<Stretch, StretchError> {
        let await_time = Duration::from_millis(AWAIT_MILLIS);
        let from_then = ResumePoint::At(from);
        let opened = Changes::open_awaiting(&self.for_replays(), &from_then, await_time, limits.patience).await;
        let mut changes = opened.map_err(|error| match error {
            OpenError::Lost(_) | OpenError::Refused(_) => StretchError::Lost,
            OpenError::Slow(_) => StretchError::Slow,
            OpenError::Failed(_) => StretchError::Failed,
        })?;
        if changes.start().epoch != until.epoch {
            return Err(StretchError::Lost);
        }
        let mut stretch = Stretch {
            start: Cursor::boundary(until.epoch, from),
            events: Vec::new(),
            end: Cursor::boundary(until.epoch, from),
        };
        let mut bytes = 0;
        // The place of a stream that was just opened lies one beyond the newest change, where this one does not come.
        let newest = self.newest_time().map_or(until.time, |newest| cluster_time(newest.time));
        let last = until.time.min(newest);
        // An empty answer is not the end: the node that answers may lag behind. The bound is the patience of the caller.
        while changes.position().time < last || !changes.is_read() {
            let batch = changes.next().await.map_err(|error| match error {
                StreamError::Broken(_) => StretchError::Failed,
                _ => StretchError::Lost,
            })?;
            for (cursor, event) in batch.events {
                let event = event.map_or_else(|broken| broken.gone.map(|gone| *gone), Some);
                let after = event.as_ref().and_then(|event| event.after.as_ref());
                bytes += EVENT_BYTES + after.map_or(0, |message| message.content.len());
                stretch.events.push((cursor, event));
            }
            if stretch.events.len() > limits.events_max || bytes > limits.bytes_max {
                return Err(StretchError::TooMuch);
            }
        }
        if changes.position().time >= from {
            stretch.end = changes.position();
        }
        Ok(stretch)
    }
}
