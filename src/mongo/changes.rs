//! The change stream: batches of events in stream order, each with its cursor, read raw.
//!
//! `pipeline` says what MongoDB is asked for: the same for every stream.

use std::time::Duration;

use futures::StreamExt;
use mongodb::{
    bson::{Document, RawBsonRef, RawDocument, deserialize_from_slice},
    error::{Error, ErrorKind},
    raw_batch_cursor::RawBatchCursor,
};
use tokio::time::timeout;

use super::{
    broken::{Broken, fault_in},
    connect::{Deployment, SignedTime, sentence_of},
    document::{Invalid, decode},
    id::id_of,
    pipeline::{Resume, ResumePoint, pipeline},
    schema::Found,
};
use crate::{
    cursor::{ClusterTime, Cursor},
    event::{Before, Event},
};

/// How long MongoDB holds a `getMore` open when there is nothing new, in seconds. Each answer moves the position.
const AWAIT_SECS: u64 = 1;
/// The most events of one answer. Each edit in it may cost MongoDB a look-up, and the answer has a deadline.
const BATCH_EVENTS_MAX: u32 = 2_000;
/// How long an answer may take in all, in seconds: the driver has no socket timeout, so a server that was
/// stopped would hold the stream for ever.
const ANSWER_SECS_MAX: u64 = 5;

/// One open change stream. Must be read from one task and never be dropped within [`Changes::next`] to be used again.
pub struct Changes {
    cursor: RawBatchCursor,
    deployment: Deployment,
    /// Edits come with what the document was after them.
    has_images: bool,
    epoch: u32,
    start: Cursor,
    position: Cursor,
    first: Option<Batch>,
    /// There was no collection when the stream was opened, so the epoch is that of none.
    is_missing: bool,
}

/// What one answer of MongoDB held: the unit of everything that follows.
#[derive(Debug)]
pub struct Batch {
    /// In stream order. A document that breaks the contract is no event of its own: its place counts all the same.
    pub events: Vec<(Cursor, Result<Event, Broken>)>,
    /// The place of the stream after this batch.
    pub position: Cursor,
    /// For going on after this batch in another stream.
    pub resume: Option<Resume>,
}

/// A stream could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The point to begin after is no longer, or never was, in the oplog.
    #[error("the change stream can not be resumed: {0}")]
    Lost(String),
    /// MongoDB does not take the resume token. The time of the point may still do.
    #[error("the change stream can not be resumed by its token: {0}")]
    Refused(String),
    /// MongoDB did not answer in time. It looks through its whole oplog from the point on before it does, at some 4 us for
    /// each entry of another collection: with more patience it may succeed.
    #[error("the change stream could not be opened within {} s", .0.as_secs())]
    Slow(Duration),
    /// Anything else; trying again may help.
    #[error("the change stream could not be opened: {0}")]
    Failed(String),
}

/// A stream ended. Open another one.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The collection was dropped or renamed. What follows is another collection.
    #[error("the collection was dropped or renamed")]
    Invalidated,
    /// There was no collection, and now there is one: what it holds began at this time.
    #[error("the collection was made anew")]
    Created(ClusterTime),
    /// The oplog no longer reaches back to the stream's place.
    #[error("the change stream can not go on: {0}")]
    Lost(String),
    /// MongoDB does not take the stream's token any longer. Its time may still do.
    #[error("the change stream's token is refused: {0}")]
    Refused(String),
    /// Anything else: resume after the last batch.
    #[error("the change stream broke: {0}")]
    Broken(String),
}

impl Changes {
    /// Opens a stream on the deployment's collection and reads its first answer, so that [`Self::start`] is a place
    /// from which nothing is missed.
    ///
    /// # Errors
    /// See [`OpenError`]. Takes at most `patience`, and about five seconds more for finding the collection.
    pub async fn open(deployment: &Deployment, from: &ResumePoint, patience: Duration) -> Result<Self, OpenError> {
        Self::open_awaiting(deployment, from, Duration::from_secs(AWAIT_SECS), patience).await
    }

