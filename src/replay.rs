//! What lies before the log, read once more from MongoDB: for clients that come back after a long absence, or that
//! were too slow.
//!
//! A replay is a stretch of the stream in a small log of its own, which meets the live log without a gap. Every stream
//! makes MongoDB scan its oplog, so few are read from it at once. Once read, a replay holds nothing but its memory,
//! of which there is a bound for all of them: clients that are slow to read theirs keep nobody from MongoDB. Clients with
//! nearby cursors share one. A client that can not have one is told to reload instead.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared, WeakShared},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use crate::{
    cursor::{ClusterTime, Cursor},
    feed::{Excerpt, Feed, Gap, LogLimits, Reading},
    mongo::{Deployment, StretchError, StretchLimits},
    telemetry::{Metrics, OutcomeLabels, ReasonLabels, show_from_start},
};

/// How long a client may wait for its turn, and how long reading a replay may take, in seconds.
const TURN_SECS_MAX: u64 = 10;
const READ_SECS_MAX: u64 = 10;
/// How long a replay is kept for those who read it after the last of them was given it, in seconds: others wait for the
/// memory.
const KEPT_SECS_MAX: u64 = 60;
/// Clients share a replay that begins at most so many seconds before their cursor.
const SHARED_SECS: u32 = 60;
/// Replays begin at whole multiples of so many seconds where they can, so that clients that left one after the other
/// share one in whatever order they come back.
const START_SECS: u32 = 30;

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
    metrics: Metrics,
}

/// What others may share, and what nobody needs to try again.
#[derive(Default)]
struct Recent {
    /// Replays that somebody waits for, with the place at which they begin. The dead are swept when the next one is asked
    /// for.
    asked: Vec<(Cursor, WeakShared<Asked>)>,
    /// Those that somebody reads.
    made: Vec<Weak<Replay>>,
    /// From here, and so from any earlier place, the oplog is known not to reach back.
    lost: Option<Cursor>,
    /// From here, and so from any earlier place, it is known to be more than a replay may hold.
    too_much: Option<Cursor>,
}

type Asked = BoxFuture<'static, Result<Arc<Replay>, Failure>>;

/// A stretch of the past, shared by the clients that read it. It is let go with the last of them, or when they take too
/// long.
#[derive(Debug)]
pub struct Replay {
    log: Excerpt,
    start: Cursor,
    kept: Mutex<Kept>,
    _clock: AbortOnDropHandle<()>,
}

#[derive(Debug)]
struct Kept {
    /// Its share of the memory of all; `None` once it is emptied.
    room: Option<OwnedSemaphorePermit>,
    until: Instant,
}

/// Why there is no replay after a cursor, in words for its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unanswerable(pub &'static str);

impl Replays {
    /// Replays that meet the log of `live`.
    pub fn new(deployment: Deployment, live: Feed, limits: ReplayLimits, metrics: Metrics) -> Self {
        let outcomes = StretchError::ALL.into_iter().map(StretchError::as_str).chain([FILLED, BUSY]);
        // What can not be replayed ends as a reset; these are the reasons that every log can have.
        show_from_start(&metrics.resets, Gap::ALL.map(|gap| ReasonLabels { reason: gap.as_str() }));
        show_from_start(&metrics.replays, outcomes.map(|outcome| OutcomeLabels { outcome }));
        Self(Arc::new(Inner {
            deployment,
            live,
            limits,
            turns: Semaphore::new(limits.replays_max),
            room: Arc::new(Semaphore::new(kibibytes(limits.kept_bytes_max) as usize)),
            recent: Mutex::default(),
            metrics,
        }))
    }

    /// A replay of what comes after `cursor`, up to where the live log is now. It is made whether or not the returned
    /// future is polled, and no longer when nobody waits for it any more.
    ///
    /// # Errors
    /// When there can be none, or none soon: the client must reload. Takes at most about twenty seconds, or twice that
    /// where the oplog ends.
    pub fn after(&self, cursor: Cursor) -> impl Future<Output = Result<Arc<Replay>, Unanswerable>> + Send + use<> {
        let inner = self.0.clone();
        let asked = inner.clone().share(cursor);
        async move {
            let failure = match asked?.await {
                Ok(replay) => return Ok(replay),
                Err(failure) => failure,
            };
            if !failure.is_of_start() {
                return Err(failure.in_words());
            }
            // It may have begun earlier than this client needs: from its own cursor there may be enough, and not too much.
            // What can not be is known by now.
            inner.share(cursor)?.await.map_err(Failure::in_words)
        }
    }
}

