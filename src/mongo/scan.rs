//! Stretches of a history in its order, on either way, each a bounded scan of an index.
//!
//! The order is (effective date, `_id`). Documents with a field `date` come from one ordered scan, those whose time is
//! in their ObjectId from another, and the two are merged: at most twice as many documents are examined as are given.

use std::{cmp::Ordering, time::Duration};

use futures::TryStreamExt;
use mongodb::{
    ClientSession,
    bson::{Bson, DateTime, Document, RawBsonRef, RawDocument, RawDocumentBuf, doc},
    error::{Error, ErrorKind},
    options::Hint,
};

use super::{
    History, ReadError, Scope,
    pipeline::projection,
    place::{HistoryPlace, Way, first_object_id_of},
    schema::date_range,
};

/// Reads one scope on one way.
pub(super) struct Scan<'a> {
    pub(super) history: &'a History,
    pub(super) session: &'a mut ClientSession,
    pub(super) scope: &'a Scope,
    pub(super) way: Way,
    /// How long MongoDB may work on one question.
    pub(super) time_max: Duration,
}

/// What the index gave, with the place of each document, valid or not.
pub(super) struct Row {
    pub(super) place: HistoryPlace,
    pub(super) document: RawDocumentBuf,
}

/// Some rows in the order of the way, and whether others follow.
pub(super) struct Rows {
    pub(super) rows: Vec<Row>,
    pub(super) more: More,
}

/// Whether rows follow, as far as it is known without asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum More {
    No,
    Perhaps,
    Surely,
}

/// The most bytes of the contents of one page, as they are in JSON or HTML: a page is held in memory for as long as its
/// reader takes for it. Far more than people write on a page; where it is not enough, others follow on the next one.
pub(super) const PAGE_BYTES_MAX: usize = 256 * 1024;

impl Rows {
    /// As many of the first rows as fit into `bytes_max`, and at least one.
    pub(super) fn within(mut self, bytes_max: usize) -> Self {
        let mut bytes = 0;
        let first_beyond = self.rows.iter().position(|row| {
            bytes += shown_bytes(row.document.get_str("content").unwrap_or_default());
            bytes > bytes_max
        });
        if let Some(first_beyond) = first_beyond.map(|index| index.max(1)).filter(|index| *index < self.rows.len()) {
            self.rows.truncate(first_beyond);
            self.more = More::Surely;
        }
        self
    }

    pub(super) fn places(&self) -> Vec<HistoryPlace> {
        self.rows.iter().map(|row| row.place.clone()).collect()
    }
}

