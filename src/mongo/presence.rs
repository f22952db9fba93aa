//! The collection in which each server says how it is and how many sessions follow each room: one document per server.
//!
//! `{ _id: the server's, rooms: [{ room, here }], server: {...}, at: Date }`, where `server` is a [`ServerReport`]. The
//! time is MongoDB's, so that the clocks of servers need not agree. A server that stops removes its document; that of one
//! that was killed is ignored after a minute, and a TTL index removes it, or the same server does that is started again.

use std::{collections::HashMap, time::Duration};

use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use mongodb::{
    Collection, IndexModel,
    bson::{self, Bson, Document, RawBsonRef, RawDocument, RawDocumentBuf, doc, oid::ObjectId},
    error::{Error, ErrorKind},
    options::{CollectionOptions, IndexOptions, ReadConcern, WriteConcern},
};
use tokio::time::timeout;

use super::connect::{Deployment, sentence_of};
use crate::message::RoomName;

/// How long a document counts after it was written, in seconds.
pub const PRESENCE_SECS_MAX: u64 = 60;
/// How long a step may take, in seconds.
const STEP_SECS_MAX: u64 = 2;
/// Of how many servers the documents are read, and how many rooms of each.
const SERVERS_MAX: i64 = 100;
/// The most rooms in a server's document.
pub const ROOMS_PER_SERVER_MAX: usize = 1_000;

/// This server's document, and the others'. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PresenceStore {
    deployment: Deployment,
    id: ObjectId,
}

/// How a server says that it is. What other servers say is shown to people and decides nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerReport {
    /// Its machine and port.
    pub name: String,
    /// The version of the program.
    pub version: String,
    /// Since when it runs.
    pub started_at: DateTime<Utc>,
    /// What it tells its clients of the change stream.
    pub stream: String,
    /// How far it is behind MongoDB.
    pub lag_millis: u64,
    /// Its open sessions.
    pub connections: u64,
    /// Changes that it hands to connections.
    pub deliveries_per_second: f64,
}

/// What all other servers say.
#[derive(Debug, Default)]
pub struct Others {
    /// How many sessions follow each room, on all of them together.
    pub here: HashMap<RoomName, u64>,
    /// How each of them is, and how many seconds ago it said so.
    pub servers: Vec<(ServerReport, u64)>,
}

/// The longest name or version of another server that is shown, in characters.
const NAME_CHARS_MAX: usize = 100;

impl ServerReport {
    /// That of a server which starts now.
    pub fn starting(name: String, stream: &str) -> Self {
        Self {
            name,
            version: env!("CARGO_PKG_VERSION").into(),
            started_at: Utc::now(),
            stream: stream.into(),
            lag_millis: 0,
            connections: 0,
            deliveries_per_second: 0.0,
        }
    }

    fn to_document(&self) -> Document {
        let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        doc! {
            "name": &self.name,
            "version": &self.version,
            "startedAt": bson::DateTime::from_millis(self.started_at.timestamp_millis()),
            "stream": &self.stream,
            "lagMillis": count(self.lag_millis),
            "connections": count(self.connections),
            "deliveriesPerSecond": self.deliveries_per_second,
        }
    }

    /// `None` when that can not be understood, as that of another version of the program may.
    fn of_document(document: &RawDocument) -> Option<Self> {
        let text = |field| Some(document.get_str(field).ok()?.chars().take(NAME_CHARS_MAX).collect::<String>());
        let count = |field| u64::try_from(document.get_i64(field).ok()?).ok();
        let rate = document.get_f64("deliveriesPerSecond").ok()?;
        Some(Self {
            name: text("name")?,
            version: text("version")?,
            started_at: DateTime::from_timestamp_millis(document.get_datetime("startedAt").ok()?.timestamp_millis())?,
            stream: text("stream")?,
            lag_millis: count("lagMillis")?,
            connections: count("connections")?,
            deliveries_per_second: if rate.is_finite() { rate } else { return None },
        })
    }
}