impl Inner {
    fn share(self: Arc<Self>, cursor: Cursor) -> Result<Shared<Asked>, Unanswerable> {
        if cursor.epoch != self.live.position().epoch {
            return Err(Unanswerable("the cursor is of another collection"));
        }
        let mut recent = self.recent();
        let start = recent.start_for(cursor).map_err(Failure::in_words)?;
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
        // A task of its own: one of those who wait for it may have stopped to read, so that nothing polls its session, and
        // must not hold up the others by that, nor those whose turn comes after this one.
        let making = AbortOnDropHandle::new(tokio::spawn(self.clone().make(start)));
        let asked = async move { making.await.unwrap_or(Err(Failure::Stretch(StretchError::Failed))) }.boxed().shared();
        recent.asked.extend(asked.downgrade().map(|weak| (start, weak)));
        Ok(asked)
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether what follows `cursor` is in a replay that was made for another client, and the live log still goes on
    /// where it ends. It is then kept for this client, too.
    fn answers(&self, replay: &Replay, cursor: Cursor) -> bool {
        let end = replay.feed().position();
        is_near(replay.start, cursor)
            && cursor.time < end.time
            && !matches!(self.live.reader_after(end).read(), Reading::Gap(_))
            && replay.keep_on()
    }

    async fn make(self: Arc<Self>, start: Cursor) -> Result<Arc<Replay>, Failure> {
        let outcome = self.read(start).await;
        let word = match &outcome {
            Ok(_) => FILLED,
            Err(Failure::Busy) => BUSY,
            Err(Failure::Stretch(error)) => error.as_str(),
        };
        self.metrics.replays.get_or_create(&OutcomeLabels { outcome: word }).inc();
        let mut recent = self.recent();
        recent.asked.retain(|(asked, _)| *asked != start);
        match &outcome {
            Ok(replay) => recent.made.push(Arc::downgrade(replay)),
            Err(failure) => {
                warn!("a replay could not be made: {word}");
                recent.note(*failure, start);
            }
        }
        outcome
    }

    async fn read(&self, start: Cursor) -> Result<Arc<Replay>, Failure> {
        let patience = Duration::from_secs(TURN_SECS_MAX);
        let turn = timeout(patience, self.turns.acquire()).await;
        let Ok(Ok(turn)) = turn else {
            return Err(Failure::Busy);
        };
        let ReplayLimits { events_max, bytes_max, .. } = self.limits;
        let limits = StretchLimits { events_max, bytes_max, patience: Duration::from_secs(READ_SECS_MAX) };
        let stretch = self.deployment.changes_between(start.time, self.live.position(), limits).await;
        let stretch = stretch.map_err(Failure::Stretch)?;
        let (start, count) = (stretch.start, stretch.events.len());
        // The stretch was counted while it was read; its log counts encodings besides.
        let limits = LogLimits { entries_max: events_max, bytes_max: bytes_max.saturating_mul(4) };
        let log = Excerpt::new(limits, start, stretch.events, stretch.end);
        let log = log.ok_or(Failure::Stretch(StretchError::TooMuch))?;
        let bytes = log.feed().size().bytes;
        if bytes > self.limits.kept_bytes_max {
            return Err(Failure::Stretch(StretchError::TooMuch));
        }
        // With the turn still held: at most `replays_max` are in memory beside those that have room.
        let room = timeout(patience, self.room.clone().acquire_many_owned(kibibytes(bytes))).await;
        drop(turn);
        let Ok(Ok(room)) = room else {
            return Err(Failure::Busy);
        };
        info!("replaying {count} events");
        Ok(Replay::new(log, start, room, Duration::from_secs(KEPT_SECS_MAX)))
    }
}

impl Recent {
    /// Where a replay for `cursor` begins.
    fn start_for(&self, cursor: Cursor) -> Result<Cursor, Failure> {
        let covers = |known: &Option<Cursor>, start: Cursor| {
            known.is_some_and(|known| known.epoch == start.epoch && start.time <= known.time)
        };
        for (known, error) in [(&self.lost, StretchError::Lost), (&self.too_much, StretchError::TooMuch)] {
            if covers(known, cursor) {
                return Err(Failure::Stretch(error));
            }
        }
        let seconds = cursor.time.seconds - cursor.time.seconds % START_SECS;
        let round = Cursor::boundary(cursor.epoch, ClusterTime { seconds, increment: 0 });
        let is_in_vain = covers(&self.lost, round) || covers(&self.too_much, round);
        Ok(if is_in_vain { Cursor::boundary(cursor.epoch, cursor.time) } else { round })
    }

    /// Remembers what will not be otherwise: the oplog does not grow backwards, and what came after a place only grows.
    fn note(&mut self, failure: Failure, start: Cursor) {
        let known = match failure {
            Failure::Stretch(StretchError::Lost) => &mut self.lost,
            Failure::Stretch(StretchError::TooMuch) => &mut self.too_much,
            _ => return,
        };
        // The newest one says most; one of another collection says nothing any more.
        if known.is_none_or(|known| known.epoch != start.epoch || known.time < start.time) {
            *known = Some(start);
        }
    }
}

impl Replay {
    fn new(log: Excerpt, start: Cursor, room: OwnedSemaphorePermit, kept_time_max: Duration) -> Arc<Self> {
        let until = Instant::now() + kept_time_max;
        Arc::new_cyclic(|replay: &Weak<Self>| Self {
            log,
            start,
            kept: Mutex::new(Kept { room: Some(room), until }),
            _clock: AbortOnDropHandle::new(tokio::spawn(empty_in_time(replay.clone(), until))),
        })
    }

