//! What lies before the log, read once more from MongoDB: for clients that come back after a long absence, or that
//! were too slow.
//!
//! A replay is a stretch of the stream in a small log of its own, which meets the live log without a gap. There are
//! few at once, each is bounded in events, memory and time, and clients with nearby cursors share one. Every stream
//! makes MongoDB scan its oplog, so this is dear, and a client that can not have one is told to reload instead.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared, WeakShared},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tracing::{info, warn};

use crate::{
    cursor::{ClusterTime, Cursor},
    feed::{self, Feed, LogLimits},
    mongo::{Deployment, StretchError, StretchLimits},
    telemetry::{Metrics, OutcomeLabels},
};

/// How long a client may wait for its turn, and how long reading a replay may take, in seconds.
const TURN_SECS_MAX: u64 = 10;
const READ_SECS_MAX: u64 = 10;
/// Clients share a replay that begins at most so many seconds before their cursor.
const SHARED_SECS: u32 = 60;

/// How much replays may cost.
#[derive(Debug, Clone, Copy)]
pub struct ReplayLimits {
    /// How many at once; each holds its memory until the slowest of its clients has read it.
    pub replays_max: usize,
    /// The most events of one.
    pub events_max: usize,
    /// The most memory of one, in bytes.
    pub bytes_max: usize,
}

/// Makes replays. Cheap to clone.
#[derive(Clone)]
pub struct Replays(Arc<Inner>);

struct Inner {
    deployment: Deployment,
    live: Feed,
    limits: ReplayLimits,
    permits: Arc<Semaphore>,
    /// Replays that somebody waits for, with the place at which they begin; one that is only being read is no longer
    /// shared. The dead are swept when the next one is asked for.
    recent: Mutex<Vec<(Cursor, WeakShared<Asked>)>>,
    /// Cursors of this time and before are known to be past the oplog: no stream is opened to find that out again.
    lost: Mutex<Option<Cursor>>,
    metrics: Metrics,
}

type Asked = BoxFuture<'static, Result<Arc<Replay>, Unanswerable>>;

/// A stretch of the past, shared by the clients that read it. It is let go with the last of them.
#[derive(Debug)]
pub struct Replay {
    /// The log to read it from.
    pub feed: Feed,
    _permit: OwnedSemaphorePermit,
}

/// Why there is no replay after a cursor, in words for its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unanswerable(pub &'static str);

impl Replays {
    /// Replays that meet the log of `live`.
    pub fn new(deployment: Deployment, live: Feed, limits: ReplayLimits, metrics: Metrics) -> Self {
        Self(Arc::new(Inner {
            deployment,
            live,
            limits,
            permits: Arc::new(Semaphore::new(limits.replays_max)),
            recent: Mutex::default(),
            lost: Mutex::default(),
            metrics,
        }))
    }

    /// A replay of what comes after `cursor`, up to where the live log is now.
    ///
    /// # Errors
    /// When there can be none, or none soon: the client must reload. Takes at most about twenty seconds.
    pub fn after(&self, cursor: Cursor) -> impl Future<Output = Result<Arc<Replay>, Unanswerable>> + Send + use<> {
        let asked = self.0.clone().share(cursor);
        async move { asked?.await }
    }
}

impl Inner {
    fn share(self: Arc<Self>, cursor: Cursor) -> Result<Shared<Asked>, Unanswerable> {
        if cursor.epoch != self.live.position().epoch {
            return Err(Unanswerable("the cursor is of another collection"));
        }
        let lost = *self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        if lost.is_some_and(|lost| lost.epoch == cursor.epoch && cursor.time <= lost.time) {
            return Err(Unanswerable(LOST));
        }
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.retain(|(_, replay)| replay.upgrade().is_some());
        let is_near = |start: Cursor| {
            start.epoch == cursor.epoch
                && start.time <= cursor.time
                && cursor.time.seconds - start.time.seconds <= SHARED_SECS
        };
        let shared = recent.iter().filter(|(start, _)| is_near(*start)).find_map(|(_, replay)| replay.upgrade());
        if let Some(shared) = shared {
            return Ok(shared);
        }
        let asked = self.clone().make(cursor).boxed().shared();
        recent.extend(asked.downgrade().map(|weak| (cursor, weak)));
        Ok(asked)
    }

    async fn make(self: Arc<Self>, cursor: Cursor) -> Result<Arc<Replay>, Unanswerable> {
        let outcome = self.read(cursor).await;
        let word = match &outcome {
            Ok(_) => "filled",
            Err(Failure::Busy) => "busy",
            Err(Failure::Stretch(error)) => error.as_str(),
        };
        self.metrics.replays.get_or_create(&OutcomeLabels { outcome: word }).inc();
        outcome.map_err(|failure| {
            warn!("a replay could not be made: {word}");
            if failure == Failure::Stretch(StretchError::Lost) {
                let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
                // The newest one says most; one of another collection says nothing any more.
                if lost.is_none_or(|lost| lost.epoch != cursor.epoch || lost.time < cursor.time) {
                    *lost = Some(cursor);
                }
            }
            Unanswerable(match failure {
                Failure::Stretch(StretchError::Lost) => LOST,
                Failure::Stretch(StretchError::TooMuch) => "too much has happened since the cursor",
                Failure::Stretch(_) => "what followed the cursor could not be read in time",
                Failure::Busy => "too many clients ask for what is long past",
            })
        })
    }

    async fn read(&self, cursor: Cursor) -> Result<Arc<Replay>, Failure> {
        let turn = timeout(Duration::from_secs(TURN_SECS_MAX), self.permits.clone().acquire_owned()).await;
        let Ok(Ok(permit)) = turn else {
            return Err(Failure::Busy);
        };
        let ReplayLimits { events_max, bytes_max, .. } = self.limits;
        let patience = Duration::from_secs(READ_SECS_MAX);
        let limits = StretchLimits { events_max, bytes_max, patience };
        let from: ClusterTime = cursor.time;
        let stretch = self.deployment.changes_between(from, self.live.position(), limits).await;
        let stretch = stretch.map_err(Failure::Stretch)?;
        let count = stretch.events.len();
        // The stretch was counted while it was read; its log counts encodings besides.
        let limits = LogLimits { entries_max: events_max, bytes_max: bytes_max.saturating_mul(4) };
        let feed = feed::closed(limits, stretch.start, stretch.events, stretch.end);
        let feed = feed.ok_or(Failure::Stretch(StretchError::TooMuch))?;
        info!("replaying {count} events");
        Ok(Arc::new(Replay { feed, _permit: permit }))
    }
}

const LOST: &str = "the cursor is older than MongoDB's oplog";

#[derive(Debug, PartialEq, Eq)]
enum Failure {
    Busy,
    Stretch(StretchError),
}
