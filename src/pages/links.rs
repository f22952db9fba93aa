//! The web addresses in a text. `templates/static/row.js` follows the same rules, so that a message looks the same
//! whether the server or the browser made its row.

/// A stretch of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    Text(&'a str),
    /// An address with `http://` or `https://`; nothing else is ever made a link.
    Link(&'a str),
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
        if done < start {
            pieces.push(Piece::Text(&text[done..start]));
        }
        pieces.push(Piece::Link(address));
        done = start + address.len();
        from = done;
    }
    if done < text.len() {
        pieces.push(Piece::Text(&text[done..]));
    }
    pieces
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

    /// The table of cases is shared with the test of `row.js`.
    #[test]
    fn addresses_are_found_and_the_text_is_kept() {
        let cases: Vec<(String, Vec<String>)> =
            serde_json::from_str(include_str!("../../templates/links.json")).unwrap();
        for (text, expected) in cases {
            let pieces = pieces(&text);
            let links: Vec<&str> = pieces
                .iter()
                .filter_map(|piece| match piece {
                    Piece::Link(link) => Some(*link),
                    Piece::Text(_) => None,
                })
                .collect();
            assert_eq!(links, expected, "{text}");
            let whole: String = pieces.iter().map(|(Piece::Text(part) | Piece::Link(part))| *part).collect();
            assert_eq!(whole, text);
        }
    }
}
