//! Who has signed in, where a proxy sees to that: it says so in a header, and the server takes it for the sender.
//!
//! Anybody can write a header. So it is taken out of every request here, before anything else sees it, and believed only
//! in those of a proxy that the operator trusts.

use std::{fmt, str::FromStr};

use poem::{
    FromRequest, Request, RequestBody, Result,
    http::{HeaderMap, HeaderName, header},
};

use crate::message::{Draft, InvalidText, UserName};

/// Headers that say something else already, which would be lost.
const TAKEN: [HeaderName; 28] = [
    header::ACCEPT,
    header::ACCEPT_ENCODING,
    header::ACCEPT_LANGUAGE,
    header::AUTHORIZATION,
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::COOKIE,
    header::EXPECT,
    header::FORWARDED,
    header::HOST,
    header::IF_MODIFIED_SINCE,
    header::IF_NONE_MATCH,
    header::ORIGIN,
    header::PROXY_AUTHORIZATION,
    header::RANGE,
    header::REFERER,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::USER_AGENT,
    HeaderName::from_static("idempotency-key"),
    HeaderName::from_static("last-event-id"),
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-real-ip"),
    HeaderName::from_static("x-request-id"),
];

/// The header in which a trusted proxy names who has signed in; or none, where nobody signs in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SenderHeader(Option<HeaderName>);

impl FromStr for SenderHeader {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        let name: HeaderName = text.parse().map_err(|_| {
            format!("{text:?} can not be the name of a header: write one such as X-Auth-Request-Preferred-Username")
        })?;
        if TAKEN.contains(&name) || name.as_str().starts_with("sec-") {
            return Err(format!("{text} has a meaning of its own: let the proxy put the name into another header"));
        }
        Ok(Self(Some(name)))
    }
}

impl SenderHeader {
    /// Whether people sign in.
    pub fn is_set(&self) -> bool {
        self.0.is_some()
    }

    /// Whether the headers of a request name somebody, rightly or not.
    pub(super) fn is_in(&self, headers: &HeaderMap) -> bool {
        self.0.as_ref().is_some_and(|name| headers.contains_key(name))
    }

    /// Takes the header out of a request, and finds out by whom that is made.
    pub(super) fn take(&self, headers: &mut HeaderMap, is_of_proxy: bool) -> Writer {
        let Some(name) = &self.0 else {
            return Writer::Claimed;
        };
        let mut values = headers.get_all(name).iter();
        let writer = match (values.next().filter(|value| is_of_proxy && !value.is_empty()), values.next()) {
            (None, _) => Writer::Unknown(NotSignedIn::Nobody),
            (Some(_), Some(_)) => Writer::Unknown(NotSignedIn::Several),
            // Only UTF-8: the bytes of one name may be another one in another encoding.
            (Some(value), None) => match str::from_utf8(value.as_bytes()).map(UserName::of_account) {
                Ok(Ok(name)) => Writer::SignedIn(name),
                Ok(Err(fault)) => Writer::Unknown(NotSignedIn::NoName(fault)),
                Err(_) => Writer::Unknown(NotSignedIn::NotUtf8),
            },
        };
        headers.remove(name);
        writer
    }
}

/// By whom a request is made, and what is sent over its connection from then on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Writer {
    /// Nobody signs in: whoever writes says under which name, and that is a claim.
    Claimed,
    /// A proxy has signed this person in.
    SignedIn(UserName),
    /// People sign in, and this one has not, so that nothing can be written.
    Unknown(NotSignedIn),
}

/// Why it is not known who writes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotSignedIn {
    /// The proxy says nothing, or there is none.
    #[error(
        "you are not signed in, so the message was not stored: this server takes the sender from the proxy in front of it, \
         which has named nobody; sign in there, and send it again"
    )]
    Nobody,
    /// The header is there more than once: one of them may be made up.
    #[error(
        "the message was not stored: the proxy in front of this server has named more than one person, which its operator \
         has to mend"
    )]
    Several,
    /// Who is signed in has a name that no message can have.
    #[error(
        "the message was not stored: the name under which you are signed in {0}, so no message can have it; the operator of \
         the proxy in front of this server can choose another one"
    )]
    NoName(InvalidText),
    /// Who is signed in has a name in some other encoding.
    #[error(
        "the message was not stored: the name under which you are signed in is not in UTF-8, so no message can have it; the \
         operator of the proxy in front of this server has to mend that"
    )]
    NotUtf8,
}

impl Writer {
    /// Of a request, and of a connection that has begun with it. Nobody, when it has not come through the front door.
    pub fn of_request(request: &Request) -> Self {
        request.data::<Self>().cloned().unwrap_or(Self::Unknown(NotSignedIn::Nobody))
    }

