//! Pages of what is stored.
//!
//! A page examines at most twice as many documents as it asks for, and one or two more to know whether others follow
//! on each side; see `scan`.

use std::{sync::Arc, time::Duration};

use mongodb::{
    ClientSession,
    bson::doc,
    error::{Error, ErrorKind},
};
use tokio::{sync::Semaphore, time::timeout};

use super::{
    connect::{Deployment, sentence_of},
    document::decode,
    id::bson_of,
    pipeline::projection,
    place::{HistoryPlace, Way},
    scan::{More, PAGE_BYTES_MAX, Row, Rows, Scan, place_of},
    scope::Scope,
    search::SEARCHES_MAX,
    timestamp,
};
use crate::{cursor::ClusterTime, message::Message};

/// How long a read may take, in seconds: also the longest wait for a node that lags behind `at_least`.
pub(super) const READ_SECS_MAX: u64 = 5;

/// Reads what is stored. Cheap to clone.
#[derive(Debug, Clone)]
pub struct History {
    pub(super) deployment: Deployment,
    /// Turns at searching, which costs more than a page.
    pub(super) searches: Arc<Semaphore>,
}

/// One page.
#[derive(Debug, Clone)]
pub struct Page {
    /// Oldest first. May be shorter than asked for although there are others: documents that break the contract are
    /// left out, and long contents fill a page.
    pub messages: Vec<Message>,
    /// Beyond which older ones begin; `None` when there are none.
    pub before: Option<HistoryPlace>,
    /// Beyond which newer ones begin; `None` when there are none.
    pub after: Option<HistoryPlace>,
}

/// MongoDB could not be read. Trying again is safe.
#[derive(Debug, thiserror::Error)]
#[error("MongoDB could not be read just now; try again in a moment")]
pub struct ReadError {
    /// For the log.
    pub reason: String,
}

impl From<Error> for ReadError {
    fn from(error: Error) -> Self {
        let reason = match &*error.kind {
            ErrorKind::Command(command) if command.code == 50 => "the read took too long".into(),
            _ => sentence_of(&error),
        };
        Self { reason }
    }
}

impl History {
    /// A reader of the deployment's collection.
    pub fn new(deployment: &Deployment) -> Self {
        Self { deployment: deployment.clone(), searches: Arc::new(Semaphore::new(SEARCHES_MAX)) }
    }

    /// The newest `limit` messages of `scope` that are older than `before`, as they were at `at_least` or later. Without
    /// `before` nobody is asked for newer ones: what came since stands in the stream.
    ///
    /// # Errors
    /// When MongoDB does not answer within five seconds, or a node has not come to `at_least` by then.
    pub async fn page(
        &self,
        scope: &Scope,
        limit: usize,
        before: Option<&HistoryPlace>,
        at_least: ClusterTime,
    ) -> Result<Page, ReadError> {
        self.within_deadline(async {
            let mut session = self.session_at(at_least).await?;
            let older = self.scan(&mut session, scope, Way::Older).read(before, limit).await?.within(PAGE_BYTES_MAX);
            let after = match before {
                Some(before) => self.way_back(&mut session, scope, Way::Older, before, &older).await?,
                None => None,
            };
            let next = HistoryPlace::after(Way::Older, before, &older.places());
            let before = self.scan(&mut session, scope, Way::Older).way_on(next, older.more).await?;
            Ok(Page { messages: messages_of(older.rows.iter().rev()), before, after })
        })
        .await
    }

    /// The oldest `limit` messages of `scope` that are newer than `after`, as [`Self::page`]. A page without `after` is
    /// at the end: what is newer comes after the place in the stream that was taken before the read.
    ///
    /// # Errors
    /// As [`Self::page`].
    pub async fn page_after(
        &self,
        scope: &Scope,
        limit: usize,
        after: &HistoryPlace,
        at_least: ClusterTime,
    ) -> Result<Page, ReadError> {
        self.within_deadline(async {
            let mut session = self.session_at(at_least).await?;
            let newer = self.scan(&mut session, scope, Way::Newer).read(Some(after), limit).await?;
            let newer = newer.within(PAGE_BYTES_MAX);
            let before = self.way_back(&mut session, scope, Way::Newer, after, &newer).await?;
            let next = HistoryPlace::after(Way::Newer, Some(after), &newer.places());
            let after = self.scan(&mut session, scope, Way::Newer).way_on(next, newer.more).await?;
            Ok(Page { messages: messages_of(newer.rows.iter()), before, after })
        })
        .await
    }

