//! `/api/messages`

use std::time::Duration;

use poem::http::{HeaderMap, StatusCode, Uri};
use poem_openapi::{
    OpenApi,
    param::{Header, Path, Query},
    payload::Json,
};
use sha2::{Digest, Sha256};
use tracing::warn;

use super::{
    Api, Section,
    answers::{MessageAnswer, MessagesAnswer, ReadFailure, SendFailure, SentAnswer},
    body::{Fields, MessagesBody},
    check_query, field,
};
use crate::{
    cursor::{ClusterTime, Cursor},
    message::{Draft, FieldError, MessageId, NewMessage, RoomName, UserName},
    mongo::{Before, ReadError, Scope},
    problem::Problem,
};

/// How many messages a page has when nobody asks, and at most.
const PAGE_MESSAGES_DEFAULT: u32 = 50;
/// How long a read waits for this server to come to `since`, in seconds.
const SINCE_SECS_MAX: u64 = 5;

/// The handlers of `/api/messages`.
pub struct MessagesApi(pub(super) Api);

#[OpenApi(prefix_path = "/api", tag = "Section::Messages")]
impl MessagesApi {
    /// Send a message
    ///
    /// Answers when the message is on the disks of a majority of MongoDB's members. It then comes to every connected
    /// client, its sender too, through the change stream.
    #[oai(path = "/messages", method = "post", operation_id = "sendMessage")]
    async fn send(
        &self,
        fields: Json<Fields>,
        /// Makes a retry harmless without an `id`: the id is derived from this key and the sender.
        #[oai(name = "Idempotency-Key", validator(min_length = 1, max_length = 256))]
        idempotency_key: Header<Option<String>>,
        headers: &HeaderMap,
    ) -> Result<SentAnswer, SendFailure> {
        // The framework takes a header of bytes that are no text for none, and a retry would then not be harmless.
        if idempotency_key.0.is_none() && headers.contains_key("Idempotency-Key") {
            return Err(Problem::invalid(field("Idempotency-Key", "must be printable ASCII")).into());
        }
        let draft = Draft::from_json(fields.0.0).map_err(Problem::invalid)?;
        let mut message = NewMessage::parse(draft).map_err(Problem::invalid)?;
        if let Some(key) = idempotency_key.0 {
            if message.id.is_some() {
                let errors = field("id", "can not be given together with an Idempotency-Key");
                return Err(Problem::invalid(errors).into());
            }
            message.id = Some(id_of_key(&message.sender, &key));
        }
        let inserted = self.0.inserter.insert(message).await.map_err(Problem::from)?;
        let location = format!("/api/messages/{}", inserted.message.id);
        let body = Json((&inserted.message).into());
        Ok(match inserted.is_new {
            true => SentAnswer::Created(body, location),
            false => SentAnswer::Repeated(body, location),
        })
    }

    /// Read messages
    ///
    /// The newest ones of a room, of an inbox, of the conversation of two people (`inbox` and `with`), or of
    /// everything when none is named. Older ones by `before`.
    #[oai(path = "/messages", method = "get", operation_id = "listMessages")]
    #[allow(clippy::too_many_arguments)] // Each is a parameter of the documented operation.
    async fn list(
        &self,
        /// The messages of this room.
        room: Query<Option<String>>,
        /// The direct messages to and from this person.
        inbox: Query<Option<String>>,
        /// Only those between `inbox` and this person.
        with: Query<Option<String>>,
        /// How many at most.
        #[oai(default = "default_limit", validator(minimum(value = "1"), maximum(value = "200")))]
        limit: Query<u32>,
        /// Older than this place: the `before` of another page.
        before: Query<Option<String>>,
        /// At least as new as this cursor.
        since: Query<Option<String>>,
        uri: &Uri,
    ) -> Result<MessagesAnswer, ReadFailure> {
        check_query(uri, &["room", "inbox", "with", "limit", "before", "since"]).map_err(Problem::invalid)?;
        let scope = scope_of(room.0.as_deref(), inbox.0.as_deref(), with.0.as_deref()).map_err(Problem::invalid)?;
        let place: Option<Before> = match before.0.as_deref() {
            Some(text) => Some(text.parse().map_err(|error| Problem::invalid(field("before", error)))?),
            None => None,
        };
        let at_least = self.0.reach(since.0.as_deref()).await?;
        // Before the read: what happens from here on is in the read, or comes after this cursor, or both.
        let cursor = self.0.status.position();
        let page = self
            .0
            .history
            .page(&scope, limit.0 as usize, place.as_ref(), at_least.max(cursor.time))
            .await
            .map_err(unreadable)?;
        let before = page.before.map(|before| before.to_string());
        let link = before.as_deref().map(|before| next_link(&scope, limit.0, before));
        let body = MessagesBody {
            messages: page.messages.iter().map(Into::into).collect(),
            cursor: cursor.to_string(),
            before,
        };
        Ok(MessagesAnswer::Page(Json(body), link))
    }

