//! A text cut into words and marks, comments left out.

/// A word, a number, or a mark of one character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token<'a> {
    pub text: &'a str,
    /// Bytes before it.
    pub at: usize,
    /// Braces it lies in.
    pub depth: usize,
}

/// The tokens of a text, in order.
pub(super) fn tokens(text: &str) -> impl Iterator<Item = Token<'_>> {
    let (mut at, mut depth) = (0, 0usize);
    std::iter::from_fn(move || {
        at += blank(&text[at..]);
        let rest = &text[at..];
        let first = rest.chars().next()?;
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let len = match is_word(first) {
            true => rest.find(|c: char| !is_word(c)).unwrap_or(rest.len()),
            false => first.len_utf8(),
        };
        if first == '}' {
            depth = depth.saturating_sub(1);
        }
        let token = Token { text: &rest[..len], at, depth };
        if first == '{' {
            depth += 1;
        }
        at += len;
        Some(token)
    })
}

/// Words of a text that are no numbers.
pub(super) fn identifiers(text: &str) -> impl Iterator<Item = &str> {
    tokens(text).map(|token| token.text).filter(|text| text.starts_with(|c: char| c.is_alphabetic() || c == '_'))
}

/// Names that a text declares outside of functions.
pub(super) fn declared(text: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut tokens = tokens(text).filter(|token| token.depth == 0);
    while let Some(token) = tokens.next() {
        let name = match token.text {
            "fn" | "const" | "override" | "struct" | "alias" => tokens.next(),
            "var" => {
                let mut after = tokens.by_ref().skip_while(|token| !matches!(token.text, ">"));
                after.next().and(after.next())
            }
            _ => None,
        };
        names.extend(name.map(|name| name.text));
    }
    names
}

/// Bytes of space and comments at the beginning.
fn blank(text: &str) -> usize {
    let mut at = 0;
    loop {
        let rest = &text[at..];
        let spaces = rest.len() - rest.trim_start().len();
        at += match (spaces, rest.get(..2)) {
            (0, Some("//")) => {
                rest.find(['\n', '\r', '\u{b}', '\u{c}', '\u{85}', '\u{2028}', '\u{2029}']).unwrap_or(rest.len())
            }
            (0, Some("/*")) => block_comment(rest),
            (0, _) => return at,
            (spaces, _) => spaces,
        };
    }
}

/// Bytes of a comment that may hold others.
fn block_comment(text: &str) -> usize {
    let (mut at, mut depth) = (2, 1);
    while depth > 0 {
        let Some(mark) = text[at..].find(['/', '*']) else { return text.len() };
        at += mark;
        match text.get(at..at + 2) {
            Some("/*") => (at, depth) = (at + 2, depth + 1),
            Some("*/") => (at, depth) = (at + 2, depth - 1),
            _ => at += 1,
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_without_their_comments() {
        let text = "fn a(x: u32) -> u32 { // for {\n /* loop { /* while */ } */ return x_1<<2u; } /* /";
        let cut: Vec<&str> = tokens(text).map(|token| token.text).collect();
        let expected = "fn a ( x : u32 ) - > u32 { return x_1 < < 2u ; }";
        assert_eq!(cut, expected.split(' ').collect::<Vec<_>>());
        assert_eq!(identifiers("a 1b 0x1f _c é // d").collect::<Vec<_>>(), ["a", "_c", "é"]);
        assert_eq!(
            tokens("{ a { b } c } d").filter(|t| t.text < "{").map(|t| t.depth).collect::<Vec<_>>(),
            [1, 2, 1, 0]
        );
    }

    #[test]
    fn what_a_text_declares() {
        let text = "var<private> a: u32; @diagnostic(off, x) fn b(c: u32) -> u32 { var d = 1; const e = 2; return d; }\n\
                    const f = 1; alias g = u32; struct h { i: u32 } override j: u32 = 1;";
        assert_eq!(declared(text), ["a", "b", "f", "g", "h", "j"]);
    }
}