    /// The message `id` amid at most `limit / 2` older ones and as many newer ones as make `limit` with it. `None`: there
    /// is no such message in `scope`.
    ///
    /// # Errors
    /// As [`Self::page`].
    pub async fn page_around(
        &self,
        scope: &Scope,
        limit: usize,
        id: &str,
        at_least: ClusterTime,
    ) -> Result<Option<Page>, ReadError> {
        self.within_deadline(async {
            let mut session = self.session_at(at_least).await?;
            let Some((place, message)) = self.find(&mut session, id).await? else {
                return Ok(None);
            };
            if !scope.contains(&message) {
                return Ok(None);
            }
            let (older_max, newer_max) = (limit / 2, (limit - limit / 2).saturating_sub(1));
            let (mut messages, before) = self.side(&mut session, scope, Way::Older, &place, older_max).await?;
            messages.reverse();
            messages.push(message);
            let (newer, after) = self.side(&mut session, scope, Way::Newer, &place, newer_max).await?;
            messages.extend(newer);
            Ok(Some(Page { messages, before, after }))
        })
        .await
    }

    /// One message, or `None` if there is none with this id that keeps the contract.
    ///
    /// # Errors
    /// As [`Self::page`].
    pub async fn get(&self, id: &str, at_least: ClusterTime) -> Result<Option<Message>, ReadError> {
        self.within_deadline(async {
            let mut session = self.session_at(at_least).await?;
            let found = self.find(&mut session, id).await?;
            Ok(found.map(|(_, message)| message))
        })
        .await
    }

    async fn find(&self, session: &mut ClientSession, id: &str) -> Result<Option<(HistoryPlace, Message)>, ReadError> {
        let Some(id) = bson_of(id) else {
            return Ok(None);
        };
        // `$eq`: an `_id` that is a document may look like an operator, and is to be found, not carried out.
        let messages = self.deployment.messages();
        let find = messages.find_one(doc! { "_id": { "$eq": id } }).projection(projection());
        let found = find.session(session).await?;
        Ok(found.and_then(|document| Some((place_of(&document), decode(&document).ok()?))))
    }

    /// What lies on one side of a message, in the order of that way, and the place to go on from.
    async fn side(
        &self,
        session: &mut ClientSession,
        scope: &Scope,
        way: Way,
        from: &HistoryPlace,
        limit: usize,
    ) -> Result<(Vec<Message>, Option<HistoryPlace>), ReadError> {
        let mut scan = self.scan(session, scope, way);
        let rows = scan.read(Some(from), limit).await?.within(PAGE_BYTES_MAX / 2);
        let next = HistoryPlace::after(way, Some(from), &rows.places()).or_else(|| Some(from.clone()));
        let next = scan.way_on(next, rows.more).await?;
        Ok((messages_of(rows.rows.iter()), next))
    }

    /// Where those begin that lie on the way back to `from`, and beyond, if there are any.
    async fn way_back(
        &self,
        session: &mut ClientSession,
        scope: &Scope,
        way: Way,
        from: &HistoryPlace,
        rows: &Rows,
    ) -> Result<Option<HistoryPlace>, ReadError> {
        let place = HistoryPlace::way_back(way, from, &rows.places());
        let mut scan = self.scan(session, scope, way.back());
        scan.way_on(Some(place), More::Perhaps).await
    }

    pub(super) fn scan<'a>(&'a self, session: &'a mut ClientSession, scope: &'a Scope, way: Way) -> Scan<'a> {
        Scan { history: self, session, scope, way, time_max: Duration::from_secs(READ_SECS_MAX) }
    }

    /// A causal session: its reads are at least as new as `at_least`, on whichever node they run.
    pub(super) async fn session_at(&self, at_least: ClusterTime) -> Result<ClientSession, Error> {
        let client = self.deployment.requests().client().clone();
        let mut session = client.start_session().causal_consistency(true).await?;
        let mut at_least = timestamp(at_least);
        if let Some(newest) = self.deployment.newest_time() {
            session.advance_cluster_time(&newest.signed);
            // The position of an idle stream lies one beyond the newest change, and MongoDB refuses to wait for a time
            // to come. The newest time that the stream has told includes everything before its position.
            at_least = at_least.min(newest.time);
        }
        session.advance_operation_time(at_least);
        Ok(session)
    }

    pub(super) async fn within_deadline<T>(
        &self,
        read: impl Future<Output = Result<T, ReadError>>,
    ) -> Result<T, ReadError> {
        timeout(Duration::from_secs(READ_SECS_MAX), read)
            .await
            .unwrap_or_else(|_| Err(ReadError { reason: format!("no answer within {READ_SECS_MAX} s") }))
    }
}

/// The messages among rows: those that keep the contract.
fn messages_of<'a>(rows: impl Iterator<Item = &'a Row>) -> Vec<Message> {
    rows.filter_map(|row| decode(&row.document).ok()).collect()
}
