//! Names of people and rooms in normal form.

use std::{fmt, sync::Arc};

use serde::{Serialize, Serializer};
use unicode_normalization::UnicodeNormalization;

use super::{DEFAULT_ROOM, NAME_CHARS_MAX, invisible::without_invisible};

/// The longest spelling of a name that is looked at, in bytes: far more than its characters take with all that is left out of
/// them.
const SPELLING_BYTES_MAX: usize = 4 * 1024;
/// How often something may be left out of a spelling until nothing more is to be. What people write, and what hides in it,
/// needs two turns; a text can be made that needs one for each of its characters.
const TURNS_MAX: usize = 8;

/// Why a text can not be a name, a content or an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidText {
    /// Nothing, or nothing but white space.
    #[error("must not be empty")]
    Empty,
    /// Over the bound, which is in characters.
    #[error("has {chars} characters; at most {chars_max} are allowed")]
    TooLong {
        /// How many there are.
        chars: usize,
        /// How many there may be.
        chars_max: usize,
    },
    /// A control, line-separator or bidirectional-override character, which could make a name pass as another.
    #[error("must not contain the character U+{:04X}", *.0 as u32)]
    Forbidden(char),
    /// Not in Unicode normal form C, with white space around it, or with something that nobody sees. Documents and the names of
    /// accounts can fail so; clients' input is normalised, and only fails so when nothing but tricks are in it.
    #[error("is not in normal form (NFC, no white space around it, nothing invisible in it)")]
    NotNormal,
    /// A room that looks like a path or like one of MongoDB's own collections.
    #[error("must not contain a part \".\" or \"..\", nor begin with \"system.\"")]
    Reserved,
    /// A search for nothing but accents.
    #[error("must have a letter, a digit or a sign to search for")]
    NothingToFind,
    /// The only ids that a client may choose are ObjectIds.
    #[error("must be 24 hexadecimal digits")]
    NotAnObjectId,
}

/// Declares a name in normal form: NFC, trimmed, 1 to [`NAME_CHARS_MAX`] characters, nothing invisible that
/// could make one name pass as another.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Brings client input into normal form.
            ///
            /// # Errors
            /// When it is empty, too long, or contains a forbidden character.
            pub fn normalise(text: &str) -> Result<Self, InvalidText> {
                if text.len() > SPELLING_BYTES_MAX {
                    check_length(text, NAME_CHARS_MAX)?;
                }
                Self::parse(&normal_form(text))
            }

            /// Takes a text that must already be in normal form, as documents must.
            ///
            /// # Errors
            /// As [`Self::normalise`], and when it is not in normal form.
            pub fn parse(text: &str) -> Result<Self, InvalidText> {
                check_name(text)?;
                $check(text)?;
                Ok(Self(text.into()))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({:?})", stringify!($name), &*self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }
    };
}

name! {
    /// The name of a person, as they give it. Not an account.
    UserName, |_: &str| Ok(())
}
name! {
    /// The name of a room. Rooms exist by being written to.
    RoomName, check_room
}

impl RoomName {
    /// The room of messages that name none.
    pub fn general() -> Self {
        Self(DEFAULT_ROOM.into())
    }
}

impl UserName {
    /// Takes the name of an account, which must not become that of another one: nothing is left out of it. White space around
    /// it is none of a header's value, and what is equivalent in Unicode is one name (NFC).
    ///
    /// # Errors
    /// As [`Self::parse`], also for what is left out of a name that somebody types.
    pub fn of_account(text: &str) -> Result<Self, InvalidText> {
        let text: String = text.trim_matches([' ', '\t']).nfc().collect();
        Self::parse(&text)
    }
}

fn check_name(text: &str) -> Result<(), InvalidText> {
    if text.trim().is_empty() {
        return Err(InvalidText::Empty);
    }
    check_length(text, NAME_CHARS_MAX)?;
    if let Some(forbidden) = text.chars().find(|&c| is_forbidden_in_names(c)) {
        return Err(InvalidText::Forbidden(forbidden));
    }
    // Below the combining characters there are, but for two, no others than those of normal form C that are seen.
    let is_plain = text.chars().all(|c| c < '\u{300}' && !matches!(c, '\u{A0}' | '\u{AD}'));
    let is_normal = if is_plain { text.trim() == text } else { normal_form(text) == text };
    if is_normal { Ok(()) } else { Err(InvalidText::NotNormal) }
}

