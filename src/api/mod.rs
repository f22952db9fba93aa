//! Stage 1, REST: check, insert, answer. Holds nothing that can push.

mod answers;
mod body;
mod health;
mod limit;
mod messages;
mod nullable;
mod part;
mod presence;
mod rooms;
mod status;

use std::borrow::Cow;

use poem::http::Uri;
use poem_openapi::{ContactObject, LicenseObject, OpenApi, OpenApiService, ServerObject, Tags};

pub use health::{livez, metrics, readyz};
pub use messages::MessagesApi;
pub use presence::PresenceApi;
pub use rooms::RoomsApi;
pub use status::StatusApi;

use crate::{
    base_path::BasePath,
    message::FieldError,
    mongo::{History, Inserter},
    presence::Presence,
    rates::Rates,
    vitals::Vitals,
    watcher::WatcherStatus,
};

/// What the handlers work with.
#[derive(Clone)]
pub struct Api {
    /// What stands before every path.
    pub base: BasePath,
    /// Reads.
    pub history: History,
    /// Writes.
    pub inserter: Inserter,
    /// Bounds what one client writes.
    pub rates: Rates,
    /// Counts.
    pub presence: Presence,
    /// How the server is.
    pub vitals: Vitals,
    /// Tells the place in the stream at which an answer joins it.
    pub status: WatcherStatus,
}

/// The sections of the documentation.
#[derive(Tags)]
enum Section {
    /// Send and read messages. What anybody writes, here or into MongoDB, reaches every connected client.
    Messages,
    /// Rooms exist by being written to.
    Rooms,
    /// How the server is.
    Operation,
}

/// The service and its OpenAPI document, together with the operations of `others`, which this module knows nothing of.
pub fn service<T: OpenApi>(
    api: &Api,
    others: T,
) -> OpenApiService<(MessagesApi, RoomsApi, PresenceApi, T, StatusApi), ()> {
    let status = StatusApi(api.vitals.clone());
    let base = api.base.as_str();
    OpenApiService::new(
        (MessagesApi(api.clone()), RoomsApi(api.clone()), PresenceApi(api.clone()), others, status),
        "Corriente",
        env!("CARGO_PKG_VERSION"),
    )
    .description(
        format!("A realtime chat over MongoDB change streams. Requests only insert; the change stream pushes.\n\n\
         Live events come over the WebSocket `/ws`, over Socket.IO, as server-sent events, or on request: join with the \
         `cursor` of a page of messages and nothing is missed. [/docs/realtime]({base}/docs/realtime) lets you try that \
         side, and [/asyncapi.yaml]({base}/asyncapi.yaml) describes it.\n\n\
         Errors are problem details (RFC 9457) with a stable `type`, which leads to a page that says what to do."),
    )
    .contact(ContactObject::new().name("The Corriente maintainers"))
    .license(LicenseObject::new("MIT").url("https://opensource.org/license/mit"))
    .server(ServerObject::new(if base.is_empty() { "/" } else { base }).description("This server"))
}

/// Refuses a parameter that an operation does not have, and one that is given twice: `room[$ne]=x`, or a name that is
/// misspelt, must not read as "everything".
fn check_query(uri: &Uri, known: &[&str]) -> Result<(), Vec<FieldError>> {
    check_names(uri, known)?;
    let mut given = Vec::new();
    for name in names_in(uri) {
        if given.contains(&name) {
            return Err(field(&name, "can be given once only"));
        }
        given.push(name);
    }
    Ok(())
}

/// The same for an operation whose parameters may be repeated.
fn check_names(uri: &Uri, known: &[&str]) -> Result<(), Vec<FieldError>> {
    match names_in(uri).find(|name| !known.contains(&name.as_ref())) {
        Some(unknown) => {
            let shown: String = unknown.chars().take(64).collect();
            Err(field(&shown, "is not a parameter of this operation"))
        }
        None => Ok(()),
    }
}

fn names_in(uri: &Uri) -> impl Iterator<Item = Cow<'_, str>> {
    form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).map(|(name, _)| name)
}

fn field(name: &str, error: impl std::fmt::Display) -> Vec<FieldError> {
    vec![FieldError::new(name, error)]
}
