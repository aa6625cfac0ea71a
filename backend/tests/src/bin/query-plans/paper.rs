//! The page.

use std::fmt::Write as _;

use crate::Args;
use crate::indexes::Comparison;
use crate::server::Statement;

/// Lines of a plan that are shown; partitions repeat themselves.
const PLAN_LINES: usize = 40;

/// `QUERY_PLANS.md` as it grows.
pub struct Paper {
    text: String,
    slow: Vec<String>,
}

impl Paper {
    /// The head.
    pub fn new(args: &Args, version: &str) -> Self {
        let text = format!(
            "# Query plans\n\nWritten by `make query-plans`; do not edit. PostgreSQL {version}, {} events of {} players, \
             who have a year of weeks behind them, all in memory.\n\nHot is what took more than one hundredth of a \
             chapter's time by `pg_stat_statements`. The work of a chapter is done twice: the times are of the first \
             round, the plan is how the statement was run last in the second, by `auto_explain`, whose clock makes it \
             slower. Bars of production.md §13: 5 ms in the mean for what a player waits for, 5 s for what a job does or an administrator asks; ours for a statement of the writer, which is for all players of a batch, 20 ms.\n",
            args.events, args.users
        );
        Self { text, slow: Vec::new() }
    }

    /// A chapter of hot statements.
    pub fn chapter(&mut self, title: &str, what: &str, bar_ms: f64, statements: &[Statement]) {
        let text = &mut self.text;
        write!(text, "\n## {title}\n\nWhat ran: {what}. Bar: {bar_ms:.0} ms in the mean.\n\n")
            .expect("a text");
        text.push_str(
            "| # | Statement | Calls | Mean ms | Slowest ms | Share of time % |\n|---|---|---|---|---|---|\n",
        );
        for (number, statement) in statements.iter().enumerate() {
            let Statement { calls, mean_ms, max_ms, percent, .. } = statement;
            let first = short(&statement.text);
            writeln!(
                text,
                "| {} | `{first}` | {calls} | {mean_ms:.3} | {max_ms:.3} | {percent:.1} |",
                number + 1
            )
            .expect("a text");
            if *mean_ms >= bar_ms {
                self.slow.push(format!("{title} {}: {mean_ms:.1} ms in the mean: {first}", number + 1));
            }
        }
        for (number, statement) in statements.iter().enumerate() {
            write!(text, "\n### {title} {}\n\n```sql\n{}\n```\n\n", number + 1, tidy(&statement.text))
                .expect("a text");
            block(text, &statement.plan);
        }
    }

    /// The chapter of the indexes.
    pub fn indexes(&mut self, comparisons: &[Comparison]) {
        let text = &mut self.text;
        text.push_str("\n## Indexes, before and after\n\nEach question without its index (dropped in a transaction that is rolled back) and with it.\n\n");
        text.push_str("| Index | Without, ms | With, ms |\n|---|---|---|\n");
        for Comparison { name, parts, before, after, .. } in comparisons {
            writeln!(text, "| `{name}` | {} | {} |", execution(before), execution(after)).expect("a text");
            if !parts.iter().any(|part| after.contains(&format!(" {part} "))) {
                self.slow.push(format!("{name} is not used:\n{after}"));
            }
        }
        for Comparison { name, question, before, after, .. } in comparisons {
            write!(text, "\n### {name}\n\n```sql\n{}\n```\n\nWithout:\n\n", tidy(question)).expect("a text");
            block(text, before);
            text.push_str("\nWith:\n\n");
            block(text, after);
        }
    }

    /// Statements that miss their bar.
    pub fn slow(&self) -> Vec<String> {
        self.slow.clone()
    }

    /// The page so far.
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// A plan.
fn block(text: &mut String, plan: &str) {
    if plan.is_empty() {
        text.push_str("No plan was logged: the second round did not run it.\n");
        return;
    }
    let lines: Vec<&str> = plan.lines().filter(|line| !line.contains("(never executed)")).collect();
    writeln!(text, "```\n{}", lines[..lines.len().min(PLAN_LINES)].join("\n")).expect("a text");
    if lines.len() > PLAN_LINES {
        writeln!(text, "… {} more lines", lines.len() - PLAN_LINES).expect("a text");
    }
    text.push_str("```\n");
}

/// The time of a plan.
fn execution(plan: &str) -> &str {
    let line = plan.lines().find_map(|line| line.trim().strip_prefix("Execution Time: "));
    line.map_or("?", |time| time.trim_end_matches(" ms"))
}

/// One line of a statement.
fn short(statement: &str) -> String {
    let line = statement.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|");
    match line.char_indices().nth(90) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// A statement without the indentation of its source.
fn tidy(statement: &str) -> String {
    let rest = statement.lines().skip(1).filter(|line| !line.trim().is_empty());
    let indent = rest.map(|line| line.len() - line.trim_start().len()).min().unwrap_or_default();
    let cut = |line: &str| line.get(indent..).unwrap_or(line.trim_start()).trim_end().to_owned();
    let mut lines = statement.lines();
    let first = lines.next().unwrap_or_default().trim().to_owned();
    std::iter::once(first).chain(lines.map(cut)).collect::<Vec<_>>().join("\n")
}
