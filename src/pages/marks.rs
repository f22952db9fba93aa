//! Where the words of a search stand in a text. The search folds case and accents and so loses the places; here each
//! character is folded by itself and its place kept.

use std::{ops::Range, sync::Arc};

use unicode_normalization::{UnicodeNormalization, char::is_combining_mark};

/// The words to mark, folded. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Marks(Arc<[String]>);

impl Marks {
    /// The words of what was typed.
    pub(super) fn of(typed: &str) -> Self {
        let words = typed.split_whitespace().map(|word| word.chars().flat_map(fold).collect());
        Self(words.filter(|word: &String| !word.is_empty()).collect())
    }

    /// The stretches of `text` to be marked, in order and apart from each other.
    pub(super) fn in_text(&self, text: &str) -> Vec<Range<usize>> {
        let mut folded = String::new();
        // For each byte of `folded`: where its character begins in `text`, and where what it stands for ends.
        let mut origins: Vec<Range<usize>> = Vec::new();
        for (at, c) in text.char_indices() {
            let origin = at..at + c.len_utf8();
            match origins.last_mut() {
                // An accent of its own belongs to the letter before it.
                Some(last) if is_combining_mark(c) => last.end = origin.end,
                _ => {}
            }
            folded.extend(fold(c));
            origins.resize(folded.len(), origin);
        }
        let found = |word: &String| -> Vec<Range<usize>> {
            let stretches = folded.match_indices(word.as_str()).map(|(at, _)| at..at + word.len());
            stretches.map(|stretch| origins[stretch.start].start..origins[stretch.end - 1].end).collect()
        };
        let mut stretches: Vec<Range<usize>> = self.0.iter().flat_map(found).collect();
        stretches.sort_by_key(|stretch| stretch.start);
        let mut apart: Vec<Range<usize>> = Vec::new();
        for stretch in stretches {
            match apart.last_mut() {
                Some(last) if stretch.start <= last.end => last.end = last.end.max(stretch.end),
                _ => apart.push(stretch),
            }
        }
        apart
    }
}

fn fold(c: char) -> impl Iterator<Item = char> {
    let letters = std::iter::once(c).nfkd().flat_map(char::to_lowercase).filter(|&c| !is_combining_mark(c));
    letters.map(|c| if c == 'ς' { 'σ' } else { c })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_marked_whatever_their_case_and_accents() {
        let table = [
            ("cancion", "Una canción: CANCIO\u{301}N!", vec!["canción", "CANCIO\u{301}N"]),
            ("Ñandú", "el nandu", vec!["nandu"]),
            ("fin", "el \u{fb01}n", vec!["\u{fb01}n"]),
            ("ab bc", "xabcx", vec!["abc"]),
            ("a", "aa", vec!["aa"]),
            ("\u{301}", "a\u{301}", vec![]),
            ("路", "https://ñ.example/路", vec!["路"]),
        ];
        for (typed, text, expected) in table {
            let marked: Vec<&str> = Marks::of(typed).in_text(text).into_iter().map(|range| &text[range]).collect();
            assert_eq!(marked, expected, "{typed} in {text}");
        }
    }
}
