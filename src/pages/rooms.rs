//! The rooms beside every page, those with the newest messages first.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use poem::{
    IntoResponse, handler,
    http::header,
    web::{Data, Json, WithHeader},
};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::{Pages, place::Place};
use crate::{
    message::{RoomName, date_text},
    mongo::RoomSummary,
};

/// How many rooms are walked over, by name. Each costs two seeks in an index.
const ROOMS_READ_MAX: usize = 200;
/// How many of them are listed. The page follows as many of these as it may, to count what is unread.
const ROOMS_LISTED_MAX: usize = 50;
/// For how long a list that was read serves every page: new messages reach a page over its WebSocket meanwhile.
const FRESH_MAX: Duration = Duration::from_secs(3);

/// The newest list that was read, shared by all pages: however many people come at once, one of them reads it.
#[derive(Debug, Clone, Default)]
pub struct RoomList {
    /// Held while the list is read, so that the others wait for it rather than read it too.
    newest: Arc<Mutex<Option<ReadList>>>,
}

#[derive(Debug)]
struct ReadList {
    read_at: Instant,
    rooms: Arc<[ListedRoom]>,
}

/// A room of the list.
#[derive(Debug, Clone)]
pub(super) struct ListedRoom {
    pub(super) place: Place,
    /// The place of its newest message in the order of the history, "date id"; empty when it has none.
    pub(super) newest: String,
}

impl ListedRoom {
    fn new(summary: RoomSummary) -> Self {
        let newest = format!("{} {}", date_text(&summary.newest.date), summary.newest.id.as_str());
        Self { place: Place::Room(summary.room), newest }
    }

    fn unwritten(room: RoomName) -> Self {
        Self { place: Place::Room(room), newest: String::new() }
    }
}

/// The list as JSON: the page asks for it now and then, for rooms that were new when nobody here followed them.
/// (`GET /api/rooms` tells more, but walks over the rooms each time.)
#[handler]
pub(crate) async fn list_rooms(Data(pages): Data<&Pages>) -> WithHeader<Json<Value>> {
    let rooms = pages.listed_rooms().await;
    let rooms: Vec<Value> =
        rooms.iter().map(|room| json!({ "room": room.place.name(), "newest": room.newest })).collect();
    Json(json!({ "rooms": rooms })).with_header(header::CACHE_CONTROL, "no-store")
}

impl Pages {
    /// The rooms with the newest messages. A list that can not be read is the last one that could: a page without it
    /// is still of use.
    pub(super) async fn listed_rooms(&self) -> Arc<[ListedRoom]> {
        let mut newest = self.rooms.newest.lock().await;
        if let Some(list) = &*newest
            && list.read_at.elapsed() < FRESH_MAX
        {
            return list.rooms.clone();
        }
        let rooms = match self.history.rooms(None, ROOMS_READ_MAX, self.status.position().time).await {
            Ok(page) => newest_first(page.rooms),
            Err(error) => {
                tracing::warn!(reason = %error.reason, "the list of rooms could not be read");
                newest.take().map(|list| list.rooms).unwrap_or_default()
            }
        };
        // Also after a failure: whoever waited for this list should not wait as long once more.
        *newest = Some(ReadList { read_at: Instant::now(), rooms: rooms.clone() });
        rooms
    }
}

fn newest_first(summaries: Vec<RoomSummary>) -> Arc<[ListedRoom]> {
    let mut rooms: Vec<ListedRoom> = summaries.into_iter().map(ListedRoom::new).collect();
    rooms.sort_by(|one, other| other.newest.cmp(&one.newest));
    rooms.truncate(ROOMS_LISTED_MAX);
    rooms.into()
}

/// The list of one page: with the room `general` and that of the page although nobody may have written to them.
pub(super) fn listed_beside(rooms: &[ListedRoom], place: &Place) -> Vec<ListedRoom> {
    let mut listed = rooms.to_vec();
    let is_listed = |listed: &[ListedRoom], place: &Place| listed.iter().any(|room| room.place == *place);
    if let Place::Room(room) = place
        && !is_listed(&listed, place)
    {
        listed.insert(0, ListedRoom::unwritten(room.clone()));
    }
    let general = RoomName::general();
    if !is_listed(&listed, &Place::Room(general.clone())) {
        listed.push(ListedRoom::unwritten(general));
    }
    listed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_of_the_page_and_general_are_always_listed() {
        let room = |name: &str| ListedRoom::unwritten(RoomName::parse(name).unwrap());
        let names =
            |rooms: Vec<ListedRoom>| -> Vec<String> { rooms.iter().map(|room| room.place.name().to_owned()).collect() };
        let dev = Place::Room(RoomName::parse("dev").unwrap());
        assert_eq!(names(listed_beside(&[], &dev)), ["dev", "general"]);
        assert_eq!(names(listed_beside(&[room("a"), room("general")], &dev)), ["dev", "a", "general"]);
        assert_eq!(names(listed_beside(&[room("general"), room("dev")], &dev)), ["general", "dev"]);
    }
}
