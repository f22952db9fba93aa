//! Errors as clients see them: RFC 9457 problem details, the same in an HTTP answer and in an `error` frame.

use poem::{
    Body, IntoResponse, Response,
    error::ResponseError,
    http::{StatusCode, header},
};
use poem_openapi::{
    Object,
    error::{ContentTypeError, ParseParamError, ParsePathError, ParseRequestPayloadError},
    types::Example,
};
use serde::Serialize;

use crate::{
    listener::NotSignedIn,
    message::FieldError,
    mongo::{InsertError, ReadError},
    rates::TooMany,
};

/// What went wrong, what it means, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Object)]
#[oai(rename = "Problem", skip_serializing_if_is_none, example)]
pub struct Problem {
    /// Which kind of problem: for programs, and the same on every server. For people it is the path, below the base path
    /// if there is one, of a page that says what to do.
    #[oai(rename = "type")]
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in words: the same for every problem of the kind.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// This very problem in words.
    pub detail: String,
    /// The fields at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errors: Option<Vec<FieldError>>,
    /// The id with which to send the message again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// After how many seconds to try again, as the header `Retry-After` says it in an answer.
    #[oai(rename = "retry_after")]
    #[serde(rename = "retry_after", skip_serializing_if = "Option::is_none")]
    pub retry_after_secs: Option<u32>,
}

/// The media type of problems.
pub const PROBLEM_JSON: &str = "application/problem+json";
/// What goes with a 401 (RFC 9110, 11.6.1). Browsers do not know the scheme, and so ask for no password that would be of no use.
pub const CHALLENGE: &str = "Proxy realm=\"sign in at the proxy in front of this server\"";
/// All that is said about what is the server's own fault.
const FAILED: &str = "the server failed; its log says more";
/// When to try again after MongoDB did not answer, in seconds: about as long as an election takes.
const RETRY_AFTER_SECS: u32 = 2;

/// The most fields at fault that one problem names: all that a message has, and some that it has not.
const FIELDS_TOLD_MAX: usize = 20;

/// A kind of problem. The page `/problems/NAME`, of which its `type` is the path, says what to do about it.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// The last part of its `type`.
    pub name: &'static str,
    /// In words, the same for every problem of the kind.
    pub title: &'static str,
    /// The status that stands for it.
    pub status: StatusCode,
}

const fn kind(status: StatusCode, name: &'static str, title: &'static str) -> Kind {
    Kind { name, title, status }
}

const INTERNAL: Kind = kind(StatusCode::INTERNAL_SERVER_ERROR, "internal", "The server failed");
/// A status for which there is no other kind.
const OTHER: Kind = kind(StatusCode::BAD_REQUEST, "other", "The request was refused");

