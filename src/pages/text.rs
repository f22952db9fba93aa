//! What stands in a text: web addresses and mentions. `templates/static/text.js` follows the same rules, so that a
//! message looks the same whether the server or the browser made its row.

use super::marks::Marks;

/// A stretch of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    Text(&'a str),
    /// An address with `http://` or `https://`; nothing else is ever made a link.
    Link(&'a str),
    /// `@` and a name without a blank. It says nothing about whether there is such a person.
    Mention(&'a str),
    /// What a search was for.
    Mark(&'a str),
}

/// Cuts a text into pieces that together are the text again.
pub(super) fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let (mut done, mut from) = (0, 0);
    while let Some(found) = text[from..].find("://") {
        let mark = from + found;
        from = mark + "://".len();
        let Some(start) = scheme_start(&text[done..mark]).map(|start| done + start) else {
            continue;
        };
        // The host begins with a letter or a digit: a bare "http://" is not an address.
        if !text[from..].starts_with(char::is_alphanumeric) {
            continue;
        }
        let rest = &text[start..];
        let end = rest.find(|c: char| c.is_whitespace() || matches!(c, '<' | '>' | '"'));
        let address = without_trailing_marks(&rest[..end.unwrap_or(rest.len())]);
        push_text(&mut pieces, &text[done..start]);
        pieces.push(Piece::Link(address));
        done = start + address.len();
        from = done;
    }
    push_text(&mut pieces, &text[done..]);
    pieces
}

/// The same pieces with what `marks` finds marked, outside addresses and mentions.
pub(super) fn marked<'a>(pieces: Vec<Piece<'a>>, marks: &Marks) -> Vec<Piece<'a>> {
    let mut marked = Vec::new();
    for piece in pieces {
        let Piece::Text(text) = piece else {
            marked.push(piece);
            continue;
        };
        let mut done = 0;
        for mark in marks.in_text(text) {
            if done < mark.start {
                marked.push(Piece::Text(&text[done..mark.start]));
            }
            done = mark.end;
            marked.push(Piece::Mark(&text[mark]));
        }
        if done < text.len() {
            marked.push(Piece::Text(&text[done..]));
        }
    }
    marked
}

/// A text without addresses, and the mentions in it.
fn push_text<'a>(pieces: &mut Vec<Piece<'a>>, text: &'a str) {
    let mut done = 0;
    for (at, _) in text.match_indices('@') {
        // In the middle of a word it is a mail address.
        if at < done || text[..at].ends_with(char::is_alphanumeric) {
            continue;
        }
        let name = &text[at + 1..];
        let end = name.find(|c: char| !c.is_alphanumeric() && !matches!(c, '_' | '.' | '-'));
        // The full stop of a sentence is not the name's.
        let name = name[..end.unwrap_or(name.len())].trim_end_matches(['.', '-']);
        if name.is_empty() {
            continue;
        }
        if done < at {
            pieces.push(Piece::Text(&text[done..at]));
        }
        done = at + 1 + name.len();
        pieces.push(Piece::Mention(&text[at..done]));
    }
    if done < text.len() {
        pieces.push(Piece::Text(&text[done..]));
    }
}

/// Whether a text calls somebody by name: `@` and the whole name, which may have blanks, whatever its case. This is
/// for the one who is called, and so can know more than [`Piece::Mention`].
pub(super) fn mentions(text: &str, name: &str) -> bool {
    let (text, called) = (text.to_lowercase(), format!("@{}", name.to_lowercase()));
    text.match_indices(&called).any(|(at, _)| {
        let after = &text[at + called.len()..];
        !text[..at].ends_with(char::is_alphanumeric) && !after.starts_with(|c: char| c.is_alphanumeric() || c == '_')
    })
}

/// Where `http` or `https` begins at the end of `before`, if it is a word of its own.
fn scheme_start(before: &str) -> Option<usize> {
    ["https", "http"].into_iter().find_map(|scheme| {
        let start = before.len().checked_sub(scheme.len())?;
        let is_scheme = before.get(start..)?.eq_ignore_ascii_case(scheme);
        let is_word = !before[..start].ends_with(char::is_alphanumeric);
        (is_scheme && is_word).then_some(start)
    })
}

/// A full stop or a closing bracket after an address is the sentence's, unless the address opened the bracket.
fn without_trailing_marks(mut address: &str) -> &str {
    let count = |mark: char| address.matches(mark).count();
    let mut unopened_round = count(')').saturating_sub(count('('));
    let mut unopened_square = count(']').saturating_sub(count('['));
    while let Some(last) = address.chars().next_back() {
        match last {
            ')' if unopened_round > 0 => unopened_round -= 1,
            ']' if unopened_square > 0 => unopened_square -= 1,
            '.' | ',' | ';' | ':' | '!' | '?' | '\'' | '…' => {}
            _ => break,
        }
        address = &address[..address.len() - last.len_utf8()];
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of cases is shared with the test of `text.js`.
    #[test]
    fn addresses_and_mentions_are_found_and_the_text_is_kept() {
        let cases: Vec<(String, Vec<String>)> =
            serde_json::from_str(include_str!("../../templates/pieces.json")).unwrap();
        for (text, expected) in cases {
            let pieces = pieces(&text);
            let found: Vec<&str> = pieces
                .iter()
                .filter_map(|piece| match piece {
                    Piece::Link(part) | Piece::Mention(part) => Some(*part),
                    Piece::Text(_) | Piece::Mark(_) => None,
                })
                .collect();
            assert_eq!(found, expected, "{text}");
            assert_eq!(whole(&pieces), text);
            assert_eq!(whole(&marked(pieces, &Marks::of("a e"))), text);
        }
    }

    fn whole(pieces: &[Piece<'_>]) -> String {
        let part = |piece: &Piece<'_>| match piece {
            Piece::Text(part) | Piece::Link(part) | Piece::Mention(part) | Piece::Mark(part) => part.to_string(),
        };
        pieces.iter().map(part).collect()
    }

    #[test]
    fn a_person_is_mentioned_by_the_whole_name() {
        let table = [
            ("Hola @Ana", true),
            ("@ana, ¿vienes?", true),
            ("@Ana.", true),
            ("@Anabel", false),
            ("@Ana_2", false),
            ("me@ana", false),
            ("Ana", false),
            ("@Anabel y @ANA", true),
        ];
        for (text, expected) in table {
            assert_eq!(mentions(text, "Ana"), expected, "{text}");
        }
        assert!(mentions("@josé maría: sí", "José María"));
    }
}
