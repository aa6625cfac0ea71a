//! Looking around in tokens.

use proc_macro2::{Delimiter, Group, LineColumn, TokenTree};

use crate::{Place, literal};

impl From<LineColumn> for Place {
    fn from(at: LineColumn) -> Self {
        Self { line: at.line, column: at.column + 1 }
    }
}

pub(super) fn start(token: &TokenTree) -> Place {
    token.span().start().into()
}

/// The place behind the token.
pub(super) fn end(token: &TokenTree) -> Place {
    token.span().end().into()
}

pub(super) fn children(group: &Group) -> Vec<TokenTree> {
    group.stream().into_iter().collect()
}

/// The token that stands `back` tokens before `index`.
pub(super) fn before(tokens: &[TokenTree], index: usize, back: usize) -> Option<&TokenTree> {
    tokens.get(index.checked_sub(back)?)
}

/// The name of an identifier, without `r#`.
pub(super) fn name(token: &TokenTree) -> Option<String> {
    match token {
        TokenTree::Ident(ident) => Some(ident.to_string().trim_start_matches("r#").to_owned()),
        _ => None,
    }
}

pub(super) fn name_at(tokens: &[TokenTree], index: usize) -> Option<String> {
    tokens.get(index).and_then(name)
}

pub(super) fn is_sign(token: &TokenTree, sign: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == sign)
}

pub(super) fn sign_at(tokens: &[TokenTree], index: usize, sign: char) -> bool {
    tokens.get(index).is_some_and(|token| is_sign(token, sign))
}

pub(super) fn sign_before(tokens: &[TokenTree], index: usize, back: usize, sign: char) -> bool {
    before(tokens, index, back).is_some_and(|token| is_sign(token, sign))
}

/// The text of a string literal.
pub(super) fn string_at(tokens: &[TokenTree], index: usize) -> Option<String> {
    match tokens.get(index)? {
        TokenTree::Literal(literal) => literal::text(&literal.to_string()),
        _ => None,
    }
}

pub(super) fn parentheses_at(tokens: &[TokenTree], index: usize) -> Option<Vec<TokenTree>> {
    match tokens.get(index)? {
        TokenTree::Group(group) if group.delimiter() == Delimiter::Parenthesis => Some(children(group)),
        _ => None,
    }
}

/// What is inside of `name!(…)`, `name![…]` or `name!{…}`, for the index of the name.
pub(super) fn macro_input(tokens: &[TokenTree], index: usize) -> Option<Vec<TokenTree>> {
    match tokens.get(index + 2)? {
        TokenTree::Group(group) if sign_at(tokens, index + 1, '!') => Some(children(group)),
        _ => None,
    }
}

pub(super) fn is_path_separator(tokens: &[TokenTree], index: usize) -> bool {
    sign_at(tokens, index, ':') && sign_at(tokens, index + 1, ':')
}

/// The index behind a `::<…>` at `index`, or `index`.
pub(super) fn after_turbofish(tokens: &[TokenTree], index: usize) -> usize {
    if !is_path_separator(tokens, index) || !sign_at(tokens, index + 2, '<') {
        return index;
    }
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(index + 2) {
        if is_sign(token, '<') {
            depth += 1;
        } else if is_sign(token, '>') && !sign_before(tokens, at, 1, '-') {
            depth = depth.saturating_sub(1);
            if depth == 0 {
                return at + 1;
            }
        }
    }
    index
}

/// The segments of the path in front of `index`: `a`, `b` for `a::b::name`.
pub(super) fn path_before(tokens: &[TokenTree], index: usize) -> Vec<String> {
    let mut path = Vec::new();
    let mut at = index;
    while at >= 2 && is_path_separator(tokens, at - 2) {
        let Some(segment) = before(tokens, at, 3).and_then(name) else { break };
        path.insert(0, segment);
        at -= 3;
    }
    path
}

pub(super) fn first_argument(arguments: &[TokenTree]) -> &[TokenTree] {
    arguments.split(|token| is_sign(token, ',')).next().unwrap_or_default()
}

/// Whether an argument is written in the source: a string literal, a constant in capitals, the text of a
/// file, or a `concat!` of such.
pub(super) fn is_static(argument: &[TokenTree]) -> bool {
    let argument = match argument {
        [sign, rest @ ..] if is_sign(sign, '&') => rest,
        all => all,
    };
    match argument {
        [TokenTree::Literal(_)] => true,
        [.., bang, TokenTree::Group(group)] if is_sign(bang, '!') => {
            let input = children(group);
            match before(argument, argument.len(), 3).and_then(name).as_deref() {
                Some("include_str") => true,
                Some("concat") => {
                    input.split(|token| is_sign(token, ',')).all(|part| part.is_empty() || is_static(part))
                }
                _ => false,
            }
        }
        [path @ .., last] => {
            name(last).is_some_and(|name| is_constant(&name))
                && path.iter().all(|token| name(token).is_some() || is_sign(token, ':'))
        }
        [] => false,
    }
}

fn is_constant(name: &str) -> bool {
    name.contains(|c: char| c.is_ascii_uppercase())
        && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
}
