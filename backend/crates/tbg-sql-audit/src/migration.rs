//! S4: migrations.

mod lexer;

use crate::markers::{self, Judged};
use crate::{Hit, Place, Rule, Unreadable};
use lexer::{Kind, Token, lex};

const JOINED: &str = "EXECUTE of a concatenation: use format() with %I and %L, and USING";
const OWNER: &str = "SECURITY DEFINER without SET search_path: the caller chooses what names mean";

/// Scans a migration.
pub(crate) fn scan(text: &str) -> Result<Judged, Unreadable> {
    let mut hits = Vec::new();
    scan_part(text, text, 0, &mut hits)?;
    let markers = markers::find(text, "--");
    Ok(markers::judge(hits, &markers, |marker| markers::next_lines(text, marker, "--", ";")))
}

/// Scans a part of `text` that begins at the byte `offset`: all of it, or the body of a function.
fn scan_part(text: &str, part: &str, offset: usize, hits: &mut Vec<Hit>) -> Result<(), Unreadable> {
    let place = |at: usize| Place::of_byte(text, offset + at);
    let tokens = lex(part).map_err(|(at, message)| Unreadable { place: place(at), message })?;
    for statement in tokens.split(|token| token.kind == Kind::Sign(';')) {
        if let Some(at) = runs_as_owner(statement) {
            hits.push(Hit { place: place(at), rule: Rule::S4, message: OWNER });
        }
    }
    let mut index = 0;
    while index < tokens.len() {
        let token = &tokens[index];
        index += 1;
        if let Kind::Body { text: body, at } = &token.kind {
            scan_part(text, body, offset + at, hits)?;
        } else if runs_text(&tokens, index - 1) {
            let expression = expression(&tokens, index);
            if is_composed(&tokens, expression) {
                hits.push(Hit { place: place(token.at), rule: Rule::S4, message: JOINED });
            }
            // A quoted body in there is a text.
            index += expression.len();
        }
    }
    Ok(())
}

/// Where a statement makes a function run as its owner, without a search path of its own.
fn runs_as_owner(statement: &[Token<'_>]) -> Option<usize> {
    let pair = |first: &str, second: &str| {
        statement.windows(2).find(|pair| pair[0].is_word(first) && pair[1].is_word(second))
    };
    let definer = pair("SECURITY", "DEFINER")?;
    pair("SET", "SEARCH_PATH").is_none().then_some(definer[0].at)
}

/// Whether the token at `index` is the `EXECUTE` of PL/pgSQL, not the one of a trigger or of a privilege.
fn runs_text(tokens: &[Token<'_>], index: usize) -> bool {
    let is = |index: usize, words: &[&str]| {
        tokens.get(index).is_some_and(|token| words.iter().any(|word| token.is_word(word)))
    };
    is(index, &["EXECUTE"]) && !is(index + 1, &["FUNCTION", "PROCEDURE", "ON"])
}

/// What is executed.
fn expression<'t, 's>(tokens: &'t [Token<'s>], from: usize) -> &'t [Token<'s>] {
    let rest = tokens.get(from..).unwrap_or_default();
    let mut depth = 0_usize;
    let end = rest.iter().position(|token| {
        match token.kind {
            Kind::Sign('(') => depth += 1,
            Kind::Sign(')') => depth = depth.saturating_sub(1),
            _ => {}
        }
        let ends = ["INTO", "USING", "LOOP"].iter().any(|word| token.is_word(word));
        token.kind == Kind::Sign(';') || (ends && depth == 0)
    });
    &rest[..end.unwrap_or(rest.len())]
}

/// Whether an expression, or what is assigned to the variable that it is, puts a text together.
fn is_composed(tokens: &[Token<'_>], expression: &[Token<'_>]) -> bool {
    let [Token { kind: Kind::Word(variable), .. }] = expression else { return joins(expression) };
    (0..tokens.len())
        .filter(|&index| tokens[index].is_word(variable))
        .any(|index| assigned(&tokens[index + 1..]).is_some_and(joins))
}

/// What `:= …`, at most behind the type of a declaration, assigns.
fn assigned<'t, 's>(behind_name: &'t [Token<'s>]) -> Option<&'t [Token<'s>]> {
    let statement = behind_name.split(|token| token.kind == Kind::Sign(';')).next()?;
    let equals = statement.iter().take(3).position(|token| token.kind == Kind::Sign('='))?;
    statement.get(equals + 1..)
}

