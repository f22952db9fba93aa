//! The subscriptions that are plain HTTP, as documented operations: `/api/events` and `/api/changes`.

use std::{sync::Arc, time::Duration};

use poem::{
    Body, IntoResponse, Response,
    error::ResponseError,
    http::{HeaderMap, StatusCode, header},
};
use poem_openapi::{
    ApiResponse, OpenApi, Tags,
    param::{Header, Query},
    payload::{Json, Payload},
    registry::{MetaSchema, MetaSchemaRef, Registry},
    types::Type,
};

use super::{
    Sessions,
    changes::{Changes, WAIT_SECS_MAX},
    event_stream::EventStream,
    schema::Frame,
    subscription::{Interest, Subscription},
};
use crate::{message::FieldError, problem::Problem};

/// The handlers.
pub struct LiveApi(pub Arc<Sessions>);

/// The sections of the documentation.
#[derive(Tags)]
enum Section {
    /// Follow what happens, without a WebSocket. The frames are those of the WebSocket `/ws`, and so are the cursors.
    Live,
}

#[OpenApi(prefix_path = "/api", tag = "Section::Live")]
impl LiveApi {
    /// Follow messages as server-sent events
    ///
    /// An endless `text/event-stream`. `event` is the frame's `type`, `data` the frame and `id` its cursor, so that an
    /// `EventSource` goes on by itself where its connection broke. Name at least one of `room`, `inbox` and `all`.
    #[oai(path = "/events", method = "get", operation_id = "followEvents")]
    #[allow(clippy::too_many_arguments)] // Each is a parameter of the documented operation.
    async fn events(
        &self,
        /// Follow these rooms.
        #[oai(default)]
        room: Query<Vec<String>>,
        /// Follow the direct messages to and from these people.
        #[oai(default)]
        inbox: Query<Vec<String>>,
        /// Follow everything.
        all: Query<Option<bool>>,
        /// Go on after this cursor, of any transport. Absent or empty: from now on.
        after: Query<Option<String>>,
        /// The same, sent by clients that come back. It is newer than `after`, which stands in their URL since they
        /// began, and wins.
        #[oai(name = "Last-Event-ID")]
        last_event_id: Header<Option<String>>,
        headers: &HeaderMap,
    ) -> Result<EventsAnswer, LiveFailure> {
        // As it came: the framework takes a header of bytes that are no text for none, and a client that has something to
        // come back with must not be told that it missed nothing.
        let _ = last_event_id;
        let last_id = headers.get("Last-Event-ID").map(|id| String::from_utf8_lossy(id.as_bytes()).into_owned());
        let after = last_id.filter(|id| !id.is_empty()).or(after.0);
        let place = self.0.admit()?;
        let subscription = self.open(&room.0, &inbox.0, all.0, after)?;
        Ok(EventsAnswer::Stream(Streamed(EventStream::new(subscription, self.0.clone(), place))))
    }

    /// Read what happened after a cursor
    ///
    /// One answer with up to 10,000 frames; its `cursor` goes on behind them. When there is nothing it comes at once, or
    /// as soon as something happens within `wait` seconds. Without `after` it only says where the stream is now. Name
    /// at least one of `room`, `inbox` and `all`, and the same ones each time.
    #[oai(path = "/changes", method = "get", operation_id = "readChanges")]
    async fn changes(
        &self,
        /// In these rooms.
        #[oai(default)]
        room: Query<Vec<String>>,
        /// The direct messages to and from these people.
        #[oai(default)]
        inbox: Query<Vec<String>>,
        /// Everything.
        all: Query<Option<bool>>,
        /// The `cursor` of the last answer, or any other cursor.
        after: Query<Option<String>>,
        /// How many seconds to wait for something to happen.
        #[oai(default, validator(maximum(value = "30")))]
        wait: Query<u64>,
    ) -> Result<ChangesAnswer, LiveFailure> {
        let has_place = after.0.as_ref().is_some_and(|after| !after.is_empty());
        let place = self.0.admit()?;
        let subscription = self.open(&room.0, &inbox.0, all.0, after.0)?;
        let changes = Changes::new(subscription, self.0.clone(), place);
        let wait = Duration::from_secs(wait.0.min(WAIT_SECS_MAX));
        let changes = if has_place { changes.first(wait).await } else { changes.none() };
        Ok(ChangesAnswer::Told(Told(changes)))
    }
}

