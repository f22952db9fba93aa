//! Pages of what is stored, each a bounded scan of an index.
//!
//! The order is (effective date, `_id`), newest first. Documents with a field `date` come from one ordered scan,
//! those whose time is in their ObjectId from another, and the two are merged. A page examines at most twice as
//! many documents as it asks for, and one more to know whether there are older ones.

use std::time::Duration;

use futures::TryStreamExt;
use mongodb::{
    ClientSession,
    bson::{Bson, Document, RawBsonRef, RawDocument, RawDocumentBuf, doc},
    error::{Error, ErrorKind},
    options::Hint,
};
use tokio::time::timeout;

use super::{
    connect::{Deployment, sentence_of},
    document::decode,
    id::bson_of,
    pipeline::projection,
    place::{Before, first_object_id_of},
    schema::date_range,
    scope::Scope,
    timestamp,
};
use crate::{cursor::ClusterTime, message::Message};

/// How long a read may take, in seconds: also the longest wait for a node that lags behind `at_least`.
const READ_SECS_MAX: u64 = 5;

/// How many documents of a room are looked at for its newest message: a few, as some may break the contract.
const NEWEST_ROWS: usize = 4;

/// Reads what is stored. Cheap to clone.
#[derive(Debug, Clone)]
pub struct History {
    pub(super) deployment: Deployment,
}

/// One page.
#[derive(Debug, Clone)]
pub struct Page {
    /// Oldest first. May be shorter than asked for although there are older ones: documents that break the
    /// contract are left out.
    pub messages: Vec<Message>,
    /// Where older ones begin; `None` when there are none.
    pub before: Option<Before>,
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

/// What the index gave, with the place of each document, valid or not.
struct Row {
    place: Before,
    document: RawDocumentBuf,
}

impl History {
    /// A reader of the deployment's collection.
    pub fn new(deployment: &Deployment) -> Self {
        Self { deployment: deployment.clone() }
    }

    /// The newest `limit` messages of `scope` that are older than `before`, as they were at `at_least` or later.
    ///
    /// # Errors
    /// When MongoDB does not answer within five seconds, or a node has not come to `at_least` by then.
    pub async fn page(
        &self,
        scope: &Scope,
        limit: usize,
        before: Option<&Before>,
        at_least: ClusterTime,
    ) -> Result<Page, ReadError> {
        self.within_deadline(async {
            let mut session = self.session_at(at_least).await?;
            self.read_page(&mut session, scope, limit, before).await
        })
        .await
    }

    /// One message, or `None` if there is none with this id that keeps the contract.
    ///
    /// # Errors
    /// As [`Self::page`].
    pub async fn get(&self, id: &str, at_least: ClusterTime) -> Result<Option<Message>, ReadError> {
        let Some(id) = bson_of(id) else {
            return Ok(None);
        };
        self.within_deadline(async {
            let mut session = self.session_at(at_least).await?;
            // `$eq`: an `_id` that is a document may look like an operator, and is to be found, not carried out.
            let messages = self.deployment.messages();
            let find = messages.find_one(doc! { "_id": { "$eq": id } }).projection(projection());
            let found = find.session(&mut session).await?;
            Ok(found.and_then(|document| decode(&document).ok()))
        })
        .await
    }

    async fn read_page(
        &self,
        session: &mut ClientSession,
        scope: &Scope,
        limit: usize,
        before: Option<&Before>,
    ) -> Result<Page, ReadError> {
        let passed = before.map_or(0, |before| before.passed);
        let mut rows = self.rows(session, scope, passed + limit, before).await?;
        rows.drain(..passed.min(rows.len()));
        let is_full = rows.len() >= limit;
        let has_surely_more = rows.len() > limit;
        rows.truncate(limit);
        let places: Vec<Before> = rows.iter().map(|row| row.place.clone()).collect();
        let next = Before::after(before, &places).filter(|_| is_full);
        let before = match next {
            Some(next) if has_surely_more || self.has_older(session, scope, &next).await? => Some(next),
            _ => None,
        };
        let mut messages: Vec<Message> = rows.iter().filter_map(|row| decode(&row.document).ok()).collect();
        messages.reverse();
        Ok(Page { messages, before })
    }

    /// The merged scans, newest first: `limit` rows if there are as many, and at most twice as many.
    async fn rows(
        &self,
        session: &mut ClientSession,
        scope: &Scope,
        limit: usize,
        before: Option<&Before>,
    ) -> Result<Vec<Row>, ReadError> {
        let mut rows = self.dated(session, scope, limit, before).await?;
        // What is older than a full page of dated ones is not of this page.
        let oldest = rows.last().filter(|_| rows.len() == limit).map(|row| row.place.millis);
        let undated = self.undated(session, scope, limit, before, oldest).await?;
        if !undated.is_empty() {
            rows.extend(undated);
            rows.sort_by(newest_first);
        }
        Ok(rows)
    }

    /// The newest valid message among the newest few documents of `scope`.
    pub(super) async fn newest(
        &self,
        session: &mut ClientSession,
        scope: &Scope,
    ) -> Result<Option<Message>, ReadError> {
        let rows = self.rows(session, scope, NEWEST_ROWS, None).await?;
        Ok(rows.iter().find_map(|row| decode(&row.document).ok()))
    }

