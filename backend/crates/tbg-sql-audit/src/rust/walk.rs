//! The walk through the tokens of a file.

use proc_macro2::TokenTree;

use super::imports::{Attribute, Names, clause, renames};
use super::reach::ends_item;
use super::text::{APPENDERS, TEXT_MACROS, buffer, is_joined, is_sql_at, macro_joins, owns_sql};
use super::tokens::{
    after_turbofish, before, children, first_argument, is_path_separator, is_static, macro_input, name,
    name_at, parentheses_at, path_before, sign_at, sign_before, start, string_at,
};
use crate::{Hit, Rule};

/// What runs SQL that the compiler has not seen.
pub(super) const FORBIDDEN: [&str; 3] = ["AssertSqlSafe", "QueryBuilder", "raw_sql"];
/// The functions of sqlx that take a statement at run time. All but the first have names of their own.
pub(super) const QUERY_FUNCTIONS: [&str; 9] = [
    "query",
    "query_as",
    "query_as_with",
    "query_as_with_result",
    "query_scalar",
    "query_scalar_with",
    "query_scalar_with_result",
    "query_with",
    "query_with_result",
];
const QUERY_MACROS: [&str; 12] = [
    "query",
    "query_as",
    "query_as_unchecked",
    "query_file",
    "query_file_as",
    "query_file_as_unchecked",
    "query_file_scalar",
    "query_file_scalar_unchecked",
    "query_file_unchecked",
    "query_scalar",
    "query_scalar_unchecked",
    "query_unchecked",
];

const JOINED: &str = "SQL text is put together at run time: use parameters";
const UNCHECKED: &str = "SQL that the compiler has not seen: use `sqlx::query!`";
const NOT_LITERAL: &str = "a query of something that is not a literal: use `sqlx::query!`";
const MISPLACED: &str = "SQL outside of a store";
const DYNAMIC_LUA: &str = "Lua that is not a static literal";
const EVAL: &str = "EVAL runs Lua past `redis::Script`";

/// What the rules see in a file.
pub(super) fn hits(tokens: &[TokenTree], may_hold_sql: bool, is_test: bool) -> Vec<Hit> {
    let mut walker = Walker { names: Names::of(tokens), is_test, buffers: Vec::new(), hits: Vec::new() };
    walker.walk(tokens, Scope { may_hold_sql });
    walker.hits
}

/// Where the walk is.
#[derive(Clone, Copy, Debug)]
struct Scope {
    /// In a store, in a test, or inside of a query that was seen already.
    may_hold_sql: bool,
}

const ANYWHERE: Scope = Scope { may_hold_sql: true };

struct Walker {
    names: Names,
    /// Statements may stand in variables: sqlx takes only `&'static str` there.
    is_test: bool,
    /// Variables of the blocks around that begin with SQL and can be added to.
    buffers: Vec<String>,
    hits: Vec<Hit>,
}

impl Walker {
    fn hit(&mut self, token: &TokenTree, rule: Rule, message: &'static str) {
        self.hits.push(Hit { place: start(token), rule, message });
    }

    fn holds_sql(&self, name: &str) -> bool {
        self.names.sql.iter().chain(&self.buffers).any(|other| other == name)
    }

    fn walk(&mut self, tokens: &[TokenTree], mut scope: Scope) {
        let buffers_around = self.buffers.len();
        let mut in_test = false;
        let mut index = 0;
        while index < tokens.len() {
            if let Some(attribute) = Attribute::at(tokens, index) {
                scope.may_hold_sql |= attribute.test && attribute.inner;
                in_test |= attribute.test;
                index += attribute.length;
                continue;
            }
            let next = self.token(tokens, index, if in_test { ANYWHERE } else { scope });
            in_test &= !tokens[index..next].iter().any(ends_item);
            index = next;
        }
        self.buffers.truncate(buffers_around);
    }

    /// Looks at the token at `index`; returns the index to go on with.
    fn token(&mut self, tokens: &[TokenTree], index: usize, scope: Scope) -> usize {
        let token = &tokens[index];
        match token {
            TokenTree::Ident(_) => return self.name(tokens, index, scope),
            TokenTree::Literal(_) => {
                if is_sql_at(tokens, index) {
                    self.misplaced(token, scope);
                    self.joined(tokens, index);
                }
            }
            TokenTree::Group(group) => {
                if owns_sql(tokens, index) {
                    self.joined(tokens, index);
                }
                self.walk(&children(group), scope);
            }
            TokenTree::Punct(_) => {}
        }
        index + 1
    }

    fn misplaced(&mut self, token: &TokenTree, scope: Scope) {
        if !scope.may_hold_sql {
            self.hit(token, Rule::S3, MISPLACED);
        }
    }