    /// Puts the writer's name on a draft, whatever stood there.
    ///
    /// # Errors
    /// When it is not known who writes.
    pub fn sign(&self, draft: Draft) -> Result<Draft, NotSignedIn> {
        match self {
            Self::Claimed => Ok(draft),
            Self::SignedIn(name) => Ok(Draft { sender: Some(name.to_string()), ..draft }),
            Self::Unknown(reason) => Err(reason.clone()),
        }
    }

    /// Who it is, if that is more than a claim.
    pub fn name(&self) -> Option<&UserName> {
        match self {
            Self::SignedIn(name) => Some(name),
            Self::Claimed | Self::Unknown(_) => None,
        }
    }
}

impl<'a> FromRequest<'a> for Writer {
    async fn from_request(request: &'a Request, _: &mut RequestBody) -> Result<Self> {
        Ok(Self::of_request(request))
    }
}

impl fmt::Display for SenderHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_ref().map_or("", HeaderName::as_str))
    }
}

#[cfg(test)]
mod tests {
    use poem::http::HeaderValue;

    use super::*;

    fn writer(values: &[&[u8]], is_of_proxy: bool) -> Writer {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("X-User", HeaderValue::from_bytes(value).unwrap());
        }
        let writer = "x-user".parse::<SenderHeader>().unwrap().take(&mut headers, is_of_proxy);
        assert!(headers.is_empty(), "nobody else may read it");
        writer
    }

    fn signed_in(name: &str) -> Writer {
        Writer::SignedIn(UserName::parse(name).unwrap())
    }

    #[test]
    fn a_trusted_proxy_names_one_person_who_is_no_other_one() {
        assert_eq!(writer(&[b"Ana"], true), signed_in("Ana"));
        assert_eq!(writer(&["  José ".as_bytes()], true), signed_in("José"));
        assert_eq!(writer(&["Jose\u{301}".as_bytes()], true), signed_in("José"));
        assert_eq!(writer(&[b"Jos\xE9"], true), Writer::Unknown(NotSignedIn::NotUtf8));
        assert_eq!(writer(&[b"ana@example.org"], true), signed_in("ana@example.org"));
    }

    #[test]
    fn nobody_else_is_believed_and_what_names_nobody_is_nobody() {
        let nobody = Writer::Unknown(NotSignedIn::Nobody);
        assert_eq!(writer(&[b"Ana"], false), nobody);
        assert_eq!(writer(&[], true), nobody);
        assert_eq!(writer(&[b""], true), nobody);
        assert_eq!(writer(&[b"Ana", b"Luis"], true), Writer::Unknown(NotSignedIn::Several));
        let long = "x".repeat(65);
        for text in [" ", "\u{202E}anA", "A\u{200B}na", "Ana\u{A0}", &long] {
            let writer = writer(&[text.as_bytes()], true);
            assert!(matches!(writer, Writer::Unknown(NotSignedIn::NoName(_))), "{text:?}: {writer:?}");
        }
    }

    #[test]
    fn without_the_setting_a_header_of_any_name_stays_what_it_is() {
        let mut headers = HeaderMap::new();
        headers.insert("X-User", HeaderValue::from_static("Ana"));
        assert_eq!(SenderHeader::default().take(&mut headers, true), Writer::Claimed);
        assert_eq!(headers.len(), 1);
    }

    #[test]
    fn a_header_that_means_something_else_is_refused() {
        assert_eq!("".parse(), Ok(SenderHeader::default()));
        for text in ["Cookie", "X-Forwarded-For", "X-Real-IP", "User-Agent", "Sec-WebSocket-Key", "X User", "X-User:"] {
            assert!(text.parse::<SenderHeader>().is_err(), "{text}");
        }
        assert_eq!("Remote-User".parse::<SenderHeader>().unwrap().to_string(), "remote-user");
    }

    #[test]
    fn a_request_that_has_not_come_through_the_front_door_can_write_under_no_name() {
        assert_eq!(Writer::of_request(&Request::default()), Writer::Unknown(NotSignedIn::Nobody));
    }

    #[test]
    fn the_name_on_a_draft_is_that_of_who_is_signed_in() {
        let draft = Draft { sender: Some("Luis".into()), content: Some("hola".into()), ..Draft::default() };
        assert_eq!(signed_in("Ana").sign(draft.clone()).unwrap().sender.as_deref(), Some("Ana"));
        assert_eq!(Writer::Claimed.sign(draft.clone()).unwrap().sender.as_deref(), Some("Luis"));
        assert_eq!(Writer::Unknown(NotSignedIn::Several).sign(draft).unwrap_err(), NotSignedIn::Several);
    }
}
