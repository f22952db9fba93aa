//! `/api/rooms`

use poem::http::Uri;
use poem_openapi::{OpenApi, param::Query, payload::Json};

use super::{
    Api, Section,
    answers::{ReadFailure, RoomsAnswer},
    body::RoomsBody,
    check_query, field,
    messages::unreadable,
};
use crate::{message::RoomName, problem::Problem};

/// How many rooms a page has when nobody asks.
const PAGE_ROOMS_DEFAULT: u32 = 50;

/// The handlers of `/api/rooms`.
pub struct RoomsApi(pub(super) Api);

#[OpenApi(prefix_path = "/api", tag = "Section::Rooms")]
impl RoomsApi {
    /// List rooms
    ///
    /// Each with its newest message, in the order of their names.
    #[oai(path = "/rooms", method = "get", operation_id = "listRooms")]
    async fn list(
        &self,
        /// How many at most.
        #[oai(default = "default_limit", validator(minimum(value = "1"), maximum(value = "100")))]
        limit: Query<u32>,
        /// Only rooms whose names come after this one: the `after` of another page.
        after: Query<Option<String>>,
        uri: &Uri,
    ) -> Result<RoomsAnswer, ReadFailure> {
        check_query(uri, &["limit", "after"]).map_err(Problem::invalid)?;
        let after = match after.0.as_deref() {
            Some(name) => Some(RoomName::normalise(name).map_err(|error| Problem::invalid(field("after", error)))?),
            None => None,
        };
        let cursor = self.0.status.position();
        let page = self.0.history.rooms(after.as_ref(), limit.0 as usize, cursor.time).await.map_err(unreadable)?;
        let after = page.after.map(|room| room.to_string());
        let link = after.as_deref().map(|after| {
            let mut query = form_urlencoded::Serializer::new(String::new());
            let query = query.append_pair("limit", &limit.0.to_string()).append_pair("after", after).finish();
            format!("</api/rooms?{query}>; rel=\"next\"")
        });
        let body = RoomsBody { rooms: page.rooms.iter().map(Into::into).collect(), cursor: cursor.to_string(), after };
        Ok(RoomsAnswer::Page(Json(body), link))
    }
}

fn default_limit() -> u32 {
    PAGE_ROOMS_DEFAULT
}
