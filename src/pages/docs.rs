//! The pages for those who write programs: the live side of the server, to be read and tried, and what each kind of
//! problem means.

use askama::Template;
use poem::{Response, Result, error::NotFoundError, handler, http::StatusCode, web::Path};

use super::{
    answer,
    assets::Stored,
    texts::{CloseTexts, Language, Texts},
    visitor::Visitor,
};
use crate::{
    base_path::BasePath,
    problem::{KINDS, Kind},
    sessions::{Carriers, CloseEntry, FrameEntry, Speaker, closes, frames},
};

#[derive(Template)]
#[template(path = "realtime.html")]
struct RealtimePage<'a> {
    base: &'a BasePath,
    texts: &'static Texts,
    /// Those of the server, and those of clients.
    sides: [Vec<FrameRow>; 2],
    closes: Vec<CloseRow>,
    script_texts: String,
}

struct FrameRow {
    kind: &'static str,
    meaning: &'static str,
    carriers: &'static str,
    /// One line of JSON each.
    examples: Vec<String>,
}

struct CloseRow {
    code: u16,
    reason: &'static str,
    comes_back: bool,
    texts: &'static CloseTexts,
}

/// `GET /docs/realtime`
#[handler]
pub(crate) fn show_realtime(visitor: Visitor) -> Response {
    let texts = visitor.language.texts();
    let row = |frame: &'static FrameEntry| FrameRow {
        kind: frame.kind,
        meaning: texts.realtime.frames.get(frame.kind).map_or(frame.meaning, String::as_str),
        carriers: match frame.carriers {
            Carriers::All => &texts.realtime.everywhere,
            Carriers::Streams => &texts.realtime.all_streams,
            Carriers::Sockets => &texts.realtime.all_sockets,
            Carriers::WebSocket => &texts.realtime.only_websocket,
        },
        examples: frame.examples.iter().map(ToString::to_string).collect(),
    };
    let side = |speaker| frames().iter().filter(|frame| frame.speaker == speaker).map(row).collect();
    let close = |CloseEntry { code, reason, comes_back }| {
        Some(CloseRow { code, reason, comes_back, texts: texts.realtime.closes.get(&code)? })
    };
    let page = RealtimePage {
        base: &visitor.base,
        texts,
        sides: [Speaker::Server, Speaker::Client].map(side),
        closes: closes().filter_map(close).collect(),
        script_texts: texts.realtime_json(),
    };
    answer::page(StatusCode::OK, visitor.language, &page)
}

#[derive(Template)]
#[template(path = "rest.html")]
struct RestPage<'a> {
    base: &'a BasePath,
    texts: &'static Texts,
    head: &'a str,
    body: &'a str,
}

/// The page `/docs`: that of Swagger UI, which knows neither phones nor a way back to the chat, with both.
pub(crate) fn rest_page(base: &BasePath, swagger_ui: &str) -> Stored {
    // The framework's own title and element; were they others one day, the page would be as the framework makes it.
    let parts = swagger_ui.split_once("<title>Swagger UI</title>").and_then(|(_, rest)| rest.split_once(UI));
    let page = parts.and_then(|(head, body)| {
        let body = format!("{UI}{body}");
        RestPage { base, texts: Language::English.texts(), head, body: &body }.render().ok()
    });
    Stored::new(page.unwrap_or_else(|| swagger_ui.to_owned()))
}

/// Where Swagger UI puts itself.
const UI: &str = "<div id=\"ui\"></div>";

#[derive(Template)]
#[template(path = "problem.html")]
struct ProblemPage<'a> {
    base: &'a BasePath,
    texts: &'static Texts,
    kind: &'static Kind,
    title: &'static str,
    text: &'static str,
}

/// `GET /problems/NAME`: the page that the `type` of a problem is the path of.
#[handler]
pub(crate) fn show_problem(Path(name): Path<String>, visitor: Visitor) -> Result<Response> {
    let texts = visitor.language.texts();
    let kind = KINDS.iter().find(|kind| kind.name == name).ok_or(NotFoundError)?;
    let words = texts.problems.get(kind.name).ok_or(NotFoundError)?;
    let page = ProblemPage { base: &visitor.base, texts, kind, title: &words.title, text: &words.text };
    Ok(answer::page(StatusCode::OK, visitor.language, &page))
}

/// The parts of a text, and whether each stood between backticks.
fn code_parts(text: &str) -> impl Iterator<Item = (bool, &str)> {
    text.split('`').enumerate().map(|(at, part)| (at % 2 == 1, part))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_frame_close_code_and_kind_of_problem_is_told_in_both_languages() {
        for language in [Language::English, Language::Spanish] {
            let texts = language.texts();
            let kinds: BTreeSet<&str> = frames().iter().map(|frame| frame.kind).collect();
            assert_eq!(texts.realtime.frames.keys().map(String::as_str).collect::<BTreeSet<_>>(), kinds);
            let codes: BTreeSet<u16> = closes().map(|close| close.code).collect();
            assert_eq!(texts.realtime.closes.keys().copied().collect::<BTreeSet<_>>(), codes);
            let names: BTreeSet<&str> = KINDS.iter().map(|kind| kind.name).collect();
            assert_eq!(texts.problems.keys().map(String::as_str).collect::<BTreeSet<_>>(), names);
        }
    }

    #[test]
    fn in_english_the_page_says_what_the_specifications_say() {
        let texts = Language::English.texts();
        for frame in frames() {
            assert_eq!(texts.realtime.frames[frame.kind], frame.meaning);
        }
        for kind in &KINDS {
            assert_eq!(texts.problems[kind.name].title, kind.title);
        }
    }
}
