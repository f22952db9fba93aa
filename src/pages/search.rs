//! The page of what a search has found. It is whole without a script; with one, its list is shown beside the chat.

use askama::Template;
use poem::{Response, http::StatusCode};

use super::{
    Pages, answer, errors,
    marks::Marks,
    part::{ChatQuery, PAGE_MESSAGES},
    place::{Place, encoded},
    rooms::{ListedRoom, listed_beside},
    row::Row,
    text::Piece,
    texts::{Texts, fill},
    visitor::Visitor,
};
use crate::{base_path::BasePath, message::SearchWords};

#[derive(Template)]
#[template(path = "search.html")]
struct SearchPage<'a> {
    base: &'a BasePath,
    texts: &'static Texts,
    script_texts: String,
    place: &'a Place,
    title: String,
    /// What was typed; empty before anything was.
    q: String,
    /// Newest first.
    rows: Vec<Row>,
    /// Where to search on; empty when all was looked through.
    before: String,
    /// What can not be searched for.
    is_refused: bool,
    rooms: Vec<ListedRoom>,
    own_inbox: Option<Place>,
}

impl Pages {
    /// Looks for the words of a query. One page looks at a bounded number of messages and leads on to older ones.
    pub(super) async fn search(&self, place: &Place, query: &ChatQuery, visitor: &Visitor) -> Response {
        let texts = visitor.language.texts();
        let q = query.q.as_deref().unwrap_or_default().trim().to_owned();
        let Ok(before) = query.before.as_deref().map(str::parse).transpose() else {
            return answer::see_other(&visitor.base, &format!("{}?q={}", place.path(), encoded(&q)));
        };
        let mut page = SearchPage {
            base: &self.base,
            texts,
            script_texts: texts.script_json(),
            place,
            title: fill(&texts.page.search_in, "place", &place.title(texts)),
            rows: Vec::new(),
            before: String::new(),
            is_refused: false,
            rooms: listed_beside(&self.listed_rooms().await, place),
            own_inbox: visitor.name.clone().map(Place::Inbox),
            q,
        };
        if page.q.is_empty() {
            return answer::page(StatusCode::OK, visitor.language, &page);
        }
        let Ok(words) = SearchWords::parse(&page.q) else {
            page.is_refused = true;
            return answer::page(StatusCode::UNPROCESSABLE_ENTITY, visitor.language, &page);
        };
        let at_least = self.status.position().time;
        match self.history.search(&place.scope(), &words, PAGE_MESSAGES, before.as_ref(), at_least).await {
            Ok(found) => {
                let marks = Marks::of(&page.q);
                page.rows = Row::found(found.messages, visitor.name_at(place), &marks);
                page.before = found.before.map(|place| place.to_string()).unwrap_or_default();
                answer::page(StatusCode::OK, visitor.language, &page)
            }
            Err(error) => errors::unavailable(visitor, &error, &place.path()),
        }
    }
}