    async fn has_older(&self, session: &mut ClientSession, scope: &Scope, place: &Before) -> Result<bool, ReadError> {
        let wanted = place.passed + 1;
        let dated = self.dated(session, scope, wanted, Some(place)).await?.len();
        Ok(dated == wanted || dated + self.undated(session, scope, wanted, Some(place), None).await?.len() >= wanted)
    }

    /// Documents with a field `date`, newest first. Those of the very millisecond of `before` are asked for first, by
    /// id across all BSON types, which only `$expr` compares: `$lt` alone looks at one type.
    async fn dated(
        &self,
        session: &mut ClientSession,
        scope: &Scope,
        limit: usize,
        before: Option<&Before>,
    ) -> Result<Vec<Row>, ReadError> {
        let (first, last) = date_range();
        let mut rows = Vec::new();
        let mut range = doc! { "$gte": first, "$lte": last };
        if let Some(before) = before {
            let date = mongodb::bson::DateTime::from_millis(before.millis);
            if let Some(id) = &before.id {
                let older_id = doc! { "$expr": { "$lt": ["$_id", { "$literal": id.clone() }] } };
                let filter = scope.filter(doc! { "date": date }, older_id);
                rows = self.scan(session, scope, filter, doc! { "_id": -1 }, limit).await?;
            }
            range = doc! { "$gte": first, "$lt": date };
        }
        if rows.len() < limit {
            let filter = scope.filter(doc! { "date": range }, Document::new());
            let sort = doc! { "date": -1, "_id": -1 };
            rows.extend(self.scan(session, scope, filter, sort, limit - rows.len()).await?);
        }
        Ok(rows)
    }

    /// Documents without a date, newest first; not older than `oldest`, in milliseconds.
    async fn undated(
        &self,
        session: &mut ClientSession,
        scope: &Scope,
        limit: usize,
        before: Option<&Before>,
        oldest: Option<i64>,
    ) -> Result<Vec<Row>, ReadError> {
        let bound = before.and_then(Before::object_id_bound);
        let lowest = first_object_id_of(oldest.map_or(0, |millis| millis.div_euclid(1_000)));
        let Some(lowest) = lowest else {
            return Ok(Vec::new());
        };
        // Both bounds are ObjectIds, so nothing but ObjectIds is looked at.
        let ids = match bound {
            Some(bound) => doc! { "$gte": lowest, "$lt": bound },
            None => doc! { "$gte": lowest },
        };
        let filter = scope.filter(doc! { "date": null, "_id": ids }, Document::new());
        self.scan(session, scope, filter, doc! { "_id": -1 }, limit).await
    }

    async fn scan(
        &self,
        session: &mut ClientSession,
        scope: &Scope,
        filter: Document,
        sort: Document,
        limit: usize,
    ) -> Result<Vec<Row>, ReadError> {
        let messages = self.deployment.messages();
        let find = |hint: Option<Document>| {
            let find = messages.find(filter.clone()).sort(sort.clone()).limit(limit as i64);
            let find = find.projection(projection()).max_time(Duration::from_secs(READ_SECS_MAX));
            match hint {
                Some(key) => find.hint(Hint::Keys(key)),
                None => find,
            }
        };
        let mut cursor = match find(scope.index()).session(&mut *session).await {
            // Somebody dropped our index (Mongoose's `syncIndexes` does): slowly is better than not at all.
            Err(error) if is_missing_index(&error) => find(None).session(&mut *session).await?,
            found => found?,
        };
        let mut rows = Vec::new();
        let mut documents = cursor.stream(session);
        while let Some(document) = documents.try_next().await? {
            rows.push(Row { place: place_of(&document), document });
        }
        Ok(rows)
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

/// 2 BadValue: "hint provided does not correspond to an existing index".
pub(super) fn is_missing_index(error: &Error) -> bool {
    matches!(&*error.kind, ErrorKind::Command(command) if command.code == 2 && command.message.contains("hint"))
}

fn place_of(document: &RawDocument) -> Before {
    // An `_id` that can not be read stands beside a date: without one only ObjectIds are looked at.
    let id = document.get("_id").ok().flatten();
    let millis = match document.get("date").ok().flatten() {
        Some(RawBsonRef::DateTime(date)) => date.timestamp_millis(),
        _ => id.and_then(RawBsonRef::as_object_id).map_or(0, |id| id.timestamp().timestamp_millis()),
    };
    Before::document(millis, id)
}

/// The merged order of the two scans. Within each scan MongoDB has put equal dates in the order of their ids, which
/// the stable sort keeps; between the scans only ObjectIds of one millisecond can meet.
fn newest_first(a: &Row, b: &Row) -> std::cmp::Ordering {
    let by_date = b.place.millis.cmp(&a.place.millis);
    by_date.then_with(|| match (&a.place.id, &b.place.id) {
        (Some(Bson::ObjectId(a)), Some(Bson::ObjectId(b))) => b.bytes().cmp(&a.bytes()),
        _ => b.place.order_beside_object_ids().cmp(&a.place.order_beside_object_ids()),
    })
}
