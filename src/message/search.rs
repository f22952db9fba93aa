//! What a search compares: words and contents without the differences that people do not type.

use unicode_normalization::{UnicodeNormalization, char::is_combining_mark};

use super::{InvalidText, name::check_length};

/// The longest text that can be searched for, in characters.
pub const SEARCH_CHARS_MAX: usize = 200;

/// The words of a search, folded. A content matches when it contains all of them, in any order and also within words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchWords(Vec<String>);

impl SearchWords {
    /// Reads what somebody typed. No character has a meaning of its own.
    ///
    /// # Errors
    /// When there is nothing to search for, too much, or a control character.
    pub fn parse(text: &str) -> Result<Self, InvalidText> {
        let text = text.trim();
        if text.is_empty() {
            return Err(InvalidText::Empty);
        }
        check_length(text, SEARCH_CHARS_MAX)?;
        if let Some(control) = text.chars().find(|c| c.is_control()) {
            return Err(InvalidText::Forbidden(control));
        }
        let folded = folded(text);
        let mut words: Vec<String> = folded.split_whitespace().map(str::to_owned).collect();
        if words.is_empty() {
            return Err(InvalidText::NothingToFind);
        }
        // The longest first: it is the least likely, so that most contents are told apart by one comparison.
        words.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        words.dedup();
        Ok(Self(words))
    }

    /// Whether a content has all of the words.
    pub fn are_in(&self, content: &str) -> bool {
        let content = folded(content);
        self.0.iter().all(|word| content.contains(word.as_str()))
    }
}

/// A text as a search compares it: decomposed (NFKD), in lower case, without combining marks, and with one letter sigma.
/// `"Canción"`, `"CANCIO\u{301}N"` and `"cancion"` are one.
fn folded(text: &str) -> String {
    // Most of what is written; nothing of it decomposes.
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    // Lower case before the marks go, as it makes one: of U+0130, a capital i with a dot.
    let lower = text.nfkd().flat_map(char::to_lowercase);
    lower.filter(|&c| !is_combining_mark(c)).map(|c| if c == 'ς' { 'σ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_accents_and_forms_of_letters_make_no_difference() {
        for (text, content) in [
            ("cancion", "¡Canción!"),
            ("CANCIÓN", "una cancio\u{301}n"),
            ("ñandu", "El NANDÚ"),
            ("fin", "el \u{fb01}n"),
            ("istanbul", "İstanbul"),
            ("ΚΌΣΜΟΣ", "ο κοσμος"),
            ("１２", "12"),
            ("straße", "STRAẞE"),
            ("dev ops", "DevOps"),
            ("b a", "ab"),
        ] {
            assert!(SearchWords::parse(text).unwrap().are_in(content), "{text} in {content}");
        }
        for (text, content) in [("cancion", "canciones".get(..6).unwrap()), ("a b", "a c"), ("a.c", "abc"), (".*", "x")]
        {
            assert!(!SearchWords::parse(text).unwrap().are_in(content), "{text} in {content}");
        }
    }

    #[test]
    fn what_can_not_be_searched_for_is_said() {
        assert_eq!(SearchWords::parse(" \u{a0} "), Err(InvalidText::Empty));
        assert_eq!(SearchWords::parse("\u{301}\u{302}"), Err(InvalidText::NothingToFind));
        assert_eq!(SearchWords::parse("a\u{0}b"), Err(InvalidText::Forbidden('\u{0}')));
        assert_eq!(SearchWords::parse("a\tb"), Err(InvalidText::Forbidden('\t')));
        assert!(SearchWords::parse(&"ñ".repeat(200)).is_ok());
        assert!(matches!(SearchWords::parse(&"ñ".repeat(201)), Err(InvalidText::TooLong { chars: 201, .. })));
    }
}
