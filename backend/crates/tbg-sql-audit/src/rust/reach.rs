//! What a marker is about.

use proc_macro2::{Delimiter, TokenTree};

use super::tokens::{children, end, is_sign, name, sign_before, start};
use crate::Place;
use crate::markers::Reach;

/// The stretches of all literals, documentation among them: what looks like a marker in there is none.
pub(super) fn literals(tokens: &[TokenTree]) -> Vec<Reach> {
    tokens
        .iter()
        .flat_map(|token| match token {
            TokenTree::Literal(_) => vec![(start(token), end(token))],
            TokenTree::Group(group) => literals(&children(group)),
            _ => Vec::new(),
        })
        .collect()
}

/// The statement that begins after `line`, in the block around that line: up to its `;`, or to the `,` of
/// a list, or to the block of a compound statement, which is left out.
pub(super) fn next_statement(tokens: &[TokenTree], line: usize) -> Option<Reach> {
    let first = tokens.iter().position(|token| end(token).line > line)?;
    let from = start(&tokens[first]);
    if from.line > line {
        return Some((from, statement_end(&tokens[first..])));
    }
    match &tokens[first] {
        TokenTree::Group(group) => next_statement(&children(group), line),
        _ => None,
    }
}

fn statement_end(tokens: &[TokenTree]) -> Place {
    // The commas of these are in types, never behind them.
    let declares = tokens
        .first()
        .and_then(name)
        .is_some_and(|name| matches!(name.as_str(), "let" | "const" | "static" | "pub" | "type"));
    let mut last = Place { line: 0, column: 0 };
    let mut angles = 0_usize;
    for (index, token) in tokens.iter().enumerate() {
        let ends = match token {
            TokenTree::Punct(punct) => match punct.as_char() {
                ';' => true,
                ',' => !declares && angles == 0,
                '<' if angles > 0 || sign_before(tokens, index, 1, ':') => {
                    angles += 1;
                    false
                }
                '>' if !sign_before(tokens, index, 1, '-') => {
                    angles = angles.saturating_sub(1);
                    false
                }
                _ => false,
            },
            TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
            _ => false,
        };
        if ends {
            break;
        }
        last = end(token);
    }
    last
}

/// Whether an item or a statement ends with this token.
pub(super) fn ends_item(token: &TokenTree) -> bool {
    is_sign(token, ';') || matches!(token, TokenTree::Group(group) if group.delimiter() == Delimiter::Brace)
}
