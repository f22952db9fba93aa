//! `/api/presence`

use std::collections::HashSet;

use poem::http::Uri;
use poem_openapi::{OpenApi, param::Query, payload::Json};

use super::{
    Api, Section,
    answers::{PresenceAnswer, QueryFailure},
    body::{PresenceBody, RoomPresenceBody},
    check_names, field,
};
use crate::{
    message::{FieldError, RoomName},
    problem::Problem,
};

/// How many rooms one request can ask for.
const ROOMS_MAX: usize = 100;

/// The handlers of `/api/presence`.
pub struct PresenceApi(pub(super) Api);

#[OpenApi(prefix_path = "/api", tag = "Section::Rooms")]
impl PresenceApi {
    /// Count who is here
    ///
    /// How many connections follow each room, on all servers together: on the one that answers just now, on the others
    /// as it was ten seconds ago at most. A room that nobody follows has 0, whether it exists or not.
    #[oai(path = "/presence", method = "get", operation_id = "getPresence")]
    async fn count(
        &self,
        /// A room. May be repeated, up to 100 times.
        room: Query<Vec<String>>,
        uri: &Uri,
    ) -> Result<PresenceAnswer, QueryFailure> {
        check_names(uri, &["room"]).map_err(Problem::invalid)?;
        let rooms = rooms_of(&room.0).map_err(Problem::invalid)?;
        let counts = self.0.presence.here(&rooms).await;
        let rooms = rooms.iter().zip(counts).map(|(room, here)| RoomPresenceBody { room: room.to_string(), here });
        Ok(PresenceAnswer::Counts(Json(PresenceBody { rooms: rooms.collect() })))
    }
}

/// The rooms in the order in which they were named, each once.
fn rooms_of(names: &[String]) -> Result<Vec<RoomName>, Vec<FieldError>> {
    match names.len() {
        0 => return Err(field("room", "must be given")),
        1..=ROOMS_MAX => {}
        _ => return Err(field("room", format!("can be given {ROOMS_MAX} times at most"))),
    }
    let mut named = HashSet::new();
    let mut rooms = Vec::with_capacity(names.len());
    for name in names {
        let room = RoomName::normalise(name).map_err(|error| field("room", error))?;
        if named.insert(room.clone()) {
            rooms.push(room);
        }
    }
    Ok(rooms)
}
