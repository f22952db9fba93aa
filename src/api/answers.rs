//! Every answer that a handler can give, so that the OpenAPI document names them all.

use poem::{error::ResponseError, http::StatusCode};
use poem_openapi::{ApiResponse, payload::Json};

use super::body::{MessageBody, MessagesBody, PresenceBody, RoomsBody};
use crate::problem::{CHALLENGE, Problem};

/// The message is durable on a majority.
#[derive(ApiResponse)]
pub(super) enum SentAnswer {
    /// It is new.
    #[oai(status = 201)]
    Created(
        Json<MessageBody>,
        /// Where it can be read.
        #[oai(header = "Location")]
        String,
    ),
    /// It was stored before, with the same id: this was a retry. The stored one is answered.
    #[oai(status = 200)]
    Repeated(
        Json<MessageBody>,
        /// Where it can be read.
        #[oai(header = "Location")]
        String,
    ),
}

/// A page of messages.
#[derive(ApiResponse)]
pub(super) enum MessagesAnswer {
    /// Oldest first.
    #[oai(status = 200)]
    Page(
        Json<MessagesBody>,
        /// The next older page, `rel="next"`, and the next newer one, `rel="prev"`.
        #[oai(header = "Link")]
        Option<String>,
    ),
}

/// One message.
#[derive(ApiResponse)]
pub(super) enum MessageAnswer {
    /// The message.
    #[oai(status = 200)]
    Found(Json<MessageBody>),
}

/// A page of rooms.
#[derive(ApiResponse)]
pub(super) enum RoomsAnswer {
    /// By name.
    #[oai(status = 200)]
    Page(
        Json<RoomsBody>,
        /// The next page, `rel="next"`.
        #[oai(header = "Link")]
        Option<String>,
    ),
}

/// How many are here.
#[derive(ApiResponse)]
pub(super) enum PresenceAnswer {
    /// In the order in which the rooms were named, each once.
    #[oai(status = 200)]
    Counts(Json<PresenceBody>),
}

/// Why a message was not sent.
#[derive(ApiResponse)]
pub(super) enum SendFailure {
    /// The body is no JSON object.
    #[oai(status = 400, content_type = "application/problem+json")]
    Syntax(Json<Problem>),
    /// People sign in at a proxy in front of this server, and you have not.
    #[oai(status = 401, content_type = "application/problem+json")]
    NotSignedIn(
        Json<Problem>,
        /// Where to sign in, for people.
        #[oai(header = "WWW-Authenticate")]
        String,
    ),
    /// The server is for reading only.
    #[oai(status = 403, content_type = "application/problem+json")]
    Forbidden(Json<Problem>),
    /// The body did not come in time.
    #[oai(status = 408, content_type = "application/problem+json")]
    Timeout(Json<Problem>),
    /// Another message has the id. It is not shown.
    #[oai(status = 409, content_type = "application/problem+json")]
    Conflict(Json<Problem>),
    /// The body is larger than 64 KiB.
    #[oai(status = 413, content_type = "application/problem+json")]
    TooLarge(Json<Problem>),
    /// The content type is not `application/json`.
    #[oai(status = 415, content_type = "application/problem+json")]
    MediaType(Json<Problem>),
    /// A field breaks a rule; `errors` lists each.
    #[oai(status = 422, content_type = "application/problem+json")]
    Invalid(Json<Problem>),
    /// Too many messages or requests come from your address, or under this name; the server's operator sets how many are.
    #[oai(status = 429, content_type = "application/problem+json")]
    TooMany(
        Json<Problem>,
        /// Seconds.
        #[oai(header = "Retry-After")]
        u32,
    ),
    /// The message may or may not be stored: send it again with the `id` of this answer.
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

/// Why no page of messages could be read.
#[derive(ApiResponse)]
pub(super) enum PageFailure {
    /// There is no such message as `around` in what was asked for.
    #[oai(status = 404, content_type = "application/problem+json")]
    NotFound(Json<Problem>),
    /// A parameter breaks a rule; `errors` lists each.
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
    /// MongoDB can not be read just now, or has not come to `since` yet.
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

/// Why one message could not be read.
#[derive(ApiResponse)]
pub(super) enum MessageFailure {
    /// There is no such message.
    #[oai(status = 404, content_type = "application/problem+json")]
    NotFound(Json<Problem>),
    /// Too many requests come from your address; the server's operator sets how many are.
    #[oai(status = 429, content_type = "application/problem+json")]
    TooMany(
        Json<Problem>,
        /// Seconds.
        #[oai(header = "Retry-After")]
        u32,
    ),
    /// MongoDB can not be read just now.
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

/// Why no list could be read.
#[derive(ApiResponse)]
pub(super) enum ListFailure {
    /// A parameter breaks a rule; `errors` lists each.
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
    /// MongoDB can not be read just now.
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

/// Why there is no answer to what needs no database.
#[derive(ApiResponse)]
pub(super) enum QueryFailure {
    /// A parameter breaks a rule; `errors` lists each.
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
    /// Any other problem: 403 to a page of another site, and 500 among them.
    #[oai(content_type = "application/problem+json")]
    Other(StatusCode, Json<Problem>),
}

impl From<Problem> for QueryFailure {
    fn from(problem: Problem) -> Self {
        let retry_after_secs = problem.retry_after_secs.unwrap_or(1);
        match problem.status {
            422 => Self::Invalid(Json(problem)),
            429 => Self::TooMany(Json(problem), retry_after_secs),
            _ => Self::Other(problem.status(), Json(problem)),
        }
    }
}

impl From<Problem> for SendFailure {
    fn from(problem: Problem) -> Self {
        let retry_after_secs = problem.retry_after_secs.unwrap_or(1);
        match problem.status {
            400 => Self::Syntax(Json(problem)),
            401 => Self::NotSignedIn(Json(problem), CHALLENGE.into()),
            403 => Self::Forbidden(Json(problem)),
            408 => Self::Timeout(Json(problem)),
            409 => Self::Conflict(Json(problem)),
            413 => Self::TooLarge(Json(problem)),
            415 => Self::MediaType(Json(problem)),
            422 => Self::Invalid(Json(problem)),
            429 => Self::TooMany(Json(problem), retry_after_secs),
            503 => Self::Unavailable(Json(problem), retry_after_secs),
            _ => Self::Other(problem.status(), Json(problem)),
        }
    }
}

impl From<Problem> for PageFailure {
    fn from(problem: Problem) -> Self {
        let retry_after_secs = problem.retry_after_secs.unwrap_or(1);
        match problem.status {
            404 => Self::NotFound(Json(problem)),
            422 => Self::Invalid(Json(problem)),
            429 => Self::TooMany(Json(problem), retry_after_secs),
            503 => Self::Unavailable(Json(problem), retry_after_secs),
            _ => Self::Other(problem.status(), Json(problem)),
        }
    }
}

impl From<Problem> for MessageFailure {
    fn from(problem: Problem) -> Self {
        let retry_after_secs = problem.retry_after_secs.unwrap_or(1);
        match problem.status {
            404 => Self::NotFound(Json(problem)),
            429 => Self::TooMany(Json(problem), retry_after_secs),
            503 => Self::Unavailable(Json(problem), retry_after_secs),
            _ => Self::Other(problem.status(), Json(problem)),
        }
    }
}

impl From<Problem> for ListFailure {
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
