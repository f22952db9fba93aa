//! The path under which a server offers everything, when a proxy has other things at its root.

use std::{fmt, str::FromStr, sync::Arc};

/// Nothing, or segments that each begin with a slash: `/chat`. It stands before every path that the server names. Cheap to
/// clone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BasePath(Arc<str>);

impl BasePath {
    /// What stands before a path; empty at the root.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A path, as clients ask for it, without what stands before every path of ours; `None` for one that is elsewhere.
    pub fn below<'a>(&self, path: &'a str) -> Option<&'a str> {
        path.strip_prefix(&*self.0).filter(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// A path of this server, which begins with a slash, as clients must ask for it.
    pub fn join(&self, path: &str) -> String {
        format!("{}{path}", self.0)
    }
}

impl fmt::Display for BasePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for BasePath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let path = text.strip_suffix('/').unwrap_or(text);
        let is_plain = |segment: &str| {
            !matches!(segment, "" | "." | "..")
                && segment.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '~'))
        };
        match path.strip_prefix('/') {
            _ if path.is_empty() => Ok(Self::default()),
            Some(segments) if segments.split('/').all(is_plain) => Ok(Self(path.into())),
            _ => Err(format!(
                "{text:?} is not a path: write `/chat`, or `/apps/chat`, of letters, digits, `-`, `_`, `.` and `~`"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_taken_with_or_without_its_last_slash() {
        for (text, path) in [("", ""), ("/", ""), ("/chat", "/chat"), ("/chat/", "/chat"), ("/a/b-1", "/a/b-1")] {
            assert_eq!(text.parse::<BasePath>().unwrap().join("/ws"), format!("{path}/ws"));
        }
    }

    #[test]
    fn what_only_begins_like_it_is_not_below_it() {
        let base: BasePath = "/chat".parse().unwrap();
        for (path, below) in [("/chat", ""), ("/chat/", "/"), ("/chat/ws", "/ws")] {
            assert_eq!(base.below(path), Some(below));
        }
        assert!(["/", "/chats", "/livez", "/x/chat"].iter().all(|path| base.below(path).is_none()));
        assert_eq!(BasePath::default().below("/ws"), Some("/ws"));
    }

    #[test]
    fn what_is_no_path_is_no_setting() {
        for text in ["chat", "/a//b", "//", "/..", "/a/./b", "/a b", "/ñ", "/a?b", "/:room", "http://x/chat"] {
            assert!(text.parse::<BasePath>().is_err(), "{text}");
        }
    }
}