/// Whether texts are joined. What fills the pattern of a `format()` may be: `%I` and `%L` quote it.
fn joins(expression: &[Token<'_>]) -> bool {
    let mut index = 0;
    while let Some(token) = expression.get(index) {
        index += 1;
        if token.kind == Kind::Join || token.is_word("CONCAT") || token.is_word("CONCAT_WS") {
            return true;
        }
        if token.is_word("FORMAT") {
            let (pattern, length) = format_call(&expression[index..]);
            if joins(pattern) {
                return true;
            }
            index += length;
        }
    }
    false
}

/// The first argument of a call, and how many tokens the call is long.
fn format_call<'t, 's>(call: &'t [Token<'s>]) -> (&'t [Token<'s>], usize) {
    let mut depth = 0_usize;
    let mut first_end = None;
    for (index, token) in call.iter().enumerate() {
        match token.kind {
            Kind::Sign('(') => depth += 1,
            Kind::Sign(')') => depth = depth.saturating_sub(1),
            Kind::Sign(',') if depth == 1 => first_end = first_end.or(Some(index)),
            _ => {}
        }
        if depth == 0 {
            // Without a parenthesis this is a name, not a call.
            return (&call[..first_end.unwrap_or(index)], if index == 0 { 0 } else { index + 1 });
        }
    }
    (call, call.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<usize> {
        let judged = scan(text).unwrap_or_else(|error| panic!("{error:?}"));
        judged.hits.iter().map(|hit| hit.place.line).collect()
    }

    fn body(statement: &str) -> String {
        ["CREATE FUNCTION f() RETURNS VOID LANGUAGE plpgsql AS $$\nBEGIN\n", statement, "\nEND\n$$;"].concat()
    }

    #[test]
    fn dynamic_sql() {
        for statement in [
            "EXECUTE 'DROP TABLE ' || name;",
            "EXECUTE ('DROP TABLE ' || name);",
            "RETURN QUERY EXECUTE 'SELECT ' || a INTO b;",
            "EXECUTE format('DROP TABLE ' || name);",
            "EXECUTE concat('DROP TABLE ', name);",
            "EXECUTE statement; statement := 'DROP TABLE ' || name;",
        ] {
            assert_eq!(lines(&body(statement)), [3], "{statement}");
        }
        for statement in [
            "EXECUTE format('DROP TABLE %I', name || '_default');",
            "EXECUTE format('DROP TABLE %s', name::REGCLASS);",
            "EXECUTE 'SELECT $1' USING a || b;",
            "EXECUTE 'SELECT a || b FROM t';",
            "EXECUTE $q$SELECT a || b FROM t$q$;",
            "-- EXECUTE 'DROP TABLE ' || name;",
            "PERFORM 'EXECUTE ' || name;",
            "EXECUTE statement; statement := 'VACUUM'; other := a || b;",
        ] {
            assert!(lines(&body(statement)).is_empty(), "{statement}");
        }
    }

    #[test]
    fn functions_of_their_owner() {
        assert_eq!(lines("CREATE FUNCTION f() RETURNS INT\nLANGUAGE sql security definer AS 'x';"), [2]);
        for text in [
            "CREATE FUNCTION f() RETURNS INT LANGUAGE sql SECURITY DEFINER SET search_path = a AS 'x';",
            "CREATE FUNCTION f() RETURNS INT LANGUAGE sql SECURITY INVOKER AS 'x';",
            "CREATE TRIGGER t BEFORE UPDATE ON a EXECUTE FUNCTION f();",
            "GRANT EXECUTE ON FUNCTION f TO reader; -- SECURITY DEFINER\n/* SECURITY /* */ DEFINER */",
        ] {
            assert!(lines(text).is_empty(), "{text}");
        }
    }

    #[test]
    fn what_does_not_end() {
        for text in ["SELECT\n'open", "SELECT\n$$ open", "SELECT\n/* open", "SELECT\n\"open"] {
            assert_eq!(scan(text).err().map(|error| error.place.line), Some(2), "{text}");
        }
    }
}