/// See `invisible`; what is forbidden stays in, to be complained of. Of a text that needs too many turns what is returned is
/// not in normal form either.
fn normal_form(text: &str) -> String {
    let mut normal: String = text.nfc().collect();
    for _ in 0..TURNS_MAX {
        let visible = without_invisible(&normal);
        let visible = visible.trim();
        if visible == normal {
            break;
        }
        // What stood on both sides of something that is gone may make one character, and each turn is shorter.
        normal = visible.nfc().collect();
    }
    normal
}

/// Rooms stand in paths, where a browser would resolve dots, and `system.` is MongoDB's own prefix.
fn check_room(text: &str) -> Result<(), InvalidText> {
    let dots = text.split(['/', '\\']).any(|part| part == "." || part == "..");
    if dots || text.starts_with("system.") {
        return Err(InvalidText::Reserved);
    }
    Ok(())
}

/// Control characters, the two Unicode line separators, and the embeddings, overrides and isolates of the
/// bidirectional algorithm (UAX #9), which can show a name in another order than it is stored.
fn is_forbidden_in_names(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

pub(super) fn check_length(text: &str, chars_max: usize) -> Result<(), InvalidText> {
    // A character has at least one byte, so short texts need no count.
    if text.len() > chars_max {
        let chars = text.chars().count();
        if chars > chars_max {
            return Err(InvalidText::TooLong { chars, chars_max });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A joiner stays where the mark after it is not one of Latin, and two marks change places when nothing stands between them:
    /// so each turn leaves out one joiner, the last one.
    fn tricky(joiners: usize) -> String {
        format!("\u{5D0}{}\u{327}", "\u{200D}\u{1DC4}".repeat(joiners - 1) + "\u{200D}")
    }

    #[test]
    fn a_spelling_that_needs_many_turns_is_refused_and_costs_few() {
        let turns = |text: &str| {
            let mut normal: String = text.nfc().collect();
            for turn in 0.. {
                let visible = without_invisible(&normal);
                if visible == normal {
                    return turn;
                }
                normal = visible.nfc().collect();
            }
            0
        };
        assert_eq!(turns(&tricky(20)), 20, "the trick is none");
        assert!(UserName::normalise(&tricky(TURNS_MAX)).is_ok());
        for joiners in [TURNS_MAX + 1, 30] {
            assert_eq!(UserName::normalise(&tricky(joiners)), Err(InvalidText::NotNormal), "{joiners}");
            assert_eq!(UserName::parse(&tricky(joiners)), Err(InvalidText::NotNormal), "{joiners}");
        }
        for name in [tricky(10_000), "\u{301}".repeat(30_000), "a\u{200B}".repeat(16_000)] {
            assert!(matches!(UserName::normalise(&name), Err(InvalidText::TooLong { .. })));
        }
    }

    #[test]
    fn names_from_clients_are_normalised_and_names_in_documents_must_be_normal() {
        let decomposed = " Jose\u{301} ";
        assert_eq!(UserName::normalise(decomposed).unwrap().as_str(), "José");
        assert_eq!(UserName::parse(decomposed), Err(InvalidText::NotNormal));
        assert_eq!(UserName::parse("Jose\u{301}"), Err(InvalidText::NotNormal));
        assert_eq!(UserName::normalise("a\u{202E}b"), Err(InvalidText::Forbidden('\u{202E}')));
        assert!(UserName::normalise("👩\u{200D}👩\u{200D}👧").is_ok());
    }

    #[test]
    fn nobody_passes_as_another_by_what_is_not_seen() {
        let hidden =
            "\u{200B}\u{200E}\u{200F}\u{2060}\u{FEFF}\u{AD}\u{34F}\u{61C}\u{180E}\u{200C}\u{200D}\u{FE0F}\u{E0041}";
        for c in hidden.chars() {
            for spelt in [format!("{c}Ana"), format!("An{c}a"), format!("Ana{c}"), format!(" {c} Ana {c}{c}")] {
                assert_eq!(UserName::normalise(&spelt).unwrap().as_str(), "Ana", "U+{:04X}", c as u32);
                assert_eq!(UserName::parse(&spelt), Err(InvalidText::NotNormal), "U+{:04X}", c as u32);
            }
            assert_eq!(UserName::normalise(&c.to_string()), Err(InvalidText::Empty), "U+{:04X}", c as u32);
        }
        assert_eq!(UserName::normalise(hidden), Err(InvalidText::Empty));
        assert_eq!(UserName::normalise("\u{3164}\u{2800}"), Err(InvalidText::Empty));
        assert_eq!(UserName::normalise("Ana\u{A0}María").unwrap(), UserName::parse("Ana María").unwrap());
        assert_eq!(UserName::normalise("e\u{200B}\u{301}").unwrap().as_str(), "é");
    }

    #[test]
    fn two_accounts_are_never_one_name() {
        assert_eq!(UserName::of_account("Jose\u{301}"), UserName::parse("José"));
        assert_eq!(UserName::of_account(" Ana\t"), UserName::parse("Ana"));
        for hidden in ["A\u{200B}na", "Ana\u{A0}", "Ana\u{A0}María", "\u{3000}Ana", "\u{200B}", "An\u{AD}a"] {
            assert_eq!(UserName::of_account(hidden), Err(InvalidText::NotNormal), "{hidden:?}");
        }
        assert_eq!(UserName::of_account(" "), Err(InvalidText::Empty));
        assert_eq!(UserName::of_account("\u{202E}anA"), Err(InvalidText::Forbidden('\u{202E}')));
    }

    #[test]
    fn what_shapes_a_name_stays_in_it() {
        for name in [
            "👩\u{200D}👩\u{200D}👧",
            "❤\u{FE0F}\u{200D}🔥",
            "👩🏽\u{200D}🚀",
            "🏳\u{FE0F}\u{200D}🌈",
            "1\u{FE0F}\u{20E3}",
            "©\u{FE0F}",
            "🏴\u{E0067}\u{E0062}\u{E0065}\u{E006E}\u{E0067}\u{E007F}",
            "می\u{200C}خواهم",
            "क्\u{200D}ष",
            "葛\u{E0100}城",
            "山田\u{3000}太郎",
            "Ana  María",
        ] {
            assert_eq!(UserName::normalise(name).unwrap().as_str(), name, "{name:?}");
            assert!(UserName::parse(name).is_ok(), "{name:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn every_name_is_its_own_normal_form(text in "[a-zéñ 0\u{301}\u{200B}-\u{200F}\u{A0}\u{FE0F}\u{20E3}\u{3000}\u{AD}می❤👩🔥\u{E0061}-\u{E0064}\u{1100}\u{1161}]{0,12}") {
            if let Ok(name) = UserName::normalise(&text) {
                proptest::prop_assert_eq!(UserName::parse(name.as_str()), Ok(name.clone()));
                proptest::prop_assert_eq!(UserName::normalise(name.as_str()), Ok(name));
            }
        }
    }

    #[test]
    fn lengths_are_counted_in_characters() {
        assert!(UserName::parse(&"ñ".repeat(64)).is_ok());
        assert!(UserName::parse(&"ñ".repeat(65)).is_err());
        assert!(crate::message::check_content(&"ñ".repeat(4_000)).is_ok());
        assert!(crate::message::check_content(&"ñ".repeat(4_001)).is_err());
    }

    #[test]
    fn rooms_can_not_look_like_paths_or_system_collections() {
        for refused in [".", "..", "../", "a/../b", "system.users", "..\\x"] {
            assert!(RoomName::normalise(refused).is_err(), "{refused}");
        }
        for allowed in ["a/b", "v1.2", "...", "система"] {
            assert!(RoomName::normalise(allowed).is_ok(), "{allowed}");
        }
    }
}
