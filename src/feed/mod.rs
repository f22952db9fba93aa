//! Stage 4a, memory: one bounded log per process, written by the watcher alone and read by every session.
//!
//! [`open`] gives the two ends. [`FeedWriter`] has the sole `append` and is not `Clone`: whoever holds it is the
//! only one that pushes. [`Feed`] hands out [`Reader`]s, each of which is a place in the log, not a queue.
//! No I/O, no driver and no framework here, so nothing here can fail for a reason outside this process.

mod bell;
mod entry;
mod log;
#[cfg(test)]
mod properties;
mod reader;

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
    atomic::{AtomicBool, Ordering},
};

pub use entry::{Entry, Transport};
pub use log::{LogLimits, LogSize};
pub use reader::{Entries, Gap, Reader, Reading};

use crate::{cursor::Cursor, event::Event};
use bell::Bells;
use log::Log;

/// Opens a log that is complete from `start` on, and empty.
pub fn open(limits: LogLimits, start: Cursor) -> (FeedWriter, Feed) {
    let shared = Arc::new(Shared {
        log: RwLock::new(Log::new(limits, start)),
        bells: Mutex::default(),
        is_closed: AtomicBool::new(false),
    });
    (FeedWriter(shared.clone()), Feed(shared))
}

/// A log of its own that holds a stretch of the stream, and never turns.
#[derive(Debug)]
pub struct Excerpt(Feed);

impl Excerpt {
    /// The stretch from `start` to `position`. `None` when it does not fit into `limits`.
    pub fn new(limits: LogLimits, start: Cursor, stretch: Vec<Change>, position: Cursor) -> Option<Self> {
        let count = stretch.len();
        let (mut writer, feed) = open(limits, start);
        writer.append(stretch, position);
        (writer.size().entries == count).then_some(Self(feed))
    }

    /// Where to read it.
    pub fn feed(&self) -> &Feed {
        &self.0
    }

    /// Lets go of all that it holds. Whoever has not read it to its end finds a gap.
    pub fn empty(&self) {
        let Feed(shared) = &self.0;
        shared.gap(self.0.position(), || {});
    }
}

/// A place of the stream and its event. `None` is a document that breaks the contract: it leaves only its place, so
/// that its cursor is found.
pub type Change = (Cursor, Option<Event>);

/// What the two ends share. Whoever takes both locks takes that of the bells first.
#[derive(Debug)]
struct Shared {
    log: RwLock<Log>,
    bells: Mutex<Bells>,
    /// The writer is gone.
    is_closed: AtomicBool,
}

// A panic while a lock was held can only come from a bug in `log` or `bell`, whose state is then still consistent
// enough to go on with (they never hold half an entry); refusing to serve would not mend it.
impl Shared {
    fn read(&self) -> RwLockReadGuard<'_, Log> {
        self.log.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Log> {
        self.log.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn bells(&self) -> MutexGuard<'_, Bells> {
        self.bells.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn gap(&self, start: Cursor, meanwhile: impl FnOnce()) {
        let bells = self.bells();
        {
            let mut log = self.write();
            // The place before the gap, across which nobody reads.
            bells.everyone().note(log.end_place());
            log.gap(start);
            meanwhile();
        }
        bells.everyone().wake();
    }
}

/// The writing end. Not `Clone`, by design: see the module.
#[derive(Debug)]
pub struct FeedWriter(Arc<Shared>);

impl FeedWriter {
    /// Appends one batch of the stream, in its order, and lets readers read up to `position`, the place of the
    /// stream after the batch. Wakes those whom it concerns.
    pub fn append(&mut self, batch: Vec<Change>, position: Cursor) {
        // Entries are built before the locks are taken: readers wait for a few pushes only.
        let entries: Vec<_> = batch.into_iter().map(|(cursor, event)| Arc::new(Entry::new(cursor, event))).collect();
        let mut bells = self.0.bells();
        let concerned = bells.concerned(&entries);
        {
            let mut log = self.0.write();
            // Noted before anybody can read on: a reader that is not rung has missed nothing up to the watermark.
            concerned.note(log.end_place());
            log.append(entries, position);
        }
        concerned.wake();
    }

    /// Says that the stream was broken: what lies between the last batch and `start` can not be known. The log
    /// is emptied and nobody reads across.
    ///
    /// `meanwhile` is done while nobody can look at the log: whoever learns of `start` by it finds a log that knows it, and
    /// whoever is told of the gap learns of `start`. It must not touch this log.
    pub fn gap(&mut self, start: Cursor, meanwhile: impl FnOnce()) {
        self.0.gap(start, meanwhile);
    }

    /// Wakes every reader, though nothing was appended.
    pub fn wake_everyone(&self) {
        let bells = self.0.bells();
        bells.everyone().note(self.0.read().end_place());
        bells.everyone().wake();
    }

    /// How much the log holds.
    pub fn size(&self) -> LogSize {
        self.0.read().size()
    }
}

impl Drop for FeedWriter {
    fn drop(&mut self) {
        self.0.is_closed.store(true, Ordering::Release);
        self.wake_everyone();
    }
}

/// The reading end. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Feed(Arc<Shared>);

impl Feed {
    /// A reader of what comes from now on.
    pub fn reader_from_now(&self) -> Reader {
        Reader::from_now(self.clone())
    }

    /// A reader of what comes after `cursor`. Whether the log can answer that is told by its first reading.
    pub fn reader_after(&self, cursor: Cursor) -> Reader {
        Reader::after(self.clone(), cursor)
    }

    /// The place up to which the log may be read.
    pub fn position(&self) -> Cursor {
        self.0.read().watermark()
    }

    /// How much the log holds.
    pub fn size(&self) -> LogSize {
        self.0.read().size()
    }

    /// How far the log has come by now.
    pub fn mark(&self) -> Mark {
        Mark(self.0.read().end_place())
    }

    /// How many readers have not read something that was there for them when `mark` was taken.
    pub fn readers_behind(&self, mark: Mark) -> usize {
        // A part of them at a time: nothing is appended meanwhile.
        let parts = (0..).map(|part| part * READERS_AT_ONCE..(part + 1) * READERS_AT_ONCE);
        parts.map_while(|keys| self.0.bells().behind(keys, mark.0)).sum()
    }
}

/// See [`Feed::readers_behind`].
const READERS_AT_ONCE: usize = 1_000;

/// A moment in the life of a log; see [`Feed::mark`].
#[derive(Debug, Clone, Copy)]
pub struct Mark(u64);
