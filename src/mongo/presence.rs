//! The collection in which each server says how many sessions follow each room: one document per server.
//!
//! `{ _id: the server's, rooms: [{ room, here }], at: Date }`. All times are MongoDB's, so that the clocks of servers
//! need not agree. A server that stops removes its document; that of one that was killed is ignored after a minute, and
//! a TTL index removes it.

use std::{collections::HashMap, time::Duration};

use futures::TryStreamExt;
use mongodb::{
    Collection, IndexModel,
    bson::{Bson, RawBsonRef, RawDocument, RawDocumentBuf, doc, oid::ObjectId},
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
    pub async fn replace(&self, rooms: &[(RoomName, u32)]) -> Result<(), PresenceError> {
        let rooms: Vec<Bson> =
            rooms.iter().map(|(room, here)| doc! { "room": room.as_str(), "here": i64::from(*here) }.into()).collect();
        let said = doc! { "_id": self.id, "rooms": { "$literal": rooms }, "at": "$$NOW" };
        within_deadline(async {
            let update = vec![doc! { "$replaceWith": said }];
            let written = self.collection().update_one(doc! { "_id": self.id }, update).upsert(true).await?;
            if written.upserted_id.is_some() {
                // The first time, and when the collection was dropped. An index that is there costs nothing.
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

    /// What all other servers say together. Documents that are not what ours are, are left out.
    ///
    /// # Errors
    /// As [`Self::replace`].
    pub async fn others(&self) -> Result<HashMap<RoomName, u64>, PresenceError> {
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
            let find = find.projection(doc! { "rooms": { "$slice": ROOMS_PER_SERVER_MAX as i64 } });
            let mut servers = find.max_time(Duration::from_secs(STEP_SECS_MAX)).await?;
            let mut here = HashMap::new();
            while let Some(server) = servers.try_next().await? {
                add(&mut here, &server);
            }
            Ok(here)
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
}
