//! The rooms that there are: a walk over the index by name, one seek per room, however many messages it has.

use std::time::Duration;

use futures::TryStreamExt;
use mongodb::{ClientSession, bson::doc, error::Error, options::Hint};

use super::{
    History, ReadError, Scope,
    history::is_missing_index,
    schema::{room_key, to_nobody},
};
use crate::{
    cursor::ClusterTime,
    message::{DEFAULT_ROOM, Message, RoomName},
};

/// A room and its newest message.
#[derive(Debug, Clone)]
pub struct RoomSummary {
    /// The room.
    pub room: RoomName,
    /// Its newest message.
    pub newest: Message,
}

/// One page of the rooms, by name.
#[derive(Debug, Clone)]
pub struct RoomsPage {
    /// In the order of their names' bytes.
    pub rooms: Vec<RoomSummary>,
    /// Where the next page begins; `None` at the end.
    pub after: Option<RoomName>,
}

impl History {
    /// At most `limit` rooms whose names come after `after`, each with its newest message.
    ///
    /// # Errors
    /// As [`Self::page`].
    pub async fn rooms(
        &self,
        after: Option<&RoomName>,
        limit: usize,
        at_least: ClusterTime,
    ) -> Result<RoomsPage, ReadError> {
        self.within_deadline(async {
            let mut session = self.session_at(at_least).await?;
            let mut walk = Walk::after(after);
            let mut rooms: Vec<RoomSummary> = Vec::new();
            while let Some(room) = walk.next(self, &mut session).await? {
                let Some(newest) = self.newest(&mut session, &Scope::Room(room.clone())).await? else {
                    continue;
                };
                if rooms.len() == limit {
                    let after = rooms.last().map(|summary| summary.room.clone());
                    return Ok(RoomsPage { rooms, after });
                }
                rooms.push(RoomSummary { room, newest });
            }
            Ok(RoomsPage { rooms, after: None })
        })
        .await
    }

    /// The names of the first `limit` rooms.
    ///
    /// # Errors
    /// As [`Self::page`].
    pub async fn room_names(&self, limit: usize, at_least: ClusterTime) -> Result<Vec<RoomName>, ReadError> {
        self.within_deadline(async {
            let mut session = self.session_at(at_least).await?;
            let mut walk = Walk::after(None);
            let mut names = Vec::new();
            while names.len() < limit
                && let Some(room) = walk.next(self, &mut session).await?
            {
                names.push(room);
            }
            Ok(names)
        })
        .await
    }

    async fn next_room(&self, session: &mut ClientSession, after: &str) -> Result<Option<String>, Error> {
        let mut filter = to_nobody();
        filter.insert("room", doc! { "$gt": after });
        // The first one says it, unless its name is of bytes that are no text. Such a name can not be given back, to go
        // on after it, so that its documents are read until another room begins.
        let messages = self.deployment.messages();
        for limit in [1, 0] {
            let find = || {
                let find = messages.find(filter.clone()).sort(doc! { "room": 1 }).limit(limit);
                find.projection(doc! { "_id": 0, "room": 1 }).max_time(SEEK_TIME_MAX)
            };
            let mut cursor = match find().hint(Hint::Keys(room_key())).session(&mut *session).await {
                Err(error) if is_missing_index(&error) => find().session(&mut *session).await?,
                found => found?,
            };
            let mut documents = cursor.stream(session);
            let mut is_end = true;
            while let Some(document) = documents.try_next().await? {
                is_end = false;
                if let Ok(name) = document.get_str("room") {
                    return Ok(Some(name.to_owned()));
                }
            }
            if is_end {
                break;
            }
        }
        Ok(None)
    }
}

/// How long one step of the walk may take.
const SEEK_TIME_MAX: Duration = Duration::from_secs(2);
/// How many names that break the contract one walk passes over. Behind more of them the list of rooms ends: they cost a
/// step each, and anybody who writes into MongoDB can make any number of them.
const INVALID_NAMES_MAX: usize = 100;

/// A walk over the rooms by name.
struct Walk {
    last: String,
    invalid_names: usize,
    /// `general` also has the messages that name no room, which the index by name can not meet.
    general_is_due: bool,
}

impl Walk {
    fn after(room: Option<&RoomName>) -> Self {
        let last = room.map(|room| room.as_str().to_owned()).unwrap_or_default();
        let general_is_due = last.as_str() < DEFAULT_ROOM;
        Self { last, invalid_names: 0, general_is_due }
    }

    /// The next room whose name keeps the contract.
    async fn next(&mut self, history: &History, session: &mut ClientSession) -> Result<Option<RoomName>, Error> {
        loop {
            let mut next = history.next_room(session, &self.last).await?;
            if self.general_is_due && next.as_deref().is_none_or(|name| name >= DEFAULT_ROOM) {
                self.general_is_due = false;
                next = Some(DEFAULT_ROOM.into());
            }
            let Some(name) = next else {
                return Ok(None);
            };
            let room = RoomName::parse(&name).ok();
            self.last = name;
            self.invalid_names += usize::from(room.is_none());
            if room.is_some() || self.invalid_names > INVALID_NAMES_MAX {
                return Ok(room);
            }
        }
    }
}