    fn joined(&mut self, tokens: &[TokenTree], index: usize) {
        if is_joined(tokens, index) {
            self.hit(&tokens[index], Rule::S1, JOINED);
        }
    }

    fn name(&mut self, tokens: &[TokenTree], index: usize, scope: Scope) -> usize {
        let (token, Some(name)) = (&tokens[index], name_at(tokens, index)) else { return index + 1 };
        let name = name.as_str();
        if self.holds_sql(name) {
            self.joined(tokens, index);
        }
        match name {
            // `use<…>` is about lifetimes.
            "use" if !sign_at(tokens, index + 1, '<') => {
                let import = clause(tokens, index);
                self.hits.extend(renames(import));
                return tokens.len().min(index + import.len() + 2);
            }
            "let" => self.buffers.extend(buffer(tokens, index)),
            "Script" => self.script(tokens, index),
            "cmd" | "arg" => {
                let first = parentheses_at(tokens, index + 1).and_then(|arguments| string_at(&arguments, 0));
                if first.is_some_and(|command| matches!(&*command.to_uppercase(), "EVAL" | "EVAL_RO")) {
                    self.hit(token, Rule::S5, EVAL);
                }
            }
            _ if FORBIDDEN.contains(&name) => self.hit(token, Rule::S2, UNCHECKED),
            _ if APPENDERS.contains(&name) => {
                let arguments = parentheses_at(tokens, index + 1).unwrap_or_default();
                let takes_sql = (0..arguments.len()).any(|at| is_sql_at(&arguments, at));
                if takes_sql && sign_before(tokens, index, 1, '.') {
                    self.hit(token, Rule::S1, JOINED);
                }
            }
            _ if TEXT_MACROS.contains(&name) => {
                if macro_joins(tokens, index, |name| self.holds_sql(name)) {
                    self.hit(token, Rule::S1, JOINED);
                }
            }
            _ => return self.query(tokens, index, name, scope),
        }
        index + 1
    }

    /// A query, if there is one at `index`.
    fn query(&mut self, tokens: &[TokenTree], index: usize, name: &str, scope: Scope) -> usize {
        let token = &tokens[index];
        if QUERY_MACROS.contains(&name)
            && let Some(input) = macro_input(tokens, index)
        {
            self.misplaced(token, scope);
            self.walk(&input, ANYWHERE);
            return index + 3;
        }
        if !QUERY_FUNCTIONS.contains(&name) || !self.is_of_sqlx(tokens, index, name) {
            return index + 1;
        }
        let call = after_turbofish(tokens, index + 1);
        if let Some(arguments) = parentheses_at(tokens, call) {
            self.misplaced(token, scope);
            if !self.is_test && !is_static(first_argument(&arguments)) {
                self.hit(token, Rule::S2, NOT_LITERAL);
            }
            self.walk(&arguments, ANYWHERE);
            return call + 1;
        }
        // `sqlx::query` as a value runs whatever it will be given; `sqlx::query::Query` is a type.
        let is_value = !is_path_separator(tokens, call) && is_from_sqlx(tokens, index);
        if is_value && !self.is_test {
            self.hit(token, Rule::S2, NOT_LITERAL);
        }
        index + 1
    }

    /// Whether `function` at `index` can be the one of sqlx.
    fn is_of_sqlx(&self, tokens: &[TokenTree], index: usize, function: &str) -> bool {
        let is_definition = before(tokens, index, 1).and_then(name).is_some_and(|word| word == "fn");
        if is_definition || sign_before(tokens, index, 1, '.') {
            return false;
        }
        match path_before(tokens, index).first().map(String::as_str) {
            None => function != "query" || self.names.query_is_imported,
            Some("query") => self.names.query_is_imported,
            Some(_) => is_from_sqlx(tokens, index),
        }
    }

    /// `Script::new`. Scripts of Bitcoin take no argument.
    fn script(&mut self, tokens: &[TokenTree], index: usize) {
        let is_new = is_path_separator(tokens, index + 1)
            && name_at(tokens, index + 3).is_some_and(|method| method == "new");
        if !is_new {
            return;
        }
        let fixed = parentheses_at(tokens, index + 4)
            .is_some_and(|arguments| arguments.is_empty() || is_static(first_argument(&arguments)));
        if !fixed {
            self.hit(&tokens[index], Rule::S5, DYNAMIC_LUA);
        }
    }
}

fn is_from_sqlx(tokens: &[TokenTree], index: usize) -> bool {
    path_before(tokens, index).iter().any(|segment| segment == "sqlx")
}
