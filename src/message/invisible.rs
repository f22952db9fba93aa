//! What nobody sees in a name, and what therefore must not tell two names apart.
//!
//! - Characters without a glyph of their own that only make a text lie differently, or do nothing, are left out.
//! - Those that shape their neighbours stay where they do: a joiner or a variation selector within an emoji, or within a
//!   word of a script that needs it (Persian, Hindi, Japanese). Behind a letter of the Latin, Greek or Cyrillic script they do
//!   nothing, and are left out.
//! - Spaces that look like the usual one become it. The wide one of East Asian names does not look like it.
//!
//! Letters that look alike (a Cyrillic `а`) are something else: they are different letters, and stay.

/// The first script beyond Latin, Greek, Cyrillic and Armenian.
const SHAPED_FROM: char = '\u{0590}';
/// What makes a digit before it a key on a keypad.
const KEYCAP: char = '\u{20E3}';
/// What tags make another flag of.
const BLACK_FLAG: char = '\u{1F3F4}';

/// The text without what nobody sees. To be applied until nothing changes: what is gone may have stood between others.
pub(super) fn without_invisible(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut before = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let is_kept = match role(c) {
            Role::Seen => true,
            Role::Hidden => false,
            Role::Space => {
                kept.push(' ');
                before = Some(' ');
                continue;
            }
            Role::Joiner => before.is_some_and(is_shaped) && chars.peek().is_some_and(|next| *next >= SHAPED_FROM),
            Role::Selector => before.is_some_and(|before| {
                (is_shaped(before) && !matches!(role(before), Role::Selector))
                    || matches!(before, '©' | '®')
                    || (matches!(before, '0'..='9' | '#' | '*') && chars.peek() == Some(&KEYCAP))
            }),
            // Flags of regions, such as that of Wales.
            Role::Tag => before.is_some_and(|before| before == BLACK_FLAG || matches!(role(before), Role::Tag)),
        };
        if is_kept {
            kept.push(c);
            before = Some(c);
        }
    }
    kept
}

/// Whether what stands behind it can shape it. A selector is shaped by a joiner (❤️‍🔥); a joiner is not by another one.
fn is_shaped(c: char) -> bool {
    c >= SHAPED_FROM && !matches!(role(c), Role::Joiner | Role::Tag) && !c.is_whitespace()
}

enum Role {
    Seen,
    Space,
    Hidden,
    Joiner,
    Selector,
    Tag,
}

fn role(c: char) -> Role {
    match c {
        // Those of the Unicode property White_Space that are as wide as a space or narrower; the others are controls.
        '\u{A0}' | '\u{1680}' | '\u{2000}'..='\u{200A}' | '\u{202F}' | '\u{205F}' => Role::Space,
        '\u{200C}' | '\u{200D}' => Role::Joiner,
        '\u{180B}'..='\u{180D}' | '\u{180F}' | '\u{FE00}'..='\u{FE0F}' | '\u{E0100}'..='\u{E01EF}' => Role::Selector,
        '\u{E0020}'..='\u{E007F}' => Role::Tag,
        // What is left of Default_Ignorable_Code_Point but for the overrides and isolates, which are forbidden: soft hyphen,
        // grapheme joiner, marks of direction, fillers, and places that are kept for more of the kind.
        '\u{AD}'
        | '\u{34F}'
        | '\u{61C}'
        | '\u{115F}'
        | '\u{1160}'
        | '\u{17B4}'
        | '\u{17B5}'
        | '\u{180E}'
        | '\u{200B}'
        | '\u{200E}'
        | '\u{200F}'
        | '\u{2060}'..='\u{2065}'
        | '\u{206A}'..='\u{206F}'
        | '\u{3164}'
        | '\u{FEFF}'
        | '\u{FFA0}'
        | '\u{FFF0}'..='\u{FFFB}'
        | '\u{1BCA0}'..='\u{1BCA3}'
        | '\u{1D173}'..='\u{1D17A}'
        | '\u{E0000}'..='\u{E001F}'
        | '\u{E0080}'..='\u{E00FF}'
        | '\u{E01F0}'..='\u{E0FFF}'
        // A Braille cell without a dot.
        | '\u{2800}' => Role::Hidden,
        _ => Role::Seen,
    }
}
