//! The one task per process that reads the change stream and appends to the log. Nothing else pushes.
//!
//! It never gives up: whatever ends a stream, it opens the next one from its own position, with back-off and
//! jitter. What can not be resumed is a gap, which every session is told.

mod again;
mod status;

use std::{collections::HashMap, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};
use tracing::{error, info, warn};

pub use status::{Liveness, Told, WatcherStatus};

use crate::{
    cursor::{BOUNDARY, Cursor},
    event::{Before, Event},
    feed::FeedWriter,
    message::{Destination, Message, RoomName},
    mongo::{Batch, Broken, Changes, Deployment, Invalid, OpenError, ResumePoint, StreamError},
    telemetry::{EventLabels, Metrics, ReasonLabels, Seldom, millis_since, show_from_start},
};
use again::{News, Received, new_of};
use status::{STALE_SECS, State};

/// The first pause before a stream is opened again, and the longest, in milliseconds. The first is short, as most
/// streams end with an election or a restarted connection; the longest keeps at two tries a second.
const BACK_OFF_MILLIS_MIN: u64 = 50;
const BACK_OFF_MILLIS_MAX: u64 = 1_000;
/// A stream that is open again within so many seconds was never away, as far as clients are told: elections and broken
/// connections are everyday matters, and nothing is lost in them.
const BLINK_SECS: u64 = 2;

/// After so long without a stream everything connects anew, in seconds, and again after as long: see
/// [`Deployment::renew`].
const RENEW_SECS: u64 = 6;

/// A stream that lived for so long was well, in seconds: the next one is opened without the back-off of those before it.
const WELL_SECS: u64 = 5;

/// How long MongoDB may take to open a stream, in seconds: at first, and at most. It doubles whenever it was not enough,
/// as MongoDB looks through all of its oplog from our place on before it answers, and what other programs have written
/// meanwhile only grows.
const OPENING_SECS_MIN: u64 = 5;
const OPENING_SECS_MAX: u64 = 120;

/// How long a gap is kept from clients for the indexes of a collection that is new, in seconds.
const INDEX_SECS_WAITED: u64 = 2;

/// See the module.
pub struct Watcher {
    deployment: Deployment,
    writer: FeedWriter,
    status: watch::Sender<State>,
    told: watch::Sender<Told>,
    metrics: Metrics,
    resume: ResumePoint,
    /// Openings since a stream was well.
    tries: u32,
    /// How long the next opening may take.
    opening_time_max: Duration,
    /// After a stream that goes on by time was opened: what of that time has come again, until it is told what of it is
    /// new.
    again: Option<Vec<Received>>,
    invalid: HashMap<Invalid, Seldom>,
}

impl Watcher {
    /// A watcher that appends to `writer` what comes after `start`, the start of the stream that [`Self::run`] will
    /// be given.
    pub fn new(deployment: Deployment, writer: FeedWriter, start: Cursor, metrics: Metrics) -> (Self, WatcherStatus) {
        let (status, state) = watch::channel(State::open_at(start));
        let (told, told_receiver) = watch::channel(Told::Live);
        let invalid = Invalid::ALL.into_iter().map(|reason| (reason, Seldom::default())).collect();
        show_from_start(&metrics.events, EVENT_KINDS.map(|kind| EventLabels { kind }));
        show_from_start(&metrics.stream_reopens, REOPEN_REASONS.map(|reason| ReasonLabels { reason }));
        let reasons = Invalid::ALL.map(|reason| ReasonLabels { reason: reason.as_str() });
        show_from_start(&metrics.invalid_documents, reasons);
        let watcher = Self {
            deployment,
            writer,
            status,
            told,
            metrics,
            resume: ResumePoint::Now,
            tries: 0,
            opening_time_max: Duration::from_secs(OPENING_SECS_MIN),
            again: None,
            invalid,
        };
        (watcher, WatcherStatus::new(state, told_receiver))
    }

    /// Reads `changes` and its successors for ever.
    pub async fn run(mut self, mut changes: Changes) {
        loop {
            let opened_at = Instant::now();
            let ended = self.drain(&mut changes).await;
            if opened_at.elapsed() > Duration::from_secs(WELL_SECS) {
                self.tries = 0;
            }
            // A stream that ended is never used again: it goes before the next one is opened.
            drop(changes);
            self.status.send_modify(|state| state.is_open = false);
            let reason = word_of(&ended);
            self.metrics.stream_reopens.get_or_create(&ReasonLabels { reason }).inc();
            if self.tries.is_power_of_two() || self.tries == 0 {
                warn!("{ended}; opening it again");
            }
            match ended {
                StreamError::Broken(_) => {}
                StreamError::Created(time) => self.resume = ResumePoint::At(time),
                StreamError::Refused(_) => self.resume = ResumePoint::At(self.position().time),
                StreamError::Invalidated | StreamError::Lost(_) => self.resume = ResumePoint::Now,
            }
            changes = self.reopen().await;
        }
    }