/// Every kind, by its status: the first one of a status is meant by it.
pub const KINDS: [Kind; 16] = [
    kind(StatusCode::BAD_REQUEST, "syntax", "The request can not be read"),
    kind(StatusCode::UNAUTHORIZED, "not-signed-in", "It is not known who you are"),
    kind(StatusCode::FORBIDDEN, "forbidden", "This is not allowed"),
    kind(StatusCode::NOT_FOUND, "not-found", "There is nothing here"),
    kind(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "This can not be done here"),
    kind(StatusCode::REQUEST_TIMEOUT, "timeout", "The request took too long"),
    kind(StatusCode::CONFLICT, "conflict", "Another message has this id"),
    kind(StatusCode::LENGTH_REQUIRED, "length-required", "The length of the body must be given"),
    kind(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The request is too large"),
    kind(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media-type", "This content type is not understood"),
    kind(StatusCode::UNPROCESSABLE_ENTITY, "invalid-field", "A field breaks a rule"),
    kind(StatusCode::UPGRADE_REQUIRED, "upgrade-required", "This is a WebSocket"),
    kind(StatusCode::TOO_MANY_REQUESTS, "too-many", "Too many requests"),
    kind(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "This can not be done just now"),
    INTERNAL,
    OTHER,
];

impl Problem {
    /// A problem of the kind that belongs to `status`.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        let kind = KINDS.iter().find(|kind| kind.status == status).unwrap_or_else(|| match status {
            _ if status.is_server_error() => &INTERNAL,
            _ => &OTHER,
        });
        Self {
            kind: format!("/problems/{}", kind.name),
            title: kind.title.into(),
            status: status.as_u16(),
            detail: detail.into(),
            errors: None,
            id: None,
            retry_after_secs: None,
        }
    }

    /// Fields that break a rule. The first of them are told: an answer must not be many times as long as what it answers.
    pub fn invalid(mut errors: Vec<FieldError>) -> Self {
        let untold = errors.len().saturating_sub(FIELDS_TOLD_MAX);
        errors.truncate(FIELDS_TOLD_MAX);
        let mut sentences: Vec<String> =
            errors.iter().map(|error| format!("{} {}", error.field, error.detail)).collect();
        if untold > 0 {
            sentences.push(format!("and {untold} more"));
        }
        Self { errors: Some(errors), ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, sentences.join("; ")) }
    }

    /// The database, or the stream, is not there for the moment.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self { retry_after_secs: Some(RETRY_AFTER_SECS), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, detail) }
    }

    /// Something here failed, which says nothing about the request. Clients are not told what: they could not mend it.
    pub fn of_server() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, FAILED)
    }

    /// What a framework error means to the client. What it has in it is shown only where it is the client's own
    /// input. `docs` is where people find what there is.
    pub fn of_error(error: &poem::Error, docs: &str) -> Self {
        if let Some(problem) = error.downcast_ref::<Self>() {
            return problem.clone();
        }
        if let Some(ParseParamError { name, reason }) = error.downcast_ref() {
            return Self::invalid(vec![FieldError::new(*name, reason)]);
        }
        if let Some(ParsePathError { name, reason }) = error.downcast_ref() {
            return Self::invalid(vec![FieldError::new(*name, reason)]);
        }
        if let Some(ParseRequestPayloadError { reason }) = error.downcast_ref() {
            return Self::new(StatusCode::BAD_REQUEST, reason);
        }
        let status = error.status();
        let detail = match status {
            _ if error.is::<ContentTypeError>() => {
                "send the body with the header Content-Type: application/json".into()
            }
            StatusCode::NOT_FOUND => format!("no such page; see {docs} for what there is"),
            StatusCode::METHOD_NOT_ALLOWED => format!("this address does not take this method; see {docs}"),
            _ if status.is_server_error() => FAILED.into(),
            _ => error.to_string(),
        };
        Self::new(status, detail)
    }
}

impl Example for Problem {
    fn example() -> Self {
        Self::invalid(vec![FieldError::new("content", "must not be empty")])
    }
}

impl From<InsertError> for Problem {
    fn from(error: InsertError) -> Self {
        let detail = error.to_string();
        match error {
            InsertError::Conflict { .. } => Self::new(StatusCode::CONFLICT, detail),
            InsertError::Refused { .. } => Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail),
            InsertError::ReadOnly => Self::new(StatusCode::FORBIDDEN, detail),
            InsertError::Overloaded => Self::unavailable(detail),
            InsertError::Unknown { id } => Self { id: Some(id.to_string()), ..Self::unavailable(detail) },
        }
    }
}

impl From<TooMany> for Problem {
    fn from(too_many: TooMany) -> Self {
        let retry_after_secs = Some(too_many.retry_after_secs);
        Self { retry_after_secs, ..Self::new(StatusCode::TOO_MANY_REQUESTS, too_many.to_string()) }
    }
}

impl From<NotSignedIn> for Problem {
    fn from(reason: NotSignedIn) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, reason.to_string())
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        Self::unavailable(error.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = Response::builder().status(status).content_type(PROBLEM_JSON);
        if let Some(secs) = self.retry_after_secs {
            response = response.header(header::RETRY_AFTER, secs);
        }
        if status == StatusCode::UPGRADE_REQUIRED {
            // What the server would take instead (RFC 9110, 15.5.22 and RFC 6455, 4.4).
            response = response.header(header::UPGRADE, "websocket").header(header::SEC_WEBSOCKET_VERSION, "13");
        }
        if status == StatusCode::UNAUTHORIZED {
            response = response.header(header::WWW_AUTHENTICATE, CHALLENGE);
        }
        // A problem has nothing in it that could fail to serialise.
        response.body(serde_json::to_vec(&self).map_or_else(|_| Body::empty(), Body::from))
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.title, self.detail)
    }
}

impl std::error::Error for Problem {}

impl ResponseError for Problem {
    fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn as_response(&self) -> Response {
        self.clone().into_response()
    }
}