impl LiveApi {
    fn open(
        &self,
        rooms: &[String],
        inboxes: &[String],
        all: Option<bool>,
        after: Option<String>,
    ) -> Result<Subscription, Problem> {
        let rooms = rooms.iter().map(|name| ("room", name.as_str()));
        let inboxes = inboxes.iter().map(|name| ("inbox", name.as_str()));
        let all = (all == Some(true)).then_some(("all", "true"));
        let interest = Interest::parse(rooms.chain(inboxes).chain(all)).map_err(Problem::invalid)?;
        if interest.topics.is_empty() {
            // Over a WebSocket topics can be added; here such a client, or one that has misspelt a name, waits for ever.
            let error = FieldError::new("room", "must be given, or `inbox` with a name, or `all` with true");
            return Err(Problem::invalid(vec![error]));
        }
        let interest = Interest { after, ..interest };
        Subscription::open(&self.0.sources, interest)
            .map_err(|error| Problem::invalid(vec![FieldError::new("room", error)]))
    }
}

/// An event stream.
#[derive(ApiResponse)]
enum EventsAnswer {
    /// It ends when the server stops; come back with the last `id`.
    #[oai(status = 200)]
    Stream(Streamed),
}

/// What was missed.
#[derive(ApiResponse)]
enum ChangesAnswer {
    /// Oldest first.
    #[oai(status = 200)]
    Told(Told),
}

/// Why there is no answer.
#[derive(ApiResponse)]
enum LiveFailure {
    /// A parameter breaks a rule; `errors` lists each. A cursor never does: it is answered with a `reset`.
    #[oai(status = 422, content_type = "application/problem+json")]
    Invalid(Json<Problem>),
    /// Too many requests come from your address; the server's operator sets how many are.
    #[oai(status = 429, content_type = "application/problem+json")]
    TooMany(
        Json<Problem>,
        /// Seconds.
        #[oai(header = "Retry-After")]
        u32,
    ),
    /// There are too many sessions.
    #[oai(status = 503, content_type = "application/problem+json")]
    Unavailable(
        Json<Problem>,
        /// Seconds.
        #[oai(header = "Retry-After")]
        u32,
    ),
    /// Any other problem: 403 to a page of another site, and 500 among them.
    #[oai(content_type = "application/problem+json")]
    Other(StatusCode, Json<Problem>),
}

impl From<Problem> for LiveFailure {
    fn from(problem: Problem) -> Self {
        let retry_after_secs = problem.retry_after_secs.unwrap_or(1);
        match problem.status {
            422 => Self::Invalid(Json(problem)),
            429 => Self::TooMany(Json(problem), retry_after_secs),
            503 => Self::Unavailable(Json(problem), retry_after_secs),
            _ => Self::Other(problem.status(), Json(problem)),
        }
    }
}

struct Streamed(EventStream);

impl Payload for Streamed {
    const CONTENT_TYPE: &'static str = "text/event-stream";

    /// One event of the stream: OpenAPI 3.0 has no word for a stream of them, and tools that know one look at each.
    fn schema_ref() -> MetaSchemaRef {
        let text = |description| {
            MetaSchemaRef::Inline(Box::new(MetaSchema { description: Some(description), ..MetaSchema::new("string") }))
        };
        let properties = vec![
            ("event", text("The `type` of the frame.")),
            ("id", text("Its cursor.")),
            ("data", text("The frame as JSON: see the schema `Frame`.")),
        ];
        MetaSchemaRef::Inline(Box::new(MetaSchema { properties, ..MetaSchema::new("object") }))
    }

    fn register(registry: &mut Registry) {
        Frame::register(registry);
    }
}

impl IntoResponse for Streamed {
    fn into_response(self) -> Response {
        Response::builder()
            .content_type(Self::CONTENT_TYPE)
            .header(header::CACHE_CONTROL, "no-store")
            // nginx would else collect events until its buffer is full.
            .header("X-Accel-Buffering", "no")
            .body(Body::from_bytes_stream(self.0.into_chunks()))
    }
}

struct Told(Changes);

impl Payload for Told {
    const CONTENT_TYPE: &'static str = "application/json; charset=utf-8";

    fn schema_ref() -> MetaSchemaRef {
        MetaSchemaRef::Reference("Changes".into())
    }

    fn register(registry: &mut Registry) {
        Frame::register(registry);
        let inline = |schema| MetaSchemaRef::Inline(Box::new(schema));
        let changes = MetaSchema {
            description: Some("Oldest first: `created`, `updated`, `deleted` and `reset`."),
            items: Some(Box::new(Frame::schema_ref())),
            ..MetaSchema::new("array")
        };
        let cursor = MetaSchema { description: Some("Go on after this."), ..MetaSchema::new("string") };
        let schema = MetaSchema {
            description: Some("What happened after a cursor."),
            required: vec!["changes", "cursor"],
            properties: vec![("changes", inline(changes)), ("cursor", inline(cursor))],
            ..MetaSchema::new("object")
        };
        registry.schemas.insert("Changes".into(), schema);
    }
}

impl IntoResponse for Told {
    fn into_response(self) -> Response {
        Response::builder()
            .content_type(Self::CONTENT_TYPE)
            .header(header::CACHE_CONTROL, "no-store")
            .body(Body::from_bytes_stream(self.0.into_chunks()))
    }
}