impl Scan<'_> {
    /// The next `limit` rows beyond `from`, or from the end of the history where the way begins.
    pub(super) async fn read(&mut self, from: Option<&HistoryPlace>, limit: usize) -> Result<Rows, ReadError> {
        if limit == 0 {
            // MongoDB takes it for "all".
            return Ok(Rows { rows: Vec::new(), more: More::Perhaps });
        }
        let passed = from.map_or(0, |from| from.passed_on(self.way));
        let mut rows = self.merged(from, passed + limit).await?;
        rows.drain(..passed.min(rows.len()));
        let more = match rows.len().cmp(&limit) {
            Ordering::Less => More::No,
            Ordering::Equal => More::Perhaps,
            Ordering::Greater => More::Surely,
        };
        rows.truncate(limit);
        Ok(Rows { rows, more })
    }

    /// `place`, if anything lies beyond it.
    pub(super) async fn way_on(
        &mut self,
        place: Option<HistoryPlace>,
        more: More,
    ) -> Result<Option<HistoryPlace>, ReadError> {
        let Some(place) = place else {
            return Ok(None);
        };
        let goes_on = match more {
            More::No => false,
            More::Surely => true,
            More::Perhaps => {
                let wanted = place.passed_on(self.way) + 1;
                let dated = self.dated(Some(&place), wanted).await?.len();
                dated == wanted || dated + self.undated(Some(&place), wanted, None).await?.len() >= wanted
            }
        };
        Ok(goes_on.then_some(place))
    }

    /// The merged scans: `limit` rows if there are as many, and at most twice as many.
    async fn merged(&mut self, from: Option<&HistoryPlace>, limit: usize) -> Result<Vec<Row>, ReadError> {
        let mut rows = self.dated(from, limit).await?;
        // What lies beyond a full page of dated ones is not of this page.
        let last = rows.last().filter(|_| rows.len() == limit).map(|row| row.place.millis);
        let undated = self.undated(from, limit, last).await?;
        if !undated.is_empty() {
            rows.extend(undated);
            match self.way {
                Way::Older => rows.sort_by(|a, b| oldest_first(b, a)),
                Way::Newer => rows.sort_by(oldest_first),
            }
        }
        Ok(rows)
    }

    /// Documents with a field `date`. Those of the very millisecond of `from` are asked for first, by id across all BSON
    /// types, which only `$expr` compares: `$lt` alone looks at one type.
    async fn dated(&mut self, from: Option<&HistoryPlace>, limit: usize) -> Result<Vec<Row>, ReadError> {
        let (first, last) = date_range();
        let (beyond, sort) = match self.way {
            Way::Older => ("$lt", -1),
            Way::Newer => ("$gt", 1),
        };
        let mut rows = Vec::new();
        let mut range = doc! { "$gte": first, "$lte": last };
        if let Some(from) = from {
            let date = DateTime::from_millis(from.millis);
            if let Some(id) = &from.id {
                let id_beyond = doc! { "$expr": { beyond: ["$_id", { "$literal": id.clone() }] } };
                let filter = self.scope.filter(doc! { "date": date }, id_beyond);
                rows = self.find(filter, doc! { "_id": sort }, limit).await?;
            }
            range.insert(beyond, date);
        }
        if rows.len() < limit {
            let filter = self.scope.filter(doc! { "date": range }, Document::new());
            rows.extend(self.find(filter, doc! { "date": sort, "_id": sort }, limit - rows.len()).await?);
        }
        Ok(rows)
    }

    /// Documents without a date; none beyond the second of `last`, which is in milliseconds.
    async fn undated(
        &mut self,
        from: Option<&HistoryPlace>,
        limit: usize,
        last: Option<i64>,
    ) -> Result<Vec<Row>, ReadError> {
        let ids = from.map_or_else(|| Some(Document::new()), |from| from.object_ids_beyond(self.way));
        let Some(mut ids) = ids else {
            return Ok(Vec::new());
        };
        let second = last.map(|millis| millis.div_euclid(1_000));
        // At least one bound is an ObjectId, so nothing but ObjectIds is looked at.
        match self.way {
            Way::Older => {
                let Some(lowest) = first_object_id_of(second.unwrap_or(0)) else {
                    return Ok(Vec::new());
                };
                ids.insert("$gte", lowest);
            }
            Way::Newer => {
                if let Some(end) = second.and_then(|second| first_object_id_of(second + 1)) {
                    ids.insert("$lt", end);
                }
            }
        }
        let filter = self.scope.filter(doc! { "date": null, "_id": ids }, Document::new());
        let sort = if self.way == Way::Older { -1 } else { 1 };
        self.find(filter, doc! { "_id": sort }, limit).await
    }

    async fn find(&mut self, filter: Document, sort: Document, limit: usize) -> Result<Vec<Row>, ReadError> {
        let messages = self.history.deployment.messages();
        // All in one reply: by itself MongoDB gives 101 documents at first.
        let batch_size = u32::try_from(limit).map_or(u32::MAX, |limit| limit.saturating_add(1));
        let find = |hint: Option<Document>| {
            let find = messages.find(filter.clone()).sort(sort.clone()).limit(limit as i64).batch_size(batch_size);
            let find = find.projection(projection()).max_time(self.time_max);
            match hint {
                Some(key) => find.hint(Hint::Keys(key)),
                None => find,
            }
        };
        let mut cursor = match find(self.scope.index()).session(&mut *self.session).await {
            // Somebody dropped our index (Mongoose's `syncIndexes` does): slowly is better than not at all.
            Err(error) if is_missing_index(&error) => find(None).session(&mut *self.session).await?,
            found => found?,
        };
        let mut rows = Vec::new();
        let mut documents = cursor.stream(self.session);
        while let Some(document) = documents.try_next().await? {
            rows.push(Row { place: place_of(&document), document });
        }
        Ok(rows)
    }
}

/// How many bytes a content takes where it is shown, from above: in JSON, or in HTML, each of these takes six.
pub(super) fn shown_bytes(content: &str) -> usize {
    let is_escaped = |byte: &u8| *byte < 0x20 || matches!(byte, b'"' | b'\'' | b'&' | b'<' | b'>' | b'\\');
    content.len() + 5 * content.as_bytes().iter().filter(|byte| is_escaped(byte)).count()
}

/// 2 BadValue: "hint provided does not correspond to an existing index".
pub(super) fn is_missing_index(error: &Error) -> bool {
    matches!(&*error.kind, ErrorKind::Command(command) if command.code == 2 && command.message.contains("hint"))
}

/// Where a document stands.
pub(super) fn place_of(document: &RawDocument) -> HistoryPlace {
    // An `_id` that can not be read stands beside a date: without one only ObjectIds are looked at.
    let id = document.get("_id").ok().flatten();
    let millis = match document.get("date").ok().flatten() {
        Some(RawBsonRef::DateTime(date)) => date.timestamp_millis(),
        _ => id.and_then(RawBsonRef::as_object_id).map_or(0, |id| id.timestamp().timestamp_millis()),
    };
    HistoryPlace::document(millis, id)
}

/// The merged order of the two scans. Within each scan MongoDB has put equal dates in the order of their ids, which
/// the stable sort keeps; between the scans only ObjectIds of one millisecond can meet.
fn oldest_first(a: &Row, b: &Row) -> Ordering {
    let by_date = a.place.millis.cmp(&b.place.millis);
    by_date.then_with(|| match (&a.place.id, &b.place.id) {
        (Some(Bson::ObjectId(a)), Some(Bson::ObjectId(b))) => a.bytes().cmp(&b.bytes()),
        _ => a.place.order_beside_object_ids().cmp(&b.place.order_beside_object_ids()),
    })
}
