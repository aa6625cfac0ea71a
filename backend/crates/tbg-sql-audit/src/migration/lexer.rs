//! The words of PostgreSQL.

/// A token, and the byte at which it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token<'s> {
    pub(super) at: usize,
    pub(super) kind: Kind<'s>,
}

/// The kinds of tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind<'s> {
    /// A keyword or a name.
    Word(&'s str),
    /// A string.
    Text,
    /// What is between dollar quotes, and the byte at which it begins: mostly the body of a function.
    Body {
        text: &'s str,
        at: usize,
    },
    /// `||`.
    Join,
    Sign(char),
}

impl Token<'_> {
    pub(super) fn is_word(&self, word: &str) -> bool {
        matches!(self.kind, Kind::Word(own) if own.eq_ignore_ascii_case(word))
    }
}

/// Where and why a text cannot be read.
pub(super) type Unended = (usize, &'static str);

/// Takes SQL apart.
pub(super) fn lex(text: &str) -> Result<Vec<Token<'_>>, Unended> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        let (length, kind) = if first.is_whitespace() {
            (first.len_utf8(), None)
        } else if rest.starts_with("--") {
            (rest.find('\n').unwrap_or(rest.len()), None)
        } else if rest.starts_with("/*") {
            (comment(rest).ok_or((at, "a comment does not end"))?, None)
        } else if first == '\'' || rest.starts_with("E'") || rest.starts_with("e'") {
            (string(rest).ok_or((at, "a string does not end"))?, Some(Kind::Text))
        } else if first == '"' {
            let inner = rest[1..].find('"').ok_or((at, "a name does not end"))?;
            (inner + 2, Some(Kind::Word(&rest[1..=inner])))
        } else if let Some(tag) = dollar_tag(rest) {
            let inner = rest[tag.len()..].find(tag).ok_or((at, "a dollar quote does not end"))?;
            let body = &rest[tag.len()..tag.len() + inner];
            (2 * tag.len() + inner, Some(Kind::Body { text: body, at: at + tag.len() }))
        } else if is_word(first) {
            let length = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
            (length, Some(Kind::Word(&rest[..length])))
        } else if rest.starts_with("||") {
            (2, Some(Kind::Join))
        } else {
            (first.len_utf8(), Some(Kind::Sign(first)))
        };
        tokens.extend(kind.map(|kind| Token { at, kind }));
        at += length;
    }
    Ok(tokens)
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The length of a comment with comments inside.
fn comment(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let mut at = 0;
    loop {
        let next = at + text.get(at..)?.find(['/', '*'])?;
        let rest = &text[next..];
        at = next + 1;
        if rest.starts_with("/*") {
            depth += 1;
            at += 1;
        } else if rest.starts_with("*/") {
            depth = depth.saturating_sub(1);
            at += 1;
            if depth == 0 {
                return Some(at);
            }
        }
    }
}

/// The length of a string; with an `E` in front, a backslash escapes.
fn string(text: &str) -> Option<usize> {
    let escapes = !text.starts_with('\'');
    let mut at = if escapes { 2 } else { 1 };
    loop {
        at += text.get(at..)?.find(['\'', '\\'])?;
        let rest = &text[at..];
        if let Some(after) = rest.strip_prefix('\\') {
            let escaped = if escapes { after.chars().next()?.len_utf8() } else { 0 };
            at += 1 + escaped;
        } else if rest.starts_with("''") {
            at += 2;
        } else {
            return Some(at + 1);
        }
    }
}

/// `$$` or `$name$`.
fn dollar_tag(text: &str) -> Option<&str> {
    let inner = text.strip_prefix('$')?;
    let length = inner.find(|c: char| !is_word(c)).unwrap_or(inner.len());
    let is_tag = inner[length..].starts_with('$') && !inner.starts_with(|c: char| c.is_ascii_digit());
    is_tag.then(|| &text[..length + 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens() {
        let kinds: Vec<Kind<'_>> = lex("a.\"B c\" -- d\n/* /* e */ */ E'f\\'g' || 'h''i\\' $1 $x$ $$ $x$;")
            .unwrap()
            .into_iter()
            .map(|token| token.kind)
            .collect();
        let expected = [
            Kind::Word("a"),
            Kind::Sign('.'),
            Kind::Word("B c"),
            Kind::Text,
            Kind::Join,
            Kind::Text,
            Kind::Sign('$'),
            Kind::Word("1"),
            Kind::Body { text: " $$ ", at: 52 },
            Kind::Sign(';'),
        ];
        assert_eq!(kinds, expected);
    }
}
