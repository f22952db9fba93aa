//! `/api/rooms`

use poem::http::Uri;
use poem_openapi::{OpenApi, param::Query, payload::Json};

use super::{
    Api, Section,
    answers::{ListFailure, RoomsAnswer},
    body::RoomsBody,
    check_query, field,
    limit::Limit,
    messages::unreadable,
    nullable::Nullable,
};
use crate::{mongo::RoomsPlace, problem::Problem};

/// The handlers of `/api/rooms`.
pub struct RoomsApi(pub(super) Api);

#[OpenApi(prefix_path = "/api", tag = "Section::Rooms")]
impl RoomsApi {
    /// List rooms
    ///
    /// Each with its newest message, in the order of their names. A page may be short, or even empty, and lead on:
    /// where other programs have written much that is no message, one page does not look through all of it. A room
    /// whose newest thousand documents are no messages is left out.
    #[oai(path = "/rooms", method = "get", operation_id = "listRooms")]
    async fn list(
        &self,
        /// How many at most.
        #[oai(default)]
        limit: Query<Limit<100>>,
        /// Only rooms whose names come after this one, or the `after` of another page.
        after: Query<Option<String>>,
        uri: &Uri,
    ) -> Result<RoomsAnswer, ListFailure> {
        check_query(uri, &["limit", "after"]).map_err(Problem::invalid)?;
        let limit = limit.0.get()?;
        let after: Option<RoomsPlace> =
            after.0.map(|text| text.parse().map_err(|error| Problem::invalid(field("after", error)))).transpose()?;
        let cursor = self.0.status.position();
        let page = self.0.history.rooms(after.as_ref(), limit as usize, cursor.time).await.map_err(unreadable)?;
        let after = page.after.map(|place| place.to_string());
        let link = after.as_deref().map(|after| {
            let mut query = form_urlencoded::Serializer::new(String::new());
            let query = query.append_pair("limit", &limit.to_string()).append_pair("after", after).finish();
            format!("<{}/api/rooms?{query}>; rel=\"next\"", self.0.base)
        });
        let body = RoomsBody {
            rooms: page.rooms.iter().map(Into::into).collect(),
            cursor: cursor.to_string(),
            after: Nullable(after),
        };
        Ok(RoomsAnswer::Page(Json(body), link))
    }
}
