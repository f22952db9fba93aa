//! Stage 4a, memory: one bounded log per process, written by the watcher alone and read by every session.
//!
//! [`open`] gives the two ends. [`FeedWriter`] has the sole `append` and is not `Clone`: whoever holds it is the
//! only one that pushes. [`Feed`] hands out [`Reader`]s, each of which is a place in the log, not a queue.
//! No I/O, no driver and no framework here, so nothing here can fail for a reason outside this process.

mod entry;
mod log;
#[cfg(test)]
mod properties;
mod reader;

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::watch;

pub use entry::{Entry, Transport};
pub use log::{LogLimits, LogSize};
pub use reader::{Gap, Reader, Reading};

use crate::{cursor::Cursor, event::Event};
use log::Log;

/// Opens a log that is complete from `start` on, and empty.
pub fn open(limits: LogLimits, start: Cursor) -> (FeedWriter, Feed) {
    let log = Arc::new(RwLock::new(Log::new(limits, start)));
    let (turn, turned) = watch::channel(());
    (FeedWriter { log: log.clone(), turn }, Feed { log, turned })
}

/// A log of its own that holds a stretch of the stream, from `start` to `position`, and never turns. `None` when the
/// stretch does not fit into `limits`.
pub fn closed(limits: LogLimits, start: Cursor, stretch: Vec<Change>, position: Cursor) -> Option<Feed> {
    let count = stretch.len();
    let (mut writer, feed) = open(limits, start);
    writer.append(stretch, position);
    (writer.size().entries == count).then_some(feed)
}

/// A place of the stream and its event. `None` is a document that breaks the contract: it leaves only its place, so
/// that its cursor is found.
pub type Change = (Cursor, Option<Event>);

/// The writing end. Not `Clone`, by design: see the module.
#[derive(Debug)]
pub struct FeedWriter {
    log: Arc<RwLock<Log>>,
    turn: watch::Sender<()>,
}

impl FeedWriter {
    /// Appends one batch of the stream, in its order, and lets readers read up to `position`, the place of the
    /// stream after the batch.
    pub fn append(&mut self, batch: Vec<Change>, position: Cursor) {
        // Entries are built before the lock is taken: readers wait for a few pushes only.
        let entries: Vec<_> = batch.into_iter().map(|(cursor, event)| Arc::new(Entry::new(cursor, event))).collect();
        write(&self.log).append(entries, position);
        self.turn.send_replace(());
    }

    /// Says that the stream was broken: what lies between the last batch and `start` can not be known. The log
    /// is emptied and nobody reads across.
    pub fn gap(&mut self, start: Cursor) {
        write(&self.log).gap(start);
        self.turn.send_replace(());
    }

    /// How much the log holds.
    pub fn size(&self) -> LogSize {
        self.log.read().unwrap_or_else(PoisonError::into_inner).size()
    }
}

/// The reading end. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Feed {
    log: Arc<RwLock<Log>>,
    turned: watch::Receiver<()>,
}

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
        self.read().watermark()
    }

    /// How much the log holds.
    pub fn size(&self) -> LogSize {
        self.read().size()
    }

    fn read(&self) -> RwLockReadGuard<'_, Log> {
        // A panic while the lock was held can only come from a bug in `log`, whose state is then still
        // consistent enough to read (it never holds half an entry); refusing to serve would not mend it.
        self.log.read().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write(log: &RwLock<Log>) -> RwLockWriteGuard<'_, Log> {
    log.write().unwrap_or_else(PoisonError::into_inner)
}
