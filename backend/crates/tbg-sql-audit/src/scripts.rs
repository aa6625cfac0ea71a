//! S5 in Lua files, S6.

use crate::markers::{self, Judged};
use crate::{Hit, Place, Rule};

const VERBS: [&str; 4] = ["SELECT", "INSERT", "UPDATE", "DELETE"];
const F_STRING: &str = "SQL in an f-string: use parameters";
const FORMAT: &str = "`.format(` in a script: SQL takes parameters";
/// What makes code of a text.
const LOADERS: [&str; 4] = ["load", "loadstring", "loadfile", "dofile"];
const LOADED: &str = "Lua that is not a static literal";

/// Scans a Lua file.
pub(crate) fn lua(text: &str) -> Judged {
    let mut hits = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let code = line.split("--").next().unwrap_or_default();
        if let Some(at) = LOADERS.iter().find_map(|loader| call(code, loader)) {
            let place = Place { line: index + 1, column: code[..at].chars().count() + 1 };
            hits.push(Hit { place, rule: Rule::S5, message: LOADED });
        }
    }
    judge(text, hits, "--")
}

/// The byte at which `function` is called.
fn call(code: &str, function: &str) -> Option<usize> {
    let is_call = |at: usize| {
        let behind = code[at + function.len()..].trim_start();
        !code[..at].ends_with(is_word) && behind.starts_with(['(', '"', '\'', '['])
    };
    code.match_indices(function).map(|(at, _)| at).find(|at| is_call(*at))
}

/// Scans a Python file.
pub(crate) fn python(text: &str) -> Judged {
    let mut hits: Vec<Hit> = text
        .match_indices(".format(")
        .map(|(at, _)| Hit { place: Place::of_byte(text, at), rule: Rule::S6, message: FORMAT })
        .collect();
    for verb in VERBS {
        for (at, _) in text.match_indices(verb) {
            let goes_on = text[at + verb.len()..].starts_with(is_word);
            if let Some(start) = f_string_start(&text[..at]).filter(|_| !goes_on) {
                hits.push(Hit { place: Place::of_byte(text, start), rule: Rule::S6, message: F_STRING });
            }
        }
    }
    judge(text, hits, "#")
}

/// Where the f-string begins whose first word comes right behind `before`.
fn f_string_start(before: &str) -> Option<usize> {
    let quoted = before.trim_end();
    let quote = quoted.chars().next_back().filter(|c| matches!(c, '"' | '\''))?;
    let outside = quoted.trim_end_matches(quote);
    let start = outside.trim_end_matches(is_word).len();
    let prefix = outside[start..].to_ascii_lowercase();
    matches!(prefix.as_str(), "f" | "fr" | "rf").then_some(start)
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn judge(text: &str, hits: Vec<Hit>, comment: &str) -> Judged {
    markers::judge(hits, &markers::find(text, comment), |marker| {
        markers::next_lines(text, marker, comment, "")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(judged: &Judged) -> Vec<usize> {
        judged.hits.iter().map(|hit| hit.place.line).collect()
    }

    #[test]
    fn python_texts() {
        for text in [
            "x = f\"SELECT 1\"",
            "x = f'DELETE FROM {t}'",
            "x = F\"UPDATE {t}\"",
            "x = rf'INSERT INTO {t}'",
            "x = f\"\"\"\n    SELECT 1\"\"\"",
            "x = 'SELECT {}'.format(t)",
        ] {
            assert_eq!(lines(&python(text)), [1], "{text}");
        }
        for text in ["x = \"SELECT 1\"", "x = f\"SELECTED {n}\"", "x = f\"{n} SELECT\"", "x = elf\"SELECT\""]
        {
            assert!(python(text).hits.is_empty(), "{text}");
        }
    }

    #[test]
    fn lua_texts() {
        for text in ["local f = loadstring(ARGV[1])", "load(x)()", "dofile 'x.lua'"] {
            assert_eq!(lines(&lua(text)), [1], "{text}");
        }
        for text in ["local load = 1", "-- load(x)", "local workload = f(x)", "reload(x)"] {
            assert!(lua(text).hits.is_empty(), "{text}");
        }
        let text = "-- sql-audit: allow(S5) why\nload(x)\nload(y)";
        assert_eq!(lines(&lua(text)), [3]);
    }
}