    /// Read one message
    #[oai(path = "/messages/:id", method = "get", operation_id = "getMessage")]
    async fn get(
        &self,
        /// The message's id.
        id: Path<String>,
    ) -> Result<MessageAnswer, ReadFailure> {
        let at_least = self.0.status.position().time;
        match self.0.history.get(&id.0, at_least).await.map_err(unreadable)? {
            Some(message) => Ok(MessageAnswer::Found(Json((&message).into()))),
            None => Err(Problem::new(StatusCode::NOT_FOUND, "there is no message with this id").into()),
        }
    }
}

impl Api {
    /// Waits until this server has come to the cursor `since`. Returns the time that a read must not lie before.
    async fn reach(&self, since: Option<&str>) -> Result<ClusterTime, Problem> {
        let Some(text) = since else {
            return Ok(ClusterTime::default());
        };
        let since: Cursor = text.parse().map_err(|error| Problem::invalid(field("since", error)))?;
        if since.epoch != self.status.position().epoch {
            let errors = field("since", "is a cursor of another collection; load the history without it");
            return Err(Problem::invalid(errors));
        }
        match self.status.reached(since, Duration::from_secs(SINCE_SECS_MAX)).await {
            true => Ok(since.time),
            false => Err(Problem::unavailable("this server has not come to the cursor `since` yet")),
        }
    }
}

pub(super) fn unreadable(error: ReadError) -> Problem {
    warn!("a read failed: {}", error.reason);
    error.into()
}

fn default_limit() -> u32 {
    PAGE_MESSAGES_DEFAULT
}

/// `_id` = the first 12 bytes of a SHA-256 over sender and key, with the sender's length between them, so that no two
/// pairs run together into one text.
fn id_of_key(sender: &UserName, key: &str) -> MessageId {
    let mut hash = Sha256::new();
    hash.update((sender.as_str().len() as u64).to_be_bytes());
    hash.update(sender.as_str());
    hash.update(key);
    let hex: String = hash.finalize()[..12].iter().map(|byte| format!("{byte:02x}")).collect();
    MessageId::from_text_form(hex)
}

fn scope_of(room: Option<&str>, inbox: Option<&str>, with: Option<&str>) -> Result<Scope, Vec<FieldError>> {
    let user = |name: &'static str, text: &str| UserName::normalise(text).map_err(|error| field(name, error));
    match (room, inbox, with) {
        (None, None, None) => Ok(Scope::All),
        (Some(room), None, None) => RoomName::normalise(room).map(Scope::Room).map_err(|error| field("room", error)),
        (None, Some(inbox), None) => Ok(Scope::Inbox(user("inbox", inbox)?)),
        (None, Some(inbox), Some(with)) => Ok(Scope::Conversation(user("inbox", inbox)?, user("with", with)?)),
        (Some(_), Some(_), _) => Err(field("inbox", "can not be asked for together with a room")),
        (_, None, Some(_)) => Err(field("with", "needs an inbox")),
    }
}

fn next_link(scope: &Scope, limit: u32, before: &str) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    match scope {
        Scope::All => {}
        Scope::Room(room) => {
            query.append_pair("room", room.as_str());
        }
        Scope::Inbox(user) => {
            query.append_pair("inbox", user.as_str());
        }
        Scope::Conversation(user, other) => {
            query.append_pair("inbox", user.as_str()).append_pair("with", other.as_str());
        }
    }
    let query = query.append_pair("limit", &limit.to_string()).append_pair("before", before).finish();
    format!("</api/messages?{query}>; rel=\"next\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idempotency_key_counts_per_sender() {
        let user = |name| UserName::parse(name).unwrap();
        let id = id_of_key(&user("Ana"), "1");
        assert_eq!(id, id_of_key(&user("Ana"), "1"));
        assert_ne!(id, id_of_key(&user("Luis"), "1"));
        assert_ne!(id_of_key(&user("Ana1"), "2"), id_of_key(&user("Ana"), "12"));
        assert!(MessageId::parse_object_id(id.as_str()).is_some());
    }

    #[test]
    fn the_link_leads_to_the_next_page_of_the_same_scope() {
        let scope = Scope::Room(RoomName::parse("a&b ñ").unwrap());
        assert_eq!(next_link(&scope, 50, "00"), "</api/messages?room=a%26b+%C3%B1&limit=50&before=00>; rel=\"next\"");
    }
}
