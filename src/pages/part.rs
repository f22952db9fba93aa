//! Which part of a history a page shows.

use serde::Deserialize;

use crate::{
    cursor::ClusterTime,
    mongo::{History, HistoryPlace, Page, ReadError, Scope},
};

/// How many messages a page shows.
pub(super) const PAGE_MESSAGES: usize = 50;

/// What may follow the path of a chat.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ChatQuery {
    /// Show the messages before this place, or look for words there.
    pub(super) before: Option<String>,
    /// Show the messages after this place.
    pub(super) after: Option<String>,
    /// Show this message amid its neighbours.
    pub(super) at: Option<String>,
    /// Look for these words.
    pub(super) q: Option<String>,
    /// Whom the form is to write to.
    pub(super) to: Option<String>,
    /// Present: the page loads itself again, for readers without a script.
    pub(super) refresh: Option<String>,
}

/// See the module.
pub(super) enum Part {
    Newest,
    Before(HistoryPlace),
    After(HistoryPlace),
    Around(String),
}

impl Part {
    /// What a query asks for; nothing when it is mistyped, or of another version of the server.
    pub(super) fn parse(query: &ChatQuery) -> Option<Self> {
        Some(match (&query.at, &query.before, &query.after) {
            (Some(id), ..) => Part::Around(id.clone()),
            (None, Some(before), _) => Part::Before(before.parse().ok()?),
            (None, None, Some(after)) => Part::After(after.parse().ok()?),
            (None, None, None) => Part::Newest,
        })
    }

    /// Reads it, as it was at `at_least` or later. `None`: there is no such message here.
    ///
    /// # Errors
    /// As [`History::page`].
    pub(super) async fn read(
        &self,
        history: &History,
        scope: &Scope,
        at_least: ClusterTime,
    ) -> Result<Option<Page>, ReadError> {
        match self {
            Part::Newest => history.page(scope, PAGE_MESSAGES, None, at_least).await.map(Some),
            Part::Before(place) => history.page(scope, PAGE_MESSAGES, Some(place), at_least).await.map(Some),
            Part::After(place) => history.page_after(scope, PAGE_MESSAGES, place, at_least).await.map(Some),
            Part::Around(id) => history.page_around(scope, PAGE_MESSAGES, id, at_least).await,
        }
    }
}
