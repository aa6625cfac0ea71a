//! Rust: S1, S2, S3 and S5, on tokens.

mod imports;
mod reach;
mod text;
mod tokens;
mod walk;

use std::str::FromStr as _;

use proc_macro2::{TokenStream, TokenTree};

use crate::markers::{self, Judged};
use crate::{Place, Unreadable};

/// Scans a file. `may_hold_sql` is whether SQL has its place in it, `is_test` whether it may run statements
/// that stand in a variable: sqlx takes only `&'static str` there.
pub(crate) fn scan(text: &str, may_hold_sql: bool, is_test: bool) -> Result<Judged, Unreadable> {
    let stream = TokenStream::from_str(text).map_err(|error| Unreadable {
        place: Place::from(error.span().start()),
        message: "cannot be parsed as Rust",
    })?;
    let tokens: Vec<TokenTree> = stream.into_iter().collect();
    let hits = walk::hits(&tokens, may_hold_sql, is_test);
    let mut markers = markers::find(text, "//");
    if !markers.is_empty() {
        let literals = reach::literals(&tokens);
        markers
            .retain(|marker| !literals.iter().any(|(from, to)| *from <= marker.place && marker.place <= *to));
    }
    Ok(markers::judge(hits, &markers, |marker| reach::next_statement(&tokens, marker.place.line)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rule;

    fn found(text: &str) -> Vec<(usize, Rule)> {
        let judged = scan(text, true, false).unwrap_or_else(|error| panic!("{error:?}"));
        judged.hits.iter().map(|hit| (hit.place.line, hit.rule)).collect()
    }

    #[test]
    fn a_marker_reaches_to_the_end_of_the_statement() {
        let allowed = [
            "// sql-audit: allow(S2) why\nsqlx::query::<Postgres>(sql)\n.bind(1);",
            "{ // a block\n// sql-audit: allow(S2) why\nlet x: Map<A, B> = f(|| { sqlx::query(sql) }); }",
            "let x = f()\n// sql-audit: allow(S2) why\n.chain(sqlx::query_as::<_, Row>(sql));",
            "sqlx::query(sql); // sql-audit: allow(S2) why",
            "// sql-audit: allow(S1) why\nfor sql in [format!(\"DROP TABLE {a}\")] { x }",
        ];
        for text in allowed {
            assert!(found(text).is_empty(), "{text}");
        }
        let too_far = [
            "// sql-audit: allow(S2) why\nx();\nsqlx::query(sql);",
            "// sql-audit: allow(S2) why\nif x {\nsqlx::query(sql); }",
            "{ // sql-audit: allow(S2) why\n}\nsqlx::query(sql);",
        ];
        for text in too_far {
            assert_eq!(found(text), [(1, Rule::S0), (3, Rule::S2)], "{text}");
        }
    }

    #[test]
    fn a_marker_is_a_comment() {
        let text = "let x = \"\n// sql-audit: allow(S2) why\n\";\nsqlx::query(sql);";
        assert_eq!(found(text), [(4, Rule::S2)]);
    }

    #[test]
    fn what_the_compiler_joins() {
        for text in [
            "concat!(\"SELECT * FROM (\", $select, \")\",)",
            "sqlx::query!(\"SELECT a \" + \"FROM b\", 1)",
            "sqlx::query(concat!(\"SELECT a \", \"FROM b\"))",
            "sqlx::query(sql::TAKE)",
        ] {
            assert!(found(text).is_empty(), "{text}");
        }
    }

    #[test]
    fn what_is_no_rust() {
        for (text, line) in [("fn a() {", 1), ("fn a()\n}", 2), ("let x =\n\n \"open", 3)] {
            let error = scan(text, true, false).err();
            assert_eq!(error.map(|error| error.place.line), Some(line), "{text}");
        }
    }
}
