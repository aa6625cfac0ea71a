//! What looks like an SQL statement.
//!
//! Statements of this code base begin with a verb in capitals, prose does not; what follows the verb tells
//! `DELETE FROM users` from `DELETE /api/v1/me` and `SET LOCAL` from a command of Redis.

/// What `CREATE`, `ALTER` and `DROP` are about.
const OBJECTS: [&str; 39] = [
    "AGGREGATE",
    "CAST",
    "COLLATION",
    "CONSTRAINT",
    "DATABASE",
    "DEFAULT",
    "DOMAIN",
    "EVENT",
    "EXTENSION",
    "FOREIGN",
    "FUNCTION",
    "GLOBAL",
    "INDEX",
    "LOCAL",
    "MATERIALIZED",
    "OPERATOR",
    "OR",
    "OWNED",
    "POLICY",
    "PROCEDURE",
    "PUBLICATION",
    "ROLE",
    "RULE",
    "SCHEMA",
    "SEQUENCE",
    "SERVER",
    "STATISTICS",
    "SUBSCRIPTION",
    "SYSTEM",
    "TABLE",
    "TABLESPACE",
    "TEMP",
    "TEMPORARY",
    "TRIGGER",
    "TYPE",
    "UNIQUE",
    "UNLOGGED",
    "USER",
    "VIEW",
];
const PRIVILEGES: [&str; 13] = [
    "ALL",
    "CONNECT",
    "CREATE",
    "DELETE",
    "EXECUTE",
    "INSERT",
    "REFERENCES",
    "SELECT",
    "TEMPORARY",
    "TRIGGER",
    "TRUNCATE",
    "UPDATE",
    "USAGE",
];
/// Words that follow a verb in a sentence, never the name of a table.
const PROSE: [&str; 20] = [
    "a", "all", "an", "and", "are", "at", "failed", "for", "in", "is", "it", "its", "of", "on", "or", "that",
    "the", "this", "to", "your",
];

/// Whether `text` begins like a statement, or is the beginning of one.
pub(crate) fn is_statement(text: &str) -> bool {
    let text = beginning(text);
    let verb = leading(text, |c| c.is_ascii_uppercase());
    let rest = &text[verb.len()..];
    let next = rest.trim_start();
    if next.is_empty() {
        // A piece such as "SELECT " is on its way to become a statement; "SELECT" is a word.
        return !rest.is_empty() && matches!(verb, "SELECT" | "INSERT" | "UPDATE" | "DELETE" | "TRUNCATE");
    }
    if rest.len() == next.len() {
        return match verb {
            "SELECT" => next.starts_with(['*', '(', '"', '\'']),
            "VALUES" => next.starts_with('('),
            _ => false,
        };
    }
    goes_on(verb, next)
}

/// Whether `next` can follow `verb`.
fn goes_on(verb: &str, next: &str) -> bool {
    let second = leading(next, is_word);
    let filled_in = next.starts_with('{');
    match verb {
        "SELECT" => true,
        "INSERT" | "MERGE" => second == "INTO",
        "DELETE" => second == "FROM",
        "UPDATE" | "TRUNCATE" | "VACUUM" | "ANALYZE" | "LISTEN" | "UNLISTEN" | "NOTIFY" | "SAVEPOINT" => {
            filled_in || is_name(next)
        }
        "WITH" => has_word(next, "AS"),
        "CREATE" | "ALTER" | "DROP" => filled_in || OBJECTS.contains(&second),
        "GRANT" | "REVOKE" => filled_in || PRIVILEGES.contains(&second),
        "COPY" => {
            let source = filled_in || next.starts_with('(') || is_name(next);
            source && (has_word(next, "FROM") || has_word(next, "TO"))
        }
        "EXPLAIN" => next.starts_with('(') || matches!(second, "ANALYZE" | "VERBOSE") || is_statement(next),
        "SET" => sets(second, next),
        "LOCK" => second == "TABLE",
        "REFRESH" => second == "MATERIALIZED",
        "REINDEX" => matches!(second, "TABLE" | "INDEX" | "SCHEMA" | "DATABASE" | "SYSTEM"),
        "COMMENT" => second == "ON",
        "CALL" => next.contains('('),
        "DECLARE" => has_word(next, "CURSOR"),
        "DO" => next.starts_with('$'),
        "VALUES" => next.starts_with('('),
        _ => false,
    }
}

/// Whether this is the rest of `SET LOCAL …`, `SET name = …` or `SET name TO …`.
fn sets(second: &str, next: &str) -> bool {
    let after = next[second.len()..].trim_start();
    matches!(second, "CONSTRAINTS" | "LOCAL" | "ROLE" | "SESSION" | "TIME" | "TRANSACTION")
        || (!second.is_empty() && (after.starts_with('=') || after.starts_with("TO ")))
}

/// Without comments, spaces and parentheses in front.
fn beginning(mut text: &str) -> &str {
    loop {
        text = text.trim_start_matches(|c: char| c.is_whitespace() || c == '(');
        let end = if text.starts_with("--") {
            text.find('\n')
        } else if text.starts_with("/*") {
            text.find("*/").map(|end| end + 2)
        } else {
            return text;
        };
        text = end.and_then(|end| text.get(end..)).unwrap_or_default();
    }
}

/// The part of `text` up to the first character that is not `wanted`.
fn leading(text: &str, wanted: impl Fn(char) -> bool) -> &str {
    let end = text.find(|c: char| !wanted(c)).unwrap_or(text.len());
    &text[..end]
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn is_name(next: &str) -> bool {
    let second = leading(next, is_word);
    next.starts_with('"')
        || (second.starts_with(|c: char| c.is_alphabetic() || c == '_') && !PROSE.contains(&second))
}

fn has_word(text: &str, word: &str) -> bool {
    text.split(|c: char| !is_word(c)).any(|other| other == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements() {
        for text in [
            "SELECT 1",
            "SELECT\n  id FROM users",
            "SELECT ",
            "SELECT*FROM users",
            "  -- why\n /* and how */ (SELECT 1)",
            "INSERT INTO users (id) VALUES ($1)",
            "UPDATE users SET name = $1",
            "UPDATE {table} SET name = $1",
            "DELETE FROM users",
            "WITH moved AS (DELETE FROM a RETURNING *) SELECT 1",
            "CREATE DATABASE {name}",
            "CREATE UNIQUE INDEX i ON t (a)",
            "DROP VIEW v",
            "TRUNCATE users",
            "GRANT SELECT ON users TO reader",
            "COPY shares (id, time) FROM STDIN (FORMAT binary)",
            "SET LOCAL statement_timeout = 0",
            "SET timezone TO 'UTC'",
            "EXPLAIN SELECT 1",
            "NOTIFY channel",
        ] {
            assert!(is_statement(text), "{text}");
        }
    }

    #[test]
    fn prose_and_other_languages() {
        for text in [
            "",
            "SELECT",
            "SELECTED",
            "DELETE",
            "DELETE /api/v1/me",
            "CREATE",
            "CREATE an account",
            "SET key value",
            "UPDATE the profile",
            "update users set name = 1",
            "Select a file",
            "Update your password",
            "WITH care",
            "COPY of a file",
            "GET /health",
            "TRUNCATE the file",
            "select 1",
        ] {
            assert!(!is_statement(text), "{text}");
        }
    }
}