/// The collection could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum PresenceError {
    /// The user of MONGODB_URI may not do that, and trying again soon is of no use.
    #[error("{0}")]
    Forbidden(String),
    /// Anything else. Trying again is safe.
    #[error("{0}")]
    Failed(String),
}

impl From<Error> for PresenceError {
    fn from(error: Error) -> Self {
        let reason = sentence_of(&error);
        match &*error.kind {
            // 13 Unauthorized, 8000 AtlasError: what Atlas says instead; 166 CommandNotSupportedOnView: the name is taken.
            ErrorKind::Command(command) if [13, 8_000, 166].contains(&command.code) => Self::Forbidden(reason),
            _ => Self::Failed(reason),
        }
    }
}

impl PresenceStore {
    /// The store of one server over `deployment`.
    pub fn new(deployment: &Deployment) -> Self {
        Self { deployment: deployment.clone(), id: ObjectId::new() }
    }

    /// The collection's name.
    pub fn collection_name(&self) -> String {
        format!("corriente_presence_{}", self.deployment.collection)
    }

    /// Puts this in place of what this server has said.
    ///
    /// # Errors
    /// When MongoDB refuses or does not answer within two seconds.
    pub async fn replace(&self, rooms: &[(RoomName, u32)], report: &ServerReport) -> Result<(), PresenceError> {
        let rooms: Vec<Bson> =
            rooms.iter().map(|(room, here)| doc! { "room": room.as_str(), "here": i64::from(*here) }.into()).collect();
        let server = report.to_document();
        let said = doc! {
            "_id": self.id, "rooms": { "$literal": rooms }, "server": { "$literal": server }, "at": "$$NOW",
        };
        within_deadline(async {
            let update = vec![doc! { "$replaceWith": said }];
            let written = self.collection().update_one(doc! { "_id": self.id }, update).upsert(true).await?;
            if written.upserted_id.is_some() {
                // The first time, and when the collection was dropped. What was said under this name before this server
                // was started is of the same one, which was killed. An index that is there costs nothing.
                let started = bson::DateTime::from_millis(report.started_at.timestamp_millis());
                let older = doc! { "_id": { "$ne": self.id }, "server.name": &report.name, "at": { "$lt": started } };
                self.collection().delete_many(older).await?;
                self.build_index().await?;
            }
            Ok(())
        })
        .await
    }

    /// Takes away what this server has said.
    ///
    /// # Errors
    /// As [`Self::replace`].
    pub async fn remove(&self) -> Result<(), PresenceError> {
        within_deadline(async {
            self.collection().delete_one(doc! { "_id": self.id }).await?;
            Ok(())
        })
        .await
    }

    /// What all other servers say. Documents that are not what ours are, are left out.
    ///
    /// # Errors
    /// As [`Self::replace`].
    pub async fn others(&self) -> Result<Others, PresenceError> {
        let millis = PRESENCE_SECS_MAX as i64 * 1_000;
        let filter = doc! {
            "_id": { "$ne": self.id },
            "at": { "$type": "date" },
            // Comparisons, as arithmetic fails on what is no date.
            "$expr": { "$and": [
                { "$gt": ["$at", { "$subtract": ["$$NOW", millis] }] },
                { "$lt": ["$at", { "$add": ["$$NOW", millis] }] },
            ] },
        };
        within_deadline(async {
            let collection = self.collection();
            let find = collection.find(filter).limit(SERVERS_MAX);
            let find = find.projection(doc! {
                "rooms": { "$slice": ROOMS_PER_SERVER_MAX as i64 },
                "server": 1,
                "age": { "$subtract": ["$$NOW", "$at"] },
            });
            let mut documents = find.max_time(Duration::from_secs(STEP_SECS_MAX)).await?;
            let mut others = Others::default();
            while let Some(document) = documents.try_next().await? {
                add(&mut others.here, &document);
                let age_millis = document.get_i64("age").unwrap_or_default().max(0);
                let report = document.get_document("server").ok().and_then(ServerReport::of_document);
                others.servers.extend(report.map(|report| (report, age_millis.unsigned_abs() / 1_000)));
            }
            others.servers.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
            Ok(others)
        })
        .await
    }

