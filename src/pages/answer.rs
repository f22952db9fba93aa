//! The headers of a page.

use askama::Template;
use poem::{
    IntoResponse, Response,
    http::{StatusCode, header},
};

use super::texts::Language;
use crate::base_path::BasePath;

/// No inline script and no inline style: what a message may smuggle in does nothing. `'self'` is the WebSocket too.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'self'; \
     frame-ancestors 'none'";

/// A rendered page.
pub(super) fn page(status: StatusCode, language: Language, template: &impl Template) -> Response {
    let html = match template.render() {
        Ok(html) => html,
        Err(error) => {
            tracing::error!(%error, "a page could not be rendered");
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
    };
    Response::builder()
        .status(status)
        .content_type("text/html; charset=utf-8")
        .header(header::CONTENT_LANGUAGE, language.tag())
        .header(header::VARY, "Accept-Language, Cookie")
        // Kept for the back button: the script goes on from whatever cursor the page has.
        .header(header::CACHE_CONTROL, "private, no-cache")
        .header(header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY)
        .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
        .header(header::REFERRER_POLICY, "same-origin")
        .body(html)
}

/// 303: the browser gets the page at `path` of this server, whatever it did here.
pub(super) fn see_other(base: &BasePath, path: &str) -> Response {
    Response::builder()
        .status(StatusCode::SEE_OTHER)
        .header(header::LOCATION, base.join(path))
        .header(header::CACHE_CONTROL, "private, no-cache")
        .finish()
}