    /// Appends batches until the stream ends, and says how it ended.
    async fn drain(&mut self, changes: &mut Changes) -> StreamError {
        loop {
            match changes.next().await {
                Ok(batch) => self.append(batch),
                Err(ended) => return ended,
            }
        }
    }

    fn append(&mut self, batch: Batch) {
        let Batch { events, position, resume } = batch;
        let known = self.position();
        let newest = events.iter().rev().find_map(|(_, event)| event.as_ref().ok());
        let lag = newest.map_or(Duration::ZERO, |event| Duration::from_millis(millis_since(event.at_millis)));
        self.status.send_if_modified(|state| {
            (state.answered_at, state.lag) = (Instant::now(), lag);
            // Nobody waits for that.
            false
        });
        let events = match new_of(&mut self.again, events, position, known) {
            News::Held => return,
            News::Are(events) => events,
            News::OfAnotherHistory { start, events } => {
                error!(
                    "MongoDB no longer has the newest change that it has shown: it was restored from a backup, or lost what a majority had; every client will reload"
                );
                self.begin_anew(start);
                events
            }
        };
        let known = self.position();
        let rooms = events.iter().filter_map(|(_, event)| room_written_to(event.as_ref().ok()?));
        self.metrics.busy_rooms.note(rooms);
        // A stream that goes on after an event and has nothing new yet gives that event's own token, which is read as the
        // boundary of its time and lies before the event: who came back with it would be told again what it knows.
        let is_behind = position.epoch == known.epoch && position.key == BOUNDARY && position.time <= known.time;
        let position = if is_behind { known } else { position };
        let events = events.into_iter().map(|(cursor, event)| (cursor, self.count(event))).collect();
        self.writer.append(events, position);
        let size = self.writer.size();
        self.metrics.log_entries.set(size.entries as i64);
        self.metrics.log_bytes.set(size.bytes as u64);
        if let Some(resume) = resume {
            self.resume = ResumePoint::After(resume);
        }
        self.status.send_modify(|state| {
            if state.position != position {
                state.moved_at = Instant::now();
            }
            state.position = position;
        });
        let still = self.status.borrow().moved_at.elapsed();
        self.tell(if still < Duration::from_secs(STALE_SECS) { Told::Live } else { Told::Stale });
    }

    /// Tells clients, and the log, when there is something new to tell.
    fn tell(&self, word: Told) {
        let is_new = self.told.send_if_modified(|told| std::mem::replace(told, word) != word);
        if is_new {
            self.writer.wake_everyone();
        }
        match word {
            Told::Stale if is_new => error!(
                "the change stream is open but has not moved for {STALE_SECS} s, though MongoDB moves it every 10 s: look at MongoDB"
            ),
            Told::CatchingUp if is_new => warn!("the change stream is away; clients are told that they are behind"),
            Told::Live if is_new => info!("the change stream is live again"),
            _ => {}
        }
    }

    fn position(&self) -> Cursor {
        self.status.borrow().position
    }

    /// A gap: every session is told to reload, and goes on at `start`.
    fn begin_anew(&mut self, start: Cursor) {
        // Together: who reloads at once must be given a place behind the gap, and who is given one must find it in the log.
        self.writer.gap(start, || {
            self.status.send_modify(|state| (state.position, state.moved_at) = (start, Instant::now()));
        });
    }

    /// Counts a change, and says what is wrong with a document that is no message. Returns what clients are told.
    fn count(&self, event: Result<Event, Broken>) -> Option<Event> {
        let kind = match &event {
            Err(_) => "invalid",
            Ok(event) if event.after.is_none() => "delete",
            Ok(event) if event.before == Before::Nowhere => "insert",
            Ok(_) => "edit",
        };
        self.metrics.events.get_or_create(&EventLabels { kind }).inc();
        let Broken { reason, fault, gone } = match event {
            Ok(event) => return Some(event),
            Err(broken) => broken,
        };
        let word = reason.as_str();
        self.metrics.invalid_documents.get_or_create(&ReasonLabels { reason: word }).inc();
        if let Some(count) = self.invalid.get(&reason).and_then(Seldom::count) {
            warn!("skipped a document whose {word} breaks the data contract: {fault} ({count} so far)");
        }
        gone.map(|gone| *gone)
    }

    /// The collection behind a gap may be another one, made by somebody's insert: without our indexes no history can be
    /// read. A small one has them before clients are told to reload; a large one goes on building them.
    async fn prepare_indexes(&self) {
        let deployment = self.deployment.clone();
        let building = tokio::spawn(async move {
            if let Err(error) = deployment.prepare_indexes().await {
                error!("{error}");
            }
        });
        let _ = timeout(Duration::from_secs(INDEX_SECS_WAITED), building).await;
    }

