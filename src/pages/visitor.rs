//! What a request says about who makes it: the language, and the name that they are signed in with or last wrote under.

use percent_encoding::percent_decode_str;
use poem::{
    FromRequest, Request, RequestBody, Result,
    http::{HeaderMap, header},
};

use super::{
    Pages,
    place::{Place, encoded},
    texts::Language,
};
use crate::{base_path::BasePath, listener::Writer, message::UserName};

/// The cookie in which the browser keeps the name for the next page: for its form, and to mark what its reader wrote.
/// It proves nothing, and the script of the page writes it too: it is not hidden from scripts.
const COOKIE: &str = "corriente-name";
const COOKIE_SECS: u32 = 365 * 24 * 60 * 60;

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Visitor {
    /// What stands before every path that they are shown.
    pub(super) base: BasePath,
    pub(super) language: Language,
    pub(super) name: Option<UserName>,
    pub(super) writer: Writer,
}

impl<'a> FromRequest<'a> for Visitor {
    async fn from_request(request: &'a Request, _: &mut RequestBody) -> Result<Self> {
        let base = request.data::<Pages>().map(|pages| pages.base.clone()).unwrap_or_default();
        let (visitor, writer) = (Self::of(request.headers(), base), Writer::of_request(request));
        Ok(match writer {
            Writer::Claimed => visitor,
            // The cookie may be of somebody else who was signed in here.
            writer => Self { name: writer.name().cloned(), writer, ..visitor },
        })
    }
}

impl Visitor {
    pub(super) fn of(headers: &HeaderMap, base: BasePath) -> Self {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        Self {
            base,
            language: Language::preferred(text(header::ACCEPT_LANGUAGE)),
            name: remembered_name(text(header::COOKIE)),
            writer: Writer::Claimed,
        }
    }

    /// Under which name they write here, if that is known: where nobody signs in, an inbox is its owner's.
    pub(super) fn name_at<'a>(&'a self, place: &'a Place) -> Option<&'a UserName> {
        match (self.writer.name(), place) {
            (None, Place::Inbox(user)) => Some(user),
            _ => self.name.as_ref(),
        }
    }
}

fn remembered_name(cookies: &str) -> Option<UserName> {
    let value = cookies.split(';').find_map(|cookie| cookie.trim().strip_prefix(COOKIE)?.strip_prefix('='))?;
    UserName::parse(&percent_decode_str(value).decode_utf8().ok()?).ok()
}

/// The value of `Set-Cookie` that lets the next form know `name`.
pub(super) fn remember(name: &UserName, base: &BasePath) -> String {
    let name = encoded(name.as_str());
    let path = if base.as_str().is_empty() { "/" } else { base.as_str() };
    format!("{COOKIE}={name}; Path={path}; Max-Age={COOKIE_SECS}; SameSite=Lax")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remembered_name_comes_back() {
        let name = UserName::parse("José; =\"x\"").unwrap();
        let set = remember(&name, &BasePath::default());
        let cookie = set.split(';').next().unwrap();
        assert_eq!(remembered_name(&format!("a=b; {cookie}; c=d")), Some(name));
        assert_eq!(remembered_name("corriente-name=%FF"), None);
        assert_eq!(remembered_name("corriente-name="), None);
        assert_eq!(remembered_name(""), None);
    }
}
