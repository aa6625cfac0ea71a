//! What a file imports and names, and the attributes that make code a test.

use proc_macro2::{Delimiter, TokenTree};

use super::text::is_sql_at;
use super::tokens::{children, is_sign, name, name_at, sign_at, start};
use super::walk::{FORBIDDEN, QUERY_FUNCTIONS};
use crate::{Hit, Rule};

/// What a file calls things.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Whether a bare `query` is the one of sqlx.
    pub(super) query_is_imported: bool,
    /// Constants that hold SQL.
    pub(super) sql: Vec<String>,
}

impl Names {
    pub(super) fn of(tokens: &[TokenTree]) -> Self {
        let mut names = Self::default();
        names.collect(tokens);
        names
    }

    fn collect(&mut self, tokens: &[TokenTree]) {
        for (index, token) in tokens.iter().enumerate() {
            if let TokenTree::Group(group) = token {
                self.collect(&children(group));
            }
            match name(token).as_deref() {
                Some("use") if !sign_at(tokens, index + 1, '<') => {
                    let words = words(clause(tokens, index));
                    let has = |wanted: &str| words.iter().any(|(word, _)| word == wanted);
                    self.query_is_imported |= has("sqlx") && (has("query") || has("*"));
                }
                Some("const" | "static") => self.sql.extend(constant(tokens, index)),
                _ => {}
            }
        }
    }
}

/// The name of the constant that is declared at `index`, if it holds SQL.
fn constant(tokens: &[TokenTree], index: usize) -> Option<String> {
    let name = name_at(tokens, index + 1).filter(|_| sign_at(tokens, index + 2, ':'))?;
    let declaration = clause(tokens, index);
    let value = declaration.iter().position(|token| is_sign(token, '='))? + 1;
    let value = if sign_at(declaration, value, '&') { value + 1 } else { value };
    is_sql_at(declaration, value).then_some(name)
}

/// From behind the keyword at `index` to the `;`.
pub(super) fn clause(tokens: &[TokenTree], index: usize) -> &[TokenTree] {
    let rest = tokens.get(index + 1..).unwrap_or_default();
    let length = rest.iter().position(|token| is_sign(token, ';')).unwrap_or(rest.len());
    &rest[..length]
}

/// The words of an import in order, with the stars, each with its token.
fn words(tokens: &[TokenTree]) -> Vec<(String, TokenTree)> {
    let mut found = Vec::new();
    for token in tokens {
        match token {
            TokenTree::Group(group) => found.extend(words(&children(group))),
            TokenTree::Punct(punct) if punct.as_char() == '*' => found.push(("*".to_owned(), token.clone())),
            _ => found.extend(name(token).map(|name| (name, token.clone()))),
        }
    }
    found
}

/// What an import hides behind another name.
pub(super) fn renames(import: &[TokenTree]) -> Vec<Hit> {
    let words = words(import);
    let from = |library: &str| words.iter().any(|(word, _)| word == library);
    let mut hits = Vec::new();
    for window in words.windows(3) {
        let [(word, token), (keyword, _), (alias, _)] = window else { continue };
        if keyword != "as" || alias == "_" {
            continue;
        }
        let word = word.as_str();
        let runs_sql = word == "sqlx" || (from("sqlx") && QUERY_FUNCTIONS.contains(&word));
        if FORBIDDEN.contains(&word) || runs_sql {
            hits.push(Hit {
                place: start(token),
                rule: Rule::S2,
                message: "what runs SQL is imported under another name",
            });
        } else if from("redis") && word == "Script" {
            hits.push(Hit {
                place: start(token),
                rule: Rule::S5,
                message: "what runs Lua is imported under another name",
            });
        }
    }
    hits
}

/// An attribute.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attribute {
    /// How many tokens it is made of.
    pub(super) length: usize,
    /// Whether it is about what is around it (`#![…]`).
    pub(super) inner: bool,
    /// Whether it keeps code for tests.
    pub(super) test: bool,
}

impl Attribute {
    /// The attribute that begins at `index`.
    pub(super) fn at(tokens: &[TokenTree], index: usize) -> Option<Self> {
        if !sign_at(tokens, index, '#') {
            return None;
        }
        let inner = sign_at(tokens, index + 1, '!');
        let length = if inner { 3 } else { 2 };
        match tokens.get(index + length - 1)? {
            TokenTree::Group(group) if group.delimiter() == Delimiter::Bracket => {
                Some(Self { length, inner, test: is_cfg_test(&children(group)) })
            }
            _ => None,
        }
    }
}

/// `cfg(test)` or `cfg(all(…, test, …))`.
fn is_cfg_test(attribute: &[TokenTree]) -> bool {
    let [cfg, TokenTree::Group(condition)] = attribute else { return false };
    if name(cfg).as_deref() != Some("cfg") {
        return false;
    }
    let condition = children(condition);
    match condition.as_slice() {
        [test] => name(test).as_deref() == Some("test"),
        [all, TokenTree::Group(conditions)] if name(all).as_deref() == Some("all") => children(conditions)
            .split(|token| is_sign(token, ','))
            .any(|condition| matches!(condition, [test] if name(test).as_deref() == Some("test"))),
        _ => false,
    }
}
