//! What lies before the log, read once more from MongoDB: for clients that come back after a long absence, or that
//! were too slow.
//!
//! A replay is a stretch of the stream in a small log of its own, which meets the live log without a gap. Every stream
//! makes MongoDB scan its oplog, so few are read from it at once. Once read, a replay holds nothing but its memory,
//! of which there is a bound for all of them: clients that are slow to read theirs keep nobody from MongoDB. Clients with
//! nearby cursors share one. A client that can not have one is told to reload instead.

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
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
    cursor::Cursor,
    feed::{self, Feed, LogLimits, Reading},
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
    /// How many are read from MongoDB at once.
    pub replays_max: usize,
    /// The most events of one.
    pub events_max: usize,
    /// The most memory of one while it is read, in bytes.
    pub bytes_max: usize,
    /// The most memory of all that clients have not read to their end, in bytes.
    pub kept_bytes_max: usize,
}

/// Makes replays. Cheap to clone.
#[derive(Clone)]
pub struct Replays(Arc<Inner>);

struct Inner {
    deployment: Deployment,
    live: Feed,
    limits: ReplayLimits,
    /// One for each that is read from MongoDB.
    turns: Semaphore,
    /// Kibibytes of [`ReplayLimits::kept_bytes_max`] that are free.
    room: Arc<Semaphore>,
    recent: Mutex<Recent>,
    /// Cursors of this time and before are known to be past the oplog: no stream is opened to find that out again.
    lost: Mutex<Option<Cursor>>,
    metrics: Metrics,
}

/// What others may share. The dead are swept when the next replay is asked for.
#[derive(Default)]
struct Recent {
    /// Replays that somebody waits for, with the place at which they begin.
    asked: Vec<(Cursor, WeakShared<Asked>)>,
    /// Those that somebody reads.
    made: Vec<Weak<Replay>>,
}

type Asked = BoxFuture<'static, Result<Arc<Replay>, Unanswerable>>;

/// A stretch of the past, shared by the clients that read it. It is let go with the last of them.
#[derive(Debug)]
pub struct Replay {
    /// The log to read it from.
    pub feed: Feed,
    start: Cursor,
    _room: OwnedSemaphorePermit,
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
            turns: Semaphore::new(limits.replays_max),
            room: Arc::new(Semaphore::new(kibibytes(limits.kept_bytes_max) as usize)),
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
        recent.asked.retain(|(_, replay)| replay.upgrade().is_some());
        recent.made.retain(|replay| replay.strong_count() > 0);
        let made = recent.made.iter().filter_map(Weak::upgrade).find(|replay| self.answers(replay, cursor));
        if let Some(made) = made {
            return Ok(async { Ok(made) }.boxed().shared());
        }
        let mut asked = recent.asked.iter().filter(|(start, _)| is_near(*start, cursor));
        if let Some(asked) = asked.find_map(|(_, replay)| replay.upgrade()) {
            return Ok(asked);
        }
        let asked = self.clone().make(cursor).boxed().shared();
        recent.asked.extend(asked.downgrade().map(|weak| (cursor, weak)));
        Ok(asked)
    }

    /// Whether what follows `cursor` is in a replay that was made for another client, and the live log still goes on
    /// where it ends.
    fn answers(&self, replay: &Replay, cursor: Cursor) -> bool {
        let end = replay.feed.position();
        is_near(replay.start, cursor)
            && cursor.time < end.time
            && !matches!(self.live.reader_after(end).read(), Reading::Gap(_))
    }

    async fn make(self: Arc<Self>, cursor: Cursor) -> Result<Arc<Replay>, Unanswerable> {
        let outcome = self.read(cursor).await;
        let word = match &outcome {
            Ok(_) => "filled",
            Err(Failure::Busy) => "busy",
            Err(Failure::Stretch(error)) => error.as_str(),
        };
        self.metrics.replays.get_or_create(&OutcomeLabels { outcome: word }).inc();
        if let Ok(replay) = &outcome {
            let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
            recent.made.push(Arc::downgrade(replay));
        }
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
        let patience = Duration::from_secs(TURN_SECS_MAX);
        let turn = timeout(patience, self.turns.acquire()).await;
        let Ok(Ok(turn)) = turn else {
            return Err(Failure::Busy);
        };
        let ReplayLimits { events_max, bytes_max, .. } = self.limits;
        let limits = StretchLimits { events_max, bytes_max, patience: Duration::from_secs(READ_SECS_MAX) };
        let stretch = self.deployment.changes_between(cursor.time, self.live.position(), limits).await;
        let stretch = stretch.map_err(Failure::Stretch)?;
        let (start, count) = (stretch.start, stretch.events.len());
        // The stretch was counted while it was read; its log counts encodings besides.
        let limits = LogLimits { entries_max: events_max, bytes_max: bytes_max.saturating_mul(4) };
        let feed = feed::closed(limits, start, stretch.events, stretch.end);
        let feed = feed.ok_or(Failure::Stretch(StretchError::TooMuch))?;
        if feed.size().bytes > self.limits.kept_bytes_max {
            return Err(Failure::Stretch(StretchError::TooMuch));
        }
        // With the turn still held: at most `replays_max` are in memory beside those that have room.
        let room = timeout(patience, self.room.clone().acquire_many_owned(kibibytes(feed.size().bytes))).await;
        drop(turn);
        let Ok(Ok(room)) = room else {
            return Err(Failure::Busy);
        };
        info!("replaying {count} events");
        Ok(Arc::new(Replay { feed, start, _room: room }))
    }
}

/// Whether a client at `cursor` may share a replay that begins at `start`.
fn is_near(start: Cursor, cursor: Cursor) -> bool {
    start.epoch == cursor.epoch && start.time <= cursor.time && cursor.time.seconds - start.time.seconds <= SHARED_SECS
}

fn kibibytes(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX)
}

const LOST: &str = "the cursor is older than MongoDB's oplog";

#[derive(Debug, PartialEq, Eq)]
enum Failure {
    Busy,
    Stretch(StretchError),
}