    /// Opens the next stream, however long that takes.
    async fn reopen(&mut self) -> Changes {
        let broke_at = Instant::now();
        let mut renew_at = broke_at + Duration::from_secs(RENEW_SECS);
        loop {
            sleep(back_off(self.tries)).await;
            self.tries = self.tries.saturating_add(1);
            if Instant::now() >= renew_at {
                renew_at = Instant::now() + Duration::from_secs(RENEW_SECS);
                if self.deployment.renew().await {
                    info!("MongoDB can be reached over new connections");
                }
            }
            let opened = {
                let opening = Changes::open(&self.deployment, &self.resume, self.opening_time_max);
                tokio::pin!(opening);
                tokio::select! {
                    opened = &mut opening => opened,
                    () = sleep_until(broke_at + Duration::from_secs(BLINK_SECS)) => {
                        self.tell(Told::CatchingUp);
                        opening.await
                    }
                }
            };
            match opened {
                Ok(changes) => {
                    self.opening_time_max = Duration::from_secs(OPENING_SECS_MIN);
                    self.again = matches!(self.resume, ResumePoint::At(_)).then(Vec::new);
                    let start = changes.start();
                    // Going on by time is none: a collection that was made anew is told by its epoch.
                    let is_gap = matches!(self.resume, ResumePoint::Now) || start.epoch != self.position().epoch;
                    if is_gap {
                        self.prepare_indexes().await;
                    }
                    self.status.send_modify(|state| state.is_open = true);
                    if is_gap {
                        self.begin_anew(start);
                        warn!("the change stream could not be resumed; every client is told to reload");
                    } else {
                        info!("the change stream goes on where it broke");
                    }
                    return changes;
                }
                Err(OpenError::Lost(reason)) => {
                    error!("{reason}; what was written meanwhile can not be told apart, so every client will reload");
                    self.resume = ResumePoint::Now;
                }
                Err(OpenError::Refused(reason)) if !matches!(self.resume, ResumePoint::At(_)) => {
                    warn!("{reason}; going on by time");
                    self.resume = ResumePoint::At(self.position().time);
                }
                Err(OpenError::Refused(reason)) => {
                    error!("{reason}; every client will reload");
                    self.resume = ResumePoint::Now;
                }
                Err(slow @ OpenError::Slow(_)) => {
                    self.opening_time_max = (2 * self.opening_time_max).min(Duration::from_secs(OPENING_SECS_MAX));
                    warn!("{slow}; the next try may take {} s", self.opening_time_max.as_secs());
                }
                Err(OpenError::Failed(reason)) if self.tries.is_power_of_two() => {
                    warn!("the change stream could not be opened ({} tries): {reason}", self.tries);
                }
                Err(OpenError::Failed(_)) => {}
            }
        }
    }
}

/// The kinds of events, as they are counted.
const EVENT_KINDS: [&str; 4] = ["insert", "edit", "delete", "invalid"];
/// The words of [`word_of`].
const REOPEN_REASONS: [&str; 5] = ["invalidated", "created", "lost", "refused", "broken"];

/// Why a stream ended, as it is counted.
fn word_of(ended: &StreamError) -> &'static str {
    match ended {
        StreamError::Invalidated => "invalidated",
        StreamError::Created(_) => "created",
        StreamError::Lost(_) => "lost",
        StreamError::Refused(_) => "refused",
        StreamError::Broken(_) => "broken",
    }
}

/// The room of a new message. Direct messages have none, and who writes to whom is nobody's business.
fn room_written_to(event: &Event) -> Option<&RoomName> {
    match (&event.before, &event.after) {
        (Before::Nowhere, Some(Message { to: Destination::Room(room), .. })) => Some(room),
        _ => None,
    }
}

/// Doubles from try to try up to the longest pause, and is drawn at random from its upper half, so that several
/// servers that lost one primary do not come back in step.
fn back_off(tries: u32) -> Duration {
    let millis = (BACK_OFF_MILLIS_MIN << tries.min(10)).min(BACK_OFF_MILLIS_MAX);
    Duration::from_millis(millis / 2 + rand::random_range(0..=millis / 2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cursor::ClusterTime;

    #[test]
    fn who_comes_when_the_stream_is_live_again_has_nothing_to_be_told_of_it() {
        let state = State::open_at(Cursor::boundary(1, ClusterTime::default()));
        let (told, receiver) = watch::channel(Told::Live);
        let status = WatcherStatus::new(watch::channel(state).1, receiver);
        assert!(!status.told().has_changed().unwrap());
        told.send_replace(Told::CatchingUp);
        assert!(status.told().has_changed().unwrap());
        told.send_replace(Told::Live);
        assert!(!status.told().has_changed().unwrap());
    }

    #[test]
    fn the_back_off_grows_to_its_bound_and_stays() {
        assert!(back_off(0) <= Duration::from_millis(BACK_OFF_MILLIS_MIN));
        for tries in [10, 100, u32::MAX] {
            let pause = back_off(tries);
            assert!(pause >= Duration::from_millis(BACK_OFF_MILLIS_MAX / 2), "{pause:?}");
            assert!(pause <= Duration::from_millis(BACK_OFF_MILLIS_MAX), "{pause:?}");
        }
    }
}
