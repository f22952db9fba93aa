//! The pages that say what went wrong.

use askama::Template;
use poem::{
    Request, Response, handler,
    http::{HeaderValue, StatusCode, header},
};

use super::{
    answer,
    texts::{Language, PageTexts, Texts},
    visitor::Visitor,
};
use crate::mongo::ReadError;

/// When to come back, in seconds, while MongoDB can not be reached: about as long as an election takes.
const RETRY_AFTER_SECS: &str = "5";

#[derive(Template)]
#[template(path = "error.html")]
struct ErrorPage<'a> {
    texts: &'static Texts,
    title: &'a str,
    text: &'a str,
    way: Way<'a>,
}

/// Where to go from a page that says what went wrong.
enum Way<'a> {
    /// To the room `general`.
    Home,
    /// To the same page once more.
    Again(&'a str),
    /// To the newest messages of the place.
    Newest(&'a str),
}

/// 404 for a path that leads nowhere.
#[handler]
pub(crate) fn not_found(visitor: Visitor) -> Response {
    show(StatusCode::NOT_FOUND, visitor.language, Way::Home, |texts| (&texts.not_found_title, &texts.not_found_text))
}

/// 404 for a name that no room can have.
pub(super) fn no_such_room(language: Language) -> Response {
    show(StatusCode::NOT_FOUND, language, Way::Home, |texts| (&texts.no_room_title, &texts.no_room_text))
}

/// 404 for a name that nobody can have.
pub(super) fn no_such_inbox(language: Language) -> Response {
    show(StatusCode::NOT_FOUND, language, Way::Home, |texts| (&texts.no_inbox_title, &texts.no_inbox_text))
}

/// 404 for a link to a message that is not, or not any more, in `path`.
pub(super) fn no_such_message(language: Language, path: &str) -> Response {
    let words = |texts: &'static PageTexts| (&texts.no_message_title, &texts.no_message_text);
    show(StatusCode::NOT_FOUND, language, Way::Newest(path), words)
}

/// The body was no form, or too big: `status` says which.
pub(super) fn bad_form(language: Language, status: StatusCode) -> Response {
    show(status, language, Way::Home, |texts| (&texts.bad_form_title, &texts.bad_form_text))
}

/// 503: MongoDB can not be read.
pub(super) fn unavailable(language: Language, error: &ReadError, path: &str) -> Response {
    tracing::warn!(reason = %error.reason, "a page could not be shown");
    let response = show(StatusCode::SERVICE_UNAVAILABLE, language, Way::Again(path), |texts| {
        (&texts.unavailable_title, &texts.unavailable_text)
    });
    retry_later(response)
}

/// 429: so many requests come from here that this one was not looked at.
pub(crate) fn too_many(request: &Request, retry_after_secs: u32) -> Response {
    let (visitor, path) = (Visitor::of(request.headers()), request.uri().path());
    let words = |texts: &'static PageTexts| (&texts.too_many_title, &texts.too_many_text);
    let response = show(StatusCode::TOO_MANY_REQUESTS, visitor.language, Way::Again(path), words);
    retry_after(response, retry_after_secs)
}

/// Says when to come back.
pub(super) fn retry_after(mut response: Response, secs: u32) -> Response {
    response.headers_mut().insert(header::RETRY_AFTER, secs.into());
    response
}

/// Says to come back when MongoDB may be there again.
pub(super) fn retry_later(mut response: Response) -> Response {
    let seconds = HeaderValue::from_static(RETRY_AFTER_SECS);
    response.headers_mut().insert(header::RETRY_AFTER, seconds);
    response
}

fn show(
    status: StatusCode,
    language: Language,
    way: Way<'_>,
    words: impl Fn(&'static PageTexts) -> (&'static String, &'static String),
) -> Response {
    let texts = language.texts();
    let (title, text) = words(&texts.page);
    answer::page(status, language, &ErrorPage { texts, title, text, way })
}