    /// The same, where MongoDB holds an answer without events open for `await_time`.
    pub(super) async fn open_awaiting(
        deployment: &Deployment,
        from: &ResumePoint,
        await_time: Duration,
        patience: Duration,
    ) -> Result<Self, OpenError> {
        let has_images = found_in(deployment).await?.is_some_and(|found| found.images) && deployment.trusts_images();
        let collection = deployment.streams().collection::<Document>(&deployment.collection);
        let opening = async {
            let aggregate = collection.aggregate(pipeline(from, has_images)).max_await_time(await_time);
            let mut cursor = aggregate.batch_size(BATCH_EVENTS_MAX).batch().await?;
            let first = cursor.next().await;
            Ok::<_, Error>((cursor, first))
        };
        let opened = timeout(patience, opening).await.map_err(|_| OpenError::Slow(patience))?;
        let (cursor, first) = opened.map_err(|error| match StreamError::of(&error) {
            StreamError::Lost(reason) => OpenError::Lost(reason),
            StreamError::Refused(reason) => OpenError::Refused(reason),
            other => OpenError::Failed(other.to_string()),
        })?;
        // Read after the stream is open: a collection that is dropped from here on ends the stream, so the epoch
        // can not be newer than the stream.
        let found = found_in(deployment).await?;
        let is_missing = found.is_none();
        let uuid = found.map(|found| found.uuid).unwrap_or_default();
        let epoch = Cursor::epoch_of(&uuid, deployment.epoch_word());
        if let ResumePoint::After(resume) = from
            && resume.epoch != epoch
        {
            // What this stream would begin with is of the collection that is gone, under the epoch of the new one.
            return Err(OpenError::Lost("the collection is another one".into()));
        }
        let mut changes = Self {
            cursor,
            deployment: deployment.clone(),
            has_images,
            epoch,
            start: Cursor::boundary(epoch, ClusterTime::default()),
            position: Cursor::boundary(epoch, ClusterTime::default()),
            first: None,
            is_missing,
        };
        let first = match first {
            Some(Ok(answer)) => changes.read(answer.as_raw_document()),
            Some(Err(error)) => Err(StreamError::of(&error)),
            None => Err(StreamError::Broken("it ended at once".into())),
        };
        let first = first.map_err(|error| match error {
            // The collection went while nobody watched: trying again with the same point would end here again.
            StreamError::Broken(reason) => OpenError::Failed(reason),
            StreamError::Refused(reason) => OpenError::Refused(reason),
            ended => OpenError::Lost(ended.to_string()),
        })?;
        changes.start = match first.events.first() {
            Some((cursor, _)) => Cursor::boundary(epoch, cursor.time),
            None => first.position,
        };
        changes.first = Some(first);
        Ok(changes)
    }

    /// Whether the first answer, which came with the opening, was taken.
    pub(super) fn is_read(&self) -> bool {
        self.first.is_none()
    }

    /// The place of the stream after what was read of it.
    pub(super) fn position(&self) -> Cursor {
        self.position
    }

    /// The place from which the stream misses nothing.
    pub fn start(&self) -> Cursor {
        self.start
    }

    /// Waits for the next batch; an empty one after about a second in which nothing happened.
    ///
    /// # Errors
    /// The stream is at its end; see [`StreamError`].
    pub async fn next(&mut self) -> Result<Batch, StreamError> {
        if let Some(first) = self.first.take() {
            return Ok(first);
        }
        match timeout(Duration::from_secs(ANSWER_SECS_MAX), self.cursor.next()).await {
            Err(_) => Err(StreamError::Broken(format!("no answer within {ANSWER_SECS_MAX} s"))),
            Ok(None) => Err(StreamError::Broken("MongoDB closed it".into())),
            Ok(Some(Err(error))) => Err(StreamError::of(&error)),
            Ok(Some(Ok(answer))) => self.read(answer.as_raw_document()),
        }
    }

    fn read(&mut self, answer: &RawDocument) -> Result<Batch, StreamError> {
        let broken = |what: &str| StreamError::Broken(format!("an answer without {what}"));
        let cursor = answer.get_document("cursor").map_err(|_| broken("a cursor"))?;
        let batch = cursor.get_array("nextBatch").or_else(|_| cursor.get_array("firstBatch"));
        let mut events = Vec::new();
        for element in batch.map_err(|_| broken("a batch"))? {
            let change = element.ok().and_then(|element| element.as_document());
            let change = change.ok_or_else(|| broken("readable events"))?;
            if change.get_str("operationType").is_ok_and(|kind| kind == "invalidate") {
                // What came before it in this batch is of the collection that is gone, and every session is told to
                // begin anew anyway.
                return Err(StreamError::Invalidated);
            }
            let cursor = self.cursor_of(change).ok_or_else(|| broken("a resume token"))?;
            if self.misses_image(change) {
                // Whoever reads on gets the documents as they are now instead.
                self.deployment.distrust_images();
                return Err(StreamError::Broken("MongoDB no longer keeps what documents were after an edit".into()));
            }
            if let Some(event) = self.event_of(change) {
                events.push((cursor, event));
            }
        }
        if let Some((first, _)) = events.first().filter(|_| self.is_missing) {
            return Err(StreamError::Created(first.time));
        }
        let resume = cursor.get_document("postBatchResumeToken").ok();
        let time = resume.and_then(|token| time_of_token(token.get_str("_data").ok()?));
        if let Some((last, _)) = events.last() {
            self.position = *last;
        }
        // A token that is no event's is a boundary. It never takes the position back into the time of an event.
        if let Some(time) = time.filter(|time| *time > self.position.time) {
            self.position = Cursor::boundary(self.epoch, time);
        }
        self.learn_time(answer);
        Ok(Batch {
            events,
            position: self.position,
            resume: resume
                .and_then(|token| deserialize_from_slice(token.as_bytes()).ok())
                .map(|token| Resume { token, epoch: self.epoch }),
        })
    }