    /// Where to read it.
    pub fn feed(&self) -> &Feed {
        self.log.feed()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives one more client its time. `false` when it is over.
    fn keep_on(&self) -> bool {
        let mut kept = self.kept();
        kept.until = Instant::now() + Duration::from_secs(KEPT_SECS_MAX);
        kept.room.is_some()
    }
}

/// Empties a replay when the time of its last client is over. A session whose client hardly reads stands still with it, and
/// would keep its memory for as long as that client likes.
async fn empty_in_time(replay: Weak<Replay>, mut until: Instant) {
    loop {
        sleep_until(until).await;
        let Some(replay) = replay.upgrade() else {
            return;
        };
        let mut kept = replay.kept();
        if kept.until <= Instant::now() {
            replay.log.empty();
            kept.room = None;
            return;
        }
        until = kept.until;
    }
}

/// Whether a client at `cursor` may share a replay that begins at `start`.
fn is_near(start: Cursor, cursor: Cursor) -> bool {
    start.epoch == cursor.epoch && start.time <= cursor.time && cursor.time.seconds - start.time.seconds <= SHARED_SECS
}

fn kibibytes(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX)
}

/// Outcomes beside those of [`StretchError`].
const FILLED: &str = "filled";
const BUSY: &str = "busy";

/// Why a replay could not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    Busy,
    Stretch(StretchError),
}

impl Failure {
    /// Whether one that begins later may succeed.
    fn is_of_start(self) -> bool {
        matches!(self, Failure::Stretch(StretchError::Lost | StretchError::TooMuch))
    }

    fn in_words(self) -> Unanswerable {
        Unanswerable(match self {
            Failure::Stretch(StretchError::Lost) => "the cursor is older than MongoDB's oplog",
            Failure::Stretch(StretchError::TooMuch) => "too much has happened since the cursor",
            Failure::Stretch(_) => "what followed the cursor could not be read in time",
            Failure::Busy => "too many clients ask for what is long past",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::Gap;

    fn at(seconds: u32) -> Cursor {
        Cursor { epoch: 1, time: ClusterTime { seconds, increment: 7 }, key: 5 }
    }

    #[test]
    fn clients_that_left_one_after_the_other_ask_for_one_replay() {
        let recent = Recent::default();
        let start = recent.start_for(at(119)).unwrap();
        assert_eq!(recent.start_for(at(91)), Ok(start));
        assert!(is_near(start, at(91)) && is_near(start, at(119)));
        assert_ne!(recent.start_for(at(120)), Ok(start));
    }

    #[test]
    fn what_can_not_be_is_tried_once_and_no_more_than_that_is_refused() {
        for error in [StretchError::Lost, StretchError::TooMuch] {
            let (failure, mut recent) = (Failure::Stretch(error), Recent::default());
            let round = recent.start_for(at(100)).unwrap();
            recent.note(failure, round);
            let own = Cursor::boundary(1, at(100).time);
            assert_eq!(recent.start_for(at(100)), Ok(own), "from its own place there may be an answer");
            assert_eq!(recent.start_for(at(80)), Err(failure));
            recent.note(failure, own);
            assert_eq!(recent.start_for(at(100)), Err(failure));
            assert_eq!(recent.start_for(at(101)), Ok(Cursor::boundary(1, at(101).time)));
            assert!(recent.start_for(Cursor { epoch: 2, ..at(80) }).is_ok(), "another collection");
        }
        let mut recent = Recent::default();
        recent.note(Failure::Busy, at(100));
        assert!(recent.start_for(at(100)).is_ok(), "that changes from one moment to the next");
    }

    #[tokio::test]
    async fn a_replay_that_is_read_too_slowly_gives_its_memory_back() {
        let room = Arc::new(Semaphore::new(1));
        let limits = LogLimits { entries_max: 10, bytes_max: 1 << 20 };
        let log = Excerpt::new(limits, at(1), vec![(at(2), None)], at(3)).unwrap();
        let share = room.clone().try_acquire_owned().unwrap();
        let replay = Replay::new(log, at(1), share, Duration::from_millis(50));
        let mut reader = replay.feed().reader_after(at(1));
        let freed = timeout(Duration::from_secs(20), room.acquire()).await;
        assert!(freed.is_ok(), "its reader does not read, and nothing polls it");
        assert_eq!(replay.feed().size().entries, 0);
        assert!(matches!(reader.read(), Reading::Gap(Gap::Evicted | Gap::Broken)));
        assert!(!replay.keep_on(), "it is of no use to others");
    }
}