    async fn build_index(&self) -> Result<(), Error> {
        let mut options = IndexOptions::builder().name("corriente_presence_ttl".to_owned()).build();
        options.expire_after = Some(Duration::from_secs(PRESENCE_SECS_MAX));
        let index = IndexModel::builder().keys(doc! { "at": 1 }).options(options).build();
        self.collection().create_index(index).await.map(drop)
    }

    fn collection(&self) -> Collection<RawDocumentBuf> {
        // What is lost in an election is told again within seconds: no reason to wait for the disks of a majority.
        let options = CollectionOptions::builder()
            .write_concern(WriteConcern::nodes(1))
            .read_concern(ReadConcern::local())
            .build();
        self.deployment.requests().collection_with_options(&self.collection_name(), options)
    }
}

/// Adds what one server says, as far as it can be understood.
fn add(here: &mut HashMap<RoomName, u64>, server: &RawDocument) {
    let Ok(rooms) = server.get_array("rooms") else {
        return;
    };
    for entry in rooms.into_iter().filter_map(Result::ok).filter_map(RawBsonRef::as_document) {
        let room = entry.get_str("room").ok().and_then(|name| RoomName::parse(name).ok());
        let count = match entry.get("here") {
            Ok(Some(RawBsonRef::Int32(count))) => u32::try_from(count).ok(),
            Ok(Some(RawBsonRef::Int64(count))) => u32::try_from(count).ok(),
            _ => None,
        };
        if let (Some(room), Some(count)) = (room, count.filter(|count| *count > 0)) {
            // A hundred servers of four thousand million each do not overflow.
            *here.entry(room).or_default() += u64::from(count);
        }
    }
}

async fn within_deadline<T>(step: impl Future<Output = Result<T, Error>>) -> Result<T, PresenceError> {
    match timeout(Duration::from_secs(STEP_SECS_MAX), step).await {
        Ok(done) => done.map_err(PresenceError::from),
        Err(_) => Err(PresenceError::Failed(format!("no answer within {STEP_SECS_MAX} s"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_none_of_ours_is_not_counted() {
        let mut here = HashMap::new();
        for server in [
            doc! { "rooms": [
                { "room": "a", "here": 2 },
                { "room": "a", "here": 3_i64 },
                { "room": " a", "here": 1 },
                { "room": "b", "here": -1 },
                { "room": "b", "here": "7" },
                { "room": "b", "here": i64::MAX },
                { "here": 1 },
                "b",
            ] },
            doc! { "rooms": "a" },
            doc! {},
        ] {
            add(&mut here, &RawDocumentBuf::try_from(&server).unwrap());
        }
        assert_eq!(here, HashMap::from([(RoomName::parse("a").unwrap(), 5)]));
    }

    #[test]
    fn a_report_is_read_as_it_was_written_and_what_is_none_is_not() {
        let mut report = ServerReport::starting("web-1:3000".into(), "live");
        report.started_at = DateTime::from_timestamp_millis(1_700_000_000_123).unwrap();
        (report.connections, report.lag_millis, report.deliveries_per_second) = (3, 12, 4.5);
        let read = |document: &Document| ServerReport::of_document(&RawDocumentBuf::try_from(document).unwrap());
        let written = report.to_document();
        assert_eq!(read(&written), Some(report));
        for (field, value) in [
            ("name", Bson::Int32(1)),
            ("connections", Bson::Int64(-1)),
            ("deliveriesPerSecond", Bson::Double(f64::NAN)),
            ("startedAt", Bson::Null),
        ] {
            let mut other = written.clone();
            other.insert(field, value);
            assert_eq!(read(&other), None, "{field}");
        }
        let long = doc! { "name": "x".repeat(10_000) };
        let mut other = written;
        other.extend(long);
        assert_eq!(read(&other).unwrap().name.len(), NAME_CHARS_MAX);
    }
}