    /// An edit without what the document was after it: the collection's images were switched off, or have expired, or
    /// were not on yet when it was made. Without images asked for, that means instead that the document is gone.
    fn misses_image(&self, change: &RawDocument) -> bool {
        let is_edit = matches!(change.get_str("operationType"), Ok("update" | "replace"));
        self.has_images && is_edit && !matches!(change.get("fullDocument"), Ok(Some(RawBsonRef::Document(_))) | Err(_))
    }

    fn cursor_of(&self, change: &RawDocument) -> Option<Cursor> {
        let token = change.get_document("_id").ok()?.get_str("_data").ok()?;
        let time = change.get_timestamp("clusterTime").ok()?;
        Some(Cursor::of_event(self.epoch, super::cluster_time(time), token))
    }

    /// The event in a change; `None` when the change is not one of a document.
    fn event_of(&self, change: &RawDocument) -> Option<Result<Event, Broken>> {
        let operation = change.get_str("operationType").ok()?;
        let after = match operation {
            "insert" | "update" | "replace" => match change.get("fullDocument") {
                Ok(Some(RawBsonRef::Document(document))) => Some(decode(document)),
                // Deleted meanwhile: its own event follows.
                Ok(_) => None,
                Err(_) => Some(Err(Invalid::Encoding)),
            },
            "delete" => None,
            _ => return None,
        };
        let before = match (operation, change.get("fullDocumentBeforeChange")) {
            ("insert", _) => Before::Nowhere,
            (_, Ok(Some(RawBsonRef::Document(document)))) => match decode(document) {
                Ok(message) => Before::In(message.topics()),
                Err(_) => Before::Nowhere,
            },
            _ => match &after {
                // Without a pre-image, an update that left room, recipient and sender alone left its topics alone.
                Some(Ok(message)) if operation == "update" && change.get_bool("moved").is_ok_and(|moved| !moved) => {
                    Before::In(message.topics())
                }
                _ => Before::Unknown,
            },
        };
        // All that we support tell it; the time of the cluster has no more than the second.
        let at_millis = match change.get_datetime("wallTime") {
            Ok(at) => u64::try_from(at.timestamp_millis()).unwrap_or_default(),
            Err(_) => change.get_timestamp("clusterTime").map_or(0, |time| u64::from(time.time) * 1_000),
        };
        let key = change.get_document("documentKey").ok().and_then(|key| key.get("_id").ok().flatten());
        let broken = |reason: Invalid, gone: Option<Event>| {
            let document = change.get_document("fullDocument").ok();
            Err(Broken { reason, fault: fault_in(key, document, reason), gone: gone.map(Box::new) })
        };
        let Some(id) = key.and_then(id_of) else {
            return Some(broken(Invalid::Id, None));
        };
        Some(match after {
            // Nobody was shown it and nobody is: only its place counts.
            Some(Err(reason)) if before == Before::Nowhere => broken(reason, None),
            Some(Err(reason)) => broken(reason, Some(Event { id, before, after: None, at_millis })),
            Some(Ok(message)) => Ok(Event { id, before, after: Some(message), at_millis }),
            None => Ok(Event { id, before, after: None, at_millis }),
        })
    }

    fn learn_time(&self, answer: &RawDocument) {
        let Ok(signed) = answer.get_document("$clusterTime") else {
            return;
        };
        if let (Ok(time), Ok(signed)) = (signed.get_timestamp("clusterTime"), deserialize_from_slice(signed.as_bytes()))
        {
            self.deployment.saw(SignedTime { time, signed });
        }
    }
}

/// The collection, if there is one.
async fn found_in(deployment: &Deployment) -> Result<Option<Found>, OpenError> {
    match timeout(Duration::from_secs(ANSWER_SECS_MAX), deployment.find_collection()).await {
        Ok(found) => found.map_err(|error| OpenError::Failed(sentence_of(&error))),
        Err(_) => Err(OpenError::Failed(format!("no answer within {ANSWER_SECS_MAX} s"))),
    }
}

/// A token begins with the type byte of a timestamp and its eight bytes, in hexadecimal digits.
fn time_of_token(data: &str) -> Option<ClusterTime> {
    let digits = data.strip_prefix("82")?;
    let word = |from: usize| u32::from_str_radix(digits.get(from..from + 8)?, 16).ok();
    Some(ClusterTime { seconds: word(0)?, increment: word(8)? })
}

impl StreamError {
    fn of(error: &Error) -> Self {
        let reason = sentence_of(error);
        match &*error.kind {
            // ChangeStreamHistoryLost, and BSONObjectTooLarge: an event that no answer can hold (an `_id` of megabytes, which
            // its token repeats) would stop the stream at this place for ever.
            ErrorKind::Command(command) if matches!(command.code, 286 | 10334) => StreamError::Lost(reason),
            // ChangeStreamFatalError and InvalidResumeToken.
            ErrorKind::Command(command) if matches!(command.code, 280 | 260) => StreamError::Refused(reason),
            _ => StreamError::Broken(reason),
        }
    }
}
