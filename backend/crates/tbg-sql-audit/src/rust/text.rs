//! S1: SQL text that is put together.

use proc_macro2::TokenTree;

use super::imports::clause;
use super::tokens::{
    before, children, is_sign, macro_input, name, name_at, parentheses_at, sign_at, sign_before, string_at,
};
use crate::statement::is_statement;

/// Macros that put texts together.
pub(super) const TEXT_MACROS: [&str; 5] = ["concat", "format", "format_args", "write", "writeln"];
/// Methods that put texts together.
pub(super) const APPENDERS: [&str; 3] = ["insert_str", "push_str", "write_str"];
const REPLACERS: [&str; 3] = ["replace", "replace_range", "replacen"];
/// Methods that pass a text on.
const CARRIERS: [&str; 7] = ["as_str", "clone", "into", "to_owned", "to_string", "trim", "trim_end"];

/// Whether a string literal at `index` is a statement, or begins one.
pub(super) fn is_sql_at(tokens: &[TokenTree], index: usize) -> bool {
    string_at(tokens, index).is_some_and(|text| is_statement(&text))
}

/// Whether the SQL at `index`, a literal or a name that holds some, is joined with something else: by `+`,
/// `push_str` or `replace`, right there.
pub(super) fn is_joined(tokens: &[TokenTree], index: usize) -> bool {
    let mut next = index + 1;
    while sign_at(tokens, next, '.') && parentheses_at(tokens, next + 2).is_some() {
        match name_at(tokens, next + 1) {
            Some(method) if REPLACERS.contains(&&*method) || APPENDERS.contains(&&*method) => return true,
            Some(method) if CARRIERS.contains(&&*method) => next += 3,
            _ => return false,
        }
    }
    if sign_at(tokens, next, '+') {
        return !adds_literals(tokens, next);
    }
    let front = if sign_before(tokens, index, 1, '&') { index - 1 } else { index };
    let adds = sign_before(tokens, front, 1, '+');
    let appends = sign_before(tokens, front, 1, '=') && sign_before(tokens, front, 2, '+');
    // `"a" + "b"` is what `sqlx::query!` offers for long statements.
    let behind_literal = matches!(before(tokens, front, 2), Some(TokenTree::Literal(_)));
    appends || (adds && !behind_literal)
}

/// Whether all that follows the `+` at `plus` are literals, which the compiler joins.
fn adds_literals(tokens: &[TokenTree], plus: usize) -> bool {
    let mut next = plus;
    while sign_at(tokens, next, '+') {
        if string_at(tokens, next + 1).is_none() {
            return false;
        }
        next += 2;
    }
    true
}

/// Whether the group at `index` does nothing but own the SQL in it: `String::from("SELECT …")`.
pub(super) fn owns_sql(tokens: &[TokenTree], index: usize) -> bool {
    let Some(TokenTree::Group(group)) = tokens.get(index) else { return false };
    let inner = children(group);
    inner.len() == 1
        && is_sql_at(&inner, 0)
        && before(tokens, index, 1).and_then(name).is_some_and(|name| name == "from" || name == "to_string")
}

/// The variable that `let mut name = …` at `index` begins with SQL, so that more can be put behind it.
pub(super) fn buffer(tokens: &[TokenTree], index: usize) -> Option<String> {
    if name_at(tokens, index + 1)? != "mut" {
        return None;
    }
    let variable = name_at(tokens, index + 2)?;
    let clause = clause(tokens, index);
    let equals = clause.iter().position(|token| is_sign(token, '='))?;
    let value = clause.get(equals + 1..)?;
    let first =
        value.iter().position(|token| matches!(token, TokenTree::Literal(_) | TokenTree::Group(_)))?;
    let holds = match &value[first] {
        TokenTree::Group(group) if sign_before(value, first, 1, '!') => {
            let joins = |name: String| TEXT_MACROS.contains(&&*name);
            before(value, first, 2).and_then(name).is_some_and(joins) && is_sql_at(&children(group), 0)
        }
        TokenTree::Group(_) => owns_sql(value, first),
        _ => first == 0 && is_sql_at(value, first),
    };
    holds.then_some(variable)
}

/// Whether the macro at `index` puts SQL together. `holds_sql` knows the names that hold some.
pub(super) fn macro_joins(tokens: &[TokenTree], index: usize, holds_sql: impl Fn(&str) -> bool) -> bool {
    let (Some(macro_name), Some(input)) = (name_at(tokens, index), macro_input(tokens, index)) else {
        return false;
    };
    if !TEXT_MACROS.contains(&macro_name.as_str()) {
        return false;
    }
    let mut arguments = input.split(|token| is_sign(token, ','));
    if macro_name == "concat" {
        let literals = arguments.all(is_literal);
        return !literals && (0..input.len()).any(|at| is_sql_at(&input, at));
    }
    arguments.any(|argument| {
        let text = (0..argument.len()).find_map(|at| string_at(argument, at)).unwrap_or_default();
        is_statement(&text)
            || placeholder(&text).is_some_and(&holds_sql)
            || argument.last().and_then(name).is_some_and(|name| is_alone(argument) && holds_sql(&name))
    })
}

/// Whether a part of a `concat!` is a literal, or one that a macro was given: `concat!` takes nothing else
/// by a name.
fn is_literal(part: &[TokenTree]) -> bool {
    match part {
        [] | [TokenTree::Literal(_)] => true,
        [dollar, TokenTree::Ident(_)] => is_sign(dollar, '$'),
        _ => false,
    }
}

/// The name in a placeholder at the beginning of `text`.
fn placeholder(text: &str) -> Option<&str> {
    let (name, _) = text.trim_start().strip_prefix('{')?.split_once(['}', ':'])?;
    Some(name)
}

/// Whether an argument is a name, possibly behind `&` or `&mut`.
fn is_alone(argument: &[TokenTree]) -> bool {
    let Some((_, front)) = argument.split_last() else { return false };
    front.iter().all(|token| is_sign(token, '&') || name(token).as_deref() == Some("mut"))
}
