//! `sql-audit: allow(…)` comments. Comments are no tokens, so they are looked for in the lines.

use std::collections::HashSet;

use crate::{Hit, Place, Rule};

const SIGN: &str = "sql-audit:";
const UNSOUND: &str = "an allow names its rules and gives a reason: allow(S2) reason";
const USELESS: &str = "an allow that allows nothing";

/// A stretch of a text, both ends included.
pub(crate) type Reach = (Place, Place);

/// A comment that allows something.
#[derive(Clone, Debug)]
pub(crate) struct Marker {
    pub(crate) place: Place,
    /// Whether it stands behind code, which is then what it is about.
    trailing: bool,
    /// Empty when the comment is not understood or gives no reason.
    rules: Vec<Rule>,
    reason: String,
}

/// What is left of the hits after the markers had their say.
#[derive(Debug, Default)]
pub(crate) struct Judged {
    pub(crate) hits: Vec<Hit>,
    /// Each with the reason.
    pub(crate) allowed: Vec<(Hit, String)>,
}

/// The markers of a text whose comments begin with `comment`.
pub(crate) fn find(text: &str, comment: &str) -> Vec<Marker> {
    text.lines().enumerate().filter_map(|(index, line)| parse(index + 1, line, comment)).collect()
}

fn parse(line_number: usize, line: &str, comment: &str) -> Option<Marker> {
    let (before, after) = line.split_once(SIGN)?;
    let code = before.trim_end().strip_suffix(comment)?;
    if code.ends_with('/') {
        // Documentation is about markers; it is none.
        return None;
    }
    let place = Place { line: line_number, column: code.chars().count() + 1 };
    let (rules, reason) = allowance(after).unwrap_or_default();
    Some(Marker { place, trailing: !code.trim().is_empty(), rules, reason })
}

fn allowance(text: &str) -> Option<(Vec<Rule>, String)> {
    let (names, reason) = text.trim_start().strip_prefix("allow(")?.split_once(')')?;
    let rules = names.split(',').map(|name| Rule::parse(name.trim())).collect::<Option<Vec<_>>>()?;
    let reason = reason.trim();
    (!reason.is_empty()).then(|| (rules, reason.to_owned()))
}

/// Sorts the hits and sets those aside that a marker reaches. A line counts once per rule. `reach` says
/// what a marker on a line of its own is about.
pub(crate) fn judge(
    mut hits: Vec<Hit>,
    markers: &[Marker],
    reach: impl Fn(&Marker) -> Option<Reach>,
) -> Judged {
    hits.sort_by_key(|hit| (hit.place, hit.rule));
    let mut seen = HashSet::new();
    hits.retain(|hit| seen.insert((hit.place.line, hit.rule)));

    let mut judged = Judged::default();
    for marker in markers {
        let hit = |message| Hit { place: marker.place, rule: Rule::S0, message };
        if marker.rules.is_empty() {
            judged.hits.push(hit(UNSOUND));
            continue;
        }
        let line = marker.place.line;
        let reach = if marker.trailing {
            Some((Place { line, column: 0 }, Place { line, column: usize::MAX }))
        } else {
            reach(marker)
        };
        let mut used = HashSet::new();
        hits.retain(|hit| {
            let reached = reach.is_some_and(|(from, to)| from <= hit.place && hit.place <= to);
            if !reached || !marker.rules.contains(&hit.rule) {
                return true;
            }
            used.insert(hit.rule);
            judged.allowed.push((*hit, marker.reason.clone()));
            false
        });
        if marker.rules.iter().any(|rule| !used.contains(rule)) {
            judged.hits.push(hit(USELESS));
        }
    }
    judged.hits.append(&mut hits);
    judged.hits.sort_by_key(|hit| (hit.place, hit.rule));
    judged
}

/// What a marker of a script is about: the next line that is no comment, and the lines after it up to one
/// with `end` in it.
pub(crate) fn next_lines(text: &str, marker: &Marker, comment: &str, end: &str) -> Option<Reach> {
    let mut lines = (1..)
        .zip(text.lines())
        .skip(marker.place.line)
        .skip_while(|(_, line)| line.trim().is_empty() || line.trim_start().starts_with(comment));
    let (first, line) = lines.next()?;
    let last = if line.contains(end) {
        first
    } else {
        lines.find(|(_, line)| line.contains(end)).map_or(usize::MAX, |(last, _)| last)
    };
    Some((Place { line: first, column: 0 }, Place { line: last, column: usize::MAX }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hit(line: usize, rule: Rule) -> Hit {
        Hit { place: Place { line, column: 5 }, rule, message: "a risk" }
    }

    fn rules(hits: &[Hit]) -> Vec<(usize, Rule)> {
        hits.iter().map(|hit| (hit.place.line, hit.rule)).collect()
    }

    fn judge_lines(text: &str, hits: Vec<Hit>) -> Judged {
        judge(hits, &find(text, "//"), |marker| next_lines(text, marker, "//", ";"))
    }

    #[test]
    fn markers_are_found() {
        let text = "// sql-audit: allow(S1, S2) two of them\nx; //sql-audit: allow(S3)  why \n\n\
                    /// sql-audit: allow(S1) a\n//! sql-audit: allow(S1) b";
        let markers = find(text, "//");
        assert_eq!(markers.len(), 2);
        assert_eq!((markers[0].place, markers[0].trailing), (Place { line: 1, column: 1 }, false));
        assert_eq!(markers[0].rules, [Rule::S1, Rule::S2]);
        assert_eq!(markers[0].reason, "two of them");
        assert_eq!((markers[1].place, markers[1].trailing), (Place { line: 2, column: 4 }, true));
        assert_eq!(markers[1].rules, [Rule::S3]);
        assert_eq!(markers[1].reason, "why");
    }

    #[test]
    fn unsound_markers() {
        for text in [
            "// sql-audit: allow(S2)",
            "// sql-audit: allow(S9) no such rule",
            "// sql-audit: allow(S0) not this one",
            "// sql-audit: allow() none",
            "// sql-audit: S2 fine",
        ] {
            let judged = judge_lines(&format!("{text}\nx;"), vec![hit(2, Rule::S2)]);
            assert_eq!(rules(&judged.hits), [(1, Rule::S0), (2, Rule::S2)], "{text}");
        }
    }

    #[test]
    fn a_marker_allows_one_statement() {
        let text = "// sql-audit: allow(S2) why\n// more words\n\nx(\n);\ny;";
        let judged = judge_lines(text, vec![hit(5, Rule::S2), hit(6, Rule::S2), hit(4, Rule::S1)]);
        assert_eq!(rules(&judged.hits), [(4, Rule::S1), (6, Rule::S2)]);
        assert_eq!(judged.allowed.len(), 1);
        assert_eq!(judged.allowed[0].1, "why");
    }

    #[test]
    fn useless_markers() {
        let judged = judge_lines("// sql-audit: allow(S1, S2) why\nx;", vec![hit(2, Rule::S2)]);
        assert_eq!(rules(&judged.hits), [(1, Rule::S0)]);
        let judged = judge_lines("x;\n// sql-audit: allow(S2) why", vec![hit(1, Rule::S2)]);
        assert_eq!(rules(&judged.hits), [(1, Rule::S2), (2, Rule::S0)]);
    }

    #[test]
    fn a_line_counts_once_per_rule() {
        let judged = judge_lines("x;", vec![hit(1, Rule::S2), hit(1, Rule::S1), hit(1, Rule::S2)]);
        assert_eq!(rules(&judged.hits), [(1, Rule::S1), (1, Rule::S2)]);
    }
}
